"""How points end where something else than their work went wrong: no kernel and no cluster runs here."""

from concurrent.futures import Future

import pytest
from batch_case import PARAMETERS, write_notebook, write_study
from distributed.scheduler import KilledWorker

from asit_lab import InputError
from asit_lab.batch import experiment, points
from asit_lab.batch import experiments as pretrain_and_measure
from asit_lab.batch.execution.cluster import Cluster
from asit_lab.batch.execution.execute import check_without_notebook, execute_notebook
from asit_lab.batch.execution.pool import Pool
from asit_lab.batch.execution.state import read_status, state_of, write_state
from asit_lab.batch.execution.stopping import Stopping
from asit_lab.batch.execution.supervise import _write_down
from asit_lab.batch.runner import _outcome


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
    found = Cluster.__new__(Cluster)
    found.address, found.client = "tcp://there:8786", Client(*workers)
    found.resources = found._resources()
    return found


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
    for crew in (cluster({"nthreads": 1}), Pool(1)):
        with pytest.raises(InputError, match="a worker failed: FileNotFoundError: no such folder"):
            _outcome(broken, crew, point)


def test_workers_without_a_gpu_do_no_points_where_others_have_one():
    with_gpu, without = {"nthreads": 4, "resources": {"GPU": 2}}, {"nthreads": 4, "resources": {}}
    mixed = cluster(with_gpu, without)
    assert mixed.slots == 2 and mixed.resources == {"GPU": 1}
    mixed.check()
    mixed.client = Client(without)  # the other one has gone
    with pytest.raises(InputError, match="its last worker has gone away; what was done is kept"):
        mixed.check()
    assert cluster(without, without).slots == 8


def test_what_the_probe_needs_is_looked_for_before_the_training(point, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain_and_measure, "find_spec", lambda name: None)
    for early in (
        lambda: experiment("smoke", "synth:40", "", 0, tmp_path / "run"),
        lambda: check_without_notebook(point),
    ):
        with pytest.raises(InputError, match="scikit-learn is not installed, and every point ends with a probe"):
            early()
    assert not (tmp_path / "run").exists()
