"""ASDA pretraining (arXiv 2507.02666, released code): predict a teacher's latent targets of hidden patches.

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
from ..masking import inverse_blocks
from ..nn import ConvDecoder, ViT
from ..random import fold, key, normal
from . import processes
from .base import Losses, StudentTeacher, clip_embeddings, embedding_health, parameter_groups, seeded
from .collapse import Criterion
from .losses import frame_loss, latent_targets, utterance_loss
from .teacher import update_teacher

_HEALTH_CLIPS = 32  # clips that variance, spread and effective rank are measured on
_NOISE_AT_ONCE = 1 << 22  # random numbers made at a time, as each takes many times its own memory

# Variance of a channel from token to token below which a run has collapsed: the squares of the deviations at which
# data2vec 2.0's released code stops. Targets start near 1, which is all that their normalisation leaves room for.
TARGET_FLOOR, PREDICTION_FLOOR = 0.1**2, 0.01**2


class AsdaNetwork(nn.Module):
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


def targets(backbone: ViT, log_mel: Tensor, asda: settings.Asda, audio: Tensor | None = None) -> tuple[Targets, Tensor]:
    """The targets of whole clips [B, T, M], and the tokens [B, 1+N, D] that the teacher's `backbone` put out.

    Targets are made from the output of the MLPs of its blocks, see `latent_targets`; without the class token, or with
    it. audio: bool [B, N], patches that are not padding; None: all.
    """
    depth = len(backbone.blocks)
    blocks = range(depth - (asda.target_blocks or depth), depth)
    with torch.no_grad():
        inspection = backbone.inspect(log_mel, mlp=blocks, audio=audio)
        patches = math.prod(inspection.grid)
        first = None if asda.class_in_targets else -patches  # of the tokens that make the target
        layers = [inspection.mlp[block][:, first:] for block in blocks]
        if audio is not None and asda.class_in_targets:
            audio = nn.functional.pad(audio, (1, 0), value=True)
        target = latent_targets(layers, audio)  # [B, N, D], or [B, 1+N, D]
        if audio is None:
            utterance = target.mean(1)
        else:
            utterance = (target * audio[..., None]).sum(1) / audio.sum(1, keepdim=True).to(target.dtype)
    return Targets(target[:, -patches:], utterance), inspection.tokens


def predict_targets(
    backbone: ViT,
    decoder: ConvDecoder | None,
    log_mel: Tensor,
    visible: Tensor,
    noise: Tensor | None,
    keys: Tensor | None = None,
    audio: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """A student's output for the visible patches: class tokens [R, D], and the decoder's prediction of all patches
    [R, N, D] (None without a decoder).

    log_mel: [B, T, M]. visible: int64 [R, K], numbers of patches. noise: [R, N, D], of which the decoder sees what is
    not visible. keys: int64 [R] for stochastic depth, see `ViT.inspect`. audio: as in `targets`.
    """
    inspection = backbone.inspect(log_mel, keys, visible=visible, clones=len(visible) // len(log_mel), audio=audio)
    tokens = inspection.tokens  # [R, 1+K, D]
    if decoder is None:
        return tokens[:, 0], None
    place = visible[..., None].expand(-1, -1, tokens.shape[-1])  # [R, K, D]
    return tokens[:, 0], decoder(noise.scatter(1, place, tokens[:, 1:].to(noise.dtype)), inspection.grid)


def decoder_noise(keys: Tensor, patches: int, width: int, deviation: float) -> Tensor:
    """Normal noise of a standard deviation, [R, patches, width], for keys int64 [R] of asit_lab.random."""
    rows = max(1, _NOISE_AT_ONCE // (patches * width))
    parts = [deviation * normal(part, patches * width) for part in fold(keys, "decoder noise").split(rows)]
    return torch.cat(parts).unflatten(1, (patches, width))


def channel_variance(rows: Tensor) -> Tensor:
    """Variance of each channel from row to row: [n, D] -> [D]."""
    return rows.float().var(0)


def build_asda_network(cfg: RunConfig, seed: int | None = None) -> AsdaNetwork:
    """A network with its start weights: a function of the configuration and the seed (default: train.seed) alone."""
    return seeded(lambda: AsdaNetwork(cfg), cfg.train.seed if seed is None else seed)


class _Masks(NamedTuple):
    """The masks of all clips of this process in a step, and what the losses need of the other processes."""

    visible: Tensor
    """int64 [R, K]"""
    hidden: Tensor
    """bool [R, N]"""
    count: Tensor
    """scalar, what the sum of a part's frame losses is divided by"""


