"""Files -> a table of vectors."""

import os
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile

from asit_lab import Encoder, InputError, audio, load_config
from asit_lab.embedding import files as vectors
from asit_lab.embedding.files import embed_files

RATE, WIDTH = 16000, 48


@pytest.fixture(scope="module")
def enc():
    return Encoder.random(load_config("smoke"), 1)


@pytest.fixture
def folder(tmp_path):
    """Sounds of several lengths and rates, some of them below sub/, and files that are none."""
    rng = np.random.default_rng(0)
    sounds = tmp_path / "sounds"
    (sounds / "sub").mkdir(parents=True)
    for name, seconds, rate in (("a.wav", 2.5, RATE), ("sub/b.flac", 0.4, 44100), ("sub/c.wav", 1.0, RATE)):
        soundfile.write(sounds / name, 0.1 * rng.standard_normal(round(seconds * rate)), rate)
    (sounds / "torn.wav").write_bytes((sounds / "a.wav").read_bytes()[:40])
    (sounds / "notes.txt").write_text("no sound")
    return sounds


@pytest.mark.parametrize("name", ["x.parquet", "x.csv"])
def test_a_folder(enc, folder, tmp_path, name):
    made = embed_files(enc, [folder], tmp_path / "new" / name, pool="mean+std", layer=-1)
    assert made.out == tmp_path / "new" / name and os.listdir(made.out.parent) == [name]
    read = pd.read_parquet(made.out) if name.endswith("parquet") else pd.read_csv(made.out)
    assert list(read.columns) == ["path", "seconds", *(f"d{i}" for i in range(2 * WIDTH))]
    assert list(read["path"]) == [str(folder / inside) for inside in ("a.wav", "sub/b.flac", "sub/c.wav")]
    np.testing.assert_allclose(read["seconds"], [2.5, 0.4, 1.0], atol=1e-3)
    for path, row in zip(read["path"], read.filter(regex=r"^d\d").to_numpy(), strict=True):
        wanted = enc.embed(audio.read(path, RATE), RATE, "mean+std", -1)[0]
        np.testing.assert_allclose(row, wanted, atol=1e-5)
    assert np.array_equal(read.filter(regex=r"^d\d").astype("float32"), made.table.filter(regex=r"^d\d"))  # every bit
    [(path, reason)] = made.skipped
    assert path == str(folder / "torn.wav") and reason.startswith(f"{path}: not audio that libsndfile reads")
    if name.endswith("parquet"):
        assert read.attrs == {"encoder": enc.name, "pool": "mean+std", "layer": -1}
        assert read["d0"].dtype == np.float32


def test_files_patterns_and_doubles(enc, folder, tmp_path):
    given = [folder / "sub" / "c.wav", f"{folder}/**/*.wav", folder / "sub", f"{folder}/*.mp3", "nowhere.wav"]
    made = embed_files("smoke", [*given, folder / "notes.txt"], tmp_path / "x.csv")  # an encoder by name
    assert list(made.table["path"]) == [str(folder / name) for name in ("sub/c.wav", "a.wav", "sub/b.flac")]
    reasons = dict(made.skipped)
    assert set(reasons) == {str(folder / name) for name in ("torn.wav", "notes.txt", "*.mp3")} | {"nowhere.wav"}
    assert reasons["nowhere.wav"].endswith("nowhere.wav: no such file or folder, and no match")
    assert "not audio" in reasons[str(folder / "notes.txt")]


def test_one_path_is_one(enc, folder, tmp_path):
    for given in (folder / "sub", str(folder / "sub"), f"{folder}/sub/*"):
        made = embed_files(enc, given, tmp_path / "x.csv")
        assert list(made.table["path"]) == [str(folder / name) for name in ("sub/b.flac", "sub/c.wav")]


def test_a_folder_that_exists_is_no_pattern(enc, folder, tmp_path):
    odd = folder.rename(tmp_path / "g [1]*")
    made = embed_files(enc, [f"{odd}/*.wav", f"{odd}/[a-t]*/**/*.flac"], tmp_path / "x.csv")
    assert list(made.table["path"]) == [str(odd / name) for name in ("a.wav", "sub/b.flac")]
    assert [path for path, _ in made.skipped] == [str(odd / "torn.wav")]


def test_a_clip_too_short_is_left_out(enc, folder, tmp_path):
    soundfile.write(folder / "short.wav", np.zeros(100), RATE)
    soundfile.write(folder / "frame.wav", np.ones(552) * 0.1, 22050)  # 25.03 ms; 401 samples at 16 kHz
    made = embed_files(enc, [folder], tmp_path / "x.csv")
    assert len(made.table) == 4 and "shorter than 25 ms" in dict(made.skipped)[str(folder / "short.wav")]


def test_batches_are_bounded(enc, folder, tmp_path, monkeypatch):
    sizes = []
    embed = enc.embed
    monkeypatch.setattr(
        enc, "embed", lambda waves, *rest: sizes.append(len(waves)) or embed(waves, *rest), raising=False
    )
    monkeypatch.setattr(vectors, "SECONDS_AT_ONCE", 2.0)
    embed_files(enc, [folder], tmp_path / "x.csv")
    assert sizes == [1, 2]  # 2.5 s; 0.4 and 1.0 s
    monkeypatch.setattr(vectors, "FILES_AT_ONCE", 1)
    embed_files(enc, [folder], tmp_path / "x.csv")
    assert sizes[2:] == [1, 1, 1]


def test_nothing_that_can_be_read(enc, folder, tmp_path):
    out = tmp_path / "x.csv"
    with pytest.raises(InputError, match=r"nothing to embed: none of 2 can be read, the first: .*torn\.wav: not audio"):
        embed_files(enc, [folder / "torn.wav", folder / "notes.txt"], out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no audio files in it"):
        embed_files(enc, [tmp_path / "empty"], out)
    with pytest.raises(InputError, match="no files given"):
        embed_files(enc, [], out)
    assert not out.exists()


def test_an_out_that_cannot_be_written(enc, folder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"x\.npy: give a name that ends in \.parquet or \.csv"):
        embed_files(enc, [folder], tmp_path / "x.npy")
    (tmp_path / "y.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        embed_files(enc, [folder], tmp_path / "y.csv")
    with pytest.raises(InputError, match="its folder cannot be made"):
        embed_files(enc, [folder], folder / "notes.txt" / "x.csv")
    with pytest.raises(InputError, match="pool: 'max'"):
        embed_files(enc, [folder], tmp_path / "x.csv", pool="max")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"Parquet needs pyarrow: pip install pyarrow, or give a \.csv"):
        embed_files(enc, [folder], tmp_path / "x.parquet")


def test_written_whole_or_not_at_all(enc, folder, tmp_path, monkeypatch):
    out = tmp_path / "x.csv"
    out.write_text("old")

    def full(self, path, **_):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(OSError, match="No space left"):
        embed_files(enc, [folder / "a.wav"], out)
    assert out.read_text() == "old" and sorted(os.listdir(tmp_path)) == ["sounds", "x.csv"]
