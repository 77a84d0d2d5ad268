"""What the training loop asks of an objective. The loop knows nothing else about what is learned."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from .. import settings
from ..config import RunConfig
from ..data import Batch
from .collapse import Criterion


@dataclass
class Losses:
    """What an objective gives back for a batch."""

    total: Tensor
    """scalar, what is minimised"""
    parts: dict[str, Tensor] = field(default_factory=dict)
    """name -> unweighted scalar loss"""


class Objective(Protocol):
    """A torch.nn.Module that also has these."""

    views: int
    """crops it needs of each clip"""
    student: nn.Module
    """has `backbone` and `decoder` (a module, or None), which go into snapshots"""
    teacher: nn.Module
    """has `backbone`"""

    def reset_teacher(self) -> None:
        """Give the teacher the student's weights: called once start weights were loaded into the student."""

    def __call__(self, batch: Batch, step: int) -> Losses:
        """Losses of (a part of) the batch of optimiser step `step`."""

    def param_groups(self) -> list[dict]:
        """Groups for the optimiser: {"params": [...], "decay": whether weight decay applies}."""

    def after_step(self, step: int) -> None:
        """Called once after the optimiser's step: teacher, centres."""

    def health(self) -> dict[str, float]:
        """Cheap measurements of the last batch, for metrics.csv: the same names at every step, nan for what is not
        known. No talk between processes: only the first is asked."""

    @staticmethod
    def criteria(cfg: RunConfig) -> list[Criterion]:
        """What in the rows of metrics.csv tells that a run of this configuration has collapsed."""

    def samples(self, batch: Batch) -> dict[str, Tensor]:
        """Tensors [clips, frames, mels] worth a picture: clean, corrupted, reconstructed, mask; or nothing."""


# --- what objectives share ------------------------------------------------------------------------------------------

Module = TypeVar("Module", bound=nn.Module)


def seeded(build: Callable[[], Module], seed: int) -> Module:
    """What `build` makes, its start weights drawn from `seed`; torch's global generator stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], optim: settings.Optim) -> list[dict]:
    """The trainable ones of (name, parameter) as two groups, decayed and not, by `optim.decay`."""
    decayed, free = [], []
    for name, parameter in named:
        if parameter.requires_grad:
            small = parameter.ndim == 1 or name.endswith("bias")
            (free if small and optim.decay == "weights" else decayed).append(parameter)
    return [{"params": decayed, "decay": True}, {"params": free, "decay": False}]
