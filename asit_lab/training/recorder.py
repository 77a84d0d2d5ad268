"""Writes and shows the progress of a run: rows, snapshots, pictures, states (the first process only)."""

import time
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from ..config import RunConfig
from ..data import Batch
from ..errors import InputError
from ..objectives import Objective
from ..runs.directory import Run, StepLog
from ..runs.snapshot import besides, save_snapshot, save_state
from ..storage.atomic import naming, write_json
from ..storage.progress import bar_style
from .collapse_watch import Watch


class Recorder:
    """Rows, snapshots, pictures, states and the progress of a run.

    start: step the run resumes at; seconds: of training up to it, over all starts.
    on_log: called with the run and each row after it was written, in place of the progress bar.
    """

    def __init__(self, run: Run, cfg: RunConfig, start: int, total: int, seconds: float, notes: list[str], on_log):
        self.run, self.cfg, self.total, self.notes, self.on_log = run, cfg, total, notes, on_log
        self.metrics = StepLog(run.dir / "metrics.csv", start)
        self.timings = StepLog(run.dir / "timings.csv", start)
        try:
            self.watch, self.verdict = Watch(cfg, run.metrics.to_dict("records")), None
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{run.dir}/metrics.csv: cannot be read: {error}; without the file, the run resumes"
            ) from None
        self.board = tensorboard(run.dir, start)
        self.bar = tqdm(total=total, initial=start, unit="step", disable=on_log is not None, **bar_style())
        self.seconds_before, self.began = seconds, time.perf_counter()
        self.last_row = start - 1, self.seconds
        self.saved = start  # the step that a resume would start at
        self.status("running")

    @property
    def seconds(self) -> float:
        """Seconds of training so far, over all starts that count."""
        return self.seconds_before + time.perf_counter() - self.began

    def row(self, row: dict) -> None:
        """A row of metrics. Its speed has a file of its own, as it is another one each time."""
        step, seconds = row["step"], self.seconds
        before, seconds_before = self.last_row
        self.last_row = step, seconds
        speed = (step - before) * self.cfg.train.batch_size / (seconds - seconds_before)
        self.metrics.write(row)
        self.timings.write({"step": step, "seconds": seconds, "clips_per_second": speed})
        with_speed = {**row, "clips_per_second": speed}
        write_scalars(self.board, with_speed)
        self.bar.set_postfix_str(one_line(with_speed), refresh=False)
        self._judge(step, row)
        if self.on_log:
            self.on_log(self.run, with_speed)

    def _judge(self, step: int, row: dict) -> None:
        """Report once when a run has collapsed, and when it has recovered."""
        before, self.verdict = self.verdict, self.watch.see(row)
        if self.verdict and (before is None or before.parts != self.verdict.parts):
            tqdm.write(f"step {step}: {self.verdict.text}")
            self.status("running")
        elif before and not self.verdict:
            tqdm.write(f"step {step}: no longer collapsed")
            self.status("running")

    @property
    def requested(self) -> str | None:
        """A reason to stop, one of STOPS, found in the rows so far."""
        return "collapsed" if self.verdict and self.cfg.train.on_collapse == "stop" else None

    def snapshot(self, done: int, objective: Objective, pictured: Batch | None) -> None:
        """The weights after `done` steps, and their reconstructions of some clips."""
        path = self.run.dir / f"snapshots/step-{done}.safetensors"
        # With the configuration the run was made with: how many loaders it has by now is not part of its weights.
        save_snapshot(path, objective.student, objective.teacher, self.run.config, done, besides(objective))
        picture = self.run.dir / f"samples/step-{done}.png"
        with naming(picture):
            save_samples(picture, objective, pictured, self.cfg, self.board, done)

    def state(self, done: int, content: dict) -> None:
        """The state to resume from after `done` steps; rows up to it are on the disk first."""
        self.metrics.sync()
        self.timings.sync()
        save_state(self.run.state, {"step": done, "seconds": self.seconds, **content})
        self.saved = done
        self.status("running")

    def finish(self, result: dict) -> None:
        """Write the run's result. The state stays, so that the run can be trained longer (extend.py)."""
        last = {name: value for name, value in self.run.metrics.iloc[-1].items() if name.startswith(_LAST)}
        write_json(self.run.dir / "result.json", {**result, "bad_files": len(self.run.bad_files), "last": last})
        self.status("finished")

    def status(self, status: str) -> None:
        """Write the run's progress to status.json."""
        about = {"step": self.saved, "total_steps": self.total, "notes": self.notes, "seconds": round(self.seconds, 3)}
        health = {"health": self.verdict.text} if self.verdict else {}
        set_status(self.run, status, **about, **health)

    def close(self) -> None:
        """End the progress bar and TensorBoard's events."""
        self.bar.close()
        if self.board:
            with suppress(OSError):  # a full disk was met before, at something that matters more
                self.board.close()


# Columns of metrics.csv that result.json has the last value of begin like this.
_LAST = ("loss", "entropy", "information", "centre", "target_variance", "prediction_variance")


def set_status(run: Run, status: str, **about) -> None:
    """Write status.json."""
    write_json(run.dir / "status.json", {"status": status, **about, "updated": time.strftime("%Y-%m-%dT%H:%M:%S%z")})


def reached(run: Run) -> dict:
    """Entries of status.json on the progress so far; step is the one a resume starts at."""
    keys = ("step", "total_steps", "notes", "seconds", "health")
    return {name: value for name, value in run.progress.items() if name in keys}


# --- Progress line, TensorBoard, pictures: the last two where their libraries are installed ----------


def one_line(row: dict) -> str:
    """Losses and speed of a metrics row in a few words."""
    losses = [f"{name.removeprefix('loss_')} {value:.3f}" for name, value in row.items() if name.startswith("loss")]
    speed = [f"{row['clips_per_second']:.1f} clips/s"] if "clips_per_second" in row else []
    return ", ".join(losses + speed)


def tensorboard(folder: Path, start: int):
    """A SummaryWriter into the run directory that forgets events from step `start` on, or None without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=start)


def write_scalars(board, row: dict) -> None:
    """A metrics row to TensorBoard."""
    if board is not None:
        for name, value in row.items():
            if name != "step":
                board.add_scalar(name, value, row["step"])


def save_samples(path: Path, objective: Objective, batch: Batch | None, cfg: RunConfig, board, step: int) -> None:
    """Draw clean, corrupted, reconstructed and error of a few clips to a PNG (and TensorBoard), read on bright and on
    dark pages; needs matplotlib."""
    if batch is None:
        return
    try:
        from matplotlib.image import imread

        from .. import figures
        from ..figures.style import suit_any_theme
    except ImportError:
        return
    device = next(objective.parameters()).device
    tensors = {name: t.float().cpu().numpy() for name, t in objective.samples(batch.to(device)).items()}
    if not tensors:
        return
    axes = figures.MelAxes.of(cfg.features, normalised=True)
    clips = [
        (clean, corrupted, rebuilt, mask > 0)
        for clean, corrupted, rebuilt, mask in zip(
            tensors["clean"], tensors["corrupted"], tensors["reconstructed"], tensors["mask"], strict=True
        )
    ]
    figure = figures.reconstructions(clips, axes, title=f"held-out clips after {step} steps")
    suit_any_theme(figure)  # the monitor shows it
    figures.save(figure, path)
    if board is not None:
        board.add_image("reconstructions", imread(path), step, dataformats="HWC")
