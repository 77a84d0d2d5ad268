"""Points as tasks of a Dask cluster on this machine: a scheduler and two workers started by hand."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from batch_case import is_gone, kernel_of, wait_until, words, write_study

from asit_lab import InputError, batch
from asit_lab.batch.execution.state import state_of

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def cluster(tmp_path):
    """(address, processes: scheduler and two workers of one thread)."""
    file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
    processes = [_start([*command, "--host", "127.0.0.1", "--scheduler-file", str(file)], tmp_path)]
    try:
        wait_until(lambda: _address(file), "the scheduler")
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1"]
        worker += ["--no-dashboard", "--local-directory", str(tmp_path)]
        processes += [_start(worker, tmp_path) for _ in range(2)]
        yield _address(file), processes
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def _address(file) -> str | None:
    """The scheduler's, None while it has not written its whole file."""
    with suppress(OSError, ValueError):
        return json.loads(file.read_text())["address"]


def _start(command: list[str], folder) -> subprocess.Popen:
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)


def _wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, timeout=60) as client:
        client.wait_for_workers(count, timeout=120)


def test_the_same_table_as_on_this_machine(home, cluster):
    address, _ = cluster
    _wait_for_workers(address, 2)
    study = write_study(home, "grid: {steps: [5, 6, 7]}\nscales: {smoke: {}}")
    there = batch.run(study, scheduler=address)
    assert there["state"].tolist() == ["finished"] * 3
    ours = [point.folder for point in batch.points(study, "smoke")]
    assert all(words(folder) == ["begun at 0", "ended"] for folder in ours)
    assert batch.run(study).equals(there) and batch.collect(study).summary["mean"].tolist() == [0.5, 0.6, 0.7]


def test_a_scheduler_that_goes_away(home, cluster):
    address, (scheduler, *_) = cluster
    _wait_for_workers(address, 1)
    study = write_study(home, "rows: [{name: stuck, settings: {what: hang}}]\nscales: {smoke: {}}")
    (point,) = batch.points(study, "smoke")
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(batch.run, study, scheduler=address)
        wait_until(lambda: kernel_of(point.folder), "the kernel")
        scheduler.kill()
        with pytest.raises(InputError, match=f"scheduler {address}: it has gone away; what was done is kept"):
            running.result()
    wait_until(lambda: is_gone(kernel_of(point.folder)), "the end of the point")
    wait_until(lambda: state_of(point.folder).state == "interrupted", "the point's state")


def test_a_scheduler_that_is_not_there(home):
    study = write_study(home, "grid: {steps: [1]}\nscales: {smoke: {}}")
    with pytest.raises(InputError, match=r"scheduler tcp://127.0.0.1:9: not reached .* `dask scheduler` starts one"):
        batch.run(study, scheduler="tcp://127.0.0.1:9")
