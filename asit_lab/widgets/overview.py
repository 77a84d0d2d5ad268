"""The waveform of a full recording, with the window that is shown; dragging moves it."""

import anywidget
import ipywidgets
import numpy as np
import traitlets

from .scripts import joined

_COLUMNS = 800  # of the waveform


class Overview(anywidget.AnyWidget):
    """Shows a recording above its excerpt, and moves the `slider` of its start; hidden where the two are the same."""

    _esm = joined("parts.js", "overview.js")
    _css = joined("overview.css")

    peaks = traitlets.Bytes().tag(sync=True)
    """int8 [columns, 2], lowest and highest sample of each, full scale is 127"""
    total = traitlets.Float(0.0).tag(sync=True)
    """length of the recording, s"""
    seconds = traitlets.Float(0.0).tag(sync=True)
    """length of the window, s"""
    start = traitlets.Float(0.0).tag(sync=True)
    """where the window starts, s"""

    def __init__(self, slider: ipywidgets.FloatSlider):
        super().__init__()
        self.slider = slider
        self.layout.width, self.layout.display = "100%", "none"
        traitlets.dlink((slider, "value"), (self, "start"))
        self.observe(lambda change: setattr(slider, "value", self._nearest(change["new"])), names="start")

    def show(self, wave: np.ndarray, sample_rate: int, seconds: float) -> None:
        """wave: float [samples]; seconds: length of the window."""
        total = len(wave) / sample_rate
        with self.hold_sync():
            self.total, self.seconds = total, min(seconds, total)
            self.peaks = peaks_of(wave).tobytes()
        self.layout.display = None if total > seconds + 0.01 else "none"

    def _nearest(self, start: float) -> float:
        """The slider's step nearest to a place, s."""
        steps = round(start / self.slider.step)
        return float(min(max(steps * self.slider.step, self.slider.min), self.slider.max))


def peaks_of(wave: np.ndarray) -> np.ndarray:
    """Lowest and highest sample of each of some columns: int8 [columns, 2], the loudest sample is at 127."""
    edges = np.unique(np.linspace(0, len(wave), min(len(wave), _COLUMNS), endpoint=False).astype(int))
    ends = np.stack([np.minimum.reduceat(wave, edges), np.maximum.reduceat(wave, edges)], axis=1)
    return np.round(127 * ends / max(float(np.abs(ends).max()), 1e-9)).astype(np.int8)
