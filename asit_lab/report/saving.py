"""Figures as files, each with the table it was drawn from beside it."""

import io
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg

from .. import figures
from ..storage.atomic import whole, write_text

DPI = 220  # of the PNG: sharp in print where it is as wide as it is


def png(figure) -> bytes:
    """A figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def save_figure(figure, table: pd.DataFrame, stem: Path) -> list[Path]:
    """Write STEM.pdf, .png, .svg and .csv, each whole or not at all. Returns the paths."""
    pdf, svg = (figures.save(figure, stem.with_name(f"{stem.name}.{kind}")) for kind in ("pdf", "svg"))
    picture, data = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "csv"))
    with whole(picture) as temporary:
        temporary.write_bytes(png(figure))
    return [pdf, picture, svg, save_table(table, data)]


def save_table(table: pd.DataFrame, path: Path) -> Path:
    """Write a CSV whole or not at all."""
    with whole(path) as temporary:
        table.to_csv(temporary, index=False)
    return path


def save_text(text: str, path: Path) -> Path:
    """Write a text whole or not at all."""
    write_text(path, text)
    return path
