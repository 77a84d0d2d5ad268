"""Bootstraps scores over clips or groups of clips: resampling weights, and scores of weighted clips.

A resample is represented by weights (how often each clip is in it), so that clips are sorted once for all resamples.
Percentile bootstrap: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13; its bias, which
matters only for average precision, is subtracted (`bounds`).

Shapes: N clips, K classes, R resamples.
"""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from ..random import integers, key

LEVEL = 0.95
RESAMPLES = 1000
_BLOCK = 200_000  # weights processed together: they stay in a core's cache


def weights(units: np.ndarray, resamples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each clip is in each resample, int32 [some, N], block by block until there are `resamples` rows.

    units: int [N], 0 to U - 1, the unit of each clip; U units are drawn with replacement.
    """
    count = int(units.max()) + 1
    rows = max(1, _BLOCK // len(units))
    for start in range(0, resamples, rows):
        numbers = torch.arange(start, min(start + rows, resamples))
        units_drawn = integers(key(seed, numbers, "bootstrap"), count, count).numpy()  # [some, U]
        flat = units_drawn + count * np.arange(len(units_drawn))[:, None]
        counts = np.bincount(flat.ravel(), minlength=count * len(units_drawn)).reshape(len(units_drawn), count)
        yield counts.astype(np.int32)[:, units]


def bounds(values: np.ndarray, estimate) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the middle 95 % of resampled `values` [R, ...], moved so that their median is the `estimate` [...].

    For accuracy the shift is zero. But a resample holds clips twice, and a positive that appears twice raises its
    own average precision: on rare classes all resamples may lie above the estimate they are an interval of. NaN
    are left out; between two resamples the outer one is taken, as nothing can be interpolated where a d' is infinite.
    """
    tail = (1 - LEVEL) / 2
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):  # all-NaN columns give NaN
        warnings.simplefilter("ignore", RuntimeWarning)
        low = np.nanquantile(values, tail, axis=0, method="lower")
        high = np.nanquantile(values, 1 - tail, axis=0, method="higher")
        bias = np.nanquantile(values, 0.5, axis=0, method="lower") - np.asarray(estimate)
    bias = np.where(np.isfinite(bias), bias, 0.0)
    return low - bias, high - bias


def share(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """part / whole, NaN where there is no whole."""
    part, total = np.broadcast_arrays(np.asarray(part, dtype=np.float64), np.asarray(total, dtype=np.float64))
    return np.divide(part, total, out=np.full(total.shape, np.nan), where=total > 0)


def mean_of_classes(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaN; NaN where all values are."""
    defined = ~np.isnan(values)
    return share(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))


def accuracy_and_recall(truth: np.ndarray, hits: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy [R], and recall of each class [R, K], NaN where the resample has no clip of it.

    truth: 0/1 [N, K], one class a clip. hits: bool [N], right answers. counts: `weights` [R, N].
    """
    counts = counts.astype(np.float64)
    return share(counts @ hits, counts.sum(1)), share(counts @ (truth * hits[:, None]), counts @ truth)


class Ranking(NamedTuple):
    """Clips in the order of a class's outputs, and where its positives lie. T: tied sets that hold a positive."""

    order: np.ndarray
    """int [N], highest output first"""
    edges: np.ndarray
    """int [E], places in `order` where counting starts anew, 0 the first"""
    starts: np.ndarray
    """int [T], edge at which each tied set starts; E stands for the end of all"""
    ends: np.ndarray
    """int [T], edge at which it ends"""
    positives: np.ndarray
    """int [P], positive clips, highest output first"""
    sets: np.ndarray
    """int [T], place in `positives` where those of each tied set start"""


def rank_outputs(truth: np.ndarray, outputs: np.ndarray) -> Ranking:
    """Sort the clips for one class. truth: bool [N], at least one of them True; outputs: float [N]."""
    order = np.argsort(-outputs, kind="stable")
    ranked = outputs[order]
    firsts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # where sets of equal outputs start
    places = np.flatnonzero(truth[order])
    tied, sets = np.unique(np.searchsorted(firsts, places, side="right") - 1, return_index=True)
    start, end = firsts[tied], np.r_[firsts, len(order)][tied + 1]
    edges = np.unique(np.r_[0, start, end])
    edges = edges[edges < len(order)]
    return Ranking(
        order, edges, *(np.searchsorted(edges, places_of) for places_of in (start, end)), order[places], sets
    )


def precision_and_auc(ranking: Ranking, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision [R] and area under the ROC curve [R] of one class; counts: `weights` [R, N].

    As scikit-learn defines them, ties included. NaN where the resample has no positive (for the area: or no negative).
    """
    # Only what lies between two positives is added up, not every clip's place: sums up to each edge, [R, E + 1].
    sums = np.add.reduceat(np.take(counts, ranking.order, axis=1), ranking.edges, axis=1).cumsum(axis=1)
    before = np.concatenate([np.zeros((len(counts), 1), sums.dtype), sums], axis=1)
    up_to, through = before[:, ranking.starts], before[:, ranking.ends]  # [R, T]
    hits = np.add.reduceat(counts[:, ranking.positives], ranking.sets, axis=1)  # positives in a tied set
    recalled = hits.cumsum(axis=1)
    positives, total = recalled[:, -1], before[:, -1]
    precision = share((hits * (recalled / np.maximum(through, 1))).sum(1), positives)
    # Negatives above each positive, half of those that it ties with.
    negatives = total - positives
    above = ((up_to - (recalled - hits)) + (through - recalled)) / 2
    auc = share((hits * (negatives[:, None] - above)).sum(1), positives.astype(np.float64) * negatives)
    return precision, auc
