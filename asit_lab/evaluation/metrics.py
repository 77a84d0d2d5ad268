"""Scores predictions: accuracy, mean average precision, AUC, d'; intervals, per class, confusion.

Single-label: accuracy, and balanced accuracy (mean recall of the classes that have clips).
Multi-label: mAP, the mean over classes of the average precision; auc, the mean over classes of the area under the ROC
curve; dprime = sqrt(2) * the standard normal's inverse distribution function at that mean. This is how AudioSet's
papers count (Hershey et al. 2017, arXiv 1609.09430; AST's and PSLA's code); HEAR's code instead averages d' over
classes. A class without a positive clip has no average precision, one without positives or negatives no AUC: it is left
out of the mean, and `left_out` says how many are.

Measured by torchmetrics; the bootstrap by `resampling`, which has the same definitions for weighted clips.
targets: 0/1 [N, K], N clips and K classes, one class a clip unless `multi`. outputs: [N, K], probabilities or logits;
only their order counts. Arrays, lists and tensors all do.
"""

import math

import numpy as np
import pandas as pd
import torch

from ..errors import InputError
from . import bootstrap as resampling

MAIN = {False: "accuracy", True: "mAP"}  # shown in tables and used for choices; by `multi`
FEWEST_UNITS = 10  # independent units that an interval needs; the bootstrap of fewer is too narrow
_FEWEST = 40  # resamples needed for a 2.5th percentile


def scores(targets, outputs, multi: bool) -> dict[str, float]:
    """accuracy and balanced_accuracy, or mAP, dprime and auc; dprime is infinite where auc is 1.

    Raises InputError for shapes that differ, outputs that are not numbers, targets that are not classes, and where no
    class has what the measure needs.
    """
    targets, outputs = _checked(targets, outputs, multi)
    if multi:
        auc = float(np.nanmean(_areas(targets, outputs)))
        return {
            "mAP": float(np.nanmean(average_precisions(targets, outputs))),
            "dprime": float(d_prime(auc)),
            "auc": auc,
        }
    counts = _confusion_counts(targets, outputs)
    recall = resampling.share(np.diag(counts), counts.sum(1))
    return {"accuracy": float(np.trace(counts) / counts.sum()), "balanced_accuracy": float(np.nanmean(recall))}


