"""Pictures of reconstructions that runs leave behind: those of several runs under each other."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from .base import render_png, stacked

_DPI = 100


def step_of(path: Path) -> int:
    """The step after which a picture was made."""
    return int(path.stem.split("-")[1])  # also of copies: step-10-Copy1.png


def last_until(paths: Sequence[Path], step: int) -> Path | None:
    """The last picture that is not later than `step`; None: all are later."""
    earlier = [path for path in paths if step_of(path) <= step]
    return max(earlier, key=step_of) if earlier else None


def under_names(pictures: Mapping[str, bytes]) -> bytes:
    """PNGs under each other, each below its name."""
    pngs = []
    for name, png in pictures.items():
        width = Image.open(io.BytesIO(png)).width
        figure = Figure(figsize=(width / _DPI, 0.32))
        figure.text(8 / width, 0.5, name, fontsize=11, weight="bold", va="center")
        pngs += [render_png(figure, _DPI, any_theme=True), png]
    return stacked(pngs, any_theme=True)
