"""What happens unattended: runners and kernels are killed, notebooks fail, hang or eat memory, two runners meet.

Notebooks that count stand for trainings, real ones for resuming; every test starts real processes and kernels.
"""

import json
import os
import signal
import subprocess
import sys

import pytest
from batch_case import is_gone, kernel_of, start_runner, wait_until, words, write_notebook, write_study

from asit_lab import InputError, batch, load_run
from asit_lab.batch.execution import runner
from asit_lab.batch.execution.state import read_claim, state_of

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    return tmp_path


def states(study) -> dict[str, str]:
    table = batch.status(study)
    return dict(zip(table["setting"], table["state"], strict=True))


def test_a_point_that_fails_ends_alone_and_is_kept(home, capsys):
    """Failing, without a result, too much memory: each ends with its reason, the others are done, nothing is left."""
    rows = [
        "{name: good, settings: {steps: 1}}",
        "{name: bad, settings: {what: fail}}",
        "{name: silent, settings: {what: nothing}}",
        "{name: greedy, settings: {what: eat}}",
    ]
    study = write_study(home, f"rows: [{', '.join(rows)}]\nscales: {{smoke: {{memory_gb: 0.5}}}}")
    table = batch.run(study, workers=2).set_index("setting")
    folders = {point.setting: point.folder for point in batch.points(study, "smoke")}
    assert table["state"].to_dict() == {"good": "finished", "bad": "failed", "silent": "failed", "greedy": "failed"}
    assert table["reason"]["bad"] == "ValueError: this point is no good"
    assert "result.json: nothing readable there" in table["reason"]["silent"]
    assert "more than its limit of 0.5 GB" in table["reason"]["greedy"]
    assert all(is_gone(kernel_of(folder)) for folder in folders.values())
    trace, notebook = (folders["bad"] / "error.txt").read_text(), (folders["bad"] / "notebook.ipynb").read_text()
    assert 'raise ValueError("this point is no good")' in trace and "\x1b" not in trace
    assert "this point is no good" in json.loads(notebook)["cells"][-1]["outputs"][0]["evalue"]
    said = capsys.readouterr().err
    assert "small: good, seed 0: finished after" in said and "1 finished, 3 failed of 4" in said

    # Again: what is finished or failed is left alone; asked for, failed points are done again; the first try is kept.
    batch.run(study)
    assert words(folders["good"]) == ["begun at 0", "ended"] and words(folders["bad"]) == ["begun at 0"]
    for name in ("silent", "greedy"):
        folders[name].joinpath("run/result.json").write_text('{"score": 1}')
        folders[name].joinpath("status.json").write_text('{"state": "finished"}')
    batch.run(study, again=True)
    assert words(folders["good"]) == ["begun at 0", "ended"] and words(folders["bad"]) == ["begun at 0"] * 2
    assert (folders["bad"] / "failed-1.txt").read_text() == trace
    assert (folders["bad"] / "failed-1.ipynb").read_text() == notebook

    # A result that was cut off is no result: that point, and no other, is done again.
    (folders["good"] / "run/result.json").write_text('{"sco')
    assert states(study)["good"] == "interrupted"
    batch.run(study)
    assert states(study)["good"] == "finished" and words(folders["good"])[2:] == ["begun at 1", "ended"]


def test_a_point_that_hangs_is_ended_at_its_limit(home):
    study = write_study(home, "rows: [{name: stuck, settings: {what: hang}}]\nscales: {smoke: {}}")
    (point,) = batch.points(study, "smoke")
    table = batch.run(study, hours=40 / 3600)
    assert table["state"].tolist() == ["failed"] and "longer than its limit of 0.0111" in table["reason"][0]
    assert is_gone(kernel_of(point.folder))


def test_runner_and_kernel_are_killed_and_no_point_is_done_twice(home):
    study = write_study(home, "grid: {steps: [40, 41, 42]}\nscales: {smoke: {}}")
    folders = [point.folder for point in batch.points(study, "smoke")]

    first = start_runner(home, study)
    wait_until(lambda: kernel_of(folders[0]) and (folders[0] / "run/count.txt").exists(), "the first point")
    kernel, parent = kernel_of(folders[0]), read_claim(folders[0]).about["pid"]
    first.kill()
    first.wait()
    wait_until(lambda: is_gone(kernel) and is_gone(parent), "the end of what the runner had started")
    assert state_of(folders[0]).state == "interrupted"

    second = start_runner(home, study)
    wait_until(lambda: kernel_of(folders[1]) and (folders[1] / "run/count.txt").exists(), "the second point")
    os.kill(kernel_of(folders[1]), signal.SIGKILL)
    assert second.wait() == 0
    assert list(states(study).values()) == ["finished", "interrupted", "finished"]
    assert "its kernel was killed" in state_of(folders[1]).reason

    batch.run(study)
    assert list(states(study).values()) == ["finished"] * 3
    for folder, starts in zip(folders, (2, 2, 1), strict=True):
        told = words(folder)
        assert told.count("ended") == 1 and len(told) == starts + 1
        if starts == 2:  # it went on where it was
            assert told[0] == "begun at 0" and int(told[1].removeprefix("begun at ")) > 0


