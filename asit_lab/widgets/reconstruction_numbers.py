"""The errors of reconstructions beside those of fillings that need no model, as a table."""

import html
from collections.abc import Mapping

from .scene import DECIBELS

_TABLE = '<table class="asit-numbers" style="border-collapse: collapse; line-height: 1.5">{}</table>'
_CELL = '<{0} style="text-align: {1}; padding: 0 14px 0 0; font-weight: {2}; white-space: {3}">{4}</{0}>'


def relative(error: float, baseline: float) -> str:
    """An error as a share of another: "0.68"; below 1 is better."""
    return f"{error / baseline:.2f}" if baseline > 0 else "–"


def error_table(errors: Mapping[str, float], baselines: Mapping[str, float], std: float) -> str:
    """HTML table of L1 on corrupted pixels, normalised: name -> L1 of models and of baselines, and each model relative
    to each baseline. std: standard deviation of the normalisation, natural log, which turns L1 into dB of power."""
    rows = [["", "L1, corrupted pixels", "L1 in dB", *(f"as a share of {name}" for name in baselines)]]
    for name, error in (errors | dict(baselines)).items():
        shares = [relative(error, baseline) if name in errors else "" for baseline in baselines.values()]
        rows.append([name, f"{error:.3f}", f"{2 * std * DECIBELS * error:.1f} dB", *shares])
    lines = []
    for number, row in enumerate(rows):
        weight = 600 if number == 0 or row[0] in errors else 400
        tag = "td" if number else "th"
        cells = []
        for place, text in enumerate(row):
            wrap = "nowrap" if number and place else "normal"  # names and headings may wrap, numbers may not
            cells.append(_CELL.format(tag, "right" if place else "left", weight, wrap, html.escape(text)))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return _TABLE.format("".join(lines))
