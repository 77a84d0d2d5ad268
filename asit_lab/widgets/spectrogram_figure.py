"""The static picture of a spectrogram view: its panels above each other, the error's means by time and by band."""

import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import FuncNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from ..figures.attention import SIGNED_MAP, signed_root, signed_square
from ..figures.axes import frequency_axis, image
from ..figures.spectrograms import draw_patch_grid
from ..figures.style import (
    ATTENTION_MAP,
    COLOURS,
    DASHES,
    ERROR_MAP,
    NOTHING,
    TITLE_SIZE,
    new_figure,
    short_name,
    styled,
)
from .scene import Panel, Scene

_SHADE = (128, 128, 128, 215)  # RGBA of a corrupted token: unlike every colour of a log-mel, and of padding
WEIGHT_LABELS = {"weight": "attention (%)", "difference": "weight (%)"}  # kinds of panels, and what they show
_MOST_LETTERS = {1: 78, 2: 56}  # of a title, in one column and in each of two


@styled
def spectrogram_figure(
    scene: Scene,
    low: float,
    high: float,
    most: float,
    colours: str,
    decibels: bool = False,
    peak: float = 1.0,
    marked: Sequence[Sequence[int]] = (),
) -> Figure:
    """`scene` on colour scales from `low` to `high` and, for errors, from 0 to `most`, for weights to `peak` percent.

    marked: first frame, first band, frames and bands of places that are framed in every panel.

    Its axes have labels: "panel" (time and frequency), "time", "band". decibels: whether levels are in dB.
    """
    columns, errors = scene.columns, scene.errors
    rows = scene.places[-1][0] + 1
    height = 0.5 if scene.small else 1.05 if rows > 5 else 1.25 if rows > 3 else 1.6  # of a row with its title, inches
    figure = new_figure(8.0 if columns == 1 else 11.0, 0.5 + height * rows + (1.15 if errors else 0))
    ratios = [height] * rows + [1.15] * bool(errors)
    widths = [*[1] * columns, 0.13 / columns] if errors else [1] * columns
    grid = figure.add_gridspec(len(ratios), len(widths), height_ratios=ratios, width_ratios=widths)
    axes: list[Axes] = []
    drawn = []
    for number, (panel, (row, column)) in enumerate(zip(scene.panels, scene.places, strict=True)):
        ax = figure.add_subplot(grid[row, column], sharex=axes[0] if axes else None, label="panel")
        look = ((low, high), colours) if panel.kind == "level" else ((0.0, most), ERROR_MAP)
        if panel.kind in WEIGHT_LABELS:
            drawn.append(_weights(ax, panel, scene, peak))
        else:
            drawn.append(image(ax, np.asarray(panel.values), scene.axes, *look))
        if panel.over >= 0:
            _weights(ax, scene.panels[panel.over], scene, peak, over=True)
        for place in marked:
            _frame(ax, scene, place)
        fit_text(ax.set_title(panel.title), panel.title, _MOST_LETTERS.get(columns, 90 // columns))
        if panel.tokens:
            _shade(ax, scene)
        mask = scene.kept_mask if panel.kept else scene.mask
        if panel.outline and mask is not None:
            _outline(ax, scene, borders(mask), (1, 1))
        last = number >= len(scene.panels) - columns and len(errors) != 1
        ax.tick_params(labelbottom=last, labelleft=column == 0 and not scene.small)
        ax.set_xlabel("time (s)" if last else "")
        middle = column == 0 and row == rows // 2 and not scene.small
        ax.set_ylabel("frequency (Hz)" if middle else "")
        axes.append(ax)
        unit = "level (dB)" if decibels else scene.axes.unit
    if errors:
        _profiles(figure, grid, axes, drawn[-1], scene, most, decibels)
        cell = figure.add_subplot(grid[: rows - 1, columns])
        cell.set_axis_off()
        bar = figure.colorbar(drawn[0], cax=cell.inset_axes((0, 0.1, 0.18 * columns, 0.8)), extend="both", label=unit)
    else:
        kinds = {panel.kind: picture for panel, picture in zip(reversed(scene.panels), reversed(drawn), strict=True)}
        for kind, picture in kinds.items():  # the first of each
            label = unit if kind == "level" else WEIGHT_LABELS[kind]
            bar = figure.colorbar(picture, ax=axes, extend="both", label=label, aspect=40, pad=0.01)
    bar.outline.set_linewidth(0.5)
    return figure


def _weights(ax: Axes, panel: Panel, scene: Scene, peak: float, over: bool = False):
    """Weights of attention on a square-root scale. over: the weaker, the more transparent."""
    shares = np.ma.masked_invalid(np.asarray(panel.values, float).T)
    signed = panel.kind == "difference"
    norm = FuncNorm((signed_root, signed_square), -peak, peak) if signed else PowerNorm(0.5, 0, peak)
    strength = np.clip(np.sqrt(np.abs(shares.filled(0)) / peak), 0, 1)
    covered = (shares.shape[1] * panel.cell[0], shares.shape[0] * panel.cell[1])
    limits = ax.get_xlim(), ax.get_ylim()
    drawn = ax.imshow(
        shares,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=scene.axes.extent(covered),
        cmap=matplotlib.colormaps[SIGNED_MAP if signed else ATTENTION_MAP].with_extremes(bad=NOTHING),
        norm=norm,
        alpha=0.9 * strength if over else None,
    )
    if over:
        ax.set(xlim=limits[0], ylim=limits[1])
    else:
        frequency_axis(ax.yaxis, scene.axes, scene.shape[1])
        ax.set(xlim=scene.axes.extent(scene.shape)[:2], ylim=(0, scene.shape[1]))
        for spine in ax.spines.values():
            spine.set_visible(True)
    return drawn


def _frame(ax: Axes, scene: Scene, place: Sequence[int]) -> None:
    frame, band, frames, bands = place
    for colour, width in (("black", 2.6), ("white", 1.2)):
        look = {"fill": False, "edgecolor": colour, "linewidth": width}
        ax.add_patch(Rectangle((scene.axes.time(frame), band), scene.axes.seconds(frames), bands, **look))


def _profiles(figure, grid, axes, drawn, scene: Scene, most: float, decibels: bool) -> None:
    """The errors' means: by time below them; by band beside the error, or below where there are two; their bar."""
    columns, errors = scene.columns, scene.errors
    row = grid.nrows - 1
    frames, mels = scene.shape
    unit = f"{scene.error_unit} (dB)" if decibels and scene.error_in_decibels else scene.error_unit
    by_time = figure.add_subplot(grid[row, 0], sharex=axes[-columns], label="time")
    by_time.set(xlabel="time (s)", ylabel=unit)
    by_time.set_title("mean error by time")
    beside = len(errors) == 1
    by_band = figure.add_subplot(grid[row - 1, 1], label="band") if beside else figure.add_subplot(grid[row, 1])
    by_band.set_title("by band" if beside else "mean error by band")
    middles = np.arange(mels) + 0.5
    seconds = scene.axes.time(np.arange(frames) + 0.5)
    reach = most
    for number, panel in enumerate(errors):
        style = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
        over_time, over_bands = error_by_time(panel.values), error_by_band(panel.values)
        label = short_name(scene.names[number], 40) if number < len(scene.names) else None
        by_time.plot(seconds, over_time, label=label, linewidth=1.3, **style)
        by_band.plot(*((over_bands, middles) if beside else (middles, over_bands)), linewidth=1.3, **style)
        curves = np.concatenate([over_time, over_bands])
        reach = max(reach, 1.05 * curves[np.isfinite(curves)].max(initial=0.0))
    by_time.set_ylim(0, reach)
    by_time.yaxis.set_major_locator(MaxNLocator(3))
    if beside:
        by_band.set(xlim=(0, reach), ylim=(0, mels), yticks=[])
        by_band.xaxis.set_major_locator(MaxNLocator(2))
    else:
        by_band.set(xlim=(0, mels), ylim=(0, reach))
        frequency_axis(by_band.xaxis, scene.axes, mels)
        by_band.tick_params(labelleft=False)
        by_time.legend(loc="upper right", frameon=True, framealpha=0.8, edgecolor="none")
    cell = figure.add_subplot(grid[row if beside else row - 1, columns])
    cell.set_axis_off()
    place = cell.inset_axes((0, 0.04, 0.18 * columns, 0.92))
    bar = figure.colorbar(drawn, cax=place, extend="max", label=unit, ticks=MaxNLocator(3))
    bar.outline.set_linewidth(0.5)


def _shade(ax: Axes, scene: Scene) -> None:
    """Corrupted tokens in grey, and the patch grid."""
    tokens = np.asarray(scene.tokens)
    shade = np.zeros((*tokens.T.shape, 4), np.uint8)
    shade[tokens.T.astype(bool)] = _SHADE
    covered = (tokens.shape[0] * scene.patch[0], tokens.shape[1] * scene.patch[1])
    limits = ax.get_xlim(), ax.get_ylim()
    extent = scene.axes.extent(covered)
    ax.imshow(shade, origin="lower", aspect="auto", interpolation="nearest", extent=extent)
    ax.set(xlim=limits[0], ylim=limits[1])
    draw_patch_grid(ax, tokens.shape, scene.patch, scene.axes)
    _outline(ax, scene, borders(tokens), scene.patch)


def _outline(ax: Axes, scene: Scene, lines: np.ndarray, unit: tuple[int, int]) -> None:
    """Lines in units of (frames, mels); white on black is seen on dark and on bright pixels alike."""
    places = lines * unit * (scene.axes.hop_seconds, 1.0) + (scene.axes.start, 0.0)
    for colour, width in (("black", 2.0), ("white", 0.9)):
        drawn = LineCollection(places, colors=colour, linewidths=width, capstyle="projecting")
        ax.add_collection(drawn, autolim=False)


def borders(mask: np.ndarray) -> np.ndarray:
    """Straight lines around the True places of `mask` [frames, mels]: float [lines, 2 ends, (frame, mel)]."""
    padded = np.pad(np.asarray(mask, bool), 1)
    upright = _runs(padded[1:, 1:-1] != padded[:-1, 1:-1])  # left of a frame
    level = _runs((padded[1:-1, 1:] != padded[1:-1, :-1]).T)  # below a band
    return np.concatenate([upright, level[..., ::-1]]).astype(float)


def _runs(edges: np.ndarray) -> np.ndarray:
    """Unbroken runs of True along each row of `edges` [rows, places]: int [runs, 2 ends, (row, place)]."""
    change = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]
    return np.stack([np.stack([rows, starts], -1), np.stack([rows, ends], -1)], axis=1)


def error_by_time(error: np.ndarray) -> np.ndarray:
    """Mean over bands of an error [frames, mels], NaN where it does not count -> [frames]."""
    return _mean(error, 1)


def error_by_band(error: np.ndarray) -> np.ndarray:
    """Mean over time of an error [frames, mels], NaN where it does not count -> [mels]."""
    return _mean(error, 0)


def _mean(error: np.ndarray, axis: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a frame or band of NaN alone has no mean
        return np.nanmean(error, axis=axis)


def fit_text(artist: Text, text: str, letters: int) -> None:
    """Give `artist` a text. One of more than `letters` letters is set smaller; what still does not fit is cut off."""
    size = TITLE_SIZE * min(1.0, max(0.72, letters / max(len(text), 1)))
    artist.set_text(short_name(text, int(letters * TITLE_SIZE / size)))
    artist.set_fontsize(size)
