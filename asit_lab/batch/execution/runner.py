"""Runs a study: each point once, whatever happens, until none is left that can be done."""

import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ...config import home, resolve
from ...errors import InputError
from ...storage.atomic import write_json
from ...storage.words import duration
from ...training.interrupt import Signals
from ..expansion import check_data, check_kernel, points
from ..notebook import read_notebook
from ..point import POINTS, Point
from ..study import Study, read_study, shipped_file
from ..study_status import stale, status_table
from .cluster import Cluster
from .execute import check_without_notebook
from .runners import Runner, at_work, is_remembered, remember, remembered
from .state import ERROR, STATES, state_of, write_state
from .supervise import Attempt

_PAUSE_SECONDS = 0.5
_LEAST_DISK = 100e6  # bytes; with fewer free, points fail for nothing but that


@dataclass(frozen=True)
class Options:
    """How the points of a study are done."""

    notebooks: bool
    retry: bool
    """failed points too"""
    hours: float
    memory_gb: float | None


def run(
    study: str | Path | Study,
    scale: str = "smoke",
    data: str | None = None,
    seeds: int | list[int] | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    notebooks: bool = True,
    again: bool = False,
    hours: float | None = None,
    memory_gb: float | None = None,
) -> pd.DataFrame:
    """Do the points of a study that are not finished, and return the state of each, as `status` does.

    data, seeds, hours, memory_gb: in place of the scale's (seeds: how many, or which). workers: points at once on this
    machine. scheduler: address of a Dask scheduler whose workers do them instead. notebooks: through papermill, else by
    package calls alone. again: failed points too; they resume from the last state of their training.
    A finished point is never done again, one that another runner works on is left to it and taken over should that be
    killed, and none is tried twice. Ctrl-C, SIGTERM and `stop` let the steps under way finish and save; a second Ctrl-C
    does not wait.
    `.attrs["stopped"]` of the table says which of these it was (interrupted, terminated, stopped), "" for none.
    Raises InputError for what `batch.points` refuses, a missing kernel, missing data, a scheduler that cannot be
    reached or goes away, and a full disk; nothing that was done is lost by any of them.
    """
    study = read_study(study)
    study_points = points(study, scale, data or None, seeds or None)
    if notebooks:
        check_kernel(read_notebook(shipped_file(study.notebook)))
    else:
        for point in study_points:
            check_without_notebook(point)
    if scheduler is None:  # else the data are where its workers are
        over = ("finished", "running") if again else ("finished", "running", "failed")
        check_data(point for point in study_points if state_of(point.folder).state not in over)
    limits = study.scale(scale)
    options = Options(notebooks, again, hours or limits.hours, memory_gb or limits.memory_gb)
    with at_work(study, scale) as runner, Signals() as signals:
        _print_stale(study, scale, study_points)
        remember(study, scale, study_points)
        _prepare(study_points)
        cluster = Cluster(scheduler, workers)
        signals.patient = True
        try:
            _work(study_points, cluster, options, runner, signals, StudyProgress(study, study_points))
        except BaseException as error:
            runner.tell_to_stop(at_once=isinstance(error, KeyboardInterrupt))
            raise
        finally:
            cluster.close()
        done = status_table(study_points)
        done.attrs["stopped"] = signals.requested or ("stopped" if runner.stop.exists() else "")
    return done


def _print_stale(study: Study, scale: str, study_points: list[Point]) -> None:
    """Say which points of the last run are finished but stale, so that new ones are made in their place."""
    if not is_remembered(study, scale):
        return
    names = {(point.setting, point.seed, json.dumps(point.parameters, sort_keys=True)) for point in study_points}
    hashes = {point.hash for point in study_points}
    stamps: dict[str, str] = {}
    replaced = Counter(
        stale(point, stamps)
        for point in remembered(study, scale)
        if point.hash not in hashes
        and (point.setting, point.seed, json.dumps(point.parameters, sort_keys=True)) in names
        and state_of(point.folder).state == "finished"
    )
    for changes, count in replaced.items():
        if changes:
            text = f"{count} finished {'point is' if count == 1 else 'points are'} stale ({changes})"
            print(f"{study.name}: {text}; done anew in new folders, the old ones stay", file=sys.stderr, flush=True)


def _prepare(study_points: list[Point]) -> None:
    """A folder for each point, with what the point is."""
    for point in study_points:
        try:
            point.folder.mkdir(parents=True, exist_ok=True)
            if not (point.folder / "point.json").is_file():
                write_json(point.folder / "point.json", point.to_dict())
        except OSError as error:
            raise InputError(
                f"{point.folder}: the folder of a point cannot be made: {error.strerror or error}"
            ) from None


