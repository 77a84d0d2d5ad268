"""One reading of a whole data set: what is found, and that it is read once."""

import numpy as np
import odd_audio
import pytest
import soundfile
from typer.testing import CliRunner

from asit_lab.cli import app
from asit_lab.data import check as check_module
from asit_lab.data import load_manifest
from asit_lab.data.check import check


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "set"


def write(path, wave, rate=16000, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, **how)


def noise(seed, seconds=1.0, rate=16000):
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * rate)).astype(np.float32)


def found(result):
    return {row.finding: row.clips for row in result.findings.itertuples()}


def test_what_is_unusual(folder):
    numbers = (noise(0) * 32767).astype(np.int16)
    write(folder / "a" / "good.wav", numbers)
    write(folder / "a" / "copy.flac", numbers)
    write(folder / "a" / "silent.wav", np.zeros(16000))
    write(folder / "a" / "clipped.wav", np.clip(noise(1) * 9, -1, 1))
    write(folder / "a" / "integers.wav", noise(2) * 32768, subtype="FLOAT")
    write(folder / "a" / "inverted.wav", np.stack([noise(3), -noise(3)], axis=1))
    write(folder / "a" / "half_silent.wav", np.concatenate([noise(4, 0.4), np.zeros(9600)]))
    write(folder / "a" / "telephone.wav", noise(5, 1.0, 8000), 8000)
    slow = np.sin(np.arange(44100) / 100).astype(np.float32) * 0.3
    write(folder / "a" / "narrow.wav", slow, 44100)
    spoilt = noise(6)
    spoilt[5] = np.nan
    write(folder / "a" / "nan.wav", spoilt, subtype="FLOAT")
    (folder / "a" / "text.wav").write_text("no audio")
    manifest = load_manifest(f"folder:{folder}")
    result = found(check(manifest, crop_seconds=2.0))
    assert result.pop("shorter than a crop of 2 s: 50% of all crops is padding") == 10
    assert result.pop("silent throughout (below -80 dB)") >= 1
    assert result == {
        "cannot be used": 1,
        "cannot be decoded": 1,
        "more than half silent": 1,
        "clipped (over 0.1 % of samples at full scale)": 1,
        "level of integers (±32768 as float?)": 1,
        "channels cancel each other": 1,
        "nothing above 4 kHz": 1,
        "sample rate below 16 kHz": 1,
        "same samples as another clip": 2,
    }


def test_groups_over_splits_are_said(folder):
    for name in "abc":
        write(folder / f"{name}.wav", noise(ord(name)))
    (folder / "list.csv").write_text(
        "path,label,split,speaker\na.wav,x,train,anna\nb.wav,x,test,anna\nc.wav,y,test,ben\n"
    )
    assert found(check(load_manifest(f"folder:{folder}")))["group in more than one split"] == 2
    shown = CliRunner().invoke(app, ["data", "info", f"folder:{folder}"])
    assert "note: 1 of 2 groups are in more than one split: anna" in shown.output


def test_a_second_check_reads_only_what_is_new(folder, monkeypatch):
    for name in "abc":
        write(folder / f"{name}.wav", noise(ord(name)))
    first = check(load_manifest(f"folder:{folder}"))
    read, measure = [], check_module._measure
    monkeypatch.setattr(check_module, "_measure", lambda *clip: read.append(clip[0]) or measure(*clip))
    write(folder / "b.wav", noise(9))
    write(folder / "d.wav", noise(10))
    again = check(load_manifest(f"folder:{folder}"))
    assert sorted(read) == [str(folder / "b.wav"), str(folder / "d.wav")]
    assert again.table["digest"][0] == first.table["digest"][0] and len(again.table) == 4


def test_what_was_measured_is_added_to_a_journal(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(check_module, "_KEEP_EVERY", 2)
    for number in range(5):
        write(folder / f"{number}.wav", noise(number))
    first = check(load_manifest(f"folder:{folder}"))
    [journal] = (tmp_path / "home" / "data" / "checks").iterdir()
    content = journal.read_bytes()
    lines = [line for line in content.split(b"\n") if line]
    assert len(lines) == 5
    journal.write_bytes(content[: content.index(lines[3]) + 40])  # killed while the fourth was written
    read, measure = [], check_module._measure
    monkeypatch.setattr(check_module, "_measure", lambda *clip: read.append(clip[0]) or measure(*clip))
    again = check(load_manifest(f"folder:{folder}"))
    assert sorted(read) == [str(folder / "3.wav"), str(folder / "4.wav")]
    assert again.table.equals(first.table)
    after = journal.read_bytes()
    assert after.startswith(content[: content.index(lines[3]) + 40])  # nothing is written twice
    read.clear()
    check(load_manifest(f"folder:{folder}"))
    assert read == [] and journal.read_bytes() == after


def test_commands(folder, tmp_path):
    for name in "ab":
        write(folder / "dog" / f"{name}.wav", noise(ord(name)))
    runner = CliRunner()
    shown = runner.invoke(app, ["data", "check", f"folder:{folder}", "--out", str(tmp_path / "page.html")])
    assert shown.exit_code == 0 and "nothing unusual" in shown.output
    assert "<h2>Findings</h2>" in (tmp_path / "page.html").read_text()
    shown = runner.invoke(app, ["data", "shard", f"folder:{folder}", "--out", str(tmp_path / "shards")])
    assert shown.exit_code == 0 and f"shards:{tmp_path / 'shards'}" in shown.output
    assert len(load_manifest(f"shards:{tmp_path / 'shards'}")) == 2


@pytest.mark.slow
def test_every_odd_file_is_read_or_listed(folder):
    seconds = odd_audio.write_all(folder)
    manifest = load_manifest(f"folder:{folder}")
    result = check(manifest)
    usable = set(manifest.table["path"]) - set(result.table["path"][result.table["reason"] != ""])
    for name, length in seconds.items():
        path = str(folder / name)
        assert (path in usable) or name in " ".join(manifest.bad["path"]) or path in set(result.table["path"])
        if length is not None:
            assert path in usable
    assert all(result.table["reason"] != "nan") and manifest.bad["reason"].str.len().min() > 5
