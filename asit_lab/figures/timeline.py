"""Events found in a recording, under its log-mel."""

import pandas as pd
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from ..errors import InputError
from .axes import MelAxes, array, colour_bar, colour_limits, image
from .style import CLASS_COLOURS, COLOURS, new_figure, short_name, styled

LANES = 20  # classes that have a line of their own


def event_lanes(events: pd.DataFrame) -> list[str]:
    """Classes that have a lane, in its order: the 20 that are present longest, by their first event."""
    present = (events["end"] - events["start"]).groupby(events["class"]).sum().sort_values(ascending=False)
    drawn = events[events["class"].isin(present.index[:LANES])].sort_values("start")
    return list(dict.fromkeys(drawn["class"]))


@styled
def timeline_figure(log_mel, axes: MelAxes, events: pd.DataFrame, title: str | None = None) -> Figure:
    """A recording's log-mel and below it one lane a class with its events, the fainter the less probable.

    log_mel: [frames, mels], natural log; a frame may stand for many (`axes` has their length). events: columns start,
    end (s), class, probability. The 20 classes that are present longest have a lane, in the order of their first event.
    Raises InputError for wrong shapes or columns.
    """
    log_mel = array(log_mel, "log_mel", "frames, mels")
    missing = {"start", "end", "class", "probability"} - set(events.columns)
    if missing:
        raise InputError(f"events: expected columns start, end, class, probability; lacks {', '.join(sorted(missing))}")
    lanes = event_lanes(events)
    height = 0.5 + 0.22 * max(1, len(lanes))
    figure = new_figure(9.0, 2.4 + height)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, height))
    colour_bar(figure, image(upper, log_mel, axes, colour_limits(log_mel)), axes.unit, ax=upper)
    upper.set_xlabel("")
    upper.set_title(title or "")
    for lane, name in enumerate(lanes):
        rows = events[events["class"] == name]
        colour = CLASS_COLOURS[lane % len(CLASS_COLOURS)]
        shades = [to_rgba(colour, 0.25 + 0.75 * float(p)) for p in rows["probability"].clip(0, 1)]
        spans = list(zip(rows["start"], rows["end"] - rows["start"], strict=True))
        lower.broken_barh(spans, (lane - 0.4, 0.8), facecolors=shades, edgecolor=colour, linewidth=0.5)
    lower.set_yticks(range(len(lanes)), [short_name(name) for name in lanes])
    lower.set(ylim=(max(len(lanes), 1) - 0.5, -0.5), xlabel="time (s)")
    lower.set_xlim(axes.start, max([axes.time(log_mel.shape[0]), *events["end"]]))
    lower.grid(axis="x", linewidth=0.4, color="0.85")
    lower.set_axisbelow(True)
    if not lanes:
        lower.text(0.5, 0.5, "no events", ha="center", va="center", transform=lower.transAxes)
    elif events["class"].nunique() > LANES:
        lower.set_xlabel(f"time (s); {events['class'].nunique() - LANES} more classes have events")
    return figure


@styled
def class_bars(table: pd.DataFrame, title: str | None = None) -> Figure:
    """A small figure with a bar for each class under its name; what is predicted is darker.

    table: columns class, probability (0 to 1), predicted, the likeliest first, as `Classifier.table` gives. Raises
    InputError for missing columns or no rows.
    """
    missing = {"class", "probability", "predicted"} - set(table.columns)
    if missing or table.empty:
        raise InputError(f"table: expected rows with class, probability, predicted; lacks {sorted(missing)}")
    figure = new_figure(2.6, 0.55 + 0.28 * len(table))
    ax = figure.add_subplot()
    for place, (name, probability, predicted) in enumerate(
        table[["class", "probability", "predicted"]].itertuples(index=False, name=None)
    ):
        colour = to_rgba(COLOURS[5], 0.9 if predicted else 0.35)
        ax.barh(place + 0.3, 100 * probability, height=0.24, color=colour)
        ax.text(
            1, place - 0.15, short_name(name, 24), va="center", weight="bold" if predicted else "normal", fontsize=8
        )
        ax.text(1.0, place - 0.15, f"{100 * probability:.0f}", transform=ax.get_yaxis_transform(), **_AT_THE_RIGHT)
    ax.set(xlim=(0, 112), ylim=(len(table) - 0.5, -0.5), yticks=[], xticks=(0, 50, 100), xlabel="probability (%)")
    ax.set_title(short_name(title or "", 40))
    return figure


_AT_THE_RIGHT = {"ha": "right", "va": "center", "fontsize": 8}
