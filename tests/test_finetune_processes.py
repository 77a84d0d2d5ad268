"""Fine-tuning spread over two processes by torchrun gives what one process gives, stopped or not."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
from safetensors.torch import load_file

from asit_lab import Encoder, load_config
from asit_lab.finetuning import finetune
from asit_lab.finetuning.outputs import read_outputs

pytestmark = pytest.mark.slow

# Batches of five: a process has more clips than the other, and of the last batch perhaps one alone.
SETTINGS = ["epochs=2", "average_from=2", "batch_size=5", "drop_path=0.1", "checkpoint_every=2", "precision=fp32"]
TWO = """
import json, os, signal, sys
import asit_lab
from asit_lab import Encoder, load_config
from asit_lab.finetuning import finetune, loop

out, settings = sys.argv[1], json.loads(sys.argv[2])
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test runner in the background ignores it
step = loop._Trainer.step

def stopping(trainer, batch):
    if batch.step == 3 and trainer.team.rank == 1:
        os.kill(os.getpid(), signal.SIGINT)  # in one process alone
    return step(trainer, batch)

encoder, statuses = Encoder.random(load_config("smoke"), seed=0), []
for name in ("whole", "stopped", "stopped"):
    loop._Trainer.step = stopping if name == "stopped" and len(statuses) == 1 else step
    result = finetune(encoder, f"folder:{out}/clips", "smoke", f"{out}/{name}", settings, folds=[1], allow_leaks=True)
    statuses.append(result.status)
try:
    finetune(encoder, f"folder:{out}/clips", "smoke", f"{out}/whole", [*settings, "rate=1"], allow_leaks=True)
except asit_lab.InputError as error:
    statuses.append(str(error).splitlines()[-1])
with open(f"{out}/statuses-{os.environ['RANK']}.json", "w") as file:
    json.dump(statuses, file)
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """22 clips in two classes, two of which cannot be read once they were listed."""
    out, generator = tmp_path_factory.mktemp("processes"), np.random.default_rng(0)
    for number in range(22):
        folder = out / "clips" / ("low", "high")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        wave = 0.1 * generator.standard_normal(16000) + 0.3 * np.sin(np.arange(16000) * (0.1 + 0.4 * (number % 2)))
        wave[5000] = np.nan if number in (4, 13) else 0.0
        soundfile.write(folder / f"{number:02}.wav", wave, 16000, subtype="FLOAT")
    return out


@pytest.fixture(scope="module")
def two(clips):
    """(folder, statuses): a run, and one that is stopped and resumed, by two processes."""
    (clips / "two.py").write_text(TWO)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launch, clips / "two.py", clips, json.dumps(SETTINGS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((clips / f"statuses-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    return clips, first


@pytest.fixture(scope="module")
def one(clips):
    """The same by this process alone."""
    encoder = Encoder.random(load_config("smoke"), seed=0)
    return finetune(encoder, f"folder:{clips}/clips", "smoke", clips / "one", SETTINGS, folds=[1], allow_leaks=True)


def equal(a, b, precise: float) -> None:
    """Outputs, weights and metrics of two folders of a split, up to rounding."""
    for name in ("last", "averaged"):
        ours, theirs = (read_outputs(folder / f"test-{name}.npz") for folder in (a, b))
        assert ours.rows.tolist() == theirs.rows.tolist()
        np.testing.assert_allclose(ours.outputs, theirs.outputs, atol=precise)
        for ours, theirs in zip(*(load_file(f / f"{name}.safetensors").values() for f in (a, b)), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=precise)
    ours, theirs = (pd.read_csv(folder / "metrics.csv") for folder in (a, b))
    pd.testing.assert_frame_equal(ours, theirs, rtol=precise)
    ours, theirs = (json.loads((folder / "result.json").read_text()) for folder in (a, b))
    assert ours["skipped"] == theirs["skipped"] and len(ours["skipped"]) == 2


def test_two_processes_give_what_one_gives(two, one):
    out, (status, *_) = two
    assert status == one.status == "finished"
    equal(out / "whole/seed-0-fold-1", out / "one/seed-0-fold-1", 2e-4)
    scores = [json.loads((out / name / "result.json").read_text())["scores"] for name in ("whole", "one")]
    assert scores[0] == scores[1]


def test_a_signal_to_one_process_stops_both_and_the_run_resumes_to_the_bit(two):
    out, (_, stopped, resumed, _) = two
    assert (stopped, resumed) == ("interrupted", "finished")
    equal(out / "stopped/seed-0-fold-1", out / "whole/seed-0-fold-1", 0.0)


def test_bad_input_is_an_error_in_every_process(two):
    _, (*_, refused) = two
    assert refused == "  recipe.rate: 0.0003 there, 1.0 requested"
