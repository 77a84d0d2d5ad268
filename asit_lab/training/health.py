"""What goes wrong in a run without an error: collapse, told from its logged rows; and who made a step not finite."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import pandas as pd
import torch
import torch.distributed

from ..config import RunConfig
from ..data import Batch, Manifest
from ..objectives import criteria
from .step import Gradients, Stepper

# A verdict is about the median over the last WINDOW steps and at least ROWS rows: one batch whose clips happen to be
# alike looks like a collapse, ten in a row do not.
WINDOW = 100
ROWS = 5
# Sum of the learning rates from which on rows count. Adam moves a weight by about the rate a step, and weights start
# with a deviation of 0.02: before this they are much what they were drawn as, and an untrained network says little too.
TRAVEL = 0.01

EVALUATIONS = 24  # passes over a batch spent on finding the clips at fault; each halves a group of suspects
NAMED = 8  # files and parameters a message names


# --- Collapse -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a run."""

    kind: str
    """collapsed"""
    what: tuple[str, ...]
    """which parts of the model; the same as before means that nothing new happened"""
    since: int
    """first step of the rows that say so"""
    text: str
    """in plain words: what has collapsed, by which numbers, for how long, what to try"""


class Watch:
    """Tells from the rows of metrics.csv, one after the other, whether a run has collapsed.

    rows: those that are there when a run is resumed. Nothing else is remembered, so the resumed run's verdicts are
    those of an undisturbed one.
    """

    def __init__(self, cfg: RunConfig, rows: Iterable[Mapping] = ()):
        self.criteria = criteria(cfg)
        self.rows: list[dict[str, float]] = []  # the last ones that count
        self.since: dict[str, int] = {}  # of each criterion that is met
        self.travel, self.last_step = 0.0, 0
        self.verdict: Verdict | None = None
        for row in rows:
            self.see(row)

    def see(self, row: Mapping) -> Verdict | None:
        """Take a row of metrics; returns the verdict as of this row, None while nothing is wrong (or no more)."""
        row = {name: float(f"{float(value):.7g}") for name, value in row.items()}  # as metrics.csv has it
        step = int(row["step"])
        self.travel += row["rate"] * (step - self.last_step)
        self.last_step = step
        if self.travel >= TRAVEL:
            self.rows.append(row)
        while len(self.rows) > ROWS and step - self.rows[1]["step"] >= WINDOW:
            self.rows.pop(0)
        if len(self.rows) < ROWS or step - self.rows[0]["step"] < WINDOW:
            return None
        typical = {name: _median(kept.get(name, math.nan) for kept in self.rows) for name in row}
        for criterion in self.criteria:
            if _median(criterion.value(kept) for kept in self.rows) < 1.0:
                self.since.setdefault(criterion.what, int(self.rows[0]["step"]))
            else:
                self.since.pop(criterion.what, None)
        met = [criterion for criterion in self.criteria if criterion.what in self.since]
        text = ". And ".join(criterion.words(typical, step - self.since[criterion.what]) for criterion in met)
        what = tuple(criterion.what for criterion in met)
        self.verdict = Verdict("collapsed", what, min(self.since.values()), text) if met else None
        return self.verdict


def verdict(cfg: RunConfig, metrics: pd.DataFrame) -> Verdict | None:
    """The verdict on a run as of the last row of its metrics; None when nothing is wrong, or nothing can be told."""
    return Watch(cfg, metrics.to_dict("records")).verdict


def _median(values: Iterable[float]) -> float:
    """Of those that are there: a step may have given nothing to look at. nan when there is none."""
    there = [value for value in values if not math.isnan(value)]
    return median(there) if there else math.nan


# --- Losses and gradients that are not finite -----------------------------------------------------------------------


def not_finite(gradients: Gradients, batch: Batch, train: Manifest, stepper: Stepper) -> str:
    """What to say of a step whose loss or gradient is not finite: where it shows, which files are at fault as far as
    can be found, and how to go on. All processes call it together, before anything was changed by the step.
    """
    values = ", ".join(f"{name} {value.item():.4g}" for name, value in gradients.losses.items())
    text = f"step {batch.step}: loss or gradient is not finite ({values}, gradient norm {gradients.norm.item():.4g})"
    if wrong := _wrong_parameters(stepper):
        text += f"; the gradient of {_some(wrong)} is not"
    reason, rows = _everywhere(stepper, *_at_fault(batch.to(stepper.fabric.device), stepper))
    files = _some(dict.fromkeys(_name(train, row) for row in rows))
    return f"{text}. {_BLAME[reason].format(files=files)}. {_UNTOUCHED}"


