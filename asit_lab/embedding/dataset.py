"""Embeddings of a whole data set: every clip goes through an encoder once, for all the layers requested.

`rows` are the manifest's row positions of the clips that have vectors, because unreadable ones are left out.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..data.manifest import Manifest
from ..encoder import Encoder
from ..errors import InputError
from ..features import LogMel
from ..settings import Features
from ..storage.progress import passing_bar_style
from . import cache
from .vectors import LayerVectors

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
    layers: tuple[int, ...] | None = None
    """numbers of the layers that `embed` gives; None: all there are"""
    depth: int | None = None
    """how many layers there are; None: as many as `embed` gives"""


@dataclass(frozen=True)
class Embeddings:
    """Vectors of the clips that every embedder could take."""

    features: dict[str, np.ndarray | LayerVectors]
    """name of the embedder -> float32 [clips, dim], or [clips, layers, 3, D] that are read when indexed"""
    rows: np.ndarray
    """int64 [clips], row positions in the manifest"""
    skipped: list[tuple[str, str]]
    """(path, reason) of the clips left out"""


def on_device(model: Any, device: str | None) -> Any:
    """An encoder or classifier, moved to a device such as "cuda", "cuda:1" or "cpu"; None: where it is.

    Raises InputError for a device that this machine does not have.
    """
    if device is None:
        return model
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise InputError(f"device: {device!r} cannot be used here: {str(error).splitlines()[0]}") from None


def encoder_embedder(enc: Encoder, name: str | None = None, layers: Sequence[int] | None = None) -> Embedder:
    """An encoder's teacher: class token, mean and deviation of the patches in `layers` (None: in every layer)."""
    rate, depth = enc.config.features.sample_rate, enc.config.model.depth + 1
    chosen = None if layers is None or len(layers) == depth else tuple(sorted(layers))

    def embed(waves: list[Tensor]) -> Tensor:
        return enc.pooled(waves, rate, chosen)

    return Embedder(name or enc.name, rate, embed, cache.encoder_identity(enc), chosen, depth)


def log_mel_embedder(mel_bins: int = 64, sample_rate: int = 16000) -> Embedder:
    """Mean and standard deviation over time of every log-mel band: what a learned embedding has to beat."""
    features = Features(sample_rate=sample_rate, mel_bins=mel_bins)
    front_end = LogMel.from_config(features)

    def embed(waves: list[Tensor]) -> Tensor:
        raw = [front_end(wave[None])[0] for wave in waves]  # each [T, M]
        return torch.stack([torch.cat([x.mean(0), x.std(0, unbiased=False)]) for x in raw])  # [clips, 2M]

    return Embedder(LOG_MEL, sample_rate, embed, f"{LOG_MEL} {features.model_dump_json()}")


