"""Measures attention: its entropy, its share on silence, and maps of it for figures.

ASDA's claim (arXiv 2507.02666) is that a second softmax, subtracted, takes attention away from what is irrelevant. What
is certainly irrelevant in a clip is digital silence, so the share of attention on silent patches is the number for it.

The difference of two softmaxes has negative weights. They move a token as far as positive ones of the same size, so
everything here is measured on magnitudes: |w| / sum |w|, which is the weight itself for a softmax. How much of the
magnitude is negative is reported separately.

Shapes: L layers, B clips, H heads, N patches on a grid (time, freq), K = 1 + N keys (class token first).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..encoder import Encoder
from ..errors import InputError
from ..mel import band_hz, band_of
from .reconstruction_error import above_silence

# Share of a patch's pixels that are digital silence from which the patch is silent: a frame of the fade beside it or a
# codec's noise in one band does not make it a sound.
SILENT_FROM = 0.95

QUERIES = ("class token", "sounding patches")


class AttendedClip(NamedTuple):
    """One encoder's attention in one layer; the fields are those asit_lab.figures.attention_comparison takes."""

    title: str
    log_mel: np.ndarray
    """float [frames, mels], normalised"""
    silent: np.ndarray
    """bool [time, freq], True = silent patch"""
    query: tuple[int, int]
    """the chosen patch: time, freq"""
    maps: dict[str, np.ndarray]
    """"map", and "first", "second" for differential attention: float [2, time, freq], the weight on each patch for the
    queries class token and chosen patch, mean over heads"""
    lam: float | None
    """factor of the second softmax"""


# --- Numbers --------------------------------------------------------------------------------------------------------


def silent_patches(enc: Encoder, log_mel: Tensor) -> Tensor:
    """Patches that are digital silence: normalised log-mel [B, T, M] -> bool [B, time, freq]."""
    p, q = enc.config.model.patch
    sound = torch.from_numpy(above_silence(enc.front_end.denormalise(log_mel).cpu().numpy()))
    share = (~sound).float().unfold(1, p, p).unfold(2, q, q).mean((-2, -1))  # [B, T, M] -> [B, time, freq]
    return share >= SILENT_FROM


