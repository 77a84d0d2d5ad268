"""What a study would take, before any of it starts: points, hours, disk."""

import contextlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..config import resolve
from ..storage.atomic import read_json
from ..storage.words import duration
from .execution.cluster import threads_each
from .execution.state import RUN, state_of
from .expansion import points
from .point import Point
from .study import Study, read_study


@dataclass(frozen=True)
class Forecast:
    """What a study would take."""

    table: pd.DataFrame
    """a row a setting: setting, points, finished, hours (training left, all its seeds), disk_gb (to be written)"""
    hours: float
    """of training left, one after the other; NaN where points have no configuration to measure"""
    workers: int
    disk_free_gb: float
    notes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, str]:
        """The sums in words."""
        count, done, disk = self.table["points"].sum(), self.table["finished"].sum(), self.table["disk_gb"].sum()
        wall = self.hours / min(self.workers, max(1, count - done))
        time = "not known"
        if wall == wall:
            time = f"about {duration(3600 * wall)} of pretraining with {self.workers} at once, "
            time += "without start of kernels, probes, fine-tuning and pictures"
        return {
            "points": f"{count}, {done} of them finished",
            "time": time,
            "disk": f"{disk:.3g} GB more, {self.disk_free_gb:.3g} GB free",
        }


def forecast(
    study: str | Path | Study,
    scale: str = "smoke",
    data: str | None = None,
    seeds: int | list[int] | None = None,
    workers: int = 1,
) -> Forecast:
    """What `run` with the same arguments would take; a few training steps of every setting are measured.

    They are measured with the threads that each of `workers` would have, though alone on the machine. Probes,
    fine-tuning and pictures are not counted. Raises what `run` would before it starts.
    """
    study = read_study(study)
    found = points(study, scale, data or None, seeds or None)
    rows, notes = [], []
    for setting in dict.fromkeys(point.setting for point in found):
        of_setting = [point for point in found if point.setting == setting]
        open_ones = [point for point in of_setting if state_of(point.folder).state != "finished"]
        row = {"setting": setting, "points": len(of_setting), "finished": len(of_setting) - len(open_ones)}
        if not open_ones:
            rows.append({**row, "hours": 0.0, "disk_gb": 0.0})
        elif open_ones[0].config is None:
            rows.append({**row, "hours": float("nan"), "disk_gb": 0.0})
        else:
            planned = _measure(open_ones[0], workers)
            notes += [note for note in planned.notes if note not in notes]
            left = sum(1 - _share(point) for point in open_ones)
            rows.append({**row, "hours": planned.hours * left, "disk_gb": planned.disk_bytes * len(open_ones) / 1e9})
    table = pd.DataFrame(rows)
    free = shutil.disk_usage(next(path for path in (resolve("runs"), *resolve("runs").parents) if path.exists())).free
    return Forecast(table, float(table["hours"].sum(skipna=False)), workers, free / 1e9, tuple(notes))


def _measure(point: Point, workers: int):
    """The plan of a point's training, measured with the threads it would have."""
    import torch

    from ..config import validate
    from ..training.estimate import plan

    before = torch.get_num_threads()
    torch.set_num_threads(threads_each(workers))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return plan(validate(point.config), steps=4)
    finally:
        torch.set_num_threads(before)


def _share(point: Point) -> float:
    """How much of a point's training is done and saved."""
    progress = read_json(point.folder / RUN / "status.json")
    return progress["step"] / progress["total_steps"] if progress.get("total_steps") else 0.0
