"""Hands points to Dask's workers: a LocalCluster in this process by default, or those of a scheduler elsewhere.

One task is one point, supervised on the worker that takes it; the point itself runs in a process of its own, so local
workers are threads. Where workers of a scheduler offer a resource named GPU
(`dask worker ADDRESS --nthreads 1 --resources "GPU=1"`), a task takes one of them. Dask gives its workers
OMP_NUM_THREADS=1 unless they are started with another number, and a point takes no more threads than that.
"""

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from ...errors import InputError
from .supervise import Attempt, supervise

_CONNECT_SECONDS = 10
_LOOPBACK = "127.0.0.1:0"


class Cluster:
    """`workers` workers on this machine, or those of the scheduler at `address`, such as "tcp://node1:8786"."""

    def __init__(self, address: str | None, workers: int = 1):
        if workers < 1:
            raise InputError(f"workers: {workers}: expected at least one")
        try:
            import distributed  # noqa: F401
        except ImportError:
            raise InputError("Dask executes studies: pip install distributed") from None
        self.address = address
        self._open = ExitStack()
        self._gpus: list[str] = []
        self._local_workers = None if address else workers
        self._futures: list[Any] = []
        self.client = self._connect(address) if address else self._start(workers)
        # Dask drops futures of its own when it closes; what a point raised comes back through its future instead.
        self.client.loop.asyncio_loop.set_exception_handler(lambda loop, context: None)
        if address and not self.client.nthreads():
            self.close()
            raise InputError(
                f"scheduler {address}: it has no workers yet; `dask worker {address} --nthreads 1` adds one"
            )
        self.resources = self._resources()

    def _connect(self, address: str) -> Any:
        from distributed import Client

        try:
            return Client(address, timeout=_CONNECT_SECONDS, name="asit-lab", set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"scheduler {address}: not reached within {_CONNECT_SECONDS} s: {error}. `dask scheduler` starts one "
                "and prints its address"
            ) from None

    def _start(self, workers: int) -> Any:
        """Workers of one thread each, in this process: no dashboard, no pages, no processes of Dask."""
        import dask
        from distributed import Client, LocalCluster, Worker

        class LoopbackWorker(Worker):
            """A worker whose HTTP server, which Dask always starts, is not reached from other machines."""

            def __init__(self, *arguments: Any, **options: Any):
                super().__init__(*arguments, **{**options, "dashboard_address": _LOOPBACK})

        self._gpus = visible_gpus()
        no_pages: dict[str, Any] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
        self._open.enter_context(dask.config.set(no_pages))
        self._open.enter_context(_silent_logs())
        scratch = self._open.enter_context(tempfile.TemporaryDirectory(prefix="asit-dask-"))
        cluster = self._open.enter_context(
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=False,
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": _LOOPBACK},
                worker_class=LoopbackWorker,
                memory_limit=0,
                local_directory=scratch,
                silence_logs=False,
            )
        )
        return Client(cluster, set_as_default=False)

    @property
    def slots(self) -> int:
        """Points that can be under way at once; workers of a scheduler may come and go."""
        workers = self._workers()
        if self.resources:
            return sum(int(worker.get("resources", {}).get("GPU", 0)) for worker in workers)
        return sum(worker["nthreads"] for worker in workers)

    def submit(self, attempt: Attempt) -> Any:
        """A future of what `supervise` returns."""
        # A task whose worker is lost goes to another one, which resumes the training; a point that failed does not.
        name = f"point-{os.path.basename(attempt.folder)}-{uuid4().hex[:8]}"
        arguments = (attempt, self._local_workers, self._gpus)
        future = self.client.submit(_on_worker, *arguments, key=name, pure=False, retries=0, resources=self.resources)
        self._futures = [*(pending for pending in self._futures if not pending.done()), future]
        return future

    def gave_up(self, error: Exception) -> bool:
        """Whether a task failed for nothing but that several workers were lost under it, one after the other."""
        from distributed.scheduler import KilledWorker

        return isinstance(error, KilledWorker)

    def check(self) -> None:
        """Raises InputError when the scheduler, or its last worker that can do points, has gone away."""
        if self.client.status not in ("running", "newly-created"):
            raise InputError(self._lost_message())
        if not self.slots:
            raise InputError(
                f"scheduler {self.address}: its last worker has gone away; what was done is kept, and the same command "
                "resumes once there are workers"
            )

    def close(self) -> None:
        """Let go of the workers. Points under way on this machine are waited for; those elsewhere end by themselves."""
        while self.address is None and not all(future.done() for future in self._futures):
            time.sleep(0.1)
        with suppress(OSError, TimeoutError):
            self.client.close(timeout=2 if self.address else 60)  # a scheduler elsewhere may be gone; this one answers
        self._open.close()

    def _workers(self) -> list[dict[str, Any]]:
        """What the scheduler says of each worker. Not from the client's `scheduler_info`: it hands out what it keeps,
        which its own calls every two seconds replace by one without any workers. Raises InputError as `check`."""
        try:
            return list(self.client.sync(self.client.scheduler.identity, n_workers=-1)["workers"].values())
        except Exception as error:  # whatever the broken connection raises
            raise InputError(self._lost_message()) from error

    def _resources(self) -> dict[str, int] | None:
        return {"GPU": 1} if any(worker.get("resources", {}).get("GPU") for worker in self._workers()) else None

    def _lost_message(self) -> str:
        return (
            f"scheduler {self.address}: it has gone away; what was done is kept, and the same command resumes once it "
            "is back, or without --scheduler on this machine"
        )


@contextmanager
def _silent_logs() -> Iterator[None]:
    """Dask's own lines are not shown, its last ones about connections that close included: LocalCluster's
    `silence_logs` ends before its event loop does."""
    levels = [(handler, handler.level) for handler in logging.getLogger("distributed").handlers]
    try:
        for handler, _ in levels:
            handler.setLevel(logging.CRITICAL)
        yield
    finally:
        for handler, level in levels:
            handler.setLevel(level)


def _on_worker(attempt: Attempt, local_workers: int | None, gpus: list[str]) -> str:
    """The task. Cores are divided among the points done at once: by a worker elsewhere, or by all workers here, which
    share out the GPUs of this machine too."""
    from distributed import get_worker

    worker = get_worker()
    if gpus:
        chosen = {"CUDA_VISIBLE_DEVICES": gpus[int(worker.name) % len(gpus)]}
        attempt = replace(attempt, environment={**attempt.environment, **chosen})
    return supervise(replace(attempt, threads=threads_each(local_workers or worker.state.nthreads)))


def threads_each(workers: int) -> int:
    """Threads for each of `workers` processes: the cores this process may use, and no more than OMP_NUM_THREADS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", "")
    share = max(1, cores // workers)
    return min(share, int(threads)) if threads.isdecimal() and int(threads) else share


def visible_gpus(device: Path = Path("/dev/nvidiactl")) -> list[str]:
    """Names of the GPUs this process may use, as CUDA_VISIBLE_DEVICES has them; none where there is no driver."""
    if not device.exists():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
