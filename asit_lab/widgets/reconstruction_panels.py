"""The picture of the reconstruction explorer: log-mels above each other, and their error in place, by time and by band.

A slider moves data, not the layout. Frames, ticks and colour bars are therefore drawn once and kept as pixels; what
moves (images, curves, titles) is painted over them, which takes a few milliseconds where a whole figure takes some
hundred.
"""

import io
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from PIL import Image

from ..errors import InputError
from ..figures.axes import MelAxes, array, frequency_axis, image
from ..figures.style import COLOURS, DASHES, ERROR_MAP, TITLE_SIZE, new_figure, short_name, styled

DPI = 125
_MOST_LETTERS = {1: 62, 2: 56}  # of a title, in one column and in each of two


class Panel(NamedTuple):
    """What one panel shows: [frames, mels], NaN grey, and the title above it."""

    title: str
    values: Any


class Scales(NamedTuple):
    """low, high: ends of the log-mels' colour scale. error: upper end of the error's, which begins at 0, and of the
    axes of its means, as long as these stay below it."""

    low: float
    high: float
    error: float


def error_by_time(error: np.ndarray) -> np.ndarray:
    """Mean over bands of an error [frames, mels], NaN where it does not count -> [frames]."""
    return _mean(error, 1)


def error_by_band(error: np.ndarray) -> np.ndarray:
    """Mean over time of an error [frames, mels], NaN where it does not count -> [mels]."""
    return _mean(error, 0)


def fit_text(artist: Text, text: str, letters: int) -> None:
    """Give `artist` a text. One of more than `letters` letters is set smaller; what still does not fit is cut off."""
    size = TITLE_SIZE * min(1.0, max(0.72, letters / max(len(text), 1)))
    artist.set_text(short_name(text, int(letters * TITLE_SIZE / size)))
    artist.set_fontsize(size)


