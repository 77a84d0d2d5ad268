"""Waveforms, log-mels, and the masks laid over them."""

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path

from ..errors import InputError
from .axes import MelAxes, array, check_patches, colour_bar, colour_limits, image, mask_array, spread_tokens
from .style import COLOURS, figure_of, new_figure, styled

_LEGEND = "outlined, hatched = corrupted"
_SHADE = (0.0, 0.0, 0.0, 0.3)


@styled
def spectrogram(log_mel, axes: MelAxes, title: str | None = None, ax=None, mask=None) -> Figure:
    """A log-mel over seconds and Hz.

    log_mel: [frames, mels], natural log or normalised (say which in `axes`). mask: bool [frames, mels], True =
    corrupted, drawn outlined and hatched. ax: a panel to draw in, else a new figure. Raises InputError for
    wrong shapes.
    """
    log_mel = array(log_mel, "log_mel", "frames, mels")
    figure, ax = figure_of(ax, 8.0, 2.6)
    drawn = image(ax, log_mel, axes, colour_limits(log_mel))
    colour_bar(figure, drawn, axes.unit, ax=ax)
    ax.set_title(title or "")
    if mask is not None:
        draw_mask(ax, mask_array(mask, "mask", log_mel.shape), axes)
        mask_legend(ax)
    return figure


@styled
def waveform(wave, sample_rate: float, title: str | None = None, ax=None) -> Figure:
    """Amplitude over seconds. wave: [samples], full scale = 1. Raises InputError for another shape."""
    wave = array(wave, "wave", "samples")
    if not sample_rate > 0:
        raise InputError(f"sample_rate: expected Hz above 0, got {sample_rate}")
    figure, ax = figure_of(ax, 8.0, 1.8)
    _draw_wave(ax, wave, sample_rate)
    ax.set_title(title or "")
    return figure


@styled
def clip(wave, sample_rate: float, log_mel, axes: MelAxes, title: str | None = None) -> Figure:
    """A clip at a glance: waveform [samples] above log-mel [frames, mels], on one time axis."""
    wave, log_mel = array(wave, "wave", "samples"), array(log_mel, "log_mel", "frames, mels")
    figure = new_figure(8.0, 3.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.2))
    colour_bar(figure, image(lower, log_mel, axes, colour_limits(log_mel)), axes.unit, ax=lower)
    _draw_wave(upper, wave, sample_rate, axes.start)
    upper.set_xlabel("")
    upper.set_xlim(axes.start, max(axes.start + len(wave) / sample_rate, axes.time(log_mel.shape[0])))
    upper.set_title(title or "")
    return figure


@styled
def masks(log_mel, mask_pixels, mask_tokens, axes: MelAxes, patch: tuple[int, int] = (16, 16)) -> Figure:
    """Pixel mask and token mask over the same log-mel, with the share of area each covers and the patch grid.

    log_mel: [frames, mels]; mask_pixels: bool [frames, mels]; mask_tokens: bool [time, freq] patches; True =
    corrupted; patch: frames, mels. Raises InputError where the shapes do not fit each other.
    """
    log_mel = array(log_mel, "log_mel", "frames, mels")
    pixels = mask_array(mask_pixels, "mask_pixels", log_mel.shape)
    tokens = np.asarray(mask_tokens)
    if tokens.ndim != 2:
        raise InputError(f"mask_tokens: expected [time, freq], got shape {list(tokens.shape)}")
    tokens = mask_array(tokens, "mask_tokens", tokens.shape)
    check_patches(patch, log_mel.shape, tokens.shape, "mask_tokens")
    token_area = spread_tokens(tokens, patch, log_mel.shape, False)

    figure = new_figure(8.0, 4.6)
    panels = figure.subplots(2, 1, sharex=True, sharey=True)
    limits = colour_limits(log_mel)
    for ax, mask, name, share in (
        (panels[0], pixels, "pixels", pixels.mean()),
        (panels[1], token_area, "tokens", tokens.mean()),
    ):
        drawn = image(ax, log_mel, axes, limits)
        draw_patch_grid(ax, tokens.shape, patch, axes)
        draw_mask(ax, mask, axes)
        ax.set_title(f"{100 * share:.0f} % of {name}")
    panels[0].set_xlabel("")
    mask_legend(panels[0])
    colour_bar(figure, drawn, axes.unit, ax=list(panels))
    return figure


