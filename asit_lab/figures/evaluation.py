"""Which classes are confused with which, scores class by class, and embeddings on a plane."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..errors import InputError
from .axes import array
from .scores import checked_shares
from .style import CLASS_COLOURS, COLOURS, NOTHING, new_figure, short_name, styled

_MOST_COUNTED = 40  # classes whose numbers of clips still fit the cells
_MOST_NAMED = 80  # classes whose names still fit an axis
_MOST_BARS = 50
# Shape and filling tell classes apart without colour: 10 shapes in 4 fillings.
_SHAPES = "os^DvPX<*>"
_FILLINGS = ("full", "none", "left", "top")
_MOST_MARKED = len(_SHAPES) * len(_FILLINGS)
_LAYERS = 10


# --- Classes --------------------------------------------------------------------------------------------------------


@styled
def confusion_figure(table: pd.DataFrame | Any, title: str | None = None) -> Figure:
    """Clips by class (rows) and answer (columns): shade is the share of the class's clips, the number the clips.

    table: counts, index and columns the same class names, as asit_lab.evaluation.metrics.confusion gives, or a result
    that has them as `.confusion`, of a probe or of fine-tuning. A class without clips is grey. Raises InputError for a
    table that is not square or holds something else than counts.
    """
    table = table if isinstance(table, pd.DataFrame) else table.confusion
    counts = array(table.to_numpy(), "table", "class, answer")
    names = [short_name(name) for name in table.index]
    if list(table.index) != list(table.columns):
        raise InputError("table: expected the same classes as rows and columns")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise InputError("table: expected counts of at least 0")
    clips = counts.sum(1, keepdims=True)
    percent = 100 * np.divide(counts, clips, out=np.full(counts.shape, np.nan), where=clips > 0)

    cell = 0.34 if len(names) <= 15 else 0.25 if len(names) <= _MOST_COUNTED else 0.16
    side = max(2.0, cell * len(names)) if len(names) <= _MOST_NAMED else 8.0
    beside = 0.075 * max(map(len, names)) if len(names) <= _MOST_NAMED else 0.4
    figure = new_figure(side + beside + 1.7, side + beside + (0.9 if title else 0.7))
    ax = figure.add_subplot()
    colours = matplotlib.colormaps["Blues"].with_extremes(bad=NOTHING)
    drawn = ax.imshow(np.ma.masked_invalid(percent), cmap=colours, vmin=0, vmax=100, interpolation="nearest")
    if len(names) <= _MOST_COUNTED:
        for row, column in np.argwhere(counts > 0):
            ink = "white" if percent[row, column] > 55 else "black"
            text = f"{counts[row, column]:.0f}"
            size = 8 if cell > 0.3 else 6.5 if len(text) < 4 else 5
            ax.text(column, row, text, ha="center", va="center", color=ink, fontsize=size)
    axis_note = "" if len(names) <= _MOST_NAMED else " (number in the table, from 0)"
    if len(names) <= _MOST_NAMED:
        size = 8 if cell > 0.2 else 6.5
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
        ax.set_yticks(range(len(names)), names, fontsize=size)
    ax.tick_params(length=0)
    ax.set(xlabel=f"answer{axis_note}", ylabel=f"class{axis_note}")
    for spine in ax.spines.values():
        spine.set_visible(True)
    bar = figure.colorbar(drawn, label="share of the class's clips (%)", shrink=min(1.0, 3.0 / side), aspect=15)
    bar.outline.set_linewidth(0.5)
    if title:
        figure.suptitle(title)
    return figure


@styled
def per_class_figure(table: pd.DataFrame, title: str | None = None) -> Figure:
    """A bar a class, the best on top: average precision or recall, with its interval and number of clips.

    table: columns label, clips, and ap (else recall) as shares from 0 to 1, optionally low and high, as
    asit_lab.evaluation.metrics.per_class gives. Classes without a value come last, as "no clips"; of more than 50
    classes the 25 best and the 25 worst are drawn. Raises InputError for missing columns or values that are no shares.
    """
    measure = "ap" if "ap" in table else "recall"
    rows = checked_shares(table, ("label", "clips"), measure, ("low", "high"))
    rows = rows.sort_values([measure, "label"], ascending=[False, True], na_position="last", kind="stable")
    best = rows[rows[measure].notna()]
    cut = len(rows) > _MOST_BARS
    if cut:
        rows = best if len(best) <= _MOST_BARS else pd.concat([best.head(_MOST_BARS // 2), best.tail(_MOST_BARS // 2)])
    figure = new_figure(6.5, 0.9 + 0.2 * max(len(rows), 4))
    ax = figure.add_subplot()
    places = np.arange(len(rows), dtype=float)
    gap = cut and len(best) > _MOST_BARS
    places[len(rows) // 2 :] += gap
    values = 100 * rows[measure].to_numpy(dtype=float)
    ax.barh(places, np.nan_to_num(values), height=0.7, color=COLOURS[5])
    if rows["low"].notna().any():
        ax.hlines(places, 100 * rows["low"], 100 * rows["high"], color="black", linewidth=1.2)
        ax.plot([], [], "-", color="black", linewidth=1.2, label="95 % interval")
    for place, value in zip(places, values, strict=True):
        text = f"{value:.1f}" if np.isfinite(value) else "no clips"
        ax.text(1.01, place, text, transform=ax.get_yaxis_transform(), va="center", fontsize=7)
    ax.set_yticks(places, [f"{short_name(row.label)} ({row.clips})" for row in rows.itertuples()])
    if gap:
        ax.text(0, len(rows) // 2, f"  … {len(best) - len(rows)} classes between", va="center", fontsize=7)
    ax.set_ylim(places[-1] + 0.6, -0.6)
    ax.set_xlim(0, 100)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("average precision (%)" if measure == "ap" else "recall (%)")
    mean = 100 * table[measure].mean()
    ax.axvline(mean, color="black", linestyle="--", linewidth=1, label=f"mean of classes {mean:.1f} %")
    figure.legend(loc="outside lower center", ncols=2)
    count_note = f", {len(rows)} of {len(table)} classes" if len(rows) < len(table) else ""
    ax.set_title(title or f"class (clips){count_note}")
    return figure


# --- Embeddings -----------------------------------------------------------------------------------------------------


@styled
def embedding_map(points, labels, title: str | None = None, method: str = "") -> Figure:
    """Clips on a plane, one marker and colour a class; shape and filling tell 40 classes apart in grey too.

    points: [clips, 2], as asit_lab.evaluation.project gives; labels: [clips]; method: words for how they came about.
    Distances have no unit, so the axes have no ticks. Of more than 40 classes the rarer ones are grey dots.
    Raises InputError for shapes that do not fit or points that are not finite.
    """
    points = array(points, "points", "clips, 2")
    labels = np.asarray([str(label) for label in labels], dtype=object)
    if points.shape[1] != 2 or len(points) != len(labels) or not np.isfinite(points).all():
        raise InputError(
            f"points: expected finite [clips, 2] with a label each, got {list(points.shape)} and {len(labels)} labels"
        )
    counts = pd.Series(labels).value_counts()
    labelled = len(counts) if len(counts) <= _MOST_MARKED else _MOST_MARKED - 1
    classes = sorted(counts.index[:labelled])
    columns = 1 + (len(classes) > 20)
    beside = 0.45 + 0.07 * max(len(short_name(label)) for label in classes)
    figure = new_figure(5.2 + columns * beside, 5.2)
    ax = figure.add_subplot()
    rest = ~np.isin(labels, classes)
    if rest.any():
        name = f"{len(counts) - labelled} other classes"
        ax.plot(*points[rest].T, ".", color="#999999", markersize=3, label=name)
    size = 5.5 if len(points) <= 1000 else 3.5
    styles = {label: _marker(number, size) for number, label in enumerate(classes)}
    for layer in range(_LAYERS):  # clips in turn, so that no class covers the others
        for label, style in styles.items():
            ax.plot(*points[layer::_LAYERS][labels[layer::_LAYERS] == label].T, **style)
    handles = [Line2D([], [], label=short_name(label), **styles[label]) for label in classes]
    handles += [line for line in ax.get_lines() if rest.any() and str(line.get_label()).endswith("other classes")]
    figure.legend(handles=handles, loc="outside right upper", ncols=columns, handletextpad=0.2, columnspacing=1.0)
    ax.set(xticks=[], yticks=[], xlabel=method)
    ax.set_aspect("equal", adjustable="datalim")
    for spine in ax.spines.values():
        spine.set_visible(True)
    if title:
        ax.set_title(title)
    return figure


def _marker(number: int, size: float) -> dict:
    """How the class with this number is drawn."""
    colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
    return {
        "linestyle": "",
        "marker": _SHAPES[number % len(_SHAPES)],
        "fillstyle": _FILLINGS[number // len(_SHAPES) % len(_FILLINGS)],
        "color": colour,
        "markerfacecoloralt": "white",
        "markeredgecolor": colour,
        "markeredgewidth": 0.8,
        "markersize": size,
    }
