"""What was run, where, and for how long: the facts of a study in words, from its points."""

import json
from typing import Any

import pandas as pd

from ..batch.results import Collected
from ..storage.words import duration


def facts(collected: Collected) -> dict[str, str]:
    """Name -> words. What no point says is left out."""
    study, points = collected.study, collected.points
    finished = points[points["state"] == "finished"]
    seconds = finished["point_seconds"].astype(float)
    found = {
        "Study": f"{study.name}, scale {collected.scale}",
        "Data": _listed(points, "data"),
        "All have": in_line({**study.settings, **study.scale(collected.scale).settings}),
        "Points": f"{len(finished)} of {len(points)} finished",
        "Seeds": _listed(finished, "seed"),
        "Preset": _listed(finished, "name"),
        "Model": _ranged(finished, "parameters", "parameters in the student"),
        "Training": ", ".join(
            words
            for column, what in {"steps": "steps", "epochs": "epochs", "training_clips": "clips"}.items()
            if (words := _ranged(finished, column, what))
        ),
        "Time": f"{duration(seconds.sum())} in all, {duration(seconds.min())} to {duration(seconds.max())} a point",
        "Machine": _machines(finished),
        "System": _listed(finished, "system"),
        "Versions": ", ".join(
            f"{name} {versions}" for name in ("asit_lab", "python", "torch") if (versions := _listed(finished, name))
        ),
        "Done by": {"notebook": "notebooks, by papermill", "package": "calls of the package"}.get(
            how := _listed(finished, "done_with"), how
        ),
    }
    return {name: words for name, words in found.items() if words}


def compared(collected: Collected) -> tuple[tuple[str, str], ...]:
    """Each setting with what it sets."""
    found = collected.study.settings_at(collected.scale)
    return tuple((one.name, in_line(one.settings) or "as the preset has it") for one in found)


def in_line(settings: dict[str, Any]) -> str:
    """Settings as a line: "mask.ratio = 0.5; mask.kinds = {"zeros": 1}"."""
    return "; ".join(
        f"{name} = {value if isinstance(value, str) else json.dumps(value)}" for name, value in settings.items()
    )


def unfinished(collected: Collected) -> list[dict[str, str]]:
    """Points without a result: setting, seed, state and why."""
    points = collected.points[collected.points["state"] != "finished"]
    return [
        {"setting": row["setting"], "seed": str(row["seed"]), "state": row["state"], "why": row["reason"] or ""}
        for row in points.to_dict("records")
    ]


def _listed(points: pd.DataFrame, column: str) -> str:
    """The different values of a column."""
    if column not in points:
        return ""
    return ", ".join(str(value) for value in points[column].dropna().unique() if str(value))


def _ranged(points: pd.DataFrame, column: str, what: str) -> str:
    """The least and the largest number in a column, with what they count."""
    numbers = pd.to_numeric(points[column], errors="coerce").dropna() if column in points else pd.Series(dtype=float)
    if not len(numbers):
        return ""
    least, most = (f"{end:,.0f}" if end == int(end) else f"{end:.4g}" for end in (numbers.min(), numbers.max()))
    return f"{least} {what}" if least == most else f"{least} to {most} {what}"


def _machines(points: pd.DataFrame) -> str:
    """Each host with its device and the threads a point had."""
    named = points.reindex(columns=["host", "device", "threads"]).drop_duplicates()
    found = []
    for row in named.to_dict("records"):
        parts = [str(row[name]) for name in ("host", "device") if pd.notna(row[name])]
        if pd.notna(row["threads"]):
            parts.append(f"{int(row['threads'])} {'thread' if row['threads'] == 1 else 'threads'} a point")
        if parts:
            found.append(", ".join(parts))
    return "; ".join(found)
