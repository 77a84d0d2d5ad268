"""Draws the map of all heads by entropy and distance, for the attention explorer."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..errors import InputError
from ..figures.axes import array
from ..figures.style import NOTHING, new_figure, styled

ClickTargets = list[tuple[Axes, np.ndarray]]
"""what can be clicked: panels and points on them, float [points, 2] in the panel's own units"""


def percent(share: float) -> str:
    """A share in percent, with as many digits as say something: 100 %, 12 %, 0.031 %."""
    value = 100 * share
    return f"{value:.0f} %" if abs(value) >= 9.5 else f"{value:.2g} %"


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
