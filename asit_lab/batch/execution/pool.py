"""Workers on this machine: a thread for each, which watches over the process of one point at a time."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

from ...errors import InputError
from .supervise import Job, supervise


class Pool:
    """`workers` points at once; threads and GPUs are divided among them."""

    def __init__(self, workers: int):
        if workers < 1:
            raise InputError(f"workers: {workers}: expected at least one")
        self.slots = workers
        self.threads = threads_each(workers)
        self._gpus: SimpleQueue[str] = SimpleQueue()
        gpus = visible_gpus()
        for slot in range(workers if gpus else 0):
            self._gpus.put(gpus[slot % len(gpus)])
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="point")

    def submit(self, job: Job) -> Future:
        """Do a job as soon as a worker is free; the future has what `supervise` returns."""
        return self._executor.submit(self._do, replace(job, threads=self.threads))

    def _do(self, job: Job) -> str:
        if self._gpus.empty():
            return supervise(job)
        gpu = self._gpus.get()
        try:
            return supervise(replace(job, environment={**job.environment, "CUDA_VISIBLE_DEVICES": gpu}))
        finally:
            self._gpus.put(gpu)

    def gave_up(self, error: Exception) -> bool:
        """Workers that are threads of this process are not lost."""
        return False

    def check(self) -> None:
        """Workers that are threads of this process do not go away."""

    def close(self) -> None:
        """Wait for what is under way."""
        self._executor.shutdown()


def threads_each(workers: int) -> int:
    """Threads for each of `workers` processes: the cores this process may use, and no more than OMP_NUM_THREADS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    share = max(1, cores // workers)
    return min(share, int(given)) if given.isdecimal() and int(given) else share


def visible_gpus(device: Path = Path("/dev/nvidiactl")) -> list[str]:
    """Names of the GPUs this process may use, as CUDA_VISIBLE_DEVICES has them; none where there is no driver."""
    if not device.exists():
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
