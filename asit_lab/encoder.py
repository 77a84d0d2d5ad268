"""What a pretrained model is to its user: waveforms in; embeddings, tokens, attention, a reconstruction (ASiT) or
prediction errors (ASDA) out.

Audio of any length works. All but `attention` cut what is longer than the crops of pretraining into windows of that
length, so that every patch sees positions that were trained; `attention` looks at the clip as a whole, with learned
positions interpolated. A rest shorter than a patch is left out, unless it is all there is.

Shapes: B clips, S samples, T frames, M mel bands, grid of tokens (time, freq), D width, H heads.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor, nn

from .config import RunConfig, load_config, preset_names, resolve
from .errors import InputError
from .features import LogMel
from .masking import gmml, inverse_blocks
from .nn import AttentionMaps, ConvDecoder, ReconstructionHead, ViT
from .objectives import asda, build_network
from .objectives.losses import squared_error
from .random import fold, key
from .training.checkpoint import read_snapshot, section
from .training.run import load_run

POOLS = ("mean", "class", "mean+std")


@dataclass(frozen=True)
class Reconstruction:
    """Normalised log-mels float [B, T, M] and the mask, bool [B, T, M], True = corrupted."""

    clean: Tensor
    corrupted: Tensor
    reconstructed: Tensor
    mask: Tensor


class Encoder(nn.Module):
    """A backbone (the teacher's, unless said otherwise) with its front end.

    student, decoder: what `reconstruct` (ASiT's decoder) or `prediction_error` (ASDA's) needs; None where the weights
    have none.
    """

    def __init__(
        self,
        config: RunConfig,
        backbone: ViT,
        student: ViT | None = None,
        decoder: ReconstructionHead | ConvDecoder | None = None,
        name: str = "encoder",
    ):
        super().__init__()
        self.config, self.name = config, name
        self.front_end = LogMel.from_config(config.features)
        self.backbone, self.student, self.decoder = backbone, student, decoder
        self.eval().requires_grad_(False)

    @classmethod
    def random(cls, config: RunConfig, seed: int = 0) -> "Encoder":
        """An untrained encoder of the same architecture."""
        network = build_network(config, seed)
        return cls(config, network.backbone, network.backbone, network.decoder, name=f"random init (seed {seed})")

    # --- input ------------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.pos_embed.device

    @property
    def reconstructs(self) -> bool:
        """Whether there is what `reconstruct` needs."""
        return isinstance(self.decoder, ReconstructionHead) and self.student is not None

    def log_mel(self, wave, sample_rate: int) -> Tensor:
        """Waveforms float [B, S] or [S] at `sample_rate` Hz -> normalised log-mel [B, T, M], T whole patches.

        Raises InputError for another shape, no audio, or samples that are not finite.
        """
        wave = torch.as_tensor(np.asarray(wave) if not isinstance(wave, Tensor) else wave)
        if not wave.is_floating_point():
            raise InputError(f"wave: expected floating-point samples in [-1, 1], got {wave.dtype}; scale them first")
        wave = wave.float().reshape(1, -1) if wave.ndim == 1 else wave.float()
        if wave.ndim != 2 or 0 in wave.shape:
            raise InputError(f"wave: expected [batch, samples] or [samples] with audio in it, got {tuple(wave.shape)}")
        if not sample_rate > 0:
            raise InputError(f"sample_rate: {sample_rate} is not a number of Hz above 0")
        if not torch.isfinite(wave).all():
            raise InputError("wave: has samples that are NaN or infinite")
        if sample_rate != self.front_end.sample_rate:
            clips = [soxr.resample(clip, sample_rate, self.front_end.sample_rate) for clip in wave.cpu().numpy()]
            wave = torch.from_numpy(np.stack(clips))
        raw = self.front_end(wave.to(self.device))
        patch = self.config.model.patch[0]
        return self.front_end.normalise(self.front_end.fit(raw, max(patch, raw.shape[1] // patch * patch)))

    def _windows(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        return log_mel.split(self.config.input_frames, dim=1)

    # --- output -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def embed(self, wave, sample_rate: int, pool: str = "mean") -> Tensor:
        """Clip embeddings: [B, S] -> [B, D], or [B, 2 D] for "mean+std".

        pool: "mean" or "mean+std" of the patch tokens over time and frequency, or "class", the class token (the mean
        over windows where there are several).
        """
        if pool not in POOLS:
            raise InputError(f"pool: {pool!r} is not one of {', '.join(POOLS)}")
        windows = [self.backbone(window) for window in self._windows(self.log_mel(wave, sample_rate))]
        if pool == "class":
            return torch.stack([tokens[:, 0] for tokens in windows]).mean(0)
        patches = torch.cat([tokens[:, 1:] for tokens in windows], dim=1)  # [B, N, D]
        mean = patches.mean(1)
        return mean if pool == "mean" else torch.cat([mean, patches.std(1, correction=0)], dim=1)

    @torch.no_grad()
    def tokens(self, wave, sample_rate: int) -> Tensor:
        """Patch tokens in their place: [B, S] -> [B, time, freq, D]."""
        parts = []
        for window in self._windows(self.log_mel(wave, sample_rate)):
            grid = (window.shape[1] // self.config.model.patch[0], self.config.grid[1])
            parts.append(self.backbone(window)[:, 1:].unflatten(1, grid))
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def attention(self, wave, sample_rate: int, layers: tuple[int, ...] = (-1,)) -> AttentionMaps:
        """Attention of the layers asked for (negative ones count from the last): [layer, B, H, query, key].

        Token 0 is the class token, token 1 + t * freq + f the patch at time t and band f. Differential attention has
        both softmaxes, `first` and `second`, and `lam`, [layer, 1, 1, 1, 1]; `map` is their difference. In layers
        before the class token joins (model.class_token_at) nothing looks at it, and its own row is NaN.
        """
        depth = len(self.backbone.blocks)
        wrong = [layer for layer in layers if not -depth <= layer < depth]
        if wrong or not layers:
            raise InputError(f"layers: {wrong or layers} not among the model's {depth} blocks (0 to {depth - 1})")
        wanted = [layer % depth for layer in layers]
        maps = self.backbone.inspect(self.log_mel(wave, sample_rate), maps=wanted).maps
        stacked = {}
        for name in ("map", "first", "second", "lam"):
            found = [getattr(maps[layer], name) for layer in wanted]
            if found[0] is not None:
                early = [name != "lam" and layer < self.backbone.class_token_at for layer in wanted]
                found = [_with_class_token(one) if lacks else one for one, lacks in zip(found, early, strict=True)]
                stacked[name] = torch.stack(found)
        return AttentionMaps(**stacked)

    def class_attention(self, wave, sample_rate: int, layer: int = -1) -> Tensor:
        """What the class token attends to: [B, S] -> [B, H, time, freq], each head's share of attention."""
        rows = self.attention(wave, sample_rate, (layer,)).map[0][:, :, 0, 1:]
        return rows.unflatten(-1, (-1, self.config.grid[1]))

    @torch.no_grad()
    def reconstruct(self, wave, sample_rate: int, mask: Tensor | None = None, seed: int = 0) -> Reconstruction:
        """Corrupt by zeros and reconstruct with the student and its decoder.

        mask: bool [B, T, M] or [T, M], True = corrupted; None draws blocks as the configuration's `mask` says, from
        `seed`. T is that of `log_mel`. Raises InputError when the weights have no decoder or the mask does not fit.
        """
        if isinstance(self.decoder, ConvDecoder):
            raise InputError(
                f"{self.name}: its decoder predicts latent targets (ASDA), not log-mels, so it cannot reconstruct; "
                "prediction_error shows what it predicts how well"
            )
        if not self.reconstructs:
            raise InputError(
                f"{self.name}: has no decoder (pretrained without the reconstruction loss, or only a teacher was "
                "published), so it cannot reconstruct"
            )
        clean = self.log_mel(wave, sample_rate)
        mask = self.draw_mask(clean, seed) if mask is None else torch.as_tensor(mask, device=clean.device).bool()
        if mask.shape not in (clean.shape, clean.shape[1:]):
            raise InputError(f"mask: shape {tuple(mask.shape)}, but the log-mel has {tuple(clean.shape)}")
        mask = mask.expand_as(clean)
        corrupted = clean.masked_fill(mask, 0.0)
        parts = []
        for window in self._windows(corrupted):
            grid = (window.shape[1] // self.config.model.patch[0], self.config.grid[1])
            parts.append(self.decoder(self.student(window)[:, 1:], grid))
        return Reconstruction(clean, corrupted, torch.cat(parts, dim=1), mask)

    def draw_mask(self, clean: Tensor, seed: int = 0) -> Tensor:
        """Block masks as pretraining draws them for zeros: log-mel [B, T, M] -> bool [B, T, M].

        Windows are masked one by one, so that blocks have the size they had in pretraining.
        """
        settings = self.config.mask.model_copy(update={"kinds": {"zeros": 1.0}})
        clips = torch.arange(len(clean), device=clean.device)
        parts = []
        for i, window in enumerate(self._windows(clean)):
            keys = key(seed, i, clips, "reconstruct")
            parts.append(gmml(keys, window.shape[1], window.shape[2], settings, self.config.model.patch).pixels)
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def prediction_error(self, wave, sample_rate: int, mask: Tensor | None = None, seed: int = 0) -> Tensor:
        """ASDA's error of each patch where it is hidden: [B, S] -> [B, time, freq].

        The error is the frame loss of one token: squared distance of the student's prediction from the teacher's
        target, over the root of the width. mask: bool [time, freq], True = hidden, patches of `tokens`; what is never
        hidden is NaN. None draws masks as in pretraining, from `seed`, `asda.clones` of them and as many again until
        each patch was hidden, and averages over those that hide it. Where the last window would be shorter, it reaches
        back instead: targets are normalised over a window's patches, and few would make others.
        Raises InputError when the weights have no decoder of ASDA's or the mask does not fit.
        """
        if not isinstance(self.decoder, ConvDecoder) or self.student is None:
            raise InputError(
                f"{self.name}: has no decoder that predicts latent targets (ASDA's, with teacher and student both), so "
                "there is no prediction error" + ("; reconstruct shows what it predicts" if self.reconstructs else "")
            )
        clean = self.log_mel(wave, sample_rate)
        grid = (clean.shape[1] // self.config.model.patch[0], self.config.grid[1])
        if mask is not None:
            mask = torch.as_tensor(mask, device=clean.device).bool()
            if mask.shape != grid:
                raise InputError(f"mask: shape {tuple(mask.shape)}, but there are {grid} patches")
        error, times = (torch.zeros(len(clean), *grid, device=clean.device) for _ in range(2))
        length = min(grid[0], self.config.grid[0])
        for start in dict.fromkeys(min(at, grid[0] - length) for at in range(0, grid[0], length)):
            window = slice(start, start + length)
            keys = key(seed, start, torch.arange(len(clean), device=clean.device), "prediction error")
            summed, hidden = self._window_errors(clean, window, None if mask is None else mask[window], keys)
            error[:, window] += summed
            times[:, window] += hidden
        return error / times

    def _window_errors(self, clean: Tensor, window: slice, mask: Tensor | None, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the errors of each patch over the masks that hide it, and their number, both [B, time, freq].

        clean: [B, T, M]. window: patches along time. mask: bool [time, freq] of the window, or None. keys: int64 [B].
        """
        patch = self.config.model.patch[0]
        log_mel = clean[:, window.start * patch : window.stop * patch]
        grid = (window.stop - window.start, self.config.grid[1])
        if mask is None:
            visible, hidden = self._covering_masks(grid, keys)
        else:
            hidden = mask.flatten().expand(len(keys), -1)
            visible = (~mask.flatten()).nonzero().T.expand(len(keys), -1)
        clones = len(hidden) // len(keys)
        rows = fold(keys[:, None], torch.arange(clones, device=keys.device)).flatten()  # those of a clip stand together
        noise = asda.decoder_noise(rows, math.prod(grid), self.config.model.width, self.config.asda.noise)
        target = asda.targets(self.backbone, log_mel, self.config.asda)[0].patches  # [B, N, D]
        predicted = asda.predict(self.student, self.decoder, log_mel, visible, noise)[1]  # [R, N, D]
        error = squared_error(predicted, target.repeat_interleave(clones, dim=0)) * hidden  # [R, N]
        error, times = (rows.unflatten(0, (-1, clones)).sum(1).unflatten(1, grid) for rows in (error, hidden))
        return error, times

    def _covering_masks(self, grid: tuple[int, int], keys: Tensor) -> tuple[Tensor, Tensor]:
        """Masks as in pretraining, `asda.clones` of each clip and as many again until every patch is hidden in one.

        keys: int64 [B]. Returns what is visible, int64 [R, K], and what is hidden, bool [R, N].
        """
        share = max(self.config.asda.visible, 1 / math.prod(grid))  # on small grids at least one patch
        visible: list[Tensor] = []  # each [B, clones, K]
        hidden: list[Tensor] = []
        while not hidden or not torch.cat(hidden, 1).any(1).all():
            each = torch.arange(self.config.asda.clones, device=keys.device)
            rows = fold(keys[:, None], "masks", len(hidden), each)
            drawn = inverse_blocks(rows.flatten(), grid, share, self.config.asda.block)
            visible.append(drawn[0].unflatten(0, rows.shape))
            hidden.append(drawn[1].unflatten(0, rows.shape))
        return torch.cat(visible, 1).flatten(0, 1), torch.cat(hidden, 1).flatten(0, 1)


def _with_class_token(weights: Tensor) -> Tensor:
    """Attention among patches alone with a class token put before them: [..., N, N] -> [..., 1+N, 1+N]; patches give it
    none, and what it would give is NaN."""
    padded = nn.functional.pad(weights, (1, 0, 1, 0))
    padded[..., 0, :] = math.nan
    return padded


def open_encoder(source: str | Path, seed: int = 0) -> Encoder:
    """The encoder of a run or snapshot; or of a preset, untrained as its name then says, with start weights of `seed`.

    Raises InputError when there is none of these.
    """
    if str(source) in preset_names():
        encoder = Encoder.random(load_config(source), seed)
        encoder.name = f"{source}, untrained"
        return encoder
    if not resolve(source).exists():
        raise InputError(f"{source}: no such run, snapshot or preset. Presets: {', '.join(preset_names())}")
    return load_encoder(source)


def load_encoder(source: str | Path) -> Encoder:
    """The encoder of a run directory (its last snapshot) or of one snapshot (.safetensors).

    Raises InputError naming the file and what is wrong with it.
    """
    path = resolve(source)
    if path.is_dir():
        snapshots = load_run(path).snapshots
        if not snapshots:
            raise InputError(f"{path}: the run has no snapshot yet")
        path = snapshots[-1]
    if not path.is_file():
        raise InputError(f"{path}: no such run directory or snapshot")
    tensors, cfg, step = read_snapshot(path)
    teacher, student = ViT(cfg.model, cfg.grid), build_network(cfg)
    teacher.load_state_dict(section(tensors, "teacher.backbone"))
    student.backbone.load_state_dict(section(tensors, "student.backbone"))
    if student.decoder is not None:
        student.decoder.load_state_dict(section(tensors, "student.decoder"))
    return Encoder(cfg, teacher, student.backbone, student.decoder, name=f"{cfg.name}, step {step}")
