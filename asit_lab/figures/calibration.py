"""Reliability diagrams: does a classifier's confidence match its accuracy?"""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ..errors import InputError
from .style import COLOURS, new_figure, styled


@styled
def reliability_figure(table: pd.DataFrame | Any, title: str | None = None) -> Figure:
    """Accuracy over confidence, in percent, with the diagonal on which both agree, and below it how many answers.

    table: columns low, high, confidence, accuracy (0 to 1) and answers, as asit_lab.evaluation.calibration.reliability
    gives, or a result that has it as `.reliability`. Raises InputError for another table.
    """
    table = table if isinstance(table, pd.DataFrame) else table.reliability
    missing = {"low", "high", "confidence", "accuracy", "answers"} - set(table.columns)
    if missing or table.empty:
        raise InputError(f"table: expected rows with low, high, confidence, accuracy, answers; lacks {sorted(missing)}")
    figure = new_figure(3.6, 4.2)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    width = 100 * (table["high"] - table["low"])
    error = float(((table["confidence"] - table["accuracy"]).abs() * table["answers"]).sum() / table["answers"].sum())
    top.bar(100 * table["low"], 100 * table["accuracy"], width, align="edge", color=COLOURS[0], alpha=0.35)
    top.plot(100 * table["confidence"], 100 * table["accuracy"], "o-", color=COLOURS[0], markersize=4)
    top.plot([0, 100], [0, 100], "--", color="0.4", linewidth=1, label="as often right as sure")
    top.set(ylabel="right answers (%)", xlim=(0, 100), ylim=(0, 100))
    top.legend(loc="upper left", title=f"expected calibration error {100 * error:.1f} %", fontsize=8, title_fontsize=8)
    below.bar(100 * table["low"], table["answers"], width, align="edge", color=COLOURS[0])
    below.set(xlabel="confidence (%)", ylabel="answers")
    if title:
        figure.suptitle(title)
    return figure