def interval(
    targets, outputs, multi: bool, groups=None, resamples: int = resampling.RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % interval (low, high) of each of `scores`, by bootstrap over clips or `groups`; see `resampling.bounds`.

    groups: [N], such as source recordings or speakers, whose clips are not independent of each other.
    20,000 clips of 527 classes take about 20 s of one core for 1,000 resamples.
    Raises InputError as `scores` does, for fewer than two clips or groups, and for fewer than 40 resamples.
    """
    targets, outputs = _checked(targets, outputs, multi)
    values, _ = _resampled(targets, outputs, multi, _units(groups, len(targets)), resamples, seed)
    estimates = scores(targets, outputs, multi)
    ends = {name: np.clip(resampling.bounds(values[name], estimates[name]), 0, 1) for name in values}
    if multi:
        ends["dprime"] = d_prime(ends["auc"])
    return {name: (float(ends[name][0]), float(ends[name][1])) for name in estimates}


def interval_notes(groups, unit: str) -> list[str]:
    """A note where an interval rests on so few `groups` that it cannot be relied on; unit: what a group is."""
    count = len(set(groups))
    return [f"interval over {count} {unit}s only: not reliable"] if unit != "clip" and 1 < count < FEWEST_UNITS else []


def per_class(targets, outputs, classes, multi: bool, groups=None, resamples: int = 0, seed: int = 0) -> pd.DataFrame:
    """One row per class, in the order of `classes`.

    Single-label: label, clips, recall, precision (0 where never answered), confused_with (commonest wrong answer, or
    "").
    Multi-label: label, clips (positive ones), ap, auc. NaN where a class lacks the clips a measure needs.
    resamples: with 40 or more, low and high as well, the 95 % interval of recall or ap (see `interval`).
    Raises InputError as `scores` and `interval` do, and where `classes` are not K names.
    """
    targets, outputs = _checked(targets, outputs, multi)
    classes = _names(classes, targets.shape[1])
    table = pd.DataFrame({"label": classes, "clips": targets.sum(0).astype(int)})
    if multi:
        table["ap"], table["auc"] = average_precisions(targets, outputs), _areas(targets, outputs)
    else:
        counts = _confusion_counts(targets, outputs)
        table["recall"] = resampling.share(np.diag(counts), counts.sum(1))
        table["precision"] = np.nan_to_num(resampling.share(np.diag(counts), counts.sum(0)))
        errors = counts - np.diag(np.diag(counts))
        table["confused_with"] = [classes[row.argmax()] if row.any() else "" for row in errors]
    if resamples:
        units = _units(groups, len(targets))
        _, of_classes = _resampled(targets, outputs, multi, units, resamples, seed)
        table["low"], table["high"] = np.clip(resampling.bounds(of_classes, table["ap" if multi else "recall"]), 0, 1)
    return table


def confusion(targets, outputs, classes) -> pd.DataFrame:
    """Clips by class (rows) and answer (columns), int [K, K]; single-label only. Raises InputError as `per_class`."""
    targets, outputs = _checked(targets, outputs, multi=False)
    names = _names(classes, targets.shape[1])
    counts = _confusion_counts(targets, outputs)
    return pd.DataFrame(counts, index=pd.Index(names, name="label"), columns=pd.Index(names, name="predicted"))


def left_out(targets) -> int:
    """Number of classes without a positive clip, which do not count in mAP and balanced accuracy. targets: [N, K]."""
    return int((_array(targets, "targets").sum(0) == 0).sum())


def d_prime(auc):
    """sqrt(2) times the standard normal's inverse distribution function at `auc` (0 to 1): separation in deviations.

    Tanner and Swets 1954, as used for AudioSet by Hershey et al. 2017, section 3.3. Infinite at 0 and 1.
    """
    return math.sqrt(2) * torch.special.ndtri(torch.as_tensor(auc, dtype=torch.float64)).numpy()


# --- Measures -------------------------------------------------------------------------------------------------------


def average_precisions(targets: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Average precision [K] of each class over clips [N, K], NaN for a class without a positive clip."""
    from torchmetrics.functional.classification import binary_average_precision

    precisions = np.full(targets.shape[1], np.nan)
    for k in np.flatnonzero(targets.any(0)):
        ranks, truth = _ranked(targets[:, k], outputs[:, k])
        precisions[k] = binary_average_precision(ranks, truth, validate_args=False)
    return precisions


def _areas(targets: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Area under the ROC curve [K] of each class, NaN where it has no positive or no negative clip."""
    from torchmetrics.functional.classification import binary_auroc

    areas = np.full(targets.shape[1], np.nan)
    for k in np.flatnonzero(targets.any(0) & ~targets.all(0)):
        areas[k] = binary_auroc(*_ranked(targets[:, k], outputs[:, k]), validate_args=False)
    return areas


def _ranked(targets: np.ndarray, outputs: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Ranks of outputs [N], 0 to below 1, and targets [N]: torchmetrics puts logits through a sigmoid, which makes
    large ones equal; ranks from 0 to 1 stay as they are."""
    ranks = np.unique(outputs, return_inverse=True)[1] / len(outputs)
    return torch.from_numpy(ranks), torch.from_numpy(targets.astype(np.int64))


def _confusion_counts(targets: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """int [K, K], rows classes, columns answers; of equal outputs the first is the answer."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    answers, truth = torch.from_numpy(outputs.argmax(1)), torch.from_numpy(targets.argmax(1))
    return multiclass_confusion_matrix(answers, truth, targets.shape[1], validate_args=False).numpy()


def _resampled(
    targets: np.ndarray, outputs: np.ndarray, multi: bool, units: np.ndarray, resamples: int, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """`scores` in every resample, {name: [R]}, and recall or average precision of the classes [R, K]."""
    if resamples < _FEWEST:
        raise InputError(f"resamples: {resamples}; a 95 % interval needs at least {_FEWEST}")
    measured = (_multi_label if multi else _single_label)(targets, outputs)
    blocks = [measured(weights) for weights in resampling.weights(units, resamples, seed)]
    values = {name: np.concatenate([block[name] for block, _ in blocks]) for name in blocks[0][0]}
    return values, np.concatenate([of_classes for _, of_classes in blocks])


def _single_label(targets: np.ndarray, outputs: np.ndarray):
    """A function of weights [R, N]: ({name: [R]}, recall [R, K])."""
    hits = outputs.argmax(1) == targets.argmax(1)

    def measured(weights: np.ndarray):
        accuracy, recall = resampling.accuracy_and_recall(targets, hits, weights)
        return {"accuracy": accuracy, "balanced_accuracy": resampling.mean_of_classes(recall)}, recall

    return measured


def _multi_label(targets: np.ndarray, outputs: np.ndarray):
    """A function of weights [R, N]: ({name: [R]}, average precision [R, K])."""
    rankings = {k: resampling.rank_outputs(targets[:, k] > 0, outputs[:, k]) for k in np.flatnonzero(targets.any(0))}

    def measured(weights: np.ndarray):
        precisions, areas = np.full((2, len(weights), targets.shape[1]), np.nan)
        for k, ranking in rankings.items():
            precisions[:, k], areas[:, k] = resampling.precision_and_auc(ranking, weights)
        auc = resampling.mean_of_classes(areas)
        return {"mAP": resampling.mean_of_classes(precisions), "dprime": d_prime(auc), "auc": auc}, precisions

    return measured


# --- What the caller may pass ---------------------------------------------------------------------------------------


def _array(values, name: str) -> np.ndarray:
    """float64 [N, K], N and K at least 1."""
    try:
        array = torch.as_tensor(values).detach().cpu().double().numpy()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: not an array of numbers: {error}") from None
    if array.ndim != 2 or not array.size:
        raise InputError(f"{name}: expected shape [clips, classes], not empty, got {list(array.shape)}")
    return array


def _checked(targets, outputs, multi: bool) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 [N, K], or one InputError."""
    targets, outputs = _array(targets, "targets"), _array(outputs, "outputs")
    if targets.shape != outputs.shape:
        raise InputError(f"outputs: expected shape {list(targets.shape)} as targets have, got {list(outputs.shape)}")
    finite = np.isfinite(outputs).all(1)
    if not finite.all():
        raise InputError(
            f"outputs: NaN or infinite for {int((~finite).sum())} of {len(finite)} clips, "
            f"the first is clip {int(finite.argmin())}"
        )
    if not np.isin(targets, (0, 1)).all():
        raise InputError("targets: expected 0 and 1 alone (labels that were mixed or smoothed cannot be measured)")
    if multi:
        positives = targets.sum(0)
        if not ((positives > 0) & (positives < len(targets))).any():
            raise InputError("targets: no class has both positive and negative clips, so AUC and d' are undefined")
    elif (targets.sum(1) != 1).any():
        clip = int((targets.sum(1) != 1).argmax())
        raise InputError(
            f"targets: clip {clip} has {int(targets[clip].sum())} classes, expected one; "
            "several classes a clip need multi=True"
        )
    return targets, outputs


def _names(classes, count: int) -> list[str]:
    classes = [str(name) for name in classes]
    if len(classes) != count:
        raise InputError(f"classes: {len(classes)} names for {count} columns of targets and outputs")
    return classes


def _units(groups, clips: int) -> np.ndarray:
    """int [N], the unit of each clip, from 0; every clip its own where `groups` is None."""
    if groups is not None and len(groups) != clips:
        raise InputError(f"groups: {len(groups)} for {clips} clips")
    units = np.arange(clips) if groups is None else np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    if units.max() < 1:
        unit = "clip" if groups is None else "group"
        raise InputError(f"an interval needs at least two {unit}s, there is one")
    return units
