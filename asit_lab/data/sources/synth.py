"""Procedural sound events, made on the spot from (seed, index): the data set that needs no files and no network.

Ten classes of events. A clip holds one to four events of its class at random times, which may overlap, sometimes a
quieter one of another class, and coloured background noise 0 to 30 dB below the events. What happens in a clip depends
on (seed, index) alone; the same clip at another sample rate differs only in the samples of its noise.
"""

import functools
import math

import numpy as np

from ...audio import AudioInfo
from ...errors import InputError
from .clips import Clip, Listing

PREFIX = "synth://"
CLIPS = 100
SECONDS = 5.0
NOMINAL_RATE = 32000  # Hz, what the manifest shows; clips are made at whatever rate is asked for
FOLDS = 5
_FADE = 0.005  # s: every event starts and ends without a click
_FULL = 0.95  # largest peak


def render(seed: int, index: int, sample_rate: int, seconds: float = SECONDS) -> np.ndarray:
    """Clip `index` of the data set `seed`: mono float32 [samples], |peak| < 1."""
    plan_seed, noise_seed = np.random.SeedSequence([seed, index]).spawn(2)
    plan = np.random.Generator(np.random.PCG64(plan_seed))  # what happens: the same at every sample rate
    noise = np.random.Generator(np.random.PCG64(noise_seed))  # samples of noise: their number depends on the rate
    samples = round(seconds * sample_rate)
    own = index % len(CLASSES)
    kinds = [own] * int(plan.integers(1, 5))
    gains = list(10 ** (plan.uniform(-9, 0, len(kinds)) / 20))
    if plan.random() < 0.3:  # a distractor, 6 to 15 dB below
        kinds.append((own + int(plan.integers(1, len(CLASSES)))) % len(CLASSES))
        gains.append(10 ** (plan.uniform(-15, -6) / 20))
    wave = np.zeros(samples)
    for kind, gain in zip(kinds, gains, strict=True):
        event = gain * _event(EVENTS[CLASSES[kind]], plan, noise, sample_rate, seconds)
        at = int(plan.random() * max(1, samples - len(event)))
        wave[at : at + len(event)] += event[: samples - at]
    colour, snr, peak = plan.uniform(0, 2), plan.uniform(0, 30), 10 ** (plan.uniform(-20, 0) / 20)
    background = _coloured_noise(noise, samples, colour, sample_rate)
    loudness = math.sqrt(np.mean(np.square(wave))) / 10 ** (snr / 20)
    wave += background * max(loudness, 1e-4)  # below a few kHz a band of noise may have nothing left
    return (wave * (_FULL * peak / np.abs(wave).max())).astype(np.float32)


