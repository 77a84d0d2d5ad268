"""Collects a study's results as tables: a row a point, a row a setting, differences of settings on the same clips."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..config import resolve
from ..errors import InputError
from ..evaluation import bootstrap
from ..storage.atomic import UNPRINTABLE, atomic_write, read_json
from .execution.state import RUN, read_status, result_of, state_of
from .experiments import FINETUNED, PROBED
from .figure_of_study import draw, plotted, save_figure
from .point import Point
from .study import Study, read_study
from .study_status import requested_points, stale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORDS = ("metric", "unit")  # entries that are kept though they are no numbers
NAMED_BY = ("encoder", "method", "name")  # keys that name the entries of a list in a result
# Metrics that are, where a clip has one label, the share of right answers in a file of the run.
ANSWERED = {"probe.teacher.mean": PROBED, "finetune.mean": FINETUNED}


@dataclass(frozen=True)
class StudyResults:
    """The results of a study."""

    study: Study
    scale: str
    points: pd.DataFrame
    """a row a point: setting, seed, its settings, state, every number of its result, seconds, hardware, versions"""
    summary: pd.DataFrame
    """a row a setting: setting, its settings, seeds, mean, spread (standard deviation over seeds), published, and
    against the reference: difference, low, high (95 %, paired; for accuracies), inside_spread;
    in the plot's unit"""
    reference: str
    """setting the others are compared with"""
    unit: str = "clip"
    """what the intervals of differences resample, as clips of one are not independent: clip, recording, speaker, ..."""

    @property
    def words(self) -> str:
        """What to know before the numbers are compared with the published ones; and which of them are stale."""
        published = self.study.published
        if published is None:
            words = "There are no published values to compare with."
        else:
            words = f"Published: {published.metric} ({published.source}). Different there: {published.differs}"
        return "\n".join([words, *self.notes])

    @property
    def notes(self) -> list[str]:
        """What was changed since finished points were computed: a sentence for each change."""
        stale = self.points["stale"][self.points["state"] == "finished"].dropna().value_counts()
        return [
            f"Stale: {count} of {len(self.points)} points were computed before {changes}; `batch run` does them anew."
            for changes, count in stale.items()
        ]

    def figure(self) -> "Figure":
        """The study's figure, our values beside the published ones."""
        return draw(self.study, plotted(self), title=self.study.title)

    def save(self, folder: str | Path | None = None) -> list[Path]:
        """Write points and summary as CSV and Parquet, the figure as PDF, PNG and SVG. Returns the paths.

        folder: default reports/STUDY/SCALE.
        """
        target = resolve(folder or Path("reports") / self.study.name / self.scale)
        written = []
        tables = {"points": self.points, "summary": self.summary}
        for name, table in tables.items():
            with atomic_write(target / f"{name}.csv") as temporary:
                table.to_csv(temporary, index=False, errors=UNPRINTABLE)
            written.append(target / f"{name}.csv")
        written += save_figure(self.figure(), target / self.study.name)
        for name, table in tables.items():  # last: it needs a package that may be missing
            written.append(_write_parquet(table, target / f"{name}.parquet"))
        return written


def collect(
    study: str | Path | Study, scale: str = "smoke", data: str | None = None, seeds: int | list[int] | None = None
) -> StudyResults:
    """Gather the results of a study; points that are not finished have their state and no numbers.

    Without data and seeds the points are those of the last run.
    Raises InputError when none is finished, and for a plot.metric that no result has.
    """
    study = read_study(study).with_measure_of(scale)
    study_points = requested_points(study, scale, data, seeds)
    stamps: dict[str, str] = {}
    table = pd.DataFrame([_row(point, stamps) for point in study_points])
    finished = (table["state"] == "finished").to_numpy()
    if not finished.any():
        raise InputError(f"study {study.name}, {scale}: none of its {len(study_points)} points is finished yet")
    metric = study.plot.metric
    if metric not in table or not pd.api.types.is_numeric_dtype(table[metric]):
        numbers = [str(name) for name in table if pd.api.types.is_numeric_dtype(table[name])]
        raise InputError(
            f"study {study.name}: plot.metric: no result has {metric!r} as a number; there are {', '.join(numbers)}"
        )
    study = _labelled(study, table)
    reference = _reference(study, study_points)
    done = [point for point, is_finished in zip(study_points, finished, strict=True) if is_finished]
    file = ANSWERED.get(study.plot.metric)
    answers = {point.hash: _answers(point, file) for point in done} if file else {}
    summary = _summarise(study, done, table, reference, answers)
    return StudyResults(study, scale, table, summary, reference, _unit(study, table, answers))


