"""Chooses layer, pooling and setting of a probe inside the training clips of each split, never on test clips.

Each candidate (layer, pooling) gets the setting (C or k) with its best inner score. The candidate with the highest
inner score wins, except that among those behind it by less than one standard error of the paired difference the deepest
layer is preferred, and mean+std to mean to class token. The highest of some twenty scores measured on 300 clips is
largely the luckiest; this rule (after the one-standard-error rule of Breiman et al., "Classification and Regression
Trees", 1984, section 3.4.3) yields only to differences the clips can show, and otherwise takes the user's default.
Tested on ESC-10's training folds with three trained and three untrained encoders, choosing on one half of the clips and
scoring on the other: 80.4 % by this rule, 80.1 % by the highest score alone, 80.5 % by always taking the last layer,
81.8 % in hindsight.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..embedding.vectors import POOLED, LayerVectors
from ..errors import InputError
from ..random import key, permutation
from .classifiers import CHOOSING, GRIDS, SETTING, Answer, LinearHead, answers
from .metrics import average_precisions
from .splits import Split, inner_splits

POOL_PREFERENCE = tuple(POOLED)  # most preferred first
MOST_LAYERS = 13  # tried of a deep model, evenly spaced: a ViT-B's 12 blocks and its final output
CHOICE_CLIPS = (
    5000  # used for choosing: accuracy is then known to 0.7 points, and all clips of a large set would take hours
)


class Candidate(NamedTuple):
    """One way to turn a clip's embeddings [layers, 3, D] into a vector."""

    layers: tuple[int, ...] | None
    """one layer, or all layers that are summed; None: the embedding is already a vector"""
    pool: str
    names: tuple[int | str, ...] = ()
    """the layers by the names users know: block numbers, "last" for the final output"""

    def pooled(self, vectors: np.ndarray | LayerVectors) -> np.ndarray:
        """float32 [clips, dim], or [clips, layers, dim] of several layers."""
        if self.layers is None:
            return np.asarray(vectors)
        pooled = vectors[:, self.layers][:, :, POOLED[self.pool]]  # [clips, layers, statistics, D]
        pooled = pooled.reshape(*pooled.shape[:2], -1)
        return pooled if len(self.layers) > 1 else pooled[:, 0]

    def dim(self, vectors: np.ndarray | LayerVectors) -> int:
        """Length of the vector of a clip (in each layer)."""
        return vectors.shape[-1] * (1 if self.layers is None else len(POOLED[self.pool]))


class Fit(NamedTuple):
    """A classifier fitted on the training clips of a split."""

    outputs: np.ndarray
    """float64 [test clips, K], probabilities"""
    chosen: dict[str, Any]
    """layer, pool, C or k, inner (the score they were chosen by; NaN where nothing could be held out), and for
    "weighted" the weights of the layers, {name: share}"""
    candidate: Candidate
    head: LinearHead | None
    """None for nearest neighbours"""


def candidates(
    name: str, vectors: np.ndarray | LayerVectors, protocol: str, pool: str, layer: str | int
) -> list[Candidate]:
    """Layers and poolings to choose from, most preferred first.

    vectors: float [clips, layers, 3, D], or [clips, dim] without a choice. A class token is no candidate in layers
    where it does not exist yet (NaN). Raises InputError for an unknown pool or layer, and where none is left.
    """
    if pool != "auto" and pool not in POOL_PREFERENCE:
        raise InputError(f"pool: {pool!r} is not one of auto, {', '.join(POOL_PREFERENCE)}")
    if vectors.ndim == 2:
        if protocol == "weighted":
            raise InputError(f"{name}: has one embedding a clip and no layers, so there are none to weigh")
        return [Candidate(None, "")]
    last = vectors.shape[1] - 1
    layers = layers_of(layer, last)
    layer_names = {index: "last" if index == last else index for index in layers}
    pools = list(POOL_PREFERENCE) if pool == "auto" else [pool]
    exists = {index: not np.isnan(vectors[:, index, 0]).all() for index in layers if "class" in pools}
    if protocol == "weighted":
        if layer != "auto":
            raise InputError(f"layer: {layer!r}, but the protocol weighted sums all layers; leave it at auto")
        pools = pools[:1]
        used = tuple(index for index in range(last + 1) if pools != ["class"] or exists[index])
        return [Candidate(used, pools[0], tuple("last" if index == last else index for index in used))]
    choices = [
        Candidate((index,), pooling, (layer_names[index],))
        for index in reversed(layers)
        for pooling in pools
        if pooling != "class" or exists[index]
    ]
    if not choices:
        raise InputError(f"{name}: layer {layer} has no class token (model.class_token_at); pool patches instead")
    return choices


