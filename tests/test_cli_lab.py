"""`asit-lab lab` opens copies of the notebooks, and never writes over what a user changed."""

import json
import os
import sys
from pathlib import Path

import pytest

from asit_lab import cli
from asit_lab.cli.notebooks import COPIES, copy_notebooks


def write(path: Path, *sources: str, outputs: tuple = ()) -> None:
    cells = [{"cell_type": "code", "source": source, "outputs": list(outputs)} for source in sources]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")


def sources(path: Path) -> list[str]:
    return [cell["source"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]


def test_copies_are_made_renewed_or_kept(tmp_path):
    originals, copies = tmp_path / "notebooks", tmp_path / "copies"
    write(originals / "start.ipynb", "a = 1")
    write(originals / "ablations/study.ipynb", "b = 1")
    write(originals / ".ipynb_checkpoints/start-checkpoint.ipynb", "old")
    assert copy_notebooks(originals, copies) == []
    assert sorted(path.relative_to(copies).as_posix() for path in copies.rglob("*.ipynb")) == [
        "ablations/study.ipynb",
        "start.ipynb",
    ]
    write(copies / "start.ipynb", "a = 1", outputs=({"output_type": "stream"},))  # run, not changed
    write(copies / "ablations/study.ipynb", "b = 'mine'")
    assert copy_notebooks(originals, copies) == []  # nothing is newer
    assert "stream" in (copies / "start.ipynb").read_text() and sources(copies / "ablations/study.ipynb") == [
        "b = 'mine'"
    ]
    write(originals / "start.ipynb", "a = 2")
    write(originals / "ablations/study.ipynb", "b = 2")
    assert copy_notebooks(originals, copies) == ["ablations/study.ipynb"]
    assert sources(copies / "start.ipynb") == ["a = 2"] and sources(copies / "ablations/study.ipynb") == ["b = 'mine'"]
    (copies / "start.ipynb").unlink()
    copy_notebooks(originals, copies)
    assert sources(copies / "start.ipynb") == ["a = 2"]


def test_lab_opens_the_copies(tmp_path, monkeypatch):
    write(tmp_path / "notebooks/start.ipynb", "a = 1")
    started = []
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    monkeypatch.setattr(os, "execv", lambda program, command: started.append(command))
    monkeypatch.setattr(sys, "argv", ["asit-lab", "lab", "--port", "9000"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code and "--port=9000" in started[0]
    assert f"--LabApp.default_url=/lab/tree/{COPIES}/start.ipynb" in started[0]
    assert sources(tmp_path / COPIES / "start.ipynb") == ["a = 1"]
    assert copy_notebooks(tmp_path / "notebooks", tmp_path / COPIES) == []
