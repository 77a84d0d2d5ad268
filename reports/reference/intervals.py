"""The 95 % interval of a mean over clips, for the results of this folder."""

import numpy as np

from asit_lab.evaluation.bootstrap import RESAMPLES, bounds, share, weights


def mean_and_interval(values: np.ndarray, groups: np.ndarray) -> tuple[float, float, float]:
    """Mean of values [clips], and the ends of its interval by bootstrap over groups (recordings, speakers).

    Of the clips of a group all are in a resample, or none.
    """
    units = np.unique(groups, return_inverse=True)[1]
    resampled = np.concatenate([share(w @ values, w.sum(1)) for w in weights(units, RESAMPLES)])
    low, high = bounds(resampled, values.mean())
    return float(values.mean()), float(low), float(high)


def gain_of(differences: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """How much more accurate one classifier is than another on the same clips. differences [clips]: 1, 0 or -1, or the
    mean of several."""
    return dict(zip(("gain", "low", "high"), mean_and_interval(differences, groups), strict=True))
