"""One corpus from many collections: what is in it, what is left out and why, and going on after an interruption."""

import csv
import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from asit_lab import audio, cli
from asit_lab.data import load_manifest
from asit_lab.data.corpus import Collection, build_corpus, debian, of_sources, segments
from asit_lab.data.corpus.build import _limits
from asit_lab.errors import InputError


def tone(seconds: float, pitch: float, rate: int = 16000) -> np.ndarray:
    """Rises slowly, so that no two parts of it are equal."""
    times = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * (pitch * times + times**2))


def write(path: Path, wave: np.ndarray, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate)
    return path


@pytest.fixture
def speech(tmp_path):
    """Two recordings, one of them 12 s long, and four files that a corpus does not want."""
    folder = tmp_path / "speech"
    write(folder / "anna/long.wav", tone(12, 300))
    write(folder / "ben/short.wav", tone(2, 400))
    soundfile.write(folder / "ben/copy.flac", soundfile.read(folder / "ben/short.wav", dtype="int16")[0], 16000)
    write(folder / "ben/tiny.wav", tone(0.2, 500))
    write(folder / "silent.wav", np.zeros(16000))
    (folder / "broken.wav").write_text("no audio")
    (folder / "LICENSE.txt").write_text("free")
    return folder


def collection(folder: Path, kind: str = "speech") -> Collection:
    return Collection(kind, folder.name, f"folder:{folder}")


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.flac"))


# --- What is in it ----------------------------------------------------------------------------------------------------


def test_segments_at_one_rate_with_a_list(tmp_path, speech):
    stereo = np.stack([tone(3, 440, 44100), tone(3, 660, 44100)], axis=1)
    piano = write(tmp_path / "music/piano.wav", stereo, 44100)
    made = build_corpus([collection(speech), collection(piano.parent, "music")], tmp_path / "out")
    listed = load_manifest(f"folder:{tmp_path / 'out'}")
    assert len(listed) == 4 and (listed.table["sample_rate"] == 16000).all()
    assert listed.table["label"].tolist() == ["speech"] * 3 + ["music"]
    assert listed.table["seconds"].tolist() == [6, 6, 2, 3]
    assert listed.table["group"].tolist() == ["speech/anna/long.wav"] * 2 + ["speech/ben/copy.flac", "music/piano.wav"]
    assert files(tmp_path / "out") == sorted(made.listed["path"])
    np.testing.assert_allclose(listed.read(1, 16000), tone(12, 300)[96000:], atol=1e-4)
    np.testing.assert_allclose(listed.read(3, 16000), audio.read(piano, 16000), atol=1e-3)
    assert made.hours.to_dict("records") == [
        {"kind": "music", "hours": 0.0, "of": 0.0, "segments": 1, "recordings": 1, "collections": 1},
        {"kind": "speech", "hours": 0.0, "of": 0.0, "segments": 3, "recordings": 2, "collections": 1},
    ]


def test_what_is_left_out_is_listed_with_its_reason(tmp_path, speech):
    made = build_corpus([collection(speech)], tmp_path / "out")
    rows = {Path(row["file"]).name: row for row in csv.DictReader((tmp_path / "out/left_out.csv").open())}
    assert {name: row["cause"] for name, row in rows.items()} == {
        "broken.wav": "unusable",
        "short.wav": "duplicate",  # copy.flac comes first and holds the same samples
        "tiny.wav": "short",
        "silent.wav": "silence",
    }
    assert "not audio" in rows["broken.wav"]["reason"]
    assert rows["short.wav"]["reason"] == f"same audio as {speech / 'ben/copy.flac'} at 0.0 s"
    assert rows["tiny.wav"]["kind"] == "speech" and len(made.left_out) == 4


