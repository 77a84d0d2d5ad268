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


def cut_cases():
    often = ("cut_0.001.", "cut_0.02.", "cut_0.5.", "cut_0.95.")
    return [pytest.param(name, marks=() if name.startswith(often) else pytest.mark.slow) for name in CUT]


@pytest.mark.parametrize("name", cut_cases())
def test_cut(tmp_path, name):
    """What is before the cut is read, all but a codec's last page; the header's length is given up, which is noted."""
    path, (content, seconds) = tmp_path / name, CUT[name]
    path.write_bytes(content())
    try:
        header, wave = audio.info(path), audio.read(path, 16000)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
        assert seconds is None
        return
    page = 1.1 if path.suffix in (".ogg", ".opus") else 0.3
    assert header.seconds == pytest.approx(len(wave) / 16000, abs=0.3)
    if seconds is None:
        return
    assert seconds - page < header.seconds < seconds + 0.1
    assert header.note or path.suffix == ".avr" or "0.999" in name
    assert len(audio.read(path, 16000, header.seconds - 0.5, 0.5)) >= 0.1 * 16000  # rows at the end can be read
    if not name.endswith((".au", "gsm.wav", "ulaw.wav")):  # 8 kHz
        full = odd_audio.tone(20.0)[: len(wave)]
        assert np.abs(wave[: len(full)] - full).mean() < 0.05


def test_damage_in_the_middle_is_refused(tmp_path):
    """Unlike a cut it is only found when the file is decoded, so its rows would have another length than listed."""
    path, content = tmp_path / "a.flac", odd_audio.encoded("FLAC", odd_audio.tone(20.0))
    path.write_bytes(content[: len(content) // 2] + bytes(30_000) + content[len(content) // 2 + 30_000 :])
    with pytest.raises(InputError, match=r"a\.flac: corrupt: of 320000 samples only 1\d{5} can be decoded"):
        audio.read(path, 16000)


def test_what_is_said_of_a_length_that_was_wrong(tmp_path):
    path = tmp_path / "a.flac"
    path.write_bytes(odd_audio.flac_with(0))
    assert audio.info(path).note == "FLACs without a length in their header: read to the end"
    soundfile.write(path, odd_audio.tone(), 16000)
    assert audio.info(path).note == ""


def test_a_damaged_file_is_refused_in_blocks_as_in_one_piece(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, odd_audio.tone(60.0), 16000)
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : third + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(content)
    with pytest.raises(InputError, match="corrupt: of 960000 samples only") as refusal:
        audio.read(path, 16000)
    pieces = []
    with pytest.raises(InputError) as in_blocks:
        pieces.extend(audio.blocks(path, 16000, 5.0))
    assert str(in_blocks.value) == str(refusal.value)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("start", [-0.5, 5.05])
def test_no_audio_before_or_behind_a_file_of_unknown_length(tmp_path, rate, start):
    path = tmp_path / "a.flac"
    path.write_bytes(odd_audio.flac_with(0))
    with pytest.raises(InputError, match=f"no audio at {start:g} s"):
        audio.read(path, rate, start=start)


def test_a_long_file_in_blocks_equals_it_in_one_piece(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, odd_audio.tone(100.0, 44100), 44100)
    joined = np.concatenate(list(audio.blocks(path, 16000, 7.0)))
    np.testing.assert_allclose(joined, audio.read(path, 16000), atol=1e-6)
