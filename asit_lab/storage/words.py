"""Prints facts and aligned tables in a terminal; formats durations and sizes; suggests the nearest valid name."""

import difflib
import shutil
import textwrap
from collections.abc import Iterable
from typing import Any


def cell(value: Any) -> str:
    """`value` in a few characters; "-" for a missing one."""
    if value is None or value != value:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def counted(count: int, thing: str) -> str:
    """ "1 file", "2 files"."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def print_facts(facts: dict[str, Any]) -> None:
    """Print a fact per line: name and value; counts as "16000 (12), 44100 (3)"; empty ones are left out."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} ({count})" for key, count in value.items())
        if value != "":
            print(f"{name.ljust(width)}  {cell(value)}")


def print_rows(rows: list[dict[str, Any]], wrap: str | None = None, before: str = "") -> None:
    """Print rows, if any, as an aligned table with their keys as header.

    wrap: a column that is wrapped so that the table fits the terminal. before: printed above the table.
    """
    if not rows:
        return
    print(before, end="")
    names = list(rows[0])
    cells = [{name: [cell(row[name])] for name in names} for row in rows]
    widths = {name: max(len(name), *(len(row[name][0]) for row in cells)) for name in names}
    if wrap:
        other_columns = sum(widths[name] + 2 for name in names if name != wrap)
        widths[wrap] = min(widths[wrap], max(24, shutil.get_terminal_size((120, 24)).columns - other_columns))
        for row in cells:
            row[wrap] = textwrap.wrap(row[wrap][0], widths[wrap])
    numeric = {name for name in names if all(isinstance(row[name], int | float | None) for row in rows)}
    for row in [{name: [name] for name in names}, *cells]:
        for line in range(max(len(row[name]) for name in names)):
            texts = {name: row[name][line] if line < len(row[name]) else "" for name in names}
            aligned = [texts[n].rjust(widths[n]) if n in numeric else texts[n].ljust(widths[n]) for n in names]
            print("  ".join(aligned).rstrip())


def nearest_of(name: str, valid: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The valid name that was probably meant; None where none is similar."""
    return next(iter(difflib.get_close_matches(str(name), list(valid), 1, cutoff)), None)


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint: the name that was probably meant, or all valid names."""
    valid = list(valid)
    near = difflib.get_close_matches(str(name), valid, 1)
    return f"did you mean {near[0]}?" if near else f"valid: {', '.join(valid) or 'none'}"


def size_in_words(count: float) -> str:
    """Bytes in decimal units: "41.2 MB"."""
    units = ("bytes", "kB", "MB", "GB", "TB")
    power = next((power for power in range(len(units)) if count < 999.5 * 1000**power), len(units) - 1)
    return f"{count / 1000**power:.3g} {units[power]}"


def duration(seconds: float) -> str:
    """A time in its two largest units: "3 min 20 s", "5 h 10 min", "2 d 4 h"."""
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    seconds = round(seconds)
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(i for i, (_, size) in enumerate(units) if seconds >= size)
    (large, large_size), (small, small_size) = units[first], units[first + 1]
    remainder = seconds % large_size // small_size
    return f"{seconds // large_size} {large}" + (f" {remainder} {small}" if remainder else "")
