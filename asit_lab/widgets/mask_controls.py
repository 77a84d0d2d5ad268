"""Controls that the mask and the reconstruction explorer share: where the crop starts, and the mask's blocks."""

import ipywidgets
import numpy as np

from ..config import RunConfig
from .base import labelled
from .clips import loudest

MOST_HIDDEN = 95  # %: beyond it, blocks have to be drawn by the thousand to hit what little is left


def start_slider() -> ipywidgets.FloatSlider:
    """Start of the crop, s; see `fit_start`."""
    slider = ipywidgets.FloatSlider(0.0, min=0.0, max=0.0, step=0.1, readout_format=".1f")
    return labelled(slider, "start (s)", "where in the clip the crop starts, seconds")


def fit_start(slider: ipywidgets.FloatSlider, wave: np.ndarray, sample_rate: int, seconds: float) -> None:
    """Move the slider to the loudest `seconds` of another clip; hide it where the clip is not longer than that."""
    room = max(0.0, len(wave) / sample_rate - seconds)
    slider.value, slider.max = 0.0, room
    slider.value = loudest(wave, sample_rate, seconds)
    slider.layout.display = None if room else "none"


def ratio_slider(share: float) -> ipywidgets.IntSlider:
    """Corruption ratio, %."""
    return ipywidgets.IntSlider(min(MOST_HIDDEN, round(100 * share)), min=0, max=MOST_HIDDEN)


def block_controls(cfg: RunConfig) -> tuple[ipywidgets.IntSlider, ipywidgets.IntSlider, ipywidgets.Checkbox]:
    """Largest block of GMML (%), side of ASDA's visible blocks (patches), alignment; as the configuration has them."""
    block = round(100 * cfg.mask.block)
    return (
        labelled(
            ipywidgets.IntSlider(block, min=min(10, block), max=100),
            "block (%)",
            "largest block, as a share of each side of the spectrogram",
        ),
        labelled(
            ipywidgets.IntSlider(cfg.asda.block, min=1, max=max(cfg.asda.block, *cfg.grid)),
            "block",
            "side of a block of visible patches, in patches",
        ),
        labelled(
            ipywidgets.Checkbox(cfg.mask.align, indent=True),
            "aligned to patches",
            "blocks start and end where patches do",
        ),
    )