def test_two_runners_share_the_points(home):
    study = write_study(home, "grid: {steps: [5, 6, 7, 8]}\nscales: {smoke: {}}")
    runners = [start_runner(home, study) for _ in range(2)]
    assert [one.wait() for one in runners] == [0, 0]
    for point in batch.points(study, "smoke"):
        assert state_of(point.folder).state == "finished" and words(point.folder) == ["begun at 0", "ended"]


def test_points_of_another_study_are_not_done_again(home):
    first = write_study(home, "grid: {steps: [1]}\nscales: {smoke: {}}", "first")
    second = write_study(home, "rows: [{name: one, settings: {steps: 1}}]\nscales: {smoke: {}}", "second")
    batch.run(first)
    assert batch.run(second)["state"].tolist() == ["finished"]
    (point,) = batch.points(second, "smoke")
    assert words(point.folder) == ["begun at 0", "ended"]
    assert batch.collect(second).summary["mean"].tolist() == [0.1]


def test_ctrl_c_saves_the_training_and_it_goes_on(home):
    """A real training, by package calls alone: stopped after some steps, it ends as if it had not been."""
    parameters = 'preset = ""\ndata = ""\nevaluate = ""\noverrides = ""\nseed = 0\nout = ""'
    notebook, study = write_notebook(home / "real.ipynb", parameters, "pass"), home / "real.yaml"
    study.write_text(
        f"title: Real\nnotebook: {notebook}\ngrid: {{mask.ratio: [0.7]}}\n"
        'scales: {smoke: {preset: smoke, data: "synth:40", settings: {train.steps: 500, train.snapshots: 1}}}\n'
    )
    (point,) = batch.points(study, "smoke")
    process = start_runner(home, study, notebooks=False)
    wait_until(lambda: state_of(point.folder).share > 0.01, "some steps")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 3
    run = load_run(point.folder / "run")
    reached = run.progress["step"]
    assert run.status == "terminated" and 0 < reached < 500 and states(study) == {"mask.ratio=0.7": "interrupted"}
    again = start_runner(home, study, notebooks=False)
    assert again.wait() == 0
    assert f"continued at step {reached}" in run.progress["notes"]
    assert run.metrics["step"].tolist() == list(range(500))
    assert {row["encoder"] for row in run.result["probe"]} >= {"teacher", "random init"}
    found = batch.collect(study).points.iloc[0]
    assert found["probe.teacher.mean"] == run.result["probe"][0]["mean"] and found["done_with"] == "package"


def test_a_full_disk_stops_the_study(home, monkeypatch):
    study = write_study(home, "rows: [{name: a, settings: {what: fail}}, {name: b}]\nscales: {smoke: {}}")
    usage = runner.shutil.disk_usage(home)
    monkeypatch.setattr(runner.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(InputError, match="the disk is full .*Make room and give the same command again"):
        batch.run(study)
    monkeypatch.setattr(runner.shutil, "disk_usage", lambda _: usage)
    assert states(study) == {"a": "interrupted", "b": "waiting"}


def test_stop_from_another_process(home):
    study = write_study(home, "rows: [{name: stuck, settings: {what: hang}}, {name: b}]\nscales: {smoke: {}}")
    folder = batch.points(study, "smoke")[0].folder
    process = start_runner(home, study)
    wait_until(lambda: kernel_of(folder), "the kernel")
    told = subprocess.run(
        [sys.executable, "-c", f"from asit_lab import batch; print(batch.stop({str(study)!r}))"],
        env={**os.environ, "ASIT_LAB_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert f"-{process.pid}'" in told.stdout and process.wait() == 3
    assert states(study) == {"stuck": "interrupted", "b": "waiting"} and is_gone(kernel_of(folder))
