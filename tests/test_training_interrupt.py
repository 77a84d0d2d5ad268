"""Ctrl-C and SIGTERM: the step under way is finished, its state saved, and the run goes on from there to the bit."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from children import assert_same, last_step, start, wait_until

import asit_lab
from asit_lab import load_config, load_run
from asit_lab.data import load_manifest, make_loader
from asit_lab.runs.snapshot import read_state
from asit_lab.training import pretrain as loop
from asit_lab.training import recorder
from asit_lab.training.recorder import Recorder
from asit_lab.training.step import Stepper

SMALL = ["data.source=synth:20", "features.sample_rate=8000", "data.crop_seconds=0.5", "train.snapshots=1"]
INT, TERM = signal.SIGINT, signal.SIGTERM


@pytest.fixture(autouse=True)
def as_in_a_terminal(monkeypatch):
    """Signals do what they do in a new process, whatever the test runner does with them; no pictures."""
    monkeypatch.setattr(recorder, "save_samples", lambda *_: None)
    before = {INT: signal.signal(INT, signal.default_int_handler), TERM: signal.signal(TERM, signal.SIG_DFL)}
    yield
    assert signal.getsignal(INT) in (signal.default_int_handler, signal.SIG_IGN)  # as the test left them
    assert signal.getsignal(TERM) == signal.SIG_DFL
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def during(monkeypatch):
    """during(step, number, ...): these signals come in the middle of that step."""
    forward_backward = Stepper._forward_backward

    def arrange(step: int, *numbers: int) -> None:
        def interrupted(self, batch):
            for number in numbers if batch.step == step else ():
                signal.raise_signal(number)
            return forward_backward(self, batch)

        monkeypatch.setattr(Stepper, "_forward_backward", interrupted)

    return arrange


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The undisturbed run."""
    drawn, recorder.save_samples = recorder.save_samples, lambda *_: None
    try:
        return asit_lab.pretrain(load_config("smoke", SMALL), tmp_path_factory.mktemp("whole") / "run")
    finally:
        recorder.save_samples = drawn


def pretrain(out: Path, **options):
    return asit_lab.pretrain(load_config("smoke", SMALL), out, **options)


def saved_step(out: Path) -> int:
    return read_state(out / "state.pt", torch.device("cpu"))["step"]


def goes_on(out: Path, whole) -> None:
    assert pretrain(out).status == "finished"
    assert_same(out, whole.dir)


# --- In the middle of a step ----------------------------------------------------------------------------------------


def test_ctrl_c_finishes_the_step_and_saves_it(tmp_path, whole, during):
    during(4, INT)
    run = pretrain(tmp_path / "run")
    assert (run.status, run.progress["step"]) == ("interrupted", 5)
    assert saved_step(run.dir) == 5 and run.metrics["step"].tolist() == [0, 1, 2, 3, 4]  # no state was due at 5
    during(-1)
    goes_on(run.dir, whole)


def test_a_second_ctrl_c_stops_at_once(tmp_path, whole, during):
    during(4, INT, INT)
    run = pretrain(tmp_path / "run")
    assert (run.status, run.progress["step"]) == ("interrupted", 3)
    assert saved_step(run.dir) == 3 and run.metrics["step"].tolist() == [0, 1, 2, 3]
    during(-1)
    goes_on(run.dir, whole)


@pytest.mark.parametrize("numbers", [(TERM,), (TERM, TERM), (INT, TERM), (TERM, INT)])
def test_sigterm_saves_and_ends_the_process(tmp_path, whole, during, numbers):
    during(4, *numbers)
    with pytest.raises(SystemExit) as ended:
        pretrain(tmp_path / "run")
    assert ended.value.code == 143
    run = load_run(tmp_path / "run")
    assert (run.status, run.progress["step"], saved_step(run.dir)) == ("terminated", 5, 5)
    during(-1)
    goes_on(run.dir, whole)


def test_in_the_last_step_there_is_nothing_left_to_stop(tmp_path, whole, during):
    during(5, INT)
    assert pretrain(tmp_path / "a").status == "finished"
    assert_same(tmp_path / "a", whole.dir)
    during(5, TERM)
    with pytest.raises(SystemExit) as ended:  # the process was told to end all the same
        pretrain(tmp_path / "b")
    assert ended.value.code == 143
    assert_same(tmp_path / "b", whole.dir)


