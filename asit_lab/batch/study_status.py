"""Reports the state of a study's points, from files alone: nothing needs to run for it."""

import time
from pathlib import Path

import pandas as pd

from .._version import __version__
from ..errors import InputError
from ..storage.source_code import differences
from .execution.runners import at_work_now, remembered
from .execution.state import state_of
from .expansion import points
from .inputs import DATA, point_inputs
from .point import Point
from .study import Study, read_study

_CHANGES = 3  # named; more are counted
STATUS_COLUMNS = ("setting", "seed", "state", "share", "seconds", "held_by", "reason", "folder")


def status(
    study: str | Path | Study, scale: str = "smoke", data: str | None = None, seeds: int | list[int] | None = None
) -> pd.DataFrame:
    """A row for each point: setting, seed, state, share (of its training), seconds, held_by, reason, folder.

    state: waiting, running, finished, failed or interrupted. Without data and seeds the points are those of the last
    run. Raises InputError for a study that was never run, and what `batch.points` refuses.
    """
    return status_table(requested_points(read_study(study), scale, data, seeds))


def listing(
    study: str | Path | Study, scale: str = "smoke", data: str | None = None, seeds: int | list[int] | None = None
) -> pd.DataFrame:
    """The points that `run` would do: a row for each, with setting, seed, overrides and state."""
    study_points = points(read_study(study), scale, data or None, seeds or None)
    overrides = [point.parameters.get("overrides", "") for point in study_points]
    return status_table(study_points)[["setting", "seed", "state"]].assign(overrides=overrides)


def requested_points(study: Study, scale: str, data: str | None, seeds: int | list[int] | None) -> list[Point]:
    """The points of the last run, or those that data and seeds make."""
    if data or seeds:
        return points(study, scale, data or None, seeds or None)
    return remembered(study, scale)


def status_table(study_points: list[Point]) -> pd.DataFrame:
    """`status` of these points."""
    rows, stamps = [], dict[str, str]()
    for point in study_points:
        now, changes = state_of(point.folder), stale(point, stamps)
        reason = "; ".join([f"stale: {changes}"] * bool(changes) + [now.reason] * bool(now.reason))
        row = {"setting": point.setting, "seed": point.seed, "state": now.state, "share": now.share}
        row |= {"seconds": now.seconds, "held_by": now.held_by, "reason": reason, "folder": str(point.folder)}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(STATUS_COLUMNS))


def stale(point: Point, stamps: dict[str, str]) -> str:
    """What has changed since the point was made, in words: "objectives/losses.py changed"; "" for nothing.

    Then `run` makes another point of the same settings; this one stays as it is. stamps: as for `point_inputs`.
    """
    changes = [] if point.version == __version__ else [f"asit_lab {point.version} is {__version__} now"]
    if point.inputs:
        try:
            now = point_inputs(point.parameters, point.config, stamps)
        except InputError as error:  # its recipe, say
            return str(error)
        removed = {name: stamp for name, stamp in point.inputs.items() if name.startswith(DATA) and name not in now}
        changes += differences(point.inputs, now | removed)  # data that are not on this machine count as they were
    rest = [f"and {len(changes) - _CHANGES} more"] if len(changes) > _CHANGES else []
    return ", ".join([*changes[:_CHANGES], *rest])


def stop(study: str | Path | Study, scale: str = "smoke", wait: float = 120.0) -> list[str]:
    """Tell every runner of a study to stop as Ctrl-C would, wherever it runs. Returns their names, host-pid.

    wait: for their end, at most, s. `run` resumes everything.
    """
    study = read_study(study)
    study.scale(scale)
    runners = at_work_now(study, scale)
    for runner in runners:
        runner.tell_to_stop()
    deadline = time.monotonic() + wait
    while at_work_now(study, scale) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [runner.name for runner in runners]