def list_synth(clips: int, seed: int = 0) -> Listing:
    """`clips` clips: classes take turns, and every fold has as many of each."""
    return Listing(
        [
            Clip(f"{PREFIX}{seed}/{index}", CLASSES[index % 10], fold=index // 10 % FOLDS + 1, group=str(index))
            for index in range(clips)
        ]
    )


def header(path: str) -> AudioInfo:
    """What the header of a clip would say if it were a file."""
    parse(path)
    return AudioInfo(path, SECONDS, NOMINAL_RATE, 1, round(SECONDS * NOMINAL_RATE))


def parse(path: str) -> tuple[int, int]:
    """(seed, index) of "synth://SEED/INDEX". Raises InputError for anything else."""
    parts = path.removeprefix(PREFIX).split("/")
    if not path.startswith(PREFIX) or len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise InputError(f"{path}: not of the form {PREFIX}SEED/INDEX")
    return int(parts[0]), int(parts[1])


# --- Events: each takes its own parameters from `plan` and returns samples at peak about 1 --------------------------


def _event(make, plan, noise, rate: int, longest: float) -> np.ndarray:
    """One event with soft ends, at most `longest` seconds."""
    event = make(plan, noise, rate)[: round(longest * rate)]
    fade = min(len(event) // 2, max(1, round(_FADE * rate)))
    ramp = np.sin(np.linspace(0, np.pi / 2, fade)) ** 2
    event[:fade] *= ramp
    event[len(event) - fade :] *= ramp[::-1]
    return event


def _times(plan, rate: int, shortest: float, longest: float) -> np.ndarray:
    """Instants of an event of random length, s."""
    return np.arange(round(plan.uniform(shortest, longest) * rate)) / rate


def _pitch(plan, low: float, high: float) -> float:
    """A frequency, Hz, log-uniform."""
    return low * (high / low) ** plan.random()


@functools.lru_cache(maxsize=1)
def _sine_table() -> np.ndarray:
    return np.sin(2 * np.pi * np.arange(4096) / 4096)


def _sine(cycles: np.ndarray) -> np.ndarray:
    """sin(2 pi cycles) from a table, several times as fast as exact; what is lost lies some 60 dB below."""
    return _sine_table()[np.floor(cycles * 4096).astype(np.int64) & 4095]


def _harmonic(cycles: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """A periodic sound with the given amplitudes of harmonics 1, 2, ..., peak 1; cycles: the fundamental's phase."""
    spectrum = np.zeros(1025, complex)
    spectrum[1 : len(amplitudes) + 1] = -1j * amplitudes
    period = np.fft.irfft(spectrum)  # one period, 2048 samples
    return (period / np.abs(period).max())[np.floor(cycles * 2048).astype(np.int64) & 2047]


def _coloured_noise(noise, samples: int, colour: float, rate: int, band: tuple[float, float] = (20, 1e9)) -> np.ndarray:
    """Gaussian noise with power ~ 1 / f^colour inside `band` (Hz), rms 1, made from its spectrum."""
    size = _fast_size(samples)
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    gain = np.maximum(frequencies, 20) ** (-colour / 2) * ((frequencies >= band[0]) & (frequencies <= band[1]))
    parts = noise.standard_normal((2, len(frequencies)), dtype=np.float32)
    wave = np.fft.irfft((parts[0] + 1j * parts[1]) * gain, size)[:samples]
    return wave / max(1e-9, math.sqrt(np.mean(np.square(wave))))


@functools.lru_cache(maxsize=256)
def _fast_size(samples: int) -> int:
    """The next length whose FFT is fast: a small odd number times a power of two."""
    return min(odd * 2 ** math.ceil(math.log2(max(1, samples / odd))) for odd in (1, 3, 5, 9, 15))


def _beep(plan, noise, rate):
    times = _times(plan, rate, 0.2, 0.8)
    return _sine(times * _pitch(plan, 300, 4000))


def _chirp(plan, rate, upwards: bool):
    times = _times(plan, rate, 0.3, 1.2)
    low = _pitch(plan, 200, 1200)
    high = low * plan.uniform(2, 5)
    first, last = (low, high) if upwards else (high, low)
    rise = math.log(last / first) / times[-1]  # frequency moves exponentially, an even glide to the ear
    return _sine(first * np.expm1(rise * times) / rise)


def _noise_burst(plan, noise, rate):
    times = _times(plan, rate, 0.15, 0.7)
    centre = _pitch(plan, 500, 5000)
    burst = _coloured_noise(noise, len(times), 0.0, rate, (centre / 1.6, centre * 1.6))
    return burst / 3 * np.exp(-times * plan.uniform(0, 6))


def _click_train(plan, noise, rate):
    samples = round(plan.uniform(0.4, 1.5) * rate)
    period = max(1, round(rate / plan.uniform(6, 30)))
    decay, ring = plan.uniform(300, 1500), _pitch(plan, 1500, 5000)
    times = np.arange(min(period, round(0.02 * rate))) / rate
    one = np.zeros(period)
    one[: len(times)] = np.exp(-decay * times) * _sine(ring * times + 0.25)
    return np.resize(one, samples)


def _vowel(plan, noise, rate):
    times = _times(plan, rate, 0.3, 1.0)
    pitch = _pitch(plan, 90, 300)
    formants = plan.uniform((300, 900, 2300), (850, 2100, 3000))  # Hz
    harmonics = pitch * np.arange(1, max(2, int(min(5000, 0.45 * rate) / pitch) + 1))
    peaks = zip(formants, (1, 0.6, 0.3), (90, 120, 180), strict=True)  # centre Hz, gain, width Hz
    resonance = sum(gain / (1 + ((harmonics - centre) / width) ** 2) for centre, gain, width in peaks)
    vibrato = pitch * 0.02 / (2 * np.pi * 5.5) * _sine(5.5 * times)
    return _harmonic(pitch * times + vibrato, resonance + 0.02)


def _siren(plan, noise, rate):
    times = _times(plan, rate, 0.8, 2.0)
    centre, speed, depth = _pitch(plan, 500, 1500), plan.uniform(1, 6), plan.uniform(0.2, 0.5)
    sweep = depth * centre / (2 * np.pi * speed) * _sine(speed * times)
    return _harmonic(centre * times + sweep, np.array([1.0, 0.3, 0.15]))


def _tremolo(plan, noise, rate):
    times = _times(plan, rate, 0.5, 1.5)
    carrier, speed, depth = _pitch(plan, 200, 2000), plan.uniform(5, 20), plan.uniform(0.7, 1.0)
    return (1 - depth * (0.5 + 0.5 * _sine(speed * times))) * _harmonic(carrier * times, np.array([1.0, 0.4, 0.2]))


def _pluck(plan, noise, rate):
    times = _times(plan, rate, 0.5, 1.5)
    pitch, position, decay = _pitch(plan, 110, 660), plan.uniform(0.1, 0.4), plan.uniform(3, 8)
    harmonics = np.arange(1, max(2, min(16, int(0.45 * rate / pitch)) + 1))
    string = np.abs(np.sin(np.pi * harmonics * position)) / harmonics
    # High harmonics die first: a bright and a dull part with their own decay.
    bright, dull = _harmonic(pitch * times, string), _harmonic(pitch * times, string[:3])
    return 0.5 * bright * np.exp(-3 * decay * times) + 0.5 * dull * np.exp(-decay * times)


def _droplets(plan, noise, rate):
    samples = round(plan.uniform(0.8, 2.0) * rate)
    wave = np.zeros(samples)
    count = int(plan.integers(15, 50))
    for at, pitch, gain in zip(plan.random(count), plan.random(count), plan.uniform(0.2, 1.0, count), strict=True):
        times = np.arange(round(0.02 * rate)) / rate
        first = int(at * samples)
        drop = gain * np.exp(-times * 250) * _sine((1200 + 4000 * pitch) * times * (1 + 8 * times))
        wave[first : first + len(drop)] += drop[: samples - first]
    return wave


EVENTS = {
    "beep": _beep,
    "chirp_down": lambda plan, noise, rate: _chirp(plan, rate, upwards=False),
    "chirp_up": lambda plan, noise, rate: _chirp(plan, rate, upwards=True),
    "click_train": _click_train,
    "droplets": _droplets,
    "noise_burst": _noise_burst,
    "pluck": _pluck,
    "siren": _siren,
    "tremolo": _tremolo,
    "vowel": _vowel,
}
CLASSES = tuple(EVENTS)
