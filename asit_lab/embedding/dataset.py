"""Embeddings of a whole data set: every clip goes through an encoder once, for all its layers and ways of pooling.

`rows` are the manifest's row positions of the clips that have vectors, because unreadable ones are left out.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError
from ..features import LogMel
from ..settings import Features
from ..storage.progress import passing_bar_style
from . import cache

log = logging.getLogger(__name__)

LOG_MEL = "mean+std log-mel"  # name of what every table has beside the encoders


@dataclass(frozen=True)
class Embedder:
    """Something that turns clips into vectors."""

    name: str
    sample_rate: int
    """Hz of the waveforms it takes"""
    embed: Callable[[list[Tensor]], Tensor]
    """clips float32 [samples], of any lengths -> float32 [clips, dim] or [clips, layers, 3, D], see `Encoder.pooled`"""
    identity: str = ""
    """what its vectors follow from besides the audio, for keeping them; empty: they are not kept"""


@dataclass(frozen=True)
class Embeddings:
    """Vectors of the clips that every embedder could take."""

    features: dict[str, np.ndarray]
    """name of the embedder -> float32 [clips, dim] or [clips, layers, 3, D]"""
    rows: np.ndarray
    """int64 [clips], row positions in the manifest"""
    skipped: list[tuple[str, str]]
    """(path, reason) of the clips left out"""


def encoder_embedder(enc, name: str | None = None) -> Embedder:
    """An asit_lab.Encoder (its teacher): class token, mean and deviation of the patches in every layer."""
    rate = enc.config.features.sample_rate
    return Embedder(name or enc.name, rate, lambda waves: enc.pooled(waves, rate), cache.fingerprint(enc))


def log_mel_embedder(mel_bins: int = 64, sample_rate: int = 16000) -> Embedder:
    """Mean and standard deviation over time of every log-mel band: what a learned embedding has to beat."""
    features = Features(sample_rate=sample_rate, mel_bins=mel_bins)
    front_end = LogMel.from_config(features)

    def embed(waves: list[Tensor]) -> Tensor:
        raw = [front_end(wave[None])[0] for wave in waves]  # each [T, M]
        return torch.stack([torch.cat([one.mean(0), one.std(0, unbiased=False)]) for one in raw])  # [clips, 2M]

    return Embedder(LOG_MEL, sample_rate, embed, f"{LOG_MEL} {features.model_dump_json()}")


def embed_clips(
    manifest,
    embedders: Sequence[Embedder],
    batch_size: int = 32,
    keep: bool = True,
    progress: bool = False,
    on_batch: Callable[[int, int], None] | None = None,
) -> Embeddings:
    """Embed every clip of a manifest with each embedder; clips are read once for each sample rate they need.

    A clip that cannot be read or is too short for one of the embedders is left out for all of them, listed in `skipped`
    and logged. keep: vectors are kept on disk (see `cache`) and only those that are not there yet are made, so that an
    interrupted call is resumed by the next. on_batch: called with the clips done and all clips to do, after each batch.
    Raises InputError when no clip is left, with the first reason.
    """
    files = {
        one.name: cache.file_of(one.identity, one.sample_rate, manifest) for one in embedders if keep and one.identity
    }
    found = {one.name: cache.load(files[one.name]) if one.name in files else {} for one in embedders}
    kept = {name: len(vectors) for name, vectors in found.items()}
    lacking = {row: [one for one in embedders if row not in found[one.name]] for row in range(len(manifest))}
    todo = [row for row, those in lacking.items() if those]
    skipped: dict[int, str] = {}
    words = {"desc": "embedding", "unit": "batch", "disable": not progress}
    try:
        for start in tqdm(range(0, len(todo), batch_size), **words, **passing_bar_style()):
            window = todo[start : start + batch_size]
            waves = _read(manifest, {row: {one.sample_rate for one in lacking[row]} for row in window}, skipped)
            for one in embedders:
                theirs = {row: waves[row][one.sample_rate] for row in window if row in waves and one in lacking[row]}
                found[one.name].update(_embed(one, theirs, skipped))
            if on_batch:
                on_batch(min(start + batch_size, len(todo)), len(todo))
    finally:
        for name, path in files.items():
            if len(found[name]) > kept[name]:
                cache.save(path, found[name])
    rows = [row for row in range(len(manifest)) if all(row in vectors for vectors in found.values())]
    reasons = [(str(manifest.table["path"].iloc[row]), reason) for row, reason in sorted(skipped.items())]
    if not rows:
        raise InputError(f"{manifest.source}: none of its {len(manifest)} clips can be embedded: {reasons[0][1]}")
    if reasons:
        log.warning("%d of %d clips left out, the first: %s", len(reasons), len(manifest), reasons[0][1])
    features = {name: np.stack([vectors[row] for row in rows]) for name, vectors in found.items()}
    return Embeddings(features, np.array(rows, dtype=np.int64), reasons)


def _read(manifest, rates: dict[int, set[int]], skipped: dict[int, str]) -> dict[int, dict[int, Tensor]]:
    """Row -> rate (Hz) -> waveform float32 [samples]; rows that cannot be read go to `skipped` instead."""
    waves = {}
    for row, wanted in rates.items():
        try:
            waves[row] = {rate: torch.from_numpy(manifest.read(row, rate)) for rate in sorted(wanted)}
        except InputError as error:
            skipped[row] = str(error)
    return waves


def _embed(embedder: Embedder, waves: dict[int, Tensor], skipped: dict[int, str]) -> dict[int, np.ndarray]:
    """Row -> vectors; a clip the embedder refuses goes to `skipped`, the others of its batch do not suffer for it."""
    if not waves:
        return {}
    try:
        with torch.no_grad():
            vectors = embedder.embed(list(waves.values())).float().cpu().numpy()
    except InputError as error:
        if len(waves) > 1:
            return {row: v for one in waves for row, v in _embed(embedder, {one: waves[one]}, skipped).items()}
        skipped.update(dict.fromkeys(waves, str(error)))
        return {}
    return dict(zip(waves, vectors, strict=True))
