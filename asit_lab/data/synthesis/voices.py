"""Synthesises voices of people and animals: a pitched source through vocal-tract resonances; sweeps and pulses."""

import numpy as np

from .sketch import Sketch, resonances

# First three formants of an adult, Hz, and how loud they are: rough values of textbooks of phonetics.
VOWELS = np.array(
    [(730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240), (660, 1720, 2410)]
)


def _throat(formants: np.ndarray) -> np.ndarray:
    gains = np.array([1, 0.6, 0.35, 0.15])
    return resonances([*formants, 1.45 * formants[-1]], gains, (70, 90, 140, 250), 0.004)


def vowel(sketch: Sketch) -> np.ndarray:
    """Syllables: pitch rises and falls over each, the vowel changes from one to the next."""
    syllable, share = sketch.between(0.25, 1.1), sketch.between(0.6, 0.95)
    base, size = sketch.pitch(85, 320), sketch.between(0.9, 1.2)
    contours = [base * 2 ** (sketch.plan.uniform(-0.35, 0.35, 4)) for _ in range(3)]
    vowels = sketch.plan.choice(len(VOWELS), 3)
    n = max(2, round(share * syllable * sketch.rate))
    wave, syllables = sketch.silence(), []
    for contour, number in zip(contours, vowels, strict=True):
        tremble = 1 + 0.012 * np.sin(2 * np.pi * sketch.between(4, 7) * sketch.instants(n))
        voice = sketch.tone(sketch.lines(contour, n) * tremble, 1 / np.arange(1, 61) ** 0.8, n)
        voice += 0.02 * sketch.white(n)
        voice = sketch.filtered(voice, _throat(size * VOWELS[number]))[0]
        voice /= max(1e-6, np.abs(voice).max())
        syllables.append(sketch.faded(voice, 0.04, 0.08))
    for place, onset in enumerate(sketch.beats(syllable, 0.03)):
        sketch.paste(wave, syllables[place % 3], onset)
    return wave


def crying(sketch: Sketch) -> np.ndarray:
    """Wails of an infant: one arc of pitch a breath."""
    base, breath = sketch.pitch(320, 560), sketch.between(0.7, 1.5)
    peak, fall = sketch.between(1.15, 1.6), sketch.between(0.75, 1.05)
    n = round(sketch.between(0.6, 0.85) * breath * sketch.rate)
    pitch = base * sketch.lines((0.9, peak, peak * 0.97, peak * 0.9, fall), n)
    pitch *= 1 + 0.02 * np.sin(2 * np.pi * sketch.between(5, 9) * sketch.instants(n))
    voice = sketch.tone(pitch, 1 / np.arange(1, 20) ** 0.5, n)
    voice = sketch.filtered(voice, resonances((1100, 3300, 5200), (1, 0.8, 0.3), (350, 600, 700), 0.12))[0]
    voice = sketch.faded(voice, 0.06, 0.15)
    wave = sketch.silence()
    for onset in sketch.beats(breath, 0.02):
        sketch.paste(wave, voice, onset)
    return wave


def dog_bark(sketch: Sketch) -> np.ndarray:
    base, n = sketch.pitch(180, 650), round(sketch.between(0.1, 0.28) * sketch.rate)
    pitch = base * sketch.lines((0.8, 1.25, 1.1, 0.7), n)
    voice = sketch.tone(pitch, 1 / np.arange(1, 30) ** 0.4, n) + sketch.between(0.1, 0.4) * sketch.white(n)
    centre = sketch.between(700, 1500)
    voice = sketch.filtered(voice, resonances((centre, 2.3 * centre), (1, 0.5), (0.3 * centre, 0.5 * centre), 0.05))[0]
    voice = sketch.faded(voice, 0.015, 0.06)
    wave = sketch.silence()
    group, interval = sketch.count(1, 4), sketch.between(0.28, 0.5)
    for onset in sketch.beats(group * interval + sketch.between(0.2, 1.2)):
        for place in range(group):
            sketch.paste(wave, voice, onset + place * interval)
    return wave


