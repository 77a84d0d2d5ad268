"""Clips of evaluation sets, which a corpus must not contain."""

from collections.abc import Iterable

import numpy as np

from ...errors import InputError
from ..fingerprints import fingerprints
from ..manifest import Manifest, load_manifest


class Evaluated:
    """Clips of evaluation sets: by path and recording (or speaker), and by content.

    Contents are compared to the sample, segment by segment: a copy at another rate, or a lossy one, is not found.
    """

    def __init__(self, specs: Iterable[str], segment_seconds: float):
        self.paths: dict[str, str] = {}
        self.digests: dict[str, str] = {}
        for spec in specs:
            source, _, parts = spec.partition("#")
            manifest = load_manifest(source, segment_seconds)
            rows = np.flatnonzero(_in_parts(manifest, spec, parts))
            part = manifest.table.iloc[rows]
            related = manifest.table["group"].isin(part["group"].unique())
            self.paths |= dict.fromkeys(manifest.table["path"][related], f"of a recording or speaker of {spec}")
            self.paths |= dict.fromkeys(part["path"], f"is in {spec}")
            for clip in fingerprints(manifest, rows):
                if not isinstance(clip, str) and clip.digest:
                    self.digests[clip.digest] = f"same audio as a clip of {spec}"


def _in_parts(manifest: Manifest, spec: str, parts: str) -> np.ndarray:
    """bool [rows]: in the folds or splits that follow the "#"; without any, all. Raises InputError for unknown ones."""
    if not parts:
        return np.ones(len(manifest), bool)
    fold, split = (manifest.table[name].astype("string") for name in ("fold", "split"))
    present = sorted({*fold.dropna(), *split.dropna()})
    requested = [part.strip() for part in parts.split(",")]
    for part in requested:
        if part not in present:
            raise InputError(f"{spec!r}: no fold or split {part!r}; present: {', '.join(present) or 'none'}")
    return (fold.isin(requested) | split.isin(requested)).fillna(False).to_numpy(bool)
