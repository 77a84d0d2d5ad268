"""Lists the runs of a folder as a table, and compares runs."""

import difflib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ..config import diff, flatten, keys, resolve
from ..errors import InputError
from ..storage.lock import is_held
from ..storage.plain_yaml import read_yaml_text
from .directory import Run, load_run

STATUSES = ("new", "running", "stopped", "finished", "interrupted", "terminated", "failed")
_FIRST = ["name", "preset", "data", "status", "step", "steps"]
_LAST = ["probe", "health", "updated"]
_MEASURES = {"probe": "mean", "reconstruction": "l1_log"}  # lists in result.json -> the number of an entry
_SAID_ALREADY = ("name", "data", "seed", "steps")  # in result.json: the configuration's, or the listing's


@dataclass(frozen=True)
class _Listed:
    """One run of the listing."""

    row: dict[str, Any]
    values: dict[str, Any]
    """configuration and result under dotted keys"""


def list_runs(
    folder: str | Path = "runs", status: str | None = None, where: Sequence[str] = (), sort: str = "name"
) -> pd.DataFrame:
    """One row for each run in or below `folder`.

    Columns: name (path below the folder), preset, data, status, step and steps (done, of all), loss and loss_* (last
    logged), probe (the teacher's score, if one was recorded), health, updated. status is one of STATUSES.
    status: only runs with this one. where: only runs with these values, such as "optim.rate=7e-4"; columns, keys of the
    configuration or of result.json ("last.loss"). sort: column or such a key; "-probe" for the highest first.
    What cannot be read as a run is left out; `.attrs["skipped"]` has (path, reason) of each.
    Raises InputError for a folder that does not exist and for a status or key that no run can have.
    """
    root = resolve(folder)
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder of runs")
    if status is not None and status not in STATUSES:
        raise InputError(f"status {status!r}: expected one of {', '.join(STATUSES)}")
    listed, skipped = [], []
    for path, reason in _candidates(root):
        try:
            if reason:
                raise InputError(reason)
            listed.append(_look_at(path, root))
        except (InputError, OSError) as error:
            words = str(error).splitlines()[0].removeprefix(f"{path}{os.sep}").removeprefix(f"{path}: ")
            skipped.append((path.relative_to(root).as_posix(), words))
    conditions = [_condition(text) for text in ([where] if isinstance(where, str) else where)]
    for key in [*(key for key, _ in conditions), sort.removeprefix("-")]:
        _check_key(key, listed)
    listed = [run for run in listed if status in (None, run.row["status"])]
    for key, value in conditions:
        # `name` is a column, and the preset in the configuration.
        listed = [run for run in listed if any(key in d and _equal(d[key], value) for d in (run.row, run.values))]
    listed = _sorted(listed, sort)
    losses = list(dict.fromkeys(name for run in listed for name in run.row if name.startswith("loss")))
    table = pd.DataFrame([run.row for run in listed], columns=[*_FIRST, *losses, *_LAST])
    table = table.astype({"step": "Int64", "steps": "Int64"})
    table.attrs["skipped"] = skipped
    return table


def last_finished(folder: str | Path = "runs") -> Path | None:
    """The run in or below `folder` that finished last; None while there is none."""
    root = resolve(folder)
    finished = list_runs(root, status="finished", sort="-updated")["name"] if root.is_dir() else ()
    return root / finished.iloc[0] if len(finished) else None


