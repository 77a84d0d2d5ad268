"""The run directory: everything a run leaves behind, readable without the package.

config.yaml, environment.json, metrics.csv, snapshots/step-N.safetensors, samples/step-N.png, status.json, result.json,
bad_files.csv, TensorBoard events and, until it is finished, state.pt to resume from.
"""

import csv
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from .._version import __version__
from ..config import RunConfig, diff, load_config, resolve
from ..errors import InputError


@dataclass
class Run:
    """A run directory. `metrics` and `status` are read anew at each access, so a running run can be watched."""

    dir: Path
    config: RunConfig

    @property
    def metrics(self) -> pd.DataFrame:
        """One row every `train.log_every` steps: step, loss, loss_*, rate, clips_per_second, ..."""
        path = self.dir / "metrics.csv"
        return pd.read_csv(path) if path.is_file() and path.stat().st_size else pd.DataFrame({"step": []})

    @property
    def status(self) -> str:
        """new, running, finished, interrupted or failed."""
        return self.progress.get("status", "new")

    @property
    def progress(self) -> dict:
        """Contents of status.json: status, step, total_steps, notes, updated."""
        return read_json(self.dir / "status.json")

    @property
    def result(self) -> dict:
        """Contents of result.json; empty until the run is finished."""
        return read_json(self.dir / "result.json")

    def record(self, **results) -> dict:
        """Add entries to result.json, such as the scores of a probe; returns all of it."""
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
    return Run(folder, load_config(folder))


def open_run(out: str | Path, cfg: RunConfig, resume: str = "auto") -> Run:
    """Make a run directory or come back to one; its config.yaml is written before anything else happens.

    resume: "auto" continues what is there, "never" wants a new directory, "must" an existing run.
    Raises InputError naming the directory, and for a run of another configuration each setting that differs.
    """
    if resume not in ("auto", "never", "must"):
        raise InputError(f"resume: {resume!r} is not one of auto, never, must")
    folder = resolve(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file is in the way of the run directory")
    if not (folder / "config.yaml").is_file():
        if resume == "must":
            raise InputError(f"{folder}: there is no run to resume")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "config.yaml", cfg.to_yaml())
        except OSError as error:
            raise InputError(f"{folder}: the run directory cannot be made: {error.strerror or error}") from None
        return Run(folder, cfg)
    if resume == "never":
        raise InputError(f"{folder}: already holds a run; choose another directory or resume='auto'")
    changes = diff(load_config(folder), cfg)
    if changes:
        lines = [f"  {row['key']}: {row['a']} there, {row['b']} asked for" for row in changes]
        raise InputError(
            f"{folder}: holds a run of another configuration; choose another directory or the same settings\n"
            + "\n".join(lines)
        )
    return Run(folder, cfg)


class MetricsLog:
    """metrics.csv: rows are appended and flushed; on resume those at or after the step are cut."""

    def __init__(self, path: Path, start: int):
        self.path, self.columns = path, None
        if path.is_file() and path.stat().st_size:
            kept = pd.read_csv(path, dtype=str, keep_default_na=False)
            kept = kept[kept["step"].astype(int) < start]
            if len(kept):
                self.columns = list(kept.columns)
                write_text(path, kept.to_csv(index=False))
            else:
                path.unlink()

    def write(self, row: dict) -> None:
        """Append a row; columns are those of the first."""
        first = self.columns is None
        self.columns = self.columns or list(row)
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore", lineterminator="\n")
            if first:
                writer.writeheader()
            writer.writerow({k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()})


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # several processes may write it at once
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, content: dict) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def read_json(path: Path) -> dict:
    """Contents of a JSON file, {} when there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def environment(device: torch.device, world: int) -> dict:
    """What a result depends on besides the configuration."""
    import numpy
    import soundfile
    import soxr
    import torchaudio

    return {
        "asit_lab": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchaudio": torchaudio.__version__,
        "numpy": numpy.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "soxr": soxr.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "device_type": device.type,
        "processes": world,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "command": Path(sys.argv[0]).name,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def environment_changes(before: dict, now: dict) -> list[str]:
    """A note for each thing that results depend on to the bit and that differs between two `environment`s."""
    ignored = ("system", "command", "started")
    return [
        f"{name} is {now[name]}, it was {before[name]}: the results are not the same to the bit"
        for name in now
        if name in before and name not in ignored and before[name] != now[name]
    ]
