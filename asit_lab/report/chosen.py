"""Chooses the two points whose runs a report shows: one of the reference, one of the setting furthest from it."""

from dataclasses import dataclass
from pathlib import Path

from ..batch.execution.state import RUN
from ..batch.results import StudyResults
from .verdict import unit_of_results


@dataclass(frozen=True)
class ChosenPoint:
    """A finished point whose run is shown."""

    key: str
    """prefix of its files: reference or contrast"""
    setting: str
    seed: int
    why: str
    run: Path
    """its run directory"""


def chosen_points(results: StudyResults) -> list[ChosenPoint]:
    """The first finished seed of the reference and of the setting whose mean is furthest from the reference's.

    Where no mean differs as it is written, the first of the other settings. Where the reference has no result, the
    first setting that has one stands alone.
    """
    summary = results.summary[results.summary["seeds"] > 0]
    names = summary["setting"].tolist()
    if results.reference not in names:
        return [_first(results, "contrast", names[0], "the reference has no result yet")]
    points = [_first(results, "reference", results.reference, "the setting the others are compared with")]
    distance = summary["difference"].abs()
    if distance.notna().any():
        contrast, reason = summary.loc[distance.idxmax(), "setting"], "the setting furthest from the reference"
        if not round(distance.max(), unit_of_results(results).decimals):
            contrast = summary.loc[distance.first_valid_index(), "setting"]
            reason = "the first of the other settings, as none differs from the reference"
        points.append(_first(results, "contrast", contrast, reason))
    return points


def _first(results: StudyResults, key: str, setting: str, why: str) -> ChosenPoint:
    points = results.points
    row = points[(points["setting"] == setting) & (points["state"] == "finished")].iloc[0]
    return ChosenPoint(key, setting, int(row["seed"]), why, Path(row["folder"]) / RUN)
