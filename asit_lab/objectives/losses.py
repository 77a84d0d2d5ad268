"""The losses of ASiT as pure functions (arXiv 2211.13189, section III; self-distillation as in DINO, 2104.14294).

Teacher probabilities are softmax((t - centre) / teacher temperature): the centre keeps one output from winning for
all clips, the low temperature keeps the outputs from becoming uniform. The student's are log-softmax(s / temperature).

    >>> p = teacher_probabilities(teacher_logits, centre, 0.04)
    >>> loss = cross_entropy(student_logits, p, 0.1).mean()
"""

import torch
from torch import Tensor

from ..errors import InputError


def _full(x: Tensor) -> Tensor:
    """At least fp32: what came out of bf16 arithmetic is raised before it is summed; fp64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def masked_l1(reconstruction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute error over the pixels where `mask` is True (None: over all); a scalar.

    All of one shape, such as [B, T, M]. Raises InputError when the shapes differ. An empty mask gives 0.
    """
    if reconstruction.shape != target.shape or (mask is not None and mask.shape != target.shape):
        shapes = [tuple(t.shape) for t in (reconstruction, target, mask) if t is not None]
        raise InputError(f"masked_l1: reconstruction, target and mask differ in shape: {shapes}")
    error = (_full(reconstruction) - _full(target)).abs()
    if mask is None:
        return error.mean()
    mask = mask.to(error.dtype)
    return (error * mask).sum() / mask.sum().clamp(min=1.0)


def teacher_probabilities(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """Centred and sharpened teacher softmax, fp32: [..., K] and centre [K] -> [..., K]; carries no gradient."""
    return ((_full(logits.detach()) - centre) / temperature).softmax(-1)


def cross_entropy(student: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each row: student logits [..., K] against teacher probabilities [..., K] -> [...]."""
    return -(probabilities * (_full(student) / temperature).log_softmax(-1)).sum(-1)


def cross_view_loss(student: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    """Global loss: each view's class token against the teacher's of the other views (equation of L_global); a scalar.

    student, probabilities: [V, B, K] with V views >= 2. Raises InputError for one view.
    """
    views = len(student)
    if views < 2:
        raise InputError("cross_view_loss: needs at least two views")
    terms = [
        cross_entropy(student[s], probabilities[t], temperature).mean()
        for t in range(views)
        for s in range(views)
        if s != t
    ]
    return torch.stack(terms).mean()


def entropy(probabilities: Tensor) -> Tensor:
    """Mean entropy of the rows, nats: [..., K] -> scalar; ln K when uniform, 0 when one output takes all."""
    return -(probabilities * probabilities.clamp(min=1e-12).log()).sum(-1).mean()


def uncertainty_weighted(losses: dict[str, Tensor], log_variance: dict[str, Tensor]) -> Tensor:
    """Learned weighting of losses: sum of exp(-s) L + s with s the log variance of each (Kendall et al., CVPR 2018)."""
    return sum(torch.exp(-log_variance[name]) * loss + log_variance[name] for name, loss in losses.items())
