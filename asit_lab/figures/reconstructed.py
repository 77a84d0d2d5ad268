"""Clean, corrupted, reconstructed and error panels; how the reconstruction compares with simple fillers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from ..errors import InputError
from .axes import MelAxes, array, colour_bar, colour_limits, image, mask_array, outline
from .style import ERROR_MAP, bars, new_figure, short_name, styled

_PANELS = ("clean", "corrupted (grey: hidden)", "reconstructed", "absolute error")
_LINE = "straight line in time"


class Reconstructed(NamedTuple):
    """One clip: log-mels [frames, mels], mask bool [frames, mels] (True = corrupted), and what to call it."""

    clean: Any
    corrupted: Any
    reconstructed: Any
    mask: Any
    title: str | None = None

    def checked(self) -> "Reconstructed":
        """With arrays of one shape; InputError names the odd one out."""
        clean = array(self.clean, "clean", "frames, mels")
        images = [array(getattr(self, name), name, "frames, mels") for name in ("corrupted", "reconstructed")]
        for name, other in zip(("corrupted", "reconstructed"), images, strict=True):
            if other.shape != clean.shape:
                raise InputError(f"{name}: expected shape {list(clean.shape)} as clean, got {list(other.shape)}")
        return Reconstructed(clean, *images, mask_array(self.mask, "mask", clean.shape), self.title)

    def error(self) -> np.ndarray:
        """Absolute error [frames, mels] on corrupted pixels, NaN elsewhere."""
        return np.where(self.mask, np.abs(self.clean - self.reconstructed), np.nan)

    def visible(self) -> np.ndarray:
        """What the model sees, [frames, mels]: `corrupted`, NaN where pixels were replaced by zeros."""
        return np.where(self.mask & (self.corrupted == 0), np.nan, self.corrupted)

    def filled(self) -> np.ndarray:
        """The clean log-mel [frames, mels] with the reconstruction where it was corrupted: only there it is trained."""
        return np.where(self.mask, self.reconstructed, self.clean)

    def line(self) -> np.ndarray:
        """As `filled`, by a straight line in time in place of the model; NaN in bands that are corrupted throughout."""
        lines = self.clean.copy()
        frames = np.arange(len(lines))
        for band, hidden in zip(lines.T, self.mask.T, strict=True):  # views: filled in place
            visible = ~hidden & np.isfinite(band)
            points = frames[visible], band[visible]
            band[hidden] = np.interp(frames[hidden], *points) if visible.any() else np.nan
        return lines

    def summary(self, axes: MelAxes) -> str:
        """The mean of `error`, in words."""
        l1 = _mean(self.error())
        return "no corrupted pixels" if np.isnan(l1) else f"L1 {axes.error_in_words(l1)} on corrupted pixels"


def _mean(error: np.ndarray) -> float:
    """The mean of what is finite, NaN without any."""
    counted = error[np.isfinite(error)]
    return float(counted.mean()) if counted.size else float("nan")


@styled
def reconstruction(clean, corrupted, reconstructed, mask, axes: MelAxes, title: str | None = None) -> Figure:
    """One clip, four panels above each other: clean, corrupted, reconstructed, absolute error.

    Log-mels [frames, mels] and mask bool [frames, mels], True = corrupted. The first three share one colour scale, made
    for the clean one; hidden pixels are grey in the second, and the third is the clean one with the reconstruction
    where it was corrupted, outlined. The error has its own scale and is white where nothing was corrupted. The L1 over
    corrupted pixels is in the title. Raises InputError where the shapes differ.
    """
    clip = Reconstructed(clean, corrupted, reconstructed, mask, title).checked()
    figure = new_figure(7.5, 7.0)
    panels = figure.subplots(4, 1, sharex=True, sharey=True)
    limits, most = colour_limits(clip.clean), _most([clip])
    drawn, error = _draw_clip(panels, clip, axes, limits, most)
    for ax, name in zip(panels, _PANELS, strict=True):
        ax.set_title(name if name != "absolute error" else "absolute error (white: not corrupted)")
        ax.label_outer()
    # One bar for three panels takes the room of three, so that all four stay equally wide.
    colour_bar(figure, drawn, axes.unit, ax=list(panels[:3]), aspect=40)
    colour_bar(figure, error, f"|error|, {_short_unit(axes)}", ax=panels[3], aspect=12)
    figure.suptitle(f"{title}: {clip.summary(axes)}" if title else clip.summary(axes))
    return figure


@styled
def reconstructions(clips: Sequence[Sequence], axes: MelAxes, title: str | None = None) -> Figure:
    """Several clips, one a row; columns: clean, corrupted, a straight line in time, reconstructed, its absolute error.

    clips: (clean, corrupted, reconstructed, mask[, title]) each, as for `reconstruction` or as `Reconstructed`. Above
    the line and the reconstruction, in which corrupted pixels are outlined, stands the L1 of each over these, in dB
    where `axes` has the normalisation, and what share of the line's the reconstruction's is. All rows share the two
    colour scales.
    Raises InputError for no clips or shapes that differ within one.
    """
    rows = [Reconstructed(*clip).checked() for clip in clips]
    if not rows:
        raise InputError("clips: expected at least one (clean, corrupted, reconstructed, mask)")
    figure = new_figure(15.0, 0.9 + 1.7 * len(rows))
    grid = figure.subplots(len(rows), 5, squeeze=False, sharex="row", sharey="row")
    limits = colour_limits(*(row.clean for row in rows))
    most = _most(rows)
    same_length = len({row.clean.shape[0] for row in rows}) == 1
    log_mels, errors = [], []  # images with one colour scale
    for number, (panels, row) in enumerate(zip(grid, rows, strict=True)):
        drawn, error = _draw_clip(np.delete(panels, 2), row, axes, limits, most)
        log_mels += [*drawn, image(panels[2], row.line(), axes, limits)]
        outline(panels[2], row.mask, axes)
        errors.append(error)
        for ax in panels[1:]:
            ax.set_ylabel("")
        if row.title:
            panels[0].set_ylabel(f"{short_name(row.title, 28)}\nfrequency (Hz)")
        for ax, title_of_panel in zip(panels, _titles(row, axes, first=number == 0), strict=True):
            ax.set_title(title_of_panel)
            if same_length and number < len(rows) - 1:
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
    below = {"location": "bottom", "pad": 0.02}
    unit = axes.unit if axes.std else axes.unit.replace("log-mel", "log-mel and L1")
    colour_bar(figure, log_mels, unit, ax=list(grid[:, :4].flat), aspect=80, **below)
    label = f"|error|, {_short_unit(axes)}; white: not corrupted"
    colour_bar(figure, errors, label, ax=list(grid[:, 4]), aspect=20, **below)
    if title:
        figure.suptitle(title)
    return figure


@styled
def reconstruction_baselines(errors: Mapping[str, float], unit: str = "normalised log-mel") -> Figure:
    """Bars of the L1 on corrupted pixels by who filled them in: name -> L1, in the order given; shorter is better.

    Raises InputError for no entries or a value that is not a finite number of at least 0.
    """
    if not errors:
        raise InputError("errors: expected at least one name -> L1")
    for name, value in errors.items():
        if not (np.isscalar(value) or np.ndim(value) == 0) or not np.isfinite(float(value)) or float(value) < 0:
            raise InputError(f"errors[{name!r}]: expected a finite L1 of at least 0, got {value}")
    figure = new_figure(6.5, 0.8 + 0.32 * len(errors))
    values = [float(value) for value in errors.values()]
    bars(figure.add_subplot(), list(errors), values, f"L1 on corrupted pixels ({unit}); less is better")
    return figure


def _draw_clip(panels, row: Reconstructed, axes: MelAxes, limits: tuple[float, float], most: float):
    """Fill four panels; returns the three log-mel images and the error's."""
    three = (row.clean, row.visible(), row.filled())
    drawn = [image(ax, values, axes, limits) for ax, values in zip(panels, three, strict=False)]
    outline(panels[2], row.mask, axes)
    return drawn, image(panels[3], row.error(), axes, (0.0, most), ERROR_MAP, bad="white")


def _titles(row: Reconstructed, axes: MelAxes, first: bool) -> list[str]:
    """Of the five panels of a row: what they show on top of the first row, and both L1 in every row."""
    line, error = _mean(np.where(row.mask, np.abs(row.clean - row.line()), np.nan)), _mean(row.error())
    share = f", {error / line:.2f} of the line's" if line > 0 else ""
    numbers = [f"L1 {axes.error_in_words(line)}", f"L1 {axes.error_in_words(error)}{share}"]
    if first:
        numbers = [f"{name}, {number}" for name, number in zip((_LINE, _PANELS[2]), numbers, strict=True)]
    if not row.mask.any():
        numbers = ["", "nothing corrupted"]
    return [_PANELS[0] * first, _PANELS[1] * first, *numbers, "the reconstruction's absolute error" * first]


def _most(rows: list[Reconstructed]) -> float:
    """Upper end of the error's colour scale: the 99th percentile over corrupted pixels."""
    values = np.concatenate([row.error()[np.isfinite(row.error())] for row in rows])
    return max(float(np.percentile(values, 99)), 1e-6) if values.size else 1.0


def _short_unit(axes: MelAxes) -> str:
    return "normalised" if axes.normalised else "natural log"
