"""What a run would take: from real steps, without a trace in the file system."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from asit_lab import load_config
from asit_lab.data import load_manifest
from asit_lab.data.sources import synth
from asit_lab.errors import InputError
from asit_lab.runs.directory import open_run, write_json
from asit_lab.runs.snapshot import save_state
from asit_lab.storage.lock import only_writer
from asit_lab.storage.words import duration, size_in_words
from asit_lab.training import estimate as planning
from asit_lab.training.estimate import Plan, plan
from asit_lab.training.step import Gradients

CPU = torch.device("cpu")


@pytest.fixture
def cfg():
    """Quick, and a batch that is measured whole at once: not larger than the trials."""
    settings = ["data.source=synth:12", "data.crop_seconds=0.5", "train.batch_size=4", "train.steps=7"]
    return load_config("smoke", settings)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that each step takes, in turn; `batches` has the (step, clips) of those that were done."""

    class Clock:
        now, steps, batches = 50.0, [1.0], []

        def perf_counter(self):
            return self.now

    clock = Clock()
    gradients, apply = planning.Stepper.gradients, planning.Stepper.apply

    def noted(stepper, batch):
        clock.batches.append((batch.step, len(batch.waves)))
        return gradients(stepper, batch)

    def slow(stepper, step):
        apply(stepper, step)
        clock.now += clock.steps[(len(clock.batches) - 1) % len(clock.steps)]

    clock.batches = []
    monkeypatch.setattr(planning.Stepper, "gradients", noted)
    monkeypatch.setattr(planning.Stepper, "apply", slow)
    monkeypatch.setattr(planning, "time", clock)
    return clock


def contents(folder) -> dict:
    """Every path below a folder with what is in it and when it was changed."""
    paths = sorted(folder.rglob("*"))
    return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None) for path in paths}


# --- A new run ------------------------------------------------------------------------------------------------------


def test_it_extrapolates_the_numbers_of_the_real_run(smoke_run, tmp_path):
    result = smoke_run.result
    planned = plan(smoke_run.config, tmp_path / "x/run")
    assert list(tmp_path.iterdir()) == []
    assert (planned.preset, planned.data) == (result["name"], result["data"])
    for name in ("training_clips", "steps", "epochs", "parameters", "backbone_parameters"):
        assert getattr(planned, name) == result[name], name
    assert (planned.start, planned.batch_size, planned.notes) == (0, 8, ())
    assert (planned.measured_steps, planned.measured_clips) == (4, 8)  # of six, two of them to warm up
    assert planned.hours == pytest.approx(6 * planned.seconds_per_step / 3600)
    assert planned.hours_left == planned.hours > 0
    written = sum(path.stat().st_size for path in smoke_run.snapshots)
    assert written < planned.disk_bytes < written + 50e6
    assert planned.disk_free_bytes == pytest.approx(
        os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize, rel=0.1
    )
    rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert 0.5 * rss < planned.memory_bytes < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert planned.audio_cache_bytes == 0  # made-up sounds are new in every epoch


def test_audio_is_kept_by_every_loader_up_to_its_limit(smoke_run):
    train, _ = load_manifest("synth:40").holdout(0.2)
    assert planning._audio_cache(smoke_run.config, train) == 0  # made-up sounds are new in every epoch
    train.table["path"] = [f"/sounds/{row}.wav" for row in range(32)]  # 5 s each, float32
    for settings, expected in [
        (["data.workers=3"], 3 * 10_240_000),
        (["data.workers=3", "data.cache_mb=2"], 3 * 2_000_000),
        (["data.cache_mb=0"], 0),
    ]:
        assert planning._audio_cache(smoke_run.config.with_overrides(settings), train) == expected
    train.table["seconds"] = [40.0] * 31 + [5.0]  # long ones are never decoded whole
    assert planning._audio_cache(smoke_run.config, train) == 5 * 16000 * 4


def test_time_is_the_median_after_the_warm_up(cfg, clock):
    clock.steps = [90.0, 80.0, 3.0, 1.0, 2.0, 40.0, 4.0]
    planned = plan(cfg, steps=3)
    assert clock.batches == [(step, 4) for step in range(5)]
    assert (planned.seconds_per_step, planned.measured_steps) == (2.0, 3)
    assert planned.hours == pytest.approx(7 * 2 / 3600)
    assert "step" in planned.facts and planned.facts["step"] == "2 s, median of 3 measured"
    assert planned.facts["hours"] == "0.00389 (14 s), without snapshots, saved states and pictures"


@pytest.mark.parametrize(("steps", "done", "measured"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 4, 2)])
def test_a_run_shorter_than_the_measurement(cfg, clock, steps, done, measured):
    planned = plan(cfg.with_overrides([f"train.steps={steps}"]))
    assert [step for step, _ in clock.batches] == list(range(done))
    assert planned.measured_steps == measured


