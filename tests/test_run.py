"""The run directory: what is written, read back, refused; files that are whole or not there."""

import json
import multiprocessing
from contextlib import ExitStack

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from asit_lab import load_config, load_run
from asit_lab.errors import InputError
from asit_lab.objectives import build_network
from asit_lab.runs.directory import Run, StepLog, open_run
from asit_lab.runs.environment import environment, environment_changes
from asit_lab.runs.snapshot import read_snapshot, read_state, save_snapshot, save_state, section
from asit_lab.storage.atomic import clear_leftovers, write_json, write_text


@pytest.fixture(scope="module")
def cfg():
    return load_config("smoke")


# --- Opening --------------------------------------------------------------------------------------------------------


def test_a_new_directory_holds_its_config_at_once(cfg, tmp_path):
    run = open_run(tmp_path / "a/b/run", cfg)
    assert [path.name for path in run.dir.iterdir()] == ["config.yaml"]
    assert load_config(run.dir) == cfg and load_run(run.dir).config == cfg
    assert (run.status, run.progress, run.result, len(run.metrics), len(run.bad_files)) == ("new", {}, {}, 0, 0)
    assert run.snapshots == run.samples == []


def test_relative_directories_count_from_home(cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert open_run("runs/x", cfg).dir == tmp_path / "home/runs/x"


def test_resume_auto_never_must(cfg, tmp_path):
    with pytest.raises(InputError, match="no run to resume") as problem:
        open_run(tmp_path / "r", cfg, "must")
    assert str(tmp_path / "r") in str(problem.value)
    assert not (tmp_path / "r").exists()
    open_run(tmp_path / "r", cfg, "never")
    with pytest.raises(InputError, match="already holds a run"):
        open_run(tmp_path / "r", cfg, "never")
    assert open_run(tmp_path / "r", cfg, "must").dir == open_run(tmp_path / "r", cfg, "auto").dir
    with pytest.raises(InputError, match="'maybe' is not one of auto, never, must"):
        open_run(tmp_path / "r", cfg, "maybe")


def test_another_configuration_is_refused_with_every_difference(cfg, tmp_path):
    run = open_run(tmp_path / "r", cfg)
    before = (run.dir / "config.yaml").read_bytes()
    other = cfg.with_overrides(["mask.ratio=0.5", "mask.ratio_min=0.5", "train.seed=3", "name=other"])
    with pytest.raises(InputError) as problem:
        open_run(run.dir, other)
    lines = str(problem.value).splitlines()
    assert str(run.dir) in lines[0]
    assert lines[1:] == [
        "  mask.ratio: 0.7 there, 0.5 requested",
        "  mask.ratio_min: 0.7 there, 0.5 requested",
        "  train.seed: 0 there, 3 requested",
    ]
    assert (run.dir / "config.yaml").read_bytes() == before
    assert open_run(run.dir, cfg.with_overrides(["name=renamed"])).dir == run.dir  # a name changes nothing


def test_a_failed_run_with_weights_is_not_begun_again(cfg, tmp_path):
    run = open_run(tmp_path / "run", cfg)
    write_json(run.dir / "status.json", {"status": "failed"})
    other = cfg.with_overrides(["train.seed=3"])
    (run.dir / "snapshots").mkdir()
    snapshot = run.dir / "snapshots/step-3.safetensors"
    snapshot.touch()
    with ExitStack() as hold, pytest.raises(InputError, match="holds a run of another configuration"):
        open_run(run.dir, other, hold=hold)
    snapshot.unlink()
    with ExitStack() as hold:
        assert open_run(run.dir, other, hold=hold).config == other == load_config(run.dir)


def test_things_in_the_way(cfg, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file is in the way"):
        open_run(tmp_path / "file", cfg)
    with pytest.raises(InputError, match="cannot be made") as problem:
        open_run(tmp_path / "file/run", cfg)
    assert str(tmp_path / "file/run") in str(problem.value)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(InputError, match="not a run directory"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_text("train: [")
    with pytest.raises(InputError, match="config.yaml: not valid YAML"):
        open_run(tmp_path, cfg)


# --- Contents -------------------------------------------------------------------------------------------------------


def test_step_log_writes_and_cuts_back(tmp_path):
    path = tmp_path / "metrics.csv"
    log = StepLog(path, 0)
    for step in range(0, 40, 10):
        log.write({"step": step, "loss": 1 / (step + 3), "rate": 1e-3})
    written = path.read_text()
    assert written.splitlines()[:2] == ["step,loss,rate", "0,0.3333333,0.001"]

    log = StepLog(path, 20)  # back to a state saved at step 20
    assert path.read_text() == "".join(line + "\n" for line in written.splitlines()[:3])
    log.write({"step": 20, "loss": 1 / 23, "rate": 1e-3, "another": 1.0})  # columns stay those of the first row
    log.write({"step": 30, "loss": 1 / 33, "rate": 1e-3})
    assert path.read_text() == written

    StepLog(path, 0)
    assert not path.exists()


def test_metrics_and_status_are_read_anew(cfg, tmp_path):
    run = open_run(tmp_path / "r", cfg)
    assert list(run.metrics.columns) == ["step"]
    StepLog(run.dir / "metrics.csv", 0).write({"step": 4, "loss": 2.5})
    write_json(run.dir / "status.json", {"status": "running", "step": 4})
    assert run.metrics.to_dict("records") == [{"step": 4, "loss": 2.5}]
    assert (run.status, run.progress["step"]) == ("running", 4)


def test_record_adds_to_the_result(cfg, tmp_path):
    run = open_run(tmp_path / "r", cfg)
    write_json(run.dir / "result.json", {"seed": 0})
    result = run.record(probe=[{"mean": 0.5}], errors=None)
    assert result == {"seed": 0, "probe": [{"mean": 0.5}], "errors": None}
    assert json.loads((run.dir / "result.json").read_text()) == result


def test_processes_that_record_at_once_lose_nothing(cfg, tmp_path):
    """Each adds its own entries, twenty times over."""
    run = open_run(tmp_path / "r", cfg)

    def record(name: str) -> None:
        for i in range(20):
            load_run(run.dir).record(**{f"{name}{i}": i})

    context = multiprocessing.get_context("fork")  # imports nothing again
    started = [context.Process(target=record, args=(name,)) for name in "abc"]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0, 0]
    assert set(run.result) == {f"{name}{i}" for name in "abc" for i in range(20)}


def test_results_keep_what_arrays_and_tables_hold(cfg, tmp_path):
    run = open_run(tmp_path / "run", cfg)
    table = pd.DataFrame({"name": ["a", "b"], "score": np.array([0.5, 0.25], np.float32)})
    found = run.record(
        half=np.float32(0.5),
        seven=np.int64(7),
        quarter=torch.tensor(0.25),
        many=np.arange(2000),
        table=table,
        path=run.dir,
    )
    assert (found["half"], found["seven"], found["quarter"]) == (0.5, 7, 0.25)
    assert found["many"] == list(range(2000)) and found["path"] == str(run.dir)
    assert found["table"] == [{"name": "a", "score": 0.5}, {"name": "b", "score": 0.25}]


def test_snapshots_are_in_the_order_of_their_steps(cfg, tmp_path):
    run = Run(tmp_path, cfg)
    for folder, suffix in (("snapshots", "safetensors"), ("samples", "png")):
        (tmp_path / folder).mkdir()
        for step in (1000, 50, 200):
            (tmp_path / folder / f"step-{step}.{suffix}").touch()
        (tmp_path / folder / f".step-7.{suffix}.tmp").touch()
    assert [path.stem for path in run.snapshots] == ["step-50", "step-200", "step-1000"]
    assert [path.stem for path in run.samples] == ["step-50", "step-200", "step-1000"]


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_text(tmp_path / "x", "old")

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="no space"):
        write_text(tmp_path / "x", "new")
    monkeypatch.undo()
    assert (tmp_path / "x").read_text() == "old"
    write_text(tmp_path / "x", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]  # nothing temporary stays


def test_environment_and_its_changes():
    now = environment(torch.device("cpu"), 2)
    assert (now["device_type"], now["processes"]) == ("cpu", 2)
    assert {"torch", "torchaudio", "numpy", "threads", "python", "soxr"} <= set(now)
    assert environment_changes(now, {**now, "system": "x", "command": "y", "started": "z"}) == []
    assert environment_changes({}, now) == []  # a run directory without environment.json
    notes = environment_changes({**now, "torch": "2.0", "threads": 64}, now)
    assert len(notes) == 2
    assert notes[0].startswith(f"torch is {now['torch']}, it was 2.0") and notes[1].startswith("threads is")


# --- Snapshots and states -------------------------------------------------------------------------------------------


def test_snapshot_round_trip(cfg, tmp_path):
    student, teacher = build_network(cfg, seed=1), build_network(cfg, seed=2)
    path = tmp_path / "snapshots/step-12.safetensors"
    save_snapshot(path, student, teacher, cfg, 12)
    tensors, read_cfg, step = read_snapshot(path)
    assert (read_cfg, step) == (cfg, 12)
    for role, module in (
        ("teacher.backbone", teacher.backbone),
        ("student.backbone", student.backbone),
        ("student.decoder", student.decoder),
    ):
        theirs = module.state_dict()
        assert section(tensors, role).keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in section(tensors, role).items())
    assert {name.rpartition("backbone")[0] or name.split(".")[0] for name in tensors} <= {
        "teacher.",
        "student.",
        "student",
    }
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_files_that_are_no_snapshot(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(InputError, match=r"a\.safetensors: not a readable"):
        read_snapshot(tmp_path / "a.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"b\.safetensors: not a snapshot of asit_lab"):
        read_snapshot(tmp_path / "b.safetensors")


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_state_round_trip_and_damage(tmp_path):
    path, cpu = tmp_path / "state.pt", torch.device("cpu")
    content = {"step": 3, "objective": {"w": torch.arange(4.0)}, "bad": {"x.wav": "corrupt"}}
    save_state(path, content)
    read = read_state(path, cpu)
    assert torch.equal(read.pop("objective")["w"], torch.arange(4.0))
    assert read == {"step": 3, "bad": {"x.wav": "corrupt"}}
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]

    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"state\.pt: cannot be read"):
        read_state(path, cpu)
    torch.save(Trap(tmp_path / "mark"), path)
    with pytest.raises(InputError, match=r"state\.pt: cannot be read"):
        read_state(path, cpu)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("torn", ["30", "3", "30,1.", "30,1.125"])
