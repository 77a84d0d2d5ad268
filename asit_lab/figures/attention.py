"""Where attention goes: of one encoder, of several side by side, and layer by layer."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.collections import PatchCollection
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ..errors import InputError
from .axes import MelAxes, array, check_patches, colour_bar, colour_limits, image, mask_array, spread_tokens
from .spectrograms import draw_mask
from .style import ATTENTION_MAP, COLOURS, new_figure, styled

SIGNED_MAP = "PuOr_r"  # white at 0; its two ends are told apart with every common colour blindness
_COLUMNS = 3
HEAD_ROOM = 2.0  # colour scales reach to this multiple of even attention at least, or even maps were one bright block


# --- One encoder ----------------------------------------------------------------------------------------------------


@styled
def class_attention(
    log_mel, attention, axes: MelAxes, patch: tuple[int, int] = (16, 16), title: str | None = None
) -> Figure:
    """The log-mel, the attention of the class token averaged over heads, and that of each head.

    log_mel: [frames, mels]; attention: [heads, time, freq], the weight (0 to 1) on each patch; patch: frames, mels.
    One rectangle a patch, nothing interpolated. One colour scale for all heads, square-root so that diffuse heads show
    beside sharp ones; a line in the colour bar marks even attention. Raises InputError where the
    shapes do not fit each other.
    """
    log_mel = array(log_mel, "log_mel", "frames, mels")
    attention = array(attention, "attention", "heads, time, freq")
    heads, *tokens = attention.shape
    check_patches(patch, log_mel.shape, tuple(tokens), "attention")
    percent = 100 * attention
    maps = {"attention of the class token, mean of heads": percent.mean(axis=0)}
    maps |= {f"head {number}": head for number, head in enumerate(percent)}

    rows = 1 + -(-heads // _COLUMNS)
    figure = new_figure(10.0, 0.7 + 1.55 * rows)
    # First row: log-mel, mean, and the colour bars; heads from the second row on.
    places = [1, 2, *range(_COLUMNS + 1, _COLUMNS + 1 + heads)]
    panels = [figure.add_subplot(rows, _COLUMNS, place) for place in places]
    mel = image(panels[0], log_mel, axes, colour_limits(log_mel))
    panels[0].set_title("log-mel")
    even = 100 / (tokens[0] * tokens[1])
    limits = (0.0, max(float(np.nanpercentile(percent, 99.5)), HEAD_ROOM * even))
    drawn = []
    for ax, (name, values) in zip(panels[1:], maps.items(), strict=True):
        pixels = spread_tokens(values, patch, log_mel.shape, np.nan)
        drawn.append(image(ax, pixels, axes, limits, ATTENTION_MAP, power=0.5))
        ax.set_title(name)
    for place, ax in zip(places, panels, strict=True):
        if place % _COLUMNS != 1:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
        if place + _COLUMNS in places:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
    _draw_bars(figure, rows, mel, drawn, axes, even)
    if title:
        figure.suptitle(title)
    return figure


def _draw_bars(figure, rows: int, mel, maps: list, axes: MelAxes, even: float) -> None:
    """The two colour bars in the free cell of the first row; even: attention on a patch if it were even, percent."""
    cell = figure.add_subplot(rows, _COLUMNS, _COLUMNS)
    cell.set_axis_off()
    upper, lower = (cell.inset_axes((0.04, height, 0.92, 0.1)) for height in (0.88, 0.26))
    colour_bar(figure, mel, axes.unit, cax=upper, orientation="horizontal")
    label = f"attention on a patch (%), square-root scale\nline: even attention, {even:.2g} %"
    bar = colour_bar(figure, maps, label, cax=lower, orientation="horizontal")
    bar.ax.axvline(even, color="white", linewidth=1.5)


# --- Several encoders -----------------------------------------------------------------------------------------------


class _Column(NamedTuple):
    """A column of panels: a log-mel [frames, mels], or weights in percent [2 queries, frames, mels]."""

    name: str
    kind: str
    """log-mel, softmax or difference"""
    values: np.ndarray
    axes: MelAxes
    silent: np.ndarray
    """bool [frames, mels]"""
    query: tuple[float, float, float, float]
    """the chosen patch: left (s), bottom (band), width (s), height (bands)"""
    even: float
    """attention on a patch if it were even, percent"""
    first_of: str | None
    """name of the encoder whose columns start here"""


@styled
def attention_comparison(clips: Sequence, axes: Sequence[MelAxes], patches: Sequence[tuple[int, int]]) -> Figure:
    """What encoders attend to in a clip, mean over heads: a row for the class token, a row for one chosen patch.

    clips: one an encoder, (title, log_mel [frames, mels], silent bool [time, freq], query (time, freq), maps, lam) as
    asit_lab.evaluation.compare_attention gives them; maps: "map", and for differential attention "first" and "second"
    too, each [2, time, freq], weights for the two queries; lam: factor of the second softmax.
    axes, patches (frames, mels): of each encoder. One square-root scale for all softmaxes, a line in its colour bar
    marks even attention; one for all differences, symmetric about 0, negative patches hatched so that the sign shows in
    grey too. A log-mel that the encoders share is drawn once. Raises InputError where shapes or numbers of items do not
    fit each other.
    """
    if not clips or not len(clips) == len(axes) == len(patches):
        raise InputError(
            "clips: expected at least one, and axes and patches for each, "
            f"got {len(clips)} clips, {len(axes)} axes, {len(patches)} patches"
        )
    columns: list[_Column] = []
    for clip, its_axes, patch in zip(clips, axes, patches, strict=True):
        columns += _columns(clip, its_axes, patch, columns)
    figure = new_figure(0.8 + 1.75 * len(columns), 4.4)
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.95))  # above: the encoders' names, as wide as all their columns
    panels = figure.subplots(2, len(columns), squeeze=False)
    kinds = {column.kind for column in columns}
    limits = {kind: _limits([column for column in columns if column.kind == kind], kind) for kind in kinds}
    drawn = [_draw_column(pair, column, limits[column.kind]) for pair, column in zip(panels.T, columns, strict=True)]
    for (row, number), ax in np.ndenumerate(panels):
        if row == 0:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
        if number and columns[number].axes == columns[number - 1].axes:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
    _name_encoders(panels[0], columns)
    _name_queries(panels[:, 0])
    for kind, group in groupby(range(len(columns)), key=lambda number: columns[number].kind):
        side_by_side = list(group)
        images = [panel_image for number in side_by_side for panel_image in drawn[number]]
        label = _LABELS.get(kind, f"{axes[0].unit};\nhatched: silent")
        evens = sorted({columns[number].even for number in side_by_side}) if kind == "softmax" else []
        if evens:  # several where grids differ
            label += f"\nline: even, {' and '.join(f'{even:.2g}' for even in evens)} %"
        under = list(panels[:, side_by_side].flat)
        bar = colour_bar(figure, images, label, ax=under, location="bottom", aspect=14 * len(side_by_side), pad=0.03)
        for even in evens:
            bar.ax.axvline(even, color="white", linewidth=1.5)
    return figure


_LABELS = {
    "softmax": "attention on a patch (%),\nsquare-root scale",
    "difference": "weight of a patch (%),\nsquare-root scale,\nhatched: negative",
}


def _columns(clip, axes: MelAxes, patch: tuple[int, int], before: list[_Column]) -> list[_Column]:
    """The columns of one encoder, its log-mel first unless a column before shows the same."""
    title, log_mel, silent, query, maps, lam = clip
    log_mel = array(log_mel, "log_mel", "frames, mels")
    tokens = np.shape(maps["map"])[1:]
    check_patches(patch, log_mel.shape, tokens, "maps")
    silent = spread_tokens(mask_array(silent, "silent", tokens), patch, log_mel.shape, False)
    left, bottom = query[0] * patch[0], query[1] * patch[1]
    place = (axes.time(left), bottom, axes.seconds(patch[0]), patch[1])
    even = 100 / (tokens[0] * tokens[1])

    def column(name: str, kind: str, values: np.ndarray, first: bool) -> _Column:
        return _Column(name, kind, values, axes, silent, place, even, title if first else None)

    has_log_mel = any(
        other.kind == "log-mel" and other.axes == axes and np.array_equal(other.values, log_mel) for other in before
    )
    columns = [] if has_log_mel else [column("log-mel", "log-mel", log_mel, True)]
    differential = "first" in maps
    names = {"first": "first softmax", "second": "second softmax"} if differential else {}
    names["map"] = f"first \u2212 {lam:.2g} \u00d7 second" if differential else "softmax"
    for key, name in names.items():
        values = 100 * array(maps[key], f"maps[{key!r}]", "query, time, freq")
        if values.shape != (2, *tokens):
            raise InputError(f"maps[{key!r}]: expected shape {[2, *tokens]}, got {list(values.shape)}")
        pixels = np.stack([spread_tokens(row, patch, log_mel.shape, np.nan) for row in values])
        columns.append(column(name, "difference" if differential and key == "map" else "softmax", pixels, not columns))
    return columns


def _limits(columns: list[_Column], kind: str) -> tuple[float, float]:
    """Ends of the colour scale that all panels of a kind share."""
    if kind == "log-mel":
        return colour_limits(*(column.values for column in columns))
    finite = np.concatenate([np.abs(column.values[np.isfinite(column.values)]) for column in columns])
    most = max(
        float(np.percentile(finite, 99.5)) if finite.size else 0.0, *(HEAD_ROOM * column.even for column in columns)
    )
    return (-most if kind == "difference" else 0.0), most


def _draw_column(pair, column: _Column, limits: tuple[float, float]) -> list:
    """Fill the two panels of a column; returns what a colour bar is for."""
    pair[0].set_title(column.name)
    drawn = []
    for row, ax in enumerate(pair):
        if column.kind == "log-mel":
            drawn.append(image(ax, column.values, column.axes, limits))
            draw_mask(ax, column.silent, column.axes)
        elif column.kind == "softmax":
            drawn.append(image(ax, column.values[row], column.axes, limits, ATTENTION_MAP, power=0.5))
        else:
            drawn.append(image(ax, column.values[row], column.axes, limits, SIGNED_MAP))
            drawn[-1].set_norm(FuncNorm((signed_root, signed_square), *limits))
            _hatch(ax, column.values[row] < 0, column.axes)
        if row == 1:
            _frame(ax, column.query)
    return drawn


def signed_root(values):
    return np.sign(values) * np.sqrt(np.abs(values))


def signed_square(values):
    return np.sign(values) * np.square(values)


def _hatch(ax, negative: np.ndarray, axes: MelAxes) -> None:
    """Hatch the pixels `negative` [frames, mels], one rectangle a run of frames."""
    change = np.diff(np.pad(negative, ((1, 1), (0, 0))).astype(np.int8), axis=0).T  # +1 where a run starts
    bands, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]
    runs = [
        Rectangle((axes.time(start), band), axes.seconds(end - start), 1)
        for band, start, end in zip(bands, starts, ends, strict=True)
    ]
    # The hatch is anchored to the page, so neighbouring rectangles join without a seam.
    ax.add_collection(PatchCollection(runs, facecolor="none", edgecolor="#555555", hatch="////", linewidth=0))


def _frame(ax, place: tuple[float, float, float, float]) -> None:
    """Frame a patch in white on black, which is seen on every colour."""
    for colour, width in (("black", 2.0), ("white", 0.8)):
        ax.add_patch(Rectangle(place[:2], *place[2:], fill=False, edgecolor=colour, linewidth=width))


def _name_encoders(top, columns: list[_Column]) -> None:
    """The encoders' names over their first columns, cut to the width they have."""
    starts = [number for number, column in enumerate(columns) if column.first_of]
    for start, end in zip(starts, [*starts[1:], len(columns)], strict=True):
        name = textwrap.shorten(columns[start].first_of, 22 * (end - start), placeholder=" …")
        top[start].annotate(
            name,
            (0, 1),
            (0, 17),
            xycoords="axes fraction",
            textcoords="offset points",
            weight="bold",
            va="bottom",
            in_layout=False,
        )


