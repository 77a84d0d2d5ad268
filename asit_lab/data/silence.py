"""Measures digital silence in a data set and trims silence from clip edges."""

from collections.abc import Callable

import numpy as np

from ..errors import InputError
from .manifest import Manifest

_PIECE = 10.0  # s of a long clip read at a time
SOUND = 1e-4  # -80 dB of full scale: lossy codecs leave some noise in silence


def sounding(wave: np.ndarray, least: int) -> np.ndarray:
    """The stretch from the first to the last sample louder than -80 dB of full scale, at least `least` samples of the
    clip where it has them: float [S] -> float [S']. Of a clip without any, all."""
    loud = np.flatnonzero(np.abs(wave) > SOUND)
    if not len(loud):
        return wave
    start, stop = int(loud[0]), int(loud[-1]) + 1
    stop = min(len(wave), max(stop, start + least))
    return wave[min(start, max(0, stop - least)) : stop]


def sounding_stretch(
    read: Callable[[float, float], np.ndarray], seconds: float, rate: int, least: float
) -> tuple[float, float]:
    """(start, length) in s of the stretch between a long clip's first and last sound, at least `least` s.

    read(start, seconds) gives a stretch of the clip at `rate` Hz; silence is searched in pieces from both ends. The
    complete clip where there is no sound.
    """
    pieces = [(begin, min(_PIECE, seconds - begin)) for begin in np.arange(0.0, seconds, _PIECE).tolist()]
    loud = ((begin, np.flatnonzero(np.abs(read(begin, length)) > SOUND)) for begin, length in pieces)
    first = next((begin + float(places[0]) / rate for begin, places in loud if len(places)), None)
    if first is None:
        return 0.0, seconds
    loud = ((begin, np.flatnonzero(np.abs(read(begin, length)) > SOUND)) for begin, length in reversed(pieces))
    last = next(begin + float(places[-1] + 1) / rate for begin, places in loud if len(places))
    stop = min(seconds, max(last, first + least))
    start = max(0.0, min(first, stop - least))
    return start, stop - start


def measure_silence(manifest: Manifest, most: int = 400) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Share of samples that are exactly zero, clip by clip: (shares [clips], unreadable).

    most: where there are more clips, this many are measured, evenly spread, and the others are NaN. A clip that cannot
    be read is NaN too, and listed in `unreadable` as (row, reason). Files are read at their own rate, as resampling
    smears zeros.
    """
    clips, rates = len(manifest), manifest.table["sample_rate"].to_numpy()
    shares, unreadable = np.full(clips, np.nan), []
    for row in np.unique(np.linspace(0, clips - 1, min(clips, most)).round().astype(int)).tolist():
        try:
            shares[row] = np.mean(manifest.read(row, int(rates[row])) == 0)
        except InputError as error:
            unreadable.append((row, str(error)))
    return shares, unreadable
