"""Working through a study: each point once, whatever else is going on, until none is left that can be done."""

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..config import home, resolve
from ..errors import InputError
from ..storage.atomic import write_json
from ..training.interrupt import Signals
from .execution.execute import check_without_notebook
from .execution.pool import Pool
from .execution.record import Runner, at_work, remember
from .execution.state import ERROR, state_of, write_state
from .execution.supervise import Job
from .expansion import check_data, check_kernel, points
from .notebook import read_notebook
from .point import POINTS, Point
from .progress import Progress
from .study import Study, read_study
from .study_status import table

_PAUSE_SECONDS = 0.5
_LEAST_DISK = 100e6  # bytes; with fewer free, points fail for nothing but that


@dataclass(frozen=True)
class How:
    """How points are done, the same for all of a study."""

    notebooks: bool
    again: bool
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
    """Do the points of a study that are not finished, and return where each stands, as `status` does.

    data, seeds, hours, memory_gb: in place of the scale's (seeds: how many, or which). workers: points at once on this
    machine. scheduler: address of a Dask scheduler whose workers do them instead. notebooks: through papermill, else by
    package calls alone. again: failed points too; they go on from the last state of their training.
    A finished point is never done again, one that another runner works on is left to it and taken over should that be
    killed, and none is tried twice. Ctrl-C, SIGTERM and `stop` let the steps under way finish and save; a second Ctrl-C
    does not wait.
    `.attrs["stopped"]` of the table says which of these it was (interrupted, terminated, stopped), "" for none.
    Raises InputError for what `check.points` refuses, a missing kernel, data that are not there, a scheduler that is
    not there or goes away and a disk that is full; nothing that was done is lost by any of them.
    """
    study = read_study(study)
    found = points(study, scale, data or None, seeds or None)
    if notebooks:
        check_kernel(read_notebook(resolve(study.notebook)))
    else:
        for point in found:
            check_without_notebook(point)
    if scheduler is None:  # else the data are where its workers are
        stands = {point.hash: state_of(point.folder).state for point in found}
        over = ("finished", "running") if again else ("finished", "running", "failed")
        check_data(point for point in found if stands[point.hash] not in over)
    limits = study.scale(scale)
    how = How(notebooks, again, hours or limits.hours, memory_gb or limits.memory_gb)
    with at_work(study, scale) as runner, Signals() as signals:
        remember(study, scale, found)
        _prepare(found)
        crew = _crew(workers, scheduler)
        signals.patient = True
        try:
            _work(found, crew, how, runner, signals, Progress(study, found))
        except BaseException as error:
            runner.tell_to_stop(at_once=isinstance(error, KeyboardInterrupt))
            raise
        finally:
            crew.close()
        done = table(found)
        done.attrs["stopped"] = signals.asked or ("stopped" if runner.stop.exists() else "")
    return done


def _crew(workers: int, scheduler: str | None):
    if scheduler is None:
        return Pool(workers)
    from .execution.cluster import Cluster

    return Cluster(scheduler)


def _prepare(found: list[Point]) -> None:
    """A folder for each point, with what the point is."""
    for point in found:
        try:
            point.folder.mkdir(parents=True, exist_ok=True)
            if not (point.folder / "point.json").is_file():
                write_json(point.folder / "point.json", point.to_dict())
        except OSError as error:
            raise InputError(
                f"{point.folder}: the folder of a point cannot be made: {error.strerror or error}"
            ) from None


def _work(found: list[Point], crew, how: How, runner: Runner, signals: Signals, progress: Progress) -> None:
    """Give out the points until each is done, tried or given up, or we are told to stop."""
    todo, under_way = list(found), {}
    while todo or under_way:
        if signals.asked and not runner.stop.exists():
            runner.tell_to_stop()
        stopping = runner.stop.exists()
        for future in [future for future in under_way if future.done()]:
            point = under_way.pop(future)
            outcome = _outcome(future, crew, point)
            if outcome == "held":
                todo.append(point)
            else:
                progress.ended(point, under_way.values())
            if _is_full(point, outcome):
                raise InputError(_full(progress))
        if stopping and not under_way:
            return
        if not stopping:
            crew.check()
            _give_out(todo, under_way, crew, how, runner, progress)
        time.sleep(_PAUSE_SECONDS if under_way or todo else 0)


def _give_out(todo: list[Point], under_way: dict, crew, how: How, runner: Runner, progress: Progress) -> None:
    """Submit points that can be done now; finished ones, and failed ones that are not wanted again, are over."""
    slots = crew.slots  # of a cluster: asked over the network
    for point in list(todo):
        stands = state_of(point.folder).state
        if stands == "finished" or stands == "failed" and not how.again:
            todo.remove(point)
            progress.skipped(point, stands)
        elif stands != "running" and len(under_way) < slots:
            todo.remove(point)
            under_way[crew.submit(_job(point, how, runner))] = point
            progress.began(point)


def _job(point: Point, how: How, runner: Runner) -> Job:
    shared = {name: os.environ[name] for name in ("ASIT_LAB_DATA",) if name in os.environ}
    return Job(
        folder=str(point.folder),
        how="notebook" if how.notebooks else "package",
        stop=str(runner.stop),
        hours=how.hours,
        memory_gb=how.memory_gb,
        threads=1,
        environment={"ASIT_LAB_HOME": str(home()), **shared},
    )


def _outcome(future, crew, point: Point) -> str:
    """What `supervise` returned. Where workers were lost under one point until it was given up, the state it was left
    in; InputError where nothing could come back for another reason."""
    try:
        return future.result()
    except InputError:
        raise
    except Exception as error:
        crew.check()
        if crew.gave_up(error):
            return state_of(point.folder).state
        raise InputError(f"a worker failed: {type(error).__name__}: {error}") from error


# --- A full disk ----------------------------------------------------------------------------------------------------


def _is_full(point: Point, outcome: str) -> bool:
    """Whether a point failed with the disk full: the next ones would too, and it can go on once there is room."""
    if outcome not in ("failed", "interrupted") or shutil.disk_usage(point.folder).free > _LEAST_DISK:
        return False
    with suppress(OSError):
        (point.folder / ERROR).unlink(missing_ok=True)
        write_state(point.folder, "interrupted", "the disk was full")
    return True


def _full(progress: Progress) -> str:
    free = shutil.disk_usage(resolve(POINTS)).free
    return (
        f"{resolve(POINTS)}: the disk is full ({free / 1e6:.0f} MB free), so the study stopped; {progress.words()}. "
        "Make room and give the same command again"
    )