def _labelled(study: Study, table: pd.DataFrame) -> Study:
    """The study with the label of its measure: where clips have several labels that is mAP, else accuracy."""
    metrics = set(table.get(f"{study.plot.metric.rpartition('.')[0]}.metric", pd.Series(dtype=object)).dropna())
    label = study.plot.label
    for other, metric in (("accuracy", "mAP"), ("mAP", "accuracy")):
        if metrics == {metric}:
            label = label.replace(other, metric)
    return study.model_copy(update={"plot": study.plot.model_copy(update={"label": label})})


def flat(result: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a result under dotted names. An entry of a list is named by the first key of NAMED_BY that it has,
    a second one of that name by its protocol too: {"probe": [{"encoder": "teacher", "mean": 0.7}]} ->
    {"probe.teacher.mean": 0.7}. Entries without such a key are left out.
    """
    values: dict[str, Any] = {}
    for name, value in result.items():
        if isinstance(value, dict):
            values |= flat(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            values[prefix + name] = value
            continue
        else:
            for entry, numbers in _named_entries(value).items():
                values |= flat(numbers, f"{prefix}{name}.{entry}.")
    return values


def _named_entries(entries: list[Any]) -> dict[str, dict[str, Any]]:
    """Name -> the numbers of an entry, and its metric."""
    named: dict[str, dict[str, Any]] = {}
    for entry in entries:
        key = next((key for key in NAMED_BY if key in entry), None) if isinstance(entry, dict) else None
        if key is None:
            continue
        name = str(entry[key])
        if name in named:
            name = f"{name} {entry.get('protocol', len(named) + 1)}"
        named[name] = {k: v for k, v in entry.items() if k in WORDS or not isinstance(v, list | dict | str)}
    return named


# --- Points ---------------------------------------------------------------------------------------------------------


def _row(point: Point, stamps: dict[str, str]) -> dict[str, Any]:
    now, status = state_of(point.folder), read_status(point.folder)
    environment = read_json(point.folder / RUN / "environment.json")
    row = {"setting": point.setting, "seed": point.seed, **_scalars(point.settings), "state": now.state}
    row |= {"reason": now.reason, "stale": stale(point, stamps) or None, "published": point.published}
    if now.state == "finished":
        row |= {name: value for name, value in flat(result_of(point.folder)).items() if name not in row}
    row |= {"point_seconds": now.seconds, "host": status.get("host"), "threads": status.get("threads")}
    row |= {"device": environment.get("device"), "done_with": status.get("how"), "system": status.get("system")}
    row |= {"asit_lab": point.version, "python": status.get("python"), "torch": environment.get("torch")}
    return row | {"data": point.parameters.get("data"), "point": point.hash, "folder": str(point.folder)}


def _scalars(settings: dict[str, Any]) -> dict[str, Any]:
    """Key -> a value that a table can hold."""
    return {name: str(value) if isinstance(value, dict | list) else value for name, value in settings.items()}


# --- Settings -------------------------------------------------------------------------------------------------------


def _reference(study: Study, study_points: list[Point]) -> str:
    names = list(dict.fromkeys(point.setting for point in study_points))
    if study.plot.reference is None:
        return names[-1]
    if study.plot.reference not in names:
        raise InputError(
            f"study {study.name}: plot.reference: no setting is called {study.plot.reference!r}; there are: "
            + "; ".join(names)
        )
    return study.plot.reference


def _summarise(
    study: Study, finished: list[Point], table: pd.DataFrame, reference: str, answers: dict[str, pd.Series | None]
) -> pd.DataFrame:
    factor, rows = study.plot.factor, []
    for setting in dict.fromkeys(table["setting"]):
        points = [point for point in finished if point.setting == setting]
        values = table.loc[(table["setting"] == setting) & (table["state"] == "finished"), study.plot.metric]
        values = factor * values.astype(float)
        about = table[table["setting"] == setting].iloc[0]
        settings = {name: about[name] for point in points[:1] for name in point.settings}
        row = {
            "setting": setting,
            **settings,
            "seeds": int(values.notna().sum()),
            "mean": values.mean(),
            "spread": values.std(ddof=1),
        }
        rows.append({**row, "published": about["published"]})
        if points and setting != reference and answers:
            rows[-1] |= _difference(points, [p for p in finished if p.setting == reference], answers, factor)
    summary = pd.DataFrame(rows)
    for name in ("difference", "low", "high"):
        summary[name] = summary.get(name, np.nan)
    against = summary.loc[summary["setting"] == reference].iloc[0]
    summary["difference"] = summary["difference"].fillna(summary["mean"] - against["mean"])
    summary.loc[summary["setting"] == reference, "difference"] = np.nan
    # Two settings whose means are no further apart than their seeds do not differ.
    both = np.sqrt(summary["spread"] ** 2 + against["spread"] ** 2)
    inside = (summary["difference"].abs() <= both).astype(object)
    summary["inside_spread"] = inside.where(both.notna() & summary["difference"].notna(), None)
    return summary


def _unit(study: Study, table: pd.DataFrame, answers: dict[str, pd.Series | None]) -> str:
    """What the groups of the tested clips are, by the results; by the answers where the results do not name it."""
    recorded = table.get(f"{study.plot.metric.rpartition('.')[0]}.unit", pd.Series(dtype=object)).dropna().unique()
    if len(recorded) == 1:
        return str(recorded[0])
    tested = [answer.index.to_frame(index=False) for answer in answers.values() if answer is not None]
    grouped = any(clips["group"].nunique() < clips["path"].nunique() for clips in tested)
    return "recording" if grouped else "clip"


def _answers(point: Point, name: str) -> pd.Series | None:
    """1.0 for each tested clip with the right prediction, else 0.0: index (split, path, group). None without a file."""
    path = point.folder / RUN / name
    if not path.is_file():
        return None
    table = pd.read_csv(path, dtype=str, keep_default_na=False)  # a class called "None" or "NA" stays one
    right = (table["label"] == table["predicted"]).astype(float)
    return right.groupby([table["split"], table["path"], table["group"]]).mean()


def _difference(ours: list[Point], others: list[Point], answers: dict, factor: float) -> dict[str, float]:
    """Mean difference in accuracy and its 95 % interval, over the clips that both have (bootstrap over their groups).

    Answers are averaged over seeds first: only what differs from clip to clip makes the interval. Splits count alike,
    however many clips they test, as they do in the mean.
    """
    mine = [answers[point.hash] for point in ours if answers[point.hash] is not None]
    theirs = [answers[point.hash] for point in others if answers[point.hash] is not None]
    if not mine or not theirs:
        return {}
    gains = (pd.concat(mine, axis=1).mean(axis=1) - pd.concat(theirs, axis=1).mean(axis=1)).dropna()
    groups = pd.factorize(gains.index.get_level_values("group"))[0]
    if len(np.unique(groups)) < 2:
        return {}
    of_clip = 1 / gains.groupby(level="split").transform("size").to_numpy()
    drawn = [
        bootstrap.share(weights @ (of_clip * gains.to_numpy()), weights @ of_clip)
        for weights in bootstrap.weights(groups, bootstrap.RESAMPLES)
    ]
    low, high = np.quantile(np.concatenate(drawn), (0.025, 0.975))
    difference = np.average(gains, weights=of_clip)
    return {"difference": factor * float(difference), "low": factor * float(low), "high": factor * float(high)}


# --- Files ----------------------------------------------------------------------------------------------------------


def _write_parquet(table: pd.DataFrame, path: Path) -> Path:
    """A column of Parquet has one type: where ours has several (a setting that is a number or a word), strings."""
    table = table.copy()
    for name in table:
        if len({type(value) for value in table[name].dropna()}) > 1:
            table[name] = table[name].map(lambda value: None if pd.isna(value) else str(value))
    try:
        with atomic_write(path) as temporary:
            table.to_parquet(temporary, index=False)
    except ImportError:
        raise InputError(
            f"{path}: writing Parquet needs pyarrow: pip install pyarrow; CSV and figure are written"
        ) from None
    return path
