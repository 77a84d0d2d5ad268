"""Processes of their own without the seconds of imports: forked from a server that has made them once."""

import atexit
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asit_lab.training import recorder

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pytest", "asit_lab.training.pretrain", "asit_lab.figures", "torch.utils.tensorboard"])
PATIENCE = 300  # s, for what takes a moment on a machine that has nothing else to do
# What no two runs agree on: when and how fast they were, and by whom. A state holds its seconds.
OF_THE_MOMENT = ("status.json", "environment.json", "timings.csv", ".lock", "events.out.tfevents.", "state.pt")


def start(work: Callable, *arguments):
    """A process, leader of its own group, that does work(*arguments)."""
    process = CONTEXT.Process(target=_enter, args=(work, arguments))
    process.start()
    atexit.register(process.kill)  # after a test that failed: the tests' own process would wait for it
    return process


def _enter(work: Callable, arguments: tuple) -> None:
    import torch

    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # for loader processes, as in any other process
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test runner in the background ignores it
    torch.set_num_threads(1)
    importlib.import_module("asit_lab.training.pretrain").PICTURED = 1  # as in conftest.py: samples are compared
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    work(*arguments)


def wait_until(condition: Callable[[], object], process) -> None:
    """Until the condition holds; the process must not end before."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.is_alive(), f"the process ended (status {process.exitcode}) before it was where it should be"
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def last_step(folder: Path) -> int:
    """The step of the last row of metrics.csv that was written to its end, -1 without one."""
    path = folder / "metrics.csv"
    lines = path.read_text().split("\n")[1:-1] if path.is_file() else []
    return int(lines[-1].partition(",")[0]) if lines else -1


def files(folder: Path) -> dict[str, bytes]:
    """What a run ends with: names and contents of its files, without those of the moment."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(OF_THE_MOMENT)
    }


def assert_same(folder: Path, wanted: Path) -> None:
    """Equal files under equal names."""
    here, there = files(folder), files(wanted)
    only = sorted(here.keys() ^ there.keys())
    assert not only, f"{only} are in one of {folder} and {wanted} only"
    different = [name for name in here if here[name] != there[name]]
    assert not different, f"{different} differ in {folder} and {wanted}"


@contextmanager
def ctrl_c_in_row(step: int) -> Iterator[None]:
    """Inside, a run is interrupted at once, without saving, after it wrote its row of `step`."""

    def write_scalars(board, row):
        if row["step"] == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "write_scalars", write_scalars)
        yield
