"""Reads results of fine-tuning from its folder: scores of each split at its best and last epoch, intervals, tables."""

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
from ..evaluation.calibration import calibration_error, fit_temperature, reliability
from ..evaluation.classifiers import probabilities
from ..evaluation.leakage import Finding, notes_on_score
from ..storage.atomic import read_json, write_text
from ..storage.jsonable import jsonable
from .outputs import Outputs, read_outputs
from .recipe import Recipe

SETUP = "setup.yaml"


@dataclass(repr=False)
class FinetuneResult:
    """Scores of one encoder under one recipe on one data set.

    The headline of a split is what its recipe reports: the score of the averaged weights where there are some, else
    the best epoch's where it was chosen on clips for validation, else the last epoch's. A best epoch that was chosen on
    the test clips themselves is optimistic; it is in `folds` and nowhere else.
    """

    dir: Path
    setup: dict[str, Any]
    """contents of setup.yaml: recipe, encoder, data"""
    split_results: list[dict[str, Any]]
    """result.json of each split (and seed) that is finished, with its name and folder"""
    status: str = "finished"
    """finished, interrupted or terminated"""
    findings: list[dict[str, Any]] = field(default_factory=list)
    """what the leakage check found: kind, severity, message, tested (rows of the tested clips concerned)"""
    notes: list[str] = field(default_factory=list)
    """what its user should know about the data set"""
    unit: str = "clip"
    """what the interval's resamples draw: clip, recording, speaker, video or group"""

    def __repr__(self) -> str:
        return self.table.to_string(index=False) if self.split_results else f"{self.dir}: no split is finished"

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

    def outputs(self, split_result: dict[str, Any], weights: str = "") -> Outputs:
        """Answers of a split's classifier to its test clips; weights: best, last, averaged or "" for the headline's."""
        return read_outputs(Path(split_result["folder"]) / f"test-{weights or _headline(split_result)}.npz")

    @cached_property
    def folds(self) -> pd.DataFrame:
        """One row per split (and seed): split, seed, train_clips, clips, headline (best, last or averaged), chosen_on
        (valid, or "test, optimistic"), best_epoch, and best_, last_, averaged_ of every score."""
        rows = []
        for split_result in self.split_results:
            optimistic = split_result["chosen_on"] == "test"
            row = {
                "split": split_result["name"],
                "seed": split_result["seed"],
                "train_clips": split_result["train_clips"],
            }
            row |= {"clips": len(self.outputs(split_result).rows), "headline": _headline(split_result)}
            row |= {
                "chosen_on": "test, optimistic" if optimistic else "valid",
                "best_epoch": split_result["best"]["epoch"],
            }
            for weights in ("best", "last", "averaged"):
                if split_result[weights]:
                    scores = self.outputs(split_result, weights).scores(self.multi)
                    row |= {f"{weights}_{name}": score for name, score in scores.items()}
            rows.append(row)
        return pd.DataFrame(rows)

    @property
    def scores(self) -> dict[str, float]:
        """Headline score of each split (and seed)."""
        return {row["split"]: row[f"{row['headline']}_{self.metric}"] for row in self.folds.to_dict("records")}

    @property
    def mean(self) -> float:
        """Mean headline score; NaN where no split is finished."""
        return float(np.mean(list(self.scores.values()))) if self.split_results else float("nan")

    @property
    def spread(self) -> float:
        """Sample standard deviation of the headline score; NaN for a single one."""
        return float(np.std(list(self.scores.values()), ddof=1)) if len(self.split_results) > 1 else float("nan")

    # --- over all splits --------------------------------------------------------------------------------------------

    @cached_property
    def pooled(self) -> Outputs:
        """The headline's answers of all splits (and seeds), one after the other."""
        parts = [vars(self.outputs(split_result)) for split_result in self.split_results]
        return Outputs(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the headline score of all tested clips together, by bootstrap over `unit`s.

        A unit counts in a resample with all answers to its clips, those of several seeds too, or with none. NaN where
        there is only one.
        """
        if not self.split_results or len(np.unique(self.pooled.groups)) < 2:
            return float("nan"), float("nan")
        pooled = self.pooled
        return metrics.interval(pooled.targets, pooled.outputs, self.multi, groups=pooled.groups)[self.metric]

    @property
    def score_notes(self) -> list[str]:
        """What to know beside the score: clips that leak, with the score without them, and clips in pretraining."""
        if not self.split_results:
            return []
        allowed = ["leaks allowed (--allow-leaks)"] if self.setup["data"].get("leaks_allowed") else []
        leaks = [Finding(f["kind"], f["severity"], f["message"], tuple(f.get("tested", ()))) for f in self.findings]
        few = metrics.interval_notes(self.pooled.groups, self.unit)
        return [*few, *allowed, *notes_on_score(leaks, self.pooled.rows, self.metric, self._score_of)]

    def _score_of(self, counted: np.ndarray) -> float:
        """Mean headline score over splits (and seeds) of some answers: bool, in the order of `pooled`."""
        sizes = [len(self.outputs(split_result).rows) for split_result in self.split_results]
        parts = np.split(np.arange(len(counted)), np.cumsum(sizes)[:-1])
        pooled, scores = self.pooled, []
        for rows in (part[counted[part]] for part in parts):
            if len(rows):
                scores.append(metrics.scores(pooled.targets[rows], pooled.outputs[rows], self.multi)[self.metric])
        return float(np.mean(scores))

    @property
    def chance(self) -> float:
        """Score of the best constant answer: share of the commonest class, or (mAP) mean share of clips of a class."""
        if not self.split_results:
            return float("nan")
        shares = self.pooled.targets.mean(0)
        return float(shares[shares > 0].mean() if self.multi else shares.max())

    @property
    def per_class(self) -> pd.DataFrame:
        """See `metrics.per_class`; clips of all splits (and seeds) together."""
        return metrics.per_class(self.pooled.targets, self.pooled.outputs, self.classes, self.multi)

    @cached_property
    def calibration(self) -> pd.DataFrame:
        """How far the probabilities can be trusted: one row per split with its temperature, on (the clips that it was
        fitted on: valid or test), ece (expected calibration error, 0 to 1, of its test clips) and ece_calibrated (with
        a temperature that these clips had no part in: of valid clips, or of the other splits' test clips; NaN where
        there are neither)."""
        rows = []
        for split_result in self.split_results:
            if "calibration" not in split_result:  # of version 0.1
                continue
            outputs, fitted = self.outputs(split_result), split_result["calibration"]
            row = {"split": split_result["name"], "temperature": fitted["temperature"], "on": fitted["on"]}
            row["ece"] = calibration_error(outputs.targets, probabilities(outputs.outputs, self.multi), self.multi)
            row["ece_calibrated"] = np.nan
            if np.isfinite(temperature := self._independent_temperature(split_result)):
                calibrated = probabilities(outputs.outputs / temperature, self.multi)
                row["ece_calibrated"] = calibration_error(outputs.targets, calibrated, self.multi)
            rows.append(row)
        return pd.DataFrame(rows, columns=["split", "temperature", "on", "ece", "ece_calibrated"])

    def _independent_temperature(self, split_result: dict[str, Any]) -> float:
        """A temperature that a split's test clips had no part in; NaN where there is none."""
        if split_result["calibration"]["on"] == "valid":
            return split_result["calibration"]["temperature"]
        own_groups = set(self.outputs(split_result).groups)
        pooled = self.pooled
        apart = np.array([group not in own_groups for group in pooled.groups])
        return fit_temperature(pooled.targets[apart], pooled.outputs[apart], self.multi) if apart.any() else np.nan

    @property
    def reliability(self) -> pd.DataFrame:
        """See `evaluation.calibration.reliability`: of all test clips together, before calibration."""
        return reliability(self.pooled.targets, probabilities(self.pooled.outputs, self.multi), self.multi)

    @property
    def confusion(self) -> pd.DataFrame:
        """See `metrics.confusion`; clips of all splits (and seeds) together."""
        if self.multi:
            raise InputError(f"{self.dir}: clips have several classes each, so there is no confusion matrix")
        return metrics.confusion(self.pooled.targets, self.pooled.outputs, self.classes)

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per tested clip of a split: split, path, path_row, group, label, predicted. Of several labels those
        with a probability above 0.5."""
        parts = []
        for split_result in self.split_results:
            outputs = self.outputs(split_result)
            answers = outputs.outputs > 0 if self.multi else _one_hot(outputs.outputs)
            part = {
                "split": split_result["name"],
                "path": outputs.paths,
                "path_row": outputs.rows,
                "group": outputs.groups,
            }
            part |= {"label": self._names(outputs.targets > 0), "predicted": self._names(answers)}
            parts.append(pd.DataFrame(part))
        columns = ["split", "path", "path_row", "group", "label", "predicted"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    def _names(self, marked: np.ndarray) -> list[str]:
        return [";".join(self.classes[k] for k in np.flatnonzero(row)) for row in marked]

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(path, reason) of files that could not be read: left out of tests, replaced by others in training."""
        return sorted({tuple(entry) for split_result in self.split_results for entry in split_result["skipped"]})

    @property
    def table(self) -> pd.DataFrame:
        """One row, in the columns of `ProbeResult.table`."""
        low, high = self.interval
        row = {
            "encoder": self.name,
            "protocol": self.protocol,
            "layer": "all" if self.recipe.head in ("layers", "mean+std") else "",
            "pool": "mean" if self.recipe.head == "layers" else self.recipe.head,
            "mean": self.mean,
            "spread": self.spread,
            "low": low,
            "high": high,
            "folds": len(self.split_results),
            "clips": len(np.unique(self.pooled.rows)) if self.split_results else 0,
            "chance": self.chance,
            "unit": self.unit,
            "note": "; ".join(self.score_notes),
        }
        return pd.DataFrame([row])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for result.json; what is not a number becomes None."""
        content = {
            **self.table.iloc[0].to_dict(),
            "metric": self.metric,
            "status": self.status,
            "scores": self.scores,
            "splits": self.folds.to_dict("records"),
            "recipe": self.setup["recipe"],
            "encoder_weights": self.setup["encoder"]["weights"],
            "data": self.setup["data"]["source"],
            "normalisation": {split["name"]: split["normalisation"] for split in self.split_results},
            "per_class": self.per_class.to_dict("records") if self.split_results else [],
            "calibration": self.calibration.to_dict("records"),
            "skipped": self.skipped,
            "findings": self.findings,
            "notes": self.notes,
            "folders": {Path(split["folder"]).name: split["name"] for split in self.split_results},
        }
        return jsonable(content)


def write_tables(result: FinetuneResult) -> None:
    """Write predictions.csv, per_class.csv, calibration.csv, reliability.csv and, for one class a clip, confusion.csv
    into the folder."""
    tables = {name: getattr(result, name) for name in ("predictions", "per_class", "calibration", "reliability")}
    for name, table in tables.items():
        write_text(result.dir / f"{name}.csv", table.to_csv(index=False))
    if not result.multi:
        write_text(result.dir / "confusion.csv", result.confusion.to_csv())


def load_result(out: str | Path) -> FinetuneResult:
    """The result in a folder of fine-tuning, finished splits only. Raises InputError when it is none."""
    folder = resolve(out)
    if not (folder / SETUP).is_file():
        raise InputError(f"{folder}: not a folder of fine-tuning (it has no {SETUP})")
    stored = read_json(folder / "result.json")
    fields = {name: stored[name] for name in ("status", "findings", "notes", "unit") if name in stored}
    return collect_splits(folder, stored.get("folders", {}), **fields)


def collect_splits(folder: Path, names: dict[str, str], **fields) -> FinetuneResult:
    """The result of the splits that are finished. names: folder of a split -> what it is called; about: the rest."""
    setup = yaml.safe_load((folder / SETUP).read_text(encoding="utf-8"))
    split_results = []
    for inner, name in names.items():
        if result := read_json(folder / inner / "result.json"):
            split_results.append({**result, "name": name, "folder": str(folder / inner)})
    return FinetuneResult(folder, setup, split_results, **fields)


def _headline(split_result: dict[str, Any]) -> str:
    if split_result["averaged"]:
        return "averaged"
    return "best" if split_result["chosen_on"] == "valid" else "last"


def _one_hot(outputs: np.ndarray) -> np.ndarray:
    return np.arange(outputs.shape[1]) == outputs.argmax(1)[:, None]
