"""What the training loop asks of an objective. The loop knows nothing else about what is learned."""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from ..data import Batch


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
        """Cheap measurements of the last batch, for metrics.csv."""

    def samples(self, batch: Batch) -> dict[str, Tensor]:
        """Tensors [clips, frames, mels] worth a picture: clean, corrupted, reconstructed, mask; or nothing."""
