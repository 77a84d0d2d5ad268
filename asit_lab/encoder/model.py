"""The encoder: waveforms in; embeddings, tokens, attention, a reconstruction (ASiT) or prediction errors (ASDA) out.

Audio of any length works. Where it is longer than the crops of pretraining, `embed`, `pooled` and `tokens` cover it
by overlapping windows of that length (windows.py), so that every patch sees positions that were trained; `reconstruct`
and `prediction_error` have windows of their own; `attention` looks at the clip as a whole, with learned positions
interpolated. A remainder shorter than a patch is dropped, unless it is the whole clip.

Shapes: B clips, S samples, T frames, M mel bands, grid of tokens (time, freq), D width, H heads.
"""

import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor, nn

from ..checks import integer
from ..config import RunConfig
from ..errors import InputError
from ..features import LogMel
from ..masking import gmml
from ..nn import AttentionMaps, ConvDecoder, ReconstructionHead, ViT
from ..objectives import build_network
from ..random import key
from ..runs.encoder_folder import SavedEncoder, load_weights
from ..runs.snapshot import section
from .pooling import check_pool, pooled_vector
from .prediction import window_errors
from .sharing import Shareable
from .waveforms import as_mask, as_waveforms, one_waveform
from .windows import cover, overlap_share, pool_long

LONG_FRAMES = 60_000  # of a log-mel, 10 minutes as a rule, above which a clip's tokens are not kept in memory


@dataclass(frozen=True)
class Reconstruction:
    """Normalised log-mels float [B, T, M] and the mask, bool [B, T, M], True = corrupted."""

    clean: Tensor
    corrupted: Tensor
    reconstructed: Tensor
    mask: Tensor


