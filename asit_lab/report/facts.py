"""Lists the facts of a study: settings, data, machines, versions and time of its points."""

import json
from typing import Any

import pandas as pd

from ..batch.results import StudyResults
from ..storage.words import duration


def facts(results: StudyResults) -> dict[str, str]:
    """Name -> text. Facts that no point has are left out."""
    study, points = results.study, results.points
    finished = points[points["state"] == "finished"]
    seconds = finished["point_seconds"].astype(float)
    named = {
        "Study": f"{study.name}, scale {results.scale}",
        "Data": _listed(points, "data"),
        "All have": in_line({**study.settings, **study.scale(results.scale).settings}),
        "Points": f"{len(finished)} of {len(points)} finished",
        "Stale": " ".join(results.notes),
        "Seeds": _listed(finished, "seed"),
        "Preset": _listed(finished, "name"),
        "Model": _ranged(finished, "parameters", "parameters in the student"),
        "Training": ", ".join(
            text
            for column, noun in {"steps": "steps", "epochs": "epochs", "training_clips": "clips"}.items()
            if (text := _ranged(finished, column, noun))
        ),
        "Time": f"{duration(seconds.sum())} in all, {duration(seconds.min())} to {duration(seconds.max())} a point",
        "Machine": _machines(finished),
        "System": _listed(finished, "system"),
        "Versions": ", ".join(
            f"{name} {versions}" for name in ("asit_lab", "python", "torch") if (versions := _listed(finished, name))
        ),
        "Done by": {"notebook": "notebooks, by papermill", "package": "calls of the package"}.get(
            method := _listed(finished, "done_with"), method
        ),
    }
    return {name: text for name, text in named.items() if text}


def compared(results: StudyResults) -> tuple[tuple[str, str], ...]:
    """Each setting with its values."""
    settings = results.study.settings_at(results.scale)
    return tuple((setting.name, in_line(setting.settings) or "as the preset has it") for setting in settings)


def in_line(settings: dict[str, Any]) -> str:
    """Settings as a line: "mask.ratio = 0.5; mask.kinds = {"zeros": 1}"."""
    return "; ".join(
        f"{name} = {value if isinstance(value, str) else json.dumps(value)}" for name, value in settings.items()
    )


def unfinished(results: StudyResults) -> list[dict[str, str]]:
    """Points without a result: setting, seed, state and why."""
    points = results.points[results.points["state"] != "finished"]
    return [
        {"setting": row["setting"], "seed": str(row["seed"]), "state": row["state"], "why": row["reason"] or ""}
        for row in points.to_dict("records")
    ]


def _listed(points: pd.DataFrame, column: str) -> str:
    """The different values of a column."""
    if column not in points:
        return ""
    return ", ".join(str(value) for value in points[column].dropna().unique() if str(value))


def _ranged(points: pd.DataFrame, column: str, noun: str) -> str:
    """The smallest and the largest number in a column, with their unit."""
    numbers = pd.to_numeric(points[column], errors="coerce").dropna() if column in points else pd.Series(dtype=float)
    if not len(numbers):
        return ""
    smallest, largest = (f"{end:,.0f}" if end == int(end) else f"{end:.4g}" for end in (numbers.min(), numbers.max()))
    return f"{smallest} {noun}" if smallest == largest else f"{smallest} to {largest} {noun}"


def _machines(points: pd.DataFrame) -> str:
    """Each host with its device and the threads a point had."""
    named = points.reindex(columns=["host", "device", "threads"]).drop_duplicates()
    machines = []
    for row in named.to_dict("records"):
        parts = [str(row[name]) for name in ("host", "device") if pd.notna(row[name])]
        if pd.notna(row["threads"]):
            parts.append(f"{int(row['threads'])} {'thread' if row['threads'] == 1 else 'threads'} a point")
        if parts:
            machines.append(", ".join(parts))
    return "; ".join(machines)
