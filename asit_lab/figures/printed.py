"""Figures in a paper's column widths: type that is 7 points and more on paper, and pictures of a run for a report."""

import functools
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..errors import InputError
from .axes import MelAxes, array, colour_bar, colour_limits, image, mask_array
from .reconstructed import Reconstructed
from .spectrograms import draw_mask
from .style import ERROR_MAP, new_figure, short_name, styled

WIDTHS = {"single": 3.35, "double": 7.0}
"""inches: of one column, and of both with the gap between them, in two-column papers (IEEE's are 3.5 and 7.16)"""

_PRINT = {
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "figure.titlesize": 8.0,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
}


def printed(function: Callable) -> Callable:
    """As `styled`, with the type sizes of a figure that is printed as large as it is."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        with matplotlib.rc_context(_PRINT):
            return function(*args, **kwargs)

    return styled(wrapper)


def width_of(width: str) -> float:
    """Inches of "single" or "double". Raises InputError for another."""
    if width not in WIDTHS:
        raise InputError(f"width: {width!r} is not one of {', '.join(WIDTHS)}")
    return WIDTHS[width]


@printed
def reconstruction_strip(clips: Sequence[Sequence], axes: MelAxes) -> Figure:
    """Several clips at a paper's full width, one a row: clean, corrupted, reconstructed, absolute error.

    clips: (clean, corrupted, reconstructed, mask[, title]) each, log-mels [frames, mels] and mask bool, True =
    corrupted. All rows share two colour scales. The error is white where nothing was corrupted; its mean is above it.
    Raises InputError for no clips or shapes that differ within one.
    """
    rows = [Reconstructed(*clip).checked() for clip in clips]
    if not rows:
        raise InputError("clips: expected at least one (clean, corrupted, reconstructed, mask)")
    figure = new_figure(WIDTHS["double"], 0.85 + 1.05 * len(rows))
    grid = figure.subplots(len(rows), 4, squeeze=False, sharex="row", sharey="row")
    limits = colour_limits(*(row.clean for row in rows))
    errors = np.concatenate([row.error()[row.mask] for row in rows])
    most = max(float(np.percentile(errors, 99)), 1e-6) if errors.size else 1.0
    log_mels, differences = [], []
    for panels, row in zip(grid, rows, strict=True):
        for ax, values in zip(panels, (row.clean, row.visible(), row.filled()), strict=False):
            log_mels.append(image(ax, values, axes, limits))
        differences.append(image(panels[3], row.error(), axes, (0.0, most), ERROR_MAP, bad="white"))
        panels[3].set_title(f"error, mean {np.nanmean(row.error()):.3f}" if row.mask.any() else "nothing corrupted")
        title = [short_name(part, 15) for part in row.title.rsplit(", ", 1) if part]  # label, clip: the panel is low
        panels[0].set_ylabel("\n".join([*title, "frequency (Hz)"]))
        for ax in panels:
            ax.set_xlabel("time (s)" if row is rows[-1] else "")
        for ax in panels[1:]:
            ax.set_ylabel("")
    for ax, name in zip(grid[0], ("clean", "corrupted", "reconstructed"), strict=False):
        ax.set_title(name)
    below = {"location": "bottom", "pad": 0.03}
    colour_bar(figure, log_mels, axes.unit, ax=list(grid[:, :3].flat), aspect=60, **below)
    colour_bar(figure, differences, "absolute error;\nwhite: not corrupted", ax=list(grid[:, 3]), aspect=20, **below)
    return figure


@printed
def mask_strip(log_mel, masks, titles: Sequence[str], axes: MelAxes) -> Figure:
    """Several masks over one log-mel, side by side at a paper's full width.

    log_mel: [frames, mels]; masks: bool [masks, frames, mels], True = hidden from the student; titles: of each.
    Raises InputError where the shapes or numbers do not fit each other.
    """
    log_mel = array(log_mel, "log_mel", "frames, mels")
    masks = [mask_array(mask, "masks", log_mel.shape) for mask in masks]
    if not masks or len(masks) != len(titles):
        raise InputError(f"masks: expected a title for each, and at least one; got {len(masks)} and {len(titles)}")
    figure = new_figure(WIDTHS["double"], 1.85)
    panels = figure.subplots(1, len(masks), squeeze=False, sharex=True, sharey=True)[0]
    limits = colour_limits(log_mel)
    for ax, mask, title in zip(panels, masks, titles, strict=True):
        drawn = image(ax, log_mel, axes, limits)
        draw_mask(ax, mask, axes)
        ax.set_title(title)
        if ax is not panels[0]:
            ax.set_ylabel("")
    colour_bar(figure, drawn, axes.unit.replace(", ", ",\n"), ax=list(panels), aspect=12)
    handle = Patch(facecolor="#808080", edgecolor="white", hatch="/////", linewidth=0.8)
    figure.legend([handle], ["outlined, hatched: hidden from the student"], loc="outside lower center")
    return figure
