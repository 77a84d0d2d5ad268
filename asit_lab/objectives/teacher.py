"""The teacher: an exponential moving average of the student that never gets a gradient."""

import copy

import torch
from torch import nn

from .. import settings
from ..schedules import cosine, linear
from ..settings import steps_of


def make_teacher(student: nn.Module) -> nn.Module:
    """A copy with the student's weights, none of which takes a gradient."""
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, over every parameter; buffers are copied.

    What is the same in both, as a frozen backbone, stays as it is to the bit.
    """
    averages, weights = list(teacher.parameters()), [p.detach() for p in student.parameters()]
    torch._foreach_lerp_(averages, weights, 1.0 - momentum)
    for copy_, buffer in zip(teacher.buffers(), student.buffers(), strict=True):
        copy_.copy_(buffer)


def ema_momentum(objective: settings.ObjectiveSettings, steps_per_epoch: int, total: int, step: int) -> float:
    """Momentum of the teacher's update after optimiser step `step` (from 0) of a run of `total` steps.

    The linear one counts updates as fairseq does: after the first it is one part of the way from start to end.
    """
    length = steps_of(objective.ema_length, steps_per_epoch, total)
    if objective.ema_shape == "linear":
        return linear(objective.ema, objective.ema_end, length + 1, step + 1)
    return cosine(objective.ema, objective.ema_end, length, step)