def test_words(cfg, clock):
    planned = plan(cfg)
    assert isinstance(planned, Plan)
    assert planned.facts["data"] == "synth:12, 10 training clips"
    assert planned.facts["length"] == "7 steps, 3.5 epochs"
    assert planned.table["plan"].to_dict() == planned.facts
    assert planned.to_dict()["notes"] == () and planned.to_dict()["seconds_per_step"] == 1.0
    assert "resumes" not in planned.facts


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (0.25 / 3600, "0.25 s"),
        (59 / 3600, "59 s"),
        (200 / 3600, "3 min 20 s"),
        (5.5, "5 h 30 min"),
        (52.4, "2 d 4 h"),
    ],
)
def test_durations(hours, words):
    assert duration(3600 * hours) == words


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (999.9e6, "1 GB"), (2.5e15, "2.5e+03 TB")]
)
def test_sizes(size, words):
    assert size_in_words(size) == words


def test_notes_of_the_data_are_those_of_a_run(cfg):
    (note,) = plan(cfg.with_overrides(["data.crop_seconds=4.5", "train.steps=1"])).notes
    assert note.startswith("a crop of 4.5 s covers")


# --- A directory that is there already ------------------------------------------------------------------------------


def test_it_goes_on_where_the_state_says(cfg, clock, tmp_path):
    run = open_run(tmp_path / "run", cfg)
    save_state(run.state, {"step": 6})
    write_json(run.dir / "status.json", {"status": "running", "step": 2})  # the state is what counts
    before = contents(tmp_path)
    planned = plan(cfg, run.dir, steps=1)
    assert contents(tmp_path) == before
    assert (planned.start, planned.hours, planned.hours_left) == (6, pytest.approx(7 / 3600), pytest.approx(1 / 3600))
    assert planned.facts["resumes"] == "at step 6 of 7, 1 s left"
    assert [step for step, _ in clock.batches] == [4, 5, 6]  # there are no three after it
    with only_writer(run.dir):
        assert any("a process is writing" in note for note in plan(cfg, run.dir, steps=1).notes)
    assert plan(cfg, run.dir, steps=1).notes == ()


def test_nothing_is_left_of_a_finished_run(smoke_run):
    before = contents(smoke_run.dir)
    planned = plan(smoke_run.config, smoke_run.dir, steps=1)
    assert contents(smoke_run.dir) == before
    assert (planned.start, planned.hours_left) == (6, 0)
    assert planned.facts["resumes"] == "at step 6 of 6, 0 s left"


def test_it_refuses_what_a_start_refuses(cfg, clock, tmp_path):
    run = open_run(tmp_path / "run", cfg)
    (tmp_path / "file").write_text("mine")
    before = contents(tmp_path)
    for out, change, resume, words in [
        (run.dir, "mask.ratio=0.6", "auto", "another configuration.*\n  mask.ratio: 0.7 there, 0.6 requested"),
        (run.dir, "train.seed=0", "never", "already holds a run"),
        (tmp_path / "new", "train.seed=0", "must", "there is no run to resume"),
        (tmp_path / "file", "train.seed=0", "auto", "file: a file is in the way"),
        (tmp_path / "file/run", "train.seed=0", "auto", "run: the run directory cannot be made: .*file is a file"),
        (None, "data.source=synht", "auto", "did you mean synth"),
        (None, "train.init_from=nowhere", "auto", "train.init_from: .*nowhere does not exist"),
    ]:
        with pytest.raises(InputError, match=words):
            plan(cfg.with_overrides([change]), out, resume)
    run.state.write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="state.pt: cannot be read as a saved state"):
        plan(cfg, run.dir)
    run.state.unlink()
    after = contents(tmp_path)
    assert {path: content for path, (_, content) in after.items()} == {p: c for p, (_, c) in before.items()}
    with pytest.raises(InputError, match="steps: 0 is not"):
        plan(cfg, steps=0)


def test_too_many_bad_files(cfg, tmp_path):

    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", synth.render_clip(0, number, 16000), 16000)
    (tmp_path / "bad.wav").write_bytes(b"nothing")
    half = cfg.with_overrides([f"data.source=folder:{tmp_path}", "train.steps=1", "data.max_bad_share=0.25"])
    assert plan(half).training_clips == 2
    with pytest.raises(InputError, match="1 of 4 files of folder:.* more than data.max_bad_share 0.2"):
        plan(half.with_overrides(["data.max_bad_share=0.2"]))


