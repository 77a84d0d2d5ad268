"""ASDA pretraining (arXiv 2507.02666, released code): predict what a teacher makes of the patches that are hidden.

The teacher sees a whole clip once. The student sees a fifth of its patches, and that for many masks of the same clip;
only visible patches go through its blocks. A convolutional decoder fills in the others, from noise in their place, and
two things are regressed: the teacher's latent target of each hidden patch (frame loss), and from the class token the
mean of all targets of the clip (utterance loss). Masking and decoder are those of data2vec 2.0 (2212.07525).

The released weight of the utterance loss multiplies a sum over the clips and masks of a process; here both losses are
means, so that a weight means the same at any batch size: asda.weights.utterance = released weight * clips * masks of a
process, 0.5 * 12 * 16 = 96.

Shapes: B clips, C masks of each, R = B * C rows (those of a clip stand together), T frames, M mel bands, N patches, K
of them visible, D width.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import settings
from ..config import RunConfig
from ..data import Batch
from ..features import LogMel
from ..masking import inverse_blocks
from ..nn import ConvDecoder, ViT
from ..random import fold, key, normal
from .base import Losses, parameter_groups, seeded
from .collapse import Criterion, effective_rank, spread
from .losses import frame_loss, latent_targets, utterance_loss
from .teacher import ema_momentum, make_teacher, update_teacher

_HEALTH_CLIPS = 32  # clips looked at for variance, spread and effective rank
_NOISE_AT_ONCE = 1 << 22  # random numbers made at a time, as each takes many times its own memory

# Variance of a channel from token to token below which a run has collapsed: the squares of the deviations at which
# data2vec 2.0's released code stops. Targets start near 1, which is all that their normalisation leaves room for.
TARGET_FLOOR, PREDICTION_FLOOR = 0.1**2, 0.01**2


class Network(nn.Module):
    """The student: backbone, and the decoder where frames are predicted."""

    def __init__(self, cfg: RunConfig):
        super().__init__()
        asda = cfg.asda
        self.backbone = ViT(cfg.model, cfg.grid)
        self.decoder = None
        if "frame" in asda.active:
            self.decoder = ConvDecoder(
                cfg.model.width, asda.decoder_width, asda.decoder_layers, asda.decoder_kernel, asda.decoder_groups
            )


class Targets(NamedTuple):
    """What the student is to predict; fp32, without gradient."""

    patches: Tensor
    """[B, N, D]"""
    utterance: Tensor
    """[B, D], the mean over all tokens of a clip's target"""


def targets(backbone: ViT, log_mel: Tensor, asda: settings.Asda) -> tuple[Targets, Tensor]:
    """The targets of whole clips [B, T, M], and the tokens [B, 1+N, D] that the teacher's `backbone` put out.

    Targets are made of what the MLPs of its blocks put out, see `latent_targets`; without the class token, or with it.
    """
    depth = len(backbone.blocks)
    blocks = range(depth - (asda.target_blocks or depth), depth)
    with torch.no_grad():
        seen = backbone.inspect(log_mel, mlp=blocks)
        patches = math.prod(seen.grid)
        made = [seen.mlp[block] if asda.class_in_targets else seen.mlp[block][:, -patches:] for block in blocks]
        target = latent_targets(made)  # [B, N, D], or [B, 1+N, D]
    return Targets(target[:, -patches:], target.mean(1)), seen.tokens