class ASDA(StudentTeacher):
    """Student, teacher and losses. The teacher has a backbone alone.

    clips: number of training clips, which fixes how many steps an epoch has.
    """

    views = 1

    def __init__(self, cfg: RunConfig, clips: int):
        super().__init__(cfg, clips, build_asda_network(cfg))
        self.teacher.decoder = None
        self._health_rows: dict[str, Tensor] = {}  # of the last pass, for `health`

    def reset_teacher(self) -> None:
        """Give the teacher the student's weights, after start weights were loaded."""
        self.teacher.backbone.load_state_dict(self.student.backbone.state_dict())

    # --- one step ---------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, step: int) -> Losses:
        """Losses of a batch (or of a part of it) at optimiser step `step`."""
        asda, grid = self.cfg.asda, self.student.backbone.grid
        masks = self.prepared(batch, step, self._draw_masks)
        clean = self.log_mel(batch)
        keys = self.row_keys(batch.position.to(clean.device), step)
        rows = slice(batch.start * asda.clones, (batch.start + len(batch.waves)) * asda.clones)
        noise = None
        if self.student.decoder is not None:
            noise = decoder_noise(keys, math.prod(grid), self.cfg.model.width, asda.noise)
        audio = self.audio_tokens(self._audio(batch))
        drop_keys = fold(keys, "drop")
        return self.losses(clean, masks.visible[rows], masks.hidden[rows], noise, drop_keys, audio, masks.count)

    @torch.no_grad()
    def _draw_masks(self, batch: Batch, step: int, parts: int) -> _Masks:
        """Masks of this process's whole batch."""
        asda, grid = self.cfg.asda, self.student.backbone.grid
        position = batch.position.to(batch.waves.device)
        visible, hidden = inverse_blocks(fold(self.row_keys(position, step), "mask"), grid, asda.visible, asda.block)
        audio = self.audio_tokens(self._audio(batch))
        if audio is not None:  # padding is not predicted
            hidden = hidden & audio.repeat_interleave(asda.clones, dim=0)
        count = processes.total(hidden.sum()).clamp(min=1)
        return _Masks(visible, hidden, count / (parts * processes.count()))

    def _audio(self, batch: Batch) -> Tensor | None:
        return self.audio_frames(batch.lengths[:, 0].to(batch.waves.device))

    def log_mel(self, batch: Batch) -> Tensor:
        """Waveforms of a batch -> normalised log-mel [B, T, M], cut or padded to the model's frames."""
        return self.normalised_log_mel(batch.waves[:, 0], batch.lengths[:, 0])

    def row_keys(self, position: Tensor, step: int) -> Tensor:
        """A key for each mask of each clip: positions int64 [B] in the global batch -> int64 [R]."""
        mask = torch.arange(self.cfg.asda.clones, device=position.device)
        return key(self.cfg.train.seed, step, position[:, None], mask).flatten()

    def losses(
        self,
        clean: Tensor,
        visible: Tensor,
        hidden: Tensor,
        noise: Tensor | None,
        drop_keys: Tensor | None = None,
        audio: Tensor | None = None,
        count: Tensor | None = None,
    ) -> Losses:
        """The objective on given clips and masks: clean [B, T, M], visible int64 [R, K], hidden bool [R, N].

        noise: [R, N, D] for the decoder. drop_keys: int64 [R] for stochastic depth; None switches it off. audio: bool
        [B, N], patches that are not padding; None: all. count: as for `frame_loss`.
        """
        weights = self.cfg.asda.weights
        target, teacher = targets(self.teacher.backbone, clean, self.cfg.asda, audio)
        utterance, frames = predict_targets(
            self.student.backbone, self.student.decoder, clean, visible, noise, drop_keys, audio
        )
        parts: dict[str, Tensor] = {}
        if "frame" in self.cfg.asda.active:
            parts["frame"] = frame_loss(frames, target.patches, hidden, count)
        if "utterance" in self.cfg.asda.active:
            parts["utterance"] = utterance_loss(utterance, target.utterance)
        self._note(target.patches, clip_embeddings(teacher, audio), utterance, frames, hidden)
        return Losses(sum(weights[name] * loss for name, loss in parts.items()), parts)

    @torch.no_grad()
    def _note(
        self, target: Tensor, embeddings: Tensor, utterance: Tensor, frames: Tensor | None, hidden: Tensor
    ) -> None:
        """Keep what `health` looks at: of the first clips, and of the first mask of each."""
        clips, clones = slice(_HEALTH_CLIPS), self.cfg.asda.clones
        self._health_rows = {"target": target[clips].flatten(0, 1), "embeddings": embeddings[clips]}
        if frames is None:
            self._health_rows["prediction"] = utterance[::clones][clips].detach()
        else:
            self._health_rows["prediction"] = frames[::clones][clips].detach()[hidden[::clones][clips]]

    def after_step(self, step: int) -> None:
        """Move the teacher by the student."""
        self._last_step = step
        update_teacher(self.teacher.backbone, self.student.backbone, self.ema_momentum(step))

    # --- what the loop reads ----------------------------------------------------------------------------------------

    def param_groups(self) -> list[dict]:
        """Groups for the optimiser; in the released code everything is decayed (optim.decay "all")."""
        return parameter_groups(self.student.named_parameters(), self.cfg.optim)

    @torch.no_grad()
    def health(self) -> dict[str, float]:
        """Of the last step: momentum of the teacher; variance from token to token, mean over channels, of targets and
        of predictions (of hidden patches; of class tokens without a frame loss); spread and effective rank of the
        teacher's clip embeddings, both ways of pooling. nan where there was no step yet."""
        report = {"momentum": self.ema_momentum(self._last_step)}
        for name in ("target", "prediction"):
            rows = self._health_rows.get(name)
            report[f"{name}_variance"] = math.nan if rows is None else channel_variance(rows).mean().item()
        return report | embedding_health(self._health_rows.get("embeddings"))

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
        problem = "the teacher's targets have collapsed: they hardly differ from token to token"
        remedy = f"a teacher that follows more slowly (objective.ema, now {cfg.objective.ema:g}, nearer to 1)"
    else:
        problem = "the predictions have collapsed: every hidden patch gets nearly the same"
        remedy = "a longer optim.warmup"
    return (
        f"{problem}: variance {row[f'{name}_variance']:.2g}, below {floor:g}, for {steps} steps; "
        f"try {remedy}, or a lower optim.rate ({cfg.optim.rate:g})"
    )
