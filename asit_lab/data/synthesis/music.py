"""Synthesises instruments: each pitch of a short pattern is rendered once and repeats with the pattern."""

import numpy as np

from .sketch import CONTROL, Sketch, resonances

SCALE = (0, 2, 4, 7, 9, 12, 14, 16)  # semitones of a pentatonic scale


def _pattern(sketch: Sketch, pitch: float, notes: int) -> list[float]:
    """Pitches, Hz, of a pattern on the scale above `pitch`."""
    return [pitch * 2 ** (SCALE[sketch.count(0, len(SCALE) - 1)] / 12) for _ in range(notes)]


def _play(sketch: Sketch, pattern: list[float], interval: float, strike) -> np.ndarray:
    """The pattern again and again; `strike(pitch)` draws one note."""
    wave = sketch.silence()
    notes = {pitch: strike(pitch) for pitch in pattern}
    first = sketch.count(0, len(pattern) - 1)
    for place, onset in enumerate(sketch.beats(interval)):
        gain = 1.0 if (first + place) % len(pattern) == 0 else 0.75
        sketch.paste(wave, notes[pattern[(first + place) % len(pattern)]], onset, gain)
    return wave


def plucked_string(sketch: Sketch) -> np.ndarray:
    interval, position = sketch.between(0.22, 0.9), sketch.between(0.08, 0.4)
    stiffness, dullness, decay = sketch.between(0, 3e-4), sketch.between(0.6, 1.3), sketch.between(1.0, 4.5)

    def strike(pitch: float) -> np.ndarray:
        h = np.arange(1, 25)
        amplitudes = np.abs(np.sin(np.pi * h * position)) / h**dullness
        frequencies = pitch * h * np.sqrt(1 + stiffness * h**2)
        return sketch.partials(min(2.5, 4 / decay), frequencies, amplitudes, decay * (0.6 + 0.25 * h))

    return _play(sketch, _pattern(sketch, sketch.pitch(90, 420), sketch.count(1, 4)), interval, strike)


def struck_bar(sketch: Sketch) -> np.ndarray:
    wooden = sketch.chance(0.5)
    ratios = np.array([1, 3.93, 9.24]) if wooden else np.array([1, 2.76, 5.40, 8.93])
    decay = sketch.between(6, 18) if wooden else sketch.between(1.5, 6)
    hardness = sketch.between(0.25, 0.8)
    pitch = sketch.pitch(200, 700) if wooden else sketch.pitch(500, 1600)

    def strike(pitch: float) -> np.ndarray:
        place = np.arange(len(ratios))
        return sketch.partials(min(2.0, 5 / decay), pitch * ratios, hardness**place, decay * (1 + 0.7 * place))

    return _play(sketch, _pattern(sketch, pitch, sketch.count(1, 5)), sketch.between(0.14, 0.55), strike)


def bell(sketch: Sketch) -> np.ndarray:
    ratios = np.array([0.5, 1, 1.2, 1.5, 2, 2.5, 2.66, 3.01, 4.1, 5.4, 6.8])
    spread = 1 + 0.02 * sketch.plan.standard_normal(len(ratios))
    amplitudes = sketch.plan.uniform(0.3, 1, len(ratios)) / np.sqrt(1 + np.arange(len(ratios)) / 3)
    decay = sketch.between(0.4, 2.2)

    def strike(pitch: float) -> np.ndarray:
        # Each mode is a pair that beats slowly, as the modes of a bell that is not quite round.
        frequencies = np.concatenate([pitch * ratios * spread, pitch * ratios * spread + sketch.between(0.3, 2.5)])
        decays = decay * (0.5 + 0.35 * ratios)
        return sketch.partials(4.0, frequencies, np.tile(amplitudes, 2), np.tile(decays, 2))

    return _play(sketch, _pattern(sketch, sketch.pitch(200, 900), sketch.count(1, 2)), sketch.between(0.8, 3.0), strike)


