"""Headers of big data sets are remembered, and never believed once a file has changed."""

import os

import numpy as np
import pytest
import soundfile

from asit_lab.audio import AudioInfo
from asit_lab.data import headers


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Six files, one of them no audio; every data set counts as big, and what is read is noted."""
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(headers, "CACHED_FROM", 1)
    paths = [str(tmp_path / f"{n}.wav") for n in range(6)]
    for n, path in enumerate(paths[:5]):
        soundfile.write(path, np.zeros((800 * (n + 1), 1 + n % 2)), 8000)
    (tmp_path / "5.wav").write_bytes(b"no audio")
    return paths


@pytest.fixture
def read(monkeypatch):
    """The paths whose headers were read from the files themselves."""
    read, info = [], headers.info
    monkeypatch.setattr(headers, "info", lambda path: read.append(path) or info(path))
    return read


def test_headers_are_read_once(files, read):
    first = headers.read_headers(files)
    assert sorted(read) == files
    read.clear()
    assert headers.read_headers(files) == first
    assert read == files[5:]  # one that cannot be used is looked at again
    assert first[files[1]] == AudioInfo(files[1], 0.2, 8000, 2, 1600) and "not audio" in first[files[5]]


def test_a_changed_a_removed_and_a_new_file_are_noticed(files, read):
    headers.read_headers(files[:4])
    soundfile.write(files[0], np.zeros(4000), 8000)
    os.utime(files[1], ns=(1, 1))
    os.unlink(files[2])
    read.clear()
    found = headers.read_headers(files[:5])
    assert sorted(read) == [files[0], files[1], files[2], files[4]]
    assert found[files[0]].frames == 4000 and found[files[2]] == "no such file"


def test_a_damaged_memory_is_no_obstacle(files, read, tmp_path):
    first = headers.read_headers(files)
    (kept,) = (tmp_path / "home" / "data" / "headers").iterdir()
    for damage in (b"", b"garbage", kept.read_bytes()[:200]):
        kept.write_bytes(damage)
        assert headers.read_headers(files) == first
    read.clear()
    assert headers.read_headers(files) == first and read == files[5:]  # and it was mended


def test_a_disk_that_cannot_be_written(files, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "data").write_text("a file where the folder should be")
    assert len(headers.read_headers(files)) == 6


def test_small_data_sets_leave_nothing_behind(files, monkeypatch, tmp_path):
    monkeypatch.setattr(headers, "CACHED_FROM", 7)
    assert len(headers.read_headers(files)) == 6
    assert not (tmp_path / "home").exists()
