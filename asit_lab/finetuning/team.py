"""Fine-tuning in several processes, as torchrun starts them: how they share work and agree.

Every process loads and augments the whole batch of a step, as its clips may be mixed with each other, and runs the
network on its share; so the result does not depend on the number of processes, but for rounding.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from ..training.interrupt import STOPS
from ..training.step import from_first, launch

_T = TypeVar("_T")


class Team:
    """All processes of a fine-tuning; usually one."""

    def __init__(self, fabric: Fabric | None = None):
        self.fabric = fabric or launch()
        self.size, self.rank = self.fabric.world_size, self.fabric.global_rank

    @property
    def device(self) -> torch.device:
        """This process's."""
        return self.fabric.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, items: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """This process's part of `items`."""
        return items[self.rank :: self.size]

    def gather(self, items: Sequence[_T]) -> list[_T]:
        """The items of all processes, in the order that `share` took them from."""
        if self.size == 1:
            return list(items)
        parts: list[Sequence[_T]] = [()] * self.size
        torch.distributed.all_gather_object(parts, items)
        return [part[i] for i in range(max(map(len, parts))) for part in parts if i < len(part)]

    def from_first(self, compute: Callable[[], _T]) -> _T:
        """See `training.step.from_first`."""
        return from_first(self.fabric, compute)

    def wait(self) -> None:
        """Until every process is here."""
        self.fabric.barrier()

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace gradients by their sums over all processes."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.size == 1 or not gradients:
            return
        total = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(total)
        for gradient, part in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def sum(self, number: float) -> float:
        """The sum of a number over all processes."""
        if self.size == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return total.item()

    def stop(self, requested: str | None) -> str | None:
        """A reason to stop that any process has, one of `STOPS`: the same in all of them."""
        if self.size == 1:
            return requested
        flags = torch.tensor([float(requested == stop) for stop in STOPS], device=self.device)
        torch.distributed.all_reduce(flags)
        return next((stop for stop, count in zip(STOPS, flags.tolist(), strict=True) if count > 0), None)
