"""Reading audio files: what comes out, and what is said about files that cannot be used."""

import numpy as np
import pytest
import soundfile

from asit_lab import audio
from asit_lab.errors import InputError


def tone(seconds, rate, hertz=440.0, level=0.5):
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def cut(path, share):
    """Keep the first `share` of the file's bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (192000, 1), (48000, 8), (8000, 1)])
def test_any_rate_and_channel_count_becomes_mono_at_the_rate_asked_for(tmp_path, rate, channels):
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.stack([tone(1.0, rate)] * channels, axis=1), rate, subtype="FLOAT")
    header = audio.info(path)
    assert (header.sample_rate, header.channels, header.frames, header.seconds) == (rate, channels, rate, 1.0)
    wave = audio.read(path, 16000)
    assert wave.dtype == np.float32 and wave.shape == (16000,)
    middle = slice(1000, -1000)  # away from the ends, where a resampler's filter runs out of signal
    assert np.abs(wave - tone(1.0, 16000))[middle].max() < 1e-3


def test_channels_are_averaged(tmp_path):
    path = tmp_path / "two.wav"
    soundfile.write(path, np.stack([np.full(800, 0.5), np.full(800, -0.25)], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(audio.read(path, 16000), 0.125)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "au"])
def test_formats(tmp_path, suffix):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(2.0, 16000), 16000)
    assert len(audio.read(path, 16000)) == 32000


@pytest.mark.parametrize("rate", [16000, 44100, 22050, 44101])
@pytest.mark.parametrize(("start", "seconds"), [(0.0, 1.0), (1.2345, 0.5), (2.0, None), (2.75, 1.0)])
def test_a_stretch_equals_that_stretch_of_the_whole(tmp_path, rate, start, seconds):
    path = tmp_path / "noise.wav"
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.uniform(-0.5, 0.5, 3 * rate), rate, subtype="FLOAT")
    whole = audio.read(path, 16000)
    first = round(start * 16000)
    expected = whole[first:] if seconds is None else whole[first : first + round(seconds * 16000)]
    np.testing.assert_allclose(audio.read(path, 16000, start, seconds), expected, atol=2e-5)


def test_only_the_stretch_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    soundfile.write(path, tone(30.0, 16000), 16000)
    decoded, read = [], soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *a, **k: decoded.append(read(*a, **k)) or decoded[-1])
    audio.read(path, 8000, 10.0, 1.0)
    assert 16000 <= sum(map(len, decoded)) < 1.5 * 16000


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"gone\.wav: no such file"):
        audio.read(tmp_path / "gone.wav", 16000)


def test_folder_instead_of_a_file(tmp_path):
    with pytest.raises(InputError, match="a folder"):
        audio.info(tmp_path)


@pytest.mark.parametrize("name", ["noise.wav", "noise.mp3", "noise.flac", "noise.raw"])
def test_not_audio(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"this is no audio at all " * 100)
    with pytest.raises(InputError, match=rf"{name}: .*(not audio|corrupt)"):
        audio.read(path, 16000)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "au", "rf64"])
def test_truncated(tmp_path, suffix):
    """What is there is read, and the file is counted among those that end early."""
    path = tmp_path / f"half.{suffix}"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 160000)
    soundfile.write(path, noise, 16000, format="RF64" if suffix == "rf64" else None)
    cut(path, 0.7)
    wave, header = audio.read(path, 16000), audio.info(path)
    assert 6.0 < len(wave) / 16000 < 7.1 and header.seconds == pytest.approx(len(wave) / 16000, abs=0.01)
    assert header.note in (
        f"{suffix.upper()}s that end before their header says: read to the end",
        "Oggs without an end-of-stream page: read to the last page",
    )


def test_a_streamed_wav_without_a_length_is_not_truncated(tmp_path):
    path = tmp_path / "streamed.wav"
    soundfile.write(path, tone(1.0, 16000), 16000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4  # the sizes of RIFF and data as a writer to a pipe leaves them
    path.write_bytes(content)
    assert len(audio.read(path, 16000)) == 16000


def test_zero_bytes(tmp_path):
    path = tmp_path / "empty.wav"
    path.touch()
    with pytest.raises(InputError, match=r"empty\.wav: zero length"):
        audio.read(path, 16000)


def test_header_without_samples(tmp_path):
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.zeros(0), 16000)
    with pytest.raises(InputError, match=r"empty\.wav: zero length"):
        audio.info(path)


def test_three_milliseconds(tmp_path):
    path = tmp_path / "blip.wav"
    soundfile.write(path, tone(0.003, 16000), 16000)
    with pytest.raises(InputError, match=r"blip\.wav: 3 ms long, shorter than 25 ms"):
        audio.read(path, 16000)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers(tmp_path, value):
    path = tmp_path / "nan.wav"
    wave = tone(1.0, 16000)
    wave[100:103] = value
    soundfile.write(path, wave, 16000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"nan\.wav: 3 samples are NaN"):
        audio.read(path, 16000)


def test_rates_and_lengths_of_nought(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1.0, 8000), 8000)
    for arguments, words in (((0,), "sample_rate: 0; expected"), ((8000, 0.0, 0), "seconds: 0; expected more than 0")):
        with pytest.raises(InputError, match=words):
            audio.read(path, *arguments)


def test_stretch_outside_the_file(tmp_path):
    path = tmp_path / "short.wav"
    soundfile.write(path, tone(1.0, 16000), 16000)
    with pytest.raises(InputError, match=r"short\.wav: no audio at 2 s"):
        audio.read(path, 16000, start=2.0)