def test_files_whose_damage_only_decoding_shows(cfg, tmp_path):
    """A run decodes a sample before it starts, and so does its estimate; nothing is written."""
    for number in range(4):
        wave = np.random.default_rng(number).uniform(-0.1, 0.1, 32000).astype(np.float32)
        wave[100] = np.nan if number == 3 else wave[100]
        soundfile.write(tmp_path / f"{number}.wav", wave, 16000, subtype="FLOAT")
    damaged = cfg.with_overrides([f"data.source=folder:{tmp_path}", "data.holdout=0", "train.batch_size=2"])
    with pytest.raises(
        InputError, match=r"1 of 4 files .* more than data.max_bad_share .* `asit-lab data check folder:"
    ):
        plan(damaged, steps=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.wav", "1.wav", "2.wav", "3.wav"]


def test_a_loss_that_is_not_finite_is_told(cfg, monkeypatch):
    monkeypatch.setattr(Gradients, "finite", False)
    with pytest.raises(FloatingPointError, match="step 0: loss or gradient is not finite"):
        plan(cfg)


def test_a_disk_that_is_too_small_is_told(cfg, monkeypatch, tmp_path):
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    (note,) = plan(cfg, tmp_path / "run", steps=1).notes
    assert note.startswith("the run needs ") and "5 kB are free" in note


# --- Whole steps that are too much ----------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["memory", "time"])
def test_whole_steps_are_not_tried_where_they_are_too_much(cfg, clock, monkeypatch, reason):
    if reason == "memory":
        monkeypatch.setattr(planning, "memory_limit", lambda device: 1)
    else:
        clock.steps = [60.0]  # of 4 clips, so 120 s a step
    planned = plan(cfg.with_overrides(["train.batch_size=8"]))
    assert clock.batches == [(0, 2), (1, 2), (0, 4), (1, 4)]
    assert (planned.measured_clips, planned.batch_size, planned.measured_steps) == (4, 8, 1)
    assert planned.seconds_per_step == 2 * clock.steps[0]
    (note,) = planned.notes
    assert ("train.accumulate" if reason == "memory" else "a whole step takes some 2 min,") in note
    assert "estimated from 4 clips" in planned.facts["step"] and "estimated from 4 clips" in planned.facts["memory"]


def test_a_busy_machine_is_told(cfg, monkeypatch):
    monkeypatch.setattr(planning.os, "getloadavg", lambda: (3.0 * os.cpu_count(), 0.0, 0.0))
    assert plan(cfg, steps=1).facts["machine"].startswith("busy, 3.0 processes for each core")
    monkeypatch.setattr(planning.os, "getloadavg", lambda: (0.5, 0.0, 0.0))
    assert "machine" not in plan(cfg, steps=1).facts


def test_slow_steps_are_measured_fewer_times(cfg, clock):
    clock.steps = [15.0]  # of 4 clips; 30 s estimated for 8, of which four fit into two minutes
    planned = plan(cfg.with_overrides(["train.batch_size=8"]))
    assert clock.batches[4:] == [(step, 8) for step in range(4)]
    assert (planned.measured_steps, planned.measured_clips, planned.notes) == (2, 8, ())


def test_time_and_memory_grow_with_the_clips(cfg, monkeypatch):
    def measured(fabric, cfg, objective, train, start, steps, warm):
        clips = cfg.train.batch_size
        assert cfg.train.accumulate == 1
        return planning._Measured(seconds=0.5 * clips, steps=steps, clips=clips, memory=1000 + 10 * clips)

    monkeypatch.setattr(planning, "_measure", measured)
    large = cfg.with_overrides(["train.batch_size=64", "train.accumulate=2"])
    estimated = planning._extrapolate(None, large, range(10))
    assert estimated == planning._Measured(seconds=32.0, steps=1, clips=4, memory=1000 + 10 * 32)


# --- Memory ---------------------------------------------------------------------------------------------------------


def test_limits_of_control_groups(tmp_path):
    (tmp_path / "slurm/job").mkdir(parents=True)
    (tmp_path / "slurm/job/memory.max").write_text("max\n")
    (tmp_path / "slurm/memory.max").write_text("4000\n")
    (tmp_path / "memory.max").write_text("9000\n")
    own = tmp_path / "own"
    own.write_text("4:memory:/other\n0::/slurm/job\n")
    assert planning._group_limits(tmp_path, own) == [4000, 9000]
    own.write_text("0::/\n")
    assert planning._group_limits(tmp_path, own) == [9000]
    assert planning._group_limits(tmp_path, tmp_path / "none") == []


def test_peak_and_limit_include_what_is_held(monkeypatch):
    held = torch.ones(30_000_000)  # 120 MB
    assert planning.peak_memory(CPU) >= held.nbytes
    assert planning.memory_limit(CPU) > held.nbytes
    monkeypatch.setattr(planning, "_group_limits", lambda: [7])
    assert planning.memory_limit(CPU) == 7
