"""How much of a data set is digital silence: samples that are exactly zero, padding as a rule."""

import numpy as np

from ..errors import InputError
from .manifest import Manifest


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
