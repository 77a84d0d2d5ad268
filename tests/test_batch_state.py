"""Where a point stands and what a study found, from files that were written by hand: no kernel runs here."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext

import numpy as np
import pandas as pd
import pytest
from batch_case import PATIENCE, is_gone, write_study

from asit_lab import InputError
from asit_lab.batch import collect, points, results, status, stop
from asit_lab.batch.execution import state as states
from asit_lab.batch.execution.cluster import threads_each, visible_gpus
from asit_lab.batch.execution.processes import TOKEN, end_attempt, family, memory, of_attempt
from asit_lab.batch.execution.runners import at_work, at_work_now, remember, remembered
from asit_lab.batch.execution.state import CLAIM, Held, hold, read_claim, renewing, state_of, write_state
from asit_lab.batch.results import flat
from asit_lab.batch.study import read_study
from asit_lab.storage.words import duration

SMALL = """rows: [{name: a, settings: {steps: 1}, published: 10}, {name: b, settings: {steps: 2}}]
scales: {smoke: {seeds: 2}}"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    return read_study(write_study(tmp_path, SMALL))


def finish(point, score: float, right=(), **result) -> None:
    """Leave what a finished point leaves; right: answers to clips 0, 1, ..."""
    write_state(point.folder, "finished", seconds=3.0, host="here")
    (point.folder / "run").mkdir()
    (point.folder / states.RESULT).write_text(json.dumps({"score": score, **result}))
    if len(right):
        rows = [
            {"split": "1", "path": str(i), "group": str(i // 2), "label": "x", "predicted": "x" if yes else "y"}
            for i, yes in enumerate(right)
        ]
        pd.DataFrame(rows).to_csv(point.folder / "run/predictions.csv", index=False)


# --- One point ------------------------------------------------------------------------------------------------------


def test_states_follow_from_files(tmp_path):
    assert state_of(tmp_path).state == "waiting"
    write_state(tmp_path, "running", began=time.time(), seconds=7.0)
    left = state_of(tmp_path)
    assert left.state == "interrupted" and "without a word" in left.reason and left.seconds == 7.0
    with hold(tmp_path), renewing(tmp_path):
        assert state_of(tmp_path).state == "running"
    write_state(tmp_path, "failed", "no good")
    assert (state_of(tmp_path).state, state_of(tmp_path).reason) == ("failed", "no good")


@pytest.mark.parametrize("text", [None, "", '{"score": 0.', "[1]"])
def test_a_result_that_is_cut_off_is_no_result(tmp_path, text):
    write_state(tmp_path, "finished")
    (tmp_path / "run").mkdir()
    if text is not None:
        (tmp_path / states.RESULT).write_text(text)
    now = state_of(tmp_path)
    assert now.state == "interrupted" and "result.json is missing or cut off" in now.reason
    (tmp_path / states.RESULT).write_text('{"score": 0.5}')
    assert state_of(tmp_path).state == "finished"


def test_a_status_that_is_cut_off_is_a_point_that_waits(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "fin')
    assert state_of(tmp_path).state == "waiting"


def test_only_one_holds_a_point(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from asit_lab.batch.execution.state import hold\n"
        f"with hold(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    assert state_of(tmp_path).state == "running"
    with pytest.raises(Held, match=f"process {other.pid} "), hold(tmp_path):
        pass
    other.kill()
    other.wait()
    with hold(tmp_path):
        pass


def test_a_claim_from_another_machine_counts_while_it_is_fresh(tmp_path):
    claim = tmp_path / CLAIM.format(1)
    claim.write_text(json.dumps({"pid": 1, "host": "elsewhere", "machine": "another"}))
    now = state_of(tmp_path)
    assert now.state == "running" and now.held_by == "process 1 on elsewhere"
    with pytest.raises(Held, match="process 1 on elsewhere"), hold(tmp_path):
        pass
    old = time.time() - 2 * states.STALE_SECONDS
    os.utime(claim, (old, old))
    assert state_of(tmp_path).state == "waiting"
    with hold(tmp_path):
        pass


def test_of_two_machines_one_alone_claims_a_point(tmp_path, monkeypatch):
    """Both look at the same time, and neither sees the other's lock."""
    monkeypatch.setattr(states, "only_writer", lambda folder: nullcontext())
    looked = states.read_claim

    def look_then_lose(folder):
        """Between our look and our claim another machine claims the point."""
        seen = looked(folder)
        monkeypatch.setattr(states, "read_claim", looked)
        monkeypatch.setattr(states, "machine", lambda: "another")
        stack.enter_context(hold(folder))
        monkeypatch.setattr(states, "machine", lambda: "ours")
        return seen

    for _ in range(2):  # a point that nobody had claimed, and one whose claim was released
        with ExitStack() as stack:
            monkeypatch.setattr(states, "read_claim", look_then_lose)
            with pytest.raises(Held, match="has just begun to work on this point"), hold(tmp_path):
                pass
            with pytest.raises(Held, match=f"process {os.getpid()} on .* works on this point"), hold(tmp_path):
                pass
        with hold(tmp_path):
            pass
    assert read_claim(tmp_path).number == 4 and len(list(tmp_path.glob(CLAIM.format("*")))) == 1


def test_a_container_on_this_host_is_another_machine(tmp_path, monkeypatch):
    """It may share the host's name, see no lock of ours, and have its own processes under our numbers."""
    here = states.machine.__wrapped__()
    assert here == states.machine()
    monkeypatch.setattr(states.os, "readlink", lambda path: "pid:[1]")
    there = states.machine.__wrapped__()
    assert there != here
    about = {"pid": os.getpid(), "host": socket.gethostname(), "machine": there, "token": "ours"}
    (tmp_path / CLAIM.format(1)).write_text(json.dumps(about))
    assert read_claim(tmp_path).is_elsewhere and not read_claim(tmp_path).is_here
    with pytest.raises(Held, match="works on this point"), hold(tmp_path):
        pass


def test_of_many_that_find_a_stale_claim_one_takes_the_point_over(tmp_path):
    (tmp_path / CLAIM.format(7)).write_text(json.dumps({"pid": 1, "host": "elsewhere", "token": "old"}))
    stale = read_claim(tmp_path)

    def claim(_) -> bool:
        try:
            return bool(states._claim(tmp_path, stale))
        except Held:
            return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(claim, range(32))) == 1
    assert read_claim(tmp_path).number == 8


def test_whoever_lost_its_claim_stops(tmp_path, monkeypatch):
    """A machine that slept for longer than its claim counts, and whose point another one has taken over."""
    monkeypatch.setattr(states, "BEAT_SECONDS", 0.01)
    told = threading.Event()
    monkeypatch.setattr(states.os, "kill", lambda pid, number: (pid, number) == (os.getpid(), 15) and told.set())
    with hold(tmp_path) as before, renewing(tmp_path):
        assert before.number == 0 and not told.wait(0.1)
        (tmp_path / CLAIM.format(1)).unlink()
        (tmp_path / CLAIM.format(2)).write_text("{}")
        assert told.wait(60)
    assert (tmp_path / CLAIM.format(2)).read_text() == "{}"  # not ours to release


@pytest.mark.slow
def test_leftovers_of_an_attempt_that_was_killed_are_ended(tree, tmp_path):
    """By the next attempt on the same machine, whatever has become of the numbers of their processes."""
    point, (parent, child) = tmp_path / "point", tree
    point.mkdir()
    about = {"pid": parent.pid, "host": "ours", "machine": states.machine(), "token": "ours"}
    (point / CLAIM.format(1)).write_text(json.dumps(about))
    write_state(point, "finished")
    (point / "run").mkdir()
    (point / states.RESULT).write_text('{"score": 1}')  # so nothing is left to do
    command = [sys.executable, "-m", "asit_lab.batch.execution.child", str(point), "package"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as attempt:  # it stops when standard input closes
        assert attempt.wait(PATIENCE) == 0
    assert is_gone(parent.pid) and is_gone(child)


def test_how_far_a_training_is(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/status.json").write_text(json.dumps({"status": "running", "total_steps": 40}))
    (tmp_path / "run/timings.csv").write_text("step,seconds\n0,1\n9,2\n1")
    assert state_of(tmp_path).share == 0.25


# --- Processes ------------------------------------------------------------------------------------------------------

# A process in a session of its own, with a child in another: as a point's process and its kernel.
TREE = (
    "import subprocess, sys, time; kept = bytearray(b'x') * 50_000_000; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True); "
    "print(child.pid, flush=True); time.sleep(60)"
)


@pytest.fixture
def tree():
    """(parent, process number of its child) of an attempt with the token "ours"."""
    parent = subprocess.Popen(
        [sys.executable, "-c", TREE],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, TOKEN: "ours"},
    )
    child = int(parent.stdout.readline())
    yield parent, child
    for pid in (parent.pid, child):
        if not is_gone(pid):
            os.kill(pid, 9)
    parent.wait()


def test_all_processes_of_an_attempt_are_found_measured_and_ended(tree):
    parent, child = tree
    members = family(parent.pid)
    assert (
        {process.pid for process in members} == {process.pid for process in of_attempt("ours")} == {parent.pid, child}
    )
    assert 50e6 < memory(members) < 200e6
    assert end_attempt("ours") == sorted([parent.pid, child])
    assert is_gone(parent.pid) and is_gone(child) and end_attempt("ours") == []


def test_an_attempt_is_ended_after_its_parent_has_gone(tree):
    parent, child = tree
    parent.kill()
    parent.wait()
    assert end_attempt("ours") == [child]
    assert is_gone(child)


def test_processes_without_the_token_are_left_alone(tree, monkeypatch):
    """Another attempt's; those of a process that was started without one; and the process that does the ending."""
    parent, child = tree
    monkeypatch.setenv(TOKEN, "another")
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert end_attempt(None) == [] and end_attempt("unknown") == []
        assert not is_gone(parent.pid) and not is_gone(child)
        assert end_attempt("another") == [other.pid] and not is_gone(child)
    finally:
        other.kill()
        other.wait()


# --- Runners --------------------------------------------------------------------------------------------------------


def test_runners_are_found_and_told_to_stop(study):
    assert at_work_now(study, "smoke") == [] and stop(study) == []
    with at_work(study, "smoke") as runner:
        assert not runner.stop.exists()
        assert stop(study, wait=0.1) == [runner.name]
        assert runner.stop.exists()
    assert at_work_now(study, "smoke") == []


def test_points_are_remembered(study):
    with pytest.raises(InputError, match="study small: never run at the scale 'smoke'"):
        status(study)
    found = points(study, "smoke")
    remember(study, "smoke", found)
    assert remembered(study, "smoke") == found
    assert status(study)["state"].tolist() == ["waiting"] * 4
    (found[0].folder.parent / ".studies/small/smoke/points.json").write_text("{")
    with pytest.raises(InputError, match="points.json: cut off"):
        status(study)


def test_threads_are_divided(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert [threads_each(workers) for workers in (1, 2, 3, 20)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [threads_each(workers) for workers in (1, 4)] == [3, 2]


def test_gpus_are_those_one_may_use(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert visible_gpus(tmp_path / "none") == []
    assert visible_gpus(tmp_path) == ["2", "5"]


def test_durations_in_words():
    assert [duration(seconds) for seconds in (4.4, 89, 600, 12000)] == ["4.4 s", "1 min 29 s", "10 min", "3 h 20 min"]


# --- Results --------------------------------------------------------------------------------------------------------


def test_results_become_flat():
    probe = [
        {
            "encoder": "teacher",
            "protocol": "linear",
            "metric": "mAP",
            "unit": "speaker",
            "mean": 0.7,
            "scores": {"1": 0.6},
        },
        {"encoder": "teacher", "protocol": "knn", "mean": 0.5},
    ]
    result = {"steps": 4, "last": {"loss": 1.5}, "probe": probe, "notes": ["a"], "reconstruction": None}
    assert flat(result) == {
        "steps": 4,
        "last.loss": 1.5,
        "probe.teacher.mean": 0.7,
        "probe.teacher.metric": "mAP",
        "probe.teacher.unit": "speaker",
        "probe.teacher knn.mean": 0.5,
        "reconstruction": None,
    }


def test_collect(study, monkeypatch):
    monkeypatch.setattr(results, "ANSWERED", {"score": "predictions.csv"})
    a0, a1, b0, b1 = points(study, "smoke")
    remember(study, "smoke", [a0, a1, b0, b1])
    with pytest.raises(InputError, match="none of its 4 points is finished"):
        collect(study)
    # 40 clips of 20 recordings: b is right on all, a wrong on a quarter.
    wrong = np.arange(40) % 4 > 0
    finish(a0, 0.5, wrong)
    finish(a1, 0.7, wrong)
    finish(b0, 0.9, np.ones(40))
    write_state(b1.folder, "failed", "no good")
    found = collect(study)
    assert found.points["state"].tolist() == ["finished"] * 3 + ["failed"] and found.reference == "b"
    assert found.points["score"].tolist()[:3] == [0.5, 0.7, 0.9] and np.isnan(found.points["score"][3])
    a, b = found.summary.to_dict("records")
    assert (a["seeds"], b["seeds"], a["steps"], b["steps"]) == (2, 1, 1, 2)
    assert a["mean"] == pytest.approx(0.6) and a["spread"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert a["published"] == 10 and np.isnan(b["published"]) and np.isnan(b["spread"])
    assert a["difference"] == pytest.approx(-0.25) and a["low"] < -0.25 < a["high"] < 0
    assert np.isnan(b["difference"]) and a["inside_spread"] is None
    assert found.unit == "recording"
    assert found.words == "There are no published values to compare with."
    monkeypatch.setattr(results, "ANSWERED", {"another": "predictions.csv"})  # answers say nothing of this measure then
    a = collect(study).summary.iloc[0]
    assert a["difference"] == pytest.approx(-0.3) and np.isnan(a["low"]) and np.isnan(a["high"])


def test_a_difference_inside_the_spread_is_said_to_be(study):
    for point, score in zip(points(study, "smoke"), [0.5, 0.7, 0.6, 0.8], strict=True):
        finish(point, score)
    a = collect(study, seeds=2).summary.iloc[0]
    assert a["difference"] == pytest.approx(-0.1) and a["inside_spread"] is True
    for point, score in zip(points(study, "smoke"), [0.50, 0.51, 0.8, 0.81], strict=True):
        shutil.rmtree(point.folder)
        finish(point, score)
    assert collect(study, seeds=2).summary.iloc[0]["inside_spread"] is False


def test_a_scale_may_measure_something_else(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    text = 'smoke: {measure: {metric: finetune.mean, label: "fine-tuned (%)"}}, micro: {}'
    study = read_study(write_study(tmp_path, SMALL.replace("smoke: {seeds: 2}", text)))
    for point, score in zip(points(study, "smoke"), [0.5, 0.7], strict=True):
        finish(point, score, finetune={"mean": score + 0.1, "protocol": "finetune smoke"})
        (point.folder / "run/finetuned.csv").write_text(
            "split,path,group,label,predicted\n"
            + "".join(f"1,{i},{i},x,{'xy'[i % 5 > 4 * score]}\n" for i in range(40))
        )
    smoke, micro = collect(study, "smoke", seeds=1), collect(study, "micro", seeds=1)
    assert smoke.summary["mean"].tolist() == pytest.approx([60, 80]) and smoke.study.plot.label == "fine-tuned (%)"
    assert smoke.summary["difference"][0] == pytest.approx(-0.0) and smoke.summary["low"].notna()[0]
    assert micro.summary["mean"].tolist() == [0.5, 0.7] and micro.study.plot.label == "score"
    assert study.plot.label == "score"


def answered(tmp_path, monkeypatch, ours: list[tuple[str, str, str]]):
    """The difference of a point with these answers, (split, label, answer), to one that is wrong on every clip."""
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    monkeypatch.setattr(results, "ANSWERED", {"score": "predictions.csv"})
    study = read_study(write_study(tmp_path, SMALL))
    for point, answers in zip(points(study, "smoke", seeds=1), (ours, [(*one[:2], "?") for one in ours]), strict=True):
        finish(point, 0.5)
        lines = [f"{split},{i},{label},{label},{answer}" for i, (split, label, answer) in enumerate(answers)]
        text = "\n".join(["split,path,group,label,predicted", *lines])
        (point.folder / "run/predictions.csv").write_text(text)
    return collect(study, "smoke", seeds=1).summary.iloc[0]


def test_splits_count_alike_in_a_difference(tmp_path, monkeypatch):
    """As in the mean: nine clips of one split are answered rightly, the only one of the other is not."""
    found = answered(tmp_path, monkeypatch, [("1", f"x{i}", f"x{i}") for i in range(9)] + [("2", "y", "z")])
    assert found["difference"] == pytest.approx(0.5) and found["low"] <= 0.5 <= found["high"]


def test_words_that_pandas_takes_for_nothing_are_names(tmp_path, monkeypatch):
    labels = ["None", "NA", "null", "nan", "dog"]
    found = answered(tmp_path, monkeypatch, [("1", label, label) for label in labels])
    assert found["difference"] == 1 and found["low"] == 1


@pytest.mark.parametrize("unit", [None, "speaker"])
def test_the_unit_of_the_intervals_is_named(study, monkeypatch, unit):
    """By the results where they do; else clips of one group are of one recording."""
    monkeypatch.setattr(results, "ANSWERED", {"probe.teacher.mean": "predictions.csv"})
    plot = study.plot.model_copy(update={"metric": "probe.teacher.mean"})
    named = {"unit": unit} if unit else {}
    for point in points(study, "smoke", seeds=1):
        probe = [{"encoder": "teacher", "metric": "accuracy", "mean": 0.5, **named}]
        finish(point, 0.5, np.arange(8) % 3 > 0, probe=probe)
    assert collect(study.model_copy(update={"plot": plot}), seeds=1).unit == (unit or "recording")


def test_the_label_says_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    text = 'smoke: {measure: {metric: probe.teacher.mean, label: "probe, accuracy (%)"}}'
    study = read_study(write_study(tmp_path, SMALL.replace("smoke: {seeds: 2}", text)))
    for metric in ("mAP", "accuracy"):
        for point in points(study, "smoke"):
            shutil.rmtree(point.folder, ignore_errors=True)
            finish(point, 0.5, probe=[{"encoder": "teacher", "metric": metric, "mean": 0.5}])
        assert collect(study, "smoke", seeds=1).study.plot.label == f"probe, {metric} (%)"


def test_a_result_without_the_number_is_no_seed(study):
    first, second, *others = points(study, "smoke")
    finish(first, 0.5)
    finish(second, None)
    for point in others:
        finish(point, 0.7)
    assert collect(study, seeds=2).summary["seeds"].tolist() == [1, 2]


def test_an_axis_of_words_is_refused(study):
    plot = study.plot.model_copy(update={"x": "what"})
    rows = [row.model_copy(update={"settings": {"what": what}}) for row, what in zip(study.rows, "ab", strict=True)]
    changed = study.model_copy(update={"plot": plot, "rows": rows})
    for point in points(changed, "smoke"):
        finish(point, 0.5)
    with pytest.raises(InputError, match="plot.x: what: a, b: not all are numbers; leave plot.x out"):
        collect(changed, "smoke", seeds=2).figure()


def test_a_measure_that_no_result_has(study):
    remember(study, "smoke", points(study, "smoke"))
    for point in points(study, "smoke"):
        write_state(point.folder, "finished")
        (point.folder / "run").mkdir()
        (point.folder / states.RESULT).write_text('{"accuracy": 1}')
    with pytest.raises(InputError, match="plot.metric: no result has 'score' as a number; there are .*accuracy"):
        collect(study)


def test_tables_and_figure_are_written(study, tmp_path):
    for point, score in zip(points(study, "smoke"), [0.5, 0.7, 0.6, 0.8], strict=True):
        finish(point, score)
    written = collect(study, seeds=2).save(tmp_path / "report")
    assert [path.name for path in written] == [
        "points.csv",
        "summary.csv",
        "small.pdf",
        "small.png",
        "small.svg",
        "points.parquet",
        "summary.parquet",
    ]
    read = pd.read_parquet(tmp_path / "report/points.parquet")
    assert read["score"].tolist() == [0.5, 0.7, 0.6, 0.8] and read["setting"].tolist() == ["a", "a", "b", "b"]
    assert pd.read_csv(tmp_path / "report/summary.csv")["mean"].tolist() == pytest.approx([0.6, 0.7])