def _name_queries(left) -> None:
    """The rows' names, in two lines, as one is longer than a panel is high."""
    for ax, query in zip(left, ("class token", "framed patch"), strict=True):
        ax.annotate(
            f"query:\n{query}",
            (0, 0.5),
            (-42, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            rotation=90,
            weight="bold",
            fontsize=8,
            multialignment="center",
            ha="right",
            va="center",
        )


# --- Layer by layer -------------------------------------------------------------------------------------------------

_MEASURES = {
    "entropy_normalised": "entropy (1: even)",
    "share_on_silent": "on silent patches (%)",
}
_LINES = {"map": ("-", "o"), "first": ("--", "^"), "second": (":", "s")}


@styled
def attention_by_layer(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Entropy of attention, and its share on silent patches, over the layers: a row of panels for each query.

    tables: name of an encoder -> what asit_lab.evaluation.attention_statistics gives: columns layer, kind ("map",
    "first", "second"), query, entropy_normalised, share_on_silent and even_share (shares 0 to 1). One colour an
    encoder, one dash and marker a kind; a grey line where even attention would be. Raises InputError for missing
    columns or no table.
    """
    needed = {"layer", "kind", "query", "even_share", *_MEASURES}
    missing = {name: sorted(needed - set(table)) for name, table in tables.items() if needed - set(table)}
    if missing or not tables:
        raise InputError(f"tables: missing columns {missing}" if missing else "tables: expected at least one")
    queries = list(dict.fromkeys(query for table in tables.values() for query in table["query"]))
    figure = new_figure(8.0, 0.9 + 2.1 * len(queries))
    panels = figure.subplots(len(queries), len(_MEASURES), squeeze=False, sharex=True, sharey="col")
    for (row, column), ax in np.ndenumerate(panels):
        query, measure = queries[row], list(_MEASURES)[column]
        ax.set_title(f"query: {query}")
        ax.set_ylabel(_MEASURES[measure])
        for colour, (name, table) in zip(COLOURS * len(tables), tables.items(), strict=False):
            _draw_lines(ax, table[table["query"] == query], measure, colour, name)
    for ax in panels[-1]:
        ax.set_xlabel("layer (0: first)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = {label: line for ax in panels.flat for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return figure


def _draw_lines(ax, rows: pd.DataFrame, measure: str, colour: str, name: str) -> None:
    """One encoder's lines, one a kind, in one panel."""
    percent = measure == "share_on_silent"
    even = rows["even_share"].mean() if percent else 1.0
    if np.isfinite(even):
        ax.axhline(100 * even if percent else even, color="#888888", linewidth=1, dashes=(4, 3), label="even attention")
    elif not ax.texts:
        ax.text(0.5, 0.5, "no silent patches", transform=ax.transAxes, ha="center", va="center")
    for kind, (dash, marker) in _LINES.items():
        of_kind = rows[rows["kind"] == kind].sort_values("layer")
        if len(of_kind) and of_kind[measure].notna().any():
            differential = (rows["kind"] == "first").any()
            label = {"map": "difference" if differential else "softmax"}.get(kind, f"{kind} softmax")
            scale = 100 if percent else 1
            style = {"linestyle": dash, "marker": marker, "color": colour, "markersize": 4, "linewidth": 1.3}
            ax.plot(of_kind["layer"], scale * of_kind[measure], label=f"{name}: {label}", **style)
