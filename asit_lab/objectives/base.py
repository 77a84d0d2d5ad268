"""The protocol between training loop and objectives, and what the objectives here share."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from .. import settings
from ..config import RunConfig
from ..data import Batch
from ..features import LogMel
from .collapse import Criterion, effective_rank, spread
from .teacher import ema_momentum, make_teacher


@dataclass
class Losses:
    """Losses of a batch, or of a part of one: means over all parts and processes are those of the whole batch."""

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
        """Losses of (a part of) the batch of optimiser step `step`; a part was cut from `batch.source`."""

    def param_groups(self) -> list[dict]:
        """Groups for the optimiser: {"params": [...], "decay": whether weight decay applies}."""

    def after_step(self, step: int) -> None:
        """Called once after the optimiser's step: teacher, centres."""

    def health(self) -> dict[str, float]:
        """Cheap measurements of the last batch, for metrics.csv: the same names at every step, nan where unknown. Only
        the first process calls it, so it must not wait for others."""

    @staticmethod
    def criteria(cfg: RunConfig) -> list[Criterion]:
        """What shows in the rows of metrics.csv that a run of this configuration has collapsed."""

    def samples(self, batch: Batch) -> dict[str, Tensor]:
        """Tensors [clips, frames, mels] worth a picture: clean, corrupted, reconstructed, mask; or nothing."""


# --- what objectives share ------------------------------------------------------------------------------------------

Module = TypeVar("Module", bound=nn.Module)
Prepared = TypeVar("Prepared")


class StudentTeacher(nn.Module):
    """A student, a teacher that is its moving average, and the front end before both.

    clips: number of training clips, which fixes how many steps an epoch has.
    """

    def __init__(self, cfg: RunConfig, clips: int, student: nn.Module):
        super().__init__()
        self.cfg = cfg
        self.steps_per_epoch = cfg.steps_per_epoch(clips)
        self.total_steps = cfg.total_steps(clips)
        self.front_end = LogMel.from_config(cfg.features)
        self.student = student
        self.teacher = make_teacher(student)
        if cfg.train.freeze_backbone:
            student.backbone.requires_grad_(False)
        self._last_step = 0
        self._prepared: tuple[Batch, int, object] | None = None

    def normalised_log_mel(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """Crops float [n, S] with so many samples of audio, int64 [n] -> normalised log-mel [n, T, M] of the model's
        frames."""
        return self.front_end.normalise(self.front_end.fit(self.front_end(waves, lengths), self.cfg.input_frames))

    def audio_frames(self, lengths: Tensor) -> Tensor | None:
        """bool [n, T], True where a crop has audio and no padding; None where that is everywhere, or padding is learned
        from. lengths: int64 [n], samples of audio."""
        if self.cfg.data.padding == "learn":
            return None
        counts = self.front_end.frames_of(lengths)[:, None]  # [n, 1]
        frames = torch.arange(self.cfg.input_frames, device=lengths.device) < counts
        frames = frames | (counts == 0)  # a crop without a whole frame has nothing else to learn from
        return None if bool(frames.all()) else frames

    def audio_tokens(self, frames: Tensor | None) -> Tensor | None:
        """Tokens with at least a frame of audio in them: bool [n, T] -> bool [n, N]."""
        if frames is None:
            return None
        by_time = frames.unflatten(1, (-1, self.cfg.model.patch[0])).any(2)  # [n, time]
        return by_time.repeat_interleave(self.cfg.grid[1], dim=1)

    def prepared(self, batch: Batch, step: int, prepare: Callable[[Batch, int, int], Prepared]) -> Prepared:
        """The result of prepare(whole batch of this process, step, number of its parts), once for all parts of it."""
        source = batch.source or batch
        if self._prepared is None or self._prepared[0] is not source or self._prepared[1] != step:
            self._prepared = (source, step, prepare(source, step, len(source.waves) // len(batch.waves)))
        prepared = self._prepared[2]
        if batch.start + len(batch.waves) == len(source.waves):  # the last part: let go of the memory
            self._prepared = None
        return prepared

    def ema_momentum(self, step: int) -> float:
        """Momentum of the teacher at a step."""
        return ema_momentum(self.cfg.objective, self.steps_per_epoch, self.total_steps, step)


def mean_token(tokens: Tensor, audio: Tensor | None = None) -> Tensor:
    """Mean of the patch tokens of each clip: [n, 1+N, D] -> [n, D]. audio: bool [n, N], those that count; None: all."""
    if audio is None:
        return tokens[:, 1:].mean(1)
    weight = audio[..., None].to(tokens.dtype)
    return (tokens[:, 1:] * weight).sum(1) / weight.sum(1)


def clip_embeddings(tokens: Tensor, audio: Tensor | None = None) -> Tensor:
    """Class token and mean patch token of each clip, for `embedding_health`: [n, 1+N, D] -> [n, 2, D]."""
    return torch.stack([tokens[:, 0], mean_token(tokens, audio)], dim=1).float()


def embedding_health(embeddings: Tensor | None) -> dict[str, float]:
    """Spread and effective rank of clip embeddings [n, 2, D], for both ways of pooling; nan without any."""
    report = {}
    for i, pool in enumerate(("class", "mean")):
        report[f"spread_{pool}"] = math.nan if embeddings is None else spread(embeddings[:, i]).item()
        report[f"rank_{pool}"] = math.nan if embeddings is None else effective_rank(embeddings[:, i]).item()
    return report


def seeded(build: Callable[[], Module], seed: int) -> Module:
    """The result of `build`, with start weights drawn from `seed`; torch's global generator stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], optim: settings.Optim) -> list[dict]:
    """The trainable parameters among (name, parameter) in two groups, decayed and not, by `optim.decay`."""
    decayed, free = [], []
    for name, parameter in named:
        if parameter.requires_grad:
            small = parameter.ndim == 1 or name.endswith("bias")
            (free if small and optim.decay == "weights" else decayed).append(parameter)
    return [{"params": decayed, "decay": True}, {"params": free, "decay": False}]
