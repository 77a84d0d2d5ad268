"""The lines of the monitor's curves: each run along step, epoch or time, or runs that differ in their seed together."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..errors import InputError
from .curves_view import group_line, run_line
from .run_files import Glance

ALONG = ("step", "epoch", "hours")
_OF_A_SEED = ("train.seed", "name", "data.seed")  # settings in which runs of one group differ


def run_lines(
    runs: Mapping[str, Glance],
    names: Sequence[str],
    numbers: Mapping[str, int],
    along: str = "step",
    smoothing: float = 0.0,
    grouped: bool = False,
) -> dict[str, list[dict]]:
    """Name of a curve -> its lines. numbers: of the runs' colours. Raises InputError where no run has epochs."""
    places = {name: _along(run, along) for name, run in runs.items()}
    if runs and along == "epoch" and all(place is None for place in places.values()):
        raise InputError("along epochs: these runs' length is given in steps (train.steps), not in train.epochs")
    groups = same_but_for_the_seed(runs) if grouped else {name: [name] for name in runs}
    lines: dict[str, list[dict]] = {}
    for curve in names:
        for group, members in groups.items():
            drawn = [
                run_line(name, numbers[name], place, runs[name].metrics[curve], smoothing)
                for name in members
                if curve in runs[name].metrics and (place := places[name]) is not None and len(place)
            ]
            several = len(drawn) > 1
            lines.setdefault(curve, []).extend([group_line(group, numbers[members[0]], drawn)] if several else drawn)
    return lines


def metrics_along(runs: Mapping[str, Glance], along: str) -> dict[str, pd.DataFrame]:
    """Metrics with the column `along`, of the runs where that is known."""
    places = {name: _along(run, along) for name, run in runs.items()}
    return {name: run.metrics.assign(**{along: places[name]}) for name, run in runs.items() if places[name] is not None}


def _along(run: Glance, along: str) -> np.ndarray | None:
    """Where each row of metrics is; None where that is not known."""
    steps = pd.to_numeric(run.metrics.get("step", pd.Series(dtype=float)), errors="coerce").to_numpy(dtype=float)
    if along == "hours":
        return run.metrics["seconds"].to_numpy(dtype=float) / 3600 if "seconds" in run.metrics else None
    if along == "epoch":
        total = run.progress.get("total_steps")
        return steps * run.epochs / total if run.epochs and total else None
    return steps


def same_but_for_the_seed(runs: Mapping[str, Glance]) -> dict[str, list[str]]:
    """Runs whose settings are the same but for their seed, under the name of the first without its seed."""
    groups: dict[tuple, list[str]] = {}
    for name, run in runs.items():
        same = tuple((key, str(value)) for key, value in run.settings.items() if key not in _OF_A_SEED)
        groups.setdefault(same, []).append(name)
    named: dict[str, list[str]] = {}
    for members in groups.values():
        name = members[0].split(", seed ")[0]
        named[members[0] if name in named else name] = members  # other data or scales may have the same setting
    return named
