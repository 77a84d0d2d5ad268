"""A base for objectives of the user's own: everything but the loss (docs/extending.md)."""

import torch
from torch import Tensor, nn

from ..config import RunConfig
from ..data import Batch
from ..nn import ViT
from .base import Losses, StudentTeacher, parameter_groups, seeded
from .collapse import Criterion
from .teacher import update_teacher


class BackboneOnly(nn.Module):
    """A student without heads or decoder."""

    def __init__(self, cfg: RunConfig):
        super().__init__()
        self.backbone = ViT(cfg.model, cfg.grid)
        self.decoder = None

    @classmethod
    def build(cls, cfg: RunConfig, seed: int | None = None) -> "BackboneOnly":
        """One with its start weights: a function of the configuration and the seed (default: train.seed) alone."""
        return seeded(lambda: cls(cfg), cfg.train.seed if seed is None else seed)


class BaseObjective(StudentTeacher):
    """Student and teacher backbone, log-mels, moving average; a subclass adds `forward`, and heads if it needs any.

    views: crops of each clip. clips: number of training clips, which fixes how many steps an epoch has.
    student: a module with `backbone` and `decoder` (or None); by default a backbone alone.
    """

    views = 1

    def __init__(self, cfg: RunConfig, clips: int, student: nn.Module | None = None):
        super().__init__(cfg, clips, BackboneOnly.build(cfg) if student is None else student)

    def forward(self, batch: Batch, step: int) -> Losses:
        """Losses of (a part of) the batch of optimiser step `step`."""
        raise NotImplementedError

    def log_mel(self, batch: Batch) -> Tensor:
        """Waveforms of a batch -> normalised log-mel [views, B, T, M], cut or padded to the model's frames."""
        waves, lengths = batch.waves.transpose(0, 1).flatten(0, 1), batch.lengths.transpose(0, 1).flatten()
        return self.normalised_log_mel(waves, lengths).unflatten(0, (self.views, -1))

    def reset_teacher(self) -> None:
        """Give the teacher the student's weights, after start weights were loaded."""
        self.teacher.load_state_dict(self.student.state_dict())

    def param_groups(self) -> list[dict]:
        """Everything that is trained, the subclass's heads included, in two groups: decayed and not."""
        return parameter_groups(self.named_parameters(), self.cfg.optim)

    def after_step(self, step: int) -> None:
        """Move the teacher towards the student."""
        self._last_step = step
        update_teacher(self.teacher, self.student, self.ema_momentum(step))

    def health(self) -> dict[str, float]:
        """Columns of metrics.csv besides the losses."""
        return {"momentum": self.ema_momentum(self._last_step)}

    @staticmethod
    def criteria(cfg: RunConfig) -> list[Criterion]:
        """Signs of collapse in metrics.csv: none known."""
        return []

    @torch.no_grad()
    def samples(self, batch: Batch) -> dict[str, Tensor]:
        """No pictures with the snapshots."""
        return {}
