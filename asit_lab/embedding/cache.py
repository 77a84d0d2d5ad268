"""Caches embeddings on disk, so that a clip goes through an encoder only once.

A folder is found by a hash of everything its numbers depend on: the weights, the settings that affect the vectors, the
code, and the clips. Clips are identified by path, start, length, and the size and time of change of their file: reading
all of the audio to hash it would take as long as much of the embedding, and a file that was replaced has another time.
(A data set that was copied has new times too, and is embedded again.) Labels, folds and splits are not part of it. It
has one file per shard of clips, written as soon as it is full: an interrupted embedding resumes after the last one.
Folders can be deleted at any time; nothing but time is lost.
"""

import functools
import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .._version import __version__
from ..audio.state import file_state
from ..config import resolve
from ..storage.atomic import atomic_write
from ..storage.source_code import code_hashes
from .vectors import Shard

CACHE_FOLDER = "data/embeddings"
SHARD_CLIPS = 512  # of a ViT-B with all its layers 61 MB
# What vectors are computed by; with the version alone, a change to the model in one's own copy would go unnoticed.
_CODE = ("audio", "features.py", "mel.py", "encoder", "nn", "data", "embedding/dataset.py")

log = logging.getLogger(__name__)


def encoder_identity(enc) -> str:
    """What an encoder's vectors depend on, as text: a hash of the teacher's weights, and the configuration of
    features, model and window."""
    weights = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(enc.backbone.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        weights.update(f"{name} {array.dtype} {tuple(array.shape)} ".encode())
        weights.update(array.view(-1).view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    settings = {part: getattr(enc.config, part).model_dump(mode="json") for part in ("features", "model")}
    return json.dumps({"weights": weights.hexdigest(), "frames": enc.config.input_frames, **settings}, sort_keys=True)


def cache_folder(identity: str, sample_rate: int, manifest) -> Path:
    """The folder that holds, or would hold, the vectors of an embedder of this `identity` for a manifest's clips."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([__version__, _code(), identity, sample_rate]).encode())
    table = manifest.table
    for path, start, seconds in zip(table["path"], table["start"], table["seconds"], strict=True):
        digest.update(f"\n{path}\t{start!r}\t{seconds!r}\t{file_state(path)}".encode("utf-8", "surrogateescape"))
    return resolve(CACHE_FOLDER) / digest.hexdigest()


@functools.cache
def _code() -> dict[str, str]:
    return code_hashes(_CODE)


class VectorStore:
    """The vectors of one embedder for one manifest, while they are computed: shards, and what fills the next one."""

    def __init__(self, folder: Path | None, layers: tuple[int, ...] | None = None, earlier: list[Shard] | None = None):
        """folder: where shards are kept; None: in memory. earlier: shards that exist elsewhere already."""
        self._folder, self._layers = folder, layers
        self.shards = [*(earlier or []), *(load_shards(folder, layers) if folder else [])]
        self.rows = {row for shard in self.shards for row in shard.rows.tolist()}
        self._pending: dict[int, np.ndarray] = {}

    def add(self, vectors: dict[int, np.ndarray]) -> None:
        """Take row -> vectors; write a shard when it is full."""
        self._pending.update(vectors)
        self.rows.update(vectors)
        if len(self._pending) >= SHARD_CLIPS:
            self.flush()

    def flush(self) -> None:
        """Write the vectors that wait for a full shard. A folder that cannot be written costs a warning, not the
        embeddings."""
        if not self._pending:
            return
        rows = np.array(sorted(self._pending), dtype=np.int64)
        vectors = np.stack([self._pending.pop(row) for row in rows.tolist()])
        place: np.ndarray | Path = vectors
        if self._folder:
            path = self._folder / f"{rows[0]:08d}.safetensors"
            try:
                save_shard(path, rows, vectors)
                place = path
            except (OSError, SafetensorError) as error:
                log.warning("%s: embeddings cannot be kept for the next time (%s)", path, error)
                self._folder = None  # once is enough
        self.shards.append(Shard(rows, place, self._layers))

    def array(self, rows: list[int]) -> np.ndarray:
        """[rows, ...], all of it in memory."""
        vectors = {
            row: vector for shard in self.shards for row, vector in zip(shard.rows.tolist(), shard.read(), strict=True)
        }
        return np.stack([vectors[row] for row in rows])


def load_shards(folder: Path, layers: tuple[int, ...] | None = None) -> list[Shard]:
    """The shards in a folder. Damaged ones are left out, which is logged; their clips are embedded again."""
    shards = []
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
        try:
            with safe_open(path, "np") as file:
                rows, vectors = file.get_tensor("rows"), file.get_tensor("vectors")
                if (file.metadata() or {}).get("digest") != _digest(rows, vectors):
                    raise SafetensorError("its contents are not what was written")
        except (OSError, SafetensorError) as error:
            log.warning("%s: kept embeddings cannot be read (%s); they are made again", path, error)
            continue
        shards.append(Shard(rows, path, layers))
    return shards


def save_shard(path: Path, rows: np.ndarray, vectors: np.ndarray) -> None:
    """Write rows and vectors, whole or not at all. Raises OSError or SafetensorError."""
    with atomic_write(path) as temporary:
        save_file({"rows": rows, "vectors": vectors}, temporary, metadata={"digest": _digest(rows, vectors)})


def _digest(rows: np.ndarray, vectors: np.ndarray) -> str:
    digest = hashlib.blake2b(np.ascontiguousarray(rows), digest_size=16)
    digest.update(np.ascontiguousarray(vectors))
    return digest.hexdigest()