def predict(
    backbone: ViT,
    decoder: ConvDecoder | None,
    log_mel: Tensor,
    visible: Tensor,
    noise: Tensor | None,
    keys: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """What a student makes of the visible patches: class tokens [R, D], and what the decoder predicts for all patches
    [R, N, D] (None without a decoder).

    log_mel: [B, T, M]. visible: int64 [R, K], numbers of patches. noise: [R, N, D], of which the decoder sees what is
    not visible. keys: int64 [R] for stochastic depth, see `ViT.inspect`.
    """
    seen = backbone.inspect(log_mel, keys, visible=visible, clones=len(visible) // len(log_mel))
    tokens = seen.tokens  # [R, 1+K, D]
    if decoder is None:
        return tokens[:, 0], None
    place = visible[..., None].expand(-1, -1, tokens.shape[-1])  # [R, K, D]
    return tokens[:, 0], decoder(noise.scatter(1, place, tokens[:, 1:].to(noise.dtype)), seen.grid)


def decoder_noise(keys: Tensor, patches: int, width: int, deviation: float) -> Tensor:
    """Normal noise of a standard deviation, [R, patches, width], for keys int64 [R] of asit_lab.random."""
    rows = max(1, _NOISE_AT_ONCE // (patches * width))
    parts = [deviation * normal(part, patches * width) for part in fold(keys, "decoder noise").split(rows)]
    return torch.cat(parts).unflatten(1, (patches, width))


def channel_variance(rows: Tensor) -> Tensor:
    """Variance of each channel from row to row: [n, D] -> [D]."""
    return rows.float().var(0)


def build_network(cfg: RunConfig, seed: int | None = None) -> Network:
    """A network with its start weights: a function of the configuration and the seed (default: train.seed) alone."""
    return seeded(lambda: Network(cfg), cfg.train.seed if seed is None else seed)


class ASDA(nn.Module):
    """Student, teacher and losses. The teacher has a backbone alone.

    clips: number of training clips, which fixes how many steps an epoch has.
    """

    views = 1

    def __init__(self, cfg: RunConfig, clips: int):
        super().__init__()
        self.cfg = cfg
        self.steps_per_epoch = cfg.steps_per_epoch(clips)
        self.total_steps = cfg.total_steps(clips)
        self.front_end = LogMel.from_config(cfg.features)
        self.student = build_network(cfg)
        self.teacher = make_teacher(self.student)
        self.teacher.decoder = None
        self._seen: dict[str, Tensor] = {}  # what `health` looks at, of the last pass
        self._last_step = 0

    def reset_teacher(self) -> None:
        """Give the teacher the student's weights, after start weights were loaded."""
        self.teacher.backbone.load_state_dict(self.student.backbone.state_dict())

    # --- one step ---------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, step: int) -> Losses:
        """Losses of a batch (or of a part of it) at optimiser step `step`."""
        asda, grid = self.cfg.asda, self.student.backbone.grid
        clean = self.log_mel(batch)
        keys = self.row_keys(batch.position.to(clean.device), step)
        visible, hidden = inverse_blocks(fold(keys, "mask"), grid, asda.visible, asda.block)
        noise = None
        if self.student.decoder is not None:
            noise = decoder_noise(keys, math.prod(grid), self.cfg.model.width, asda.noise)
        return self.losses(clean, visible, hidden, noise, fold(keys, "drop"))

    def log_mel(self, batch: Batch) -> Tensor:
        """Waveforms of a batch -> normalised log-mel [B, T, M], cut or padded to the model's frames."""
        raw = self.front_end(batch.waves[:, 0], batch.lengths[:, 0])  # [B, T', M]
        return self.front_end.normalise(self.front_end.fit(raw, self.cfg.input_frames))

    def row_keys(self, position: Tensor, step: int) -> Tensor:
        """A key for each mask of each clip: positions int64 [B] in the global batch -> int64 [R]."""
        mask = torch.arange(self.cfg.asda.clones, device=position.device)
        return key(self.cfg.train.seed, step, position[:, None], mask).flatten()

    def losses(
        self, clean: Tensor, visible: Tensor, hidden: Tensor, noise: Tensor | None, drop_keys: Tensor | None = None
    ) -> Losses:
        """The objective on given clips and masks: clean [B, T, M], visible int64 [R, K], hidden bool [R, N].

        noise: [R, N, D] for the decoder; drop_keys: int64 [R] for stochastic depth; None switches it off.
        """
        weights = self.cfg.asda.weights
        target, teacher = targets(self.teacher.backbone, clean, self.cfg.asda)
        utterance, frames = predict(self.student.backbone, self.student.decoder, clean, visible, noise, drop_keys)
        parts: dict[str, Tensor] = {}
        if "frame" in self.cfg.asda.active:
            parts["frame"] = frame_loss(frames, target.patches, hidden)
        if "utterance" in self.cfg.asda.active:
            parts["utterance"] = utterance_loss(utterance, target.utterance)
        self._note(target.patches, teacher, utterance, frames, hidden)
        return Losses(sum(weights[name] * loss for name, loss in parts.items()), parts)

    @torch.no_grad()
    def _note(self, target: Tensor, teacher: Tensor, utterance: Tensor, frames: Tensor | None, hidden: Tensor) -> None:
        """Keep what `health` looks at: of the first clips, and of the first mask of each."""
        clips, clones = slice(_HEALTH_CLIPS), self.cfg.asda.clones
        self._seen = {"target": target[clips].flatten(0, 1), "tokens": teacher[clips]}
        if frames is None:
            self._seen["prediction"] = utterance[::clones][clips].detach()
        else:
            self._seen["prediction"] = frames[::clones][clips].detach()[hidden[::clones][clips]]

    def after_step(self, step: int) -> None:
        """Move the teacher by the student."""
        self._last_step = step
        update_teacher(self.teacher.backbone, self.student.backbone, self.ema_momentum(step))

    def ema_momentum(self, step: int) -> float:
        """Momentum of the teacher at a step."""
        return ema_momentum(self.cfg.objective, self.steps_per_epoch, self.total_steps, step)

    # --- what the loop reads ----------------------------------------------------------------------------------------

    def param_groups(self) -> list[dict]:
        """Groups for the optimiser; in the released code everything is decayed (optim.decay "all")."""
        return parameter_groups(self.student.named_parameters(), self.cfg.optim)

    @torch.no_grad()
    def health(self) -> dict[str, float]:
        """Of the last step: momentum of the teacher; variance from token to token, mean over channels, of targets and
        of predictions (of hidden patches; of class tokens without a frame loss); spread and effective rank of the
        teacher's clip embeddings, both ways of pooling. nan where there was no step yet."""
        pools = ("class", "mean")
        measured = {f"{name}_variance": math.nan for name in ("target", "prediction")}
        measured |= {f"{what}_{pool}": math.nan for pool in pools for what in ("spread", "rank")}
        if self._seen:
            for name in ("target", "prediction"):
                measured[f"{name}_variance"] = channel_variance(self._seen[name]).mean().item()
            tokens = self._seen["tokens"].float()
            for pool, embeddings in zip(pools, (tokens[:, 0], tokens[:, 1:].mean(1)), strict=True):
                measured[f"spread_{pool}"] = spread(embeddings).item()
                measured[f"rank_{pool}"] = effective_rank(embeddings).item()
        return {"momentum": self.ema_momentum(self._last_step), **measured}

    @staticmethod
    def criteria(cfg: RunConfig) -> list[Criterion]:
        """What of `health` tells that a run of this configuration has collapsed."""
        floors = {"target": TARGET_FLOOR, "prediction": PREDICTION_FLOOR}
        return [
            Criterion(f"{name} variance", partial(_over_floor, name, floor), partial(_words, cfg, name, floor))
            for name, floor in floors.items()
        ]

    def samples(self, batch: Batch) -> dict[str, Tensor]:
        """Nothing: what is predicted is latent, and has no picture. See `Encoder.prediction_error`."""
        return {}


def _over_floor(name: str, floor: float, row: Mapping[str, float]) -> float:
    return row.get(f"{name}_variance", math.nan) / floor


def _words(cfg: RunConfig, name: str, floor: float, row: Mapping[str, float], steps: int) -> str:
    if name == "target":
        what = "the teacher's targets have collapsed: they hardly differ from token to token"
        remedy = f"a teacher that follows more slowly (objective.ema, now {cfg.objective.ema:g}, nearer to 1)"
    else:
        what = "the predictions have collapsed: every hidden patch gets nearly the same"
        remedy = "a longer optim.warmup"
    return (
        f"{what}: variance {row[f'{name}_variance']:.2g}, below {floor:g}, for {steps} steps; "
        f"try {remedy}, or a lower optim.rate ({cfg.optim.rate:g})"
    )
