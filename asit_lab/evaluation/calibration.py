"""Calibrates probabilities: temperature scaling, expected calibration error, thresholds for multi-label data.

Temperature scaling and the error: Guo et al., "On Calibration of Modern Neural Networks", 2017 (arXiv 1706.04599),
sections 4.2 and 2. Shapes: N clips, K classes; targets are 0/1 [N, K], logits float [N, K].
"""

import numpy as np
import pandas as pd
import torch

BINS = 15  # as in the paper


def fit_temperature(targets: np.ndarray, logits: np.ndarray, multi: bool) -> float:
    """The temperature, 0.05 to 20, that minimises the cross-entropy of logits / temperature on held-out clips.

    Targets are those of N clips and of another one that may be of any class: else a few clips that are all classified
    rightly would make every answer certain (Platt 1999 has such targets for two classes).
    """
    from scipy.optimize import minimize_scalar

    truth, scores = torch.as_tensor(targets).double(), torch.as_tensor(logits).double()
    truth = (len(truth) * truth + (0.5 if multi else 1 / truth.shape[1])) / (len(truth) + 1)

    def loss(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        if multi:
            return torch.nn.functional.binary_cross_entropy_with_logits(scaled, truth).item()
        return torch.nn.functional.cross_entropy(scaled, truth).item()

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded").x))


def calibration_error(targets: np.ndarray, probabilities: np.ndarray, multi: bool) -> float:
    """Expected calibration error, 0 to 1: mean distance of confidence from accuracy over 15 bins of equal width.

    Confidence is the predicted class's probability; for multi-label data, every class's probability of every clip.
    """
    table = reliability(targets, probabilities, multi)
    return float(((table["confidence"] - table["accuracy"]).abs() * table["answers"]).sum() / table["answers"].sum())


def reliability(targets: np.ndarray, probabilities: np.ndarray, multi: bool) -> pd.DataFrame:
    """A row per non-empty bin: low, high (its edges), confidence (mean probability), accuracy (share of correct
    predictions; for multi-label data the share of positives), answers."""
    truth, predicted = np.asarray(targets) > 0, np.asarray(probabilities, dtype=np.float64)
    if multi:
        confidence, right = predicted.ravel(), truth.ravel()
    else:
        confidence, right = predicted.max(1), truth[np.arange(len(truth)), predicted.argmax(1)]
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = []
    for number in np.unique(bins):
        in_bin = bins == number
        ends = {"low": number / BINS, "high": (number + 1) / BINS}
        means = {"confidence": confidence[in_bin].mean(), "accuracy": right[in_bin].mean()}
        rows.append({**ends, **means, "answers": int(in_bin.sum())})
    return pd.DataFrame(rows)


def best_thresholds(targets: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """The threshold of each class with the highest F1 on held-out clips; 0.5 for one without a positive or a negative
    clip."""
    from sklearn.metrics import precision_recall_curve

    thresholds = []
    for truth, predicted in zip(np.asarray(targets).T > 0, np.asarray(probabilities).T, strict=True):
        if truth.all() or not truth.any():
            thresholds.append(0.5)
            continue
        precision, recall, steps = precision_recall_curve(truth, predicted)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = int(f1[:-1].argmax())
        below = predicted[predicted < steps[best]]
        # Half-way to the next lower probability, so that rounding errors do not matter.
        thresholds.append(float((steps[best] + below.max()) / 2 if len(below) else steps[best]))
    return thresholds
