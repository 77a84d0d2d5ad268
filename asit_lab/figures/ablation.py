"""A study's result: each setting's mean over seeds with its spread, and the published values in a panel beside it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..errors import InputError
from .style import COLOURS, DASHES, new_figure, styled

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@styled
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
) -> Figure:
    """Dots (a line a setting, from top to bottom), or curves over the setting `x`, one for each value of `lines`.

    summary: a row a setting: setting, mean, spread (NaN for one seed), published (NaN where there is none), and the
    columns x and lines. points: a row a point: setting, value. label, x_label: what is measured, with units.
    published_label: what the published values measure; they are drawn where there are some. best: range of x that is
    published as the best one, shaded.
    Raises InputError for missing columns and for no setting with a mean.
    """
    missing = [name for name in ("setting", "mean", "spread", "published", x, lines) if name and name not in summary]
    if missing:
        raise InputError(f"summary: missing column {', '.join(missing)}")
    summary = summary[summary["mean"].notna()]
    if not len(summary):
        raise InputError("summary: no setting has a result yet")
    beside = published_label is not None and summary["published"].notna().any()
    if x is None:
        return _dots(summary, points, label, title, published_label if beside else None)
    return _curves(summary, label, title, x, x_label or x, lines, published_label if beside else None, best)


# --- A line a setting -----------------------------------------------------------------------------------------------


def _dots(summary: pd.DataFrame, points: pd.DataFrame, label: str, title: str, published_label: str | None) -> Figure:
    names = summary["setting"].tolist()
    figure = new_figure(7.0 if published_label else 5.2, 1.1 + 0.3 * len(names))
    panels = figure.subplots(1, 2 if published_label else 1, squeeze=False, sharey=True)[0]
    places = np.arange(len(names))
    for place, name in zip(places, names, strict=True):
        seeds = points.loc[points["setting"] == name, "value"].dropna()
        if len(seeds) > 1:
            panels[0].plot(seeds, np.full(len(seeds), place), "o", color=COLOURS[5], markersize=3, markeredgewidth=0)
    _mean_dots(panels[0], summary["mean"], places, summary["spread"], COLOURS[0], "D")
    panels[0].set_xlabel(label)
    if published_label:
        _mean_dots(panels[1], summary["published"], places, None, COLOURS[1], "s")
        panels[1].set_xlabel(f"published: {published_label}")
    for ax in panels:
        ax.grid(axis="x", linewidth=0.4, color="#dddddd")
        ax.set_axisbelow(True)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.margins(x=0.12)
    panels[0].set_yticks(places, [name if len(name) <= 44 else name[:43] + "…" for name in names])
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    figure.suptitle(title)
    return figure


def _mean_dots(ax, values: pd.Series, places: np.ndarray, spread: pd.Series | None, colour: str, marker: str) -> None:
    """A marker for each value with the number beside it; spread as a bar."""
    if spread is not None:
        ax.errorbar(values, places, xerr=spread.fillna(0.0), fmt="none", color=colour, linewidth=1.3, capsize=2.5)
    ax.plot(values, places, marker, color=colour, markersize=5, markeredgewidth=0)
    for value, place in zip(values, places, strict=True):
        if np.isfinite(value):
            ax.annotate(f"{value:.1f}", (value, place), (0, 4), textcoords="offset points", ha="center", fontsize=7)


# --- Curves ---------------------------------------------------------------------------------------------------------


def _curves(
    summary: pd.DataFrame,
    label: str,
    title: str,
    x: str,
    x_label: str,
    lines: str | None,
    published_label: str | None,
    best: Sequence[float] | None,
) -> Figure:
    figure = new_figure(6.6 if published_label else 4.2, 2.9)
    panels = figure.subplots(1, 2 if published_label else 1, squeeze=False, sharex=True)[0]
    groups = {"": summary} if lines is None else dict(iter(summary.groupby(lines, sort=False)))
    for number, (name, rows) in enumerate(groups.items()):
        rows = rows.sort_values(x)
        style = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)], "markersize": 5}
        style |= {
            "marker": _MARKERS[number % len(_MARKERS)],
            "linewidth": 1.4,
            "label": f"{lines} = {str(name).lower()}",
        }
        panels[0].errorbar(rows[x].astype(float), rows["mean"], yerr=rows["spread"].fillna(0.0), capsize=2.5, **style)
        if published_label:
            panels[1].plot(rows[x].astype(float), rows["published"], **style)
    panels[0].set_ylabel(label)
    if published_label:
        panels[1].set_ylabel(published_label)
        for ax, whose in zip(panels, ("here", "published"), strict=True):
            ax.set_title(whose)
    for ax in panels:
        if best is not None:
            ax.axvspan(*best, color="#e6e6e6", zorder=0, label="published as best")
        ax.set_xlabel(x_label)
        ax.grid(linewidth=0.4, color="#dddddd")
        ax.set_axisbelow(True)
    if lines is not None or best is not None:
        handles, labels = panels[0].get_legend_handles_labels()
        shown = [(h, text) for h, text in zip(handles, labels, strict=True) if text != "none = "]
        figure.legend(*zip(*shown, strict=True), loc="outside lower center", ncols=min(3, len(shown)))
    figure.suptitle(title)
    return figure
