"""Results in a terminal: facts one a line, rows as an aligned table, or JSON."""

import json
import shutil
import textwrap
from pathlib import Path
from typing import Any


def _plain(value: Any) -> Any:
    """`value` in the types JSON has; what is not a number (NaN, infinity) becomes None."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return str(value) if isinstance(value, Path) else value


def as_json_text(value: Any) -> str:
    """`value` as JSON, indented."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def cell(value: Any) -> str:
    """`value` in a few characters; "-" for what is not there."""
    if value is None or value != value:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def print_facts(facts: dict[str, Any]) -> None:
    """One fact a line: its name, its value; counts as "16000 (12), 44100 (3)"; what is empty is left out."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} ({count})" for key, count in value.items())
        if value != "":
            print(f"{name.ljust(width)}  {cell(value)}")


def print_rows(rows: list[dict[str, Any]], wrap: str | None = None, before: str = "") -> None:
    """Rows, if there are any, as an aligned table under their keys.

    wrap: a column that is broken into lines so that the table fits the terminal. before: printed above the table.
    """
    if not rows:
        return
    print(before, end="")
    names = list(rows[0])
    cells = [{name: [cell(row[name])] for name in names} for row in rows]
    widths = {name: max(len(name), *(len(row[name][0]) for row in cells)) for name in names}
    if wrap:
        others = sum(widths[name] + 2 for name in names if name != wrap)
        widths[wrap] = min(widths[wrap], max(24, shutil.get_terminal_size((120, 24)).columns - others))
        for row in cells:
            row[wrap] = textwrap.wrap(row[wrap][0], widths[wrap])
    numeric = {name for name in names if all(isinstance(row[name], int | float | None) for row in rows)}
    for row in [{name: [name] for name in names}, *cells]:
        for line in range(max(len(row[name]) for name in names)):
            texts = {name: row[name][line] if line < len(row[name]) else "" for name in names}
            aligned = [texts[n].rjust(widths[n]) if n in numeric else texts[n].ljust(widths[n]) for n in names]
            print("  ".join(aligned).rstrip())
