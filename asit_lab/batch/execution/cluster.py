"""Workers of a Dask cluster: the same points as tasks, on machines that share the project's folder.

One task is one point, supervised on the worker that takes it. Where workers offer a resource named GPU
(`dask worker ADDRESS --nthreads 1 --resources "GPU=1"`), a task takes one of them. Dask gives its workers
OMP_NUM_THREADS=1 unless they are started with another number, and a point takes no more threads than that.
"""

import os
from dataclasses import replace
from uuid import uuid4

from ...errors import InputError
from .pool import threads_each
from .supervise import Job, supervise

_CONNECT_SECONDS = 10


class Cluster:
    """The workers of the scheduler at `address`, such as "tcp://node1:8786"."""

    def __init__(self, address: str):
        try:
            from distributed import Client
        except ImportError:
            raise InputError("--scheduler needs Dask: pip install 'asit-lab[lab]'") from None
        self.address = address
        try:
            self.client = Client(address, timeout=_CONNECT_SECONDS, name="asit-lab")
        except (OSError, ValueError) as error:
            raise InputError(
                f"scheduler {address}: not reached within {_CONNECT_SECONDS} s: {error}. `dask scheduler` starts one "
                "and prints its address"
            ) from None
        if not self.client.nthreads():
            self.close()
            raise InputError(
                f"scheduler {address}: it has no workers yet; `dask worker {address} --nthreads 1` adds one"
            )
        self.resources = self._resources()

    @property
    def slots(self) -> int:
        """Points that can be under way at once; workers may come and go."""
        workers = self._workers()
        if self.resources:
            return sum(int(worker.get("resources", {}).get("GPU", 0)) for worker in workers)
        return sum(worker["nthreads"] for worker in workers)

    def submit(self, job: Job):
        """A future of what `supervise` returns."""
        # A task whose worker is lost goes to another one, where the training goes on; a point that failed does not.
        name = f"point-{os.path.basename(job.folder)}-{uuid4().hex[:8]}"
        return self.client.submit(_on_a_worker, job, key=name, pure=False, retries=0, resources=self.resources)

    def gave_up(self, error: Exception) -> bool:
        """Whether a task failed for nothing but that several workers were lost under it, one after the other."""
        from distributed.scheduler import KilledWorker

        return isinstance(error, KilledWorker)

    def check(self) -> None:
        """Raises InputError when the scheduler, or its last worker that can do points, has gone away."""
        if self.client.status not in ("running", "newly-created"):
            raise InputError(self._gone())
        if not self.slots:
            raise InputError(
                f"scheduler {self.address}: its last worker has gone away; what was done is kept, and the same command "
                "goes on once there are workers"
            )

    def close(self) -> None:
        """Let go of the cluster; tasks that have not begun are dropped."""
        self.client.close(timeout=2)

    def _workers(self) -> list[dict]:
        """What the scheduler knows of each worker. Not from the client's `scheduler_info`: it hands out what it keeps,
        which its own calls every two seconds replace by one without any workers. Raises InputError as `check`."""
        try:
            return list(self.client.sync(self.client.scheduler.identity, n_workers=-1)["workers"].values())
        except Exception as error:  # whatever the broken connection raises
            raise InputError(self._gone()) from error

    def _resources(self) -> dict[str, int] | None:
        return {"GPU": 1} if any(worker.get("resources", {}).get("GPU") for worker in self._workers()) else None

    def _gone(self) -> str:
        return (
            f"scheduler {self.address}: it has gone away; what was done is kept, and the same command goes on once it "
            "is back, or without --scheduler on this machine"
        )


def _on_a_worker(job: Job) -> str:
    """The task: a worker's cores are divided among the tasks it takes at once."""
    from distributed import get_worker

    return supervise(replace(job, threads=threads_each(get_worker().state.nthreads)))
