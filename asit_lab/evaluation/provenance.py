"""What scores were computed with: hashes of the code, and stamps of the data files, to tell results of other ones."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from ..data.manifest import Manifest
from ..storage.source_code import code_hashes, differences

_SIGNAL = ("audio", "features.py", "random.py", "schedules.py", "nn", "data")
_SCORES = tuple(f"evaluation/{name}.py" for name in ("bootstrap", "choice", "classifiers", "metrics", "splits"))
# Modules whose numbers a probe and a fine-tuning are made of; a change elsewhere does not make their results stale.
PROBE = (*_SIGNAL, *_SCORES, "encoder/model.py", "encoder/windows.py", "embedding/dataset.py")
FINETUNE = (
    *_SIGNAL,
    *_SCORES,
    *(f"finetuning/{name}.py" for name in ("augment", "batches", "loop", "network", "recipe")),
    "training/optimizer.py",
)


def files_stamp(manifest: Manifest) -> str:
    """A short hash of names, sizes and times of change (whole seconds, as some copies keep no more) of a manifest's
    files. Folders do not count: data may be moved. Sounds made on the spot have names alone."""
    stamps = []
    for path in dict.fromkeys(manifest.table["path"]):
        try:
            stat = os.stat(path)
        except OSError:
            stamps.append(Path(path).name)
            continue
        stamps.append(f"{Path(path).name} {stat.st_size} {int(stat.st_mtime)}")
    return hashlib.sha256("\n".join(stamps).encode(errors="surrogateescape")).hexdigest()[:16]


def computed_with(parts: tuple[str, ...], manifest: Manifest) -> dict[str, str]:
    """Module or "data files" -> its hash, as they are now."""
    return {**code_hashes(parts), "data files": files_stamp(manifest)}


def changed(before: Mapping[str, str] | None, now: Mapping[str, str]) -> list[str]:
    """What differs, in words; results of a version that noted nothing differ in an unknown way."""
    return ["it is not known what they were computed with"] if before is None else differences(before, now)
