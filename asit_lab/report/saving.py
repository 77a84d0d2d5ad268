"""Writes figures, each with the table it was drawn from."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ..batch.figure_of_study import save_figure
from ..storage.atomic import UNPRINTABLE, atomic_write, write_text


def save_with_table(figure: Figure, table: pd.DataFrame, stem: Path) -> list[Path]:
    """Write STEM.pdf, .png, .svg and .csv, each atomically. Returns the paths."""
    return [*save_figure(figure, stem), save_table(table, stem.with_name(f"{stem.name}.csv"))]


def save_table(table: pd.DataFrame, path: Path) -> Path:
    """Write a CSV atomically."""
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, errors=UNPRINTABLE)
    return path


def save_text(text: str, path: Path) -> Path:
    """Write a text file atomically."""
    write_text(path, text)
    return path
