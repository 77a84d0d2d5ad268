"""Log-mel features against torchaudio's port of Kaldi, padding, measuring a data set, and the inverse."""

import math

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from asit_lab.config import load_config
from asit_lab.data import load_manifest
from asit_lab.data.statistics import measure
from asit_lab.errors import InputError
from asit_lab.features import LOG_FLOOR, PAD, LogMel, mel_bank
from asit_lab.settings import Features

SETTINGS = [(32000, 128), (16000, 128), (16000, 64)]


def kaldi(wave: torch.Tensor, rate: int, mel_bins: int) -> torch.Tensor:
    """What the published code calls, on one clip [S], in float64: in float32 its rounding depends on the processor."""
    wave = wave.double()
    return torchaudio.compliance.kaldi.fbank(
        (wave - wave.mean())[None],
        sample_frequency=rate,
        num_mel_bins=mel_bins,
        htk_compat=True,
        use_energy=False,
        window_type="hanning",
        dither=0.0,
        frame_shift=10,
    )


def clips(rate: int, seconds: float = 0.5) -> torch.Tensor:
    """[5, S]: noise, noise on a large offset, digital silence, a constant, and a chirp that ends in silence."""
    generator = torch.Generator().manual_seed(0)
    samples = int(rate * seconds)
    time = torch.arange(samples) / rate
    noise = 0.1 * torch.randn(samples, generator=generator)
    chirp = 0.5 * torch.sin(2 * math.pi * (100 + 0.4 * rate / seconds * time / 2) * time)
    chirp[samples * 2 // 3 :] = 0
    return torch.stack([noise, 1e-3 * noise + 0.4, torch.zeros(samples), torch.full((samples,), 0.25), chirp])


# --- equal to Kaldi -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
@pytest.mark.parametrize(("rate", "mel_bins"), SETTINGS)
def test_equal_to_kaldi_clip_by_clip(rate, mel_bins):
    wave = clips(rate)
    raw, exact = LogMel(rate, mel_bins)(wave), LogMel(rate, mel_bins).double()(wave)
    wanted = torch.stack([kaldi(clip, rate, mel_bins) for clip in wave])
    assert raw.shape == wanted.shape == (5, 48, mel_bins)
    assert raw.dtype == torch.float32 and exact.dtype == torch.float64
    assert (exact - wanted).abs().max() < 2e-3  # window and mel bank are float32 in both
    error = (raw - wanted).abs()
    deep = wanted < wanted.amax(-1, keepdim=True) - 20  # nats; below what float32 resolves
    assert error[~deep].max() < 2e-3
    assert error.max() < 2e-2
    floor = wanted <= LOG_FLOOR + 1e-6
    assert floor[2].all()
    assert floor[3].all()
    assert (raw[floor] - LOG_FLOOR).abs().max() < 1e-5


@pytest.mark.parametrize(("rate", "mel_bins"), SETTINGS)
def test_a_batch_gives_what_its_clips_give_alone(rate, mel_bins):
    features, wave = LogMel(rate, mel_bins), clips(rate)
    alone = torch.cat([features(clip[None]) for clip in wave])
    assert (features(wave) - alone).abs().max() < 1e-4
    assert (features(wave.repeat(30, 1))[-5:] - alone).abs().max() < 1e-4  # several chunks


@pytest.mark.parametrize(("frame_ms", "hop_ms", "low_hz", "high_hz"), [(25, 10, 50, 7000), (32, 16, 20, 0)])
def test_other_frames_and_edges(frame_ms, hop_ms, low_hz, high_hz):
    wave = clips(16000)[0]
    wanted = torchaudio.compliance.kaldi.fbank(
        (wave.double() - wave.double().mean())[None],
        sample_frequency=16000,
        num_mel_bins=40,
        htk_compat=True,
        window_type="hanning",
        frame_length=frame_ms,
        frame_shift=hop_ms,
        low_freq=low_hz,
        high_freq=high_hz,
    )
    raw = LogMel(16000, 40, frame_ms, hop_ms, low_hz, high_hz)(wave[None])[0]
    assert (raw - wanted).abs().max() < 2e-3


def test_number_of_frames():
    features = LogMel(16000, 8)
    samples = [0, 399, 400, 401, 559, 560, 561, 16000]
    counted = [sum(1 for start in range(0, n, 160) if start + 400 <= n) for n in samples]
    assert [features.frames_of(n) for n in samples] == counted
    assert features.frames_of(torch.tensor(samples)).tolist() == counted
    assert features(torch.randn(1, 561)).shape == (1, 2, 8)


def test_arithmetic_stays_full_precision_under_autocast():
    features, wave = LogMel(16000, 64), clips(16000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(features(wave), features(wave.clone()))
        raw = features(wave)
    assert raw.dtype == torch.float32
    assert torch.equal(raw, features(wave))


def test_nothing_of_it_is_saved_or_trained():
    features = LogMel()
    assert features.state_dict() == {}
    assert list(features.parameters()) == []


def test_from_config_takes_every_setting():
    settings = load_config("micro").features
    features = LogMel.from_config(settings)
    assert (features.sample_rate, features.mel_bins) == (settings.sample_rate, settings.mel_bins) == (16000, 64)
    assert (features.mean, features.std) == (settings.mean, settings.std)
    assert (features.frame, features.hop) == (400, 160)


# --- padding --------------------------------------------------------------------------------------------------------


def test_a_padded_clip_keeps_its_frames_and_gets_pad_behind_them():
    features, wave = LogMel(16000, 64), clips(16000)
    lengths = torch.tensor([wave.shape[1], 5000, 401, 399, 6399])
    padded = wave.clone()
    for clip, length in zip(padded, lengths, strict=True):
        clip[length:] = 0.0
    raw = features(padded, lengths)
    for i, length in enumerate(lengths.tolist()):
        frames = features.frames_of(length)
        assert (raw[i, frames:] == PAD).all()
        if frames:
            alone = features(wave[i : i + 1, :length])[0]
            assert (raw[i, :frames] - alone).abs().max() < 1e-4
    assert torch.isfinite(raw).all()


def test_samples_past_the_length_do_not_matter():
    features, wave = LogMel(16000, 64), clips(16000)
    lengths = torch.tensor([3000] * 5)
    other = wave.clone()
    other[:, 3000:] = 0.7
    assert torch.equal(features(wave, lengths), features(other, lengths))


def test_fit_cuts_and_pads_before_normalising():
    features = LogMel(16000, 64, mean=-7.0, std=4.5)
    raw = torch.randn(2, 20, 64) - 5.0
    assert torch.equal(features.fit(raw, 16), raw[:, :16])
    assert torch.equal(features.fit(raw, 20), raw)
    padded = features.fit(raw, 32)
    assert padded.shape == (2, 32, 64)
    assert torch.equal(padded[:, :20], raw)
    assert (padded[:, 20:] == PAD).all()
    assert torch.allclose(features.normalise(padded)[:, 20:], torch.tensor(7.0 / 9.0))


def test_normalise_and_back():
    features = LogMel(16000, 64, mean=-7.0, std=4.5)
    raw = torch.tensor([-16.0, -7.0, 2.0])
    assert torch.allclose(features.normalise(raw), torch.tensor([-1.0, 0.0, 1.0]))
    assert torch.allclose(features.denormalise(features.normalise(raw)), raw)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(500.0, 400.0), (20.0, 8001.0), (9000.0, 0.0), (300.0, 300.0)])
