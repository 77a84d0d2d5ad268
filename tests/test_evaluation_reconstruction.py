"""Reconstruction baselines on small arrays worked out by hand, and the error on recordings held out."""

import numpy as np
import pytest
import soundfile
import torch

from asit_lab import load_config
from asit_lab.data import load_manifest
from asit_lab.encoder import Encoder, Reconstruction
from asit_lab.errors import InputError
from asit_lab.features import LOG_FLOOR, LogMel
from asit_lab.inspection.reconstruction_error import (
    METHODS,
    SILENCE,
    above_silence,
    band_means,
    baselines,
    clip_errors,
    estimates,
    events,
    interpolate_in_time,
    reconstruction_errors,
)
from asit_lab.settings import Features

RATE = 16000


def test_interpolation_by_hand():
    x = np.nan  # what stands under the mask must not matter
    bands = [
        [1.0, x, x, 4.0, 6.0, x],  # between 1 and 4; the last value goes on
        [x, x, 3.0, x, 5.0, 7.0],  # the first value goes back
        [x, x, x, x, x, x],  # nothing to go by: the training mean
        [9.0, 8.0, 7.0, 6.0, 5.0, 4.0],  # untouched
    ]
    clean = np.array(bands, dtype=np.float32).T[None]
    mask = np.isnan(clean)
    mean = np.array([-1.0, -2.0, -3.0, -4.0], dtype=np.float32)
    expected = [
        [1.0, 2.0, 3.0, 4.0, 6.0, 6.0],
        [3.0, 3.0, 3.0, 4.0, 5.0, 7.0],
        [-3.0] * 6,
        [9.0, 8.0, 7.0, 6.0, 5.0, 4.0],
    ]
    found = baselines(clean, mask, mean)
    assert found["linear interpolation in time"].dtype == np.float32
    np.testing.assert_allclose(found["linear interpolation in time"][0].T, expected)
    np.testing.assert_array_equal(found["per-band training mean"][0, :, 0], [1.0, -1.0, -1.0, 4.0, 6.0, -1.0])
    np.testing.assert_array_equal(found["per-band training mean"][0, :, 3], clean[0, :, 3])


def test_interpolation_equals_numpy_band_by_band():
    generator = np.random.default_rng(0)
    clean = generator.standard_normal((3, 40, 5))
    mask = generator.random((3, 40, 5)) < 0.7
    found = interpolate_in_time(clean, mask, np.zeros(5))
    time = np.arange(40)
    for clip in range(3):
        for band in range(5):
            known = ~mask[clip, :, band]
            expected = np.interp(time, time[known], clean[clip, known, band])
            np.testing.assert_allclose(found[clip, :, band], expected, atol=1e-12)


def test_shapes_that_do_not_fit():
    with pytest.raises(InputError, match=r"clean \(1, 4, 3\).*band mean \(2,\)"):
        baselines(np.zeros((1, 4, 3)), np.zeros((1, 4, 3), bool), np.zeros(2))


def test_silence_is_digital_silence_and_its_neighbourhood():
    front_end = LogMel.from_config(Features(sample_rate=RATE, mel_bins=64))
    wave = torch.zeros(2, RATE)
    wave[1] = 0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    raw = front_end(wave).numpy()
    assert not above_silence(raw[0]).any()
    assert above_silence(raw[1]).all()
    assert LOG_FLOOR < SILENCE < LOG_FLOOR + 1


