"""Records what scores were computed with, hashes of code and stamps of data files, to detect outdated results."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ..audio.state import stat_of
from ..data.manifest import Manifest
from ..storage.source_code import code_hashes, differences

_SIGNAL = ("audio", "features.py", "mel.py", "random.py", "schedules.py", "nn", "data")
_SCORES = tuple(f"evaluation/{name}.py" for name in ("bootstrap", "choice", "classifiers", "metrics", "splits"))
# Modules that a probe's and a fine-tuning's numbers depend on; a change elsewhere does not make results stale.
PROBE = (*_SIGNAL, *_SCORES, "encoder/model.py", "encoder/windows.py", "embedding/dataset.py")
FINETUNING_CODE = (
    *_SIGNAL,
    *_SCORES,
    *(f"finetuning/{name}.py" for name in ("augment", "batches", "linear_start", "loop", "network", "recipe", "team")),
    "training/optimizer.py",
)


def files_stamp(manifest: Manifest) -> str:
    """A short hash of names, sizes and times of change (whole seconds, as some copies keep no more) of a manifest's
    files. Folders do not count: data may be moved. Synthesised sounds have only names."""
    stamps = []
    for path in dict.fromkeys(manifest.table["path"]):
        stat = stat_of(path)
        stamps.append(Path(path).name + (f" {stat.st_size} {int(stat.st_mtime)}" if stat else ""))
    return hashlib.sha256("\n".join(stamps).encode(errors="surrogateescape")).hexdigest()[:16]


def computed_with(parts: tuple[str, ...], manifest: Manifest) -> dict[str, str]:
    """Module or "data files" -> its hash, as they are now."""
    return {**code_hashes(parts), "data files": files_stamp(manifest)}


def changed(before: Mapping[str, str] | None, now: Mapping[str, str]) -> list[str]:
    """The differences; unknown for results of a version that recorded nothing."""
    return ["it is not known what they were computed with"] if before is None else differences(before, now)
