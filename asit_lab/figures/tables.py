"""Results of evaluations."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..errors import InputError
from .style import COLOURS, new_figure, styled


@styled
def probe_table(
    table: pd.DataFrame, metric: str = "accuracy", spread: str = "± standard deviation over folds or seeds"
) -> Figure:
    """Dots: each fold's score, their mean and spread, and chance, one panel a protocol and one line an encoder.

    table: columns encoder, protocol, mean, spread, chance, and scores (a list a row, optional); all as shares (0 to 1),
    drawn in percent. Where mean or spread is missing it is taken from the scores. metric, spread: words for the labels.
    Raises InputError for missing columns, no rows, or values that are not shares.
    """
    rows = _complete(table)
    encoders, protocols = list(dict.fromkeys(rows["encoder"])), list(dict.fromkeys(rows["protocol"]))
    figure = new_figure(2.2 + 3.6 * len(protocols), 1.2 + 0.36 * len(encoders))
    panels = figure.subplots(1, len(protocols), squeeze=False, sharey=True)[0]
    for ax, protocol in zip(panels, protocols, strict=True):
        for row in rows[rows["protocol"] == protocol].itertuples():
            _draw_row(ax, encoders.index(row.encoder), row)
        ax.set_title(protocol)
        ax.set_xlabel(f"{metric} (%)")
        ax.set_yticks(range(len(encoders)), encoders)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", linewidth=0.4, color="#dddddd")
        ax.set_axisbelow(True)
        ax.spines["left"].set_visible(False)
        ax.margins(x=0.06)
    panels[0].set_ylim(len(encoders) - 0.5, -0.5)
    dot = {"linestyle": "", "markeredgewidth": 0}
    if rows["scores"].map(len).any():
        panels[0].plot([], [], "o", color=COLOURS[5], markersize=4, label="one fold or seed", **dot)
    panels[0].plot([], [], "D", color=COLOURS[0], markersize=6, label=f"mean {spread}", **dot)
    if rows["chance"].notna().any():
        panels[0].plot([], [], "--", color="black", linewidth=1, label="chance")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _draw_row(ax, y: int, row) -> None:
    """One encoder under one protocol at height `y`, with the numbers beside the panel."""
    scores = 100 * np.asarray(row.scores, dtype=float)
    # Folds lie below their mean, so that they are seen where they coincide with it.
    ax.plot(scores, np.full(len(scores), y + 0.2), "o", color=COLOURS[5], markersize=4, markeredgewidth=0)
    mean, spread = 100 * row.mean, 100 * row.spread
    if np.isfinite(spread):
        ax.errorbar(mean, y, xerr=spread, color=COLOURS[0], capsize=3, linewidth=1.5)
    ax.plot(mean, y, "D", color=COLOURS[0], markersize=6, markeredgewidth=0)
    if np.isfinite(row.chance):
        ax.plot([100 * row.chance] * 2, [y - 0.5, y + 0.5], "--", color="black", linewidth=1)
    text = f"{mean:.1f} ± {spread:.1f}" if np.isfinite(spread) else f"{mean:.1f}"
    ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8)


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with mean, spread, chance and scores in every row; InputError where that cannot be."""
    missing = [name for name in ("encoder", "protocol") if name not in table]
    if "mean" not in table and "scores" not in table:
        missing.append("mean or scores")
    if missing or not len(table):
        raise InputError(f"table: {'missing column ' + ', '.join(missing) if missing else 'expected at least one row'}")
    rows = []
    for row in table.to_dict("records"):
        scores = row.get("scores")
        scores = np.asarray([] if scores is None or np.isscalar(scores) else scores, dtype=float)
        mean, spread, chance = (_number(row.get(name)) for name in ("mean", "spread", "chance"))
        if np.isnan(mean) and scores.size:
            mean = float(scores.mean())
        if np.isnan(spread) and scores.size > 1:
            spread = float(scores.std(ddof=1))
        if not 0 <= mean <= 1 or ((scores < 0) | (scores > 1)).any():
            raise InputError(
                f"table: {row['encoder']}, {row['protocol']}: scores must be shares from 0 to 1, mean {mean}"
            )
        named = {"encoder": str(row["encoder"]), "protocol": str(row["protocol"])}
        rows.append({**named, "mean": mean, "spread": spread, "chance": chance, "scores": scores})
    return pd.DataFrame(rows)


def _number(value) -> float:
    return float("nan") if value is None else float(value)
