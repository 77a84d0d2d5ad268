"""Keeps a study's own files: the points of its last run, and the runners that work on it.

runs/points/.studies/STUDY/SCALE/: points.json, and for each runner NAME.lock (held while it lives) and NAME.stop (there
once it was told to stop).
"""

import itertools
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ...config import resolve
from ...errors import InputError
from ...storage.atomic import write_json
from ..point import POINTS, Point
from ..study import Study


@dataclass(frozen=True)
class Runner:
    """A process that works through a study."""

    name: str
    """host-pid"""
    folder: Path

    @property
    def stop(self) -> Path:
        """The file whose presence tells the runner, and the points under way, to stop."""
        return self.folder / f"{self.name}.stop"

    def tell_to_stop(self, at_once: bool = False) -> None:
        """As Ctrl-C once; at_once: as a second one, without waiting for the steps under way."""
        self.stop.write_text("at once" if at_once else "", encoding="utf-8")

    @property
    def lock(self) -> Path:
        return self.folder / f"{self.name}.lock"


def study_folder(study: Study, scale: str) -> Path:
    """The folder of a study's own files at a scale."""
    return resolve(POINTS) / ".studies" / study.name / scale


def remember(study: Study, scale: str, points: list[Point]) -> None:
    """Write down the points of this run of the study."""
    content = {"asked": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "points": [point.to_dict() for point in points]}
    write_json(study_folder(study, scale) / "points.json", content)


def is_remembered(study: Study, scale: str) -> bool:
    """Whether the study ever ran at this scale here."""
    return (study_folder(study, scale) / "points.json").is_file()


def remembered(study: Study, scale: str) -> list[Point]:
    """The points of the study's last run. Raises InputError where it never ran."""
    study.scale(scale)
    path = study_folder(study, scale) / "points.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [Point.from_dict(entry) for entry in content["points"]]
    except FileNotFoundError:
        raise InputError(f"study {study.name}: never run at the scale {scale!r} here") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: cut off or not ours; `asit-lab batch run` writes it anew") from None


@contextmanager
def at_work(study: Study, scale: str) -> Iterator[Runner]:
    """Be a runner that `stop` finds."""
    folder = study_folder(study, scale)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{socket.gethostname()}-{os.getpid()}"
    for number in itertools.count(1):  # containers may share the host's name, and process numbers with it
        runner = Runner(name if number == 1 else f"{name}-{number}", folder)
        lock = FileLock(runner.lock)
        with suppress(Timeout):
            lock.acquire(timeout=1)
            break
    try:
        runner.stop.unlink(missing_ok=True)
        yield runner
    finally:
        lock.release()
        runner.lock.unlink(missing_ok=True)


def at_work_now(study: Study, scale: str) -> list[Runner]:
    """Runners that live. Files of those that were killed are removed."""
    living = []
    for path in sorted(study_folder(study, scale).glob("*.lock")):
        runner = Runner(path.stem, path.parent)
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            living.append(runner)
        else:
            for left in (runner.lock, runner.stop):
                with suppress(OSError):
                    left.unlink(missing_ok=True)
    return living
