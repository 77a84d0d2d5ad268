"""Classifiers on frozen embeddings: logistic regression, nearest neighbours, logistic regression on a sum of layers.

All of them standardise by the training clips, and give outputs (probabilities) for every setting they are asked for.
Multi-label data: one regression against the rest for each class, and the neighbours' vote for each class.

Shapes: n training clips, m others, d features, K classes, L layers. Targets are 0/1 [n, K].
"""

from typing import NamedTuple

import numpy as np
import torch

GRIDS = {"linear": (0.001, 0.01, 0.1, 1.0), "knn": (1, 3, 5, 10, 20), "weighted": (0.001, 0.01, 0.1, 1.0)}
SETTING = {"linear": "C", "knn": "k", "weighted": "C"}  # what the grid's numbers are

CHOOSING, FINAL = 1e-3, 1e-5  # largest gradient at which a fit ends: where it only chooses, and where it answers
_ITERATIONS = 1000
_NEIGHBOURS_AT_ONCE = 1024  # clips whose neighbours are looked up together


class Answer(NamedTuple):
    """What a fitted classifier says of clips."""

    outputs: np.ndarray
    """float64 [m, K], probabilities"""
    weights: np.ndarray | None = None
    """float64 [L], share of each layer; of "weighted" alone"""


def answers(protocol: str, train, targets, test, settings, multi: bool, tolerance: float = FINAL) -> list[Answer]:
    """Fit on train and answer for test, once for every setting (in ascending order).

    train, test: float [n, d] and [m, d]; for "weighted" [n, L, d] and [m, L, d]. targets: 0/1 [n, K].
    """
    train, test = _standardised(np.asarray(train, np.float64), np.asarray(test, np.float64))
    fit = {"linear": _logistic, "knn": _nearest, "weighted": _weighted}[protocol]
    return fit(train, np.asarray(targets, np.float64), test, settings, multi, tolerance)


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean 0 and deviation 1 on the training clips; a feature that is the same in all of them becomes 0."""
    mean, deviation = train.mean(0), train.std(0)
    deviation = np.where(deviation > 1e-8 * np.abs(mean), deviation, np.inf)
    return (train - mean) / deviation, (test - mean) / deviation


# --- Logistic regression --------------------------------------------------------------------------------------------


def _logistic(train, targets, test, strengths, multi: bool, tolerance: float) -> list[Answer]:
    """The regression scikit-learn fits: C * sum of the clips' losses + |W|^2 / 2, intercepts free.

    Written out because a probe fits thousands of them to choose a layer. In the basis of the features' principal axes
    the penalised loss has a nearly diagonal curvature, share (1 - share) * variance + 1 / (C n); scaled by its root,
    L-BFGS needs a quarter of the steps, and all classes of multi-label data go through together.
    """
    n, shares = len(train), _shares(targets)
    axes, variance = _principal_axes(train)
    train, test = (np.column_stack([x @ axes, np.ones(len(x))]) for x in (train, test))  # the last: intercepts
    weights = np.zeros((train.shape[1], targets.shape[1]))
    weights[-1] = _start(shares, multi)
    found = []
    for strength in strengths:  # from strong to weak regularisation, each fit starting from the one before
        penalty = np.append(np.full(len(variance), 1 / (strength * n)), 0.0)[:, None]
        scale = 1 / np.sqrt(np.append(variance, 1.0)[:, None] * shares * (1 - shares) + penalty)

        def loss(scaled, scale=scale, penalty=penalty):
            weights = scaled.reshape(scale.shape) * scale
            value, slope = _loss(train @ weights, targets, multi)
            gradient = train.T @ slope / n + penalty * weights
            return value / n + (penalty * weights**2).sum() / 2, (gradient * scale).ravel()

        weights = _minimise(loss, weights / scale, tolerance).reshape(scale.shape) * scale
        found.append(Answer(_probabilities(test @ weights, multi)))
    return found


def _principal_axes(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal axes [d, r] that span the training clips, and the variance [r] along each.

    With an L2 penalty the weights lie in that span, so there are never more of them than clips.
    """
    n, d = train.shape
    small = train.T @ train if d <= n else train @ train.T
    values, vectors = np.linalg.eigh(small)
    kept = values > 1e-10 * max(values[-1], 1e-300)
    values, vectors = values[kept], vectors[:, kept]
    return (vectors if d <= n else train.T @ (vectors / np.sqrt(values))), values / n


def _shares(targets: np.ndarray) -> np.ndarray:
    """Share of the clips that have each class [K], never quite 0 or 1."""
    edge = 0.5 / len(targets)
    return np.clip(targets.mean(0), edge, 1 - edge)


