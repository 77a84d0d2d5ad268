"""Mean and standard deviation of a data set's log-mel."""

import math

import numpy as np
import torch

from ..errors import InputError
from ..features import LogMel
from ..settings import Features
from .manifest import Manifest


def measure(
    manifest: Manifest, features: Features, clips: int | None = None
) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Mean and standard deviation of a data set's raw log-mel, to put into `features.mean` and `features.std`.

    clips: measure this many, evenly spread (None: all).
    Returns mean, std, mean per band [M], std per band [M]; unreadable clips are left out.
    Raises InputError when no clip can be read.
    """
    front_end = LogMel.from_config(features)
    rows = range(len(manifest))
    if clips is not None and clips < len(manifest):
        rows = np.linspace(0, len(manifest) - 1, clips).round().astype(int)
    count, total, squares = 0, np.zeros(features.mel_bins), np.zeros(features.mel_bins)
    for row in rows:
        try:
            wave = manifest.read(int(row), features.sample_rate)
            raw = front_end(torch.from_numpy(wave)[None])[0].double().numpy()
        except InputError:  # unreadable, or shorter than a frame
            continue
        count, total, squares = count + len(raw), total + raw.sum(0), squares + (raw**2).sum(0)
    if count == 0:
        raise InputError(f"{manifest.source}: no clip could be read, so there is nothing to measure")
    band_mean = total / count
    band_std = np.sqrt(np.maximum(squares / count - band_mean**2, 0.0))
    mean = band_mean.mean()
    std = math.sqrt(max((squares / count).mean() - mean**2, 0.0))
    return float(mean), std, band_mean, band_std