def weight_statistics(weights: Tensor, silent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy (nats), share on silent keys, and negative share of attention weights, one each a query.

    weights: [..., query, K], softmax or difference of two; silent: bool [..., K], broadcast over them. Returns three
    [..., query]. By magnitude, see the head of this file.
    """
    size = weights.abs()
    total = size.sum(-1).clamp(min=torch.finfo(size.dtype).tiny)
    share = size / total[..., None]
    entropy = -torch.xlogy(share, share).sum(-1)
    return entropy, (share * silent).sum(-1), (size * (weights < 0)).sum(-1) / total


def attention_statistics(enc: Encoder, wave, sample_rate: int) -> pd.DataFrame:
    """Entropy of attention and its share on silent patches, layer by layer.

    wave: float [B, S] or [S] at `sample_rate` Hz. Returns a row for each layer (0 is the first), kind of weights
    ("map", what multiplies the values; "first" and "second" softmax for differential attention) and query (the class
    token, or the patches that are not silent), mean over heads, queries and clips:
    - entropy, nats; entropy_normalised, of ln K: 1 is even attention
    - share_on_silent, of all attention (0 to 1), over clips that have silent patches; NaN where none has
    - even_share, what it would be if attention were even
    - negative, share of the magnitude that is negative
    Raises InputError as `Encoder.log_mel` does.
    """
    silent = silent_patches(enc, enc.log_mel(wave, sample_rate)).flatten(1)  # [B, N]
    keys = torch.cat([torch.zeros_like(silent[:, :1]), silent], dim=1)  # the class token is no patch
    queries = {"class token": ~torch.ones_like(keys).cumsum(1).gt(1), "sounding patches": ~keys}
    queries["sounding patches"][:, 0] = False
    has_silence = silent.any(1)
    depth = len(enc.backbone.blocks)
    maps = enc.attention(wave, sample_rate, tuple(range(depth)))
    rows = []
    for kind in ("map", "first", "second"):
        weights = getattr(maps, kind)
        if weights is None:
            continue
        measured = weight_statistics(weights.float().cpu(), keys[:, None, None])  # each [L, B, H, query]
        for query in QUERIES:
            rows_of_query = queries[query]
            entropy, share, negative = (values.mean(2) for values in measured)  # [L, B, query]
            for layer in range(depth):
                rows.append(
                    {
                        "layer": layer,
                        "kind": kind,
                        "query": query,
                        "entropy": _mean(entropy[layer][rows_of_query]),
                        "entropy_normalised": _mean(entropy[layer][rows_of_query]) / math.log(keys.shape[1]),
                        "share_on_silent": _mean(share[layer][rows_of_query & has_silence[:, None]]),
                        "even_share": _mean(keys[has_silence].float()),
                        "negative": _mean(negative[layer][rows_of_query]),
                    }
                )
    return pd.DataFrame(rows).sort_values(["layer", "kind", "query"], kind="stable", ignore_index=True)


def _mean(values: Tensor) -> float:
    """Mean of all entries, NaN when there are none."""
    return float(values.double().mean()) if values.numel() else math.nan


# --- A clip ---------------------------------------------------------------------------------------------------------


def clip_and_silence(manifest, clip: int, silence: float = 1.0, seconds: float = 10.0) -> tuple[np.ndarray, int]:
    """The first `seconds` of a row of a Manifest, followed by `silence` seconds of digital silence.

    Returns float32 [samples] at the file's own rate, as resampling would smear the zeros of a clip, and that rate (Hz).
    Raises InputError for a row that does not exist or cannot be read, or a negative length.
    """
    if not 0 <= clip < len(manifest):
        raise InputError(f"clip: {clip} is not a row of {manifest.source}, which has 0 to {len(manifest) - 1}")
    if not silence >= 0 or not seconds > 0:
        raise InputError(f"silence: expected at least 0 s after more than 0 s of sound, got {silence} after {seconds}")
    rate = int(manifest.table["sample_rate"].iloc[clip])
    wave = manifest.read(clip, rate, seconds=seconds)
    return np.pad(wave, (0, round(silence * rate))), rate


# --- Maps -----------------------------------------------------------------------------------------------------------


def compare_attention(
    encoders: Sequence[Encoder], wave, sample_rate: int, layer: int = -1, patch: str = "loudest"
) -> list[AttendedClip]:
    """The attention of each encoder in a clip, for its class token and for one patch, ready to be drawn.

    wave: float [S] at `sample_rate` Hz. layer: negative ones count from the last. patch: "loudest" (of the first
    encoder's), or a place "SECONDS,HZ" such as "1.5,800"; each encoder's patch at that place is taken.
    Raises InputError for a layer that does not exist, more than one clip, or a place outside the clip.
    """
    attended, place = [], None if patch == "loudest" else _place(patch)
    for enc in encoders:
        log_mel = enc.log_mel(wave, sample_rate)
        if len(log_mel) != 1:
            raise InputError(f"wave: {len(log_mel)} clips, expected one")
        place = place or _loudest(enc, log_mel[0])
        query = patch_at(enc, log_mel.shape[1], *place)
        columns = enc.config.grid[1]
        maps = enc.attention(wave, sample_rate, (layer,))
        rows = [0, 1 + query[0] * columns + query[1]]
        drawn_maps = {
            kind: weights[0, 0, :, rows, 1:].mean(0).unflatten(-1, (-1, columns)).float().cpu().numpy()
            for kind in ("map", "first", "second")
            if (weights := getattr(maps, kind)) is not None
        }
        lam = None if maps.lam is None else float(maps.lam.float().mean())
        silent = silent_patches(enc, log_mel)[0].numpy()
        attended.append(AttendedClip(enc.name, log_mel[0].float().cpu().numpy(), silent, query, drawn_maps, lam))
    return attended


def patch_at(enc: Encoder, frames: int, seconds: float, hz: float) -> tuple[int, int]:
    """The patch (time, freq) at a place in a clip of `frames` frames. Raises InputError when it lies outside."""
    features, (p, q) = enc.config.features, enc.config.model.patch
    high = features.top_hz
    length = frames * features.hop_ms / 1000
    if not (0 <= seconds < length and features.low_hz <= hz <= high):
        raise InputError(
            f"patch: {seconds:g} s, {hz:g} Hz is outside {enc.name}'s clip of {length:g} s, "
            f"{features.low_hz:g} to {high:g} Hz"
        )
    time = int(seconds / features.hop_ms * 1000) // p
    return min(time, frames // p - 1), _band(features, hz) // q


def _band(features, hz: float) -> int:
    """The mel band whose centre is nearest to `hz`; centres are evenly spaced in mel, as in features.mel_bank."""
    nearest = band_of(hz, features.low_hz, features.top_hz, features.mel_bins)
    return int(np.clip(np.round(nearest), 0, features.mel_bins - 1))


def _loudest(enc: Encoder, log_mel: Tensor) -> tuple[float, float]:
    """Place (s, Hz) of the middle of the patch with the highest mean log-mel: [T, M] -> (seconds, hz)."""
    features, (p, q) = enc.config.features, enc.config.model.patch
    means = log_mel.unfold(0, p, p).unfold(1, q, q).mean((-2, -1))  # [time, freq]
    time, freq = divmod(int(means.argmax()), means.shape[1])
    hz = band_hz(freq * q + (q - 1) / 2, features.low_hz, features.top_hz, features.mel_bins)
    return (time + 0.5) * p * features.hop_ms / 1000, float(hz)


def _place(patch: str) -> tuple[float, float]:
    try:
        seconds, hz = map(float, patch.split(","))
    except ValueError:
        raise InputError(f'patch: {patch!r} is neither "loudest" nor "SECONDS,HZ" such as "1.5,800"') from None
    return seconds, hz
