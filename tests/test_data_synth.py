"""Made-up sounds: the stream, its list, and what pretraining gets of it."""

import numpy as np
import pytest
import torch

from asit_lab.config import Features, load_config
from asit_lab.data import load_manifest, make_loader
from asit_lab.data.crops import epoch_order
from asit_lab.data.sources import synth
from asit_lab.data.synthesis import scene
from asit_lab.data.synthesis.sketch import Sketch, fast_size, octaves, on_bins
from asit_lab.errors import InputError
from asit_lab.features import LogMel

RATE = 16000
CLASSES = len(synth.CLASSES)


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    """Every clip is synthesised again, not kept as in the other tests."""
    monkeypatch.setattr(synth, "synthesise", scene.synthesise)


def sketch(number: int = 0, rate: int = RATE, seconds: float = 5.0) -> Sketch:
    plan, noise = np.random.SeedSequence(number).spawn(2)
    return Sketch(*(np.random.Generator(np.random.PCG64(seed)) for seed in (plan, noise)), rate, seconds)


# --- The list ---------------------------------------------------------------------------------------------------------


def test_the_list_is_balanced():
    found = load_manifest("synth")
    assert len(found) == 1000 and len(found.classes) == CLASSES >= 20
    assert (found.table.groupby(["fold", "label"]).size() == 1000 / 5 / CLASSES).all()
    assert found.table["fold"].nunique() == 5
    assert found.table["group"].nunique() == len(found) and (found.table["seconds"] == 5.0).all()
    assert len(load_manifest("synth:30")) == 30
    assert found.notes == []


def test_a_short_list_has_ten_classes_and_the_same_clips():
    found = load_manifest("synth:40")
    assert (found.table.groupby("label").size() == 4).all() and len(found.classes) == 10
    assert (found.table.groupby(["fold", "label"]).size() == 1).all()
    whole = load_manifest("synth").table.set_index("path")["label"]
    assert (whole[found.table["path"]].to_numpy() == found.table["label"].to_numpy()).all()


def test_labels_are_the_classes_of_the_clips():
    for path, label in load_manifest("synth:400").table[["path", "label"]].itertuples(index=False):
        assert label == synth.CLASSES[synth.parse(path)[1] % CLASSES]


def test_a_list_too_long_is_refused():
    with pytest.raises(InputError, match="'synth:100000000': at most 100,000 clips .* use synth"):
        load_manifest("synth:100000000")


def test_examples_are_clips_by_name():
    found = load_manifest("synth:examples")
    assert found.table["label"].tolist() == ["harmonic stack", "rhythm", "sweep", "vowel", "decay"]
    for row in range(5):
        wave = found.read(row, RATE)
        seed, index = synth.EXAMPLES[found.table["label"].iloc[row]]
        np.testing.assert_array_equal(wave, synth.render_clip(seed, index, RATE))
    assert synth.CLASSES[synth.EXAMPLES["vowel"][1] % CLASSES] == "vowel"


