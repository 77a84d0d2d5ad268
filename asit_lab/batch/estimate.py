"""Estimates points, hours and disk of a study before any of it starts."""

import contextlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..config import resolve
from ..storage.atomic import read_json
from ..storage.words import duration
from .execution.cluster import threads_each
from .execution.state import RUN, state_of
from .expansion import points
from .point import Point
from .study import Study, read_study

if TYPE_CHECKING:
    from ..training.estimate import Plan


@dataclass(frozen=True)
class Forecast:
    """The estimate of a study."""

    table: pd.DataFrame
    """a row a setting: setting, points, finished, hours (training left, all its seeds), disk_gb (to be written)"""
    hours: float
    """of training left, one after the other; NaN where points have no configuration to measure"""
    workers: int
    disk_free_gb: float
    notes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, str]:
        """The totals, for printing."""
        count, done, disk = self.table["points"].sum(), self.table["finished"].sum(), self.table["disk_gb"].sum()
        wall = self.hours / min(self.workers, max(1, count - done))
        time = "unknown"
        if wall == wall:
            time = f"about {duration(3600 * wall)} of pretraining with {self.workers} at once, "
            time += "without kernel starts, probes, fine-tuning and figures"
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
    """Estimate `run` with the same arguments from a few measured training steps of every setting.

    They are measured with the threads that each of `workers` would have, though alone on the machine. Probes,
    fine-tuning and figures are not counted. Raises what `run` would before it starts.
    """
    study = read_study(study)
    study_points = points(study, scale, data or None, seeds or None)
    rows, notes = [], []
    for setting in dict.fromkeys(point.setting for point in study_points):
        of_setting = [point for point in study_points if point.setting == setting]
        unfinished = [point for point in of_setting if state_of(point.folder).state != "finished"]
        row = {"setting": setting, "points": len(of_setting), "finished": len(of_setting) - len(unfinished)}
        if not unfinished:
            rows.append({**row, "hours": 0.0, "disk_gb": 0.0})
        elif unfinished[0].config is None:
            rows.append({**row, "hours": float("nan"), "disk_gb": 0.0})
        else:
            planned = _measure(unfinished[0], workers)
            notes += [note for note in planned.notes if note not in notes]
            left = sum(1 - _share(point) for point in unfinished)
            rows.append({**row, "hours": planned.hours * left, "disk_gb": planned.disk_bytes * len(unfinished) / 1e9})
    table = pd.DataFrame(rows)
    free = shutil.disk_usage(next(path for path in (resolve("runs"), *resolve("runs").parents) if path.exists())).free
    return Forecast(table, float(table["hours"].sum(skipna=False)), workers, free / 1e9, tuple(notes))


def _measure(point: Point, workers: int) -> "Plan":
    """The estimate of a point's training, measured with the threads it would have."""
    import torch

    from ..config import validate
    from ..training.estimate import plan

    before = torch.get_num_threads()
    torch.set_num_threads(threads_each(workers))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return plan(validate(point.config or {}), steps=4)
    finally:
        torch.set_num_threads(before)


def _share(point: Point) -> float:
    """The share of a point's training that is done and saved."""
    progress = read_json(point.folder / RUN / "status.json")
    return progress["step"] / progress["total_steps"] if progress.get("total_steps") else 0.0
