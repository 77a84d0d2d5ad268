"""How points end where something other than their work goes wrong: no kernel and no process of a point runs here."""

import logging
import os
import sys
import threading
from concurrent.futures import Future

import psutil
import pytest
from batch_case import PARAMETERS, write_notebook, write_study
from distributed.scheduler import KilledWorker

from asit_lab import InputError
from asit_lab.batch import experiment, points
from asit_lab.batch import experiments as pretrain_and_measure
from asit_lab.batch.execution import cluster as workers
from asit_lab.batch.execution.child import Stopping
from asit_lab.batch.execution.cluster import Cluster
from asit_lab.batch.execution.execute import check_without_notebook, execute_notebook
from asit_lab.batch.execution.runner import _outcome
from asit_lab.batch.execution.state import read_status, state_of, write_state
from asit_lab.batch.execution.supervise import Attempt, _write_down


@pytest.fixture
def point(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    (point,) = points(write_study(tmp_path, "grid: {steps: [1]}\nscales: {smoke: {}}"), "smoke")
    return point


class Client:
    """A client, and its scheduler that knows the workers it was given.

    What the client keeps of the scheduler says nothing of workers: its own calls, every two seconds, ask for none.
    """

    status = "running"

    def __init__(self, *workers: dict):
        self.workers, self.scheduler = dict(enumerate(workers)), self

    def identity(self, n_workers: int = 0) -> dict:
        return {"workers": self.workers if n_workers == -1 else {}}

    def sync(self, call, **arguments):
        return call(**arguments)

    def scheduler_info(self, n_workers: int) -> dict:
        return self.identity()


def cluster(*workers: dict) -> Cluster:
    made = Cluster.__new__(Cluster)
    made.address, made.client = "tcp://there:8786", Client(*workers)
    made.resources = made._resources()
    return made


def test_a_notebook_that_was_changed_since_is_not_taken_for_the_point(point, tmp_path):
    write_notebook(tmp_path / "count.ipynb", PARAMETERS, "print('something else')")
    with pytest.raises(InputError, match="count.ipynb: its code was changed after the study had begun"):
        execute_notebook(point.folder, point, Stopping())
    assert not (point.folder / "notebook.ipynb").exists()


@pytest.mark.parametrize(
    ("code", "asked", "words"),
    [
        (1, False, "its process ended with status 1; "),
        (-11, False, "its process was killed (signal 11)"),
        (143, False, "stopped"),
        (-9, True, "stopped"),
    ],
)
def test_a_process_that_ended_without_a_word_is_not_said_to_have_been_stopped(tmp_path, code, asked, words):
    write_state(tmp_path, "running", began=5.0)
    _write_down(tmp_path, code, None, asked, earlier=4.0)
    said = read_status(tmp_path)
    assert said["state"] == "interrupted" and said["reason"].startswith(words)


def test_a_point_that_was_given_up_with_its_workers_ends_alone(point):
    """Dask gives a task up when several workers were lost under it: at a batch system's time limits, say."""
    point.folder.mkdir(parents=True)
    write_state(point.folder, "running")
    lost = Future()
    lost.set_exception(KilledWorker(task="a", last_worker=None, allowed_failures=3))
    assert _outcome(lost, cluster({"nthreads": 1}), point) == "interrupted" == state_of(point.folder).state
    broken = Future()
    broken.set_exception(FileNotFoundError("no such folder"))
    with pytest.raises(InputError, match="a worker failed: FileNotFoundError: no such folder"):
        _outcome(broken, cluster({"nthreads": 1}), point)


def test_workers_without_a_gpu_do_no_points_where_others_have_one():
    with_gpu, without = {"nthreads": 4, "resources": {"GPU": 2}}, {"nthreads": 4, "resources": {}}
    mixed = cluster(with_gpu, without)
    assert mixed.slots == 2 and mixed.resources == {"GPU": 1}
    mixed.check()
    mixed.client = Client(without)  # the other one has gone
    with pytest.raises(InputError, match="its last worker has gone away; what was done is kept"):
        mixed.check()
    assert cluster(without, without).slots == 8


def test_workers_of_this_machine_are_threads_of_this_process(tmp_path, monkeypatch):
    """Each does one point at a time, with its share of cores and GPUs; closing waits for what is under way."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr(workers, "visible_gpus", lambda: ["4", "6"])
    monkeypatch.setattr(workers, "threads_each", lambda at_once: 10 + at_once)
    both, done = threading.Barrier(2, timeout=60), []

    def supervise(attempt: Attempt) -> str:
        both.wait()
        done.append((os.getpid(), attempt.threads, attempt.environment))
        return "finished"

    monkeypatch.setattr(workers, "supervise", supervise)
    local = Cluster(None, workers=2)
    assert local.slots == 2 and local.resources is None
    local.check()
    listening = [link.laddr.ip for link in psutil.Process().net_connections() if link.status == psutil.CONN_LISTEN]
    assert set(listening) <= {"127.0.0.1"}  # nothing that other machines reach
    attempt = Attempt(str(tmp_path), "package", "", 1.0, None, 1, {"ASIT_LAB_HOME": "here"})
    futures = [local.submit(attempt) for _ in range(2)]
    local.close()
    assert len(futures) == len(done) == 2 and {pid for pid, *_ in done} == {os.getpid()}
    assert {threads for _, threads, _ in done} == {12}
    gpus = [environment.pop("CUDA_VISIBLE_DEVICES") for *_, environment in done]
    assert sorted(gpus) == ["4", "6"] and all(environment == {"ASIT_LAB_HOME": "here"} for *_, environment in done)


def test_dask_prints_nothing_when_it_closes(monkeypatch, capfd):
    """On a busy machine its last connections end after the cluster, and futures of its own are dropped."""
    import distributed

    class Late(distributed.LocalCluster):
        def __exit__(self, *error):
            loop = self.loop.asyncio_loop
            super().__exit__(*error)
            logging.getLogger("distributed.batched").error("Batched Comm Closed")
            loop.call_exception_handler({"message": "Future exception was never retrieved"})

    monkeypatch.setattr(distributed, "LocalCluster", Late)
    handler = logging.StreamHandler()
    before = handler.level
    logging.getLogger("distributed").addHandler(handler)
    try:
        Cluster(None, workers=1).close()
        assert handler.level == before
    finally:
        logging.getLogger("distributed").removeHandler(handler)
    assert capfd.readouterr() == ("", "")


def test_without_dask_studies_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="Dask executes studies: pip install distributed"):
        Cluster(None)
    with pytest.raises(InputError, match="workers: 0: expected at least one"):
        Cluster(None, workers=0)


def test_what_the_probe_needs_is_looked_for_before_the_training(point, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain_and_measure, "find_spec", lambda name: None)
    for early in (
        lambda: experiment("smoke", "synth:40", "", 0, tmp_path / "run"),
        lambda: check_without_notebook(point),
    ):
        with pytest.raises(InputError, match="scikit-learn is not installed, and every point ends with a probe"):
            early()
    assert not (tmp_path / "run").exists()
