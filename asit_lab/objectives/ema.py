"""The teacher: an exponential moving average of the student that never gets a gradient."""

import copy

import torch
from torch import nn


def make_teacher(student: nn.Module) -> nn.Module:
    """A copy with the student's weights, none of which takes a gradient."""
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, over every parameter; buffers are copied."""
    ours, theirs = list(teacher.parameters()), [p.detach() for p in student.parameters()]
    torch._foreach_mul_(ours, momentum)
    torch._foreach_add_(ours, theirs, alpha=1.0 - momentum)
    for mine, other in zip(teacher.buffers(), student.buffers(), strict=True):
        mine.copy_(other)