def layers_of(layer: str | int, last: int) -> list[int]:
    """Layers to try, ascending; `last` is the number of blocks and of the final output. Raises InputError where there
    are none."""
    if layer == "last":
        return [last]
    if layer == "auto":
        return sorted({round(place) for place in np.linspace(0, last, min(MOST_LAYERS, last + 1))})
    if isinstance(layer, bool) or not isinstance(layer, int) or not -last <= layer <= last:
        raise InputError(
            f"layer: {layer!r} is neither auto nor last nor a number from {-last} to {last} "
            f"(blocks; negative ones count from the last block, {last} is the final output)"
        )
    return [layer % last if layer < 0 else layer]


def fit_probe(
    vectors: np.ndarray | LayerVectors,
    targets: np.ndarray,
    strata: np.ndarray,
    groups: np.ndarray,
    split: Split,
    protocol: str,
    tried: Sequence[Candidate],
    multi: bool,
) -> Fit:
    """Choose candidate and setting inside the training clips, fit on all of them, and predict the test clips."""
    grid = GRIDS[protocol]
    inner = _inner(split, strata, groups)
    if inner:
        measured = [_inner_units(candidate.pooled(vectors), targets, inner, protocol, multi) for candidate in tried]
        best = pick([units for _, units in measured])
        place, score = measured[best][0], float(np.nanmean(measured[best][1]))
    else:  # the training clips are of one recording: the most preferred candidate, and the middle of the grid
        best, place, score = 0, len(grid) // 2, float("nan")
    candidate = tried[best]
    x = candidate.pooled(vectors)
    (answer,) = answers(protocol, x[split.train], targets[split.train], x[split.test], grid[place : place + 1], multi)
    layer = "weighted" if protocol == "weighted" else candidate.names[0] if candidate.names else ""
    chosen = {"layer": layer, "pool": candidate.pool, SETTING[protocol]: grid[place], "inner": score}
    if answer.head is not None and answer.head.layer_weights is not None:
        chosen["weights"] = dict(zip(map(str, candidate.names), answer.head.layer_weights.tolist(), strict=True))
    return Fit(answer.outputs, chosen, candidate, answer.head)


def pick(units: Sequence[np.ndarray]) -> int:
    """The first of the candidates whose score is not clearly below the best.

    units: for each candidate, most preferred first, the values whose mean is its score: [clips] or [classes]; NaN is
    ignored.
    """
    best = int(np.argmax([np.nanmean(candidate_units) for candidate_units in units]))
    for place, candidate_units in enumerate(units):
        behind = units[best] - candidate_units
        behind = behind[~np.isnan(behind)]
        error = behind.std(ddof=1) / np.sqrt(len(behind)) if len(behind) > 1 else 0.0
        if behind.mean() <= error + 1e-12:
            return place
    return best


def _inner(split: Split, strata: np.ndarray, groups: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(fit, check) row positions to choose with: on the valid clips where there are any, else inside train."""
    train = _at_most(split.train)
    if len(split.valid):
        return [(train, _at_most(split.valid))]
    return [(train[fit], train[check]) for fit, check in inner_splits(strata[train], groups[train])]


def _at_most(rows: np.ndarray) -> np.ndarray:
    """At most CHOICE_CLIPS of the rows, drawn by counted randomness."""
    if len(rows) <= CHOICE_CLIPS:
        return rows
    return np.sort(rows[permutation(key(0, "evaluation", "choice"), len(rows)).numpy()[:CHOICE_CLIPS]])


def _inner_units(x: np.ndarray, targets: np.ndarray, inner, protocol: str, multi: bool) -> tuple[int, np.ndarray]:
    """Index of the best setting in the grid, and the values whose mean is its inner score."""
    answers_by_split: list[list[Answer]] = [
        answers(protocol, x[fit], targets[fit], x[check], GRIDS[protocol], multi, CHOOSING) for fit, check in inner
    ]
    truth = np.concatenate([targets[check] for _, check in inner])
    outputs = [np.concatenate([a.outputs for a in of_setting]) for of_setting in zip(*answers_by_split, strict=True)]
    units = [_units(truth, answered, multi) for answered in outputs]
    # Of equals the first: stronger regularisation, fewer neighbours.
    place = int(np.argmax([np.nanmean(of_setting) for of_setting in units]))
    return place, units[place]


def _units(truth: np.ndarray, outputs: np.ndarray, multi: bool) -> np.ndarray:
    """Per clip, 1 if correct, else 0; multi-label: average precision of each class, NaN where no clip has it."""
    if not multi:
        return (outputs.argmax(1) == truth.argmax(1)).astype(float)
    return average_precisions(truth, outputs)
