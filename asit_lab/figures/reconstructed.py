"""Clean, corrupted, reconstructed and error panels; how the reconstruction compares with simple fillers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from ..errors import InputError
from .axes import MelAxes, array, colour_bar, colour_limits, image, mask_array
from .style import ERROR_MAP, bars, new_figure, short_name, styled

_PANELS = ("clean", "corrupted", "reconstructed", "absolute error")


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

    def summary(self) -> str:
        """The mean of `error`, in words."""
        error = self.error()
        counted = error[np.isfinite(error)]
        return f"L1 {counted.mean():.3f} on corrupted pixels" if counted.size else "no corrupted pixels"


@styled
def reconstruction(clean, corrupted, reconstructed, mask, axes: MelAxes, title: str | None = None) -> Figure:
    """One clip, four panels above each other: clean, corrupted, reconstructed, absolute error.

    Log-mels [frames, mels] and mask bool [frames, mels], True = corrupted. The first three share one colour scale, made
    for the clean one; the error has its own and is grey where nothing was corrupted. The L1 over corrupted
    pixels is in the title. Raises InputError where the shapes differ.
    """
    clip = Reconstructed(clean, corrupted, reconstructed, mask, title).checked()
    figure = new_figure(7.5, 7.0)
    panels = figure.subplots(4, 1, sharex=True, sharey=True)
    limits, most = colour_limits(clip.clean), _most([clip])
    drawn, error = _draw_clip(panels, clip, axes, limits, most)
    for ax, name in zip(panels, _PANELS, strict=True):
        ax.set_title(name if name != "absolute error" else "absolute error (grey: not corrupted)")
        ax.label_outer()
    # One bar for three panels takes the room of three, so that all four stay equally wide.
    colour_bar(figure, drawn, axes.unit, ax=list(panels[:3]), aspect=40)
    colour_bar(figure, error, f"|error|, {_short_unit(axes)}", ax=panels[3], aspect=12)
    figure.suptitle(f"{title}: {clip.summary()}" if title else clip.summary())
    return figure


@styled
def reconstructions(clips: Sequence[Sequence], axes: MelAxes, title: str | None = None) -> Figure:
    """Several clips, one a row; clean, corrupted, reconstructed and absolute error in columns.

    clips: (clean, corrupted, reconstructed, mask[, title]) each, as for `reconstruction` or as `Reconstructed`. All
    rows share the two colour scales. Raises InputError for no clips or shapes that differ within one.
    """
    rows = [Reconstructed(*clip).checked() for clip in clips]
    if not rows:
        raise InputError("clips: expected at least one (clean, corrupted, reconstructed, mask)")
    figure = new_figure(13.0, 0.9 + 1.7 * len(rows))
    grid = figure.subplots(len(rows), 4, squeeze=False, sharex="row", sharey="row")
    limits = colour_limits(*(row.clean for row in rows))
    most = _most(rows)
    same_length = len({row.clean.shape[0] for row in rows}) == 1
    three, errors = [], []  # images with one colour scale
    for number, (panels, row) in enumerate(zip(grid, rows, strict=True)):
        drawn, error = _draw_clip(panels, row, axes, limits, most)
        three += drawn
        errors.append(error)
        for ax in panels[1:]:
            ax.set_ylabel("")
        if row.title:
            panels[0].set_ylabel(f"{short_name(row.title, 28)}\nfrequency (Hz)")
        for ax, name in zip(panels, _PANELS, strict=True):
            ax.set_title(name if number == 0 else "")
            if same_length and number < len(rows) - 1:
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
        panels[3].set_title("absolute error: " * (number == 0) + row.summary())
    below = {"location": "bottom", "pad": 0.02}
    colour_bar(figure, three, axes.unit, ax=list(grid[:, :3].flat), aspect=60, **below)
    label = f"|error|, {_short_unit(axes)}; grey: not corrupted"
    colour_bar(figure, errors, label, ax=list(grid[:, 3]), aspect=20, **below)
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
    three = (row.clean, row.corrupted, row.reconstructed)
    drawn = [image(ax, values, axes, limits) for ax, values in zip(panels, three, strict=False)]
    return drawn, image(panels[3], row.error(), axes, (0.0, most), ERROR_MAP)


def _most(rows: list[Reconstructed]) -> float:
    """Upper end of the error's colour scale: the 99th percentile over corrupted pixels."""
    values = np.concatenate([row.error()[np.isfinite(row.error())] for row in rows])
    return max(float(np.percentile(values, 99)), 1e-6) if values.size else 1.0


def _short_unit(axes: MelAxes) -> str:
    return "normalised" if axes.normalised else "natural log"
