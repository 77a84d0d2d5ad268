"""Trains a finished run longer: a new run directory that continues from the final state of another run.

Weights, heads, centres, teacher, optimiser moments and position in the data are copied; metrics.csv begins with the
earlier rows. Schedules are stretched to the new length and continue at the step that was reached, so a cosine that had
decayed is higher again there and decays towards the new end.
"""

import shutil
from pathlib import Path

import torch

from ..config import RunConfig, diff
from ..errors import InputError
from ..runs.directory import SETTINGS_WITHOUT_EFFECT, Run, load_run
from ..runs.snapshot import read_state
from ..storage.atomic import atomic_write, read_json, write_json
from .optimizer import rates_of

ORIGIN = "resumed_from.json"
"""the run and step that a run continues from"""
_MAY_CHANGE = {
    *("name", "train.steps", "train.epochs", "train.log_every", "train.snapshots", "train.accumulate"),
    *("train.precision", *SETTINGS_WITHOUT_EFFECT),
    *(f"optim.{key}" for key in ("rate", "rate_batch", "min_rate", "warmup", "weight_decay", "weight_decay_end")),
    *("optim.clip", "optim.clip_by"),
}


_TAKEN = ("metrics.csv", "timings.csv", "state.pt")  # in this order


def check_source(source: str | Path, cfg: RunConfig) -> Run:
    """The run to continue from. Raises InputError where it has no state, or its settings do not fit `cfg`."""
    run = load_run(source)
    if not run.state.is_file():
        raise InputError(
            f"resume_from: {run.dir} has no state.pt (versions before 0.2 removed it at the end); start from its "
            f"weights with train.init_from={run.dir}"
        )
    changes = [row for row in diff(run.config, cfg) if row["key"] not in _MAY_CHANGE]
    if changes:
        lines = [f"  {row['key']}: {row['a']} there, {row['b']} requested" for row in changes]
        raise InputError(
            f"resume_from: {run.dir} was trained with other settings; a longer run may change its length, rates and "
            "what is written. Or start from its weights alone, with train.init_from\n" + "\n".join(lines)
        )
    missing = [name for name in ("status.json", *_TAKEN) if not (run.dir / name).is_file()]
    if missing:
        raise InputError(
            f"resume_from: {run.dir} lacks {', '.join(missing)}; start from its weights: train.init_from={run.dir}"
        )
    state = read_state(run.state, torch.device("cpu"))
    step, total = state["step"], cfg.total_steps(state["clips"])
    if total <= step:
        raise InputError(
            f"resume_from: {run.dir} has {step} steps and the longer run would have {total}; set train.steps or "
            "train.epochs to more"
        )
    return run


def take_over(run: Run, source: Run) -> None:
    """Copy state and rows of `source` into a new run directory; the state last, since it makes the run resumable."""
    write_json(run.dir / ORIGIN, {"run": str(source.dir), "step": source.progress["step"]})
    for name in _TAKEN:
        with atomic_write(run.dir / name) as temporary:
            shutil.copyfile(source.dir / name, temporary)


def origin_notes(run: Run, cfg: RunConfig, clips: int, total: int) -> list[str]:
    """Notes on where a run's first steps come from, and on its stretched schedules."""
    origin = read_json(run.dir / ORIGIN)
    return [origin_note(origin["run"], origin["step"], cfg, clips, total)] if origin else []


def origin_note(source: str | Path, step: int, cfg: RunConfig, clips: int, total: int) -> str:
    """Says that the first `step` of `total` steps are those of the run `source`, and how schedules continue."""
    rate = rates_of(cfg, clips, step)["rate"]
    return (
        f"the first {step} steps are those of {source}; schedules are stretched to {total} steps, so "
        f"the rate goes on at {rate:.3g}"
    )
