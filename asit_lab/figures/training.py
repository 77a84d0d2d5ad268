"""Curves of a run, losses above, schedules and health below; and those of several runs in the same panels."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ..errors import InputError
from .style import COLOURS, DASHES, blank, new_figure, short_name, styled

_LOSSES = {
    "loss": "total loss",
    "loss_reconstruction": "reconstruction: L1",
    "loss_local": "local: cross-entropy (nat)",
    "loss_global": "global: cross-entropy (nat)",
    "loss_frame": "frame: error² / √width",  # summed over channels, see objectives.losses.squared_error
    "loss_utterance": "utterance: error² / √width",
}
_OTHERS = {
    "rate": "learning rate",
    "momentum": "teacher momentum",
    "weight_decay": "weight decay",
    "teacher_temperature": "teacher temperature",
    "gradient_norm": "gradient norm",
    "target_variance": "variance of the targets",
    "prediction_variance": "variance of the predictions",
    "clips_per_second": "clips per second",
}
# Columns that begin alike are drawn into one panel.
_FAMILIES = {
    "entropy_": "teacher entropy (nat)",
    "information_": "information about the clip (nat)",
    "centre_": "norm of the centre",
    "spread_": "spread of embeddings",
    "rank_": "effective rank of embeddings",
    "log_variance_": "log variance of a loss",
}
_COLUMNS, _WIDE_COLUMNS = 5, 3
_STEPS = [1, 2, 2.5, 5, 10]  # between ticks
_SMOOTH_FROM = 20  # rows; with fewer, smoothing says nothing
SMOOTHING = 0.05  # share of the rows that a running mean goes over


@styled
def curves(metrics: pd.DataFrame, references: Mapping[str, tuple[float, str]] | None = None) -> Figure:
    """Losses (first row) and schedules, speed and entropies (second row) over the optimiser step.

    metrics: one row a logged step, with the column `step` and any of loss, loss_reconstruction, loss_local,
    loss_global, other loss_*, rate, momentum, weight_decay, teacher_temperature, gradient_norm, clips_per_second,
    target_variance, prediction_variance, entropy_*, information_*, centre_*, spread_*, rank_*, log_variance_*; other
    columns are left out. NaN leaves a gap.
    Losses are shown as logged (faint) and smoothed.
    references: column -> (value, label), a dashed line such as {"loss_local": (log(256), "ln 256: uniform")}.
    Raises InputError for what is no table, without a column `step` or with a reference that is not (value, label).
    """
    _check_steps(metrics, "metrics")
    losses = _losses_in([metrics])
    upper = [([name], curve_title(name)) for name in losses]
    lower = [([name], title) for name, title in _OTHERS.items() if name in metrics]
    for prefix, title in _FAMILIES.items():
        family = [name for name in metrics if str(name).startswith(prefix)]
        lower += [(family, title)] if family else []
    if not len(metrics) or not upper + lower:
        return blank(7.0, 2.0, "nothing logged yet")

    columns = _balanced(_COLUMNS, len(upper), len(lower))
    upper_rows, lower_rows = -(-len(upper) // columns), -(-len(lower) // columns)
    rows = upper_rows + lower_rows
    figure, grid = _grid(rows, columns)
    places = [*range(len(upper)), *range(upper_rows * columns, upper_rows * columns + len(lower))]
    steps = pd.to_numeric(metrics["step"], errors="coerce").to_numpy(dtype=float)
    smooth = len(metrics) >= _SMOOTH_FROM
    for place, (names, title) in zip(places, upper + lower, strict=True):
        ax = figure.add_subplot(grid[place])
        _draw_panel(ax, steps, metrics, names, SMOOTHING if smooth and names[0] in losses else 0.0)
        for name in names:
            if references and name in references:
                _draw_reference(ax, name, references[name])
        ax.set_title(title)
        ax.set_xlabel("" if place + columns in places else "step")
    if losses and smooth:
        _say_smoothed(figure)
    return figure


@styled
def compared_curves(
    runs: Mapping[str, pd.DataFrame],
    names: Sequence[str] | None = None,
    log: bool | None = None,
    smoothing: float = SMOOTHING,
    width: float | None = None,
    numbers: Mapping[str, int] | None = None,
    references: Mapping[str, Sequence[tuple[float, str]]] | None = None,
    along: str = "step",
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Curves of several runs over the optimiser step: a panel for each curve, a line for each run.

    runs: name -> metrics as `curves` takes them; what some run does not have is drawn for the others. names: columns to
    draw; None: the losses, loss and loss_*. log: whether values have a logarithmic axis; None: where they span more
    than a factor of 50. smoothing: share of a run's rows that the running mean goes over, 0 for none; lines are as
    logged (faint) and smoothed, as in `curves`. width: of the whole, in inches, up to three panels beside each other;
    None: small panels of one size, up to five. numbers: run -> number of its colour and dashes, where these should stay
    as other runs come and go. references: column -> (value, label) of dashed lines, see `curves`. along: column that
    the curves are drawn over. groups: name -> runs, of which several are drawn as their mean and a band from the lowest
    to the highest; None: each run by itself.
    Raises InputError for no runs and for metrics that are no table or without the column `along`.
    """
    if not runs:
        raise InputError("runs: expected at least one run to draw, got none")
    for name, metrics in runs.items():
        _check_steps(metrics, f"metrics of {name}", along)
    numbers = numbers or {run: number for number, run in enumerate(runs)}  # a run without rows yet has one too
    runs = {run: metrics for run, metrics in runs.items() if len(metrics)}
    logged = {column for metrics in runs.values() for column in metrics}
    names = _losses_in(list(runs.values())) if names is None else [name for name in names if name in logged]
    if not names:
        return blank(7.0, 2.0, "nothing logged yet")
    smooth = smoothing > 0 and any(len(metrics) >= _SMOOTH_FROM for metrics in runs.values())

    grouped = {group: [run for run in members if run in runs] for group, members in (groups or {}).items()}
    grouped = {group: members for group, members in grouped.items() if members} or {run: [run] for run in runs}
    columns = _balanced(_COLUMNS if width is None else _WIDE_COLUMNS, len(names))
    figure, grid = _grid(-(-len(names) // columns), columns, below=0.14 * len(grouped) + 0.15, width=width)
    for place, name in enumerate(names):
        ax = figure.add_subplot(grid[place])
        drawn = []
        for members in grouped.values():
            tables = [runs[run] for run in members if name in runs[run]]
            places = [pd.to_numeric(table[along], errors="coerce").to_numpy(dtype=float) for table in tables]
            columns_drawn = [table[name] for table in tables]
            if len(tables) > 1:
                drawn.append((places[0], _draw_band(ax, places, columns_drawn, numbers[members[0]], smoothing)))
            elif tables:
                share = smoothing if len(tables[0]) >= _SMOOTH_FROM else 0.0
                line = _draw_line(ax, places[0], columns_drawn[0], numbers[members[0]], share, "")
                drawn.append((places[0], line))
        if drawn:
            _scale_axes(ax, *(np.concatenate(parts) for parts in zip(*drawn, strict=True)), smooth, log)
        for reference in (references or {}).get(name, ()):
            _draw_reference(ax, name, reference)
        ax.set_title(curve_title(name))
        ax.set_xlabel("" if place + columns < len(names) else along)
    lines = [Line2D([], [], linewidth=1.5, **_line_style(numbers[members[0]])) for members in grouped.values()]
    titles = [
        f"{short_name(group, 80)}: mean of {len(members)}" if len(members) > 1 else short_name(group, 80)
        for group, members in grouped.items()
    ]
    figure.legend(lines, titles, loc="lower left", handlelength=2.5, labelspacing=0.2)
    if smooth:
        _say_smoothed(figure, "")
    return figure


def curve_names(tables: Sequence[pd.DataFrame]) -> list[str]:
    """Columns of metrics that can be drawn, in order: losses, schedules and speed, entropies and their like."""
    logged = dict.fromkeys(name for table in tables for name in table)
    families = [name for prefix in _FAMILIES for name in logged if name.startswith(prefix)]
    return [*_losses_in(list(tables)), *(name for name in _OTHERS if name in logged), *families]


def curve_title(name: str) -> str:
    """What a column of metrics is, with its unit: "loss_local" -> "local: cross-entropy (nat)"."""
    family = next((prefix for prefix in _FAMILIES if name.startswith(prefix)), None)
    if family:
        return f"{_FAMILIES[family]}: {name.removeprefix(family).replace('_', ' ')}"
    return {**_LOSSES, **_OTHERS}.get(name, name.replace("_", " "))


def _check_steps(metrics: pd.DataFrame, name: str, along: str = "step") -> None:
    if not isinstance(metrics, pd.DataFrame):
        raise InputError(f"{name}: expected a table, such as `metrics` of a run, got a {type(metrics).__name__}")
    if along not in metrics:
        raise InputError(f"{name}: expected a column {along!r}, found {', '.join(map(str, metrics.columns)) or 'none'}")


def _losses_in(tables: list[pd.DataFrame]) -> list[str]:
    """Names of the loss columns: the known ones in their order, then others."""
    logged = list(dict.fromkeys(name for table in tables for name in table))
    usual = [name for name in _LOSSES if name in logged]
    return usual + [name for name in logged if str(name).startswith("loss_") and name not in usual]


def _say_smoothed(figure: Figure, subject: str = "losses: ") -> None:
    """The line at the top right that says what faint and strong lines are."""
    top = 1 - 0.06 / figure.get_figheight()
    figure.text(0.99, top, f"{subject}faint as logged, strong smoothed", ha="right", va="top", fontsize=8)


def _balanced(most: int, *groups: int) -> int:
    """How many columns, up to `most`, for groups of so many panels under each other.

    As few last rows with a single panel as can be, then few rows, then few empty places: six panels in three columns.
    """

    def cost(columns: int) -> tuple[int, int, int]:
        alone = sum(panels > columns and (panels - 1) % columns == 0 for panels in groups)
        return alone, sum(-(-panels // columns) for panels in groups), columns

    return min(range(1, min(most, max(groups)) + 1), key=cost)


def _grid(rows: int, columns: int, below: float = 0.0, width: float | None = None):
    """A figure and its grid, laid out in inches: constrained layout would take longer than the drawing itself.

    below: room under the panels, for a legend. width: of the whole; None: panels are as wide as they usually are.
    """
    gap, top, bottom = (0.65, 0.55), 0.5, 0.45 + below
    width = 2.05 if width is None else (width - 0.15) / columns - gap[0]
    height = min(1.45 / 2.05 * width, 2.8)
    figure = new_figure(columns * (width + gap[0]) + 0.15, rows * height + (rows - 1) * gap[1] + top + bottom)
    figure.set_layout_engine("none")
    right, over = 1 - 0.15 / figure.get_figwidth(), 1 - top / figure.get_figheight()
    edges = {
        "left": gap[0] / figure.get_figwidth(),
        "right": right,
        "top": over,
        "bottom": bottom / figure.get_figheight(),
    }
    return figure, figure.add_gridspec(rows, columns, **edges, wspace=gap[0] / width, hspace=gap[1] / height)


def _draw_panel(ax, steps: np.ndarray, metrics: pd.DataFrame, names: list[str], smoothing: float) -> None:
    """One line a column."""
    drawn = []
    for number, name in enumerate(names):
        label = name.removeprefix(next((prefix for prefix in _FAMILIES if name.startswith(prefix)), ""))
        drawn.append(_draw_line(ax, steps, metrics[name], number, smoothing, label.replace("_", " ")))
    finite = np.concatenate(drawn)
    _scale_axes(ax, steps, finite, smoothing > 0)
    if names[0].startswith(tuple(_FAMILIES)) and finite.size:
        ax.legend(handlelength=2.5, labelspacing=0.2)


def _line_style(number: int) -> dict:
    """Colour and dashes of the line with this number in its panel."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}


def _draw_line(ax, steps: np.ndarray, column: pd.Series, number: int, smoothing: float, label: str) -> np.ndarray:
    """One line; with `smoothing`, as logged (faint) and a centred running mean over this share of the rows.

    Returns the finite values of it.
    """
    values = _numbers(column)
    finite = values.notna().to_numpy() & np.isfinite(steps)
    style = _line_style(number)
    # NaN stay in, so that the line breaks there; few values need markers, or one between two gaps is not seen.
    marker = "o" if finite.sum() < _SMOOTH_FROM else ""
    if smoothing:
        ax.plot(steps, values, linewidth=0.7, alpha=0.4, marker=marker, markersize=3, color=style["color"])
        average = smoothed(values, smoothing)
        ax.plot(steps, average, linewidth=1.5, label=label, **style)
    else:
        ax.plot(steps, values, linewidth=1.3, marker=marker, markersize=3, label=label, **style)
    return values.to_numpy(dtype=float)[finite]


def _draw_band(
    ax, places: Sequence[np.ndarray], columns: Sequence[pd.Series], number: int, smoothing: float
) -> np.ndarray:
    """Mean of several runs' lines and the band from their lowest to their highest; returns the finite values."""
    lines = [
        smoothed(values, smoothing if len(values) >= _SMOOTH_FROM else 0.0).to_numpy(dtype=float)
        for values in map(_numbers, columns)
    ]
    x, values = in_common(places, lines)
    style = _line_style(number)
    ax.fill_between(x, values.min(0), values.max(0), color=style["color"], alpha=0.2, linewidth=0)
    ax.plot(x, values.mean(0), linewidth=1.5, **style)
    return values[np.isfinite(values)]


def _numbers(column: pd.Series) -> pd.Series:
    return pd.to_numeric(column, errors="coerce").replace([np.inf, -np.inf], np.nan)


def smoothed(values: pd.Series, share: float) -> pd.Series:
    """Centred running mean over this share of the rows, with the same gaps; as it is for a share of 0."""
    if not share:
        return values
    window = max(3, int(len(values) * share))
    return values.rolling(window, center=True, min_periods=1).mean().where(values.notna())


def in_common(places: Sequence[np.ndarray], lines: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Several lines, each [rows] at its `places` [rows], at the places of the longest where all of them are:
    x [n], values [lines, n]."""
    x = max(places, key=len)
    x = x[(x >= max(np.nanmin(place) for place in places)) & (x <= min(np.nanmax(place) for place in places))]
    return x, np.stack([np.interp(x, place, line) for place, line in zip(places, lines, strict=True)])


def _scale_axes(ax, steps: np.ndarray, values: np.ndarray, smooth: bool, log: bool | None = None) -> None:
    """Ticks and scale of a panel for finite values drawn at these steps. log: None where a long range asks for it; not
    where a value is 0 or less."""
    if not values.size:
        ax.text(0.5, 0.5, "no finite value yet", transform=ax.transAxes, ha="center", va="center", fontsize=8)
        ax.set(xticks=[], yticks=[])
        return
    wide = smooth and values.max() > 50 * values.min()
    if values.min() > 0 and (wide if log is None else log):
        ax.set_yscale("log")
        few = values.max() < 100 * values.min()
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=6))
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}".replace("-", "−")))
    low, high = np.nanmin(steps), np.nanmax(steps)
    if low == high:
        ax.set_xlim(low - 1, high + 1)
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS, integer=True))


def _draw_reference(ax, name: str, reference: tuple[float, str]) -> None:
    try:
        value, label = reference
        value = float(value)
    except (TypeError, ValueError):
        raise InputError(f"references[{name!r}]: expected (value, label), got {reference!r}") from None
    ax.axhline(value, color="black", linestyle="--", linewidth=0.9)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, value), max(high, value + 0.18 * (max(high, value) - min(low, value))))
    ax.annotate(
        label,
        (1, value),
        (0, 2),
        ("axes fraction", "data"),
        "offset points",
        ha="right",
        va="bottom",
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},  # readable over a curve
    )