def test_reading_through_the_manifest():
    found = load_manifest("synth:20")
    whole = synth.render_clip(0, CLASSES + 2, RATE)
    np.testing.assert_array_equal(found.read(12, RATE), whole)
    np.testing.assert_array_equal(found.read(12, RATE, offset=1.0, seconds=0.5), whole[RATE : RATE + RATE // 2])


@pytest.mark.parametrize("path", ["synth://x/1", "synth://1", "file.wav"])
def test_wrong_path(path):
    with pytest.raises(InputError, match="SEED/INDEX"):
        synth.parse(path)


# --- A clip -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1000, 8000, 16000, 32000, 44100])
def test_clips_are_finite_and_below_full_scale(rate):
    with np.errstate(all="raise", under="ignore"):
        for index in range(CLASSES):
            wave = synth.render_clip(0, index, rate)
            assert wave.shape == (5 * rate,) and wave.dtype == np.float32
            assert np.isfinite(wave).all() and 0.01 < np.abs(wave).max() < 1


def test_a_clip_depends_on_seed_and_index_alone():
    np.testing.assert_array_equal(synth.render_clip(3, 7, RATE), synth.render_clip(3, 7, RATE))
    assert not np.array_equal(synth.render_clip(3, 7, RATE), synth.render_clip(4, 7, RATE))
    assert not np.array_equal(synth.render_clip(3, 7, RATE), synth.render_clip(3, 7 + CLASSES, RATE))


def levels(wave: np.ndarray, parts: int = 50) -> np.ndarray:
    return np.log(np.square(wave.reshape(parts, -1)).mean(axis=1) + 1e-8)


@pytest.mark.parametrize("index", [i for i, name in enumerate(synth.CLASSES) if name not in ("rain", "wind")])
def test_the_same_happens_at_every_sample_rate(index):
    """Loudness over time, of the sound alone: the noise has other samples."""
    name = synth.CLASSES[index]
    low, high = (levels(scene.SOUNDS[name](sketch(index, rate))) for rate in (RATE, 2 * RATE))
    assert np.corrcoef(low, high)[0, 1] > 0.9 or np.std(low) < 0.5


@pytest.mark.parametrize("name", synth.CLASSES)
def test_a_sound_fills_the_clip(name):
    """No sound hides in a corner: both halves of a clip hold something."""
    for number in range(3):
        wave = scene.SOUNDS[name](sketch(number))
        assert wave.shape == (5 * RATE,) and wave.dtype == np.float32
        halves = np.square(wave.reshape(2, -1)).mean(axis=1)
        assert halves.min() > 0.02 * halves.max()


def test_rhythms_repeat():
    """The loudness of a rhythm looks like itself one or more beats later, that of rain does not."""

    def best_match(name: str, number: int) -> float:
        change = np.diff(levels(scene.SOUNDS[name](sketch(number)), 200))  # every 25 ms
        return max(np.corrcoef(change[lag:], change[:-lag])[0, 1] for lag in range(5, 120))

    for name in ("footsteps", "knocks", "alarm", "drums", "clock", "bird_song"):
        assert np.median([best_match(name, number) for number in range(5)]) > 0.7, name
    assert np.median([best_match("rain", number) for number in range(5)]) < 0.5


@pytest.mark.slow
def test_classes_can_be_told_apart_but_not_by_their_mean_spectrum_alone():
    """Statistics of the log-mel know far more than chance and far less than everything, so that a probe has room."""
    front_end = LogMel.from_config(Features(sample_rate=RATE, mel_bins=64))
    manifest = load_manifest("synth:400")
    waves = torch.from_numpy(np.stack([manifest.read(row, RATE, seconds=4.0) for row in range(400)]))
    log_mel = torch.cat([front_end(part) for part in waves.split(50)])
    statistics = torch.cat([log_mel.mean(1), log_mel.std(1)], dim=1).double().numpy()
    statistics = (statistics - statistics.mean(axis=0)) / statistics.std(axis=0)
    train = manifest.table["fold"].to_numpy() != 1
    wanted = (manifest.table["label"].to_numpy()[:, None] == manifest.classes).astype(float)
    seen = statistics[train]
    weights = np.linalg.solve(seen.T @ seen + 30 * np.eye(128), seen.T @ (wanted[train] - 1 / CLASSES))  # ridge
    accuracy = ((statistics[~train] @ weights).argmax(axis=1) == wanted[~train].argmax(axis=1)).mean()
    assert 0.3 < accuracy < 0.75, accuracy


# --- Parts of the synthesis -------------------------------------------------------------------------------------------


def test_a_steady_tone_is_a_sum_of_its_harmonics():
    one = sketch()
    wave = one.tone(440.0, (1, 0.5), RATE)
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(RATE)))
    assert spectrum.argmax() == 440 and spectrum[880] == pytest.approx(spectrum[440] / 2, rel=0.02)
    rest = np.delete(spectrum, [*range(430, 450), *range(870, 890)])
    assert rest.max() < 2e-3 * spectrum.max()