def test_band_edges_that_make_no_bank(low, high):
    with pytest.raises(InputError, match=r"features\.low_hz .* low < high <= 8000"):
        mel_bank(64, 512, 16000, low, high)


def test_bad_waves_and_frames():
    features = LogMel(16000, 64)
    with pytest.raises(InputError, match="399 samples are shorter than one frame of 400"):
        features(torch.zeros(1, 399))
    with pytest.raises(InputError, match=r"expected \[batch, samples\], got shape \(500,\)"):
        features(torch.zeros(500))
    with pytest.raises(InputError, match="too short at 1000 Hz"):
        LogMel(1000, 4, frame_ms=1.0)


# --- measuring a data set -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Three clips of different length and loudness in two classes."""
    generator = np.random.default_rng(0)
    for name, seconds, loud in (("a/1", 0.3, 0.5), ("a/2", 0.5, 0.05), ("b/3", 0.2, 0.001)):
        path = tmp_path / "clips" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = loud * generator.uniform(-1, 1, int(16000 * seconds))
        soundfile.write(path, wave, 16000, subtype="FLOAT")
    return tmp_path / "clips"


def direct(paths) -> torch.Tensor:
    """Every frame of the files, [frames, mel], by torchaudio."""
    return torch.cat([kaldi(torch.from_numpy(soundfile.read(p, dtype="float32")[0]), 16000, 64) for p in paths])


