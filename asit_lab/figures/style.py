"""How every figure looks, how it shows itself in a notebook, and how it is saved.

Figures are built with matplotlib's object interface, never pyplot: nothing is registered globally, so figures do not
pile up in a long run and no display is needed.
"""

import functools
import io
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..config import resolve
from ..errors import InputError

# Okabe and Ito's palette: told apart with every common colour blindness. Yellow is left out, too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
LOG_MEL_MAP = "magma"
ERROR_MAP = "viridis"
ATTENTION_MAP = "viridis"
NOTHING = "#c8c8c8"  # not drawn: NaN, or pixels a measure does not count
SAVE_DPI = 120

_STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "figure.titlesize": 10.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "hatch.linewidth": 0.5,
    "text.usetex": False,
    "svg.fonttype": "none",
}

# The style is set for the whole process, and JupyterLab calls widgets in another thread than cells.
_ONE_AT_A_TIME = threading.RLock()


class Picture(Figure):
    """A Figure that shows itself as the result of a notebook cell, whether or not pyplot was ever imported."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        FigureCanvasAgg(self)
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def styled(function: Callable) -> Callable:
    """Run `function` under the style of this module; the caller's own matplotlib settings come back afterwards."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        with _ONE_AT_A_TIME, matplotlib.rc_context(_STYLE):
            return function(*args, **kwargs)

    return wrapper


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches with constrained layout."""
    return Picture(figsize=(width, height), layout="constrained")


def blank(width: float, height: float, message: str) -> Figure:
    """A figure that only says `message`, for data with nothing in it yet."""
    figure = new_figure(width, height)
    figure.text(0.5, 0.5, message, ha="center", va="center")
    return figure


def figure_of(ax, width: float, height: float):
    """(figure, axes): those of `ax`, or a new figure of `width` x `height` inches with one panel when it is None."""
    if ax is not None:
        return ax.figure, ax
    figure = new_figure(width, height)
    return figure, figure.add_subplot()


def bars(ax, names: Sequence[str], values, label: str, places: int = 1) -> None:
    """Horizontal bars from top to bottom, each with its number; `label` (with the unit) is the x label.

    places: fewer bars leave room for this many, so that two are not drawn as blocks.
    """
    positions = range(len(names))
    drawn = ax.barh(positions, values, height=0.7, color=COLOURS[0])
    ax.bar_label(drawn, labels=[_number(value) for value in values], padding=3, fontsize=8)
    ax.set_yticks(positions, [name if len(name) <= 32 else name[:31] + "…" for name in names])
    ax.set_ylim(max(len(names), places) - 0.4, -0.6)
    ax.set_xlim(0, max([*values, 1e-12]) * 1.15)  # room for the numbers
    ax.set_xlabel(label)
    ax.tick_params(axis="y", length=0)


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def save(fig: Figure, path: str | Path) -> Path:
    """Write `fig` to `path` and return the path: .png (120 dots an inch), .pdf or .svg by its suffix.

    A relative path counts from the project's root. The folder is made if needed. The file appears whole or not at all.
    Raises InputError for another suffix.
    """
    path = resolve(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "pdf", "svg"):
        raise InputError(f"{path}: a figure is saved as .png, .pdf or .svg, not {path.suffix or 'without a suffix'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Saved files do not carry the date, so that the same figure gives the same bytes.
    dateless = {"png": None, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _ONE_AT_A_TIME, matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "asit_lab"}):
            FigureCanvasAgg(fig)
            fig.savefig(part, format=kind, dpi=SAVE_DPI, metadata=dateless)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
