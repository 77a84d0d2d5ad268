"""What phones and browsers record, through PyAV; without it, what adds it is said."""

import sys

import av
import numpy as np
import pytest
from odd_audio import tone

from asit_lab import audio
from asit_lab.data import load_manifest
from asit_lab.errors import InputError

KINDS = {"m4a": "aac", "mp4": "aac", "aac": "aac", "webm": "libopus", "mkv": "libopus", "3gp": "aac", "mka": "flac"}


def write(path, codec, seconds=5.0, rate=48000):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = tone(seconds, rate)
    kind = {"flac": "s16"}.get(codec, "fltp")
    with av.open(str(path), "w", format={"aac": "adts", "mka": "matroska"}.get(path.suffix[1:])) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        samples = (wave * 32767).astype(np.int16) if kind == "s16" else wave
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16" if kind == "s16" else "flt", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or 960
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("suffix", "codec"), KINDS.items())
def test_length_and_stretch(tmp_path, suffix, codec):
    path = write(tmp_path / f"a.{suffix}", codec)
    header = audio.info(path)
    assert (header.sample_rate, header.channels) == (48000, 1) and header.seconds == pytest.approx(5.0, abs=0.1)
    wave = audio.read(path, 16000)
    assert len(wave) / 16000 == pytest.approx(5.0, abs=0.1)
    expected = tone(5.0, 48000)[::3][: len(wave)]  # a tone of 440 Hz: nothing to filter
    spectrum = np.abs(np.fft.rfft(wave))
    assert abs(np.argmax(spectrum) * 16000 / len(wave) - 440) < 1 and abs(wave.std() / expected.std() - 1) < 0.1
    part = audio.read(path, 16000, 3.0, 1.0)
    assert len(part) == 16000
    assert np.abs(part - wave[48000:64000])[1000:-1000].max() < 0.02


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("suffix", ["m4a", "webm", "aac"])
def test_cut(tmp_path, suffix, share):
    path = write(tmp_path / f"a.{suffix}", KINDS[suffix])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    try:
        wave = audio.read(path, 16000)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert 0 < len(wave) < 5.0 * 16000


def test_without_pyav_each_file_is_listed_with_what_adds_it(tmp_path, monkeypatch):
    write(tmp_path / "dog" / "a.m4a", "aac")
    import soundfile

    soundfile.write(tmp_path / "dog" / "b.wav", tone(), 16000)
    assert len(load_manifest(f"folder:{tmp_path}")) == 2
    monkeypatch.setitem(sys.modules, "av", None)
    manifest = load_manifest(f"folder:{tmp_path}")
    assert len(manifest) == 1
    assert manifest.bad["reason"].tolist() == [".m4a files need PyAV: pip install av, or convert it to FLAC"]
