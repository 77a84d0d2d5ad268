"""Runs in processes of their own: without the optional packages, and spread over two processes by torchrun."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import asit_lab
from asit_lab import load_config, load_run
from asit_lab.runs.snapshot import read_snapshot
from asit_lab.training import recorder

pytestmark = pytest.mark.slow

SMALL = ["data.source=synth:20", "features.sample_rate=8000", "data.crop_seconds=0.5", "train.snapshots=1"]


def python(*arguments, **environment) -> subprocess.CompletedProcess:
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0", **environment}
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=variables)


# --- Without the optional packages ----------------------------------------------------------------------------------

WITHOUT = """
import sys

BLOCKED = set("matplotlib tensorboard IPython ipywidgets ipykernel papermill sklearn scipy librosa pooch".split())

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in BLOCKED else self.finder.find_spec(name, path, target)

    def find_distributions(self, *arguments, **options):
        found = getattr(self.finder, "find_distributions", lambda *_, **__: [])(*arguments, **options)
        return (each for each in found if (each.metadata["Name"] or "").lower() not in BLOCKED)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import asit_lab

run = asit_lab.pretrain(asit_lab.load_config("smoke", sys.argv[2:]), sys.argv[1])
assert not BLOCKED & set(sys.modules), BLOCKED & set(sys.modules)
print(run.status, asit_lab.load_encoder(run.dir).embed([0.0] * 8000, 8000).shape)
"""


def test_a_run_needs_only_the_core_s_packages(tmp_path):
    (tmp_path / "without.py").write_text(WITHOUT)
    done = python(tmp_path / "without.py", tmp_path / "run", *SMALL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "finished torch.Size([1, 48])"
    run = load_run(tmp_path / "run")
    assert run.samples == [] and not list(run.dir.glob("events.*"))
    assert len(run.snapshots) == 1 and run.metrics["step"].tolist() == [0, 1, 2, 3, 4, 5]


# --- Two processes --------------------------------------------------------------------------------------------------

# Losses over every pixel and token: their mean over two halves of a batch is that of the batch. Everything random is
# on, as it must not hang on who draws it.
SPREAD = [
    *SMALL,
    "data.source=synth:40",
    "objective.reconstruct=all",
    "objective.local_tokens=all",
    "model.drop_path=0.3",
    "data.circular_shift=0.5",
    "mask.kinds={zeros: 1, noise: 1, alien: 1, none: 1}",
    "train.batch_size=32",
    "train.snapshots=2",
]

TWO = """
import json, os, signal, sys
import asit_lab
from asit_lab.training import recorder, step as stepping

recorder.save_samples = lambda *_: None
out, jobs = sys.argv[1], json.loads(sys.argv[2])
set_schedule = stepping.set_schedule
outcomes = {}
for name, job in jobs.items():
    def stopping(optimizer, cfg, clips, step, at=job.get("stop"), asked=job.get("asked")):
        if step == at:
            raise KeyboardInterrupt
        if [step, int(os.environ["RANK"])] == asked:
            os.kill(os.getpid(), signal.SIGINT)
        return set_schedule(optimizer, cfg, clips, step)
    stepping.set_schedule = stopping
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test runner in the background ignores it
    try:
        cfg = asit_lab.load_config("smoke", job["overrides"])
        run = asit_lab.pretrain(cfg, f"{out}/{job['dir']}", resume=job["resume"])
        outcomes[name] = run.status
    except asit_lab.InputError as error:
        outcomes[name] = f"InputError: {error}"