def test_licences_are_kept(tmp_path, speech):
    bare = write(tmp_path / "bare/a.wav", tone(1, 200)).parent
    stated = Collection("effects", "stated", f"folder:{write(tmp_path / 'c/b.wav', tone(1, 250)).parent}", "CC0")
    made = build_corpus([collection(speech), collection(bare), stated], tmp_path / "out")
    assert (tmp_path / "out/licences/speech.txt").read_text() == "free"
    assert made.notes == [f"bare: no licence text in {bare}"]
    assert made.listed.set_index("collection")["licence"]["stated"] == "CC0"


def test_collections_are_told_apart(tmp_path):
    found = of_sources([f"speech={tmp_path}/a", f"music={tmp_path}/b/a", "effects=esc50:data/esc50", "noise=synth:8"])
    assert [(one.kind, one.name) for one in found] == [
        ("speech", "a"),
        ("music", "a-2"),
        ("effects", "esc50"),
        ("noise", "8"),
    ]
    assert [one.spec for one in found][:3] == [f"folder:{tmp_path}/a", f"folder:{tmp_path}/b/a", "esc50:data/esc50"]
    for text in ("speech", "=here", "speech="):
        with pytest.raises(InputError, match="expected KIND=SOURCE"):
            of_sources([text])


# --- How much of it ---------------------------------------------------------------------------------------------------


def test_hours_are_shared_evenly(tmp_path):
    """Where a kind has too many, its largest collections are cut to one length; others are not touched."""
    names = {"small": 2, "middle": 6, "large": 12}
    kinds = [Collection("music", name, "") for name in names] + [Collection("speech", "other", "")]

    class Made:
        def __init__(self, seconds):
            self.table = pd.DataFrame({"seconds": [float(seconds)]})

    manifests = [Made(seconds) for seconds in (*names.values(), 30)]
    assert _limits(kinds, manifests, np.inf, np.inf) == [2, 6, 12, 30]
    assert _limits(kinds, manifests, np.inf, 12) == [2, 5, 5, 12]
    assert _limits(kinds, manifests, 5, np.inf) == [2, 5, 5, 5]
    assert _limits(kinds, manifests, np.inf, 3) == [1, 1, 1, 3]


def test_a_part_of_a_collection_is_the_same_each_time_and_from_all_of_it(tmp_path):
    for number in range(12):
        write(tmp_path / f"in/{number:02}.wav", tone(5, 200 + 40 * number))
    made = [build_corpus([collection(tmp_path / "in")], tmp_path / out, collection_hours=20 / 3600) for out in "ab"]
    chosen = [one.listed["group"].tolist() for one in made]
    assert chosen[0] == chosen[1] == sorted(chosen[0]) and len(chosen[0]) == 4
    assert chosen[0] != [f"in/{number:02}.wav" for number in range(4)]
    assert not len(made[0].left_out)  # what is over the hours is no fault
    more = build_corpus([collection(tmp_path / "in")], tmp_path / "a", collection_hours=40 / 3600)
    assert set(more.listed["path"]) > set(made[0].listed["path"])


# --- Evaluation sets --------------------------------------------------------------------------------------------------


def evaluation(tmp_path) -> tuple[Path, Path]:
    """(folder, list): four speakers in two folds; speaker d has clips in both."""
    rows = []
    for number, (speaker, fold) in enumerate([("a", 1), ("b", 1), ("c", 2), ("d", 2), ("d", 1)]):
        path = write(tmp_path / f"set/{speaker}{number}.wav", tone(1.5, 300 + 50 * number))
        rows.append({"path": path.name, "label": "x", "fold": fold, "group": speaker})
    pd.DataFrame(rows).to_csv(tmp_path / "set/list.csv", index=False)
    return tmp_path / "set", tmp_path / "set/list.csv"


def test_folds_and_their_speakers_are_kept_out(tmp_path):
    folder, table = evaluation(tmp_path)
    made = build_corpus([collection(folder)], tmp_path / "out", keep_out=[f"folder:{table}#2"])
    assert [Path(path).name for path in made.listed["original"]] == ["a0.wav", "b1.wav"]
    reasons = {Path(row.file).name: (row.cause, row.reason) for row in made.left_out.itertuples()}
    assert reasons == {
        "c2.wav": ("evaluated", f"is in folder:{table}#2"),
        "d3.wav": ("evaluated", f"is in folder:{table}#2"),
        "d4.wav": ("evaluated", f"of a recording or speaker of folder:{table}#2"),
    }


