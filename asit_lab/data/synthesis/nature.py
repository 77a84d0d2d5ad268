"""Synthesises weather, water, steps and knocks."""

import numpy as np

from .sketch import Sketch, band_curve, octaves


def rain(sketch: Sketch) -> np.ndarray:
    """A hiss that swells and falls slowly, and single drops."""
    wave = sketch.noise_band(sketch.samples, sketch.pitch(200, 1500), sketch.pitch(4000, 9000), sketch.between(-0.5, 1))
    wave *= sketch.interpolated(sketch.lines(sketch.plan.uniform(0.4, 1, 5), len(wave)), len(wave))
    drops = sketch.count(0, 60)
    pitches = sketch.plan.uniform(600, 4000, 6)
    sounds = [sketch.partials(0.03, (pitch, 2.3 * pitch), (1, 0.5), (150, 250)) for pitch in pitches]
    for onset, gain in sketch.plan.uniform((0, 0.5), (sketch.seconds, 4), (drops, 2)):
        sketch.paste(wave, sounds[int(onset * 1000) % 6], onset, gain)
    return wave


def wind(sketch: Sketch) -> np.ndarray:
    """Noise through a resonance that wanders; gusts raise its loudness and its pitch together."""
    n = sketch.samples
    height = sketch.lines(sketch.plan.uniform(0, 2, sketch.count(4, 8)), n)
    low, apart, narrow = sketch.pitch(150, 600), sketch.between(0.4, 1.0), sketch.between(0.2, 0.5)
    rough = band_curve(40, 8000, 1.0)
    centres = low * 2.0 ** (apart * np.arange(3))
    humps = [rough * (0.1 + np.exp(-((np.log2(octaves() / centre) / narrow) ** 2))) for centre in centres]
    wave = sketch.silence()
    for place, band in enumerate(sketch.noises(n, *humps)):
        wave += band * sketch.interpolated(np.maximum(0, 1 - np.abs(height - place)) * (0.2 + height / 2), n)
    return wave


def bubbles(sketch: Sketch) -> np.ndarray:
    """Drops into water: short whistles that rise as the bubble closes, at an even pace or a run of them."""
    pitch = sketch.pitch(350, 1400)
    n = round(0.12 * sketch.rate)
    times = sketch.instants(n)
    sounds = []
    for _ in range(4):
        first, rise, decay = pitch * sketch.pitch(0.6, 1.7), sketch.between(2, 12), sketch.between(18, 50)
        sound = sketch.tone(first * np.exp(rise * times), (1, 0.2), n) * sketch.interpolated(np.exp(-decay * times), n)
        sounds.append(sketch.faded(sound, 0.002))
    wave = sketch.silence()
    for place, onset in enumerate(sketch.beats(sketch.pitch(0.05, 0.6), sketch.between(0, 0.25))):
        sketch.paste(wave, sounds[place % 4], onset)
    return wave


def footsteps(sketch: Sketch) -> np.ndarray:
    """Heel and toe, left and right, at a walker's pace."""
    interval = sketch.between(0.28, 0.75)
    hard = sketch.pitch(900, 7000)  # Hz: how bright the ground is
    wave = sketch.silence()
    times = sketch.span(0.25)
    steps = []
    for _ in range(2):
        step = sketch.noise_band(len(times), 50, hard, sketch.between(0, 1)) * np.exp(-sketch.between(15, 45) * times)
        step += 2 * np.exp(-30 * times) * np.sin(2 * np.pi * sketch.between(60, 160) * times)
        steps.append(sketch.faded(step.astype(np.float32), 0.003, 0.02))
    toe = sketch.between(0.05, 0.16)
    for place, onset in enumerate(sketch.beats(interval, 0.02)):
        sketch.paste(wave, steps[place % 2], onset)
        sketch.paste(wave, steps[place % 2], onset + toe, 0.4)
    return wave


def knocks(sketch: Sketch) -> np.ndarray:
    """Groups of knocks on a panel whose modes ring shortly."""
    low = sketch.pitch(90, 450)
    ratios = np.sort(sketch.plan.uniform(1, 12, 9))
    sound = sketch.partials(0.25, low * ratios, 1 / np.sqrt(ratios), sketch.between(20, 50) + 4 * ratios)
    click = sketch.noise_band(round(0.02 * sketch.rate), 500, 7000)
    click *= np.exp(-np.linspace(0, 6, len(click))).astype(np.float32)
    sketch.paste(sound, click, 0, 0.25)
    group, step = sketch.count(2, 6), sketch.between(0.12, 0.35)
    wave = sketch.silence()
    for onset in sketch.beats(group * step + sketch.between(0.2, 1.0)):
        for place in range(group):
            sketch.paste(wave, sound, onset + place * step, 1 - 0.06 * place)
    return wave


def bursts(sketch: Sketch) -> np.ndarray:
    """The same burst of noise at an even pace: a spray, a shaker, a saw."""
    interval = sketch.pitch(0.15, 1.1)
    n = round(interval * sketch.between(0.3, 0.85) * sketch.rate)
    centre, width = sketch.pitch(700, 5000), sketch.between(0.4, 1.6)  # Hz, octaves
    burst = sketch.noise_band(n, centre * 2 ** (-width / 2), centre * 2 ** (width / 2), sketch.between(0, 1))
    if sketch.chance(0.5):
        burst *= np.exp(-np.linspace(0, sketch.between(2, 5), n)).astype(np.float32)
        sketch.faded(burst, 0.004, 0.05)
    else:
        sketch.faded(burst, 0.3 * n / sketch.rate, 0.3 * n / sketch.rate)
    wave = sketch.silence()
    weak = sketch.between(0.6, 1.0)
    for place, onset in enumerate(sketch.beats(interval)):
        sketch.paste(wave, burst, onset, 1.0 if place % 2 else weak)
    return wave


NATURE_SOUNDS = {sound.__name__: sound for sound in (rain, wind, bubbles, footsteps, knocks, bursts)}
