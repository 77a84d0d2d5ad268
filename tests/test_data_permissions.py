"""Folders and files without read permission are listed with the reason; none vanishes."""

import errno
import os

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from asit_lab import InputError
from asit_lab.cli import app
from asit_lab.data import load_manifest
from asit_lab.embedding.files import find_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))
    for number, name in enumerate(("dog/a.wav", "cat/b.wav", "cat/inner/c.wav", "owl/d.wav")):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(number).uniform(-0.3, 0.3, 16000), 16000)
    return tmp_path / "set"


@pytest.fixture
def close(monkeypatch):
    """Takes the permission to list folders: from the superuser, too, whom chmod does not stop."""

    def closing(*folders):
        def denied(function):
            def listing(path="."):
                if os.fspath(path) in map(str, folders):
                    raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
                return function(path)

            return listing

        for name in ("scandir", "listdir"):
            monkeypatch.setattr(os, name, denied(getattr(os, name)))

    return closing


def test_a_closed_folder_is_noted_wherever_data_are_listed(folder, close):
    close(folder / "cat" / "inner", folder / "owl")
    sentence = "2 folders cannot be opened, so files inside are left out: "
    named = [f"{folder / 'cat' / 'inner'} (Permission denied)", f"{folder / 'owl'} (Permission denied)"]
    manifest = load_manifest(f"folder:{folder}")
    assert len(manifest) == 2
    [note] = [note for note in manifest.notes if note.startswith(sentence)]
    assert all(name in note for name in named)
    for command in ("info", "check"):
        shown = CliRunner().invoke(app, ["data", command, f"folder:{folder}"])
        assert shown.exit_code == 0 and f"note: {note}" in shown.output
    paths, missing = find_files(folder)
    assert len(paths) == 2 and missing == [(str(folder), f"{folder}: {note}")]


@pytest.mark.slow
def test_pretraining_notes_it(folder, close, tmp_path):
    close(folder / "owl")
    options = ["-p", "smoke", "--dry-run", "-o", str(tmp_path / "run"), "-s", f"data.source=folder:{folder}"]
    shown = CliRunner().invoke(app, ["pretrain", *options])
    assert shown.exit_code == 0 and "1 folder cannot be opened, so files inside" in shown.output, shown.output


def test_nothing_left_is_an_error(folder, close):
    close(folder / "cat", folder / "dog", folder / "owl")
    with pytest.raises(InputError, match=r"no audio files .*; 3 folders cannot be opened, .*dog \(Permission denied\)"):
        load_manifest(f"folder:{folder}")
    with pytest.raises(InputError, match="no shards .*; 3 folders cannot be opened"):
        load_manifest(f"shards:{folder}")
    paths, [(name, reason)] = find_files(folder)
    assert paths == [] and name == str(folder) and "3 folders cannot be opened" in reason


def test_the_folder_itself(folder, close):
    close(folder)
    with pytest.raises(InputError, match="the folder .*set cannot be opened: Permission denied"):
        load_manifest(f"folder:{folder}")


def test_a_closed_split(folder, close):
    (folder / "dog").rename(folder / "train")
    (folder / "cat").rename(folder / "test")
    close(folder / "owl", folder / "test")
    manifest = load_manifest(f"folder:{folder}")
    assert len(manifest) == 1 and "2 folders cannot be opened" in manifest.notes[-1]


def test_closed_folder_beside_lists(folder, close):
    close(folder / "owl")
    (folder / "list.csv").write_text("path,label\ndog/a.wav,dog\ncat/b.wav,cat\nowl/d.wav,owl\n")
    manifest = load_manifest(f"folder:{folder}")
    assert len(manifest) == 3 and manifest.notes[-1].startswith("1 folder cannot be opened")
