"""Seconds and Hz: the axes of everything drawn over a log-mel, and the shared way of drawing one.

Arrays are time-major, [frames, mels]. On paper time runs to the right, in seconds, and the mel bands run upwards, one
unit a band, with tick labels in Hz at the place of that frequency on the mel scale.
"""

from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator

from ..errors import InputError
from ..mel import band_of
from .style import LOG_MEL_MAP, NOTHING

# Frequencies worth a label, the most wanted first: where there is little room, the later ones are left out.
_LABELLED_HZ = (1000, 4000, 8000, 2000, 500, 16000, 100, 200, 32000)


@dataclass(frozen=True)
class MelAxes:
    """What turns frames into seconds and mel bands into Hz.

    hop_seconds: shift between frames, s. sample_rate: of the audio, Hz. low_hz, high_hz: edges of the mel bank, Hz;
    high_hz = 0 is half the sample rate. normalised: the log-mel is (x - mean) / (2 std), not plain natural log.
    std: of the normalisation, natural log; where it is known, errors are told in dB.
    start: time in the recording at which the first frame begins, s. Frame i is drawn from i to i + 1 hops after it; its
    window reaches a little further.
    Raises InputError for a hop or band edges that make no axis.
    """

    hop_seconds: float
    sample_rate: float
    low_hz: float = 20.0
    high_hz: float = 0.0
    normalised: bool = False
    start: float = 0.0
    std: float | None = None

    def __post_init__(self):
        if not self.hop_seconds > 0 or not self.sample_rate > 0:
            raise InputError(
                f"MelAxes: hop_seconds and sample_rate must be above 0, got {self.hop_seconds} s, {self.sample_rate} Hz"
            )
        if not 0 <= self.low_hz < self.top_hz:
            raise InputError(f"MelAxes: low_hz {self.low_hz} must be at least 0 and below high_hz {self.top_hz}")

    @classmethod
    def of(cls, features, normalised: bool = False, start: float = 0.0) -> "MelAxes":
        """From anything with hop_ms, sample_rate, low_hz and high_hz, and perhaps std, such as a configuration's
        `features`."""
        std = getattr(features, "std", None)
        known = std if normalised and not isinstance(std, str) else None
        edges = features.low_hz, features.high_hz
        return cls(features.hop_ms / 1000, features.sample_rate, *edges, normalised, start, known)

    @property
    def top_hz(self) -> float:
        """Upper edge of the highest band, Hz."""
        return self.high_hz if self.high_hz > 0 else self.sample_rate / 2

    @property
    def unit(self) -> str:
        """Label of a colour bar or axis that shows log-mel values."""
        return "log-mel, normalised" if self.normalised else "log-mel (natural log)"

    def error_in_words(self, error: float) -> str:
        """A mean absolute error of log-mels: in dB of power where the normalisation is known, which compares models of
        any normalisation."""
        return f"{error:.3f}" if self.std is None else f"{error * 2 * self.std * 10 / np.log(10):.1f} dB"

    def seconds(self, frames: int) -> float:
        """Length of `frames` frames, s."""
        return frames * self.hop_seconds

    def time(self, frame):
        """When a frame begins, s."""
        return self.start + frame * self.hop_seconds

    def extent(self, shape: tuple[int, int]) -> tuple[float, float, float, float]:
        """left, right, bottom, top of a log-mel of `shape` [frames, mels] on a panel."""
        return self.start, self.time(shape[0]), 0, shape[1]

    def position(self, hz, n_mels: int):
        """Place of a frequency on an axis with one unit a band: 0.5 is the centre of band 0, n_mels - 0.5 of the last.

        Kaldi's bands are triangles whose centres and outer edges are evenly spaced in mel, so the bank reaches half a
        band beyond the drawn axis on both sides.
        """
        return band_of(hz, self.low_hz, self.top_hz, n_mels) + 0.5

    def ticks(self, n_mels: int) -> list[tuple[float, str]]:
        """(place, label) of the labelled frequencies this bank covers, the most wanted first."""
        inside = [hz for hz in _LABELLED_HZ if self.low_hz <= hz <= self.top_hz]
        places = np.clip(self.position(inside, n_mels), 0, n_mels)  # the bank's own edges belong to the outer bands
        return [(float(place), hertz(hz)) for place, hz in zip(places, inside, strict=True)]


def hertz(value: float) -> str:
    """A frequency as a short tick label: 500, 1k, 16k, 22.05k."""
    return f"{value:g}" if value < 1000 else f"{value / 1000:g}k"


class _RoomyLocator(Locator):
    """The wanted ticks that fit the panel as it is drawn: a later one is left out where it would touch an earlier."""

    def __init__(self, places: list[float], room: float):
        self.places, self.room = places, room  # room: points between neighbours

    def __call__(self):
        ax = self.axis.axes
        upright = self.axis.axis_name == "y"
        low, high = self.axis.get_view_interval()
        points = (ax.bbox.height if upright else ax.bbox.width) / ax.get_figure(root=True).dpi * 72
        ticks: list[float] = []
        for place in self.places:
            if all(abs(place - other) / (high - low) * points >= self.room for other in ticks):
                ticks.append(place)
        return np.sort(ticks)