def draw_mask(ax, mask: np.ndarray, axes: MelAxes) -> None:
    """Outline and hatch the True pixels of `mask` [frames, mels] on a log-mel panel."""
    area = _area(mask)
    if area is None:
        return
    area.vertices[:, 0] = axes.time(area.vertices[:, 0])
    # One patch for the whole mask: hatching is anchored to the page, so neighbouring rectangles join without a seam.
    # The shade lets white lines show on bright pixels.
    ax.add_patch(PathPatch(area, facecolor=_SHADE, edgecolor="white", hatch="/////", linewidth=0))
    edges = _outline(mask)
    edges[..., 0] = axes.time(edges[..., 0])
    # White on black is seen on dark and on bright pixels alike.
    for colour, width in (("black", 2.0), ("white", 0.9)):
        ax.add_collection(LineCollection(edges, colors=colour, linewidths=width, capstyle="projecting"), autolim=False)


def mask_legend(ax) -> None:
    """Say above the panel, at its right, what outline and hatching mean."""
    handle = Patch(facecolor="#808080", edgecolor="white", hatch="/////", linewidth=0.8)
    ax.legend([handle], [_LEGEND], loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1, borderpad=0.1)


def draw_patch_grid(ax, tokens: tuple[int, int], patch: tuple[int, int], axes: MelAxes) -> LineCollection:
    """Thin lines between the patches: tokens [time, freq] of `patch` (frames, mels)."""
    right, top = axes.time(tokens[0] * patch[0]), tokens[1] * patch[1]
    xs = axes.time(patch[0] * np.arange(tokens[0] + 1))
    ys = patch[1] * np.arange(tokens[1] + 1)
    lines = [[(x, 0), (x, top)] for x in xs] + [[(axes.start, y), (right, y)] for y in ys]
    return ax.add_collection(LineCollection(lines, colors="white", linewidths=0.4, alpha=0.6), autolim=False)


def _draw_wave(ax, wave: np.ndarray, sample_rate: float, start: float = 0.0, columns: int = 2000) -> None:
    """The wave from `start` (s) on; where there are many samples a column of pixels, the range they span."""
    seconds = len(wave) / sample_rate
    if len(wave) <= 2 * columns:
        ax.plot(start + np.arange(len(wave)) / sample_rate, wave, color=COLOURS[0], linewidth=0.6)
    else:
        starts = np.linspace(0, len(wave), columns, endpoint=False).astype(int)
        low, high = np.minimum.reduceat(wave, starts), np.maximum.reduceat(wave, starts)
        ax.fill_between(start + starts / sample_rate, low, high, color=COLOURS[0], linewidth=0.3)
    finite = wave[np.isfinite(wave)]
    peak = max(float(np.abs(finite).max()), 1e-4) if finite.size else 1.0
    ax.set(xlim=(start, start + seconds), ylim=(-1.05 * peak, 1.05 * peak), xlabel="time (s)", ylabel="amplitude")


def _area(mask: np.ndarray) -> Path | None:
    """The True pixels as rectangles, one a run of frames, in frames and bands; None when there are none."""
    padded = np.pad(mask, ((1, 1), (0, 0))).astype(np.int8)
    change = np.diff(padded, axis=0).T  # [mels, frames + 1]: +1 where a run starts, -1 where it has ended
    bands, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]
    if not len(bands):
        return None
    corners = [(starts, bands), (ends, bands), (ends, bands + 1), (starts, bands + 1), (starts, bands)]
    vertices = np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)  # [runs, 5, 2]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(vertices.reshape(-1, 2).astype(float), np.tile(codes, len(bands)))


def _outline(mask: np.ndarray) -> np.ndarray:
    """Edges between True and False pixels, and of True pixels at the border: [edges, 2 ends, (frame, band)]."""
    padded = np.pad(mask, 1)
    frame, band = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])  # upright, left of `frame`
    upright = np.stack([np.stack([frame, band], -1), np.stack([frame, band + 1], -1)], axis=1)
    frame, band = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])  # level, below `band`
    level = np.stack([np.stack([frame, band], -1), np.stack([frame + 1, band], -1)], axis=1)
    return np.concatenate([upright, level]).astype(float)
