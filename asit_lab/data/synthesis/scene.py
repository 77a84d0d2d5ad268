"""Synthesises a clip of a class: its sound, perhaps a quieter one of another class, a room, noise, a microphone."""

import math

import numpy as np

from . import machines, music, nature, voices
from .sketch import Sketch, band_curve, fast_size, octaves, on_bins, unit_rms

SOUNDS = music.MUSIC_SOUNDS | voices.VOICE_SOUNDS | machines.MACHINE_SOUNDS | nature.NATURE_SOUNDS
# A short list of clips has the first ten.
FIRST = (
    *("plucked_string", "bird_song", "vowel", "bell", "footsteps"),
    *("siren", "engine", "rain", "bowed_string", "alarm"),
)
CLASSES = FIRST + tuple(sorted(set(SOUNDS) - set(FIRST)))
SECOND = 0.35  # share of clips with a sound of another class
SECOND_DB = (-18.0, -6.0)
SNR_DB = 30.0  # maximum; its distribution has a mean of 20: sounds below the noise are not learned
PEAK_DB = (-22.0, -1.0)
FLOOR_DB = -60.0  # of the sounds: the noise of the recorder itself
TAIL = 0.6  # s of reverberation at most


def synthesise(seed: int, index: int, rate: int, seconds: float) -> np.ndarray:
    """float32 [samples], |peak| < 1: clip `index` of the stream `seed`; its class is CLASSES[index % len(CLASSES)]."""
    plan, noise = (
        np.random.Generator(np.random.PCG64(child)) for child in np.random.SeedSequence([seed, index]).spawn(2)
    )
    sketch = Sketch(plan, noise, rate, seconds)
    label = index % len(CLASSES)
    wave = unit_rms(SOUNDS[CLASSES[label]](sketch))
    if sketch.chance(SECOND):
        other = CLASSES[(label + sketch.count(1, len(CLASSES) - 1)) % len(CLASSES)]
        wave = wave + np.float32(_gain(sketch.between(*SECOND_DB))) * unit_rms(SOUNDS[other](sketch))
    wave = _recorded(sketch, wave)
    return wave * np.float32(_gain(sketch.between(*PEAK_DB)) / max(1e-9, float(np.abs(wave).max())))


def _gain(decibels: float) -> float:
    return 10 ** (decibels / 20)


def _recorded(sketch: Sketch, wave: np.ndarray) -> np.ndarray:
    """The wave with the echoes of a room and background noise, through a microphone: all in one spectrum."""
    size = fast_size(len(wave) + round(TAIL * sketch.rate))
    spectrum = np.fft.rfft(wave, size)
    if sketch.chance(0.75):
        spectrum *= 1 + _room(sketch, size)
    snr, colour = SNR_DB * math.sqrt(sketch.plan.random()), sketch.between(0, 2)
    noise, ambient = sketch.noise_spectrum(size), on_bins(band_curve(40, 20000, colour), size, sketch.rate)
    level = (_energy(spectrum) or 1.0) / _energy(noise * ambient)  # nothing is left of some sounds below a few kHz
    ambient *= np.float32(math.sqrt(level) / _gain(snr))
    microphone = on_bins(_microphone(sketch), size, sketch.rate)
    spectrum *= microphone
    noise *= ambient * microphone + np.float32(math.sqrt(level) * _gain(FLOOR_DB))
    return np.fft.irfft(spectrum + noise, size)[: len(wave)]


def _energy(spectrum: np.ndarray) -> float:
    return float(np.sum(np.square(spectrum.view(np.float32))))


def _room(sketch: Sketch, size: int) -> np.ndarray:
    """Spectrum of a room's echoes: six early reflections and a tail of noise that decays by 60 dB in 0.15 to 0.9 s."""
    seconds, damping = sketch.pitch(0.15, 0.9), sketch.between(0.3, 1.5)
    n = round(min(TAIL, seconds) * sketch.rate)
    tail = sketch.white(n) * np.exp(-6.9 / seconds * (np.arange(n, dtype=np.float32) / sketch.rate))
    tail *= np.float32(_gain(sketch.between(-16, 0)) / math.sqrt(float(np.sum(np.square(tail)))))
    for delay, gain in zip(sketch.plan.uniform(0.002, 0.03, 6), sketch.plan.uniform(-0.35, 0.35, 6), strict=True):
        tail[min(n - 1, round(delay * sketch.rate))] += gain
    high = np.minimum(1, (1000 / octaves()) ** (damping / 2))  # walls and air take the high frequencies first
    return np.fft.rfft(tail, size) * on_bins(high, size, sketch.rate)


def _microphone(sketch: Sketch) -> np.ndarray:
    """A band that falls by 12 dB an octave below and 24 above, and a smooth curve of up to some 9 dB inside it."""
    low, high = sketch.pitch(20, 250), sketch.pitch(3500, 20000)
    place = np.linspace(0, 1, len(octaves()))
    decibels = sum(
        sketch.between(-6, 6) / k * np.cos(np.pi * (2 * k * place + sketch.between(0, 2))) for k in (1, 2, 3)
    )
    band = np.minimum(1, (octaves() / low) ** 2) * np.minimum(1, (high / octaves()) ** 4)
    return band * 10 ** (decibels / 20)
