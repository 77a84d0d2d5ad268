"""Clip embeddings of a whole data set: every clip is decoded once and given to all embedders.

X is float32 [clips, dim]; `rows` are the manifest's row positions of those clips, because unreadable ones are left out.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import InputError
from ..features import LogMel
from ..settings import Features

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedder:
    """Something that turns a batch of waveforms into one vector a clip."""

    name: str
    sample_rate: int
    """Hz of the waveforms it takes"""
    embed: Callable[[Tensor], Tensor]
    """float32 [batch, samples] -> [batch, dim]"""


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of the clips that every embedder could take."""

    features: dict[str, np.ndarray]
    """name of the embedder -> float32 [clips, dim]"""
    rows: np.ndarray
    """int64 [clips], row positions in the manifest"""
    skipped: list[tuple[str, str]]
    """(path, reason) of the clips left out"""


def encoder_embedder(enc, pool: str = "mean+std", name: str | None = None) -> Embedder:
    """An asit_lab.Encoder (its teacher) with a way of pooling its tokens: "mean", "class" or "mean+std"."""
    rate = enc.config.features.sample_rate
    return Embedder(name or enc.name, rate, lambda wave: enc.embed(wave, rate, pool=pool))


def log_mel_embedder(mel_bins: int = 64, sample_rate: int = 16000) -> Embedder:
    """Mean and standard deviation over time of every log-mel band: what a learned embedding has to beat."""
    front_end = LogMel.from_config(Features(sample_rate=sample_rate, mel_bins=mel_bins))

    def embed(wave: Tensor) -> Tensor:
        raw = front_end(wave)  # [B, T, M]
        return torch.cat([raw.mean(1), raw.std(1, unbiased=False)], dim=1)  # [B, 2M]

    return Embedder("mean+std log-mel", sample_rate, embed)


def embed_clips(manifest, embedders: Sequence[Embedder], batch_size: int = 32, progress: bool = False) -> Embeddings:
    """Embed every clip of a manifest with each embedder; clips are read once for each sample rate they need.

    Clips of equal length among `batch_size` neighbours go through together. A clip that cannot be read or is too short
    for one of the embedders is left out for all of them, listed in `skipped` and logged.
    Raises InputError when no clip is left, with the first reason.
    """
    found: dict[int, list[np.ndarray]] = {}
    skipped: list[tuple[str, str]] = []
    starts = range(0, len(manifest), batch_size)
    for start in tqdm(starts, desc="embedding", unit="batch", disable=not progress):
        window = range(start, min(start + batch_size, len(manifest)))
        waves = {}
        for row in window:
            try:
                waves[row] = {rate: manifest.read(row, rate) for rate in {one.sample_rate for one in embedders}}
            except InputError as error:
                skipped.append((str(manifest.table["path"].iloc[row]), str(error)))
        for rows in _equal_lengths(waves):
            try:
                found.update(
                    zip(rows, zip(*_embed_batch(embedders, [waves[row] for row in rows]), strict=True), strict=True)
                )
            except InputError as error:
                skipped += [(str(manifest.table["path"].iloc[row]), str(error)) for row in rows]
    if not found:
        raise InputError(f"{manifest.source}: none of its {len(manifest)} clips can be embedded: {skipped[0][1]}")
    if skipped:
        log.warning("%d of %d clips left out, the first: %s", len(skipped), len(manifest), skipped[0][1])
    rows = sorted(found)
    features = {one.name: np.stack([found[row][n] for row in rows]) for n, one in enumerate(embedders)}
    return Embeddings(features, np.array(rows, dtype=np.int64), skipped)


def _equal_lengths(waves: dict[int, dict[int, np.ndarray]]) -> list[list[int]]:
    """Rows whose waveforms have equal lengths at every rate, together."""
    by_length: dict[tuple, list[int]] = {}
    for row, rates in waves.items():
        by_length.setdefault(tuple(len(rates[rate]) for rate in sorted(rates)), []).append(row)
    return list(by_length.values())


def _embed_batch(embedders: Sequence[Embedder], waves: list[dict[int, np.ndarray]]) -> list[np.ndarray]:
    """One float32 [batch, dim] for each embedder."""
    batch = {rate: torch.from_numpy(np.stack([wave[rate] for wave in waves])) for rate in waves[0]}
    with torch.no_grad():
        return [one.embed(batch[one.sample_rate]).float().cpu().numpy() for one in embedders]


def embed_manifest(enc, manifest, pool: str = "mean+std", batch_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """X float32 [clips, dim] of one encoder and the rows int64 [clips] it belongs to; see `embed_clips`."""
    embedded = embed_clips(manifest, [encoder_embedder(enc, pool, "encoder")], batch_size)
    return embedded.features["encoder"], embedded.rows


def log_mel_statistics(manifest, mel_bins: int = 64, sample_rate: int = 16000) -> tuple[np.ndarray, np.ndarray]:
    """X float32 [clips, 2 * mel_bins], mean then standard deviation over time of the raw log-mel, and its rows."""
    embedder = log_mel_embedder(mel_bins, sample_rate)
    embedded = embed_clips(manifest, [embedder])
    return embedded.features[embedder.name], embedded.rows