def test_copies_of_evaluation_clips_are_kept_out_by_content(tmp_path):
    _, table = evaluation(tmp_path)
    for name in ("a0.wav", "c2.wav"):
        numbers, rate = soundfile.read(tmp_path / "set" / name, dtype="int16")
        padded = np.concatenate([np.zeros(500, np.int16), numbers])
        soundfile.write(tmp_path / f"mine-{name}.flac", padded, rate)
    (tmp_path / "mine").mkdir()
    for path in tmp_path.glob("mine-*"):
        path.rename(tmp_path / "mine" / path.name)
    made = build_corpus([collection(tmp_path / "mine")], tmp_path / "out", keep_out=[f"folder:{table}#2"])
    assert [Path(path).name for path in made.listed["original"]] == ["mine-a0.wav.flac"]
    assert made.left_out["reason"].tolist() == [f"same audio as a clip of folder:{table}#2"]


def test_unknown_parts(tmp_path):
    folder, table = evaluation(tmp_path)
    with pytest.raises(InputError, match=r"no fold or split '7'; present: 1, 2"):
        build_corpus([collection(folder)], tmp_path / "out", keep_out=[f"folder:{table}#7"])
    assert not (tmp_path / "out").exists()


# --- Once more --------------------------------------------------------------------------------------------------------


def test_a_second_call_decodes_nothing(tmp_path, speech, monkeypatch):
    first = build_corpus([collection(speech)], tmp_path / "out")
    monkeypatch.setattr(segments, "read_row", lambda *_: pytest.fail("was decoded again"))
    again = build_corpus([collection(speech)], tmp_path / "out")
    pd.testing.assert_frame_equal(first.listed, again.listed)
    pd.testing.assert_frame_equal(first.left_out, again.left_out)


def test_an_interrupted_call_is_continued(tmp_path, speech, monkeypatch):
    wanted = build_corpus([collection(speech)], tmp_path / "whole")
    decode, calls = segments.read_row, []

    def stopping(*row):
        calls.append(row)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return decode(*row)

    monkeypatch.setattr(segments, "read_row", stopping)
    with pytest.raises(KeyboardInterrupt):
        build_corpus([collection(speech)], tmp_path / "out")
    with (tmp_path / "out/journal.jsonl").open("a") as journal:
        journal.write('["half a li')
    (tmp_path / "out" / files(tmp_path / "out")[0]).write_bytes(b"")  # as a power cut may leave it
    monkeypatch.setattr(segments, "read_row", decode)
    again = build_corpus([collection(speech)], tmp_path / "out")
    pd.testing.assert_frame_equal(wanted.listed, again.listed)
    assert len(load_manifest(f"folder:{tmp_path / 'out'}")) == len(wanted.listed)


def test_what_is_no_longer_wanted_goes(tmp_path, speech):
    folder, table = evaluation(tmp_path)
    both = [collection(speech), collection(folder, "effects")]
    before = build_corpus(both, tmp_path / "out")
    build_corpus(both, tmp_path / "out", keep_out=[f"folder:{table}"])
    assert files(tmp_path / "out") == sorted(path for path in before.listed["path"] if path.startswith("speech/"))
    back = build_corpus(both, tmp_path / "out")
    pd.testing.assert_frame_equal(before.listed, back.listed)
    assert files(tmp_path / "out") == sorted(before.listed["path"])


def test_other_settings_need_another_folder(tmp_path, speech):
    build_corpus([collection(speech)], tmp_path / "out")
    with pytest.raises(InputError, match="was made with .*10.* not with .*5.*; give another folder"):
        build_corpus([collection(speech)], tmp_path / "out", segment_seconds=5.0)