rank = __import__("torch").distributed.get_rank()
open(f"{out}/outcomes-{rank}.json", "w").write(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Several runs by two processes, one after the other: (folder, outcome of each job, the same on both processes)."""
    out = tmp_path_factory.mktemp("two")
    generator = np.random.default_rng(0)
    (out / "data").mkdir()
    for i in range(24):
        wave = 0.1 * generator.standard_normal(9600)
        wave[5000] = np.nan if i in (3, 11, 17) else 0.0
        soundfile.write(out / f"data/{i:02}.wav", wave, 8000, subtype="FLOAT")
    rows = [f"{i:02}.wav,x,{i}" for i in range(24)]  # the group is the name: who is held out is the same everywhere
    (out / "data/list.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
    bad = [*SMALL, f"data.source=folder:{out}/data/list.csv", "train.batch_size=16", "train.steps=8"]
    jobs = {
        "whole": {"dir": "whole", "overrides": SPREAD, "resume": "never"},
        "stopped": {"dir": "parts", "overrides": SPREAD, "resume": "never", "stop": 4},
        "continued": {"dir": "parts", "overrides": SPREAD, "resume": "must"},
        "asked": {"dir": "asked", "overrides": SPREAD, "resume": "never", "asked": [1, 1]},
        "asked, continued": {"dir": "asked", "overrides": SPREAD, "resume": "must"},
        "finished": {"dir": "parts", "overrides": SPREAD, "resume": "auto"},
        "parts of parts": {"dir": "accumulate", "overrides": [*SPREAD, "train.accumulate=2"], "resume": "auto"},
        "bf16": {"dir": "bf16", "overrides": [*SPREAD, "train.precision=bf16"], "resume": "auto"},
        "taken": {"dir": "whole", "overrides": SPREAD, "resume": "never"},
        "uneven": {"dir": "uneven", "overrides": [*SMALL, "train.batch_size=9"], "resume": "auto"},
        "bad files": {"dir": "bad", "overrides": bad, "resume": "auto"},
        "too many": {"dir": "many", "overrides": [*bad, "data.max_bad_share=0.1"], "resume": "auto"},
    }
    (out / "two.py").write_text(TWO)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = python(*launch, out / "two.py", out, json.dumps(jobs), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((out / f"outcomes-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    return out, first


@pytest.fixture(scope="module")
def one(two):
    """The whole run by this process alone."""
    drawn, recorder.save_samples = recorder.save_samples, lambda *_: None
    try:
        return asit_lab.pretrain(load_config("smoke", SPREAD), two[0] / "one")
    finally:
        recorder.save_samples = drawn


def compare(a, b, precise: float) -> None:
    """Metrics and weights of two runs, up to the order of sums."""
    assert a.metrics["step"].tolist() == b.metrics["step"].tolist() == [0, 1, 2, 3, 4, 5]
    pd.testing.assert_frame_equal(
        a.metrics.filter(regex="loss|rate|decay|norm|centre|momentum"),
        b.metrics.filter(regex="loss|rate|decay|norm|centre|momentum"),
        rtol=precise,
    )
    assert [path.name for path in a.snapshots] == [path.name for path in b.snapshots]
    ours, theirs = (read_snapshot(run.snapshots[-1])[0] for run in (a, b))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=2e-4)


def test_two_processes_train_as_one(two, one):
    out, outcomes = two
    assert outcomes["whole"] == "finished"
    run = load_run(out / "whole")
    compare(run, one, precise=2e-3)
    assert run.metrics["loss"].iloc[0] == pytest.approx(one.metrics["loss"].iloc[0], rel=1e-5)
    assert json.loads((run.dir / "environment.json").read_text())["processes"] == 2
    names = {path.name for path in run.dir.iterdir() if not path.name.startswith("events.")}
    assert names == (
        {".lock", "config.yaml", "environment.json", "metrics.csv", "timings.csv", "result.json", "snapshots"}
        | {"state.pt", "status.json"}
    )
    assert len(list(run.dir.glob("events.*"))) == 1  # one process writes


def test_two_processes_with_parts_train_as_one(two, one):
    out, outcomes = two
    assert outcomes["parts of parts"] == "finished"
    compare(load_run(out / "accumulate"), one, precise=2e-3)


def test_two_processes_in_bf16(two, one):
    out, outcomes = two
    assert outcomes["bf16"] == "finished"
    metrics = load_run(out / "bf16").metrics
    assert metrics["loss"].tolist() == pytest.approx(one.metrics["loss"].tolist(), rel=0.02)


@pytest.mark.parametrize(
    ("folder", "jobs"), [("parts", ("stopped", "continued")), ("asked", ("asked", "asked, continued"))]
)
def test_two_processes_go_on_to_the_bit(two, folder, jobs):
    """Also where one alone was asked to stop, after a step that no state was due at: both stop after the same."""
    out, outcomes = two
    assert [outcomes[name] for name in jobs] == ["interrupted", "finished"] and outcomes["finished"] == "finished"
    whole, parts = load_run(out / "whole"), load_run(out / folder)
    assert f"continued at step {3 if folder == 'parts' else 2}" in parts.progress["notes"]
    assert len(whole.snapshots) == 2
    for path in [whole.dir / "metrics.csv", whole.dir / "result.json", *whole.snapshots]:
        assert (parts.dir / path.relative_to(whole.dir)).read_bytes() == path.read_bytes()


def test_two_processes_tell_the_same_errors(two):
    out, outcomes = two
    assert outcomes["taken"].startswith(f"InputError: {out / 'whole'}: already holds a run")
    assert outcomes["uneven"] == (
        "InputError: train.batch_size: 9 is not a multiple of 2 processes x train.accumulate 1"
    )
    assert load_run(out / "uneven").status == "failed"


def test_two_processes_list_the_bad_files_of_both(two):
    out, outcomes = two
    assert outcomes["bad files"] == "finished"
    run = load_run(out / "bad")
    assert {path.rpartition("/")[2] for path in run.bad_files["path"]} == {"03.wav", "11.wav", "17.wav"}
    assert run.result["bad_files"] == 3
    assert "of 24 files" in outcomes["too many"] and "data.max_bad_share 0.1" in outcomes["too many"]
    assert load_run(out / "many").status == "failed"
