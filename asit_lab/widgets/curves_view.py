"""Curves of runs, drawn by the page: values at the cursor, in all panels at once, and zoom need no kernel."""

import io
from collections.abc import Callable, Mapping, Sequence

import anywidget
import numpy as np
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from ..figures.style import COLOURS
from ..figures.training import curve_title, in_common, smoothed
from .base import render_png
from .scripts import joined

_MOST = 500  # points of a line
_SMOOTH_FROM = 20  # rows, as in figures.training


class CurvesView(anywidget.AnyWidget):
    """A panel for each curve, a line for each run or a band for each group of them. `png` is the static picture."""

    _esm = joined("parts.js", "curves.js")
    _css = joined("spectrogram.css", "curves.css")

    panels = traitlets.List().tag(sync=True)
    """title, references [[value, label]], and lines: name, colour, x, raw, smooth, low, high (lists; None: a gap)"""
    axis = traitlets.Unicode("step").tag(sync=True)
    log = traitlets.Unicode("automatic").tag(sync=True)
    palette = traitlets.List(traitlets.Unicode(), list(COLOURS)).tag(sync=True)

    def __init__(self, width: float, dpi: int):
        """width: of the static picture, in inches of `dpi` dots."""
        super().__init__()
        self.width, self.dpi = width, dpi
        self.draw_figure: Callable[[], Figure] | None = None
        self._png: bytes | None = b""
        self.layout.width, self.layout.display = "100%", "none"
        self.add_class("asit-picture")
        self.on_msg(self._receive)

    def show(self, panels: list[dict], axis: str, log: str, draw: Callable[[], Figure] | None) -> None:
        """draw: makes the static figure of the same; None: nothing to show."""
        self.draw_figure, self._png = draw, None if draw else b""
        with self.hold_sync():
            self.panels, self.axis, self.log = panels, axis, log
        self.layout.display = None if draw else "none"

    @property
    def png(self) -> bytes:
        if self._png is None and self.draw_figure is not None:
            figure = self.draw_figure()
            self._png = render_png(figure, self.dpi)
            figure.clear()
        return self._png or b""

    def _receive(self, _widget, content: dict, _buffers: list) -> None:
        if content.get("kind") == "pdf" and self.draw_figure is not None:
            buffer = io.BytesIO()
            self.draw_figure().savefig(buffer, format="pdf", metadata={"CreationDate": None})
            self.send({"kind": "pdf"}, [buffer.getvalue()])


def run_line(name: str, number: int, x: np.ndarray, column: pd.Series, smoothing: float) -> dict:
    """One run's line: at most some hundred points. smoothing: share of the rows that the running mean goes over."""
    values = pd.to_numeric(column, errors="coerce").replace([np.inf, -np.inf], np.nan)
    smooth = smoothed(values, smoothing if len(values) >= _SMOOTH_FROM else 0.0)
    rows = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOST)).astype(int))
    raw = [] if smooth is values else _plain(values.to_numpy(float)[rows])
    drawn = {"x": _plain(x[rows]), "raw": raw, "smooth": _plain(smooth.to_numpy(float)[rows])}
    return {"name": name, "colour": number, **drawn, "low": [], "high": []}


def group_line(name: str, number: int, lines: Sequence[dict]) -> dict:
    """Mean of several runs' lines, and the band from their lowest to their highest, where all of them are."""
    places, smooth = ([np.array(line[key], float) for line in lines] for key in ("x", "smooth"))
    x, values = in_common(places, smooth)
    mean, low, high = values.mean(0), values.min(0), values.max(0)
    title = f"{name}: mean of {len(lines)}"
    bands = {"low": _plain(low), "high": _plain(high)}
    return {"name": title, "colour": number, "x": _plain(x), "raw": [], "smooth": _plain(mean), **bands}


def curve_panels(names: Sequence[str], lines: Mapping[str, list[dict]], references: Mapping[str, list]) -> list[dict]:
    """lines: name of a curve -> its lines."""
    return [
        {"name": name, "title": curve_title(name), "references": references.get(name, []), "lines": lines[name]}
        for name in names
        if lines.get(name)
    ]


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]