@pytest.fixture
def recordings(tmp_path):
    """(train, held): noise of changing level, each clip ending in digital silence."""
    generator = np.random.default_rng(0)
    for i in range(8):
        wave = 0.05 * (1 + i) * generator.standard_normal(2 * RATE)
        wave[RATE + RATE // 2 :] = 0.0
        soundfile.write(tmp_path / f"{i}.wav", wave, RATE)
    return load_manifest(f"folder:{tmp_path}").holdout(0.5)


def with_reconstruction(change) -> Encoder:
    """An encoder whose reconstruction is `change` of the clean log-mel."""
    enc = Encoder.random(load_config("smoke"))
    inner = enc.reconstruct

    def reconstruct(*args, **kwargs):
        found = inner(*args, **kwargs)
        return Reconstruction(found.clean, found.corrupted, change(found), found.mask)

    enc.reconstruct = reconstruct
    return enc


def errors_of(enc, train, held, **settings) -> dict[str, float]:
    table = reconstruction_errors(enc, train, held, **settings)
    return dict(zip(table["method"], table["l1"], strict=True))


def test_band_means_leave_silence_out(recordings):
    train, _ = recordings
    front_end = LogMel.from_config(load_config("smoke").features)
    raw = np.stack([front_end(torch.from_numpy(train.read(i, RATE))[None])[0].numpy() for i in range(len(train))])
    expected = np.ma.masked_array(raw, raw <= SILENCE).mean(axis=(0, 1))
    assert (raw <= SILENCE).mean() > 0.2
    np.testing.assert_allclose(band_means(train, front_end), expected, rtol=1e-5, atol=1e-5)


def test_error_counts_corrupted_pixels_above_silence_only(recordings):
    train, held = recordings
    std = load_config("smoke").features.std

    def off(found):  # wrong by 0.25 where it counts, by far more where it does not
        raw = found.clean * 2 * std + load_config("smoke").features.mean
        counts = found.mask & (raw > SILENCE)
        return torch.where(counts, found.clean + 0.25, found.clean + 100.0)

    table = reconstruction_errors(with_reconstruction(off), train, held)
    row = table.set_index("method").loc["reconstruction"]
    assert row["l1"] == pytest.approx(0.25, abs=1e-5)
    assert row["l1_log"] == pytest.approx(0.25 * 2 * std, abs=1e-4)
    assert row["clips"] == len(held)
    assert 0 < row["event_pixels"] < row["pixels"] < len(held) * 96 * 64
    assert row["events_log"] == pytest.approx(row["l1_log"]) == row["rest_log"]
    assert table.attrs["corrupted"] == pytest.approx(0.7, abs=0.04)


def test_events_stand_10_db_above_the_median_of_their_band():
    raw = np.full((1, 10, 3), -8.0)
    raw[0, 4:6, 0] += 2.4  # 10.4 dB
    raw[0, 4:6, 1] += 2.2  # 9.6 dB
    raw[0, 2:, 2] += 5.0  # most of the band: it is the background
    assert np.argwhere(events(raw)).tolist() == [[0, 4, 0], [0, 5, 0]]


def test_events_and_the_rest_are_measured_apart(recordings):
    train, held = recordings
    enc = with_reconstruction(lambda found: found.clean)
    front_end = enc.front_end

    def off_at_events(found):
        raw = front_end.denormalise(found.clean).numpy()
        return torch.where(torch.from_numpy(events(raw)), found.clean + 0.5, found.clean)

    table = reconstruction_errors(with_reconstruction(off_at_events), train, held)
    row = table.set_index("method").loc["reconstruction"]
    assert row["events_log"] == pytest.approx(0.5 * 2 * front_end.std, rel=1e-4) and row["rest_log"] < 1e-4
    assert row["l1_log"] == pytest.approx(row["events_log"] * row["event_pixels"] / row["pixels"], rel=1e-4)


def test_baseline_errors_are_those_of_their_arrays(recordings):
    train, held = recordings
    seen = []
    enc = with_reconstruction(lambda found: seen.append(found) or found.corrupted)
    found = errors_of(enc, train, held)
    clean, mask = (torch.cat([getattr(one, name) for one in seen]).numpy() for name in ("clean", "mask"))
    front_end = enc.front_end
    mean = front_end.normalise(torch.from_numpy(band_means(train, front_end))).numpy()
    counts = mask & (front_end.denormalise(torch.from_numpy(clean)).numpy() > SILENCE)
    for name, filled in {**baselines(clean, mask, mean), "reconstruction": np.where(mask, 0.0, clean)}.items():
        assert found[name] == pytest.approx(np.abs(filled - clean)[counts].mean(), rel=1e-4), name
    assert found["linear interpolation in time"] != found["per-band training mean"]


def test_errors_repeat_and_do_not_depend_on_the_batch(recordings):
    train, held = recordings
    enc = Encoder.random(load_config("smoke"))
    found = errors_of(enc, train, held)
    assert list(found) == list(METHODS)
    assert errors_of(enc, train, held) == found
    assert errors_of(enc, train, held, batch_size=1) == pytest.approx(found, rel=1e-4)
    assert errors_of(enc, train, held, seed=1) != found
    few = reconstruction_errors(enc, train, held, clips=2, train_clips=1)
    assert few["clips"].tolist() == [2, 2, 2]


def test_errors_of_single_clips(recordings):
    """They are those of the table, of a manifest with one clip at a time."""
    _, held = recordings
    enc, done = Encoder.random(load_config("smoke")), []
    table = clip_errors(enc, held, batch_size=2, on_batch=lambda *parts: done.append(parts))
    assert table["row"].tolist() == list(range(len(held))) and done[-1] == (len(held), len(held))
    np.testing.assert_allclose(table["ratio"], table["error"] / table["line"])
    raw_means, unit = np.full(64, enc.front_end.mean), 2 * enc.front_end.std
    (crop,) = estimates(enc, held, [1], raw_means)
    expected = crop.errors["reconstruction"][crop.counts].mean() * unit
    assert table["error"][1] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(InputError, match="has no decoder"):
        clip_errors(Encoder(enc.config, enc.backbone), held)


def test_what_cannot_be_measured_is_said(recordings, tmp_path):
    train, held = recordings
    enc = Encoder.random(load_config("smoke"))
    with pytest.raises(InputError, match="is in training and held out both"):
        reconstruction_errors(enc, train, train)
    without = Encoder(enc.config, enc.backbone, name="teacher only")
    with pytest.raises(InputError, match="teacher only: has no decoder"):
        reconstruction_errors(without, train, held)
    soundfile.write(tmp_path / "silent.wav", np.zeros(2 * RATE), RATE)
    manifest = load_manifest(f"folder:{tmp_path}")
    silent = manifest.subset(manifest.table["path"].str.endswith("silent.wav").to_numpy())
    with pytest.raises(InputError, match="no corrupted pixel above the silence floor in 1 held-out"):
        reconstruction_errors(enc, train, silent)
