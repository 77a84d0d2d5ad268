"""Procedural sound events."""

import numpy as np
import pytest

from asit_lab.data import load_manifest
from asit_lab.data.sources import synth
from asit_lab.errors import InputError


def test_manifest_is_balanced():
    found = load_manifest("synth")
    assert len(found) == synth.CLIPS and len(found.classes) == 10
    assert (found.table.groupby(["fold", "label"]).size() == synth.CLIPS // 50).all()
    assert found.table["fold"].nunique() == 5
    assert found.table["group"].nunique() == len(found) and (found.table["seconds"] == 5.0).all()
    assert len(load_manifest("synth:30")) == 30


@pytest.mark.parametrize("rate", [1000, 8000, 16000, 32000, 44100])
def test_clips_are_finite_and_below_full_scale(rate):
    for index in range(20):
        wave = synth.render(0, index, rate)
        assert wave.shape == (5 * rate,) and wave.dtype == np.float32
        assert np.isfinite(wave).all() and 0.01 < np.abs(wave).max() < 1


def test_a_clip_depends_on_seed_and_index_alone():
    np.testing.assert_array_equal(synth.render(3, 7, 16000), synth.render(3, 7, 16000))
    assert not np.array_equal(synth.render(3, 7, 16000), synth.render(4, 7, 16000))
    assert not np.array_equal(synth.render(3, 7, 16000), synth.render(3, 17, 16000))


def envelope(wave, parts=50):
    loudness = np.sqrt(np.square(wave.reshape(parts, -1)).mean(axis=1))
    return loudness / loudness.max()


@pytest.mark.parametrize("index", range(10))
def test_the_same_happens_at_every_sample_rate(index):
    low, high = envelope(synth.render(0, index, 16000)), envelope(synth.render(0, index, 32000))
    assert np.corrcoef(low, high)[0, 1] > 0.9


def test_classes_can_be_told_apart():
    """Nearest class mean of a coarse spectrum and its change over time is right far more often than one in ten."""

    def features(index):
        frames = np.lib.stride_tricks.sliding_window_view(synth.render(0, index, 16000), 512)[::256]
        power = np.log(np.square(np.abs(np.fft.rfft(frames * np.hanning(512)))) + 1e-6)
        bands = power[:, :256].reshape(len(power), 32, 8).mean(axis=2)
        return np.concatenate([bands.std(axis=0), np.abs(np.diff(bands, axis=0)).mean(axis=0)])

    described = np.stack([features(index) for index in range(300)])
    described = (described - described[:200].mean(axis=0)) / described[:200].std(axis=0)
    labels = np.arange(300) % 10
    means = np.stack([described[:200][labels[:200] == label].mean(axis=0) for label in range(10)])
    nearest = np.linalg.norm(described[200:, None] - means, axis=2).argmin(axis=1)
    assert (nearest == labels[200:]).mean() > 0.3


def test_reading_through_the_manifest():
    found = load_manifest("synth:20")
    whole = synth.render(0, 12, 16000)
    np.testing.assert_array_equal(found.read(12, 16000), whole)
    np.testing.assert_array_equal(found.read(12, 16000, offset=1.0, seconds=0.5), whole[16000:24000])


@pytest.mark.parametrize("path", ["synth://x/1", "synth://1", "file.wav"])
def test_wrong_path(path):
    with pytest.raises(InputError, match="SEED/INDEX"):
        synth.parse(path)
