"""What a pretrained model is to its user: waveforms in; embeddings, tokens, attention or a reconstruction out.

Audio of any length works. `embed`, `tokens` and `reconstruct` cut what is longer than the crops of pretraining into
consecutive windows of that length, so that every patch sees positions that were trained; `attention` looks at the
clip as a whole, with positions interpolated. A rest shorter than a patch is left out, unless it is all there is.

Shapes: B clips, S samples, T frames, M mel bands, grid of tokens (time, freq), D width, H heads.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor, nn

from .config import RunConfig, resolve
from .errors import InputError
from .features import LogMel
from .masking import gmml
from .nn import AttentionMaps, ReconstructionHead, ViT
from .objectives import build_network
from .random import key
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

    student, decoder: what `reconstruct` needs; None where the weights have none.
    """

    def __init__(
        self,
        config: RunConfig,
        backbone: ViT,
        student: ViT | None = None,
        decoder: ReconstructionHead | None = None,
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

        Token 0 is the class token, token 1 + t * freq + f the patch at time t and band f.
        """
        depth = len(self.backbone.blocks)
        wrong = [layer for layer in layers if not -depth <= layer < depth]
        if wrong or not layers:
            raise InputError(f"layers: {wrong or layers} not among the model's {depth} blocks (0 to {depth - 1})")
        wanted = [layer % depth for layer in layers]
        maps = self.backbone.inspect(self.log_mel(wave, sample_rate), maps=wanted).maps
        stacked = {
            name: torch.stack([getattr(maps[layer], name) for layer in wanted])
            for name in ("map", "first", "second", "lam")
            if getattr(maps[wanted[0]], name) is not None
        }
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
        if self.decoder is None or self.student is None:
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
    teacher, student = (ViT(cfg.model, cfg.grid) for _ in range(2))
    teacher.load_state_dict(section(tensors, "teacher.backbone"))
    student.load_state_dict(section(tensors, "student.backbone"))
    decoder = None
    if section(tensors, "student.decoder"):
        head = cfg.heads
        decoder = ReconstructionHead(
            cfg.model.width, head.decoder_hidden, head.decoder_bottleneck, cfg.model.patch, head.decoder_last_gelu
        )
        decoder.load_state_dict(section(tensors, "student.decoder"))
    return Encoder(cfg, teacher, student, decoder, name=f"{cfg.name}, step {step}")
