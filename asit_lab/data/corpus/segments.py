"""From a row of a manifest to a FLAC segment, once: what was decoded is remembered in journal.jsonl."""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import soundfile
import soxr

from ...errors import InputError
from ...storage.atomic import file_state
from ..fingerprints import fingerprint
from ..manifest import read_row
from .evaluated import Evaluated

SHORTEST = 0.5  # s; a shorter segment is a small part of a usual crop


class LeftOut(NamedTuple):
    """Why a segment is not in the corpus."""

    cause: str
    """evaluated, short, unusable, silence or duplicate"""
    reason: str


class _Decoded(NamedTuple):
    """What is remembered of a segment."""

    digest: str = ""
    """of its content; empty where it cannot be read or is silent"""
    file: str = ""
    """relative to the corpus; empty where none was written"""
    size: int = 0
    """of the file, bytes"""
    problem: str = ""
    """why it cannot be read; empty for silence"""


class Segmenter:
    """Takes rows one after the other: the first of several equal ones is kept."""

    def __init__(self, out: Path, sample_rate: int, evaluated: Evaluated):
        self.out, self.sample_rate, self.evaluated = out, sample_rate, evaluated
        self.kept: dict[str, str] = {}  # digest -> where it was met first
        self.journal = out / "journal.jsonl"
        self.decoded = _read_journal(self.journal)

    def take(self, row, folder: Path) -> str | LeftOut:
        """The segment's file, relative to the corpus, or why it has none. folder: relative to the corpus, for the file.

        row: of a manifest's table: path, start, seconds, sample_rate.
        """
        if row.path in self.evaluated.paths:
            return LeftOut("evaluated", self.evaluated.paths[row.path])
        if row.seconds < SHORTEST:
            return LeftOut("short", f"{row.seconds:.2f} s long, shorter than {SHORTEST:g} s")
        key = f"{row.path}@{row.start:.3f}+{row.seconds:.3f} {file_state(row.path)}"
        found = self.decoded.get(key)
        if found is None or (not self._left_out(found) and not self._is_there(found, folder)):
            found = self._decode(row, folder)
            self.decoded[key] = found
            with self.journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, *found]) + "\n")
        if reason := self._left_out(found):
            return reason
        self.kept[found.digest] = f"same audio as {row.path} at {row.start:.1f} s"
        return found.file

    def remove_unlisted(self, listed: set[str]) -> None:
        """Delete segments of earlier calls that are not in the list any more."""
        for found in self.decoded.values():
            if found.file and found.file not in listed:
                (self.out / found.file).unlink(missing_ok=True)

    def _left_out(self, found: _Decoded) -> LeftOut | None:
        if found.problem:
            return LeftOut("unusable", found.problem)
        if not found.digest:
            return LeftOut("silence", "digital silence")
        if found.digest in self.evaluated.digests:
            return LeftOut("evaluated", self.evaluated.digests[found.digest])
        if found.digest in self.kept:
            return LeftOut("duplicate", self.kept[found.digest])
        return None

    def _is_there(self, found: _Decoded, folder: Path) -> bool:
        file = Path(found.file)
        path = self.out / file
        return file.parent == _plain_folder(folder) and path.is_file() and path.stat().st_size == found.size

    def _decode(self, row, folder: Path) -> _Decoded:
        try:
            wave = read_row(row.path, row.start, row.seconds, row.sample_rate)
        except InputError as error:
            return _Decoded(problem=str(error).removeprefix(f"{row.path}: "))
        found = _Decoded(fingerprint(wave, row.sample_rate).digest)
        if self._left_out(found):
            return found
        if row.sample_rate != self.sample_rate:
            wave = soxr.resample(wave, row.sample_rate, self.sample_rate, quality="HQ")
        name = f"{_plain(Path(row.path).stem)[:60]}-{found.digest[:12]}.flac"
        file = _plain_folder(folder) / name
        # Not forced to the disk file by file, which takes longer than all the rest; the size tells what is whole.
        temporary = self.out / file.with_suffix(".part")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(temporary, wave, self.sample_rate, format="FLAC", subtype="PCM_16")  # clips beyond full scale
        os.replace(temporary, self.out / file)
        return found._replace(file=str(file), size=(self.out / file).stat().st_size)


def _plain(name: str) -> str:
    """A name that any file system and CSV takes."""
    return re.sub(r"[^\w.-]+", "_", name)


def _plain_folder(folder: Path) -> Path:
    return Path(*map(_plain, folder.parts))


def _read_journal(path: Path) -> dict[str, _Decoded]:
    entries = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            key, *values = json.loads(line)
            entries[key] = _Decoded(*values)
        except (ValueError, TypeError):  # the last line of a call that was killed
            continue
    return entries