def _mean(error: np.ndarray, axis: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a frame or band of NaN alone has no mean
        return np.nanmean(error, axis=axis)


class ReconstructionView:
    """Rows of log-mels of one clip, errors below them, and the errors' means by time and by band; redrawn in place.

    draw() again and again, then png() for what is shown now; `figure` can be saved as any other. One error: everything
    in one column, so that all panels share the time axis. Two errors, of two models on one mask: rows of two panels.
    """

    def __init__(self):
        self.figure = self._canvas = None
        self._layout = self._scales = self._reach = self._backdrop = None

    @styled
    def draw(
        self,
        rows: Sequence[Sequence[Panel]],
        errors: Sequence[Panel],
        axes: MelAxes,
        scales: Scales,
        error_unit: str,
        names: Sequence[str] = (),
    ) -> None:
        """Show log-mels and errors, all [frames, mels] of one shape.

        rows: panels of log-mels, rows of as many as there are errors. errors: one or two; NaN where none counts.
        error_unit: what the error is, for its axes. names: for the legend, of each of two errors.
        Raises InputError for rows of another length, shapes that differ, or scales that are none.
        """
        if not scales.low < scales.high or not scales.error > 0:
            raise InputError(f"scales: expected low < high and error > 0, got {tuple(scales)}")
        if len(errors) not in (1, 2) or any(len(row) != len(errors) for row in rows):
            raise InputError(f"rows: expected rows of {len(errors)} panels beside one or two errors")
        panels = [panel for row in rows for panel in row] + list(errors)
        values = [array(panel.values, panel.title, "frames, mels") for panel in panels]
        if len({image.shape for image in values}) > 1:
            raise InputError(f"panels: shapes differ: {sorted({image.shape for image in values})}")
        layout = (len(rows), len(errors), values[0].shape, axes, error_unit)
        if layout != self._layout:
            self._build(layout, scales)
        elif scales != self._scales:
            self._rescale(scales)
        for drawn, title, panel, pixels in zip(self._images, self._titles, panels, values, strict=True):
            drawn.set_data(np.ma.masked_invalid(pixels.T))
            fit_text(title, panel.title, _MOST_LETTERS[len(errors)])
        curves = []
        for i, error in enumerate(values[-len(errors) :]):
            curves += [error_by_time(error), error_by_band(error)]
            self._by_time[i].set_ydata(curves[-2])
            self._by_band[i].set_xdata(curves[-1]) if len(errors) == 1 else self._by_band[i].set_ydata(curves[-1])
        self._make_room(np.concatenate(curves))
        for text, name in zip(self._legend.get_texts() if self._legend else (), names, strict=False):
            text.set_text(short_name(name, 40))

    @styled
    def png(self) -> bytes:
        """What was drawn last, at `DPI` dots an inch."""
        canvas = self._canvas
        if self._backdrop is None:
            canvas.draw()  # all but what moves
            self.figure.set_layout_engine("none")  # the room of each panel stays as it is now
            self._backdrop = canvas.copy_from_bbox(self.figure.bbox)
        canvas.restore_region(self._backdrop)
        for artist in self._moving:
            artist.draw(canvas.get_renderer())
        file = io.BytesIO()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        # Little compression: the picture travels a few metres at most, and a slider waits for it.
        Image.fromarray(pixels).save(file, format="png", compress_level=1)
        return file.getvalue()

    # --- Building ---------------------------------------------------------------------------------------------------

    def _build(self, layout: tuple, scales: Scales) -> None:
        """A new figure with empty panels for (rows, errors, shape, axes, unit)."""
        rows, columns, shape, axes, unit = layout
        if self.figure is not None:
            self.figure.clear()  # a figure is full of cycles, which the collector finds late
        self._layout, self._scales, self._backdrop = layout, scales, None
        height = 1.05 if rows > 4 else 1.2 if rows > 2 else 1.5  # of a row with its title, inches
        self.figure = new_figure(6.2 if columns == 1 else 10.0, 0.5 + height * (rows + 2))
        self.figure.set_dpi(DPI)
        # The layout is found once: at the right there is room for the longer tick labels of other scales.
        self.figure.get_layout_engine().set(rect=(0, 0, 0.98, 1))
        self._canvas = FigureCanvasAgg(self.figure)  # saving the figure gives it another one
        grid = self.figure.add_gridspec(rows + 2, columns + 1, width_ratios=[*[1] * columns, 0.19 / columns])
        panels = [self._panel(grid[row, column]) for row in range(rows + 1) for column in range(columns)]
        nothing = np.full(shape, np.nan)
        limits = (scales.low, scales.high)
        self._log_mels = [image(ax, nothing, axes, limits) for ax in panels[:-columns]]
        self._errors = [image(ax, nothing, axes, (0.0, scales.error), ERROR_MAP) for ax in panels[-columns:]]
        self._images = [*self._log_mels, *self._errors]
        self._titles = [ax.set_title("to be set") for ax in panels]
        for number, ax in enumerate(panels):
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False, labelleft=number % columns == 0)
            ax.set_ylabel("frequency (Hz)" if number == rows // 2 * columns else "")
        self._profiles(grid, panels[-1], layout)
        self._bars(grid, rows, columns, axes, unit)
        spines = [spine for ax in panels for spine in ax.spines.values()]  # images are painted over them
        self._moving = [*self._images, *self._by_time, *self._by_band, *spines, *self._titles]
        self._moving += [self._legend] if self._legend else []
        for artist in self._moving:
            artist.set_animated(True)

    def _panel(self, place):
        """A panel at a place of the grid, on the time axis of those that are there."""
        return self.figure.add_subplot(place, sharex=self.figure.axes[0] if self.figure.axes else None)

    def _profiles(self, grid, error_panel, layout: tuple) -> None:
        """The errors' means: by time below their panel; by band beside it, or below too where there are two."""
        rows, columns, (frames, mels), axes, unit = layout
        seconds = axes.time(np.arange(frames) + 0.5)
        bands = np.arange(mels) + 0.5
        self._over_time = self.figure.add_subplot(grid[rows + 1, 0], sharex=error_panel)
        self._over_time.set(xlabel="time (s)", ylabel=unit)
        self._over_time.set_title("mean error by time")
        if columns == 1:
            self._over_bands = self.figure.add_subplot(grid[rows, 1], sharey=error_panel)
            self._over_bands.tick_params(labelleft=False)
        else:
            self._over_bands = self.figure.add_subplot(grid[rows + 1, 1])
            self._over_bands.set_xlim(0, mels)
            frequency_axis(self._over_bands.xaxis, axes, mels)
            self._over_bands.tick_params(labelleft=False)
        self._over_bands.set_title("mean error by band" if columns == 2 else "by band")
        self._by_time, self._by_band = [], []
        for i in range(columns):
            look = {"color": COLOURS[i], "linestyle": DASHES[i], "linewidth": 1.3}
            self._by_time += self._over_time.plot(seconds, np.full(frames, np.nan), **look)
            missing = np.full(mels, np.nan)
            points = (missing, bands) if columns == 1 else (bands, missing)
            self._by_band += self._over_bands.plot(*points, **look)
        self._legend = None
        if columns == 2:
            look = {"loc": "upper right", "frameon": True, "framealpha": 0.8, "edgecolor": "none"}
            self._legend = self._over_time.legend(self._by_time, ["first", "second"], **look)
        self._limit_profiles(self._scales.error)

    def _make_room(self, curves: np.ndarray) -> None:
        """Let profiles reach further where their curves do. They then stay so, and compare with the next move's."""
        highest = curves[np.isfinite(curves)].max(initial=0.0)
        if highest > self._reach:
            self._backdrop = None  # ticks change
            self._limit_profiles(1.25 * highest)  # with room, or the next moves would change them again

    def _limit_profiles(self, reach: float) -> None:
        """Profiles from 0 to `reach`: the end of the error's colour scale, unless a curve goes beyond it."""
        self._reach, over_bands = reach, self._over_bands
        for axis in (self._over_time.yaxis, over_bands.xaxis if len(self._errors) == 1 else over_bands.yaxis):
            axis.set_major_locator(MaxNLocator(3))
        self._over_time.set_ylim(0, reach)
        (over_bands.set_xlim if len(self._errors) == 1 else over_bands.set_ylim)(0, reach)

    def _bars(self, grid, rows: int, columns: int, axes: MelAxes, unit: str) -> None:
        """The two colour bars, at the right of all panels."""
        upper = self.figure.add_subplot(grid[:rows, columns])
        lower = self.figure.add_subplot(grid[rows + 1 if columns == 1 else rows, columns])
        for cell in (upper, lower):
            cell.set_axis_off()
        box = (0.0, 0.08, 0.14 if columns == 1 else 0.3, 0.84)
        self._log_mel_bar = self.figure.colorbar(
            self._log_mels[0], cax=upper.inset_axes(box), extend="both", label=axes.unit
        )
        self._error_bar = self.figure.colorbar(
            self._errors[0], cax=lower.inset_axes(box), extend="max", label=unit, ticks=MaxNLocator(3)
        )
        for bar in (self._log_mel_bar, self._error_bar):
            bar.outline.set_linewidth(0.5)

    def _rescale(self, scales: Scales) -> None:
        """Other ends of the colour scales: ticks change, so the backdrop is drawn anew."""
        self._scales, self._backdrop = scales, None
        for drawn in self._log_mels:
            drawn.set_clim(scales.low, scales.high)
        for drawn in self._errors:
            drawn.set_clim(0.0, scales.error)
        self._limit_profiles(scales.error)
