"""How good answers are: what is taken for what, class by class, embeddings on a plane, scores with intervals."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..errors import InputError
from .axes import array
from .style import COLOURS, NOTHING, new_figure, styled

_LONGEST = 32  # characters of a class name
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
def confusion_figure(table: pd.DataFrame, title: str | None = None) -> Figure:
    """Clips by class (rows) and answer (columns): shade is the share of the class's clips, the number the clips.

    table: counts, index and columns the same class names, as asit_lab.evaluation.metrics.confusion gives. A class
    without clips is grey. Raises InputError for a table that is not square or holds something else than counts.
    """
    counts = array(table.to_numpy(), "table", "class, answer")
    names = [_short(name) for name in table.index]
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
    by = "" if len(names) <= _MOST_NAMED else " (number in the table, from 0)"
    if len(names) <= _MOST_NAMED:
        size = 8 if cell > 0.2 else 6.5
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
        ax.set_yticks(range(len(names)), names, fontsize=size)
    ax.tick_params(length=0)
    ax.set(xlabel=f"answer{by}", ylabel=f"class{by}")
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
    rows = _shares(table, ("label", "clips"), measure, ("low", "high"))
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
    ax.set_yticks(places, [f"{_short(row.label)} ({row.clips})" for row in rows.itertuples()])
    if gap:
        ax.text(0, len(rows) // 2, f"  … {len(best) - len(rows)} classes between", va="center", fontsize=7)
    ax.set_ylim(places[-1] + 0.6, -0.6)
    ax.set_xlim(0, 100)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("average precision (%)" if measure == "ap" else "recall (%)")
    mean = 100 * table[measure].mean()
    ax.axvline(mean, color="black", linestyle="--", linewidth=1, label=f"mean of classes {mean:.1f} %")
    figure.legend(loc="outside lower center", ncols=2)
    shown = f", {len(rows)} of {len(table)} classes" if len(rows) < len(table) else ""
    ax.set_title(title or f"class (clips){shown}")
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
    kept = len(counts) if len(counts) <= _MOST_MARKED else _MOST_MARKED - 1
    classes = sorted(counts.index[:kept])
    columns = 1 + (len(classes) > 20)
    beside = 0.45 + 0.07 * max(min(len(label), _LONGEST) for label in classes)
    figure = new_figure(5.2 + columns * beside, 5.2)
    ax = figure.add_subplot()
    rest = ~np.isin(labels, classes)
    if rest.any():
        name = f"{len(counts) - kept} other classes"
        ax.plot(*points[rest].T, ".", color="#999999", markersize=3, label=name)
    size = 5.5 if len(points) <= 1000 else 3.5
    styles = {label: _marker(number, size) for number, label in enumerate(classes)}
    for layer in range(_LAYERS):  # clips in turn, so that no class covers the others
        for label, style in styles.items():
            ax.plot(*points[layer::_LAYERS][labels[layer::_LAYERS] == label].T, **style)
    handles = [Line2D([], [], label=_short(label), **styles[label]) for label in classes]
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
    colour = COLOURS[number % len(COLOURS)]
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


# --- Scores ---------------------------------------------------------------------------------------------------------


@styled
def scores_figure(table: pd.DataFrame, metric: str = "accuracy", interval: str = "95 % interval") -> Figure:
    """Dots and whiskers: a line an encoder, a panel a protocol, chance as a dashed line.

    table: columns encoder, protocol, mean, and optionally low, high (the ends of the whiskers) and chance, all shares
    from 0 to 1, drawn in percent. metric, interval: words for the labels.
    Raises InputError for missing columns, no rows, or values that are not shares.
    """
    rows = _shares(table, ("encoder", "protocol"), "mean", ("low", "high", "chance"))
    encoders, protocols = list(dict.fromkeys(rows["encoder"])), list(dict.fromkeys(rows["protocol"]))
    names = [_short(name) for name in encoders]
    width = 0.6 + 0.07 * max(map(len, names)) + 3.6 * len(protocols)
    figure = new_figure(width, 1.3 + 0.34 * len(encoders))
    panels = figure.subplots(1, len(protocols), squeeze=False, sharey=True)[0]
    for ax, protocol in zip(panels, protocols, strict=True):
        for row in rows[rows["protocol"] == protocol].itertuples():
            _draw_score(ax, encoders.index(row.encoder), row)
        ax.set_title(protocol)
        ax.set_xlabel(f"{metric} (%)")
        ax.set_yticks(range(len(encoders)), names)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", linewidth=0.4, color="#dddddd")
        ax.set_axisbelow(True)
        ax.spines["left"].set_visible(False)
        ax.margins(x=0.06)
    panels[0].set_ylim(len(encoders) - 0.5, -0.5)
    whiskers = f", {interval}" if rows["low"].notna().any() else ""
    handles = [Line2D([], [], marker="D", color=COLOURS[0], markersize=6, markeredgewidth=0, label=metric + whiskers)]
    if rows["chance"].notna().any():
        handles.append(Line2D([], [], linestyle="--", color="black", linewidth=1, label="chance"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _draw_score(ax, y: int, row) -> None:
    """One encoder under one protocol at height `y`, with the numbers beside the panel."""
    score, low, high, chance = (100 * getattr(row, name) for name in ("mean", "low", "high", "chance"))
    text = f"{score:.1f}"
    if np.isfinite(low) and np.isfinite(high):
        ax.hlines(y, low, high, color=COLOURS[0], linewidth=1.5)
        ax.plot([low, high], [y, y], "|", color=COLOURS[0], markersize=7)
        text += f" [{low:.1f}, {high:.1f}]"
    ax.plot(score, y, "D", color=COLOURS[0], markersize=6, markeredgewidth=0)
    if np.isfinite(chance):
        ax.plot([chance] * 2, [y - 0.5, y + 0.5], "--", color="black", linewidth=1)
    ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8)


# --- Shared ---------------------------------------------------------------------------------------------------------


def _shares(table: pd.DataFrame, named: tuple[str, ...], measure: str, optional: tuple[str, ...]) -> pd.DataFrame:
    """`table` with all these columns, the optional ones NaN where they were not; InputError where that cannot be."""
    missing = [name for name in (*named, measure) if name not in table]
    if missing or not len(table):
        raise InputError(f"table: {'missing column ' + ', '.join(missing) if missing else 'expected at least one row'}")
    rows = table[list(named)].copy()
    for name in (measure, *optional):
        rows[name] = pd.to_numeric(table[name], errors="coerce") if name in table else np.nan
        if ((rows[name] < 0) | (rows[name] > 1)).any():
            raise InputError(f"table: {name} must be a share from 0 to 1, got {rows[name].min()} to {rows[name].max()}")
    return rows.reset_index(drop=True)


def _short(name) -> str:
    name = str(name)
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
