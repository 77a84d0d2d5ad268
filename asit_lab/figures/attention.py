"""Where the class token looks."""

import numpy as np
from matplotlib.figure import Figure

from .axes import MelAxes, array, check_patches, colour_bar, colour_limits, image, spread_tokens
from .style import ATTENTION_MAP, new_figure, styled

_COLUMNS = 3


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
    maps = {"mean of heads": percent.mean(axis=0)}
    maps |= {f"head {number}": head for number, head in enumerate(percent, start=1)}

    rows = 1 + -(-heads // _COLUMNS)
    figure = new_figure(10.0, 0.7 + 1.55 * rows)
    # First row: log-mel, mean, and the colour bars; heads from the second row on.
    places = [1, 2, *range(_COLUMNS + 1, _COLUMNS + 1 + heads)]
    panels = [figure.add_subplot(rows, _COLUMNS, place) for place in places]
    mel = image(panels[0], log_mel, axes, colour_limits(log_mel))
    panels[0].set_title("log-mel")
    limits = (0.0, max(float(np.nanpercentile(percent, 99.5)), 1e-6))
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
    _draw_bars(figure, rows, mel, drawn, axes, even=100 / (tokens[0] * tokens[1]))
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
