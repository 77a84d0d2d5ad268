"""Loads training batches in worker processes, for pretraining and fine-tuning: errors and signals included."""

import functools
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import InputError

PREFETCH = 2  # batches a loader process makes ahead
SIGTERM_GRACE_SECONDS = 60  # between a SIGTERM of unknown sender and the end of a loader process


def load_batches(batches: Dataset, start: int, stop: int, workers: int) -> DataLoader:
    """A loader of the items start..stop-1, uncollated, one per step; `close` ends its processes.

    Iterating raises an InputError that `batches` returns in place of an item.
    """
    return _Loader(
        batches,
        batch_size=None,
        sampler=_Steps(start, stop),
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCH if workers else None,
        collate_fn=_as_it_is,
        worker_init_fn=functools.partial(_leave_signals, os.getpid()) if workers else None,
        generator=torch.Generator(),  # so that the loader draws nothing from the global one
    )


def _as_it_is(item):
    return item


class _Loader(DataLoader):
    """A DataLoader that raises InputErrors returned by its dataset."""

    def close(self) -> None:
        """End the loader processes now instead of when the last reference to them is dropped."""
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator._shutdown_workers()

    def __iter__(self) -> Iterator:
        with _sigterm_blocked():
            batches = super().__iter__()
        for batch in batches:
            if isinstance(batch, InputError):
                # Release the loader processes: the error's traceback keeps this frame alive.
                del batches
                self._iterator = None
                raise batch
            yield batch


class _Steps:
    """The steps of a run in order, as a sampler."""

    def __init__(self, start: int, stop: int):
        self.steps = range(start, stop)

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


@contextmanager
def _sigterm_blocked() -> Iterator[None]:
    """Block SIGTERM in this thread: processes started in the meantime begin with it blocked in all of their threads.

    A thread that torch starts in a loader process before `_leave_signals` runs would otherwise take it and end the
    process.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals(trainer: int, _worker: int) -> None:
    """In a loader process: ignore signals, as the training process finishes its step and then ends its loaders.

    Ctrl-C and a scheduler's SIGTERM reach the whole process group; the current batch would be lost. A SIGTERM from the
    training process `trainer` still counts: it ends a loader that hangs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_obey, args=(trainer,), daemon=True).start()


def _obey(trainer: int) -> None:
    if hasattr(signal, "sigwaitinfo"):
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
            pass
    else:  # macOS does not say who sent it, so the trainer gets the time to finish its step
        signal.sigwait({signal.SIGTERM})
        time.sleep(SIGTERM_GRACE_SECONDS)
    os._exit(0)
