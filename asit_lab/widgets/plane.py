"""Clips on a plane, drawn by the page: zoom, lasso, legend and search need no kernel."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
import traitlets

from ..figures.style import CLASS_COLOURS
from .base import render_png
from .clickable import Selectable
from .embedding_panels import MAP_DPI, NeighbourMap
from .scripts import joined

_SCALE = "viridis"


class Plane(Selectable):
    """Points with names, coloured by a column of their table. `png` is a static picture, drawn on demand."""

    _esm = joined("parts.js", "targets.js", "markers.js", "plane.js")
    _css = joined("spectrogram.css", "plane.css")

    points = traitlets.Bytes().tag(sync=True)
    """float32 [n, 2], little-endian"""
    values = traitlets.Bytes().tag(sync=True)
    """float32 [n]: numbers, or places in `categories`"""
    categories = traitlets.List(traitlets.Unicode()).tag(sync=True)
    range = traitlets.List(traitlets.Float()).tag(sync=True)
    """lowest and highest number; empty: categories"""
    unit = traitlets.Unicode().tag(sync=True)
    palette = traitlets.List(traitlets.Unicode(), list(CLASS_COLOURS)).tag(sync=True)
    colours = traitlets.Bytes().tag(sync=True)
    """256 colours for numbers"""
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    columns = traitlets.List(traitlets.Unicode()).tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    """texts of the table, for what is selected"""
    title = traitlets.Unicode().tag(sync=True)
    method = traitlets.Unicode().tag(sync=True)
    near = traitlets.List(traitlets.Int()).tag(sync=True)
    """points ringed, and linked to the selected one"""

    def __init__(self):
        colours = (matplotlib.colormaps[_SCALE](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
        super().__init__(colours=colours.tobytes())
        self._labels: Sequence[str] = ()
        self._drawn: tuple[object, ...] | None = None
        self._png = b""

    def show(self, points: np.ndarray, table: pd.DataFrame, names: Sequence[str], title: str, method: str) -> None:
        """points: float [n, 2]; table: n rows, with the column label; names: of the points; method: how points came."""
        self._labels = table["label"].tolist()
        with self.hold_sync():
            self.names, self.title, self.method = list(names), title, method
            self.columns, self.rows = list(table), table.astype(str).to_numpy().tolist()
            self.points = np.ascontiguousarray(points, "<f4").tobytes()

    def colour_by(self, column: pd.Series, unit: str = "") -> None:
        """Colours: of numbers, on a scale; of texts, one for each; of a categorical column, one for each category."""
        numeric = pd.api.types.is_numeric_dtype(column)
        with self.hold_sync():
            if numeric:
                values = column.to_numpy(np.float32)
                finite = values[np.isfinite(values)]
                self.range = [float(finite.min()), float(finite.max())] if len(finite) else [0.0, 1.0]
                self.categories, self.unit = [], unit
            else:
                categorical = isinstance(column.dtype, pd.CategoricalDtype)
                texts = (column if categorical else column.astype(str).astype("category")).cat
                values, self.range = texts.codes.to_numpy(np.float32), []
                self.categories, self.unit = texts.categories.tolist(), ""
            self.values = np.ascontiguousarray(values, "<f4").tobytes()

    @property
    def png(self) -> bytes:
        """The full plane by label, with the selected point and what is near; empty before the first."""
        state = (self.points, self.selected, tuple(self.near), self.title)
        if self.points and (self.selected >= 0 or self.near) and self._drawn != state:
            places = np.frombuffer(self.points, "<f4").reshape(-1, 2)
            drawn = NeighbourMap(places, self._labels, self.title, self.method)
            self._png, self._drawn = render_png(drawn.mark(self.selected, self.near), MAP_DPI), state
            drawn.figure.clear()
        return self._png
