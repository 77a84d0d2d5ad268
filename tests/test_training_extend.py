"""Runs that are trained longer, and hooks: what they see, and that KeyboardInterrupt in them saves."""

import shutil

import pytest
import torch

import asit_lab
from asit_lab import InputError, load_config
from asit_lab.cli import main
from asit_lab.runs.snapshot import read_snapshot, read_state
from asit_lab.schedules import cosine
from asit_lab.training import recorder

SMALL = ["data.source=synth:20", "features.sample_rate=8000", "data.crop_seconds=0.5", "train.snapshots=1"]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(recorder, "save_samples", lambda *_: None)


def config(*overrides: str):
    return load_config("smoke", [*SMALL, "train.steps=4", "optim.warmup=2", *overrides])


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    drawn, recorder.save_samples = recorder.save_samples, lambda *_: None
    try:
        return asit_lab.pretrain(config(), tmp_path_factory.mktemp("first") / "run")
    finally:
        recorder.save_samples = drawn


def state(run) -> dict:
    return read_state(run.state, torch.device("cpu"))


def test_a_finished_run_goes_on_from_its_end(first, tmp_path):
    seen = {}

    def on_step(run, done, losses):
        if done == 5:  # the loss of the first step here is that of the weights taken over
            seen["loss"] = losses["loss"].item()

    run = asit_lab.pretrain(config("train.steps=9"), tmp_path / "longer", resume_from=first.dir, on_step=on_step)
    assert run.status == "finished" and run.config.train.steps == 9
    assert run.metrics["step"].tolist() == list(range(9))
    assert run.metrics[:4].equals(first.metrics) and run.metrics["loss"][4] == pytest.approx(seen["loss"], rel=1e-5)
    assert run.result["resumed_from"] == {"run": str(first.dir), "step": 4} and run.result["steps"] == 9
    peak = run.config.optim.rate * run.config.train.batch_size / run.config.optim.rate_batch
    stretched = [cosine(peak, run.config.optim.min_rate, 9, step, 2) for step in range(4, 9)]
    assert run.metrics["rate"][4:].tolist() == pytest.approx(stretched, rel=1e-5)
    (note,) = [note for note in run.progress["notes"] if str(first.dir) in note]
    assert "schedules are stretched to 9 steps" in note and f"goes on at {stretched[0]:.3g}" in note
    assert state(first)["step"] == 4 and first.status == "finished"  # it is left as it was


def test_with_the_schedule_of_the_whole_length_it_is_the_run_of_that_length(tmp_path):
    """A constant rate, decay and momentum do not depend on the length: what goes on ends as what was never ended."""
    constant = [
        "optim.rate=5e-4",
        "optim.min_rate=5e-4",
        "optim.rate_batch=8",
        "optim.weight_decay_end=0.04",
        "optim.warmup=1",
    ]
    fixed = [*constant, "objective.ema=0.99", "objective.ema_end=0.99", "train.batch_size=8"]
    fixed += ["objective.teacher_temperature=0.05", "objective.teacher_temperature_end=0.05", "optim.weight_decay=0.04"]
    short = asit_lab.pretrain(config(*fixed), tmp_path / "short")
    longer = asit_lab.pretrain(config(*fixed, "train.steps=6"), tmp_path / "longer", resume_from=short)
    whole = asit_lab.pretrain(config(*fixed, "train.steps=6"), tmp_path / "whole")
    assert longer.metrics.equals(whole.metrics)
    there, here = (read_snapshot(run.snapshots[-1])[0] for run in (whole, longer))
    assert all(torch.equal(there[name], here[name]) for name in there)


@pytest.mark.parametrize("name", ["status.json", "metrics.csv"])
def test_a_run_that_lacks_a_file_is_not_gone_on_from(first, tmp_path, name):
    shutil.copytree(first.dir, tmp_path / "lacking")
    (tmp_path / "lacking" / name).unlink()
    with pytest.raises(InputError, match=f"lacking lacks {name}"):
        asit_lab.pretrain(config("train.steps=9"), tmp_path / "longer", resume_from=tmp_path / "lacking")
    assert not (tmp_path / "longer").exists()


