"""Waveforms as a user has them (tensors, arrays, lists) -> tensors, or one error that says what is wrong."""

import numbers
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..audio import INTEGERS, LOUDEST, RATES
from ..errors import InputError

_CHANNELS = 32  # the most a recording has; no clip is that short


def one_waveform(wave, sample_rate: int, name: str) -> Tensor:
    """A clip [S] or [1, S] in any container -> float32 [S]. Raises InputError as `as_waveforms`, and for several."""
    waveforms = as_waveforms(wave, sample_rate, name)
    if len(waveforms) != 1:
        raise InputError(f"{name}: expected one clip, [samples], got {tuple(waveforms.shape)}")
    return waveforms[0]


def as_waveforms(wave, sample_rate: int, name: str = "wave") -> Tensor:
    """Waveforms [B, S] or [S] in any container -> float32 [B, S].

    Warns of samples at the level of integers. Raises InputError, beginning with `name`, for another shape, no audio,
    integers, or samples that are not finite.
    """
    try:
        wave = wave if isinstance(wave, Tensor) else _tensor(np.asarray(wave))
    except (TypeError, ValueError):  # clips of several lengths, texts
        raise InputError(
            f"{name}: not one array of samples (embed and pooled take clips of different lengths, as a list)"
        ) from None
    if wave.layout != torch.strided or wave.is_meta:
        raise InputError(f"{name}: a {'meta' if wave.is_meta else 'sparse'} tensor; expected samples in memory")
    if not wave.is_floating_point():
        raise InputError(f"{name}: expected floating-point samples in [-1, 1], got {wave.dtype}; scale them first")
    wave = wave.float().reshape(1, -1) if wave.ndim == 1 else wave.float()
    if wave.ndim != 2 or 0 in wave.shape:
        raise InputError(f"{name}: expected [batch, samples] or [samples] with audio in it, got {tuple(wave.shape)}")
    if wave.shape[1] <= _CHANNELS < wave.shape[0]:
        raise InputError(
            f"{name}: {tuple(wave.shape)} looks like [samples, channels]; expected [samples] or [batch, samples]: "
            "average the channels first, as in wave.mean(1)"
        )
    _check_rate(sample_rate)
    if not torch.isfinite(wave).all():
        raise InputError(f"{name}: has samples that are NaN or infinite")
    peak = float(wave.detach().abs().max())
    if peak > LOUDEST:
        raise InputError(f"{name}: has samples beyond ±{LOUDEST:.2g}, which is no level of sound")
    if peak > INTEGERS:
        warnings.warn(
            f"{name}: samples reach ±{peak:.0f}, the level of integers; full scale is ±1, so divide int16 by 32768",
            stacklevel=3,
        )
    return wave


def as_mask(mask, device: torch.device) -> Tensor:
    """A mask in any container -> bool on `device`. Raises InputError for something else."""
    try:
        return torch.as_tensor(mask, device=device).bool()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"mask: expected an array of True and False, got a {type(mask).__name__}") from None


def _check_rate(sample_rate: Any) -> None:
    is_number = isinstance(sample_rate, numbers.Real) and not isinstance(sample_rate, bool)
    if not is_number or not RATES[0] <= sample_rate <= RATES[1]:
        raise InputError(
            f"sample_rate: {sample_rate!r} is not a sample rate of sound, a number from {RATES[0]} to {RATES[1]:,} Hz"
        )


def _tensor(wave: np.ndarray) -> Tensor:
    """Also of arrays that torch takes no view of: reversed, of another byte order, read-only, of Python's numbers."""
    if wave.dtype == object or wave.dtype.kind == "f" and wave.dtype.itemsize > 8:
        wave = wave.astype(np.float64)
    return torch.from_numpy(np.require(wave, wave.dtype.newbyteorder("="), ["C_CONTIGUOUS", "WRITEABLE"]))
