"""Measures reconstruction error against two baselines: interpolation in time and the training mean.

The task is the one of ASiT's pretraining (arXiv 2211.13189, section III-A) on recordings held out of it: blocks of a
log-mel are zeroed up to 70 % of its area, not aligned to patches, and estimated from the rest.
Counted is the mean absolute error over corrupted pixels above the silence floor: digital silence is one exact value,
which is trivial or impossible to reconstruct, and would dominate in data sets padded with it. Where sparse events stand
in noise, the first thing learned is the noise's level, so events are also counted apart.

Shapes: n clips, T frames, M mel bands. "normalised" is (raw - mean) / (2 std), "raw" natural log of mel power.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from ..errors import InputError
from ..features import LOG_FLOOR, LogMel
from ..masking import gmml, visible_neighbours
from ..random import key, permutation, uniform
from ..storage.progress import passing_bar_style

# Raw log-mel up to which a pixel counts as silence. Digital silence, and whatever else has less power than float32's
# epsilon, is LOG_FLOOR = -15.942 exactly. In ESC-10 (ogg; at 16 kHz in 64 bands) 13.65 % of the pixels are there,
# 0.03 % within 0.04 above it, and about 0.2 % in every further quarter of a unit. Half a unit (2.2 dB) takes in silence
# with a codec's last-bit noise, and hardly any sound.
SILENCE_MARGIN = 0.5
SILENCE = LOG_FLOOR + SILENCE_MARGIN

EVENT = np.log(10.0)  # natural log of power by which an event stands above the median of its band: 10 dB

_READ_AT_ONCE = 32  # clips

METHODS = ("reconstruction", "linear interpolation in time", "per-band training mean")


# --- On arrays ------------------------------------------------------------------------------------------------------


def interpolate_in_time(clean: np.ndarray, mask: np.ndarray, band_mean: np.ndarray) -> np.ndarray:
    """Corrupted pixels from the nearest uncorrupted frames of their band: [n, T, M] -> [n, T, M].

    clean: float; its values under the mask are ignored. mask: bool, True = corrupted. band_mean: float [M].
    Linear between two neighbours, the nearest value at the edges, `band_mean` where a band is corrupted throughout.
    """
    line = visible_neighbours(torch.from_numpy(clean), torch.from_numpy(mask))[2].numpy()
    filled = np.where(mask.all(axis=1, keepdims=True), np.asarray(band_mean, clean.dtype), line)
    return np.where(mask, filled, clean)


def baselines(clean: np.ndarray, mask: np.ndarray, band_mean: np.ndarray) -> dict[str, np.ndarray]:
    """Both baselines' log-mels: corrupted pixels are replaced, the others stay as they are.

    clean: float [n, T, M]. mask: bool [n, T, M], True = corrupted. band_mean: float [M], in the units of `clean`.
    Raises InputError where the shapes do not fit.
    """
    clean, mask = np.asarray(clean), np.asarray(mask, dtype=bool)
    if clean.ndim != 3 or clean.shape != mask.shape or np.shape(band_mean) != clean.shape[2:]:
        raise InputError(
            f"baselines: clean {clean.shape}, mask {mask.shape} and band mean {np.shape(band_mean)} do not fit; "
            "expected [n, frames, mels] twice and [mels]"
        )
    return {
        "linear interpolation in time": interpolate_in_time(clean, mask, band_mean),
        "per-band training mean": np.where(mask, np.asarray(band_mean, clean.dtype), clean),
    }


def above_silence(raw: np.ndarray) -> np.ndarray:
    """bool: pixels of a raw log-mel that are more than digital silence and its rounding noise."""
    return np.asarray(raw) > SILENCE


def events(raw: np.ndarray) -> np.ndarray:
    """bool [n, T, M]: pixels of raw log-mels more than 10 dB above the median of their band over the crop."""
    return raw > np.median(raw, axis=1, keepdims=True) + EVENT


# --- On data --------------------------------------------------------------------------------------------------------


def band_means(train, front_end: LogMel, clips: int | None = 1000, seed: int = 0) -> np.ndarray:
    """Mean of each band's raw log-mel over pixels above the silence floor: float32 [M].

    train: Manifest. clips: of how many clips, chosen by counted randomness (None: all). Unreadable ones are left out.
    Raises InputError when nothing above the floor is found.
    """
    total, count = np.zeros(front_end.mel_bins), np.zeros(front_end.mel_bins)
    rows = _choose(train, clips, seed, "band means")
    for _, wave in _waves(train, [(row, front_end.sample_rate) for row in rows]):
        try:
            raw = front_end(torch.from_numpy(wave)[None].to(front_end.window.device))[0].cpu().numpy()
        except InputError:
            continue
        sound = above_silence(raw)
        total += np.where(sound, raw, 0.0).sum(0)
        count += sound.sum(0)
    if not count.any():
        raise InputError(f"{train.source}: no training clip has anything above the silence floor")
    overall = total.sum() / count.sum()  # for a band that is silent everywhere
    return np.where(count > 0, total / np.maximum(count, 1), overall).astype(np.float32)


def reconstruction_errors(
    enc,
    train,
    held_out,
    ratio: float = 0.7,
    align: bool = False,
    clips: int | None = None,
    train_clips: int | None = 1000,
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = False,
) -> pd.DataFrame:
    """Mean absolute error of an encoder's reconstruction and of the two baselines on recordings held out.

    enc: Encoder with a decoder. train: Manifest the band means are of. held_out: Manifest; of each clip one crop of
    `data.crop_seconds` at a place drawn from `seed`. ratio, align: of the block masks, filled with zeros; block sizes
    are the configuration's. clips, train_clips: use this many, drawn from `seed` (None: all).
    Returns one row per method: method, l1 (normalised units), l1_log (natural-log units), events_log and rest_log
    (natural-log units, of events and of all other pixels; NaN where none is counted), pixels, event_pixels, clips
    counted; how it was measured is in `.attrs`.
    Raises InputError when a recording is on both sides, the encoder has no decoder, or nothing can be counted.
    """
    shared = set(train.table["group"]) & set(held_out.table["group"])
    if shared:
        raise InputError(f"source recording {sorted(shared)[0]!r} is in training and held out both")
    if not enc.reconstructs:
        raise InputError(f"{enc.name}: has no decoder, so there is no reconstruction to measure")
    raw_means = band_means(train, enc.front_end, train_clips, seed)
    rows = _choose(held_out, clips, seed, "held-out clips")
    errors, event_errors = dict.fromkeys(METHODS, 0.0), dict.fromkeys(METHODS, 0.0)
    pixels, event_pixels, counted, corrupted, area = 0, 0, 0, 0, 0
    bar = {"desc": "reconstruction", "unit": "batch", "disable": not progress}
    for start in tqdm(range(0, len(rows), batch_size), **bar, **passing_bar_style()):
        for crop in estimates(enc, held_out, rows[start : start + batch_size], raw_means, ratio, align, seed):
            stands_out = crop.counts & events(crop.raw)
            for method in METHODS:
                errors[method] += float(crop.errors[method][crop.counts].sum(dtype=np.float64))
                event_errors[method] += float(crop.errors[method][stands_out].sum(dtype=np.float64))
            pixels, event_pixels = pixels + int(crop.counts.sum()), event_pixels + int(stands_out.sum())
            counted += int(crop.counts.any(axis=(1, 2)).sum())
            corrupted, area = corrupted + int(crop.mask.sum()), area + crop.mask.size
    if pixels == 0:
        raise InputError(f"{held_out.source}: no corrupted pixel above the silence floor in {len(rows)} held-out clips")
    unit = 2 * enc.front_end.std  # natural-log units in one normalised unit
    table = pd.DataFrame(
        [
            {
                "method": name,
                "l1": total / pixels,
                "l1_log": total / pixels * unit,
                "events_log": _mean(event_errors[name], event_pixels) * unit,
                "rest_log": _mean(total - event_errors[name], pixels - event_pixels) * unit,
                "pixels": pixels,
                "event_pixels": event_pixels,
                "clips": counted,
            }
            for name, total in errors.items()
        ]
    )
    table.attrs = {
        "corruption_ratio": ratio,
        "corrupted": corrupted / area,
        "align": align,
        "silence_floor": SILENCE,
        "crop_seconds": enc.config.data.crop_seconds,
        "seed": seed,
    }
    return table


@dataclass(frozen=True)
class Estimates:
    """Errors of the reconstruction and of both baselines for crops of one length."""

    rows: list[int]
    raw: np.ndarray
    """float [n, T, M], natural log"""
    mask: np.ndarray
    """bool [n, T, M], True = corrupted"""
    counts: np.ndarray
    """bool [n, T, M]: corrupted and above silence"""
    errors: dict[str, np.ndarray]
    """of each of METHODS, float [n, T, M]: absolute, in normalised units"""


def estimates(
    enc, manifest, rows: list[int], raw_means: np.ndarray, ratio: float = 0.7, align: bool = False, seed: int = 0
) -> Iterator[Estimates]:
    """One crop of each clip, as in `reconstruction_errors`, a group for each length.

    raw_means: float [M], of `band_means`. Clips that are unreadable or too short are left out.
    """
    settings = {"kinds": {"zeros": 1.0}, "ratio": ratio, "ratio_min": ratio, "align": align}
    mask_config = enc.config.mask.model_copy(update=settings)
    band_mean = (raw_means - enc.front_end.mean) / (2 * enc.front_end.std)  # as LogMel.normalise
    patch_frames, _ = patch = enc.config.model.patch
    for crop_rows, waves in crops(enc, manifest, rows, seed):
        frames = enc.front_end.frames_of(waves.shape[1]) // patch_frames * patch_frames
        keys = key(seed, torch.tensor(crop_rows), "reconstruction errors")
        masks = gmml(keys, frames, enc.config.features.mel_bins, mask_config, patch)
        result = enc.reconstruct(waves, enc.config.features.sample_rate, mask=masks.pixels)
        clean, mask = result.clean.float().cpu(), result.mask.cpu().numpy()
        raw = enc.front_end.denormalise(clean).numpy()
        clean = clean.numpy()
        filled = {"reconstruction": result.reconstructed.float().cpu().numpy(), **baselines(clean, mask, band_mean)}
        errors = {method: np.abs(filled[method] - clean) for method in METHODS}
        yield Estimates(crop_rows, raw, mask, mask & above_silence(raw), errors)


def clip_errors(
    enc,
    manifest,
    clips: int | None = None,
    seed: int = 0,
    batch_size: int = 16,
    on_batch: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Mean absolute error of one crop of each clip, a row a clip: row (of the manifest), error and line (of the
    reconstruction and of linear interpolation in time, natural-log units) and ratio (error / line).

    Crops and masks are those of `reconstruction_errors`. Clips with nothing to count are left out. clips: as many are
    drawn by `seed` (None: all). on_batch: called with the clips done and all clips, after each batch.
    Raises InputError when the encoder has no decoder, or nothing can be counted.
    """
    if not enc.reconstructs:
        raise InputError(f"{enc.name}: has no decoder, so there is no reconstruction to measure")
    rows = _choose(manifest, clips, seed, "held-out clips")
    raw_means = np.full(enc.config.features.mel_bins, enc.front_end.mean, np.float32)  # where a band is all corrupted
    unit, table = 2 * enc.front_end.std, []
    for start in range(0, len(rows), batch_size):
        for crop in estimates(enc, manifest, rows[start : start + batch_size], raw_means, seed=seed):
            for i, row in enumerate(crop.rows):
                counts = crop.counts[i]
                if counts.any():
                    error, line = (float(crop.errors[method][i][counts].mean()) * unit for method in METHODS[:2])
                    table.append({"row": row, "error": error, "line": line, "ratio": error / max(line, 1e-9)})
        if on_batch:
            on_batch(min(start + batch_size, len(rows)), len(rows))
    if not table:
        raise InputError(f"{manifest.source}: no corrupted pixel above the silence floor in {len(rows)} clips")
    return pd.DataFrame(table).sort_values("row", ignore_index=True)


