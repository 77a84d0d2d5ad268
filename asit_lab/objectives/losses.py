"""The losses as pure functions: of ASiT (arXiv 2211.13189, section III; self-distillation as in DINO, 2104.14294) and
of ASDA (arXiv 2507.02666, released code, which follows data2vec 2.0, 2212.07525).

ASiT: teacher probabilities are softmax((t - centre) / teacher temperature): the centre keeps one output from winning
for all clips, the low temperature keeps the outputs from becoming uniform. The student's are
log-softmax(s / temperature).
ASDA: the student regresses what the teacher's blocks made of the clip; `latent_targets` says how they are normalised.

    >>> p = teacher_probabilities(teacher_logits, centre, 0.04)
    >>> loss = cross_entropy(student_logits, p, 0.1).mean()
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError


def _full(x: Tensor) -> Tensor:
    """At least fp32: what came out of bf16 arithmetic is raised before it is summed; fp64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_shapes(loss: str, **tensors: Tensor) -> None:
    """Raise InputError unless all are of one shape: broadcast, they would give a number that means nothing."""
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
        raise InputError(f"{loss}: shapes that are to be the same differ: {shapes}")


def masked_l1(
    reconstruction: Tensor, target: Tensor, mask: Tensor | None = None, count: Tensor | None = None
) -> Tensor:
    """Mean absolute error over the pixels where `mask` is True (None: over all); a scalar.

    All of one shape, such as [B, T, M]. count: divide by this number instead of that of the pixels, for a part of a
    batch whose other parts have more or fewer. Raises InputError when the shapes differ. An empty mask gives 0.
    """
    _check_shapes("masked_l1", reconstruction=reconstruction, target=target, mask=target if mask is None else mask)
    error = (_full(reconstruction) - _full(target)).abs()
    if mask is None:
        return error.mean() if count is None else error.sum() / count
    mask = mask.to(error.dtype)
    return (error * mask).sum() / (mask.sum().clamp(min=1.0) if count is None else count)


