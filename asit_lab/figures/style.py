"""How every figure looks, how it shows itself in a notebook, and how it is saved.

Figures are built with matplotlib's object interface, never pyplot: nothing is registered globally, so figures do not
pile up in a long run and no display is needed.
"""

import functools
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.text import Text

from ..config import resolve
from ..errors import InputError
from ..storage.atomic import atomic_write

# Okabe and Ito's palette: told apart with every common colour blindness. Yellow is left out, too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# With five more where a colour is the name of a class; markers tell the rest apart.
CLASS_COLOURS = (*COLOURS, "#882255", "#999933", "#6A3D9A", "#8C510A", "#777777")
DASHES = ("-", "--", "-.", ":")
LOG_MEL_MAP = "magma"
ERROR_MAP = "viridis"
ATTENTION_MAP = "viridis"
GREY = "#777777"  # contrast above 4 with white and with black
NOTHING = "#c8c8c8"  # not drawn: NaN, or pixels a measure does not count
SAVE_DPI = 120
TITLE_SIZE = 9.0  # points

_STYLE = {
    "font.size": 9.0,
    "axes.titlesize": TITLE_SIZE,
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
}

# What must hold whenever a figure is drawn or written, since ticks and fonts are made only then: a class may be called
# "US$ 5$", and publishers refuse the Type 3 fonts that are matplotlib's default.
_ALWAYS = {
    "text.usetex": False,
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "asit_lab",
}
# A PDF that several figures go into (PdfPages), or one that is written past `savefig`, takes its fonts from here.
matplotlib.rcParams.update({"pdf.fonttype": 42, "ps.fonttype": 42})

# Searched in this order for a glyph, as far as they are installed. The first comes with matplotlib.
_FONTS = (
    "DejaVu Sans",
    "Noto Sans",
    "Noto Sans CJK JP",
    "Noto Sans JP",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
    "Noto Sans Telugu",
    "Noto Sans Thai",
    "Noto Sans Ethiopic",
    "Noto Sans Khmer",
    "Noto Sans Symbols",
    "Noto Sans Symbols2",
    "Noto Emoji",
)
_MISSING_GLYPH = re.compile(r"Glyph (\d+) .* missing from font")
_noted: set[str] = set()  # characters that the user was told about

# The style is set for the whole process, and JupyterLab calls widgets in another thread than cells.
_ONE_AT_A_TIME = threading.RLock()


@functools.cache
def _fonts() -> list[str]:
    installed = set(font_manager.get_font_names())
    return [name for name in _FONTS if name in installed]