def frequency_axis(axis, axes: MelAxes, n_mels: int) -> None:
    """Make `axis` (an x or y axis with one unit a mel band) show Hz."""
    ticks = axes.ticks(n_mels)
    labels = dict(ticks)
    axis.set_major_locator(_RoomyLocator([place for place, _ in ticks], 11 if axis.axis_name == "y" else 24))
    axis.set_major_formatter(FuncFormatter(lambda place, _: labels.get(place, "")))
    axis.set_minor_locator(FixedLocator([]))
    axis.set_label_text("frequency (Hz)")


def array(values, name: str, dimensions: str) -> np.ndarray:
    """`values` as floats, checked to have the `dimensions` (such as "frames, mels") and not to be empty.

    Takes anything np.asarray takes, a detached CPU tensor too. Raises InputError naming the shape.
    """
    try:
        values = np.asarray(values, dtype=float)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: not an array of numbers: {error}") from None
    if values.ndim != len(dimensions.split(",")) or not values.size:
        raise InputError(f"{name}: expected [{dimensions}], not empty, got shape {list(values.shape)}")
    return values


def mask_array(values, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """`values` as booleans of `shape`; 0 and 1 are taken for them. Raises InputError naming both shapes."""
    values = np.asarray(values)
    if values.shape != tuple(shape):
        raise InputError(f"{name}: expected shape {list(shape)}, got {list(values.shape)}")
    if not np.isin(values, (0, 1)).all():
        raise InputError(f"{name}: expected True and False (or 1 and 0) alone")
    return values.astype(bool)


def check_patches(patch: tuple[int, int], shape: tuple[int, int], tokens: tuple[int, int], name: str) -> None:
    """Raise InputError unless `tokens` [time, freq] patches lie within a log-mel of `shape` [frames, mels]."""
    covered = (tokens[0] * patch[0], tokens[1] * patch[1])
    if min(*patch, *tokens) < 1 or covered[0] > shape[0] or covered[1] > shape[1]:
        raise InputError(
            f"{name}: {tokens[0]} x {tokens[1]} patches of {patch[0]} frames x {patch[1]} mels do not fit a log-mel "
            f"of {shape[0]} frames x {shape[1]} mels"
        )


def colour_limits(*arrays: np.ndarray) -> tuple[float, float]:
    """Colour scale that fits all `arrays`: the 0.5th to the 99.9th percentile of their finite values.

    Digital silence does not count: it sits on the log-mel's floor, far below everything that sounds, and would leave
    the sound a few shades. It shows as a plateau at the very smallest value.
    """
    values = np.concatenate([np.ravel(values)[np.isfinite(np.ravel(values))] for values in arrays])
    if not values.size:
        return 0.0, 1.0
    sounding = values[values > values.min() + 1e-3]
    if sounding.size and sounding.size < 0.99 * values.size:
        values = sounding
    low, high = np.percentile(values, (0.5, 99.9))
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def spread_tokens(values: np.ndarray, patch: tuple[int, int], shape: tuple[int, int], rest) -> np.ndarray:
    """One value a patch [time, freq] -> the same value on all its pixels [frames, mels]; `rest` where no patch lies."""
    spread = values.repeat(patch[0], axis=0).repeat(patch[1], axis=1)  # [time, freq] -> [frames, mels]
    pixels = np.full(shape, rest, dtype=values.dtype)
    pixels[: spread.shape[0], : spread.shape[1]] = spread
    return pixels


def image(
    ax,
    values: np.ndarray,
    axes: MelAxes,
    limits: tuple[float, float],
    colours: str = LOG_MEL_MAP,
    power=1.0,
    bad: str = NOTHING,
):
    """Draw `values` [frames, mels] on `ax` with seconds and Hz, one flat rectangle a value.

    power: of the colour scale (0.5: square root). bad: colour of NaN, grey unless told otherwise. Returns the image,
    for a colour bar.
    """
    frames, n_mels = values.shape
    drawn = ax.imshow(
        np.ma.masked_invalid(values.T),  # [frames, mels] -> [mels, frames]
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=axes.extent((frames, n_mels)),
        cmap=matplotlib.colormaps[colours].with_extremes(bad=bad),
        norm=PowerNorm(power, *limits) if power != 1 else Normalize(*limits),
    )
    frequency_axis(ax.yaxis, axes, n_mels)
    ax.set_xlabel("time (s)")
    for spine in ax.spines.values():
        spine.set_visible(True)
    return drawn


def outline(ax, mask: np.ndarray, axes: MelAxes) -> None:
    """Draw the edge of a mask [frames, mels] over an image."""
    if mask.any() and not mask.all():
        left, right, low, high = axes.extent(mask.shape)
        (frames, mels) = mask.shape
        times, bands = ((np.arange(count) + 0.5) / count for count in (frames, mels))
        places = left + times * (right - left), low + bands * (high - low)
        ax.contour(*places, mask.T, levels=[0.5], colors="white", linewidths=0.6)


def colour_bar(figure, drawn, label: str, **kwargs):
    """A colour bar for `drawn`, one image or several with one scale, pointed where values lie beyond its ends.

    kwargs: ax (one or several panels to stand beside), or cax, and whatever else figure.colorbar takes.
    """
    images = drawn if isinstance(drawn, list) else [drawn]
    values = np.concatenate([np.ma.masked_invalid(image.get_array()).compressed() for image in images])
    norm = images[0].norm
    below, above = bool((values < norm.vmin).any()), bool((values > norm.vmax).any())
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    bar = figure.colorbar(images[0], extend=extend[below, above], label=label, **kwargs)
    bar.outline.set_linewidth(0.5)
    return bar
