"""Builds the HTML table of runs and their progress."""

import html
from contextlib import suppress

from ..figures.style import COLOURS
from .run_files import UNDER_WAY, Glance

_UNTOLD = ("name",)
_MOST_SETTINGS = 8
_HEADS = ("", "run", "status", "step", "time", "clips/s", "loss", "health", "result")


def run_table(runs: dict[str, Glance], numbers: dict[str, int]) -> str:
    """HTML with a row for each run, marked by the colour of its curves; empty for no runs. numbers: of the colours."""
    if not runs:
        return ""
    head = "".join(f'<th style="text-align: left; padding: 0 12px 2px 0">{text}</th>' for text in _HEADS)
    rows = "".join(_row(numbers[name], name, run) for name, run in runs.items())
    style = "border-collapse: collapse; line-height: 1.35; font-size: 13px"
    return f'<div style="overflow-x: auto"><table style="{style}"><tr>{head}</tr>{rows}</table></div>'


def settings_table(settings: dict[str, dict]) -> str:
    """HTML with the settings in which runs differ, a row each; empty for one run or none that differs.

    settings: run -> its configuration under dotted keys.
    """
    keys = dict.fromkeys(key for values in settings.values() for key in values if key not in _UNTOLD)
    differ = [key for key in keys if len({str(values.get(key)) for values in settings.values()}) > 1]
    if not differ:
        return ""
    shown = [[key, *(str(values.get(key, "")) for values in settings.values())] for key in differ[:_MOST_SETTINGS]]
    style = "text-align: left; padding: 0 12px 1px 0; overflow-wrap: anywhere"
    rows = [["differs", *settings], *shown]
    if len(differ) > _MOST_SETTINGS:
        rows.append([f"and {len(differ) - _MOST_SETTINGS} more: asit-lab runs compare"])
    body = "".join(
        "<tr>" + "".join(f'<td style="{style}">{html.escape(c)}</td>' for c in row) + "</tr>" for row in rows
    )
    return f'<div style="overflow-x: auto"><table style="line-height: 1.35; font-size: 12px">{body}</table></div>'


def _row(number: int, name: str, run: Glance) -> str:
    last = run.metrics.iloc[-1] if len(run.metrics) else {}
    total = run.progress.get("total_steps")
    cells = [
        f'<span style="color: {COLOURS[number % len(COLOURS)]}">&#9632;</span>',
        html.escape(name),
        html.escape(run.status),
        f"{run.step:,}" + (f" of {total:,}" if total else ""),
        _time(run),
        _number(last.get("clips_per_second"), ".1f"),
        _number(last.get("loss"), ".4g"),
        _health(run),
        html.escape(_result(run.result)),
    ]
    style = "text-align: left; vertical-align: top; padding: 1px 12px 1px 0; max-width: 340px"
    return "<tr>" + "".join(f'<td style="{style}">{cell}</td>' for cell in cells) + "</tr>"


def _health(run: Glance) -> str:
    well, text = run.verdict
    return (
        html.escape(text)
        if well
        else f'<span style="color: var(--jp-warn-color0, #a33d00)">&#9888; {html.escape(text)}</span>'
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None or value != value else format(float(value), form)


def _time(run: Glance) -> str:
    """How much longer, or how long it took."""
    if run.status in UNDER_WAY:
        return f"{_clock(run.left)} left" if run.left is not None else ""
    seconds = run.progress.get("seconds")
    return "" if seconds is None else _clock(seconds)


def _clock(seconds: float) -> str:
    minutes, seconds_left = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{seconds_left:02d}" if minutes >= 60 else f"{minutes}:{seconds_left:02d}"
    )


def _result(result: dict) -> str:
    """The teacher's probe and the error of reconstruction beside a straight line's, where result.json has them."""
    parts = []
    with suppress(KeyError, TypeError, StopIteration):  # of another shape where another program wrote them
        teacher = next(row for row in result["probe"] if row["encoder"] == "teacher")
        parts.append(f"probe {100 * teacher['mean']:.1f} %")
    with suppress(KeyError, TypeError):
        errors = {row["method"]: row["l1_log"] for row in result["reconstruction"]}
        line = errors["linear interpolation in time"]
        parts.append(f"reconstruction {errors['reconstruction']:.2f}, straight line {line:.2f}")
    return "; ".join(parts)