def _work(
    study_points: list[Point],
    cluster: Cluster,
    options: Options,
    runner: Runner,
    signals: Signals,
    progress: "StudyProgress",
) -> None:
    """Submit points until each is done, tried or given up, or the runner is told to stop."""
    todo: list[Point] = list(study_points)
    under_way: dict[Any, Point] = {}  # future -> point
    while todo or under_way:
        if signals.requested and not runner.stop.exists():
            runner.tell_to_stop()
        stopping = runner.stop.exists()
        for future in [future for future in under_way if future.done()]:
            point = under_way.pop(future)
            outcome = _outcome(future, cluster, point)
            if outcome == "held":
                todo.append(point)
            else:
                progress.ended(point, under_way.values())
            if _is_full(point, outcome):
                raise InputError(_full(progress))
        if stopping and not under_way:
            return
        if not stopping:
            cluster.check()
            _submit(todo, under_way, cluster, options, runner, progress)
        time.sleep(_PAUSE_SECONDS if under_way or todo else 0)


def _submit(
    todo: list[Point],
    under_way: dict[Any, Point],
    cluster: Cluster,
    options: Options,
    runner: Runner,
    progress: "StudyProgress",
) -> None:
    """Submit points that can be done now. Finished ones are over, and failed ones unless they are to be retried."""
    slots = cluster.slots  # the scheduler is asked for them, perhaps over the network
    for point in list(todo):
        state = state_of(point.folder).state
        if state == "finished" or state == "failed" and not options.retry:
            todo.remove(point)
            progress.skipped(point, state)
        elif state != "running" and len(under_way) < slots:
            todo.remove(point)
            under_way[cluster.submit(_attempt(point, options, runner))] = point
            progress.began(point)


def _attempt(point: Point, options: Options, runner: Runner) -> Attempt:
    shared = {name: os.environ[name] for name in ("ASIT_LAB_DATA",) if name in os.environ}
    return Attempt(
        folder=str(point.folder),
        mode="notebook" if options.notebooks else "package",
        stop=str(runner.stop),
        hours=options.hours,
        memory_gb=options.memory_gb,
        threads=1,
        environment={"ASIT_LAB_HOME": str(home()), **shared},
    )


def _outcome(future: Any, cluster: Cluster, point: Point) -> str:
    """What `supervise` returned. Where workers were lost under one point until it was given up, the state it was left
    in. Raises InputError where nothing could come back for another reason."""
    try:
        return future.result()
    except InputError:
        raise
    except Exception as error:
        cluster.check()
        if cluster.gave_up(error):
            return state_of(point.folder).state
        raise InputError(f"a worker failed: {type(error).__name__}: {error}") from error


# --- A full disk ----------------------------------------------------------------------------------------------------


def _is_full(point: Point, outcome: str) -> bool:
    """Whether a point failed with the disk full: the next ones would too, and it resumes once there is room."""
    if outcome not in ("failed", "interrupted") or shutil.disk_usage(point.folder).free > _LEAST_DISK:
        return False
    with suppress(OSError):
        (point.folder / ERROR).unlink(missing_ok=True)
        write_state(point.folder, "interrupted", "the disk was full")
    return True


def _full(progress: "StudyProgress") -> str:
    free = shutil.disk_usage(resolve(POINTS)).free
    return (
        f"{resolve(POINTS)}: the disk is full ({free / 1e6:.0f} MB free), so the study stopped; {progress.words()}. "
        "Make room and give the same command again"
    )


# --- Progress -------------------------------------------------------------------------------------------------------


class StudyProgress:
    """Prints a line on standard error when a point begins or ends, with the time left."""

    def __init__(self, study: Study, study_points: list[Point]):
        self.study, self.points = study, study_points
        self.over: dict[str, str] = {}  # hash -> state of points that are done with
        self.seconds: list[float] = []  # of those that this runner saw finish
        self.began_at = time.monotonic()

    def began(self, point: Point) -> None:
        self._print(f"{point.label}: begun ({point.folder})")

    def skipped(self, point: Point, state: str) -> None:
        self.over[point.hash] = state
        if state == "failed":
            self._print(f"{point.label}: failed before; `asit-lab batch retry` does it again")

    def ended(self, point: Point, under_way: Iterable[Point]) -> None:
        """Print how a point ended; under_way: those that have not."""
        now = state_of(point.folder)
        self.over[point.hash] = now.state
        if now.state == "finished":
            self.seconds.append(now.seconds)
        why = f": {now.reason.splitlines()[0]}" if now.reason else ""
        after = f"{now.state} after {duration(now.seconds)}{why}"
        self._print(f"{point.label}: {after}; {self.words()}{self._time_left(under_way)}")

    def words(self) -> str:
        """How many points are over, and how."""
        states = list(self.over.values())
        counts = [f"{states.count(state)} {state}" for state in STATES if state in states]
        return f"{', '.join(counts) or 'none finished'} of {len(self.points)}"

    def _time_left(self, under_way: Iterable[Point]) -> str:
        """The time left, as if every open point took as long as those that this runner saw finish."""
        share = sum(state_of(point.folder).share for point in under_way)
        unfinished = len(self.points) - len(self.over) - share
        if not self.seconds or unfinished <= 0:
            return ""
        pace = (time.monotonic() - self.began_at) / (len(self.seconds) + share)  # s a point, all workers together
        return f", about {duration(unfinished * pace)} left"

    def _print(self, text: str) -> None:
        print(f"{self.study.name}: {text}", file=sys.stderr, flush=True)