# --- Debian packages --------------------------------------------------------------------------------------------------


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """Stand-ins for apt-get and dpkg-deb; gives a function that makes a package (a tar file in tmp_path/archive)."""
    tools, archive = tmp_path / "tools", tmp_path / "archive"
    archive.mkdir()
    scripts = {
        "apt-get": f'test "$1" = download || exit 9; cp {archive}/"$3".tar "$3"_1.0_all.deb 2>/dev/null || '
        '{ echo "E: Unable to locate package $3" >&2; exit 100; }',
        "dpkg-deb": 'test "$1" = --fsys-tarfile && cat "$2"',
    }
    tools.mkdir()
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")

    def package(name: str, members: dict[str, bytes]) -> None:
        with tarfile.open(archive / f"{name}.tar", "w") as tar:
            for path, content in members.items():
                entry = tarfile.TarInfo(f".{path}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))

    return package


def wav(pitch: float) -> bytes:
    held = io.BytesIO()
    soundfile.write(held, tone(1, pitch), 16000, format="WAV")
    return held.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return held.getvalue()


def test_packages_become_collections(tmp_path, apt):
    members = {
        "/usr/share/supertux/sounds/jump.wav": wav(300),
        "/usr/share/supertux/music/theme.wav": wav(400),
        "/usr/share/supertux/more.zip": zipped({"sounds/fall.wav": wav(500), "read.me": b""}),
        "/usr/share/supertux/../../etc/evil.wav": wav(600),
        "/usr/share/doc/supertux-data/copyright": b"GPL-2+",
        "/usr/share/supertux/level.txt": b"no sound",
    }
    apt("supertux-data", members)
    found, notes = debian.collections(tmp_path / "cache", ["supertux-data", "klettres-data"])
    assert [(one.kind, one.name, one.licence) for one in found] == [
        ("effects", "supertux-data", "GPL-2+"),
        ("music", "supertux-data", "GPL-2+"),
    ]
    assert len(notes) == 1 and "klettres-data: apt-get download failed (E: Unable to locate package" in notes[0]
    made = build_corpus(found, tmp_path / "out")
    assert made.listed.groupby("label").size().to_dict() == {"effects": 2, "music": 1}
    assert (tmp_path / "out/licences/supertux-data.txt").read_text() == "GPL-2+"
    assert not list(tmp_path.rglob("evil.wav"))
    (tmp_path / "archive/supertux-data.tar").unlink()
    assert debian.collections(tmp_path / "cache", ["supertux-data"]) == (found, [])  # nothing is downloaded again


def test_unknown_packages_and_missing_tools(tmp_path, apt, monkeypatch):
    with pytest.raises(InputError, match="package 'klettres': did you mean klettres-data"):
        debian.collections(tmp_path, ["klettres"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt-get is not installed: packages can only be read on Debian and Ubuntu"):
        debian.collections(tmp_path)


def test_every_package_states_its_licence_and_kinds():
    entries = debian.packages()
    assert len({entry["package"] for entry in entries}) == len(entries) >= 30
    kinds = {"speech", "music", "effects", "instruments", "none"}
    assert all(entry["licence"] and set(entry["kinds"].values()) <= kinds for entry in entries)


# --- From a shell -----------------------------------------------------------------------------------------------------


def run(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["asit-lab", "data", "corpus", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return (left.value.code or 0, *capsys.readouterr())


def test_the_command(tmp_path, speech, monkeypatch, capsys):
    status, out, err = run(monkeypatch, capsys, tmp_path / "out", f"speech={speech}")
    assert status == 0, err
    assert out.split()[:6] == ["kind", "hours", "of", "segments", "recordings", "collections"]
    assert "unusable (1)" in out and f"list      {tmp_path / 'out/list.csv'}" in out
    status, _, err = run(monkeypatch, capsys, tmp_path / "out")
    assert status == 2 and "nothing to build a corpus from: give KIND=SOURCE" in err