def test_a_gliding_tone_has_the_pitch_asked_for():
    """The phase of a linear sweep, integrated by hand."""
    one = sketch()
    times = np.arange(RATE) / RATE
    wave = one.tone(300 + 500 * one.instants(RATE), (1,), RATE)
    np.testing.assert_allclose(wave, np.sin(2 * np.pi * (300 * times + 250 * times**2)), atol=0.02)


def test_nothing_is_drawn_above_the_nyquist_frequency():
    one = sketch(rate=8000)
    assert not one.tone(5000.0, (1,), 800).any()
    assert not one.partials(0.1, [4500.0], [1.0], [0.0]).any()


def test_partials_are_decaying_sines():
    wave = sketch().partials(0.5, [440.0, 1210.0], [1.0, 0.3], [3.0, 9.0])
    t = np.arange(RATE // 2) / RATE
    exact = np.exp(-3 * t) * np.sin(2 * np.pi * 440 * t) + 0.3 * np.exp(-9 * t) * np.sin(2 * np.pi * 1210 * t)
    np.testing.assert_allclose(wave[200:7000], exact[200:7000], atol=1e-4)


def test_pasting_cuts_off_what_lies_outside():
    one, wave = sketch(), np.zeros(100, np.float32)
    event = np.arange(1, 41, dtype=np.float32)
    one.paste(wave, event, -10 / RATE)
    np.testing.assert_array_equal(wave[:31], [*range(11, 41), 0])
    one.paste(wave, event, 90 / RATE)
    np.testing.assert_array_equal(wave[90:], range(1, 11))
    one.paste(wave, event, 5.0)
    one.paste(wave, event, -5.0)
    assert wave.sum() == sum(range(11, 41)) + sum(range(1, 11))


def test_sizes_of_transforms_and_curves_over_frequency():
    assert fast_size(89600) == 90000 and fast_size(7) == 8 and fast_size(1) == 2
    values = on_bins(octaves(), 1600, RATE)  # the curve whose value is the frequency itself
    np.testing.assert_allclose(values[1:], np.fft.rfftfreq(1600, 1 / RATE)[1:], rtol=0.016)


# --- What pretraining gets --------------------------------------------------------------------------------------------


def config(**data):
    settings = {"train.batch_size": 4, "train.seed": 5, "data.crop_seconds": 5.0, "data.trim": False, **data}
    return load_config("smoke", [f"{key}={str(value).lower()}" for key, value in settings.items()])


def test_every_epoch_has_new_sounds_of_the_same_classes():
    manifest = load_manifest("synth:8")
    batches = list(make_loader(config(), manifest, views=1, stop=6))  # three epochs of two steps
    for batch in batches:
        epoch = batch.step // 2
        for place, row in enumerate(batch.index.tolist()):
            made = synth.render_clip(synth.stream(5, epoch), synth.parse(manifest.table["path"][row])[1], RATE)
            np.testing.assert_array_equal(batch.waves[place, 0], made)
    waves = torch.cat([batch.waves[:, 0] for batch in batches])
    assert len({wave.numpy().tobytes() for wave in waves}) == 24
    listed = {manifest.read(row, RATE).tobytes() for row in range(8)}
    assert not listed & {wave.numpy().tobytes() for wave in waves}
    assert sorted(batches[0].index.tolist() + batches[1].index.tolist()) == sorted(epoch_order(5, 0, 8).tolist())


def test_sounds_depend_on_the_runs_seed_but_not_on_who_makes_them():
    every_class = load_manifest("synth:200").subset(range(CLASSES))
    here, there, other = (
        next(iter(make_loader(config(**{"train.batch_size": CLASSES, **more}), every_class, views=1, stop=1)))
        for more in ({}, {"data.workers": 1}, {"train.seed": 6})
    )
    assert sorted(here.index.tolist()) == list(range(CLASSES))
    assert torch.equal(here.index, there.index) and torch.equal(here.waves, there.waves)
    assert not any(torch.equal(wave, another) for wave in here.waves for another in other.waves)
