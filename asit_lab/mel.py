"""Kaldi's mel scale and the bands of a filter bank on it."""

import numpy as np
from numpy.typing import ArrayLike


def mel_of(hz: ArrayLike) -> np.ndarray:
    """1127 ln(1 + hz / 700), of a number or an array."""
    return 1127.0 * np.log1p(np.asarray(hz, dtype=float) / 700.0)


def hz_of(mel: ArrayLike) -> np.ndarray:
    """The inverse of `mel_of`."""
    return 700.0 * np.expm1(np.asarray(mel, dtype=float) / 1127.0)


def band_of(hz: ArrayLike, low_hz: float, high_hz: float, bands: int) -> np.ndarray:
    """Place of a frequency among `bands` mel bands from low_hz to high_hz: 0 is the centre of the first band, bands - 1
    that of the last; their centres are evenly spaced in mel."""
    low, high = mel_of(low_hz), mel_of(high_hz)
    return (mel_of(hz) - low) / (high - low) * (bands + 1) - 1


def band_hz(band: ArrayLike, low_hz: float, high_hz: float, bands: int) -> np.ndarray:
    """The frequency at a place among mel bands, Hz: the inverse of `band_of`."""
    low, high = mel_of(low_hz), mel_of(high_hz)
    return hz_of(low + (high - low) * (np.asarray(band, dtype=float) + 1) / (bands + 1))
