"""Scores of encoders: a panel a protocol, a line an encoder, with intervals or the spread over folds."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..errors import InputError
from .style import COLOURS, new_figure, short_name, styled

_MEAN = {"linestyle": "", "marker": "D", "color": COLOURS[0], "markersize": 6, "markeredgewidth": 0}
_FOLD = {"linestyle": "", "marker": "o", "color": COLOURS[5], "markersize": 4, "markeredgewidth": 0}
_CHANCE = {"linestyle": "--", "color": "black", "linewidth": 1}


@styled
def scores_figure(table: pd.DataFrame, metric: str = "accuracy") -> Figure:
    """Dots and whiskers: a line an encoder, a panel a protocol, chance as a dashed line.

    table: columns encoder, protocol, mean, and optionally low, high (the ends of the whiskers) and chance, all shares
    from 0 to 1, drawn in percent; optionally unit, what the interval is over ("clip"). metric: a word for the label.
    Raises InputError for missing columns, no rows, or values that are not shares.
    """
    rows = checked_shares(table, ("encoder", "protocol"), "mean", ("low", "high", "chance"))
    measured = rows["low"].notna() & rows["high"].notna()
    numbers = [
        f"{100 * row.mean:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]" if has_interval else f"{100 * row.mean:.1f}"
        for row, has_interval in zip(rows.itertuples(), measured, strict=True)
    ]
    units = sorted(set(table.loc[measured.to_numpy(), "unit"])) if "unit" in table else []
    over = f" over {' or '.join(f'{unit}s' for unit in units)}" if units else ""
    whiskers = f", 95 % interval{over}" if measured.any() else ""
    return _panels(rows.assign(number=numbers), metric, [Line2D([], [], label=metric + whiskers, **_MEAN)])


@styled
def probe_table(
    table: pd.DataFrame,
    metric: str = "accuracy",
    spread: str = "± standard deviation over folds or seeds",
    title: str | None = None,
) -> Figure:
    """As `scores_figure`, with each fold's score below the mean and the spread over folds as whiskers.

    table: columns encoder, protocol, mean, spread, chance, and scores (a list a row, optional); all as shares (0 to 1),
    drawn in percent. Where mean or spread is missing it is taken from the scores. metric, spread: words for the labels.
    title: such as the data set.
    Raises InputError for missing columns, no rows, or values that are not shares.
    """
    if not {"mean", "scores"} & set(table):
        raise InputError("table: missing column mean or scores")
    table = table.reset_index(drop=True)
    listed = table["scores"] if "scores" in table else [None] * len(table)
    scores = [np.asarray([] if value is None or np.isscalar(value) else value, dtype=float) for value in listed]
    if any(((values < 0) | (values > 1)).any() for values in scores):
        raise InputError("table: scores must be shares from 0 to 1")
    of_scores = {
        "mean": [values.mean() if values.size else np.nan for values in scores],
        "spread": [values.std(ddof=1) if values.size > 1 else np.nan for values in scores],
    }
    for name, values in of_scores.items():
        recorded = pd.to_numeric(table[name], errors="coerce") if name in table else pd.Series(np.nan, table.index)
        table = table.assign(**{name: recorded.fillna(pd.Series(values, table.index, dtype=float))})
    rows = checked_shares(table, ("encoder", "protocol"), "mean", ("spread", "chance"))
    if rows["mean"].isna().any():
        raise InputError("table: mean must be a share from 0 to 1 in every row, or scores be given")
    numbers = [
        f"{100 * row.mean:.1f} ± {100 * row.spread:.1f}" if np.isfinite(row.spread) else f"{100 * row.mean:.1f}"
        for row in rows.itertuples()
    ]
    rows = rows.assign(low=rows["mean"] - rows["spread"], high=rows["mean"] + rows["spread"], number=numbers)
    handles = [Line2D([], [], label="one fold or seed", **_FOLD)] if any(values.size for values in scores) else []
    handles = [*handles, Line2D([], [], label=f"mean {spread}", **_MEAN)]
    figure = _panels(rows.assign(scores=scores), metric, handles)
    if title:
        figure.suptitle(title)
    return figure


def checked_shares(
    table: pd.DataFrame, named: tuple[str, ...], measure: str, optional: tuple[str, ...]
) -> pd.DataFrame:
    """`table` with all these columns, the optional ones NaN where they were not; InputError where that cannot be."""
    missing = [name for name in (*named, measure) if name not in table]
    if missing or not len(table):
        raise InputError(f"table: {'missing column ' + ', '.join(missing) if missing else 'expected at least one row'}")
    rows = table[list(named)].copy()
    for name in (measure, *optional):
        rows[name] = pd.to_numeric(table[name], errors="coerce") if name in table else np.nan
        outside = rows[(rows[name] < 0) | (rows[name] > 1)]
        if len(outside):
            row = outside.iloc[0]
            where = ", ".join(str(row[column]) for column in named)
            raise InputError(f"table: {where}: {name} must be a share from 0 to 1, got {row[name]:g}")
    return rows.reset_index(drop=True)


def _panels(rows: pd.DataFrame, metric: str, handles: list[Line2D]) -> Figure:
    """A panel a protocol. rows: encoder, protocol, mean, low, high, chance (shares), number (text), perhaps scores."""
    encoders, protocols = list(dict.fromkeys(rows["encoder"])), list(dict.fromkeys(rows["protocol"]))
    names = [short_name(name) for name in encoders]
    figure = new_figure(0.6 + 0.07 * max(map(len, names)) + 3.6 * len(protocols), 1.3 + 0.36 * len(encoders))
    panels = figure.subplots(1, len(protocols), squeeze=False, sharey=True)[0]
    for ax, protocol in zip(panels, protocols, strict=True):
        for row in rows[rows["protocol"] == protocol].itertuples():
            _draw_score(ax, encoders.index(row.encoder), row)
        ax.set_title(f"protocol: {short_name(protocol)}")
        ax.set_xlabel(f"{metric} (%)")
        ax.set_yticks(range(len(encoders)), names)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", linewidth=0.4, color="#dddddd")
        ax.set_axisbelow(True)
        ax.spines["left"].set_visible(False)
        ax.margins(x=0.06)
    panels[0].set_ylim(len(encoders) - 0.5, -0.5)
    if rows["chance"].notna().any():
        handles = [*handles, Line2D([], [], label="chance", **_CHANCE)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _draw_score(ax, y: int, row) -> None:
    """One encoder under one protocol at height `y`, with the numbers beside the panel."""
    mean, low, high, chance = (100 * getattr(row, name) for name in ("mean", "low", "high", "chance"))
    if hasattr(row, "scores"):  # below their mean, so that they are seen where they coincide with it
        ax.plot(100 * row.scores, np.full(len(row.scores), y + 0.2), **_FOLD)
    if np.isfinite(low) and np.isfinite(high):
        ax.hlines(y, low, high, color=COLOURS[0], linewidth=1.5)
        ax.plot([low, high], [y, y], "|", color=COLOURS[0], markersize=7)
    ax.plot(mean, y, **_MEAN)
    if np.isfinite(chance):
        ax.plot([chance] * 2, [y - 0.5, y + 0.5], **_CHANCE)
    ax.text(1.02, y, row.number, transform=ax.get_yaxis_transform(), va="center", fontsize=8)
