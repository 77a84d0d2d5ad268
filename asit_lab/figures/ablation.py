"""A study's result: each setting's mean over seeds with its spread, and the published values in a panel beside it."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from ..errors import InputError
from .printed import printed, width_of
from .style import COLOURS, DASHES, new_figure

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_ASIDE = 3.0  # points between the error bars of two lines
_LETTER = 0.052  # inches: mean width of a letter of the labels


@printed
def ablation(
    summary: pd.DataFrame,
    points: pd.DataFrame,
    label: str,
    title: str = "",
    x: str | None = None,
    x_label: str | None = None,
    lines: str | None = None,
    published_label: str | None = None,
    best: Sequence[float] | None = None,
    width: str = "double",
) -> Figure:
    """Dots (a line a setting, from top to bottom), or curves over the setting `x`, one for each value of `lines`.

    summary: a row a setting: setting, mean, spread (NaN for one seed), published (NaN where there is none), and the
    columns x and lines. points: a row a point: setting, value. label, x_label: what is measured, with units.
    published_label: what the published values measure; they are drawn where there are some. best: range of x that is
    published as the best one, shaded. width: of a paper's column, "single" (3.35 inches), or of both, "double" (7).
    Every line has a colour, a dash and a marker of its own, so that it is told apart in grey too.
    Raises InputError for missing columns, for no setting with a mean and for another width.
    """
    missing = [name for name in ("setting", "mean", "spread", "published", x, lines) if name and name not in summary]
    if missing:
        raise InputError(f"summary: missing column {', '.join(missing)}")
    inches = width_of(width)
    summary = summary[summary["mean"].notna()]
    if not len(summary):
        raise InputError("summary: no setting has a result yet")
    beside = published_label if published_label is not None and summary["published"].notna().any() else None
    if x is not None and pd.to_numeric(summary[x], errors="coerce").isna().any():
        values = ", ".join(str(value) for value in summary[x])
        raise InputError(f"plot.x: {x}: {values}: not all are numbers; leave plot.x out for a line a setting")
    if x is None:
        figure = _dots(summary, points, label, beside, inches)
    else:
        figure = _curves(summary, label, x, x_label or x, lines, beside, best, inches)
    if title:
        figure.suptitle(title)
    return figure


def _wrapped(text: str, inches: float, lines: int = 3) -> str:
    """`text` broken into lines that fit a width, between words or after "="."""
    broken = textwrap.wrap(text.replace("=", "= "), max(8, int(inches / _LETTER)), max_lines=lines, placeholder=" …")
    return "\n".join(line.replace("= ", "=") for line in broken)


# --- A line a setting -----------------------------------------------------------------------------------------------


def _dots(summary: pd.DataFrame, points: pd.DataFrame, label: str, beside: str | None, inches: float) -> Figure:
    settings = summary["setting"].tolist()
    names = [_wrapped(name, 0.35 * inches, 2) for name in settings]
    panel = (inches - _LETTER * max(len(line) for name in names for line in name.split("\n"))) / (2 if beside else 1)
    labels = [_wrapped(label, panel), *([_wrapped(f"published: {beside}", panel)] if beside else [])]
    row = 0.3 if any("\n" in name for name in names) else 0.25
    height = 0.45 + row * len(names) + 0.12 * max(text.count("\n") + 1 for text in labels)
    figure = new_figure(inches, height)
    panels = figure.subplots(1, len(labels), squeeze=False, sharey=True)[0]
    places = np.arange(len(names))
    for place, setting in zip(places, settings, strict=True):
        seeds = points.loc[points["setting"] == setting, "value"].dropna()
        if len(seeds) > 1:  # below their mean, so that they are seen where they coincide with it
            below = np.full(len(seeds), place + 0.27)
            panels[0].plot(seeds, below, "o", color=COLOURS[5], markersize=2.6, markeredgewidth=0)
    _mean_dots(panels[0], summary["mean"], places, summary["spread"], COLOURS[0], "D")
    if beside:
        _mean_dots(panels[1], summary["published"], places, None, COLOURS[1], "s")
    for ax, text in zip(panels, labels, strict=True):
        ax.set_xlabel(text)
        ax.grid(axis="x", linewidth=0.4, color="#dddddd")
        ax.set_axisbelow(True)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.margins(x=0.2)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    panels[0].set_yticks(places, names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    return figure


def _mean_dots(ax, values: pd.Series, places: np.ndarray, spread: pd.Series | None, colour: str, marker: str) -> None:
    """A marker for each value with the number above it; spread as a bar."""
    if spread is not None:
        ax.errorbar(values, places, xerr=spread.fillna(0.0), fmt="none", color=colour, linewidth=1.1, capsize=2)
    ax.plot(values, places, marker, color=colour, markersize=4, markeredgewidth=0)
    for value, place in zip(values, places, strict=True):
        if np.isfinite(value):
            text = f"{value:.1f}" if abs(value) >= 1 else f"{value:.3g}"
            ax.annotate(text, (value, place), (0, 3.2), textcoords="offset points", ha="center", fontsize=7)


# --- Curves ---------------------------------------------------------------------------------------------------------


def _curves(
    summary: pd.DataFrame,
    label: str,
    x: str,
    x_label: str,
    lines: str | None,
    beside: str | None,
    best: Sequence[float] | None,
    inches: float,
) -> Figure:
    stacked = bool(beside) and inches < 5  # one column has no room for two panels side by side
    rows, columns = (2, 1) if stacked else (1, 2 if beside else 1)
    figure = new_figure(inches, 0.45 + 1.65 * rows if inches < 5 else 2.5)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).flatten()
    groups = {"": summary} if lines is None else dict(iter(summary.groupby(lines, sort=False)))
    for number, (name, group) in enumerate(groups.items()):
        group = group.sort_values(x)
        aside = ScaledTranslation((number - (len(groups) - 1) / 2) * _ASIDE / 72, 0, figure.dpi_scale_trans)
        style = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
        style |= {"marker": _MARKERS[number % len(_MARKERS)], "markersize": 4, "linewidth": 1.2}
        style |= {"label": f"{lines} = {str(name).lower()}" if lines else None}
        places, spread = group[x].astype(float), group["spread"].fillna(0.0)
        bars = panels[0].errorbar(places, group["mean"], yerr=spread, capsize=2, **style)
        for part in bars.get_children():  # bars at one place stand beside each other
            part.set_transform(panels[0].transData + aside)
        if beside:
            panels[1].plot(places, group["published"], **style)
    panels[0].set_ylabel(_wrapped(label, 1.5))
    if beside:
        panels[1].set_ylabel(_wrapped(beside, 1.5))
        for ax, whose in zip(panels, ("here", "published"), strict=True):
            ax.set_title(whose)
    for ax in panels:
        if best is not None:
            ax.axvspan(*best, color="#e6e6e6", zorder=0, label="published as best")
        ax.set_xlabel("" if stacked and ax is panels[0] else x_label)
        ax.grid(linewidth=0.4, color="#dddddd")
        ax.set_axisbelow(True)
        ax.margins(y=0.12)
    handles, labels = panels[0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=2 if inches < 5 else 4, handlelength=3)
    return figure
