"""Reads the scripts and styles of widgets."""

from pathlib import Path

_STATIC = Path(__file__).parent / "static"


def joined(*names: str) -> str:
    """Files of static/ as one text: a page cannot import a module's other files."""
    return "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in names)
