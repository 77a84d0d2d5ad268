"""Digital silence, clip by clip."""

import numpy as np
import soundfile

from asit_lab.data import load_manifest, measure_silence
from asit_lab.data.silence import sounding


def test_share_of_zeros_and_unreadable_clips(tmp_path):
    tone = np.sin(np.arange(8000) / 10) * 0.5 + 0.5001  # never zero
    half = np.concatenate([tone[:4000], np.zeros(4000)])
    for name, wave in {"a": tone, "b": half, "c": np.full(8000, np.nan)}.items():
        soundfile.write(tmp_path / f"{name}.wav", wave, 8000, subtype="FLOAT")
    shares, unreadable = measure_silence(load_manifest(f"folder:{tmp_path}"))
    np.testing.assert_allclose(shares, [0, 0.5, np.nan])
    assert [row for row, _ in unreadable] == [2]
    assert "c.wav" in unreadable[0][1]


def test_many_clips_are_measured_evenly_spread(tmp_path):
    for i in range(20):
        soundfile.write(tmp_path / f"{i:02d}.wav", np.full(800, 0.1), 8000)
    shares, _ = measure_silence(load_manifest(f"folder:{tmp_path}"), most=5)
    assert np.isfinite(shares).sum() == 5
    assert np.isfinite(shares[[0, 19]]).all()


def test_sounding_leaves_out_what_is_silent_at_both_ends():
    wave = np.zeros(1000, np.float32)
    wave[300:500] = 0.5
    wave[400] = 0.0  # silence inside a sound belongs to it
    wave[:300] = 5e-5  # what a codec leaves of silence
    assert np.array_equal(sounding(wave, 10), wave[300:500])
    assert np.array_equal(sounding(wave, 400), wave[300:700])  # a crop's length, where the clip has it
    assert np.array_equal(sounding(wave, 900), wave[100:1000])
    assert np.array_equal(sounding(wave, 5000), wave)
    silent = np.zeros(1000, np.float32)
    assert np.array_equal(sounding(silent, 10), silent)