def _mean(total: float, count: int) -> float:
    return total / count if count else float("nan")


def _choose(manifest, clips: int | None, seed: int, purpose: str) -> list[int]:
    """Rows of a manifest: all in order, or `clips` of them drawn by counted randomness."""
    if clips is None or clips >= len(manifest):
        return list(range(len(manifest)))
    return sorted(permutation(key(seed, purpose), len(manifest))[:clips].tolist())


def crops(enc, manifest, rows: list[int], seed: int) -> list[tuple[list[int], torch.Tensor]]:
    """(rows, float32 [rows, samples]) for each length among the crops; unreadable and too short clips left out."""
    rate, samples = enc.config.features.sample_rate, enc.config.crop_samples
    places = uniform(key(seed, torch.tensor(rows), "held-out crops"), 1).squeeze(-1).tolist()
    wanted = []
    for row, place in zip(rows, places, strict=True):
        room = max(0, int(manifest.table["seconds"].iloc[row] * rate) - samples)
        wanted.append((row, rate, int(place * (room + 1)) / rate, samples / rate))
    by_length: dict[int, list[tuple[int, np.ndarray]]] = {}
    for row, wave in _waves(manifest, wanted):
        if enc.front_end.frames_of(len(wave)) >= enc.config.model.patch[0]:
            by_length.setdefault(len(wave), []).append((row, wave))
    return [
        ([row for row, _ in group], torch.from_numpy(np.stack([wave for _, wave in group])))
        for group in by_length.values()
    ]


def _waves(manifest, wanted: Sequence[tuple]) -> Iterator[tuple[int, np.ndarray]]:
    """(row, waveform) for each of some arguments of `Manifest.read`, in order and read by several threads; without the
    unreadable ones."""

    def read(arguments: tuple) -> np.ndarray | None:
        try:
            return manifest.read(*arguments)
        except InputError:
            return None

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(wanted), _READ_AT_ONCE):
            some = wanted[start : start + _READ_AT_ONCE]
            for (row, *_), wave in zip(some, threads.map(read, some), strict=True):
                if wave is not None:
                    yield row, wave
