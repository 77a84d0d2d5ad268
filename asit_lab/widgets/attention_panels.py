"""Draws the attention explorer: the patch picker, the attention to and from a token, and a map of all heads.

Tokens are counted with the class token first: K = 1 + time * freq. In every picture it is the box at the left.
"""

from collections.abc import Mapping
from itertools import product

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D

from ..errors import InputError
from ..figures.attention import HEAD_ROOM, SIGNED_MAP, signed_root, signed_square
from ..figures.axes import MelAxes, array, check_patches, colour_bar, colour_limits, frequency_axis, image
from ..figures.spectrograms import draw_patch_grid
from ..figures.style import ATTENTION_MAP, NOTHING, new_figure, styled

ClickTargets = list[tuple[Axes, np.ndarray]]
"""what can be clicked: panels and points on them, float [points, 2] in the panel's own units"""

_BOX = (1, 34)  # widths of the class token's box and of the panel beside it
_ROWS = ("attends to", "attended by")
_SCALES = {"softmax": "attention (%), square-root scale", "difference": "weight (%), hatched: negative"}


# --- Patches to choose from -----------------------------------------------------------------------------------------


@styled
def attention_picker(
    log_mel, axes: MelAxes, patch: tuple[int, int], title: str | None = None
) -> tuple[Figure, ClickTargets]:
    """A log-mel with its patches, and a box for the class token.

    log_mel: [frames, mels]; patch: frames, mels. The targets are the middles of the tokens, in their order. Raises
    InputError where patches do not fit.
    """
    log_mel = array(log_mel, "log_mel", "frames, mels")
    tokens = (log_mel.shape[0] // patch[0], log_mel.shape[1] // patch[1])
    check_patches(patch, log_mel.shape, tokens, "log_mel")
    figure = new_figure(8.0, 2.2)
    box, ax = figure.subplots(1, 2, width_ratios=_BOX)
    picture = image(ax, log_mel, axes, colour_limits(log_mel))
    draw_patch_grid(ax, tokens, patch, axes)
    colour_bar(figure, picture, axes.unit, ax=ax, pad=0.01)
    ax.set_title(title or "")
    _bare(box)
    box.set_facecolor("#eeeeee")
    box.text(0.5, 0.5, "class token", rotation=90, ha="center", va="center", transform=box.transAxes)
    time, freq = np.divmod(np.arange(tokens[0] * tokens[1]), tokens[1])
    middles = np.stack([axes.time(patch[0] * (time + 0.5)), patch[1] * (freq + 0.5)], axis=1)
    return figure, [(box, np.array([[0.5, 0.5]])), (ax, middles)]


# --- Where attention goes and comes from ----------------------------------------------------------------------------


class AttentionPanels:
    """What one token attends to (upper row), and what attends to it (lower row), a column for each kind of weights.

    Made once, then drawn again and again: `show` changes what is in the panels, which takes a fraction of the time of a
    new figure. A row has one square-root scale for its softmaxes and one, symmetric about 0, for the difference, which
    is hatched where it is negative; all follow what is shown. Rows have their own: what a token gives sums to 100 %,
    what it gets may be next to nothing. The token itself is framed.
    """

    @styled
    def __init__(self, columns: Mapping[str, str], grid: tuple[int, int], patch: tuple[int, int], axes: MelAxes):
        """columns: kind of weights ("map", "first", "second") -> title; where there are several, "map" is their
        difference. grid: patches along time and mel; patch: frames, mels of each."""
        self.columns, self.grid = dict(columns), grid
        single = len(columns) == 1
        self.figure = new_figure(8.0, 3.5 if single else 4.5)
        cells = self.figure.subplots(2, 2 * len(columns), width_ratios=(_BOX if single else (1, 12)) * len(columns))
        # At first to 0.35 %, whose tick labels are as wide as any.
        norms = {("softmax", row): PowerNorm(0.5, 0, 0.35) for row in (0, 1)}
        norms |= {("difference", row): FuncNorm((signed_root, signed_square), -1, 1) for row in (0, 1)}
        self._panels: dict[tuple[str, int], _Panel] = {}
        for (number, kind), row in product(enumerate(self.columns), (0, 1)):
            box, ax = cells[row, 2 * number : 2 * number + 2]
            scale = self._scale(kind)
            self._panels[kind, row] = _Panel(box, ax, grid, patch, axes, norms[scale, row], scale == "difference")
            ax.set_title(self.columns[kind])
            if number:
                ax.set_ylabel("")
                ax.tick_params(labelleft=False)
            else:
                box.set_ylabel(_ROWS[row], weight="bold")
            if row == 0:
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
        for scale, row in norms:
            panels = self._panels.items()
            under = [panel for (kind, panel_row), panel in panels if (self._scale(kind), panel_row) == (scale, row)]
            if under:
                label = _SCALES[scale].replace(", ", ",\n") if single else _SCALES[scale]  # upright, a row high
                look = {"label": label, "extend": "both" if scale == "difference" else "max"}
                place = {"location": "right", "pad": 0.01, "aspect": 10}
                if not single:
                    place = {"location": "bottom", "pad": 0.03, "aspect": 20 * len(under)}
                bar = self.figure.colorbar(under[0].image, ax=[panel.ax for panel in under], **look, **place)
                bar.outline.set_linewidth(0.5)
        self._heading = self.figure.suptitle("heading", x=0.01, ha="left", weight="bold")
        self.figure.draw_without_rendering()  # gives every panel its place,
        self.figure.set_layout_engine("none")  # so layout and ticks need not be computed again
        for panel in self._panels.values():
            panel.keep_ticks()

    def _scale(self, kind: str) -> str:
        return "difference" if kind == "map" and len(self.columns) > 1 else "softmax"

    @styled
    def show(self, weights: Mapping[str, np.ndarray], token: int, heading: str = "") -> Figure:
        """weights: kind -> [query K, key K], of the kinds that are columns. token: the chosen one.

        Raises InputError for another shape or a token that does not exist.
        """
        count = 1 + self.grid[0] * self.grid[1]
        if not 0 <= token < count:
            raise InputError(f"token: {token} is not one of {count} (0: class token)")
        percent: dict[tuple[str, int], np.ndarray] = {}
        for kind in self.columns:
            matrix = array(weights[kind], f"weights[{kind!r}]", "query, key")
            if matrix.shape != (count, count):
                raise InputError(f"weights[{kind!r}]: expected shape {[count, count]}, got {list(matrix.shape)}")
            percent[kind, 0], percent[kind, 1] = 100 * matrix[token], 100 * matrix[:, token]
        largest = {
            (scale, row): _largest(
                [v for (kind, panel_row), v in percent.items() if (self._scale(kind), panel_row) == (scale, row)]
            )
            for scale, row in product(_SCALES, (0, 1))
        }
        for (kind, row), panel in self._panels.items():
            # What a token attends to sums to 100 %, so there is an even value; what it gets may be next to nothing.
            end = max(largest[self._scale(kind), row], HEAD_ROOM * 100 / count if row == 0 else 0.0)
            panel.image.set_clim(-end if panel.signed else 0.0, end)
            panel.fill(percent[kind, row], token, self.columns[kind])
        self._heading.set_text(heading)
        return self.figure


def _largest(values: list[np.ndarray]) -> float:
    """End of the colour scale that all of `values` share."""
    sizes = np.abs(np.concatenate([np.zeros(1), *values]))
    return max(float(np.nanpercentile(sizes, 99.5)), 1e-6)


class _Panel:
    """One panel and its box for the class token; both images have the same norm."""

    def __init__(self, box, ax, grid, patch, axes: MelAxes, norm, signed: bool):
        self.ax, self.grid, self.signed = ax, grid, signed
        self.start, self.width, self.height = axes.start, axes.seconds(patch[0]), patch[1]
        colours = matplotlib.colormaps[SIGNED_MAP if signed else ATTENTION_MAP].with_extremes(bad=NOTHING)
        look = {"origin": "lower", "aspect": "auto", "interpolation": "nearest", "cmap": colours, "norm": norm}
        extent = axes.extent((patch[0] * grid[0], patch[1] * grid[1]))
        self.image = ax.imshow(np.zeros(grid[::-1]), extent=extent, **look)
        self.box = box.imshow(np.zeros((1, 1)), extent=(0, 1, 0, 1), **look)
        frequency_axis(ax.yaxis, axes, patch[1] * grid[1])
        ax.set_xlabel("time (s)")
        for spine in ax.spines.values():
            spine.set_visible(True)
        _bare(box)
        # Hatching is anchored to the page, so that neighbouring patches join without a seam.
        look = {"facecolor": "none", "edgecolor": "#555555", "hatch": "////", "linewidth": 0}
        self.hatches = [panel.add_patch(PathPatch(_cells(np.zeros((0, 2)), 1, 1), **look)) for panel in (box, ax)]
        self.frames = [_frame(panel) for panel in (box, ax)]

    def keep_ticks(self) -> None:
        for axis in (self.ax.xaxis, self.ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            places = [place for place in axis.get_majorticklocs() if low <= place <= high]
            axis.set_ticks(places, axis.get_major_formatter().format_ticks(places))

    def fill(self, weights: np.ndarray, token: int, title: str) -> None:
        """weights: percent [K]."""
        box, patches = weights[:1, None], weights[1:].reshape(self.grid)  # [1, 1], [time, freq]
        self.image.set_data(np.ma.masked_invalid(patches.T))
        self.box.set_data(np.ma.masked_invalid(box))
        if self.signed:
            self.hatches[0].set_path(_cells(np.argwhere(box < 0), 1, 1))
            cells = _cells(np.argwhere(patches < 0), self.width, self.height)
            self.hatches[1].set_path(cells.transformed(Affine2D().translate(self.start, 0)))
        self.ax.set_title(f"{title}, class token {'–' if np.isnan(weights[0]) else f'{weights[0]:.1f} %'}")
        time, freq = divmod(token - 1, self.grid[1])
        for at_box, frames in zip((True, False), self.frames, strict=True):
            for frame in frames:
                frame.set_visible(at_box == (token == 0))
                if not at_box:
                    frame.set_bounds(self.start + time * self.width, freq * self.height, self.width, self.height)


def percent(share: float) -> str:
    """A share in percent, with as many digits as say something: 100 %, 12 %, 0.031 %."""
    value = 100 * share
    return f"{value:.0f} %" if abs(value) >= 9.5 else f"{value:.2g} %"


def _frame(ax) -> list[Rectangle]:
    """A frame, white on black, which is seen on every colour."""
    return [
        ax.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=colour, linewidth=width))
        for colour, width in (("black", 2.6), ("white", 1.0))
    ]


