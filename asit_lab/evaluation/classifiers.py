"""Classifies frozen embeddings: logistic regression, nearest neighbours, logistic regression on a sum of layers.

Each standardises features by the training clips and gives probabilities for every setting requested. Multi-label data:
one regression against the rest for each class, and the neighbours' vote for each class.

Shapes: n training clips, m others, d features, K classes, L layers. Targets are 0/1 [n, K].
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import torch

GRIDS = {"linear": (0.001, 0.01, 0.1, 1.0), "knn": (1, 3, 5, 10, 20), "weighted": (0.001, 0.01, 0.1, 1.0)}
SETTING = {"linear": "C", "knn": "k", "weighted": "C"}  # what the grid's numbers are

CHOOSING, FINAL = 1e-3, 1e-5  # largest gradient at which a fit stops: for choosing a setting, and for the final answer
_ITERATIONS = 1000
_NEIGHBOURS_AT_ONCE = 1024  # clips whose neighbours are searched together


class LinearHead(NamedTuple):
    """A fitted logistic regression on standardised features."""

    mean: np.ndarray
    """[d], or [L, d] of several layers"""
    deviation: np.ndarray
    """like `mean`; infinite for a feature that was constant in training"""
    weights: np.ndarray
    """[d, K]"""
    intercepts: np.ndarray
    """[K]"""
    layer_weights: np.ndarray | None = None
    """[L], share of each layer in the sum; None: one layer"""

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float64 [m, K] of features [m, d] or [m, L, d]."""
        scaled = (np.asarray(features, np.float64) - self.mean) / self.deviation
        if self.layer_weights is not None:
            scaled = np.einsum("l,mld->md", self.layer_weights, scaled)
        return scaled @ self.weights + self.intercepts


class Answer(NamedTuple):
    """A fitted classifier's predictions."""

    outputs: np.ndarray
    """float64 [m, K], probabilities"""
    head: LinearHead | None = None
    """the fitted classifier; None for nearest neighbours"""


def answers(
    protocol: str,
    train: np.ndarray,
    targets: np.ndarray,
    test: np.ndarray,
    settings: Sequence[float],
    multi: bool,
    tolerance: float = FINAL,
) -> list[Answer]:
    """Fit on train and predict test, once for every setting (in ascending order).

    train, test: float [n, d] and [m, d]; for "weighted" [n, L, d] and [m, L, d]. targets: 0/1 [n, K].
    """
    train, targets = np.asarray(train, np.float64), np.asarray(targets, np.float64)
    mean, deviation = _statistics(train)
    scaled = (train - mean) / deviation
    if protocol == "knn":
        return _nearest(scaled, targets, (np.asarray(test, np.float64) - mean) / deviation, settings)
    fit = _weighted if protocol == "weighted" else _logistic
    fits = fit(scaled, targets, settings, multi, tolerance)
    heads = [LinearHead(mean, deviation, *fit) for fit in fits]
    return [Answer(probabilities(head.logits(test), multi), head) for head in heads]


def probabilities(logits: np.ndarray, multi: bool) -> np.ndarray:
    """Softmax over the classes of [m, K]; sigmoid if a clip may have several."""
    from scipy.special import expit, softmax

    return expit(logits) if multi else softmax(logits, axis=1)


