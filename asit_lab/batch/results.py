"""The results of a study as tables: a row a point, a row a setting, differences between settings on the same clips."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..config import resolve
from ..errors import InputError
from ..evaluation import bootstrap as resampling
from ..storage.atomic import read_json, whole
from .execution.state import RUN, read_status, result_of, state_of
from .experiments import FINETUNED, PROBED
from .point import Point
from .study import Study, read_study
from .study_status import requested_points

RESAMPLES = 1000
# Metrics that are, where a clip has one label, the share of right answers in a file of the run.
ANSWERED = {"probe.teacher.mean": PROBED, "finetune.mean": FINETUNED}


@dataclass(frozen=True)
class Collected:
    """What a study found."""

    study: Study
    scale: str
    points: pd.DataFrame
    """a row a point: setting, seed, its settings, state, every number of its result, seconds, hardware, versions"""
    summary: pd.DataFrame
    """a row a setting: setting, its settings, seeds, mean, spread (standard deviation over seeds), published, and
    against the reference: difference, low, high (95 %, paired over clips; for accuracies), inside_spread;
    in the plot's unit"""
    reference: str
    """setting the others are compared with"""

    @property
    def words(self) -> str:
        """What to know before the numbers are compared with the published ones."""
        published = self.study.published
        if published is None:
            return "There are no published values to compare with."
        return f"Published: {published.metric} ({published.source}). Different there: {published.differs}"

    def figure(self):
        """The study's figure, ours beside the published values."""
        from ..figures.ablation import ablation

        plot, published = self.study.plot, self.study.published
        return ablation(
            self.summary,
            self.points.assign(value=plot.factor * self.points[plot.metric].astype(float)),
            label=plot.label,
            title=self.study.title,
            x=plot.x,
            x_label=plot.x_label,
            lines=plot.lines,
            published_label=published.metric if published else None,
            best=published.best if published else None,
        )

    def save(self, folder: str | Path | None = None) -> list[Path]:
        """Write points and summary as CSV and Parquet, the figure as PDF, PNG and SVG. Returns the paths.

        folder: default reports/STUDY/SCALE.
        """
        from .. import figures

        target = resolve(folder or Path("reports") / self.study.name / self.scale)
        figure, written = self.figure(), []
        tables = {"points": self.points, "summary": self.summary}
        for name, table in tables.items():
            with whole(target / f"{name}.csv") as temporary:
                table.to_csv(temporary, index=False)
            written.append(target / f"{name}.csv")
        written += [figures.save(figure, target / f"{self.study.name}.{kind}") for kind in ("pdf", "png", "svg")]
        for name, table in tables.items():  # last: it needs a package that may be missing
            written.append(_write_parquet(table, target / f"{name}.parquet"))
        return written


def collect(
    study: str | Path | Study, scale: str = "smoke", data: str | None = None, seeds: int | list[int] | None = None
) -> Collected:
    """Gather the results of a study; points that are not finished have their state and no numbers.

    Without data and seeds the points are those of the last run.
    Raises InputError when none is finished, and for a plot.metric that no result has.
    """
    study = read_study(study).at(scale)
    found = requested_points(study, scale, data, seeds)
    table = pd.DataFrame([_row(point) for point in found])
    finished = (table["state"] == "finished").to_numpy()
    if not finished.any():
        raise InputError(f"study {study.name}, {scale}: none of its {len(found)} points is finished yet")
    metric = study.plot.metric
    if metric not in table:
        numbers = [name for name in table if pd.api.types.is_numeric_dtype(table[name])]
        raise InputError(f"study {study.name}: plot.metric: no result has {metric!r}; there are {', '.join(numbers)}")
    study = _labelled(study, table)
    reference = _reference(study, found)
    summary = _summarise(study, [point for point, done in zip(found, finished, strict=True) if done], table, reference)
    return Collected(study, scale, table, summary, reference)


def _labelled(study: Study, table: pd.DataFrame) -> Study:
    """The study with the label of what was measured: where clips have several labels a score is mAP, else accuracy."""
    found = set(table.get(f"{study.plot.metric.rpartition('.')[0]}.metric", pd.Series(dtype=object)).dropna())
    label = study.plot.label
    for other, metric in (("accuracy", "mAP"), ("mAP", "accuracy")):
        if found == {metric}:
            label = label.replace(other, metric)
    return study.model_copy(update={"plot": study.plot.model_copy(update={"label": label})})


