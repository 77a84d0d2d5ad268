"""What a data set is made of: lengths, rates, classes, silence, and the level of each mel band."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..errors import InputError
from .axes import MelAxes, array, frequency_axis, hertz
from .style import COLOURS, bars, figure_of, new_figure, styled

_MOST_CLASSES = 20
_SILENT = 0.25  # a clip with more digital silence than this is worth a look


@styled
def dataset(table: pd.DataFrame, labels: pd.Series | None = None) -> Figure:
    """Lengths, sample rates with channels, clips per class (the 20 largest) and, if measured, digital silence.

    table: one row a clip, with the columns label, seconds, sample_rate (Hz), channels and, optionally, silence (share
    of samples that are digital silence, 0 to 1). labels: one entry a clip and label, where clips may have several (see
    `Manifest.by_label`); default: the table's. Raises InputError for a missing column or no rows.
    """
    missing = [name for name in ("label", "seconds", "sample_rate", "channels") if name not in table]
    if missing or not len(table):
        raise InputError(f"table: {'missing column ' + ', '.join(missing) if missing else 'expected at least one row'}")
    labels = (table["label"] if labels is None else labels).dropna().astype(str)
    counts = labels[labels != ""].value_counts()
    largest = counts.head(_MOST_CLASSES)
    figure = new_figure(10.0, max(5.6 if "silence" in table else 4.4, 0.8 + 0.24 * len(largest)))
    left, right = figure.add_gridspec(1, 2, width_ratios=(1.15, 1))
    column = left.subgridspec(3 if "silence" in table else 2, 1)
    _draw_lengths(figure.add_subplot(column[0]), table["seconds"].to_numpy(dtype=float))
    _draw_rates(figure.add_subplot(column[1]), table)
    if "silence" in table:
        _draw_silence(figure.add_subplot(column[2]), table["silence"].to_numpy(dtype=float))

    ax = figure.add_subplot(right)
    if len(largest):
        bars(ax, list(largest.index), largest.to_list(), "clips", places=8)
    else:
        ax.text(0.5, 0.5, "no labels", transform=ax.transAxes, ha="center", va="center")
        ax.set(xticks=[], yticks=[])
    subset = f"the {len(largest)} largest of " if len(counts) > len(largest) else ""
    ax.set_title(f"clips a class, {subset}{len(counts)} classes" if len(counts) else "classes")
    return figure


@styled
def silence(shares, title: str | None = None, ax=None) -> Figure:
    """Histogram of the share of digital silence, clip by clip. shares: [clips], 0 to 1.

    Raises InputError for another shape or values outside 0 to 1.
    """
    shares = array(shares, "shares", "clips")
    figure, ax = figure_of(ax, 5.5, 2.4)
    _draw_silence(ax, shares)
    if title:
        ax.set_title(title)
    return figure


@styled
def stats(mean, std, axes: MelAxes, title: str | None = None, ax=None) -> Figure:
    """Mean of each mel band and the range of one standard deviation around it, over Hz on the mel scale.

    mean, std: [mels], in the unit of the log-mel. Raises InputError for shapes that differ or a negative std.
    """
    mean, std = array(mean, "mean", "mels"), array(std, "std", "mels")
    if mean.shape != std.shape or (std < 0).any():
        raise InputError(
            f"std: expected {len(mean)} values of at least 0 as mean has, got {len(std)}, smallest {std.min():.3g}"
        )
    figure, ax = figure_of(ax, 6.0, 2.8)
    centres = np.arange(len(mean)) + 0.5
    ax.fill_between(centres, mean - std, mean + std, color=COLOURS[5], alpha=0.35, linewidth=0, label="± 1 std")
    ax.plot(centres, mean, color=COLOURS[0], label="mean")
    ax.set_xlim(0, len(mean))
    frequency_axis(ax.xaxis, axes, len(mean))
    ax.set_ylabel(axes.unit)
    ax.set_title(title or "")
    ax.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1)
    return figure


def _draw_lengths(ax, seconds: np.ndarray) -> None:
    seconds = seconds[np.isfinite(seconds)]
    if seconds.size and seconds.max() - seconds.min() < 1e-3:
        ax.set_title(f"length: all {seconds[0]:.3g} s")
        middle = seconds[0]
        ax.hist(seconds, bins=[middle * 0.95, middle * 1.05], color=COLOURS[0])
        ax.set_xlim(0, 2 * middle)
    else:
        ax.hist(seconds, bins=40, color=COLOURS[0])
        median, low, high = (np.median(seconds), seconds.min(), seconds.max()) if seconds.size else (np.nan,) * 3
        if not low > high / 2:  # from 0, unless that leaves half of the axis empty and the bars a thin line at its end
            ax.set_xlim(left=0)
        ax.set_title(f"length: median {median:.4g} s, from {low:.4g} to {high:.4g} s")
    ax.set(xlabel="length (s)", ylabel="clips")
    ax.yaxis.get_major_locator().set_params(integer=True)


def _draw_rates(ax, table: pd.DataFrame) -> None:
    counts = table.groupby(["sample_rate", "channels"]).size().sort_index()
    words = {1: "mono", 2: "stereo"}
    names = [f"{hertz(rate)}Hz, {words.get(count, f'{count} channels')}" for rate, count in counts.index]
    names = [name.replace("kHz", " kHz") if "kHz" in name else name.replace("Hz", " Hz") for name in names]
    bars(ax, names, counts.to_list(), "clips", places=3)
    ax.set_title("sample rate, channels")


def _draw_silence(ax, shares: np.ndarray) -> None:
    shares = shares[np.isfinite(shares)]
    if ((shares < 0) | (shares > 1)).any():
        raise InputError(f"silence: shares must lie from 0 to 1, got {shares.min():.3g} to {shares.max():.3g}")
    ax.hist(100 * shares, bins=np.linspace(0, 100, 41), color=COLOURS[0])
    ax.axvline(100 * _SILENT, color="black", linestyle="--", linewidth=0.9)
    ax.set(xlim=(0, 100), xlabel="digital silence in a clip (%)", ylabel="clips")
    ax.set_title(f"{(shares > _SILENT).sum()} of {len(shares)} clips more than {100 * _SILENT:.0f} % silent")
    ax.yaxis.get_major_locator().set_params(integer=True)