def _start(shares: np.ndarray, multi: bool) -> np.ndarray:
    """Intercepts [K] that answer with the classes' shares."""
    return np.log(shares / (1 - shares)) if multi else np.log(shares)


def _loss(logits: np.ndarray, targets: np.ndarray, multi: bool) -> tuple[float, np.ndarray]:
    """Cross-entropy, binary and summed over classes if `multi`, summed over clips; and its slope [n, K]."""
    probabilities = _probabilities(logits, multi)
    if multi:
        return float((np.logaddexp(0, logits) - targets * logits).sum()), probabilities - targets
    top = logits.max(1, keepdims=True)
    normaliser = top[:, 0] + np.log(np.exp(logits - top).sum(1))
    return float(normaliser.sum() - (targets * logits).sum()), probabilities - targets


def _probabilities(logits: np.ndarray, multi: bool) -> np.ndarray:
    from scipy.special import expit, softmax

    return expit(logits) if multi else softmax(logits, axis=1)


def _minimise(function, start: np.ndarray, tolerance: float) -> np.ndarray:
    """L-BFGS from `start` to a gradient below `tolerance`; function: flat vector -> (value, gradient)."""
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    options = {"maxiter": _ITERATIONS, "gtol": tolerance, "ftol": 1e-12}
    # The matrices are small: more threads only wait for each other, and for torch's.
    with threadpool_limits(limits=1):
        return minimize(function, start.ravel(), jac=True, method="L-BFGS-B", options=options).x


# --- Sum of layers --------------------------------------------------------------------------------------------------


def _weighted(train, targets, test, strengths, multi: bool, tolerance: float) -> list[Answer]:
    """Logistic regression on sum_l softmax(a)_l x_l, with `a` learned beside it: train [n, L, d], test [m, L, d].

    The weighted sum of SUPERB (Yang et al. 2021, arXiv 2105.01051, section 3) on pooled embeddings. Starts from equal
    weights, so nothing is drawn; `a` itself is not penalised.
    """
    n, layers, d = train.shape
    classes, shares = targets.shape[1], _shares(targets)
    inputs, truth = torch.from_numpy(train), torch.from_numpy(targets)
    flat = np.concatenate([np.zeros(layers + d * classes), _start(shares, multi)])

    def parts(flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Layer weights [L], weights [d, K] and intercepts [K]."""
        a, weights, intercepts = flat.split([layers, d * classes, classes])
        return a.softmax(0), weights.view(d, classes), intercepts

    def logits(inputs: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
        mix, weights, intercepts = parts(flat)
        return torch.einsum("l,nld->nd", mix, inputs) @ weights + intercepts

    found = []
    for strength in strengths:

        def loss(values, strength=strength):
            flat = torch.tensor(values, requires_grad=True)
            scores = logits(inputs, flat)
            if multi:
                fit = torch.nn.functional.binary_cross_entropy_with_logits(scores, truth, reduction="sum") / n
            else:
                fit = torch.nn.functional.cross_entropy(scores, truth)
            total = fit + parts(flat)[1].square().sum() / (2 * strength * n)
            total.backward()
            return total.item(), flat.grad.numpy()

        flat = _minimise(loss, flat, tolerance)
        fitted = torch.from_numpy(flat)
        outputs = _probabilities(logits(torch.from_numpy(test), fitted).numpy(), multi)
        found.append(Answer(outputs, parts(fitted)[0].numpy()))
    return found


# --- Nearest neighbours ---------------------------------------------------------------------------------------------


def _nearest(train, targets, test, counts, multi: bool, tolerance: float) -> list[Answer]:
    """Votes of the k nearest by cosine: each class's share. A tie goes to the class with the larger summed similarity,
    by votes that differ by a millionth of it."""
    train, test = _unit(train), _unit(test)
    outputs = [np.empty((len(test), targets.shape[1])) for _ in counts]
    for start in range(0, len(test), _NEIGHBOURS_AT_ONCE):
        rows = slice(start, start + _NEIGHBOURS_AT_ONCE)
        similarity = test[rows] @ train.T  # [some, n]
        order = np.argsort(-similarity, axis=1, kind="stable")[:, : max(counts)]
        votes = 1.0 + 1e-6 * np.take_along_axis(similarity, order, axis=1)  # [some, k]
        for output, count in zip(outputs, counts, strict=True):
            near, vote = order[:, :count], votes[:, :count]
            output[rows] = np.einsum("sk,skc->sc", vote, targets[near]) / vote.sum(1, keepdims=True)
    return [Answer(output) for output in outputs]


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
