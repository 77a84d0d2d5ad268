"""Embeddings kept on disk, so that a clip goes through an encoder once and not once for every probe.

A file is found by a hash of everything its numbers follow from: the weights, what of the configuration shapes the
vectors, the code, and the clips. Clips are told apart by path, start, length, and the size and time of change of their
file: reading all of the audio to hash it would take as long as much of the embedding, and a file that was replaced has
another time. (A data set that was copied has new times too, and is embedded again.) Labels, folds and splits are not
part of it. Files can be deleted at any time; nothing but time is lost.
"""

import functools
import hashlib
import json
import logging
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .._version import __version__
from ..config import resolve
from ..storage.atomic import whole

FOLDER = "data/embeddings"
# What vectors are computed by; with the version alone, a change to the model in one's own copy would go unnoticed.
_CODE = ("audio.py", "features.py", "encoder", "nn", "data", "evaluation/embeddings.py")

log = logging.getLogger(__name__)


def fingerprint(enc) -> str:
    """What an encoder's vectors follow from, as text: a hash of the teacher's weights, and the configuration of
    features, model and window."""
    weights = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(enc.backbone.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        weights.update(f"{name} {array.dtype} {tuple(array.shape)} ".encode())
        weights.update(array.view(-1).numpy().tobytes())
    settings = {part: getattr(enc.config, part).model_dump(mode="json") for part in ("features", "model")}
    return json.dumps({"weights": weights.hexdigest(), "frames": enc.config.input_frames, **settings}, sort_keys=True)


def file_of(identity: str, sample_rate: int, manifest) -> Path:
    """The file that holds, or would hold, the vectors of an embedder of this `identity` for a manifest's clips."""
    found = hashlib.blake2b(digest_size=16)
    found.update(json.dumps([__version__, _code(), identity, sample_rate]).encode())
    table = manifest.table
    for path, start, seconds in zip(table["path"], table["start"], table["seconds"], strict=True):
        found.update(f"\n{path}\t{start!r}\t{seconds!r}\t{_state(path)}".encode("utf-8", "surrogateescape"))
    return resolve(FOLDER) / f"{found.hexdigest()}.safetensors"


def _state(path: str) -> str:
    """Size and time of change; empty for what is no file: sounds made on the spot (their path says all), or missing."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


@functools.cache
def _code() -> str:
    """A hash of the source files in _CODE."""
    package = Path(__file__).parent.parent
    found = hashlib.blake2b(digest_size=16)
    for part in _CODE:
        path = package / part
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            found.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def load(path: Path) -> dict[int, np.ndarray]:
    """Row of the manifest -> its vectors; empty where nothing is kept, or the file is damaged (which is logged)."""
    try:
        with safe_open(path, "np") as file:
            rows, vectors = file.get_tensor("rows"), file.get_tensor("vectors")
            if (file.metadata() or {}).get("digest") != _digest(rows, vectors):
                raise SafetensorError("its contents are not what was written")
    except FileNotFoundError:
        return {}
    except (OSError, SafetensorError) as error:
        log.warning("%s: kept embeddings cannot be read (%s); they are made again", path, error)
        return {}
    return dict(zip(rows.tolist(), vectors, strict=True))


def save(path: Path, found: dict[int, np.ndarray]) -> None:
    """Keep row -> vectors. A folder that cannot be written costs a warning, not the embeddings."""
    rows = np.array(sorted(found), dtype=np.int64)
    vectors = np.stack([found[row] for row in rows.tolist()])
    try:
        with whole(path) as temporary:
            save_file({"rows": rows, "vectors": vectors}, temporary, metadata={"digest": _digest(rows, vectors)})
    except (OSError, SafetensorError) as error:
        log.warning("%s: embeddings cannot be kept for the next time (%s)", path, error)


def _digest(rows: np.ndarray, vectors: np.ndarray) -> str:
    found = hashlib.blake2b(np.ascontiguousarray(rows), digest_size=16)
    found.update(np.ascontiguousarray(vectors))
    return found.hexdigest()
