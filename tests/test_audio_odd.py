"""Odd files of every kind: each is read right, or refused with a reason that names it; none crashes or hangs."""

import numpy as np
import odd_audio
import pytest
import soundfile

from asit_lab import audio
from asit_lab.errors import InputError

READABLE, UNREADABLE, CUT = odd_audio.readable(), odd_audio.unreadable(), odd_audio.cut()


def test_there_are_many_kinds():
    assert len(READABLE) + len(UNREADABLE) >= 60 and len(CUT) >= 60


@pytest.mark.parametrize("name", READABLE)
def test_odd_but_good(tmp_path, name):
    path, (content, seconds) = tmp_path / name, READABLE[name]
    path.write_bytes(content)
    header = audio.info(path)
    wave = audio.read(path, 16000)
    assert header.seconds == pytest.approx(seconds, abs=0.25)
    assert len(wave) / 16000 == pytest.approx(seconds, abs=0.25) and np.isfinite(wave).all()
    part = audio.read(path, 16000, 1.0, 0.5)
    tolerance = 5e-4 * max(1.0, np.abs(wave).max())  # where a lossy codec is entered in the middle
    if path.suffix not in (".mp3", ".ogg", ".opus"):
        np.testing.assert_allclose(part, wave[16000:24000], atol=tolerance)
    else:
        assert len(part) == 8000
    pieces = list(audio.blocks(path, 16000, 1.0))
    assert {len(piece) for piece in pieces[:-1]} == {16000}
    joined = np.concatenate(pieces)
    assert abs(len(joined) - len(wave)) <= 1
    np.testing.assert_allclose(joined[: len(wave)], wave[: len(joined)], atol=tolerance)


@pytest.mark.parametrize("name", UNREADABLE)
def test_no_sound(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(UNREADABLE[name])
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        audio.info(path)
        audio.read(path, 16000)


@pytest.mark.parametrize("name", CUT)
def test_cut(tmp_path, name):
    """What was read is the beginning of the sound, and nearly all of it; else the reason is given."""
    path = tmp_path / name
    path.write_bytes(CUT[name])
    try:
        wave = audio.read(path, 16000)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
        assert "0.999" not in name or path.suffix in (".ogg", ".mp3", ".caf", ".voc")
        return
    assert len(wave) >= 0.949 * 80000 or path.suffix == ".sph"  # libsndfile says nothing of a cut SPHERE file
    full = odd_audio.tone()[: len(wave)]
    assert np.abs(wave[: len(full)] - full).mean() < 0.05


def test_what_is_said_of_a_length_that_was_wrong(tmp_path):
    path = tmp_path / "a.flac"
    path.write_bytes(odd_audio.flac_with(0))
    assert audio.info(path).note == "FLACs without a length in their header: read to the end"
    soundfile.write(path, odd_audio.tone(), 16000)
    assert audio.info(path).note == ""


def test_a_long_file_in_blocks_equals_it_in_one_piece(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, odd_audio.tone(100.0, 44100), 44100)
    joined = np.concatenate(list(audio.blocks(path, 16000, 7.0)))
    np.testing.assert_allclose(joined, audio.read(path, 16000), atol=1e-6)
