"""Saves and loads a classifier's outputs for its test clips, from which every score can be recomputed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..evaluation import metrics
from ..evaluation.splits import groups_of
from ..storage.atomic import atomic_write

SCORES = {False: ("accuracy", "balanced_accuracy"), True: ("mAP", "dprime", "auc")}  # by whether labels are several


@dataclass(frozen=True)
class Outputs:
    """Outputs for N test clips of K classes."""

    outputs: np.ndarray
    """float32 [N, K], logits"""
    targets: np.ndarray
    """float32 [N, K], 0 or 1"""
    rows: np.ndarray
    """int64 [N], rows of the manifest"""
    paths: np.ndarray
    """[N], files"""
    groups: np.ndarray
    """[N], source recording or speaker of each; the file where unknown"""

    @classmethod
    def of(cls, task, rows: np.ndarray, outputs: np.ndarray) -> "Outputs":
        """The outputs of a task.FinetuneTask for the clips in `rows`."""
        table = task.manifest.table.iloc[rows]
        targets, groups = task.targets[rows].float().numpy(), groups_of(table).astype(str)
        return cls(outputs.astype(np.float32), targets, rows, table["path"].to_numpy(dtype=str), groups)

    def scores(self, multi: bool) -> dict[str, float]:
        """See `metrics.scores`."""
        return metrics.scores(self.targets, self.outputs, multi)


def save_outputs(path: Path, outputs: Outputs) -> None:
    """Write an .npz file atomically."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **vars(outputs))


def read_outputs(path: Path) -> Outputs:
    """Load a file of `save_outputs`. Raises InputError where it cannot be read."""
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in Outputs.__dataclass_fields__ if name in file}
            arrays.setdefault("groups", arrays["rows"].astype(str))  # files of version 0.1 have no groups
            return Outputs(**arrays)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as outputs of a test: {error}") from None