def compare_runs(paths: Sequence[str | Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(differences, results) of two or more runs, with a column for each, named as `run_names` does.

    differences: the settings in which they are not all equal, in the order of the configuration. results: status and
    steps, the losses logged last, and what result.json holds: numbers, probe scores, reconstruction errors.
    Raises InputError for fewer than two runs, the same one twice, and what is not a readable run.
    """
    runs = open_runs(paths)
    settings = {name: flatten(run.config.to_dict()) for name, run in runs.items()}
    first = next(iter(runs.values())).config
    changed = {row["key"] for run in runs.values() for row in diff(first, run.config)}
    order = [key for key in dict.fromkeys(key for of_run in settings.values() for key in of_run) if key in changed]
    differences = pd.DataFrame(
        {name: [of_run.get(key) for key in order] for name, of_run in settings.items()}, index=order, dtype=object
    )
    values = {name: _results(run) for name, run in runs.items()}
    order = list(dict.fromkeys(key for of_run in values.values() for key in of_run))
    results = pd.DataFrame(
        {name: [of_run.get(key) for key in order] for name, of_run in values.items()}, index=order, dtype=object
    )
    return differences.rename_axis("setting"), results.rename_axis("result")


def open_runs(paths: Sequence[str | Path]) -> dict[str, Run]:
    """Two or more runs under short names: their paths below the folder that they share."""
    folders = [resolve(path).resolve() for path in paths]
    if len(folders) < 2:
        raise InputError(f"expected at least two runs to compare, got {len(folders)}")
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice:
        raise InputError(f"{twice}: given twice; a run is compared with others")
    shared = Path(os.path.commonpath(folders))
    shared = shared.parent if shared in folders else shared
    return {folder.relative_to(shared).as_posix(): load_run(folder) for folder in folders}


# --- One run --------------------------------------------------------------------------------------------------------


def _candidates(root: Path) -> Iterator[tuple[Path, str]]:
    """(folder, "") of everything that may be a run, in order, and (folder, reason) of folders that hold none.

    Folders of evaluations and fine-tuning lie among runs too; they have a result, and are no mistake.
    """
    runs = sorted(Path(inside) for inside, _, files in os.walk(root) if "config.yaml" in files)
    yield from ((path, "") for path in runs)
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if root in runs or any(folder in (path, *path.parents) for path in runs):
            continue
        if not any(folder.rglob("result.json")):
            yield folder, "not a run directory (it has no config.yaml)"


def _look_at(path: Path, root: Path) -> _Listed:
    run = load_run(path)
    progress, result, metrics = _contents(run)
    row = {
        "name": path.relative_to(root).as_posix(),
        "preset": run.config.name,
        "data": run.config.data.source,
        "status": _status(run, progress),
        "step": _step(run, progress, metrics),
        "steps": _as_int(progress.get("total_steps", run.config.train.steps)),
        **_last_losses(metrics),
        "probe": _probe_score(result),
        "health": progress.get("health"),
        "updated": progress.get("updated"),
    }
    return _Listed(row, flatten(result) | flatten(run.config.to_dict()))


def _contents(run: Run) -> tuple[dict, dict, pd.DataFrame]:
    """status.json, result.json and metrics.csv of a run; InputError names the one that cannot be read."""
    read = []
    for name, contents, kind in (
        ("status.json", "progress", dict),
        ("result.json", "result", dict),
        ("metrics.csv", "metrics", pd.DataFrame),
    ):
        try:
            content = getattr(run, contents)
        except InputError:  # has its name
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"{run.dir / name}: cannot be read: {error}") from None
        if not isinstance(content, kind):
            raise InputError(f"{run.dir / name}: expected named entries, found a {type(content).__name__}")
        read.append(content)
    return tuple(read)


def _status(run: Run, progress: dict) -> str:
    """The status in status.json, but "stopped" if that is "running" and no process holds the run."""
    status = progress.get("status", "new")
    return "stopped" if status == "running" and not is_held(run.dir) else status


def _last_losses(metrics: pd.DataFrame) -> dict[str, float]:
    """The losses logged last; NaN where a line was cut off as it was written."""
    columns = [name for name in metrics if name.startswith("loss")] if len(metrics) else []
    return {name: float(pd.to_numeric(metrics[name], errors="coerce").iloc[-1]) for name in columns}


def _step(run: Run, progress: dict, metrics: pd.DataFrame) -> int | None:
    """Steps done: as status.json says, which is written with each saved state; while it runs, as far as rows tell."""
    saved = _as_int(progress.get("step"))
    if _status(run, progress) != "running" or "step" not in metrics:
        return saved
    logged = pd.to_numeric(metrics["step"], errors="coerce").max()
    return saved if pd.isna(logged) else max(saved or 0, int(logged) + 1)


def _as_int(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _probe_score(result: dict) -> float | None:
    """Mean score of the teacher's probe as Run.record keeps it: one entry or a list of them; else of the first."""
    entries = _entries(result.get("probe"))
    teacher = [entry for entry in entries if entry.get("encoder") == "teacher"]
    return next((entry.get("mean") for entry in [*teacher, *entries]), None)


def _entries(value: Any) -> list[dict]:
    return [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, dict)]


def _results(run: Run) -> dict[str, Any]:
    """What `compare_runs` shows of a run."""
    progress, result, metrics = _contents(run)
    values = {"status": _status(run, progress), "step": _step(run, progress, metrics)}
    values |= _last_losses(metrics)
    for key, value in flatten({k: v for k, v in result.items() if k not in (*_SAID_ALREADY, *_MEASURES)}).items():
        if not isinstance(value, list) and not key.startswith("last.loss"):
            values[key] = value
    for name, measure in _MEASURES.items():
        for entry in _entries(result.get(name)):
            words = " ".join(str(text) for text in entry.values() if isinstance(text, str) and text)
            values[f"{name}: {words}"] = entry.get(measure)
    return values


# --- Choosing and sorting -------------------------------------------------------------------------------------------


def _condition(text: str) -> tuple[str, str]:
    """ "key=value" -> key, value."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"condition {text!r}: expected key=value, such as optim.rate=7e-4")
    return key, value


def _check_key(key: str, listed: list[_Listed]) -> None:
    """InputError for a key that neither the listing, nor a configuration, nor one of the runs has."""
    valid = {*_FIRST, *_LAST, *keys()}.union(*(run.row.keys() | run.values.keys() for run in listed))
    if key not in valid:
        near = difflib.get_close_matches(key, sorted(valid), 1)
        raise InputError(f"{key}: no run has this key" + (f"; did you mean {near[0]}?" if near else ""))


def _equal(value: Any, text: str) -> bool:
    """Whether a value is what the text says: 0.0007 is 7e-4, lists and truth values are written as in YAML."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return math.isclose(value, float(text), rel_tol=1e-9)
        except ValueError:
            return False
    try:
        return str(value) == text or value == read_yaml_text(text)
    except yaml.YAMLError:
        return False


def _sorted(listed: list[_Listed], sort: str) -> list[_Listed]:
    """Numbers before texts, what is missing last in both directions."""
    key = sort.removeprefix("-")
    values = [run.row.get(key, run.values.get(key)) for run in listed]
    present = [i for i, value in enumerate(values) if value is not None and value == value]

    def place(i: int) -> tuple[bool, Any]:
        number = isinstance(values[i], int | float)
        return (not number, values[i] if number else str(values[i]))

    order = sorted(present, key=place, reverse=sort.startswith("-"))
    return [listed[i] for i in [*order, *(i for i in range(len(listed)) if i not in present)]]