def flat(result: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Numbers and words of a result under dotted names. An entry of a list is named by its first words:
    {"probe": [{"encoder": "teacher", "mean": 0.7}]} -> {"probe.teacher.mean": 0.7}."""
    found: dict[str, Any] = {}
    for name, value in result.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            for entry in value:
                words = [text for text in entry.values() if isinstance(text, str)] if isinstance(entry, dict) else []
                if words:
                    inner = {
                        key: each
                        for key, each in entry.items()
                        if key == "metric" or not isinstance(each, list | dict | str)
                    }
                    place = f"{prefix}{name}.{words[0]}."
                    taken = any(key.startswith(place) for key in found)
                    found |= flat(inner, f"{prefix}{name}.{' '.join(words)}." if taken else place)
        else:
            found[prefix + name] = value
    return found


# --- Points ---------------------------------------------------------------------------------------------------------


def _row(point: Point) -> dict[str, Any]:
    now, said = state_of(point.folder), read_status(point.folder)
    environment = read_json(point.folder / RUN / "environment.json")
    row = {"setting": point.setting, "seed": point.seed, **_plain(point.settings), "state": now.state}
    row |= {"reason": now.reason, "published": point.published}
    if now.state == "finished":
        row |= {name: value for name, value in flat(result_of(point.folder)).items() if name not in row}
    row |= {"point_seconds": now.seconds, "host": said.get("host"), "threads": said.get("threads")}
    row |= {"device": environment.get("device"), "done_with": said.get("how"), "system": said.get("system")}
    row |= {"asit_lab": point.version, "python": said.get("python"), "torch": environment.get("torch")}
    return row | {"data": point.parameters.get("data"), "point": point.hash, "folder": str(point.folder)}


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as a table can hold them."""
    return {name: str(value) if isinstance(value, dict | list) else value for name, value in settings.items()}


# --- Settings -------------------------------------------------------------------------------------------------------


def _reference(study: Study, found: list[Point]) -> str:
    names = list(dict.fromkeys(point.setting for point in found))
    if study.plot.reference is None:
        return names[-1]
    if study.plot.reference not in names:
        raise InputError(
            f"study {study.name}: plot.reference: no setting is called {study.plot.reference!r}; there are: "
            + "; ".join(names)
        )
    return study.plot.reference


def _summarise(study: Study, finished: list[Point], table: pd.DataFrame, reference: str) -> pd.DataFrame:
    factor, rows = study.plot.factor, []
    answered = ANSWERED.get(study.plot.metric)
    answers = {point.hash: _answers(point, answered) for point in finished} if answered else {}
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
        if points and setting != reference and answered:
            rows[-1] |= _difference(points, [p for p in finished if p.setting == reference], answers, factor)
    summary = pd.DataFrame(rows)
    for name in ("difference", "low", "high"):
        summary[name] = summary.get(name, np.nan)
    against = summary.loc[summary["setting"] == reference].iloc[0]
    summary["difference"] = summary["difference"].fillna(summary["mean"] - against["mean"])
    summary.loc[summary["setting"] == reference, "difference"] = np.nan
    # Two settings whose means lie no further apart than their seeds do are not told apart.
    both = np.sqrt(summary["spread"] ** 2 + against["spread"] ** 2)
    inside = (summary["difference"].abs() <= both).astype(object)
    summary["inside_spread"] = inside.where(both.notna() & summary["difference"].notna(), None)
    return summary


def _answers(point: Point, name: str) -> pd.Series | None:
    """Whether each tested clip was answered rightly: index (split, path, group). None where there is no such file."""
    path = point.folder / RUN / name
    if not path.is_file():
        return None
    table = pd.read_csv(path, dtype=str, keep_default_na=False)  # a class called "None" or "NA" stays one
    right = (table["label"] == table["predicted"]).astype(float)
    return right.groupby([table["split"], table["path"], table["group"]]).mean()


def _difference(ours: list[Point], others: list[Point], answers: dict, factor: float) -> dict[str, float]:
    """Mean difference in accuracy and its 95 % interval, over clips that both were asked (bootstrap over recordings).

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
    each = 1 / gains.groupby(level="split").transform("size").to_numpy()
    drawn = [
        resampling.share(weights @ (each * gains.to_numpy()), weights @ each)
        for weights in resampling.weights(groups, RESAMPLES)
    ]
    low, high = np.quantile(np.concatenate(drawn), (0.025, 0.975))
    difference = np.average(gains, weights=each)
    return {"difference": factor * float(difference), "low": factor * float(low), "high": factor * float(high)}


# --- Files ----------------------------------------------------------------------------------------------------------


def _write_parquet(table: pd.DataFrame, path: Path) -> Path:
    """A column holds values of one type there: where ours has several (a setting that is a number or a word), texts."""
    table = table.copy()
    for name in table:
        if len({type(value) for value in table[name].dropna()}) > 1:
            table[name] = table[name].map(lambda value: None if pd.isna(value) else str(value))
    try:
        with whole(path) as temporary:
            table.to_parquet(temporary, index=False)
    except ImportError:
        raise InputError(
            f"{path}: writing Parquet needs pyarrow: pip install 'asit-lab[lab]'; CSV and figure are there"
        ) from None
    return path