def test_a_torn_row_is_cut(tmp_path, torn):
    """Also "3" of "30", which reads as a step that is to be kept, and a row without its end."""
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,loss\n0,1.5\n10,1.25\n20,1.\n{torn}")
    assert Run(tmp_path, load_config("smoke")).metrics["step"].tolist() == [0, 10, 20]
    StepLog(path, 20)
    assert path.read_text() == "step,loss\n0,1.5\n10,1.25\n"


@pytest.mark.parametrize("torn", ["", "st", "step,loss"])
def test_a_torn_header_is_no_log(tmp_path, torn):
    path = tmp_path / "metrics.csv"
    path.write_text(torn)
    assert len(Run(tmp_path, load_config("smoke")).metrics) == 0
    StepLog(path, 0).write({"step": 0, "loss": 2.0})
    assert path.read_text() == "step,loss\n0,2\n"


def test_leftovers_of_killed_processes_go(cfg, tmp_path):
    run = open_run(tmp_path / "r", cfg)
    kept = [".lock", "config.yaml", "snapshots/step-3.safetensors", "samples/step-3.png"]
    gone = [".state.pt.77.tmp", ".metrics.csv.7.tmp", "snapshots/.step-6.safetensors.7.tmp"]
    gone += ["samples/.step-6.png.7.tmp"]
    for name in kept[2:] + gone:
        (run.dir / name).parent.mkdir(exist_ok=True)
        (run.dir / name).write_text("x")
    with ExitStack() as hold:
        open_run(run.dir, cfg, hold=hold)
        names = {str(path.relative_to(run.dir)) for path in run.dir.rglob("*") if path.is_file()}
        assert names == set(kept)
    clear_leftovers(run.dir)
    assert names == set(kept)