def test_measure_is_the_mean_over_all_frames(folder):
    features = Features(sample_rate=16000, mel_bins=64)
    mean, std, band_mean, band_std = measure(load_manifest(f"folder:{folder}"), features)
    frames = direct(sorted(folder.rglob("*.wav"))).double()
    assert mean == pytest.approx(frames.mean().item(), abs=1e-3)
    assert std == pytest.approx(frames.std(correction=0).item(), abs=1e-3)
    np.testing.assert_allclose(band_mean, frames.mean(0), atol=1e-3)
    np.testing.assert_allclose(band_std, frames.std(0, correction=0), atol=1e-3)


def test_measure_some_clips_takes_them_evenly(folder):
    features = Features(sample_rate=16000, mel_bins=64)
    mean, *_ = measure(load_manifest(f"folder:{folder}"), features, clips=2)
    paths = sorted(folder.rglob("*.wav"))
    assert mean == pytest.approx(direct([paths[0], paths[2]]).mean().item(), abs=1e-3)


def test_measure_leaves_out_what_cannot_be_read(folder):
    features = Features(sample_rate=16000, mel_bins=64)
    manifest = load_manifest(f"folder:{folder}")
    paths = sorted(folder.rglob("*.wav"))
    paths[0].unlink()
    mean, *_ = measure(manifest, features)
    assert mean == pytest.approx(direct(paths[1:]).mean().item(), abs=1e-3)
    for path in paths[1:]:
        path.unlink()
    with pytest.raises(InputError, match="no clip could be read"):
        measure(manifest, features)


def test_measure_leaves_out_clips_shorter_than_a_frame(folder):
    """A long frame makes a readable clip too short for even one of them."""
    features = Features(sample_rate=16000, mel_bins=64, frame_ms=250.0)
    mean, *_ = measure(load_manifest(f"folder:{folder}"), features)
    front_end = LogMel.from_config(features)
    waves = [torch.from_numpy(soundfile.read(p, dtype="float32")[0]) for p in sorted(folder.rglob("*.wav"))[:2]]
    wanted = torch.cat([front_end(wave[None])[0] for wave in waves]).mean().item()  # the third has 200 ms
    assert mean == pytest.approx(wanted, abs=1e-4)


# --- back to audio --------------------------------------------------------------------------------------------------


def test_invert_sounds_like_the_log_mel():
    features, time = LogMel(16000, 64), torch.arange(16000) / 16000
    for tone in (440.0, 2500.0):
        noise = torch.randn(16000, generator=torch.Generator().manual_seed(0))
        wave = 0.3 * torch.sin(2 * math.pi * tone * time) + 1e-3 * noise
        raw = features(wave[None])[0]
        heard = features.invert(raw.numpy(), iterations=16)
        assert heard.dtype == np.float32
        assert abs(len(heard) - 16000) <= features.fft_size
        assert 0.2 < np.abs(heard).max() < 0.6  # as loud as it was, without clicks at the ends
        spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
        assert spectrum.argmax() * 16000 / len(heard) == pytest.approx(tone, rel=0.06)  # about a mel band
        again = features(torch.from_numpy(heard)[None])[0]
        frames = slice(5, min(len(again), len(raw)) - 5)
        loud = raw[frames] > raw.max() - 8.0
        assert (again[frames] - raw[frames])[loud].abs().mean() < 1.0


def test_invert_wants_frames_by_mel_bands():
    with pytest.raises(InputError, match=r"expected \[frames, 64\], got shape \(64, 10\)"):
        LogMel(16000, 64).invert(np.zeros((64, 10)))