class Encoder(Shareable):
    """A backbone (the teacher's, unless said otherwise) with its front end.

    Calling it, `encoder(wave)`, is differentiable; nothing that its other methods return carries a gradient. Weights
    are frozen until `encoder.requires_grad_()`. `half()` and `bfloat16()` leave the front end in full precision.
    student, decoder: what `reconstruct` (ASiT's decoder) or `prediction_error` (ASDA's) needs; None where the weights
    have none. pretrained: whether the weights were pretrained on config.data; not so of untrained and published ones.
    """

    def __init__(
        self,
        config: RunConfig,
        backbone: ViT,
        student: ViT | None = None,
        decoder: ReconstructionHead | ConvDecoder | None = None,
        name: str = "encoder",
        pretrained: bool = False,
    ):
        super().__init__()
        self.config, self.name, self.pretrained = config, name, pretrained
        self.front_end = LogMel.from_config(config.features)
        self.backbone, self.student, self.decoder = backbone, student, decoder
        self.eval().requires_grad_(False)

    @classmethod
    def random(cls, config: RunConfig, seed: int = 0) -> "Encoder":
        """An untrained encoder of the same architecture."""
        network = build_network(config, integer("seed", seed, 0))
        return cls(config, network.backbone, network.backbone, network.decoder, name=f"random init (seed {seed})")

    # --- input ------------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.pos_embed.device

    @property
    def reconstructs(self) -> bool:
        """Whether `reconstruct` is possible."""
        return isinstance(self.decoder, ReconstructionHead) and self.student is not None

    def log_mel(self, wave, sample_rate: int) -> Tensor:
        """Waveforms float [B, S] or [S] at `sample_rate` Hz -> normalised log-mel [B, T, M], T whole patches.

        Raises InputError for another shape, no audio, or samples that are not finite.
        """
        wave = as_waveforms(wave, sample_rate)
        if self.device.type == "meta":
            raise InputError(f"{self.name}: is on the meta device, which holds no weights; load it on another")
        if sample_rate != self.front_end.sample_rate:
            samples = wave.detach().cpu().numpy()
            clips = [soxr.resample(clip, sample_rate, self.front_end.sample_rate) for clip in samples]
            wave = torch.from_numpy(np.stack(clips))
        raw = self.front_end(wave.to(self.device))
        patch = self.config.model.patch[0]
        return self.front_end.normalise(self.front_end.fit(raw, max(patch, raw.shape[1] // patch * patch)))

    def _log_mels(self, waves, sample_rate: int) -> list[Tensor]:
        """Log-mel [T, M] of each clip of [B, S], [S] or a list of [S]; clips of equal length are computed together."""
        if isinstance(waves, np.ndarray) and waves.dtype == object and waves.ndim == 1 and np.ndim(waves[0]):
            waves = list(waves)  # of several lengths
        if not isinstance(waves, list | tuple) or not waves or np.ndim(waves[0]) == 0:
            return list(self.log_mel(waves, sample_rate))
        clips = [one_waveform(wave, sample_rate, f"waves[{i}]") for i, wave in enumerate(waves)]
        by_length: dict[int, list[int]] = {}
        for i, clip in enumerate(clips):
            by_length.setdefault(len(clip), []).append(i)
        log_mels = {}
        for indices in by_length.values():
            try:
                batch = self.log_mel(torch.stack([clips[i] for i in indices]), sample_rate)
            except InputError as error:  # too short, all of them
                raise InputError(f"waves[{indices[0]}]: {str(error).removeprefix('wave: ')}") from None
            log_mels.update(zip(indices, batch, strict=True))
        return [log_mels[i] for i in range(len(clips))]

    def _windows(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        return log_mel.split(self.config.input_frames, dim=1)

    def forward(self, wave: Tensor, pool: str = "mean") -> Tensor:
        """Clip embeddings to train through: waveforms float [B, S] at config.features.sample_rate -> [B, D] ([B, 2 D]
        for "mean+std") in the weights' precision, with gradient to the weights (once they require it) and to `wave`.

        pool: as in `embed`, which this equals for clips no longer than the crops of pretraining. Longer clips are taken
        as one, with their positions interpolated. Raises InputError as `embed` does.
        """
        check_pool(pool)
        log_mel = self.log_mel(wave, self.front_end.sample_rate)
        tokens = self.backbone(log_mel)  # [B, 1+N, D]
        if pool == "class":
            return tokens[:, 0]
        mean = tokens[:, 1:].mean(1)
        return mean if pool == "mean" else torch.cat([mean, tokens[:, 1:].std(1, correction=0)], dim=1)

    # --- output -----------------------------------------------------------------------------------------------------

    def embed(
        self, waves, sample_rate: int, pool: str = "mean", layer: int | None = None, overlap: float = 0.25
    ) -> Tensor:
        """Clip embeddings: [B, S], [S] or a list of B clips [S] of any lengths -> [B, D], or [B, 2 D] for "mean+std".

        pool: "mean" or "mean+std" (divided by N) of the patch tokens over time and frequency, or "class", the class
        token (the mean over windows where there are several).
        layer: None, the final output, or the block whose output is pooled; negative ones count from the last block.
        overlap: share of its width, 0 to below 1, that a window shares with the next at least, where a clip is longer
        than the crops of pretraining; tokens in several windows are averaged before they are pooled.
        The result for a clip does not depend on the others. Raises InputError for unusable audio and for an invalid
        choice, such as the class token of a layer before it joins.
        """
        check_pool(pool)
        chosen = self._layer_to_pool(layer, pool)
        return pooled_vector(self.pooled(waves, sample_rate, (chosen,), overlap)[:, 0], pool)

    def embed_blocks(
        self, blocks: Iterable, samples: int, pool: str = "mean", layer: int | None = None, overlap: float = 0.25
    ) -> Tensor:
        """What `embed` gives of one recording, [D] or [2 D], in memory that does not grow with its length.

        blocks: its samples, float [samples] at config.features.sample_rate, as `audio.blocks` gives them; samples: how
        many there are in all. Raises InputError as `embed` does, and for a recording shorter than a patch.
        """
        check_pool(pool)
        chosen = self._layer_to_pool(layer, pool)
        return pooled_vector(self.pooled_blocks(blocks, samples, (chosen,), overlap), pool)[0]

    @torch.no_grad()
    def pooled_blocks(
        self, blocks: Iterable, samples: int, layers: Sequence[int] | None = None, overlap: float = 0.25
    ) -> Tensor:
        """What `pooled` gives of one recording, [layers, 3, D]; blocks, samples and errors as in `embed_blocks`."""
        time = self.front_end.frames_of(samples) // self.config.model.patch[0]
        if not time:
            raise InputError(f"blocks: {samples} samples are shorter than a patch")
        pieces = (self.front_end.normalise(piece) for piece in self.front_end.pieces(blocks))
        chosen = self._layers(layers)
        return pool_long(self.backbone, pieces, time, chosen, overlap_share(overlap)).to(self.device)

    def _layer_to_pool(self, layer: int | None, pool: str) -> int:
        chosen = self._layers(None if layer is None else (layer,))[-1]
        if pool == "class" and chosen < self.backbone.class_token_at:
            joins = self.backbone.class_token_at
            raise InputError(f"layer: {layer} has no class token, which joins at block {joins}; pool patches instead")
        return chosen

    @torch.no_grad()
    def pooled(self, waves, sample_rate: int, layers: Sequence[int] | None = None, overlap: float = 0.25) -> Tensor:
        """Every layer pooled every way in one pass: waves as in `embed` -> float32 [B, layers, 3, D].

        The three are class token, mean and standard deviation (divided by N) of the patches. layers: blocks, negative
        ones counting from the last, with the number of blocks for the final (normalised) output; None: all of these in
        order. Where no class token exists (model.class_token_at), its entries are NaN.
        """
        log_mels, chosen = self._log_mels(waves, sample_rate), self._layers(layers)
        by_clip = {}
        patch, long = self.config.model.patch[0], [len(log_mel) > LONG_FRAMES for log_mel in log_mels]
        for clip in (clip for clip, is_long in enumerate(long) if is_long):
            log_mel = log_mels[clip]
            pooled = pool_long(self.backbone, [log_mel], len(log_mel) // patch, chosen, overlap_share(overlap))
            by_clip[clip] = pooled.to(self.device)
        short = [clip for clip, is_long in enumerate(long) if not is_long]
        covered = cover(self.backbone, [log_mels[clip] for clip in short], chosen, overlap_share(overlap))
        for place, patches, class_token in covered:
            patches = patches.flatten(1, 2)  # [layers, N, D]
            by_clip[short[place]] = torch.stack([class_token, patches.mean(1), patches.std(1, correction=0)], dim=1)
        return torch.stack([by_clip[clip] for clip in range(len(log_mels))])

    @torch.no_grad()
    def tokens(self, wave, sample_rate: int, layer: int | None = None, overlap: float = 0.25) -> Tensor:
        """Patch tokens in their place: [B, S] or [S] -> [B, time, freq, D]. layer, overlap: as in `embed`."""
        log_mel, chosen = self.log_mel(wave, sample_rate), self._layers(None if layer is None else (layer,))[-1]
        covered = cover(self.backbone, list(log_mel), (chosen,), overlap_share(overlap))
        return torch.stack([patches[0] for _, patches, _ in covered])  # clips of one length come in their order

    def _layers(self, layers: Sequence[int] | None) -> list[int]:
        """Layers as `windows.cover` counts them: blocks from 0, then the final output; None: all."""
        depth = len(self.backbone.blocks)
        if layers is None:
            return list(range(depth + 1))
        layers = np.atleast_1d(layers).tolist()
        wrong = [layer for layer in layers if not isinstance(layer, numbers.Integral) or not -depth <= layer <= depth]
        if wrong or not len(layers):
            raise InputError(
                f"layers: {wrong or list(layers)} not among the model's {depth} blocks (0 to {depth - 1}, or -1 for "
                f"the last and so on) or its final output ({depth})"
            )
        return [int(layer) + depth if layer < 0 else int(layer) for layer in layers]

    @torch.no_grad()
    def attention(self, wave, sample_rate: int, layers: Sequence[int] = (-1,)) -> AttentionMaps:
        """Attention of the requested layers (negative ones count from the last): [layer, B, H, query, key].

        A clip longer than the crops of pretraining is looked at as a whole, positions stretched to its length: not what
        happens in the windows of `embed`, `tokens` and `reconstruct`, of which one cannot see another.
        Token 0 is the class token, token 1 + t * freq + f the patch at time t and band f. Differential attention has
        both softmaxes, `first` and `second`, and `lam`, [layer, 1, 1, 1, 1]; `map` is their difference. In layers
        before the class token joins (model.class_token_at) nothing looks at it, and its own row is NaN.
        """
        depth = len(self.backbone.blocks)
        layers = np.atleast_1d(layers).tolist()
        wrong = [layer for layer in layers if not isinstance(layer, numbers.Integral) or not -depth <= layer < depth]
        if wrong or not len(layers):
            raise InputError(f"layers: {wrong or layers} not among the model's {depth} blocks (0 to {depth - 1})")
        blocks = [layer % depth for layer in layers]
        maps = self.backbone.inspect(self.log_mel(wave, sample_rate), maps=blocks).maps
        stacked = {}
        for name in ("map", "first", "second", "lam"):
            weights = [getattr(maps[block], name) for block in blocks]
            if weights[0] is not None:
                early = [name != "lam" and block < self.backbone.class_token_at for block in blocks]
                stacked[name] = torch.stack(
                    [_with_class_token(w) if lacks else w for w, lacks in zip(weights, early, strict=True)]
                )
        return AttentionMaps(**stacked)

    def class_attention(self, wave, sample_rate: int, layer: int = -1) -> Tensor:
        """What the class token attends to: [B, S] -> [B, H, time, freq], each head's share of attention.

        Of a long clip as in `attention`.
        """
        rows = self.attention(wave, sample_rate, (layer,)).map[0][:, :, 0, 1:]
        return rows.unflatten(-1, (-1, self.config.grid[1]))

    @torch.no_grad()
    def reconstruct(self, wave, sample_rate: int, mask: Tensor | None = None, seed: int = 0) -> Reconstruction:
        """Corrupt by zeros and reconstruct with the student and its decoder.

        mask: bool [B, T, M] or [T, M], True = corrupted; None draws blocks as the configuration's `mask` says, from
        `seed`. T is that of `log_mel`. Raises InputError when the weights have no decoder or the mask does not fit.
        """
        self._check_reconstructs()
        clean = self.log_mel(wave, sample_rate)
        mask = self.draw_mask(clean, seed) if mask is None else as_mask(mask, clean.device)
        if mask.shape not in (clean.shape, clean.shape[1:]):
            raise InputError(f"mask: shape {tuple(mask.shape)}, but the log-mel has {tuple(clean.shape)}")
        mask = mask.expand_as(clean)
        corrupted = clean.masked_fill(mask, 0.0)
        return Reconstruction(clean, corrupted, self.fill_in(corrupted, mask), mask)

    @torch.no_grad()
    def fill_in(self, corrupted: Tensor, mask: Tensor | None = None) -> Tensor:
        """What student and decoder make of a log-mel [B, T, M], however it was corrupted; window by window.

        mask: bool [B, T, M], True = corrupted, which a network with model.mask_input is told; None: nothing is.
        Raises InputError when the weights have no decoder.
        """
        self._check_reconstructs()
        parts = []
        masks = self._windows(torch.zeros_like(corrupted, dtype=torch.bool) if mask is None else mask)
        for window, hidden in zip(self._windows(corrupted), masks, strict=True):
            grid = (window.shape[1] // self.config.model.patch[0], self.config.grid[1])
            patches = self.student(window, mask=hidden)[:, 1:]
            patches = patches.to(next(self.decoder.parameters()).dtype)  # one of the two may be halved
            parts.append(self.decoder(patches, grid, window, hidden))
        return torch.cat(parts, dim=1)

    def _check_reconstructs(self) -> None:
        if isinstance(self.decoder, ConvDecoder):
            raise InputError(
                f"{self.name}: its decoder predicts latent targets (ASDA), not log-mels, so it cannot reconstruct; "
                "prediction_error shows how well it predicts"
            )
        if not self.reconstructs:
            raise InputError(
                f"{self.name}: has no decoder (pretrained without the reconstruction loss, or only a teacher was "
                "published), so it cannot reconstruct"
            )

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
        patch = self.config.model.patch[0]
        grid = (clean.shape[1] // patch, self.config.grid[1])
        if mask is not None:
            mask = as_mask(mask, clean.device)
            if mask.shape != grid:
                raise InputError(f"mask: shape {tuple(mask.shape)}, but there are {grid} patches")
        error, times = (torch.zeros(len(clean), *grid, device=clean.device) for _ in range(2))
        length = min(grid[0], self.config.grid[0])
        for start in dict.fromkeys(min(first, grid[0] - length) for first in range(0, grid[0], length)):
            window = slice(start, start + length)
            keys = key(seed, start, torch.arange(len(clean), device=clean.device), "prediction error")
            log_mel = clean[:, patch * start : patch * (start + length)]
            window_mask = None if mask is None else mask[window]
            networks = (self.backbone, self.student, self.decoder)
            summed, hidden = window_errors(*networks, self.config, log_mel, window_mask, keys)
            error[:, window] += summed
            times[:, window] += hidden
        return error / times

    # --- sharing (the methods for users are in sharing.py) ---------------------------------------------------------

    def to_saved(self) -> SavedEncoder:
        tensors = self.state_dict()
        if self.student is self.backbone:  # safetensors refuses to write the same tensors twice
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("student.")}
        return SavedEncoder(tensors, self.config, self.name, self.pretrained)

    @classmethod
    def from_saved(cls, saved: SavedEncoder, source: str | Path) -> "Encoder":
        tensors, cfg = saved.tensors, saved.config
        backbone, network = ViT(cfg.model, cfg.grid), build_network(cfg, decoder=section(tensors, "decoder"))
        has_student, has_decoder = bool(section(tensors, "student")), bool(section(tensors, "decoder"))
        student = network.backbone if has_student else backbone if has_decoder else None
        encoder = cls(cfg, backbone, student, network.decoder if has_decoder else None, saved.name, saved.pretrained)
        if student is backbone:  # written once
            tensors = tensors | {f"student.{key}": tensor for key, tensor in section(tensors, "backbone").items()}
        load_weights(encoder, tensors, source)
        return encoder


def _with_class_token(weights: Tensor) -> Tensor:
    """Attention among patches alone with a class token put before them: [..., N, N] -> [..., 1+N, 1+N]; patches give it
    none, and what it would give is NaN."""
    padded = nn.functional.pad(weights, (1, 0, 1, 0))
    padded[..., 0, :] = math.nan
    return padded