def _cells(places: np.ndarray, width: float, height: float) -> Path:
    """Rectangles at places [n, (column, row)] of a raster as one path."""
    if not len(places):
        return Path(np.zeros((1, 2)))  # a point: nothing is drawn
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)])
    vertices = (places[:, None] + corners) * (width, height)  # [n, 5, 2]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(vertices.reshape(-1, 2), np.tile(codes, len(places)))


def _bare(ax) -> None:
    """A box without ticks."""
    ax.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
    for spine in ax.spines.values():
        spine.set_visible(True)


# --- All heads ------------------------------------------------------------------------------------------------------


@styled
def head_map(measures: Mapping[str, np.ndarray]) -> tuple[Figure, ClickTargets]:
    """Numbers of all heads, a panel for each measure: a row per layer, a column a head, the last one their mean.

    measures: label -> [layers, heads + 1], one shape for all. The targets are the middles of the cells, panel by panel,
    layer by layer. Raises InputError for no measure or shapes that differ.
    """
    tables = {label: array(values, label, "layers, heads + 1") for label, values in measures.items()}
    shapes = {values.shape for values in tables.values()}
    if len(shapes) != 1:
        raise InputError(f"measures: expected at least one, all of one shape, got {sorted(shapes)}")
    layers, columns = shapes.pop()
    height = 0.55 + min(0.17 * layers, 2.0)
    figure = new_figure(3.2, 0.3 + height * len(tables))
    targets = []
    cells = np.stack(np.meshgrid(np.arange(columns), np.arange(layers)), axis=-1).reshape(-1, 2)  # layer by layer
    for ax, (label, values) in zip(figure.subplots(len(tables), 1, squeeze=False)[:, 0], tables.items(), strict=True):
        colours = matplotlib.colormaps["cividis"].with_extremes(bad=NOTHING)
        heatmap = ax.imshow(np.ma.masked_invalid(values), cmap=colours, aspect="auto", interpolation="nearest")
        ax.axvline(columns - 1.5, color="white", linewidth=2.5)  # the mean is no head
        spacing = -(-columns // 6)  # of many heads some are numbered, and none beside the word
        heads = range(0, columns - spacing, spacing)
        ax.set_xticks([*heads, columns - 1], [*map(str, heads), "mean"])
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylabel("layer")
        ax.set_title(label)
        bar = figure.colorbar(heatmap, ax=ax, aspect=12, pad=0.02)
        bar.outline.set_linewidth(0.5)
        bar.ax.yaxis.set_major_locator(MaxNLocator(4))
        targets.append((ax, cells.astype(float)))
    ax.set_xlabel("head")
    return figure, targets
