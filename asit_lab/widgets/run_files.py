"""Watches run directories while another process trains; reads only files that changed."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..config import flatten, resolve
from ..errors import InputError
from ..runs.directory import Run, load_run
from ..storage.atomic import read_json
from ..storage.lock import is_held
from ..training.collapse_watch import ROWS
from .live import references, with_speed

UNDER_WAY = ("new", "running")
_FILES = ("metrics.csv", "timings.csv", "status.json", "result.json", "samples")
_RECENT = 20  # rows that the time left is estimated from
HOW_TO = (
    "no run here yet. Start one with notebooks/pretrain.ipynb, or in a shell: "
    ".venv/bin/asit-lab pretrain --preset micro --data synth --out runs/first. It is shown as soon as it starts"
)


@dataclass(frozen=True)
class Glance:
    """The state of a run directory when it was last read."""

    metrics: pd.DataFrame
    """with the speed of each row; empty where nothing is logged yet"""
    progress: dict
    """status.json"""
    result: dict
    """result.json; empty until the run is finished"""
    samples: tuple[Path, ...]
    """pictures of reconstructions, oldest first"""
    status: str
    """as in status.json, but "stopped" where that says running and its process is gone"""
    references: dict[str, tuple[float, str]]
    """column of metrics -> value and label of a head that has learned nothing"""
    left: float | None
    """seconds until the last step at the speed of the last rows; None where unknown"""
    settings: dict
    """the configuration under dotted keys"""

    @property
    def epochs(self) -> float | None:
        """Epochs the run takes; None where its length is given in steps."""
        return None if self.settings.get("train.steps") else self.settings.get("train.epochs")

    @property
    def step(self) -> int:
        """Steps done, as far as rows tell; status.json has those that are saved."""
        steps = int(self.metrics["step"].iloc[-1]) + 1 if len(self.metrics) else 0
        return max(steps, self.progress.get("step") or 0)

    @property
    def verdict(self) -> tuple[bool, str]:
        """(whether all seems well, in words): of the watch that judges a run's rows as they come, or why it failed."""
        trouble = [self.progress.get("health"), self.progress.get("reason")]
        message = " ".join(dict.fromkeys(text for text in trouble if text))
        if message or self.status == "failed":
            return False, message or "failed without saying why"
        if len(self.metrics) < ROWS:
            return True, "too early to tell"
        doubts = [*_rising_loss(self.metrics), *_no_better_than_a_line(self.result)]
        return not doubts, "; ".join(doubts) or "nothing wrong seen"