def bowed_string(sketch: Sketch) -> np.ndarray:
    pitches = _pattern(sketch, sketch.pitch(120, 500), 3)
    note = sketch.between(0.5, 2.2)
    n = sketch.samples
    times = sketch.instants(n)
    places = times / note + sketch.plan.random()
    frequency = np.array(pitches)[places.astype(int) % len(pitches)]
    width = max(1, round(sketch.between(0.02, 0.12) * sketch.rate / CONTROL))  # the slide from note to note
    total = np.cumsum(np.concatenate([np.full(width, frequency[0]), frequency]))
    frequency = (total[width:] - total[:-width]) / width
    speed, depth = sketch.between(4.5, 7), sketch.between(0.002, 0.012)
    frequency *= 1 + depth * np.sin(2 * np.pi * speed * times)
    wave = sketch.tone(frequency, 1 / np.arange(1, 41) ** sketch.between(0.5, 1.1), n)
    bow = places % 1  # each note swells and fades, or all are tied
    loudness = np.minimum(1, 6 * np.minimum(bow, 1 - bow) + 0.35) if sketch.chance(0.6) else np.ones(len(bow))
    wave *= sketch.interpolated(loudness, n)
    centres = sketch.plan.uniform((250, 450, 900, 2200), (350, 700, 1500, 3500))
    return sketch.filtered(wave, resonances(centres, (1, 1, 0.8, 0.9), (90, 120, 250, 700), 0.25))[0]


def organ(sketch: Sketch) -> np.ndarray:
    """Chords that come back in turn, with or without tremolo."""
    root, length = sketch.pitch(130, 330), sketch.between(0.6, 2.0)
    chords = [root * 2 ** (np.array(chord) / 12) for chord in ((0, 4, 7), (5, 9, 12), (-3, 0, 4), (7, 11, 14))]
    chords = [chords[place] for place in sketch.plan.permutation(4)[: sketch.count(1, 3)]]
    stops = np.zeros(16)
    stops[[0, 1, 2, 3, 5, 7]] = sketch.plan.uniform(0.2, 1, 6)
    n = round(length * sketch.rate)
    sounds = [sketch.faded(sum(sketch.tone(pitch, stops, n) for pitch in chord), 0.03, 0.05) for chord in chords]
    wave = sketch.silence()
    for place, onset in enumerate(sketch.beats(length)):
        sketch.paste(wave, sounds[place % len(sounds)], onset)
    if sketch.chance(0.5):
        depth, speed = sketch.between(0.2, 0.5), sketch.between(4, 7)
        shake = np.sin(2 * np.pi * speed * sketch.instants(len(wave)))
        wave *= sketch.interpolated(1 - depth * (0.5 + 0.5 * shake), len(wave))
    return wave


def drums(sketch: Sketch) -> np.ndarray:
    """A pattern of eight steps: bass drum, snare, hi-hat."""
    low = sketch.between(45, 80)
    times = sketch.span(0.3)
    bass = np.sin(2 * np.pi * (low * times + 4 * (1 - np.exp(-25 * times)))) * np.exp(-9 * times)
    snare = sketch.noise_band(len(times), 900, 6000) * 0.35 * np.exp(-sketch.between(12, 30) * times)
    snare += 0.5 * np.sin(2 * np.pi * sketch.between(160, 240) * times) * np.exp(-20 * times)
    hat = sketch.noise_band(len(times), 5000, 12000) * 0.2 * np.exp(-sketch.between(25, 90) * times)
    step = sketch.between(0.1, 0.24)
    played = sketch.plan.random((3, 8)) < np.array([[0.3], [0.12], [0.7]])
    played[0, [0, 4]] = played[1, [2, 6]] = True
    wave = sketch.silence()
    for place, onset in enumerate(sketch.beats(step)):
        for sound, steps in zip((bass, snare, hat), played, strict=True):
            if steps[place % 8]:
                sketch.paste(wave, sound, onset)
    return wave


MUSIC_SOUNDS = {sound.__name__: sound for sound in (plucked_string, struck_bar, bell, bowed_string, organ, drums)}
