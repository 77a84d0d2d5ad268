"""Draws learning curves during a run."""

import math
import time

import pandas as pd
from IPython.display import display

from .. import figures
from ..config import RunConfig
from ..runs.directory import Run
from ..training.recorder import one_line

DRAWING = 0.05  # of a run's time that its curves may take to draw


class LiveCurves:
    """Give it to `asit_lab.pretrain(..., on_log=LiveCurves(cfg))`: draws the curves and a line with the time left.

    One output is updated in place, a picture and a text, so that a notebook executed by papermill keeps the last state
    and nothing else. seconds: between two pictures, at least; drawing takes a twentieth of the run's time at most.
    """

    def __init__(self, cfg: RunConfig, seconds: float = 5.0):
        self.pause = self.seconds = seconds
        self.references = references(cfg)
        self.began = self.drawn = None
        self.first = 0
        self.picture = self.text = None

    def __call__(self, run: Run, row: dict) -> None:
        now = time.perf_counter()
        if self.began is None:
            self.began, self.first = now, row["step"]
        if self.drawn is not None and now - self.drawn < self.pause:
            return
        self.show(run, row, now)
        self.drawn = time.perf_counter()
        self.pause = max(self.seconds, (self.drawn - now) / DRAWING)

    def show(self, run: Run, row: dict, now: float) -> None:
        """Draw the run's metrics as they are."""
        text = {"text/plain": f"step {row['step'] + 1}: {one_line(row)}{self._time_left(run, row, now)}"}
        picture = figures.curves(with_speed(run), self.references)
        if self.picture is None:
            self.text = display(text, raw=True, display_id=True)
            self.picture = display(picture, display_id=True)
        else:
            self.text.update(text, raw=True)
            self.picture.update(picture)

    def _time_left(self, run: Run, row: dict, now: float) -> str:
        steps, total = row["step"] - self.first, run.progress.get("total_steps", 0)
        if self.began is None or steps < 1 or not total or row["step"] + 1 >= total:
            return ""
        minutes, seconds = divmod(round((now - self.began) / steps * (total - row["step"] - 1)), 60)
        return f", {minutes}:{seconds:02d} left of {total} steps"

    def finish(self, run: Run) -> None:
        """Draw the last state."""
        metrics = with_speed(run)
        if len(metrics):
            self.show(run, metrics.iloc[-1].to_dict() | {"step": int(metrics["step"].iloc[-1])}, time.perf_counter())


def with_speed(run: Run) -> pd.DataFrame:
    """A run's metrics with the time since its start (s) and the clips per second of each row."""
    return run.metrics.merge(run.timings.filter(["step", "seconds", "clips_per_second"]), on="step", how="left")


def references(cfg: RunConfig) -> dict[str, tuple[float, str]]:
    """The distillation loss or entropy of a head that has learned nothing: ln K of its outputs."""
    sizes = {"local": cfg.heads.local_out, "global": cfg.heads.global_out}
    return {
        f"{column}_{name}": (math.log(size), f"ln {size}: uniform")
        for name, size in sizes.items()
        for column in ("loss", "entropy")
        if name in cfg.objective.active
    }