def _rising_loss(metrics: pd.DataFrame) -> list[str]:
    """In words, if the total loss ends well above its lowest tenth."""
    loss = metrics["loss"].dropna() if "loss" in metrics else pd.Series(dtype=float)
    tenth = max(1, len(loss) // 10)
    means = loss.rolling(tenth).mean().dropna()
    if len(means) < 2:
        return []
    first, lowest, last = means.iloc[0], means.min(), means.iloc[-1]
    if last <= lowest + max(0.02 * abs(lowest), 0.2 * (first - lowest)):
        return []
    step = int(metrics["step"][means.idxmin()])
    return [f"the loss rises: {lowest:.4g} at step {step:,}, {last:.4g} now"]


def _no_better_than_a_line(result: dict) -> list[str]:
    """In words, if the reconstructions are no better than a straight line in time."""
    with suppress(KeyError, TypeError):  # of another shape where another program wrote it
        errors = {row["method"]: row["l1_log"] for row in result["reconstruction"]}
        ours, line = errors["reconstruction"], errors["linear interpolation in time"]
        if ours >= line:
            return [f"reconstructions are no better than a straight line ({ours:.3g} against {line:.3g})"]
    return []


class Watched:
    """Run directories by their displayed names; `glances` has the last state of each."""

    def __init__(self):
        self.glances: dict[str, Glance] = {}
        self.problems: list[str] = []  # of the runs that could not be read
        self._stamps: dict[str, tuple] = {}

    def look(self, folders: dict[str, Path]) -> bool:
        """Read the `folders` (name -> run directory) whose files changed. Returns whether any did."""
        removed = self.glances.keys() - folders.keys()
        for name in removed:
            self._forget(name)
        changed, self.problems = bool(removed), []
        for name, folder in folders.items():
            try:
                stamp = _stamp(folder, self.glances.get(name))
                if self._stamps.get(name) == stamp:
                    continue
                self.glances[name] = _read(load_run(folder))
                self._stamps[name], changed = stamp, True
            except (OSError, ValueError) as error:  # InputError too
                message = f"{error}".splitlines()[0]
                self.problems.append(message if str(folder) in message else f"{folder}: cannot be read: {message}")
                changed |= name in self.glances
                self._forget(name)
        return changed

    def _forget(self, name: str) -> None:
        self.glances.pop(name, None)
        self._stamps.pop(name, None)


def runs_below(folder: str | Path) -> dict[str, Path]:
    """The runs in or below a folder that have begun, under their paths there. Raises InputError when there are none."""
    root = resolve(folder)
    paths = sorted(path.parent for path in root.rglob("config.yaml") if (path.parent / "status.json").is_file())
    if not paths:
        raise InputError(f"{root}: {HOW_TO}")
    return {_name(folder, root): folder for folder in paths}


def runs_named(runs: Run | str | Path | Sequence[Run | str | Path]) -> dict[str, Path]:
    """Run directories under their paths below the folder that they share. runs: such directories or opened runs, one
    or several; missing ones are left out. Raises InputError where none exists."""
    folders = [path for path in _paths(runs) if not _missing(path)]
    if not folders:
        waits = "not a run directory yet; it is shown as soon as a run starts there"
        raise InputError("\n".join(f"{path}: {waits}" for path in _paths(runs)))
    shared = Path(os.path.commonpath([folder.parent for folder in folders]))
    return {_name(folder, shared): folder for folder in folders}


def missing_runs(runs: Run | str | Path | Sequence[Run | str | Path]) -> list[Path]:
    """Those of `runs`, as for `runs_named`, that do not exist yet."""
    return [path for path in _paths(runs) if _missing(path)]


def _paths(runs: Run | str | Path | Sequence[Run | str | Path]) -> list[Path]:
    sources = [runs] if isinstance(runs, Run | str | Path) else runs
    return list(dict.fromkeys((run.dir if isinstance(run, Run) else resolve(run)).resolve() for run in sources))


def _missing(folder: Path) -> bool:
    return not (folder / "config.yaml").is_file() or not (folder / "status.json").is_file()


def _name(folder: Path, root: Path) -> str:
    """What a run is called: its path below `root`; a point of a study by its setting and seed."""
    name = folder.relative_to(root).as_posix()
    for place in (folder, folder.parent):
        with suppress(KeyError, ValueError, OSError):
            point = read_json(place / "point.json")
            return f"{point['setting']}, seed {point['seed']} ({place.name[:6]})"
    return name


def worth_watching(folders: dict[str, Path]) -> list[str]:
    """Names of the running runs; where none is running, of the most recent one."""
    running = [name for name, folder in folders.items() if _status(folder) in UNDER_WAY]
    return running or [max(folders, key=lambda name: (folders[name] / "status.json").stat().st_mtime_ns)]


def _status(folder: Path) -> str:
    status = read_json(folder / "status.json").get("status", "new")
    return "stopped" if status == "running" and not is_held(folder) else status


def _stamp(folder: Path, before: Glance | None) -> tuple:
    """A value that changes when a file of a run changes, or a process starts or stops working on it."""
    stamps = []
    for name in _FILES:
        try:
            stat = (folder / name).stat()
            stamps.append((stat.st_mtime_ns, stat.st_size))
        except FileNotFoundError:
            stamps.append(None)
    # A process that was killed leaves every file as it is.
    return (*stamps, before is not None and before.status == "running" and not is_held(folder))


def _read(run: Run) -> Glance:
    progress = run.progress
    left = _seconds_left(run, progress)
    return Glance(
        with_speed(run),
        progress,
        run.result,
        tuple(run.samples),
        _status(run.dir),
        references(run.config),
        left,
        flatten(run.config.to_dict()),
    )


def _seconds_left(run: Run, progress: dict) -> float | None:
    timings = run.timings.tail(_RECENT)
    if "seconds" not in timings or len(timings) < 2 or not progress.get("total_steps"):
        return None
    (first, last), (began, now) = timings["step"].iloc[[0, -1]], timings["seconds"].iloc[[0, -1]]
    return float((now - began) / (last - first) * (progress["total_steps"] - 1 - last))
