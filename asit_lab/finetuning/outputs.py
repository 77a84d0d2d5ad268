"""What a classifier answered on its test clips, kept in a file so that every score can be made again from it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..evaluation import metrics
from ..storage.atomic import whole

SCORES = {False: ("accuracy", "balanced_accuracy"), True: ("mAP", "dprime", "auc")}  # by whether labels are several


@dataclass(frozen=True)
class Outputs:
    """Answers to N test clips of K classes."""

    outputs: np.ndarray
    """float32 [N, K], logits"""
    targets: np.ndarray
    """float32 [N, K], 0 or 1"""
    rows: np.ndarray
    """int64 [N], rows of the manifest"""
    paths: np.ndarray
    """[N], files"""

    @classmethod
    def of(cls, job, rows: np.ndarray, outputs: np.ndarray) -> "Outputs":
        """The answers of a loop.Job to the clips in `rows`."""
        paths = job.manifest.table["path"].iloc[rows].to_numpy(dtype=str)
        return cls(outputs.astype(np.float32), job.targets[rows].float().numpy(), rows, paths)

    def scores(self, multi: bool) -> dict[str, float]:
        """See `metrics.scores`."""
        return metrics.scores(self.targets, self.outputs, multi)


def save_outputs(path: Path, found: Outputs) -> None:
    """Write an .npz file whole or not at all."""
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **vars(found))


def read_outputs(path: Path) -> Outputs:
    """What `save_outputs` wrote. Raises InputError where it cannot be read."""
    try:
        with np.load(path) as file:
            return Outputs(**{name: file[name] for name in Outputs.__dataclass_fields__})
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read as outputs of a test: {error}") from None
