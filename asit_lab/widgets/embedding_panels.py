"""Draws the embedding explorer: clips on a plane with marked neighbours, and log-mel thumbnails."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ..errors import InputError
from ..figures.axes import MelAxes, array, colour_limits, image
from ..figures.evaluation import embedding_map
from ..figures.style import new_figure, styled

MAP_DPI = 100
_COLUMNS = 3
_LONGEST = 16  # characters of a label over a small log-mel


class NeighbourMap:
    """`embedding_map` with one clip ringed and lines to its neighbours: `mark` changes these alone.

    The map is drawn once, as an image behind the marks; its hundreds of markers would take most of the time of every
    drawing. So `figure` is to be drawn with DPI dots an inch. ax: the panel of the marks; points: [clips, 2], where the
    clips are in its units.
    """

    @styled
    def __init__(self, points, labels, title: str | None = None, method: str = ""):
        """points, labels, title, method: as in `embedding_map`, which also says what it refuses."""
        map_figure = embedding_map(points, labels, title, method)
        map_figure.set_dpi(MAP_DPI)
        canvas = FigureCanvasAgg(map_figure)
        canvas.draw()
        behind = map_figure.axes[0]
        self.figure = Figure(figsize=map_figure.get_size_inches(), dpi=MAP_DPI)
        self.figure.figimage(np.array(canvas.buffer_rgba()), origin="upper", zorder=-1)
        self.ax, self.points = self.figure.add_axes(behind.get_position()), np.asarray(points, dtype=float)
        self.ax.set(xlim=behind.get_xlim(), ylim=behind.get_ylim())
        self.ax.set_axis_off()
        self._links = self.ax.add_collection(LineCollection([], colors="black", linewidths=0.9, alpha=0.7))
        look = {"linestyle": "", "marker": "o", "fillstyle": "none", "color": "black", "scalex": False, "scaley": False}
        (self._near,) = self.ax.plot([], [], markersize=11, markeredgewidth=1.2, **look)
        (self._chosen,) = self.ax.plot([], [], markersize=15, markeredgewidth=2.2, **look)
        map_figure.clear()

    def mark(self, clip: int, neighbours: Sequence[int]) -> Figure:
        """Ring `clip` and its `neighbours`, numbers of points. clip: -1 for a sound that is not among them."""
        near, chosen = self.points[list(neighbours)], self.points[[clip] if clip >= 0 else []]
        self._links.set_segments([(point, neighbour) for point in chosen for neighbour in near])
        self._near.set_data(*near.T)
        self._chosen.set_data(*chosen.T)
        return self.figure


@styled
def thumbnail(log_mel, axes: MelAxes, title: str) -> Figure:
    """A small log-mel [frames, mels] with seconds and Hz. Raises InputError for another shape."""
    log_mel = array(log_mel, "log_mel", "frames, mels")
    figure = new_figure(3.2, 1.7)
    ax = figure.add_subplot()
    image(ax, log_mel, axes, colour_limits(log_mel))
    ax.set_title(title)
    return figure


@styled
def neighbour_strip(log_mels: Sequence, titles: Sequence[str], axes: MelAxes) -> tuple[Figure, list]:
    """Log-mels [frames, mels] in small, each with its title and its own length: the chosen clip, then its neighbours.

    One colour scale for all. Returns the figure and, for each neighbour, its panel and its middle. Raises InputError
    where there are not as many titles, or no log-mel.
    """
    if not log_mels or len(log_mels) != len(titles):
        raise InputError(
            f"log_mels: {len(log_mels)} with {len(titles)} titles; expected at least one, each with a title"
        )
    images = [array(log_mel, f"log_mels[{number}]", "frames, mels") for number, log_mel in enumerate(log_mels)]
    rows = -(-len(images) // _COLUMNS)
    figure = new_figure(6.4, 1.3 * rows)
    figure.set_layout_engine("none")  # so few words have a place that is known
    place = {"left": 0.01, "right": 0.99, "top": 1 - 0.2 / rows, "bottom": 0.02, "wspace": 0.06, "hspace": 0.28}
    grid = figure.add_gridspec(rows, _COLUMNS, **place)
    limits, targets = colour_limits(*images), []
    for number, (log_mel, title) in enumerate(zip(images, titles, strict=True)):
        ax = figure.add_subplot(grid[divmod(number, _COLUMNS)])
        image(ax, log_mel, axes, limits)
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
        ax.set_title(title, weight="bold" if number == 0 else "normal")
        if number:
            targets.append((ax, np.array([[axes.seconds(len(log_mel)) / 2, log_mel.shape[1] / 2]])))
        else:
            for spine in ax.spines.values():
                spine.set_linewidth(2.5)
    return figure, targets


def short_label(label: str) -> str:
    """A label that fits over a small log-mel."""
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "\u2026"
