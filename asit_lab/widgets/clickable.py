"""A picture whose parts can be chosen, by mouse and by keyboard."""

from collections.abc import Callable

import anywidget
import numpy as np
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import InputError
from .base import CurrentFigure, render_png
from .scripts import joined


class Selectable(anywidget.AnyWidget):
    """A picture of which one part can be chosen. Observe `selected` and `hovered`, numbers of parts, -1 for none."""

    selected = traitlets.Int(-1).tag(sync=True)
    hovered = traitlets.Int(-1).tag(sync=True)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layout.width = "100%"
        self.add_class("asit-picture")
        self.on_again: Callable[[], None] = lambda: None
        """called when the selected part is clicked, or chosen by Enter or space, again"""
        self.on_msg(lambda _widget, content, _buffers: content.get("kind") == "again" and self.on_again())


class ClickableImage(Selectable):
    """A picture with targets: a click selects the nearest one, and so do the arrow keys while it has the focus. The
    selected target carries a ring."""

    _esm = joined("parts.js", "targets.js", "clickable.js")
    _css = joined("clickable.css")

    png = traitlets.Bytes().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    targets = traitlets.Bytes().tag(sync=True)
    """float32, little endian, [n, 2]: x and y as fractions of the picture, from its top left"""
    areas = traitlets.List().tag(sync=True)
    """panels that react to the mouse: [left, top, right, bottom], fractions of the picture from its top left"""
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._current = CurrentFigure()

    @property
    def fractions(self) -> np.ndarray:
        """The targets as float32 [n, 2]."""
        return np.frombuffer(self.targets, "<f4").reshape(-1, 2)

    def draw(
        self,
        figure: Figure,
        ax_targets: list[tuple[Axes, np.ndarray]],
        labels: list[str] | None = None,
        dpi: float = 100,
        alt: str = "",
    ) -> None:
        """Show `figure` with its targets: for each panel their places [n, 2] in the panel's data coordinates.

        Targets are numbered through all panels in order. labels: one a target, or none. As with FigureImage.draw, the
        same Figure can be drawn again, and another one takes its place. Raises InputError when labels and targets
        differ.
        """
        labels = list(labels or [])
        count = sum(len(places) for _, places in ax_targets)
        if labels and len(labels) != count:
            raise InputError(f"labels: {len(labels)} for {count} targets")
        png = render_png(figure, dpi, any_theme=True)  # first: it is the drawing that gives every panel its place
        places = [_fractions(figure, ax, places) for ax, places in ax_targets]
        targets = np.concatenate([np.empty((0, 2)), *places]).astype("<f4").tobytes()
        boxes = [ax.get_position() for ax, _ in ax_targets]
        with self.hold_sync():
            self.areas = [[*map(float, (box.x0, 1 - box.y1, box.x1, 1 - box.y0))] for box in boxes]
            if self.selected >= count:
                self.selected = -1
            if self.hovered >= count:
                self.hovered = -1
            self.png, self.targets, self.labels, self.alt = png, targets, labels, alt
        self._current.replace(figure)


def _fractions(figure: Figure, ax: Axes, places) -> np.ndarray:
    """Data coordinates of a drawn panel -> fractions of the figure, y downwards: [n, 2]."""
    places = np.asarray(places, dtype=float).reshape(-1, 2)
    x, y = figure.transFigure.inverted().transform(ax.transData.transform(places)).T
    return np.stack([x, 1.0 - y], axis=-1)