def test_a_longer_run_resumes_as_any_other(first, tmp_path):
    def stop(run, done, losses):
        if done == 6:
            raise KeyboardInterrupt

    longer = {"cfg": config("train.steps=9"), "resume_from": first.dir}
    stopped = asit_lab.pretrain(out=tmp_path / "parts", on_step=stop, **longer)
    assert stopped.status == "interrupted" and state(stopped)["step"] == 6
    parts = asit_lab.pretrain(out=tmp_path / "parts", **longer)
    whole = asit_lab.pretrain(out=tmp_path / "whole", **longer)
    assert parts.metrics.equals(whole.metrics) and parts.result == whole.result
    assert any("schedules are stretched" in note for note in parts.progress["notes"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "has 4 steps and the longer run would have 4"),
        (["train.steps=9", "model.depth=1"], "trained with other settings.*\n  model.depth: 2 there, 1 requested"),
        (["train.steps=9", "data.source=synth:30"], "data.source: synth:20 there"),
    ],
)
def test_what_is_no_longer_run_is_refused(first, tmp_path, overrides, words):
    with pytest.raises(InputError, match=words):
        asit_lab.pretrain(config(*overrides), tmp_path / "run", resume_from=first.dir)
    assert not (tmp_path / "run").exists()


def test_a_source_without_a_state_is_refused(first, tmp_path):
    with pytest.raises(InputError, match="holds a run of another configuration; choose another directory"):
        asit_lab.pretrain(config("train.steps=9"), first.dir, resume_from=first.dir)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/config.yaml").write_text(first.config.to_yaml())
    with pytest.raises(InputError, match=r"has no state\.pt.*train\.init_from="):
        asit_lab.pretrain(config("train.steps=9"), tmp_path / "run", resume_from=tmp_path / "old")


def test_longer_from_the_shell(first, tmp_path, monkeypatch, capsys):
    command = ["asit-lab", "pretrain", "--resume-from", str(first.dir), "--out", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", [*command, "-s", "train.steps=6"])
    main_exits(0)
    run = asit_lab.load_run(tmp_path / "run")
    assert run.status == "finished" and run.config == config("train.steps=6")
    monkeypatch.setattr("sys.argv", [*command, "--preset", "micro"])
    main_exits(2)
    assert "--resume-from: cannot be combined with --preset" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_trained(first, tmp_path, monkeypatch, capsys):
    command = ["asit-lab", "pretrain", "--resume-from", str(first.dir), "--out", str(tmp_path / "run"), "--dry-run"]
    monkeypatch.setattr("sys.argv", [*command, "-s", "train.steps=9"])
    main_exits(0)
    shown = capsys.readouterr().out
    assert "at step 4 of 9, " in shown and f"the first 4 steps are those of {first.dir}; schedules are str" in shown
    monkeypatch.setattr("sys.argv", command)
    main_exits(2)
    assert "has 4 steps and the longer run would have 4" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def main_exits(status: int) -> None:
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code or 0) == status


# --- Hooks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["on_log", "on_step"])
def test_keyboard_interrupt_in_a_hook_saves(tmp_path, hook):
    def stop(run, *about):
        at = about[0]["step"] + 1 if hook == "on_log" else about[0]
        if at == 3:
            raise KeyboardInterrupt

    run = asit_lab.pretrain(config(), tmp_path / "run", **{hook: stop})
    assert run.status == "interrupted" and run.progress["step"] == 3 == state(run)["step"]  # no state was due at 3
    assert asit_lab.pretrain(config(), tmp_path / "run").status == "finished"


def test_on_step_sees_every_step(tmp_path):
    seen = []
    options = {"on_step": lambda run, done, losses: seen.append((done, losses["loss"].item()))}
    run = asit_lab.pretrain(config("train.log_every=3"), tmp_path / "run", **options)
    assert [done for done, _ in seen] == [1, 2, 3, 4] and run.metrics["step"].tolist() == [0, 3]
    assert run.metrics["loss"].tolist() == pytest.approx([seen[0][1], seen[3][1]], rel=1e-6)