def _sweep(sketch: Sketch, first: float, middle: float, last: float, seconds: float) -> np.ndarray:
    """A whistle through three frequencies, Hz, with a weak second harmonic."""
    n = max(4, round(seconds * sketch.rate))
    place = 2 * sketch.instants(n) / seconds - 1
    start, middle, end = np.log2((first, middle, last))
    octaves = middle + place * (end - start) / 2 + place**2 * ((end + start) / 2 - middle)  # a parabola
    return sketch.faded(sketch.tone(2**octaves, (1, 0.25, 0.08), n), 0.2 * seconds, 0.25 * seconds)


def bird_song(sketch: Sketch) -> np.ndarray:
    """A phrase of sweeps, sung again and again."""
    base = sketch.pitch(1500, 4200)
    phrase, length = [], 0.0
    for _ in range(sketch.count(1, 4)):
        seconds = sketch.between(0.08, 0.45)
        phrase.append((length, _sweep(sketch, *(base * 2 ** sketch.plan.uniform(-0.6, 0.6, 3)), seconds)))
        length += seconds + sketch.between(0.02, 0.15)
    wave = sketch.silence()
    for onset in sketch.beats(length + sketch.between(0.1, 0.8)):
        for later, sweep in phrase:
            sketch.paste(wave, sweep, onset + later)
    return wave


def bird_trill(sketch: Sketch) -> np.ndarray:
    """The same short sweep many times a second, in runs."""
    base, rate = sketch.pitch(2000, 5200), sketch.between(7, 20)
    chirp = _sweep(sketch, base * sketch.between(0.7, 1.5), base, base * sketch.between(0.7, 1.5), 0.7 / rate)
    run, rest = sketch.between(0.5, 1.8), sketch.between(0.2, 0.9)
    wave = sketch.silence()
    for onset in sketch.beats(run + rest):
        for place in range(int(run * rate)):
            sketch.paste(wave, chirp, onset + place / rate, 0.4 + 0.6 * min(1, place / 4))
    return wave


def cricket(sketch: Sketch) -> np.ndarray:
    """Pulses of one pitch in groups, from one to three crickets."""
    wave = sketch.silence()
    for gain in (1, 0.6, 0.4)[: sketch.count(1, 3)]:
        pitch, pulses, rate = sketch.pitch(1800, 6500), sketch.count(3, 8), sketch.between(22, 45)
        pulse = sketch.tone(pitch, (1, 0.15), round(0.6 / rate * sketch.rate))
        sketch.faded(pulse, 0.2 / rate, 0.3 / rate)
        for onset in sketch.beats(pulses / rate + sketch.between(0.08, 0.6)):
            for place in range(pulses):
                sketch.paste(wave, pulse, onset + place / rate, gain * (place + 2) / (pulses + 1))
    return wave


def frog(sketch: Sketch) -> np.ndarray:
    """Croaks: resonances struck by slow pulses."""
    rate, seconds = sketch.between(18, 60), sketch.between(0.15, 0.7)
    centres = np.array((sketch.between(400, 900), sketch.between(1100, 2600)))
    pulse = sketch.partials(0.06, centres, (1, 0.7), (90, 120))
    bend = sketch.between(-0.4, 0.4)  # of the pulses' rate over a croak
    times = np.cumsum(1 / (rate * (1 + bend * np.linspace(0, 1, max(2, int(rate * seconds))))))
    croak = np.zeros(round((seconds * 1.8 + 0.1) * sketch.rate), np.float32)
    for place, onset in enumerate(times):
        sketch.paste(croak, pulse, onset, np.sin(np.pi * (place + 0.5) / len(times)) ** 0.5)
    wave = sketch.silence()
    for onset in sketch.beats(seconds + sketch.between(0.15, 0.9)):
        sketch.paste(wave, croak, onset)
    return wave


VOICE_SOUNDS = {sound.__name__: sound for sound in (vowel, crying, dog_bark, bird_song, bird_trill, cricket, frog)}
