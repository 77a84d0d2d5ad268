"""Synthesises machines and signals: steady rotation, alternating tones, ticking."""

import numpy as np

from .sketch import Sketch


def engine(sketch: Sketch) -> np.ndarray:
    """Harmonics of the firing rate, which is steady, rises or falls, or is revved; and noise in its rhythm."""
    rate = sketch.pitch(45, 200)
    course = sketch.count(0, 2)
    if course == 0:
        rates = rate * (1 + 0.03 * sketch.plan.standard_normal(6))
    elif course == 1:
        rates = rate * np.geomspace(1, sketch.pitch(0.5, 2), 6)
    else:
        rates = np.tile((rate, rate * sketch.between(1.3, 2.2)), 3)
    n = sketch.samples
    frequency = sketch.lines(rates, n)
    wave = sketch.tone(frequency, sketch.plan.uniform(0.1, 1, 80) / np.arange(1, 81) ** sketch.between(0.2, 0.8), n)
    hiss = sketch.noise_band(n, sketch.pitch(200, 800), sketch.pitch(3000, 7000), sketch.between(0, 1))
    hiss *= 0.6 + 0.4 * sketch.tone(frequency, (1,), n)
    return wave + np.float32(sketch.between(0.02, 0.15)) * hiss


def helicopter(sketch: Sketch) -> np.ndarray:
    """Beats of a rotor: the same burst of noise many times a second."""
    rate = sketch.between(7, 20)
    n = round(sketch.rate * sketch.between(0.5, 0.9) / rate)
    times = np.arange(n, dtype=np.float32) / sketch.rate
    beat = sketch.noise_band(n, 60, sketch.pitch(600, 4000), sketch.between(0.5, 1.5))
    beat = sketch.faded(beat * np.exp(-times * (rate * sketch.between(2, 5))), 0.1 / rate, 0.2 / rate)
    wave = np.float32(0.05) * sketch.noise_band(sketch.samples, 60, 3000, 1.0)
    for place, onset in enumerate(sketch.beats(1 / rate)):
        sketch.paste(wave, beat, onset, 1.0 if place % 2 else 0.8)
    return wave * sketch.interpolated(sketch.lines(sketch.plan.uniform(0.4, 1, 4), len(wave)), len(wave))


def siren(sketch: Sketch) -> np.ndarray:
    """A pitch that wanders up and down, or jumps between two tones."""
    low = sketch.pitch(350, 900)
    high = low * sketch.between(1.3, 2.6)
    period = sketch.pitch(0.3, 4.0)
    place = (sketch.instants(sketch.samples) / period + sketch.plan.random()) % 1
    form = sketch.count(0, 2)
    if form == 0:
        height = 0.5 - 0.5 * np.cos(2 * np.pi * place)
    elif form == 1:
        height = np.where(place < 0.8, place / 0.8, (1 - place) / 0.2)
    else:
        height = (place < 0.5).astype(float)
    amplitudes = sketch.plan.uniform(0.3, 1, 10) / np.arange(1, 11) ** 0.7
    return sketch.tone(low * (high / low) ** height, amplitudes, sketch.samples)


def alarm(sketch: Sketch) -> np.ndarray:
    """Beeps of one pitch, or of two in turn, in groups."""
    pitch, length = sketch.pitch(500, 3200), sketch.pitch(0.06, 0.4)
    pitches = (pitch, pitch * (1 if sketch.chance(0.5) else sketch.between(0.7, 1.4)))
    odd = np.zeros(9)
    odd[::2] = 1 / np.arange(1, 10, 2)
    sounds = [sketch.faded(sketch.tone(hz, odd, round(length * sketch.rate))) for hz in pitches]
    group, step = sketch.count(1, 4), length * sketch.between(1.25, 2.2)
    wave = sketch.silence()
    for onset in sketch.beats(group * step + sketch.between(0, 0.8)):
        for place in range(group):
            sketch.paste(wave, sounds[place % 2], onset + place * step)
    return wave


def telephone(sketch: Sketch) -> np.ndarray:
    """Two small bells struck in turn by a clapper, ringing and resting."""
    pitch, rate = sketch.pitch(700, 1700), sketch.between(14, 26)
    ring, rest = sketch.between(0.5, 1.6), sketch.between(0.3, 1.2)
    ratios = np.array([1, 2.1, 2.9, 4.3])
    amplitudes = sketch.plan.uniform(0.3, 1, 4)
    bells = [sketch.partials(0.35, base * ratios, amplitudes, (9, 14, 18, 25)) for base in (pitch, pitch * 1.13)]
    wave = sketch.silence()
    for onset in sketch.beats(ring + rest):
        for place in range(int(ring * rate)):
            sketch.paste(wave, bells[place % 2], onset + place / rate)
    return wave


def clock(sketch: Sketch) -> np.ndarray:
    """Tick and tock: two short resonances in turn."""
    interval = sketch.pitch(0.16, 1.0)
    centre = sketch.pitch(900, 3500)
    sounds = [
        sketch.partials(0.12, centre * shift * np.array([0.4, 1, 1.9, 3.1]), (0.6, 1, 0.6, 0.4), (60, 70, 100, 150))
        for shift in (1, sketch.between(0.75, 1.3))
    ]
    wave = sketch.silence()
    for place, onset in enumerate(sketch.beats(interval)):
        sketch.paste(wave, sounds[place % 2], onset)
        sketch.paste(wave, sounds[place % 2], onset + 0.03, 0.35)
    return wave


MACHINE_SOUNDS = {sound.__name__: sound for sound in (engine, helicopter, siren, alarm, telephone, clock)}