def _statistics(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every feature over the training clips; infinite for a constant one, which becomes
    0."""
    mean, deviation = train.mean(0), train.std(0)
    return mean, np.where(deviation > 1e-8 * np.abs(mean), deviation, np.inf)


# --- Logistic regression --------------------------------------------------------------------------------------------


def _logistic(train, targets, strengths, multi: bool, tolerance: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """(weights [d, K], intercepts [K]) of scikit-learn's regression for each strength: minimises C * sum of the clips'
    losses + |W|^2 / 2, intercepts not penalised.

    Own code because a probe fits hundreds of them to choose a layer, and embeddings are badly conditioned: in the
    basis of the features' principal axes the penalised loss has a nearly diagonal curvature, share (1 - share) *
    variance + 1 / (C n); scaled by its root, L-BFGS takes a fraction of scikit-learn's time, and all classes of
    multi-label data go through together. A fit that only chooses computes its products in single precision, whose
    errors are far below its tolerance (3e-8 in the scaled gradient of 533 clips; benchmarks/probe.md).
    """
    n, shares = len(train), _shares(targets)
    axes, variance = _principal_axes(train)
    precision = np.float32 if tolerance >= CHOOSING else np.float64
    inputs = np.vstack([(train @ axes).T, np.ones(n)]).astype(precision)  # [r + 1, n]; the last row: intercepts
    truth = np.ascontiguousarray(targets.T, precision)  # [K, n]: faster than a class a column
    weights = np.zeros((len(truth), len(inputs)))
    weights[:, -1] = _prior(shares, multi)
    fits = []
    for strength in strengths:  # from strong to weak regularisation, each fit starting from the one before
        penalty = np.append(np.full(len(variance), 1 / (strength * n)), 0.0)
        scale = 1 / np.sqrt((shares * (1 - shares))[:, None] * np.append(variance, 1.0) + penalty)

        def loss(scaled, scale=scale, penalty=penalty):
            weights = scaled.reshape(scale.shape) * scale
            value, slope = _loss(weights.astype(precision) @ inputs, truth, multi)
            gradient = slope @ inputs.T / n + penalty * weights
            return value / n + (penalty * weights**2).sum() / 2, (gradient * scale).ravel()

        weights = _minimise(loss, weights / scale, tolerance).reshape(scale.shape) * scale
        fits.append((axes @ weights[:, :-1].T, weights[:, -1]))
    return fits


def _loss(logits: np.ndarray, targets: np.ndarray, multi: bool) -> tuple[float, np.ndarray]:
    """Cross-entropy of [K, n], binary and summed over classes if `multi`, summed over clips; and its slope [K, n]."""
    if multi:
        entropies = np.logaddexp(0, logits) - targets * logits
        return float(entropies.sum(dtype=np.float64)), probabilities(logits, multi) - targets
    logits = logits - logits.max(0)
    shares = np.exp(logits)
    total = shares.sum(0)
    fit = (targets * logits).sum(dtype=np.float64)
    shares /= total
    return float(np.log(total).sum(dtype=np.float64) - fit), shares - targets


def _principal_axes(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal axes [d, r] that span the training clips, and the variance [r] along each.

    With an L2 penalty the weights lie in that span, so there are never more of them than clips.
    """
    n, d = train.shape
    gram = train.T @ train if d <= n else train @ train.T
    values, vectors = np.linalg.eigh(gram)
    positive = values > 1e-10 * max(values[-1], 1e-300)
    values, vectors = values[positive], vectors[:, positive]
    return (vectors if d <= n else train.T @ (vectors / np.sqrt(values))), values / n


def _shares(targets: np.ndarray) -> np.ndarray:
    """Share of the clips that have each class [K], never quite 0 or 1."""
    edge = 0.5 / len(targets)
    return np.clip(targets.mean(0), edge, 1 - edge)


def _prior(shares: np.ndarray, multi: bool) -> np.ndarray:
    """Intercepts [K] that predict the classes' shares."""
    return np.log(shares / (1 - shares)) if multi else np.log(shares)


def _minimise(function: Callable, start: np.ndarray, tolerance: float) -> np.ndarray:
    """L-BFGS from `start` to a gradient below `tolerance`; function: flat vector -> (value, gradient)."""
    from scipy.optimize import minimize

    options = {"maxiter": _ITERATIONS, "gtol": tolerance, "ftol": 1e-12}
    with one_thread_a_product():
        return minimize(function, start.ravel(), jac=True, method="L-BFGS-B", options=options).x


def one_thread_a_product() -> AbstractContextManager:
    """Context in which numpy and scipy compute with one thread: matrices of a probe are small, so more threads would
    only wait for each other. Of several fits at once, the first to end would take it from the others: enter it around
    all of them."""
    return _thread_pools().limit(limits=1)


@functools.cache
def _thread_pools() -> Any:
    """Those of numpy, scipy and torch. Searching the process for them takes as long as a small fit."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


# --- Sum of layers --------------------------------------------------------------------------------------------------


def _weighted(train, targets, strengths, multi: bool, tolerance: float) -> list[tuple]:
    """(weights, intercepts, layer weights) of logistic regression on sum_l softmax(a)_l x_l, `a` learned jointly:
    train [n, L, d].

    The weighted sum of SUPERB (Yang et al. 2021, arXiv 2105.01051, section 3) on pooled embeddings. Starts from equal
    weights, so nothing is drawn; `a` itself is not penalised.
    """
    n, layers, d = train.shape
    classes, shares = targets.shape[1], _shares(targets)
    inputs, truth = torch.from_numpy(train), torch.from_numpy(targets)
    flat = np.concatenate([np.zeros(layers + d * classes), _prior(shares, multi)])

    def parts(flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Layer weights [L], weights [d, K] and intercepts [K]."""
        a, weights, intercepts = flat.split([layers, d * classes, classes])
        return a.softmax(0), weights.view(d, classes), intercepts

    fits = []
    for strength in strengths:

        def loss(values, strength=strength):
            flat = torch.tensor(values, requires_grad=True)
            mix, weights, intercepts = parts(flat)
            logits = torch.einsum("l,nld->nd", mix, inputs) @ weights + intercepts
            if multi:
                fit = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / n
            else:
                fit = torch.nn.functional.cross_entropy(logits, truth)
            total = fit + weights.square().sum() / (2 * strength * n)
            total.backward()
            return total.item(), flat.grad.numpy()

        flat = _minimise(loss, flat, tolerance)
        mix, weights, intercepts = (part.numpy() for part in parts(torch.from_numpy(flat)))
        fits.append((weights, intercepts, mix))
    return fits


# --- Nearest neighbours ---------------------------------------------------------------------------------------------


def _nearest(train, targets, test, counts) -> list[Answer]:
    """Votes of the k nearest by cosine: each class's share. A tie goes to the class with the larger summed similarity,
    by votes that differ by a millionth of it."""
    train, test = _unit(train), _unit(test)
    outputs = [np.empty((len(test), targets.shape[1])) for _ in counts]
    for start in range(0, len(test), _NEIGHBOURS_AT_ONCE):
        rows = slice(start, start + _NEIGHBOURS_AT_ONCE)
        similarity = test[rows] @ train.T  # [block, n]
        order = np.argsort(-similarity, axis=1, kind="stable")[:, : max(counts)]
        votes = 1.0 + 1e-6 * np.take_along_axis(similarity, order, axis=1)  # [block, k]
        for output, count in zip(outputs, counts, strict=True):
            near, vote = order[:, :count], votes[:, :count]
            output[rows] = np.einsum("sk,skc->sc", vote, targets[near]) / vote.sum(1, keepdims=True)
    return [Answer(output) for output in outputs]


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
