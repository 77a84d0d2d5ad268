"""Sums and gathers over the processes of a run, for losses that are those of the whole batch; trivial for one process.

None of them carries a gradient. All processes have to call them in the same order.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch import distributed as dist

_alone = False


def count() -> int:
    """Number of processes."""
    return dist.get_world_size() if _connected() else 1


def process_rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if _connected() else 0


def total(values: Tensor) -> Tensor:
    """Sum over processes, entry by entry."""
    if not _connected():
        return values
    summed = values.detach().clone()
    dist.all_reduce(summed)
    return summed


def gather(rows: Tensor) -> Tensor:
    """Rows of all processes, first those of process 0: [n, ...] of the same shape everywhere -> [count * n, ...]."""
    if not _connected():
        return rows.detach()
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(count())]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


@contextmanager
def alone() -> Iterator[None]:
    """Inside it this process computes as if there were no others, for work that they do not do at the same time."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def _connected() -> bool:
    return not _alone and dist.is_available() and dist.is_initialized()