def teacher_probabilities(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """Centred and sharpened teacher softmax, fp32: [..., K] and centre [K] -> [..., K]; carries no gradient."""
    return ((_full(logits.detach()) - centre) / temperature).softmax(-1)


def cross_entropy(student: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each row: student logits [..., K] against teacher probabilities [..., K] -> [...].

    Raises InputError when the shapes differ.
    """
    _check_shapes("cross_entropy", student=student, probabilities=probabilities)
    return -(probabilities * (_full(student) / temperature).log_softmax(-1)).sum(-1)


def cross_view_loss(student: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    """Global loss: each view's class token against the teacher's of the other views (equation of L_global); a scalar.

    student, probabilities: [V, B, K] with V views >= 2. Raises InputError for one view or shapes that differ.
    """
    _check_shapes("cross_view_loss", student=student, probabilities=probabilities)
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


def contrastive_loss(student: Tensor, teacher: Tensor, temperature: float, recording: Tensor | None = None) -> Tensor:
    """Global loss of small batches: which clip is this the other view of? A scalar; ln B when nothing tells.

    student, teacher: projections of unit length [V, B, K] with V views >= 2. Each view's row against the teacher's rows
    of another view: cross-entropy of the products over the temperature, the clip's own being right (InfoNCE; between
    student and teacher as in MoCo v3, arXiv 2104.02057). recording: int64 [B]; clips of one recording, and copies of a
    clip, are not told apart. Raises InputError for one view or shapes that differ.
    """
    _check_shapes("contrastive_loss", student=student, teacher=teacher)
    views, clips = student.shape[:2]
    if views < 2:
        raise InputError("contrastive_loss: needs at least two views")
    own = torch.arange(clips, device=student.device)
    related = None if recording is None else related_clips(recording)

    def products(s: int, t: int) -> Tensor:
        logits = _full(student[s]) @ _full(teacher[t]).T / temperature
        return logits if related is None else logits.masked_fill(related, -torch.inf)

    terms = [F.cross_entropy(products(s, t), own) for t in range(views) for s in range(views) if s != t]
    return torch.stack(terms).mean()


def related_clips(recording: Tensor) -> Tensor:
    """Pairs of different clips that are of one recording: int64 [B] -> bool [B, B]."""
    return (recording[:, None] == recording).fill_diagonal_(False)


def entropy(probabilities: Tensor) -> Tensor:
    """Mean entropy of the rows, nats: [..., K] -> scalar; ln K when uniform, 0 when one output takes all."""
    return -(probabilities * probabilities.clamp(min=1e-12).log()).sum(-1).mean()


def uncertainty_weighted(losses: dict[str, Tensor], log_variance: dict[str, Tensor]) -> Tensor:
    """Learned weighting of losses: sum of exp(-s) L + s with s the log variance of each (Kendall et al., CVPR 2018)."""
    return sum(torch.exp(-log_variance[name]) * loss + log_variance[name] for name, loss in losses.items())


# --- ASDA -----------------------------------------------------------------------------------------------------------


def latent_targets(layers: Sequence[Tensor], audio: Tensor | None = None) -> Tensor:
    """What each token is to be predicted as, from what several blocks of the teacher made of it; fp32, no gradient.

    layers: [B, N, D] each; of those with fewer tokens the first are missing, as the class token is before the block it
    joins at. Each channel is normalised over the tokens of its clip, block by block, so that what all tokens of a clip
    have in common is not a target; then each token's mean over blocks, normalised over channels. [B, N, D].
    audio: bool [B, N], tokens that channels are normalised over, of layers with fewer tokens the last; None: all.
    """
    tokens = max(layer.shape[1] for layer in layers)
    total, counted = 0.0, 0.0
    for layer in layers:
        full = _full(layer.detach())
        if audio is None:
            normalised = F.instance_norm(full.transpose(1, 2)).transpose(1, 2)
        else:
            normalised = _normalised_over(full, audio[:, -layer.shape[1] :])
        missing = (0, 0, tokens - layer.shape[1], 0)
        total = total + F.pad(normalised, missing)
        counted = counted + F.pad(torch.ones_like(normalised[..., :1]), missing)
    return F.layer_norm(total / counted, normalised.shape[-1:])


def _normalised_over(layer: Tensor, audio: Tensor) -> Tensor:
    """Instance norm of [B, N, D] by mean and variance of the tokens where `audio`, bool [B, N]."""
    weight = audio[..., None].to(layer.dtype)
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1.0)
    centred = layer - (layer * weight).sum(1, keepdim=True)
    return centred * ((centred.square() * weight).sum(1, keepdim=True) + 1e-5).rsqrt()


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance of each token from its target over the root of the channels: [..., D] twice -> [...]."""
    return (_full(prediction) - _full(target)).square().sum(-1) / target.shape[-1] ** 0.5


def frame_loss(prediction: Tensor, target: Tensor, hidden: Tensor, count: Tensor | None = None) -> Tensor:
    """Mean `squared_error` of the hidden tokens; a scalar.

    prediction: [R, N, D]; target: [B, N, D], of which each clip counts for R / B rows that stand together; hidden:
    bool [R, N]. count: as for `masked_l1`. Raises InputError for shapes that do not fit. Nothing hidden gives 0.
    """
    target = _repeat_per_row("frame_loss", prediction, target)
    _check_shapes("frame_loss", prediction=prediction[..., 0], hidden=hidden)
    count = hidden.sum().clamp(min=1) if count is None else count
    return (squared_error(prediction, target) * hidden).sum() / count


def utterance_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean `squared_error` of class tokens [R, D] against their clips' targets [B, D], rows as in `frame_loss`.

    Raises InputError for shapes that do not fit.
    """
    return squared_error(prediction, _repeat_per_row("utterance_loss", prediction, target)).mean()


def _repeat_per_row(loss: str, prediction: Tensor, target: Tensor) -> Tensor:
    """Each clip's target as often as there are rows of it: [B, ...] -> [R, ...]."""
    copies = len(prediction) // max(1, len(target))
    rows = target.repeat_interleave(copies, dim=0)
    _check_shapes(loss, **{"prediction": prediction, f"target, {copies} times": rows})
    return rows
