"""Detects collapse from the logged rows of a run."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import pandas as pd

from ..config import RunConfig
from ..objectives import criteria

# A verdict is about the median over the last WINDOW steps and at least ROWS rows: one batch whose clips happen to be
# alike looks like a collapse, ten in a row do not.
WINDOW = 100
ROWS = 5
# Sum of the learning rates from which on rows count. Adam moves a weight by about the rate a step, and weights start
# with a deviation of 0.02: before this they are much what they were drawn as, and an untrained network says little too.
TRAVEL = 0.01


@dataclass(frozen=True)
class CollapseVerdict:
    """A finding that a run has gone wrong."""

    kind: str
    """collapsed"""
    parts: tuple[str, ...]
    """collapsed parts of the model"""
    since: int
    """first step of the rows that say so"""
    text: str
    """in plain words: what has collapsed, by which numbers, for how long, what to try"""


class Watch:
    """Tells from the rows of metrics.csv, one after the other, whether a run has collapsed.

    rows: those that are there when a run is resumed. Nothing else is remembered, so the resumed run's verdicts are
    those of an undisturbed one.
    """

    def __init__(self, cfg: RunConfig, rows: Iterable[Mapping] = ()):
        self.criteria = criteria(cfg)
        self.rows: list[dict[str, float]] = []  # the last ones that count
        self.since: dict[str, int] = {}  # of each criterion that is met
        self.travel, self.last_step = 0.0, 0
        self.verdict: CollapseVerdict | None = None
        for row in rows:
            self.see(row)

    def see(self, row: Mapping) -> CollapseVerdict | None:
        """Take a row of metrics; returns the verdict as of this row, None while nothing is wrong (or no more)."""
        row = {name: float(f"{float(value):.7g}") for name, value in row.items()}  # as metrics.csv has it
        step = int(row["step"])
        self.travel += row["rate"] * (step - self.last_step)
        self.last_step = step
        if self.travel >= TRAVEL:
            self.rows.append(row)
        while len(self.rows) > ROWS and step - self.rows[1]["step"] >= WINDOW:
            self.rows.pop(0)
        if len(self.rows) < ROWS or step - self.rows[0]["step"] < WINDOW:
            return None
        typical = {name: _median(earlier.get(name, math.nan) for earlier in self.rows) for name in row}
        for criterion in self.criteria:
            if _median(criterion.value(earlier) for earlier in self.rows) < 1.0:
                self.since.setdefault(criterion.part, int(self.rows[0]["step"]))
            else:
                self.since.pop(criterion.part, None)
        met = [criterion for criterion in self.criteria if criterion.part in self.since]
        text = ". And ".join(criterion.words(typical, step - self.since[criterion.part]) for criterion in met)
        parts = tuple(criterion.part for criterion in met)
        self.verdict = CollapseVerdict("collapsed", parts, min(self.since.values()), text) if met else None
        return self.verdict


def verdict(cfg: RunConfig, metrics: pd.DataFrame) -> CollapseVerdict | None:
    """The verdict on a run as of the last row of its metrics; None when nothing is wrong, or nothing can be told."""
    return Watch(cfg, metrics.to_dict("records")).verdict


def _median(values: Iterable[float]) -> float:
    """Median of the values that are not nan; nan when there is none."""
    finite = [value for value in values if not math.isnan(value)]
    return median(finite) if finite else math.nan