_BLAME = {
    "samples": "Samples that are not numbers in {files}; take the files out of the data set or mend them",
    "clips": "At fault by themselves: {files}; take the files out of the data set or mend them",
    "weights": "No file is at fault, silence gives the same: the weights or settings are, so try a lower optim.rate or "
    "optim.clip, or train.precision=fp32, in a new directory (with train.init_from to keep what was learned). Clips of "
    "the batch: {files}",
    "batch": "No clip gives it by itself. Clips of the batch: {files}",
    "nothing": "The same batch gives finite numbers when it is computed again, as after a fault of the hardware. Clips "
    "of the batch: {files}",
}
_UNTOUCHED = (
    "Weights, centres, teacher and optimiser were not touched; started again with resume='auto', the run goes on from "
    "the state it saved last"
)


def _wrong_parameters(stepper: Stepper) -> list[str]:
    """Names of the parameters whose gradient is not finite.

    Clipping by the norm over all of them spreads one that is not finite to all: then nothing can be told.
    """
    named = [(name, p) for name, p in stepper.objective.named_parameters() if p.grad is not None]
    wrong = [name for name, p in named if not torch.isfinite(p.grad.norm())]
    return wrong if len(wrong) < len(named) else []


def _at_fault(batch: Batch, stepper: Stepper) -> tuple[str, list[int]]:
    """(key of _BLAME, rows of the manifest) for this process's part of a batch.

    Suspects are tried with silence in place of all other clips, so that batches keep their size, and halved.
    """
    everyone = batch.index.tolist()
    samples = ~torch.isfinite(batch.waves).flatten(1).all(1)
    if samples.any():
        return "samples", batch.index[samples].tolist()
    if _finite(batch, stepper):
        return "nothing", everyone
    if not _finite(_only(batch, []), stepper):
        return "weights", everyone
    suspects, found = [list(range(len(everyone)))], []
    for _ in range(EVALUATIONS):
        if not suspects:
            break
        group = suspects.pop(0)
        if len(group) < len(everyone) and _finite(_only(batch, group), stepper):
            continue
        if len(group) == 1:
            found += group
        else:
            suspects += [group[: len(group) // 2], group[len(group) // 2 :]]
    found += [place for group in suspects for place in group]  # as far as they could be told apart
    return ("clips", [everyone[place] for place in found]) if found else ("batch", everyone)


def _only(batch: Batch, places: list[int]) -> Batch:
    """The batch with silence in place of all clips but those."""
    waves = torch.zeros_like(batch.waves)
    waves[places] = batch.waves[places]
    return Batch(waves, batch.lengths, batch.index, batch.position, batch.step)


def _finite(batch: Batch, stepper: Stepper) -> bool:
    """Whether losses and gradients of a batch are finite; changes neither gradients nor anything else that is kept."""
    bf16 = stepper.cfg.train.precision == "bf16"
    for part in batch.split(stepper.cfg.train.accumulate):
        with torch.autocast(stepper.fabric.device.type, torch.bfloat16, enabled=bf16):  # as Stepper computes
            total = stepper.objective(part, batch.step).total
        slopes = torch.autograd.grad(total, stepper.parameters, allow_unused=True)
        norms = [slope.norm() for slope in slopes if slope is not None]
        if not torch.isfinite(torch.stack([total.detach(), *norms])).all():
            return False
    return True


def _everywhere(stepper: Stepper, reason: str, rows: list[int]) -> tuple[str, list[int]]:
    """The reason that says most among those of all processes, with the rows of the processes that gave it."""
    found = [(reason, rows)]
    if stepper.fabric.world_size > 1:
        found = [None] * stepper.fabric.world_size
        torch.distributed.all_gather_object(found, (reason, rows))
    first = min((reason for reason, _ in found), key=list(_BLAME).index)
    return first, [row for reason, rows in found if reason == first for row in rows]


def _name(train: Manifest, row: int) -> str:
    """A file, and where in it when the clip is not its beginning."""
    path, start = train.table["path"].iloc[row], train.table["start"].iloc[row]
    return f"{path} (from {start:g} s)" if start > 0 else str(path)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
