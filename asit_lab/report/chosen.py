"""Which points of a study are looked at closely: one of the reference and one of the setting furthest from it."""

from dataclasses import dataclass
from pathlib import Path

from ..batch.execution.state import RUN
from ..batch.results import Collected
from .verdict import unit_of


@dataclass(frozen=True)
class Chosen:
    """A finished point that is shown."""

    key: str
    """what its files are called: reference or contrast"""
    setting: str
    seed: int
    why: str
    run: Path
    """its run directory"""


def chosen_points(collected: Collected) -> list[Chosen]:
    """The first finished seed of the reference and of the setting whose mean is furthest from the reference's.

    Where no mean differs as it is written, the first of the other settings. Where the reference has no result, the
    first setting that has one stands alone.
    """
    summary = collected.summary[collected.summary["seeds"] > 0]
    names = summary["setting"].tolist()
    if collected.reference not in names:
        return [_first(collected, "contrast", names[0], "the reference has no result yet")]
    found = [_first(collected, "reference", collected.reference, "the setting the others are compared with")]
    distance = summary["difference"].abs()
    if distance.notna().any():
        contrast, why = summary.loc[distance.idxmax(), "setting"], "the setting furthest from the reference"
        if not round(distance.max(), unit_of(collected).decimals):
            contrast = summary.loc[distance.first_valid_index(), "setting"]
            why = "the first of the others, as none of them differs from the reference"
        found.append(_first(collected, "contrast", contrast, why))
    return found


def _first(collected: Collected, key: str, setting: str, why: str) -> Chosen:
    points = collected.points
    row = points[(points["setting"] == setting) & (points["state"] == "finished")].iloc[0]
    return Chosen(key, setting, int(row["seed"]), why, Path(row["folder"]) / RUN)