@contextmanager
def _style(**settings) -> Iterator[None]:
    """Inside, figures are made and drawn by the rules above; the caller's matplotlib settings come back afterwards.

    Characters that no installed font has end in one note, where matplotlib warns of every glyph.
    """
    with _ONE_AT_A_TIME, matplotlib.rc_context({"font.family": _fonts(), **_ALWAYS, **settings}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        missing = set()
        for warning in caught:
            glyph = _MISSING_GLYPH.match(str(warning.message))
            if glyph:
                missing.add(chr(int(glyph[1])))
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        if missing - _noted:
            warnings.warn(_note(sorted(missing - _noted)), stacklevel=3)
            _noted.update(missing)


def _note(missing: list[str]) -> str:
    listed = "".join(missing[:20]) + "…" * (len(missing) > 20)
    return (
        f"no installed font has {listed!r}, so the figure shows boxes; Google's Noto fonts have it (on Debian: apt-get "
        f"install fonts-noto). matplotlib sees new fonts after {matplotlib.get_cachedir()} is removed"
    )


class NotebookFigure(Figure):
    """A Figure that shows itself as the result of a notebook cell, whether or not pyplot was ever imported."""

    def draw(self, renderer) -> None:
        """As matplotlib does, with every text as it is: no mathematics, no character that cannot be drawn."""
        with _style():
            for text in self.findobj(Text):
                drawable = _drawable(text.get_text())
                if drawable != text.get_text():
                    text.set_text(drawable)
            super().draw(renderer)

    def savefig(self, *args, **kwargs) -> None:
        """As matplotlib does, with TrueType fonts in PDF."""
        with _style():
            super().savefig(*args, **kwargs)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        _write_png(self, buffer, dpi=100)
        return buffer.getvalue()


def styled(function: Callable) -> Callable:
    """Run `function` under the style of this module; the caller's own matplotlib settings come back afterwards."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        with _style(**_STYLE):
            return function(*args, **kwargs)

    return wrapper


def _drawable(text: str) -> str:
    """`text` without what a font cannot draw: control characters, and bytes of a file name that are not UTF-8."""
    return re.sub("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text.replace("\t", " "))


def short_name(name: object, longest: int = 32) -> str:
    """A class, clip or run as a label: on one line, drawable, and not longer than `longest` characters."""
    text = _drawable(" ".join(str(name).splitlines()))
    return text if len(text) <= longest else text[: longest - 1] + "…"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches with constrained layout."""
    return NotebookFigure(figsize=(width, height), layout="constrained")


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


def suit_any_theme(figure: Figure) -> None:
    """Take the background away and make black text grey, so that a PNG is read on bright and on dark pages."""
    figure.patch.set_alpha(0)
    for ax in figure.axes:
        ax.patch.set_alpha(0)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_tick_params(which="both", color=GREY, labelcolor=GREY)
        for spine in ax.spines.values():
            spine.set_edgecolor(GREY)
    for text in figure.findobj(Text):
        if to_hex(text.get_color()) == "#000000":
            text.set_color(GREY)


def bars(ax, names: Sequence[str], values, label: str, places: int = 1) -> None:
    """Horizontal bars from top to bottom, each with its number; `label` (with the unit) is the x label.

    places: fewer bars leave room for this many, so that two are not drawn as blocks.
    """
    positions = range(len(names))
    drawn = ax.barh(positions, values, height=0.7, color=COLOURS[0])
    ax.bar_label(drawn, labels=[_number(value) for value in values], padding=3, fontsize=8)
    ax.set_yticks(positions, [short_name(name) for name in names])
    ax.set_ylim(max(len(names), places) - 0.4, -0.6)
    ax.set_xlim(0, max([*values, 1e-12]) * 1.15)  # room for the numbers
    ax.set_xlabel(label)
    ax.tick_params(axis="y", length=0)


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _write_png(fig: Figure, target: Path | io.BytesIO, dpi: float) -> None:
    """As `fig.savefig` does, in less than half its time: that lays a figure out twice and draws it twice."""
    own_dpi = fig.get_dpi()
    fig.set_dpi(dpi)
    try:
        canvas = FigureCanvasAgg(fig)
        with _style():
            canvas.draw()
        imsave(target, canvas.buffer_rgba(), format="png", dpi=dpi)
    finally:
        fig.set_dpi(own_dpi)


def save(fig: Figure, path: str | Path) -> Path:
    """Write `fig` to `path` and return the path: .png (120 dots an inch), .pdf or .svg by its suffix.

    A relative path counts as `config.home` says. The folder is made if needed. The file appears whole or not at all.
    Raises InputError for another suffix, a folder, or a name that is too long.
    """
    path = resolve(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "pdf", "svg"):
        raise InputError(f"{path}: a figure is saved as .png, .pdf or .svg, not {path.suffix or 'without a suffix'}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    # Saved files do not carry the date, so that the same figure gives the same bytes.
    dateless = {"CreationDate": None} if kind == "pdf" else {"Date": None}
    with atomic_write(path) as part:
        if kind == "png":
            _write_png(fig, part, SAVE_DPI)
        else:
            FigureCanvasAgg(fig)
            with _style():
                fig.savefig(part, format=kind, dpi=SAVE_DPI, metadata=dateless)
    return path
