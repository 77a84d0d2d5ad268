"""A base for objectives of the user's own: everything but the loss (docs/extending.md)."""

import torch
from torch import Tensor, nn

from ..config import RunConfig
from ..data import Batch
from ..features import LogMel
from ..nn import ViT
from .base import Losses, parameter_groups, seeded
from .collapse import Criterion
from .teacher import ema_momentum, make_teacher, update_teacher


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


class BaseObjective(nn.Module):
    """Student and teacher backbone, log-mels, moving average; a subclass adds `forward`, and heads if it needs any.

    views: crops of each clip. clips: number of training clips, which fixes how many steps an epoch has.
    student: a module with `backbone` and `decoder` (or None); by default a backbone alone.
    """

    views = 1

    def __init__(self, cfg: RunConfig, clips: int, student: nn.Module | None = None):
        super().__init__()
        self.cfg = cfg
        self.steps_per_epoch, self.total_steps = cfg.steps_per_epoch(clips), cfg.total_steps(clips)
        self.front_end = LogMel.from_config(cfg.features)
        self.student = BackboneOnly.build(cfg) if student is None else student
        self.teacher = make_teacher(self.student)
        self._last_step = 0

    def forward(self, batch: Batch, step: int) -> Losses:
        """Losses of (a part of) the batch of optimiser step `step`."""
        raise NotImplementedError

    def log_mel(self, batch: Batch) -> Tensor:
        """Waveforms of a batch -> normalised log-mel [views, B, T, M], cut or padded to the model's frames."""
        waves, lengths = batch.waves.transpose(0, 1).flatten(0, 1), batch.lengths.transpose(0, 1).flatten()
        raw = self.front_end(waves, lengths)  # [V*B, T', M]
        fitted = self.front_end.fit(raw, self.cfg.input_frames)
        return self.front_end.normalise(fitted).unflatten(0, (self.views, -1))

    def reset_teacher(self) -> None:
        """Give the teacher the student's weights, after start weights were loaded."""
        self.teacher.load_state_dict(self.student.state_dict())

    def param_groups(self) -> list[dict]:
        """Everything that is trained, the subclass's heads included, in two groups: decayed and not."""
        return parameter_groups(self.named_parameters(), self.cfg.optim)

    def after_step(self, step: int) -> None:
        """Move the teacher towards the student."""
        self._last_step = step
        update_teacher(self.teacher, self.student, self.momentum(step))

    def momentum(self, step: int) -> float:
        """Momentum of the teacher at a step."""
        return ema_momentum(self.cfg.objective, self.steps_per_epoch, self.total_steps, step)

    def health(self) -> dict[str, float]:
        """Columns of metrics.csv besides the losses."""
        return {"momentum": self.momentum(self._last_step)}

    @staticmethod
    def criteria(cfg: RunConfig) -> list[Criterion]:
        """Signs of collapse in metrics.csv: none known."""
        return []

    @torch.no_grad()
    def samples(self, batch: Batch) -> dict[str, Tensor]:
        """No pictures with the snapshots."""
        return {}
