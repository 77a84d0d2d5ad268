"""The run directory: everything a run leaves behind, readable without the package.

config.yaml, environment.json, metrics.csv, timings.csv, snapshots/step-N.safetensors, samples/step-N.png, status.json,
result.json, bad_files.csv, TensorBoard events and state.pt, to resume from and to train longer.
"""

import csv
import io
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock

from ..config import RunConfig, diff, load_config, resolve
from ..errors import InputError
from ..storage.atomic import clear_leftovers, naming, read_json, sync, write_json, write_text
from ..storage.lock import only_writer

# Settings that a run may be continued with another value of: nothing that it ends with depends on them.
SETTINGS_WITHOUT_EFFECT = (
    "data.workers",
    "data.cache_mb",
    "data.max_bad_share",
    "train.checkpoint_every",
    "train.on_collapse",
)


@dataclass
class Run:
    """A run directory, accepted wherever the path of one is. `metrics` and `status` are read anew at each access, so a
    running run can be watched."""

    dir: Path
    config: RunConfig

    def __fspath__(self) -> str:
        return str(self.dir)

    @property
    def metrics(self) -> pd.DataFrame:
        """One row every `train.log_every` steps: step, loss, loss_*, rate, ..."""
        return _read_log(self.dir / "metrics.csv")

    @property
    def timings(self) -> pd.DataFrame:
        """A row for each of `metrics`: step, seconds of training so far, clips_per_second since the row before."""
        return _read_log(self.dir / "timings.csv")

    @property
    def status(self) -> str:
        """new, running, finished, interrupted, terminated or failed."""
        return self.progress.get("status", "new")

    @property
    def progress(self) -> dict:
        """Contents of status.json: status, step, total_steps, notes, seconds, health, reason, updated."""
        return read_json(self.dir / "status.json")

    @property
    def result(self) -> dict:
        """Contents of result.json; empty until the run is finished."""
        return read_json(self.dir / "result.json")

    def record(self, **results) -> dict:
        """Add entries to result.json, such as the scores of a probe; returns all of it.

        Several processes may record at the same time: none loses another's entries.
        """
        with FileLock(self.dir / ".result.lock"):
            write_json(self.dir / "result.json", {**self.result, **results})
            return self.result

    @property
    def bad_files(self) -> pd.DataFrame:
        """Files that were skipped: path, reason."""
        path = self.dir / "bad_files.csv"
        return pd.read_csv(path) if path.is_file() else pd.DataFrame({"path": [], "reason": []})

    @property
    def snapshots(self) -> list[Path]:
        """Saved weights, oldest first."""
        return sorted(self.dir.glob("snapshots/step-*.safetensors"), key=lambda p: int(p.stem.split("-")[1]))

    @property
    def samples(self) -> list[Path]:
        """Pictures of reconstructions, oldest first."""
        return sorted(self.dir.glob("samples/step-*.png"), key=lambda p: int(p.stem.split("-")[1]))

    @property
    def state(self) -> Path:
        """Where the state to resume from is kept."""
        return self.dir / "state.pt"


def load_run(path: str | Path) -> Run:
    """Open an existing run directory. Raises InputError when it is not one."""
    folder = resolve(path)
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: not a run directory (it has no config.yaml)")
    return Run(folder, _configuration(folder))


def _configuration(folder: Path) -> RunConfig:
    try:
        return load_config(folder)
    except InputError as error:
        text = str(error)
        raise InputError(text if str(folder) in text else f"{folder}/config.yaml: {text}") from None


def open_run(out: str | Path, cfg: RunConfig, resume: str = "auto", hold: ExitStack | None = None) -> Run:
    """Make a run directory or come back to one; its config.yaml is written before anything else happens.

    resume: "auto" resumes an existing run, "never" requires a new directory, "must" an existing run.
    hold: keeps every other process from writing there until it is closed (a finished run needs none of that).
    The Run has the configuration it was made with; settings among SETTINGS_WITHOUT_EFFECT may differ now. One that
    failed before its first step, for data that were not there, say, makes way for another configuration under
    resume="auto". Raises InputError naming the directory, and for a run of another configuration each setting that
    differs.
    """
    if resume not in ("auto", "never", "must"):
        raise InputError(f"resume: {resume!r} is not one of auto, never, must")
    if not os.fspath(out):
        raise InputError("out: empty; give a directory for the run")
    folder = resolve(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file is in the way of the run directory")
    holds_run = (folder / "config.yaml").is_file()
    if resume == "must" and not holds_run:
        raise InputError(f"{folder}: there is no run to resume")
    if resume == "never" and holds_run:
        raise InputError(f"{folder}: already holds a run; choose another directory or resume='auto'")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if hold and read_json(folder / "status.json").get("status") != "finished":
            hold.enter_context(only_writer(folder))
            for place in (folder, folder / "snapshots", folder / "samples") if holds_run else ():
                clear_leftovers(place)
        if not (folder / "config.yaml").is_file():
            write_text(folder / "config.yaml", cfg.to_yaml())
    except OSError as error:
        raise InputError(f"{folder}: the run directory cannot be made: {error.strerror or error}") from None
    run = Run(folder, _configuration(folder))
    changes = diff(run.config, cfg, ignore=("name", *SETTINGS_WITHOUT_EFFECT))
    if changes and resume == "auto" and _failed_at_once(run):
        if hold:
            _begin_again(run, cfg)
        return Run(folder, cfg)
    if changes:
        lines = [f"  {row['key']}: {row['a']} there, {row['b']} requested" for row in changes]
        raise InputError(
            f"{folder}: holds a run of another configuration; choose another directory or the same settings\n"
            + "\n".join(lines)
        )
    return run


def _failed_at_once(run: Run) -> bool:
    """Whether it failed before its first step, for a mistake in its data, say: nothing of it is worth keeping."""
    trained = run.snapshots or any((run.dir / name).exists() for name in ("metrics.csv", "state.pt"))
    return run.status == "failed" and not trained


def _begin_again(run: Run, cfg: RunConfig) -> None:
    """Make a directory that of a new run of another configuration."""
    try:
        write_text(run.dir / "config.yaml", cfg.to_yaml())
        (run.dir / "bad_files.csv").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{run.dir}: cannot be written to: {error.strerror or error}") from None


class StepLog:
    """A CSV whose rows begin with a step: rows are appended; on resume those at or after the step are cut.

    What a killed process left of a row is cut too.
    """

    def __init__(self, path: Path, start: int):
        self.path, self.columns = path, None
        lines = _whole_lines(path)
        try:
            earlier = [line for line in lines[1:] if int(line.partition(",")[0]) < start]
        except ValueError as error:
            raise InputError(
                f"{path}: a row does not begin with a step: {error}; without the file, the run resumes"
            ) from None
        if earlier:
            self.columns = lines[0].rstrip("\n").split(",")
            write_text(path, "".join([lines[0], *earlier]))
        else:
            path.unlink(missing_ok=True)

    def write(self, row: dict) -> None:
        """Append a row; columns are those of the first."""
        first = self.columns is None
        self.columns = self.columns or list(row)
        with naming(self.path), self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore", lineterminator="\n")
            if first:
                writer.writeheader()
            writer.writerow({k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()})

    def sync(self) -> None:
        """Bring the rows to the disk itself."""
        if self.columns:
            sync(self.path)


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file that were written to their end."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return lines if not lines or lines[-1].endswith("\n") else lines[:-1]


def _read_log(path: Path) -> pd.DataFrame:
    text = "".join(_whole_lines(path))
    return pd.read_csv(io.StringIO(text)) if text else pd.DataFrame({"step": pd.Series(dtype="int64")})
