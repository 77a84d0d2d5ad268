"""How much disk a run takes, and what happens where there is less."""

import os
import re
import resource
import shutil
from pathlib import Path

import pytest
import torch
from children import assert_same, ctrl_c_in_row, start
from safetensors.torch import save_file

import asit_lab
from asit_lab import InputError, load_config, load_run
from asit_lab.config import RunConfig
from asit_lab.objectives import build_objective
from asit_lab.runs.snapshot import PICTURES, TABLES, disk_needed, read_state, save_state
from asit_lab.storage.atomic import atomic_write
from asit_lab.training import recorder

SMALL = ["data.source=synth:20", "features.sample_rate=8000", "data.crop_seconds=0.5", "train.snapshots=2"]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(recorder, "save_samples", lambda *_: None)


def size(path: Path) -> int:
    return path.stat().st_size


# --- Foreseen -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides", [[], ["objective.weights={local: 1, global: 1}", "objective.combine=uncertainty"]]
)
def test_what_a_run_takes_is_known_before(tmp_path, overrides):
    """All snapshots and two states, within a tenth, beside what is set aside for pictures and tables."""
    cfg = load_config("smoke", [*SMALL, *overrides])
    with ctrl_c_in_row(4):
        run = asit_lab.pretrain(cfg, tmp_path / "run")
    taken = 3 * size(run.snapshots[0]) + 2 * size(run.state)
    foreseen = disk_needed(cfg, build_objective(cfg, 18), 1000) - 3 * PICTURES - TABLES
    assert 0.85 * taken < foreseen < taken
    more = cfg.with_overrides(["train.snapshots=10"])
    assert disk_needed(more, build_objective(cfg, 18), 1000) - foreseen > 8 * 0.85 * size(run.snapshots[0])


def test_a_run_that_does_not_fit_is_not_begun(tmp_path, monkeypatch):
    asked = []

    def disk_usage(path):
        asked.append(path)
        return shutil._ntuple_diskusage(10**9, 10**9 - 5 * 10**6, 5 * 10**6)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    cfg = load_config("smoke", SMALL)
    with pytest.raises(InputError, match=r"run: 5 MB are free and the run will write up to (\d+) MB; make room") as why:
        asit_lab.pretrain(cfg, tmp_path / "run")
    assert asked == [tmp_path / "run"]
    needed = disk_needed(cfg, build_objective(cfg, 18), cfg.total_steps(18))
    assert f"up to {needed / 1e6:.0f} MB" in str(why.value)
    assert load_run(tmp_path / "run").status == "failed" and not (tmp_path / "run/metrics.csv").exists()


def test_what_is_written_already_needs_no_room(tmp_path, monkeypatch):
    cfg = load_config("smoke", SMALL)
    with ctrl_c_in_row(4):
        run = asit_lab.pretrain(cfg, tmp_path / "run")
    there = size(run.state) + sum(map(size, run.snapshots))
    needed = disk_needed(cfg, build_objective(cfg, 18), cfg.total_steps(18))
    free = [needed - there - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - free[0], free[0]))
    with pytest.raises(InputError, match="are free and the run will write"):
        asit_lab.pretrain(cfg, tmp_path / "run")
    assert run.status == "failed" and run.state.is_file()
    free[0] += 1
    assert asit_lab.pretrain(cfg, tmp_path / "run").status == "finished"


# --- Met on the way -------------------------------------------------------------------------------------------------


def fill_up(out: Path, cfg: RunConfig, step: int, limit: int, message: Path) -> None:
    """A run that from a step on cannot write files above a size, which fails as a full disk does."""
    recorder.save_samples = lambda *_: None

    def on_log(run, row):
        if row["step"] == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    try:
        asit_lab.pretrain(cfg, out, on_log=on_log)
    except InputError as error:
        os.write(os.open(message, os.O_WRONLY | os.O_CREAT), str(error).encode())


@pytest.mark.slow
def test_a_disk_that_fills_up(tmp_path):
    """At a row, a snapshot, a state, before and after a first state: one clear error, and the run goes on."""
    cfg = load_config("smoke", SMALL)
    undisturbed = asit_lab.pretrain(cfg, tmp_path / "whole")
    rows, weights = size(undisturbed.dir / "metrics.csv"), size(undisturbed.snapshots[0])
    cases = {
        # name: from which step, files above which size, what cannot be written, what is left
        "row": (4, int(rows * 0.9), r"metrics\.csv", "resumes at step 3"),
        "snapshot": (4, weights - 100, r"snapshots/step-6\.safetensors", "resumes at step 3"),
        "state": (4, weights + 1000, r"state\.pt", "resumes at step 3"),
        "first state": (1, weights + 1000, r"state\.pt", "starts anew"),
    }
    for name, (step, limit, file, rest) in cases.items():
        out, message = tmp_path / name, tmp_path / f"{name}.txt"
        process = start(fill_up, out, cfg, step, limit, message)
        process.join()
        assert process.exitcode == 0
        assert re.fullmatch(
            rf"{re.escape(str(out))}/{file}: cannot be written: File too large\. What was written before is intact: "
            rf"once there is room, the run {rest} when it is started as before with resume='auto'",
            message.read_text(),
        )
        run = load_run(out)
        assert run.status == "failed" and "cannot be written" in run.progress["reason"]
        assert not list(out.rglob(".*.tmp"))  # what could not be finished takes no room
        if "resumes" in rest:
            assert read_state(run.state, torch.device("cpu"))["step"] == 3
        assert asit_lab.pretrain(cfg, out).status == "finished"
        assert_same(out, undisturbed.dir)


def test_weights_can_be_read_by_whom_the_user_lets(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "x.safetensors") as temporary:
        save_file({"x": torch.zeros(1)}, temporary)
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    save_state(tmp_path / "state.pt", {"step": 3})
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "state.pt") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    with pytest.raises(PermissionError, match="not this"), atomic_write(tmp_path / "state.pt"):
        raise PermissionError("not this")  # only a full disk is given other words
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    assert (tmp_path / "state.pt").read_bytes() == before