def test_files_of_the_user_stay_where_a_run_is_begun_among_them(cfg, tmp_path):
    own = [".recordings.zip.part", ".draft.tmp", ".tmpabcdef", "other/.state.pt.42.tmp", ".notes.7.tmp"]
    for name in own:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    with ExitStack() as hold:
        open_run(tmp_path, cfg, hold=hold)
    assert all((tmp_path / name).is_file() for name in own)
    with ExitStack() as hold:
        open_run(tmp_path, cfg, hold=hold)  # a run of ours by now, whose unfinished files go
    assert [name for name in own if not (tmp_path / name).is_file()] == [".tmpabcdef", ".notes.7.tmp"]


def test_a_directory_without_a_name(cfg):
    with pytest.raises(InputError, match="out: empty; give a directory"):
        open_run("", cfg)


def test_files_of_a_run_that_are_damaged_are_named(cfg, tmp_path):
    run = open_run(tmp_path / "r", cfg)
    for content, words in (('{"step": 1', "status.json: not JSON"), ("[]", "status.json: expected named entries")):
        (run.dir / "status.json").write_text(content)
        with pytest.raises(InputError, match=words), ExitStack() as hold:
            open_run(run.dir, cfg, hold=hold)
    (run.dir / "metrics.csv").write_text("step,loss\nabc,1\n")
    with pytest.raises(InputError, match="metrics.csv: a row does not begin with a step"):
        StepLog(run.dir / "metrics.csv", 5)
    (run.dir / "config.yaml").write_text("mask: {ratio: 7}")
    with pytest.raises(InputError, match="r/config.yaml: mask.ratio: 7 is not valid"):
        load_run(run.dir)