def embed_clips(
    manifest: Manifest,
    embedders: Sequence[Embedder],
    batch_size: int = 32,
    keep: bool = True,
    on_batch: Callable[[int, int], None] | None = None,
) -> Embeddings:
    """Embed every clip of a manifest with each embedder; clips are read once for each sample rate they need.

    A clip that cannot be read or is too short for one of the embedders is left out for all of them, listed in `skipped`
    and logged. keep: vectors are kept on disk in shards (see `cache`), and only those that are not there yet are
    computed; an embedding that was stopped resumes. on_batch: called with the clips done and all clips to do, after
    each batch.
    Raises InputError when no clip is left, with the first reason.
    """
    stores = {embedder.name: _store(embedder, manifest, keep) for embedder in embedders}
    pending = {
        row: [embedder for embedder in embedders if row not in stores[embedder.name].rows]
        for row in range(len(manifest))
    }
    rows = [row for row, lacking in pending.items() if lacking]
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    skipped: dict[int, str] = {}

    def read(batch: list[int]) -> dict[int, dict[int, Tensor]]:
        return _read(manifest, {row: {embedder.sample_rate for embedder in pending[row]} for row in batch}, skipped)

    done = 0
    try:
        with tqdm(total=len(rows), desc="embedding", unit="clip", **passing_bar_style()) as bar:
            for batch, waves in zip(batches, _ahead(read, batches), strict=True):
                for embedder in embedders:
                    own = [row for row in batch if row in waves and embedder in pending[row]]
                    inputs = {row: waves[row][embedder.sample_rate] for row in own}
                    stores[embedder.name].add(_embed(embedder, inputs, skipped))
                done += len(batch)
                bar.update(len(batch))
                if on_batch:
                    on_batch(done, len(rows))
    finally:  # Ctrl-C: what was computed is kept
        for store in stores.values():
            store.flush()
    embedded = [row for row in range(len(manifest)) if all(row in store.rows for store in stores.values())]
    reasons = [(str(manifest.table["path"].iloc[row]), reason) for row, reason in sorted(skipped.items())]
    if not embedded:
        why = f": {reasons[0][1]}" if reasons else ""
        raise InputError(f"{manifest.source}: none of its {len(manifest)} clips can be embedded{why}")
    if reasons:
        log.warning("%d of %d clips left out, the first: %s", len(reasons), len(manifest), reasons[0][1])
    features = {embedder.name: _features(stores[embedder.name], embedder, embedded) for embedder in embedders}
    return Embeddings(features, np.array(embedded, dtype=np.int64), reasons)


def _store(embedder: Embedder, manifest: Manifest, keep: bool) -> cache.VectorStore:
    """Where the vectors of an embedder go. Of some layers, vectors of all layers that are kept already are used."""
    if not keep or not embedder.identity:
        return cache.VectorStore(None, embedder.layers)
    full = cache.cache_folder(embedder.identity, embedder.sample_rate, manifest)
    if embedder.layers is None:
        return cache.VectorStore(full)
    identity = f"{embedder.identity} layers {embedder.layers}"
    folder = cache.cache_folder(identity, embedder.sample_rate, manifest)
    return cache.VectorStore(folder, embedder.layers, cache.load_shards(full))


def _features(store: cache.VectorStore, embedder: Embedder, rows: list[int]) -> np.ndarray | LayerVectors:
    sample = store.shards[0].read()
    if sample.ndim == 2:
        return store.array(rows)
    return LayerVectors(store.shards, rows, embedder.depth or sample.shape[1], sample.shape[-1])


def _ahead(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """function(item) of each item in turn, computed in a thread while the caller works with the one before."""
    coming: deque[Future] = deque()
    with ThreadPoolExecutor(1) as thread:
        for item in items:
            coming.append(thread.submit(function, item))
            if len(coming) > 1:
                yield coming.popleft().result()
        if coming:
            yield coming.popleft().result()


def _read(manifest: Manifest, rates: dict[int, set[int]], skipped: dict[int, str]) -> dict[int, dict[int, Tensor]]:
    """Row -> rate (Hz) -> waveform float32 [samples]; rows that cannot be read go to `skipped` instead."""

    def read(row: int) -> dict[int, Tensor] | str:
        try:
            return {rate: torch.from_numpy(manifest.read(row, rate)) for rate in sorted(rates[row])}
        except InputError as error:
            return str(error)

    waves = {}
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # decoding and resampling leave Python's lock
        for row, result in zip(rates, threads.map(read, rates), strict=True):
            if isinstance(result, str):
                skipped[row] = result
            else:
                waves[row] = result
    return waves


def _embed(embedder: Embedder, waves: dict[int, Tensor], skipped: dict[int, str]) -> dict[int, np.ndarray]:
    """Row -> vectors; a clip the embedder refuses goes to `skipped`, at no cost to the others of its batch."""
    if not waves:
        return {}
    try:
        with torch.no_grad():
            vectors = embedder.embed(list(waves.values())).float().cpu().numpy()
    except InputError as error:
        if len(waves) > 1:
            return {row: v for alone in waves for row, v in _embed(embedder, {alone: waves[alone]}, skipped).items()}
        skipped.update(dict.fromkeys(waves, str(error)))
        return {}
    return dict(zip(waves, vectors, strict=True))
