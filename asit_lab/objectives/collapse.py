"""Measures of collapse: does the answer, or the embedding, still depend on the clip?

Self-distillation has two ways of agreeing about nothing (DINO, arXiv 2104.14294, section 5.3): every clip gets the
uniform distribution, or every clip gets the same single output. In both, the answer says nothing about the clip, so
one number tells them: the information between input and answer, which is near zero in either.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import settings
from .losses import entropy

# A head below any of these has collapsed. Medians over ten rows of healthy runs of `smoke` and `micro`, and of runs set
# up to collapse:
INFORMED = 0.02  # nat of information; healthy 0.07 to 1.3, without centring and sharpening 0.006 to 0.03
ANSWERS = math.e  # outputs in use over all clips; healthy 20 and more, without centring 1.5 to 2
SHARE = 0.08  # of what sets answers apart from uniform, what depends on the clip; healthy 0.15 to 0.8, else to 0.07


@dataclass(frozen=True)
class Criterion:
    """A rule on the rows of metrics.csv that shows when a part of a model has collapsed."""

    part: str
    """of the model: "global head" """
    value: Callable[[Mapping[str, float]], float]
    """row -> a number that is below 1 when it has; nan when the row does not tell"""
    words: Callable[[Mapping[str, float], int], str]
    """(medians over the last rows, steps it has been so) -> what has happened, by which numbers, and what to try"""


def information(probabilities: Tensor) -> Tensor:
    """Mutual information between a row and its answer, nats: [n, K] -> scalar >= 0.

    Entropy of the mean row minus mean entropy of the rows. 0 when all rows are alike, whatever they are; at most
    ln n and ln K, so few rows tell less than there is.
    """
    return (entropy(probabilities.mean(0)) - entropy(probabilities)).clamp(min=0.0)


def spread(embeddings: Tensor) -> Tensor:
    """How far embeddings [n, D] point in different directions: scalar from 0 (all the same) to 1.

    Root of the summed variances of the normalised rows: SimSiam's measure of collapse (arXiv 2011.10566, section 4.1)
    times root D.
    """
    return F.normalize(embeddings.float(), dim=-1).var(0, correction=0).sum().sqrt()


def effective_rank(embeddings: Tensor) -> Tensor:
    """Directions that embeddings [n, D] really use: scalar from 1 to min(n - 1, D).

    Exponential of the entropy of the normalised singular values (Roy and Vetterli, EUSIPCO 2007), after the mean
    embedding was taken away, which would hide all others. 1 when all are the same.
    """
    values = torch.linalg.svdvals(embeddings.float() - embeddings.float().mean(0))
    return entropy(values / values.sum().clamp(min=1e-12)).exp()


def head_criterion(objective: settings.ObjectiveSettings, head: str, outputs: int) -> Criterion:
    """Collapse of a distillation head ("local", "global") with that many outputs."""
    uniform = math.log(outputs)

    def value(row: Mapping[str, float]) -> float:
        entropy_, information_ = row.get(f"entropy_{head}", math.nan), row.get(f"information_{head}", math.nan)
        share = information_ / max(uniform - entropy_, 1e-6)
        return min(information_ / INFORMED, math.exp(entropy_ + information_) / ANSWERS, share / SHARE)

    def words(row: Mapping[str, float], steps: int) -> str:
        entropy_, information_ = row[f"entropy_{head}"], row[f"information_{head}"]
        outcome, remedy = _collapsed_to(objective, math.exp(entropy_ + information_), outputs)
        return (
            f"the {head} head has collapsed to {outcome}: loss {row[f'loss_{head}']:.2f}, entropy of the teacher "
            f"{entropy_:.2f} (ln {outputs} = {uniform:.2f}), information about the input {information_:.2g} nat for "
            f"{steps} steps; "
            f"try {remedy}"
        )

    return Criterion(f"{head} head", value, words)


def contrast_criterion(clips: int) -> Criterion:
    """Collapse of a contrastive global loss among that many clips: its distance from ln(clips) is a lower bound of the
    information between the two views (van den Oord et al., arXiv 1807.03748, section 2.3)."""
    nothing = math.log(clips)

    def value(row: Mapping[str, float]) -> float:
        chance = row.get("chance_global", nothing)  # lower where a batch holds several clips of a recording
        if chance < INFORMED:  # of one recording: there is nothing to tell apart
            return math.nan
        return (chance - row.get("loss_global", math.nan)) / INFORMED

    def words(row: Mapping[str, float], steps: int) -> str:
        return (
            f"the global head has collapsed: it does not tell one clip from another, loss {row['loss_global']:.2f} "
            f"(ln {clips} = {nothing:.2f}) for {steps} steps; try a lower optim.rate or "
            "objective.contrastive_temperature, or a longer optim.warmup"
        )

    return Criterion("global head", value, words)


def _collapsed_to(objective: settings.ObjectiveSettings, used: float, outputs: int) -> tuple[str, str]:
    """(what a head has collapsed to, what to try) by the number of outputs in use.

    Sharpening keeps a head from the uniform answer, centring from a single one (DINO, section 5.3).
    """
    start, end = objective.teacher_temperature, objective.teacher_temperature_end
    sharpen = (
        f"lower objective.teacher_temperature and objective.teacher_temperature_end ({start:g} and {end:g}; "
        f"{objective.student_temperature:g} is the student's)"
    )
    centre = f"objective.centre_momentum below {objective.centre_momentum:g}"
    if used > 0.8 * outputs:
        return "uniform", sharpen
    if used < ANSWERS:
        return "one output", f"{centre}, or a lower optim.rate"
    return "the same answer for every clip", f"{centre} and {sharpen}"
