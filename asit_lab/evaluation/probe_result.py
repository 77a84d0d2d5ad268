"""The result of a probe: predictions of every test clip; scores, intervals, tables and confusions from them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..data.labels import indicators
from ..storage.jsonable import jsonable
from . import metrics
from .leakage import Finding, notes_on_score


@dataclass(frozen=True, repr=False)
class ProbeResult:
    """Scores of one encoder's embeddings under one protocol."""

    name: str
    """encoder"""
    protocol: str
    """linear, knn or weighted"""
    scores: dict[str, float]
    """accuracy (0 to 1), or mAP of multi-label data, on the test clips of each fold, split, or seed and fold"""
    chosen: dict[str, dict[str, Any]]
    """the choices of each, see `choice.Fit`: layer, pool, C or k, the inner score they were chosen by"""
    chance: float
    """accuracy of the best constant answer, the share of the commonest class among the tested clips; for mAP that of
    outputs without information, the mean share of the tested classes"""
    predictions: pd.DataFrame
    """one row per tested clip: split, path, path_row (in the table that was probed), group, label, predicted (the class
    with the highest output)"""
    outputs: np.ndarray
    """float32 [tested clips, classes], probabilities, in the rows of `predictions`"""
    classes: list[str]
    multi: bool
    """clips may have several labels"""
    dim: int
    """length of the longest vector that was tried"""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(path, reason) of clips left out"""
    findings: Sequence[Finding] = ()
    """what the leakage check found; rows are those of the table that was probed"""
    unit: str = "clip"
    """the kind of `group`, and the unit of the interval's resamples: clip, recording, speaker, video or group"""
    leaks_allowed: bool = False
    """whether the user allowed splits that share recordings"""
    labels_per_class: int | None = None
    """training clips of each class, where they were limited"""

    def __repr__(self) -> str:
        return self.table.to_string(index=False)

    @property
    def metric(self) -> str:
        """What the scores are: accuracy or mAP."""
        return "mAP" if self.multi else "accuracy"

    @property
    def mean(self) -> float:
        """Mean score over folds (and seeds)."""
        return float(np.mean(list(self.scores.values())))

    @property
    def spread(self) -> float:
        """Sample standard deviation of the score over folds (and seeds); NaN for a single one."""
        return float(np.std(list(self.scores.values()), ddof=1)) if len(self.scores) > 1 else float("nan")

    @property
    def targets(self) -> np.ndarray:
        """0/1 [tested clips, classes], in the rows of `predictions`."""
        return indicators(self.predictions["label"], self.classes, self.multi)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the score of all tested clips together, by bootstrap over independent units (`unit`).

        A unit is in a resample with all predictions of its clips, over all seeds, or with none. NaN where there is only
        one.
        """
        if len(set(self._units)) < 2:
            return float("nan"), float("nan")
        return metrics.interval(self.targets, self.outputs, self.multi, groups=self._units)[self.metric]

    @property
    def _units(self) -> np.ndarray:
        """The unit of each prediction."""
        return self.predictions["group" if "group" in self.predictions else "path_row"].to_numpy()

    @property
    def notes(self) -> list[str]:
        """Notes on the score: few labels, few units, clips that leak, with the score without them, and clips in
        pretraining."""
        labels = self.labels_per_class
        few = [f"{labels} label{'s' if labels > 1 else ''} per class"] if labels else []
        allowed = ["leaks allowed (--allow-leaks)"] if self.leaks_allowed else []
        rows = self.predictions["path_row"].to_numpy()
        few += metrics.interval_notes(self._units, self.unit)
        return [*few, *allowed, *notes_on_score(self.findings, rows, self.metric, self._score_of)]

    def _score_of(self, counted: np.ndarray) -> float:
        """Mean score over folds (and seeds) of some predictions: bool [tested clips]."""
        scores = []
        for split in self.scores:
            rows = counted & (self.predictions["split"] == split).to_numpy()
            if rows.any():
                scores.append(metrics.scores(self.targets[rows], self.outputs[rows], self.multi)[self.metric])
        return float(np.mean(scores))

    @property
    def per_class(self) -> pd.DataFrame:
        """One row per class, over all tested clips; columns as of `metrics.per_class`."""
        return metrics.per_class(self.targets, self.outputs, self.classes, self.multi)

    @property
    def confusion(self) -> pd.DataFrame:
        """Tested clips by class (rows) and answer (columns); single-label only."""
        return metrics.confusion(self.targets, self.outputs, self.classes)

    @property
    def layer(self) -> str:
        """The layer each split read, commonest first: "last", or "last ×3, 4 ×2"."""
        return _summary(choice["layer"] for choice in self.chosen.values())

    @property
    def pool(self) -> str:
        """How each split pooled, commonest first; empty where that does not apply."""
        return _summary(choice["pool"] for choice in self.chosen.values())

    @property
    def table(self) -> pd.DataFrame:
        """One row: encoder, protocol, layer, pool, mean, spread, low, high, folds, clips, chance, unit, note."""
        row = {
            "encoder": self.name,
            "protocol": self.protocol,
            "layer": self.layer,
            "pool": self.pool,
            "mean": self.mean,
            "spread": self.spread,
            "low": self.interval[0],
            "high": self.interval[1],
            "folds": len(self.scores),
            "clips": self.predictions["path_row"].nunique(),
            "chance": self.chance,
            "unit": self.unit,
            "note": "; ".join(self.notes),
        }
        return pd.DataFrame([row])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for result.json; NaN becomes None. Outputs and predictions are left out."""
        row = self.table.iloc[0].to_dict()
        row |= {
            "metric": self.metric,
            "dim": self.dim,
            "scores": self.scores,
            "chosen": self.chosen,
            "per_class": self.per_class.to_dict("records"),
            "findings": [finding.to_dict() for finding in self.findings],
            "skipped": self.skipped,
        }
        return jsonable(row)


def _summary(values) -> str:
    counts = Counter(map(str, values)).most_common()
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{value} ×{count}" for value, count in counts)
