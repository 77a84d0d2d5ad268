"""What is fine-tuned on one split, and how far it has got."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..data.manifest import Manifest
from ..encoder import Encoder
from ..evaluation.splits import Split
from .recipe import Recipe


@dataclass
class FinetuneTask:
    """One split to fine-tune on, with one seed."""

    encoder: Encoder
    recipe: Recipe
    manifest: Manifest
    targets: Tensor
    """bool [rows of the manifest, classes]"""
    split: Split
    seed: int
    folder: Path

    @property
    def multi(self) -> bool:
        return self.recipe.task == "multi"

    @property
    def headline(self) -> str:
        """The weights whose score is reported: averaged, else of the best epoch on valid, else of the last epoch."""
        if self.recipe.average_from and self.recipe.average_from * self._epoch_steps <= self._steps:
            return "averaged"
        return "best" if len(self.split.valid) else "last"

    @property
    def _epoch_steps(self) -> int:
        return self.recipe.steps_per_epoch(len(self.split.train))

    @property
    def _steps(self) -> int:
        return self.recipe.total_steps(len(self.split.train))


@dataclass
class FinetuneState:
    """Results so far, besides weights and moments."""

    step: int = 0
    loss_sum: float = 0.0
    """of the steps since the last row of metrics.csv"""
    loss_steps: int = 0
    best: dict = field(default_factory=dict)
    """epoch, step and score of the best test so far"""
    averaged: int = 0
    """epochs whose weights are in the sum"""
    bad: dict[str, str] = field(default_factory=dict)
    """path -> reason of files that could not be read"""
    normalisation: dict = field(default_factory=dict)