# --- Before and after the steps -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(INT, "interrupted"), (TERM, "terminated")])
def test_while_a_run_is_set_up(tmp_path, whole, monkeypatch, number, status):
    build = loop.build_objective

    def interrupted(*arguments):
        signal.raise_signal(number)
        return build(*arguments)

    monkeypatch.setattr(loop, "build_objective", interrupted)
    if number == TERM:
        with pytest.raises(SystemExit) as ended:
            pretrain(tmp_path / "run")
        assert ended.value.code == 143
    else:
        pretrain(tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run.status == status and not (run.dir / "metrics.csv").exists()
    monkeypatch.setattr(loop, "build_objective", build)
    goes_on(run.dir, whole)


def test_while_a_run_is_finished(tmp_path, whole, monkeypatch):
    finish = Recorder.finish

    def interrupted(self, result):
        signal.raise_signal(INT)
        finish(self, result)

    monkeypatch.setattr(Recorder, "finish", interrupted)
    assert pretrain(tmp_path / "run").status == "finished"
    assert_same(tmp_path / "run", whole.dir)


# --- Handlers -------------------------------------------------------------------------------------------------------


def test_a_signal_that_is_ignored_stays_ignored(tmp_path, during):
    signal.signal(INT, signal.SIG_IGN)  # as under nohup or behind & in a script
    during(2, INT)
    assert pretrain(tmp_path / "run").status == "finished"


def test_other_threads_have_no_handlers(tmp_path):
    seen, runs = [], []

    def on_log(run, row):
        seen.append((signal.getsignal(INT), signal.getsignal(TERM)))

    thread = threading.Thread(target=lambda: runs.append(pretrain(tmp_path / "run", on_log=on_log)))
    thread.start()
    thread.join()
    assert runs[0].status == "finished"
    assert set(seen) == {(signal.default_int_handler, signal.SIG_DFL)}


@pytest.fixture
def early_thread(monkeypatch):
    """Loader processes start a thread before our code runs there, as torch does where OMP_NUM_THREADS is above one."""
    monkeypatch.setattr(
        torch, "set_num_threads", lambda _: threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    )


def test_loader_processes_leave_signals_to_the_training_process(early_thread):
    cfg = load_config("smoke", [*SMALL, "data.workers=2"])
    loader = make_loader(cfg, load_manifest(cfg.data.source), stop=30)
    batches = iter(loader)
    seen = [next(batches).step, next(batches).step]  # one of each: both have come to their first
    workers = loader._iterator._workers
    for number in (INT, TERM):
        # From another process: what the training process itself sends is not for the whole group.
        os.system(f"kill -{int(number)} {workers[0].pid} {workers[1].pid}")
    seen += [batch.step for batch in batches]
    assert seen == list(range(30))
    assert all(worker.is_alive() for worker in workers)
    workers[0].terminate()  # as when one hangs at the end
    workers[0].join(30)
    assert workers[0].exitcode == 0
    loader.close()
    assert not workers[1].is_alive()


# --- The whole process group, as a terminal and a scheduler do it ---------------------------------------------------

LONG = [*SMALL, "train.steps=60", "train.checkpoint_every=1000"]


def command(out: Path) -> None:
    """`asit-lab pretrain`, with steps that take a while."""
    from asit_lab import cli

    apply = Stepper.apply

    def slow(self, step):
        time.sleep(0.1)
        apply(self, step)

    Stepper.apply, recorder.save_samples = slow, lambda *_: None
    settings = [word for override in LONG for word in ("--set", override)]
    sys.argv = ["asit-lab", "pretrain", "--preset", "smoke", "--out", str(out), *settings, "--set", "data.workers=2"]
    cli.main()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code", "status"), [(INT, 130, "interrupted"), (TERM, 143, "terminated")])
def test_a_signal_to_the_whole_process_group(tmp_path, number, code, status):
    out = tmp_path / "run"
    process = start(command, out)
    wait_until(lambda: last_step(out) >= 3, process)
    assert process.is_alive() and load_run(out).status == "running"
    os.killpg(process.pid, number)
    process.join()
    run = load_run(out)
    assert (process.exitcode, run.status) == (code, status)
    assert saved_step(out) == run.progress["step"] == last_step(out) + 1
    assert 4 <= saved_step(out) < 60
    asit_lab.pretrain(load_config("smoke", [*LONG, "data.workers=2"]), out)
    asit_lab.pretrain(load_config("smoke", [*LONG, "data.workers=2"]), tmp_path / "whole")
    assert_same(out, tmp_path / "whole")
