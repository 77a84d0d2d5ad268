"""What fine-tuning gave, read from its folder: scores of every split at its best and last epoch, intervals, tables."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ..config import resolve
from ..errors import InputError
from ..evaluation import metrics
from ..storage.atomic import read_json
from .outputs import Outputs, read_outputs
from .recipe import Recipe

SETUP = "setup.yaml"


@dataclass
class FinetuneResult:
    """Scores of one encoder under one recipe on one data set.

    The headline of a split is what its recipe reports: the score of the averaged weights where there are some, else
    the best epoch's where it was chosen on clips for validation, else the last epoch's. A best epoch that was chosen on
    the test clips themselves is optimistic; it is in `folds` and nowhere else.
    """

    dir: Path
    setup: dict[str, Any]
    """contents of setup.yaml: recipe, encoder, data"""
    points: list[dict[str, Any]]
    """result.json of each split (and seed) that is finished, with its name and folder"""
    status: str = "finished"
    """finished, interrupted or terminated"""
    findings: list[dict[str, str]] = field(default_factory=list)
    """what asit_lab.evaluation.leakage has to say of the data: kind, severity, message"""
    notes: list[str] = field(default_factory=list)
    """what its user should know of the data set"""

    @property
    def name(self) -> str:
        """Encoder."""
        return self.setup["encoder"]["name"]

    @property
    def protocol(self) -> str:
        """With the recipe, as two of them are not to be compared."""
        return f"finetune {self.recipe.name}"

    @property
    def recipe(self) -> Recipe:
        """The recipe with what was overridden."""
        return Recipe.model_validate(self.setup["recipe"])

    @property
    def multi(self) -> bool:
        """Whether a clip may have several classes."""
        return self.recipe.task == "multi"

    @property
    def metric(self) -> str:
        """Name of the score in `scores`: accuracy or mAP, 0 to 1."""
        return metrics.MAIN[self.multi]

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the outputs."""
        return self.setup["data"]["classes"]

    # --- per split --------------------------------------------------------------------------------------------------

    def outputs(self, point: dict[str, Any], which: str = "") -> Outputs:
        """Answers of a split's classifier to its test clips; which: best, last, averaged or "" for the headline's."""
        return read_outputs(Path(point["folder"]) / f"test-{which or _headline(point)}.npz")

    @cached_property
    def folds(self) -> pd.DataFrame:
        """One row a split (and seed): split, seed, train_clips, clips, headline (best, last or averaged), chosen_on
        (valid, or "test, optimistic"), best_epoch, and best_, last_, averaged_ of every score."""
        rows = []
        for point in self.points:
            optimistic = point["chosen_on"] == "test"
            row = {"split": point["name"], "seed": point["seed"], "train_clips": point["train_clips"]}
            row |= {"clips": len(self.outputs(point).rows), "headline": _headline(point)}
            row |= {"chosen_on": "test, optimistic" if optimistic else "valid", "best_epoch": point["best"]["epoch"]}
            for which in ("best", "last", "averaged"):
                if point[which]:
                    found = self.outputs(point, which).scores(self.multi)
                    row |= {f"{which}_{name}": score for name, score in found.items()}
            rows.append(row)
        return pd.DataFrame(rows)

    @property
    def scores(self) -> dict[str, float]:
        """Headline score of each split (and seed)."""
        return {row["split"]: row[f"{row['headline']}_{self.metric}"] for row in self.folds.to_dict("records")}

    @property
    def mean(self) -> float:
        """Mean headline score; NaN where no split is finished."""
        return float(np.mean(list(self.scores.values()))) if self.points else float("nan")

    @property
    def spread(self) -> float:
        """Sample standard deviation of the headline score; NaN for a single one."""
        return float(np.std(list(self.scores.values()), ddof=1)) if len(self.points) > 1 else float("nan")

    # --- over all splits --------------------------------------------------------------------------------------------

    @cached_property
    def pooled(self) -> Outputs:
        """The headline's answers of all splits (and seeds), one after the other."""
        parts = [vars(self.outputs(point)) for point in self.points]
        return Outputs(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the headline score of all tested clips together, by bootstrap over clips.

        A clip that several seeds test counts in a resample with all its answers, or with none.
        """
        if not self.points:
            return float("nan"), float("nan")
        found = self.pooled
        return metrics.interval(found.targets, found.outputs, self.multi, groups=found.rows)[self.metric]

    @property
    def chance(self) -> float:
        """Score of the best constant answer: share of the commonest class, or (mAP) mean share of clips of a class."""
        if not self.points:
            return float("nan")
        shares = self.pooled.targets.mean(0)
        return float(shares[shares > 0].mean() if self.multi else shares.max())

    @property
    def per_class(self) -> pd.DataFrame:
        """See `metrics.per_class`; clips of all splits (and seeds) together."""
        return metrics.per_class(self.pooled.targets, self.pooled.outputs, self.classes, self.multi)

    @property
    def confusion(self) -> pd.DataFrame:
        """See `metrics.confusion`; clips of all splits (and seeds) together."""
        if self.multi:
            raise InputError(f"{self.dir}: clips have several classes each, so there is no confusion matrix")
        return metrics.confusion(self.pooled.targets, self.pooled.outputs, self.classes)

    @property
    def predictions(self) -> pd.DataFrame:
        """One row a tested clip of a split: split, path, path_row, label, predicted. Of several labels those with a
        probability above 0.5."""
        parts = []
        for point in self.points:
            found = self.outputs(point)
            answers = found.outputs > 0 if self.multi else _one_hot(found.outputs)
            part = {"split": point["name"], "path": found.paths, "path_row": found.rows}
            part |= {"label": self._names(found.targets > 0), "predicted": self._names(answers)}
            parts.append(pd.DataFrame(part))
        columns = ["split", "path", "path_row", "label", "predicted"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    def _names(self, marked: np.ndarray) -> list[str]:
        return [";".join(self.classes[k] for k in np.flatnonzero(row)) for row in marked]

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(path, reason) of files that could not be read: left out of tests, replaced by others in training."""
        return sorted({tuple(one) for point in self.points for one in point["skipped"]})

    @property
    def table(self) -> pd.DataFrame:
        """One row, in the columns of `ProbeResult.table`: encoder, protocol, layer, pool, mean, spread, low, high,
        folds, clips, chance."""
        low, high = self.interval
        row = {
            "encoder": self.name,
            "protocol": self.protocol,
            "layer": "all" if self.recipe.head == "layers" else "",
            "pool": "mean" if self.recipe.head == "layers" else self.recipe.head,
            "mean": self.mean,
            "spread": self.spread,
            "low": low,
            "high": high,
            "folds": len(self.points),
            "clips": len(np.unique(self.pooled.rows)) if self.points else 0,
            "chance": self.chance,
        }
        return pd.DataFrame([row])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for result.json; what is not a number becomes None."""
        row = {name: _plain(value) for name, value in self.table.iloc[0].to_dict().items()}
        folds = [{name: _plain(value) for name, value in one.items()} for one in self.folds.to_dict("records")]
        per_class = self.per_class.to_dict("records") if self.points else []
        return {
            **row,
            "metric": self.metric,
            "status": self.status,
            "scores": self.scores,
            "splits": folds,
            "recipe": self.setup["recipe"],
            "encoder_weights": self.setup["encoder"]["weights"],
            "data": self.setup["data"]["source"],
            "normalisation": {point["name"]: point["normalisation"] for point in self.points},
            "per_class": [{name: _plain(value) for name, value in one.items()} for one in per_class],
            "skipped": [list(one) for one in self.skipped],
            "findings": self.findings,
            "notes": self.notes,
            "folders": {Path(point["folder"]).name: point["name"] for point in self.points},
        }


def load_result(out: str | Path) -> FinetuneResult:
    """What the folder of a fine-tuning holds, finished splits alone. Raises InputError when it is none."""
    folder = resolve(out)
    if not (folder / SETUP).is_file():
        raise InputError(f"{folder}: not a folder of fine-tuning (it has no {SETUP})")
    known = read_json(folder / "result.json")
    about = {name: known[name] for name in ("status", "findings", "notes") if name in known}
    return collect(folder, known.get("folders", {}), **about)


def collect(folder: Path, names: dict[str, str], **about) -> FinetuneResult:
    """The result of the splits that are finished. names: folder of a split -> what it is called; about: the rest."""
    setup = yaml.safe_load((folder / SETUP).read_text(encoding="utf-8"))
    points = []
    for inner, name in names.items():
        if found := read_json(folder / inner / "result.json"):
            points.append({**found, "name": name, "folder": str(folder / inner)})
    return FinetuneResult(folder, setup, points, **about)


def _headline(point: dict[str, Any]) -> str:
    if point["averaged"]:
        return "averaged"
    return "best" if point["chosen_on"] == "valid" else "last"


def _one_hot(outputs: np.ndarray) -> np.ndarray:
    return np.arange(outputs.shape[1]) == outputs.argmax(1)[:, None]


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
