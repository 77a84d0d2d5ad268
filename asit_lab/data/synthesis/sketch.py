"""Building blocks of synthetic sounds: random numbers, oscillators, struck partials, noise, envelopes.

All arrays of samples are float32. Random numbers that decide what happens come from `plan` and do not depend on the
sample rate; samples of noise come from `noise`.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

TABLE_SAMPLES = 8192  # samples of one period in a wave table
CONTROL = 64  # samples between two values of a pitch or a loudness; straight lines join them
BLOCK_SAMPLES = 256  # samples; partials are products of a value for each block and one for each place in it
NYQUIST_SHARE = 0.46  # of the sample rate: the highest frequency that is synthesised
FADE = 0.004  # s: a tone starts and ends without a click
STEPS = 24  # an octave, in curves over frequency
LOWEST = 10.0  # Hz, where curves over frequency begin


class Sketch:
    """A clip being synthesised: its random numbers, sample rate (Hz) and length (samples)."""

    def __init__(self, plan: np.random.Generator, noise: np.random.Generator, rate: int, seconds: float):
        self.plan, self.noise, self.rate, self.seconds = plan, noise, rate, seconds
        self.samples = round(seconds * rate)

    # --- Random numbers

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.plan.random()

    def pitch(self, low: float, high: float) -> float:
        """Log-uniform."""
        return low * (high / low) ** self.plan.random()

    def count(self, low: int, high: int) -> int:
        """low, ..., high."""
        return low + int(self.plan.random() * (high - low + 1))

    def chance(self, share: float) -> bool:
        return self.plan.random() < share

    def beats(self, interval: float, jitter: float = 0.0) -> list[float]:
        """Instants (s) of a steady rhythm through the clip; the first is before its beginning, so that an earlier event
        still rings. jitter: standard deviation, as a share of the interval."""
        first = interval * (self.plan.random() - 1)
        places = np.arange(first, self.seconds, interval)
        return list(places + interval * jitter * np.clip(self.plan.standard_normal(len(places)), -2, 2))

    # --- Time

    def span(self, seconds: float) -> np.ndarray:
        """float32 [n]: the instants of a short event's samples, s."""
        return np.arange(max(1, round(seconds * self.rate)), dtype=np.float32) / self.rate

    def instants(self, n: int) -> np.ndarray:
        """float64 [points]: the control points of n samples, s: every CONTROL samples, the last at or after the end."""
        return np.arange(-(-n // CONTROL) + 1) * (CONTROL / self.rate)

    def lines(self, values: Sequence[float], n: int) -> np.ndarray:
        """float64 [points]: straight lines through evenly spaced values, at the control points of n samples."""
        points = -(-n // CONTROL) + 1
        return np.interp(np.linspace(0, len(values) - 1, points), np.arange(len(values)), values)

    def interpolated(self, controls: np.ndarray, n: int) -> np.ndarray:
        """float32 [n]: straight lines through control points."""
        controls = controls.astype(np.float32)
        return (controls[:-1, None] + np.diff(controls)[:, None] * _between_controls()).reshape(-1)[:n]

    def silence(self) -> np.ndarray:
        return np.zeros(self.samples, np.float32)

    def paste(self, wave: np.ndarray, event: np.ndarray, onset: float, gain: float = 1.0) -> None:
        """Add an event to a wave from instant `onset` (s) on; what lies outside is cut off."""
        first = round(onset * self.rate)
        skipped = max(0, -first)
        first = max(0, first)
        event = event[skipped : skipped + max(0, len(wave) - first)]
        wave[first : first + len(event)] += np.float32(gain) * event

    def faded(self, event: np.ndarray, rise: float = FADE, fall: float = FADE) -> np.ndarray:
        """The event with soft ends (s), in place."""
        for seconds, part in ((rise, event), (fall, event[::-1])):
            n = min(len(event) // 2, max(1, round(seconds * self.rate)))
            part[:n] *= _ramp(n)
        return event

    # --- Sound

    def tone(self, frequency: float | np.ndarray, amplitudes: Sequence[float], n: int) -> np.ndarray:
        """A periodic sound of n samples, peak about 1: amplitudes of harmonics 1, 2, ...; those above the highest
        frequency drawn are left out. frequency: Hz, constant or at the control points (see `instants`)."""
        controls = np.broadcast_to(np.asarray(frequency, np.float64), -(-n // CONTROL) + 1)
        allowed = int(NYQUIST_SHARE * self.rate / max(1e-9, float(controls.max())))
        if allowed < 1:
            return np.zeros(n, np.float32)
        table = wave_table(np.asarray(amplitudes[:allowed], np.float64))
        # Table entries passed: at the beginning of each piece, and inside it by first frequency and its change.
        scale = TABLE_SAMPLES * CONTROL / self.rate
        begin = np.concatenate([[0.0], np.cumsum((controls[:-1] + controls[1:]) / 2)[:-1]]) * scale % TABLE_SAMPLES
        place = _between_controls()
        places = (begin[:, None] + controls[:-1, None] * scale * place).astype(np.float32)
        if controls.strides[0]:
            places += (np.diff(controls)[:, None] * (scale / 2) * np.square(place)).astype(np.float32)
        return table[places.reshape(-1)[:n].astype(np.int32) & (TABLE_SAMPLES - 1)]

    def partials(
        self, seconds: float, frequencies: Sequence[float], amplitudes: Sequence[float], decays: Sequence[float]
    ) -> np.ndarray:
        """Sum of a * exp(-d t) * sin(2 pi f t), soft at both ends; d in 1/s."""
        f, a, d = (np.asarray(values, np.float64)[:, None] for values in (frequencies, amplitudes, decays))
        n = max(1, round(seconds * self.rate))
        a = np.where(f < NYQUIST_SHARE * self.rate, a, 0.0)
        # t = T + u with T the start of a block: sin(w t) = sin(w T) cos(w u) + cos(w T) sin(w u), exp likewise
        blocks = np.arange(-(-n // BLOCK_SAMPLES)) * (BLOCK_SAMPLES / self.rate)
        within = np.arange(BLOCK_SAMPLES) / self.rate
        coarse, fine = 2 * np.pi * f * blocks, 2 * np.pi * f * within
        loud, fading = a * np.exp(-d * blocks), np.exp(-d * within)
        left = np.concatenate([np.sin(coarse) * loud, np.cos(coarse) * loud]).astype(np.float32)
        right = np.concatenate([np.cos(fine) * fading, np.sin(fine) * fading]).astype(np.float32)
        return self.faded(np.einsum("pk,pj->kj", left, right).reshape(-1)[:n], 0.001, 0.01)

    def white(self, n: int) -> np.ndarray:
        return self.noise.standard_normal(n, dtype=np.float32)

    def noise_band(self, n: int, low: float, high: float, colour: float = 0.0) -> np.ndarray:
        """Noise between two frequencies (Hz) with soft edges, power ~ 1 / f^colour, rms 1."""
        return unit_rms(self.noises(n, band_curve(low, high, colour))[0])

    def noises(self, n: int, *curves: np.ndarray) -> list[np.ndarray]:
        """One noise through each of several curves over frequency."""
        size = fast_size(n)
        spectrum = self.noise_spectrum(size)
        return [np.fft.irfft(spectrum * on_bins(curve, size, self.rate), size)[:n] for curve in curves]

    def noise_spectrum(self, size: int) -> np.ndarray:
        """complex64 [size // 2 + 1]: that of white noise."""
        return self.noise.standard_normal(2 * (size // 2 + 1), dtype=np.float32).view(np.complex64)

    def filtered(self, wave: np.ndarray, *curves: np.ndarray) -> list[np.ndarray]:
        """The wave through each of several curves over frequency (see `octaves`), all from one spectrum."""
        size = fast_size(len(wave))
        spectrum = np.fft.rfft(wave, size)
        return [np.fft.irfft(spectrum * on_bins(curve, size, self.rate), size)[: len(wave)] for curve in curves]


# --- Curves over frequency: one value for each step of 1/24 octave from 10 Hz on --------------------------------------


@functools.lru_cache(maxsize=1)
def octaves() -> np.ndarray:
    """float64 [steps]: frequencies, Hz, up to 96 kHz."""
    return LOWEST * 2.0 ** (np.arange(int(STEPS * 13.25)) / STEPS)


@functools.lru_cache(maxsize=512)
def _steps_of_bins(size: int, rate: int) -> np.ndarray:
    frequencies = np.maximum(np.fft.rfftfreq(size, 1 / rate), LOWEST)
    return np.round(STEPS * np.log2(frequencies / LOWEST)).astype(np.intp)


def on_bins(curve: np.ndarray, size: int, rate: int) -> np.ndarray:
    """float32 [size // 2 + 1]: a curve's values at the frequencies of a spectrum."""
    return curve.astype(np.float32)[_steps_of_bins(size, rate)]


def band_curve(low: float, high: float, colour: float = 0.0) -> np.ndarray:
    """1 between two frequencies, falling by 24 dB an octave outside; tilted to power ~ 1 / f^colour."""
    frequencies = octaves()
    band = np.minimum(1, (frequencies / low) ** 4) * np.minimum(1, (high / frequencies) ** 4)
    return band * (np.maximum(frequencies, 20) / 1000) ** (-colour / 2)


def resonances(
    centres: Sequence[float], gains: Sequence[float], widths: Sequence[float], floor: float = 0.0
) -> np.ndarray:
    """A curve with peaks: centres and widths in Hz."""
    frequencies = octaves()
    peaks = zip(centres, gains, widths, strict=True)
    return floor + sum(gain / (1 + ((frequencies - centre) / width) ** 2) for centre, gain, width in peaks)


# --- Small parts ------------------------------------------------------------------------------------------------------


def wave_table(amplitudes: np.ndarray) -> np.ndarray:
    """float32 [TABLE_SAMPLES]: a period of a sum of sines, peak 1; phases that keep the peak of many harmonics low."""
    spectrum = np.zeros(TABLE_SAMPLES // 2 + 1, np.complex128)
    h = np.arange(1, len(amplitudes) + 1)
    spectrum[1 : len(amplitudes) + 1] = -1j * amplitudes * np.exp(1j * np.pi * h * (h - 1) / max(1, len(amplitudes)))
    period = np.fft.irfft(spectrum)
    return (period / np.abs(period).max()).astype(np.float32)


def unit_rms(wave: np.ndarray) -> np.ndarray:
    return wave * np.float32(1 / max(1e-9, math.sqrt(float(np.mean(np.square(wave))))))


@functools.lru_cache(maxsize=4096)
def fast_size(samples: int) -> int:
    """The next even length without a prime factor above 5, whose FFT is fast."""
    size = samples + samples % 2
    while True:
        remainder = size
        for factor in (2, 3, 5):
            while remainder % factor == 0:
                remainder //= factor
        if remainder <= 1:
            return size
        size += 2


@functools.lru_cache(maxsize=1)
def _between_controls() -> np.ndarray:
    """float32 [CONTROL]: places between two control points, 0 to 1."""
    return np.arange(CONTROL, dtype=np.float32) / CONTROL


@functools.lru_cache(maxsize=64)
def _ramp(n: int) -> np.ndarray:
    return (np.sin(np.linspace(0, np.pi / 2, n, endpoint=False)) ** 2).astype(np.float32)
