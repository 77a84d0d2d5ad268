"""Finds the files or parameters behind a loss or gradient that is not finite."""

from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.distributed

from ..arithmetic import autocast
from ..data import Batch, Manifest
from ..data.crops import path_in_epoch, steps_of_epoch
from ..objectives.processes import alone
from .step import Gradients, Stepper

EVALUATIONS = 24  # passes over a batch spent on finding the clips at fault; each halves a group of suspects
NAMED = 8  # files and parameters a message names


def not_finite(gradients: Gradients, batch: Batch, train: Manifest, stepper: Stepper) -> str:
    """What to say of a step whose loss or gradient is not finite: where it shows, which files are at fault as far as
    can be found, and how to go on. All processes call it together, before anything was changed by the step.
    """
    values = ", ".join(f"{name} {value.item():.4g}" for name, value in gradients.losses.items())
    text = f"step {batch.step}: loss or gradient is not finite ({values}, gradient norm {gradients.norm.item():.4g})"
    if wrong := _wrong_parameters(stepper):
        text += f"; the gradient of {_few(wrong)} is not"
    reason, rows = _everywhere(stepper, *_at_fault(batch.to(stepper.fabric.device), stepper))
    epoch = batch.step // steps_of_epoch(stepper.cfg.train.batch_size, len(train))
    files = _few(dict.fromkeys(_name(train, row, stepper.cfg.train.seed, epoch) for row in rows))
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
    "Weights, centres, teacher and optimiser were not touched; started again with resume='auto', the run resumes from "
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
    suspects, faulty = [list(range(len(everyone)))], []
    for _ in range(EVALUATIONS):
        if not suspects:
            break
        group = suspects.pop(0)
        if len(group) < len(everyone) and _finite(_only(batch, group), stepper):
            continue
        if len(group) == 1:
            faulty += group
        else:
            suspects += [group[: len(group) // 2], group[len(group) // 2 :]]
    faulty += [place for group in suspects for place in group]  # as far as they could be told apart
    return ("clips", [everyone[place] for place in faulty]) if faulty else ("batch", everyone)


def _only(batch: Batch, places: list[int]) -> Batch:
    """The batch with silence in place of all clips but those."""
    waves = torch.zeros_like(batch.waves)
    waves[places] = batch.waves[places]
    return replace(batch, waves=waves)


def _finite(batch: Batch, stepper: Stepper) -> bool:
    """Whether losses and gradients of a batch are finite; changes neither gradients nor anything else that is kept."""
    arithmetic = autocast(stepper.cfg.train.precision, stepper.fabric.device.type)  # as Stepper computes
    for part in batch.split(stepper.cfg.train.accumulate):
        with alone(), arithmetic:
            total = stepper.objective(part, batch.step).total
        slopes = torch.autograd.grad(total, stepper.parameters, allow_unused=True)
        norms = [slope.norm() for slope in slopes if slope is not None]
        if not torch.isfinite(torch.stack([total.detach(), *norms])).all():
            return False
    return True


def _everywhere(stepper: Stepper, reason: str, rows: list[int]) -> tuple[str, list[int]]:
    """The reason that says most among those of all processes, with the rows of the processes that gave it."""
    findings = [(reason, rows)]
    if stepper.fabric.world_size > 1:
        findings = [None] * stepper.fabric.world_size
        torch.distributed.all_gather_object(findings, (reason, rows))
    first = min((reason for reason, _ in findings), key=list(_BLAME).index)
    return first, [row for reason, rows in findings if reason == first for row in rows]


def _name(train: Manifest, row: int, seed: int, epoch: int) -> str:
    """A file, and where in it when the clip is not its beginning."""
    path, start = train.table["path"].iloc[row], train.table["start"].iloc[row]
    path = path_in_epoch(path, seed, epoch)
    return f"{path} (from {start:g} s)" if start > 0 else path


def _few(names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest
