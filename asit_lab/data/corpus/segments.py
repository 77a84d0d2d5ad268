"""Writes rows of a manifest as FLAC segments; journal.jsonl records the decoded ones, so that each is decoded once."""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import soundfile
import soxr

from ...audio.state import file_state
from ...errors import InputError
from ..fingerprints import fingerprint
from ..manifest import read_row
from .evaluated import Evaluated

SHORTEST_SEGMENT = 0.5  # s; a shorter segment is a small part of a usual crop


class LeftOut(NamedTuple):
    """Why a segment is not in the corpus."""

    cause: str
    """evaluated, short, unusable, silence or duplicate"""
    reason: str


class _Decoded(NamedTuple):
    """The journal's entry of a segment."""

    digest: str = ""
    """of its content; empty where it cannot be read or is silent"""
    file: str = ""
    """relative to the corpus; empty where none was written"""
    size: int = 0
    """of the file, bytes"""
    problem: str = ""
    """why it cannot be read; empty for silence"""


class Segmenter:
    """Takes rows one by one: of several with the same audio the first is kept."""

    def __init__(self, out: Path, sample_rate: int, evaluated: Evaluated):
        self.out, self.sample_rate, self.evaluated = out, sample_rate, evaluated
        self.first_of: dict[str, str] = {}  # digest -> a sentence naming its first occurrence
        self.journal = out / "journal.jsonl"
        self.decoded = _read_journal(self.journal)

    def take(self, row, folder: Path) -> str | LeftOut:
        """The segment's file, relative to the corpus, or why it has none. folder: relative to the corpus, for the file.

        row: of a manifest's table: path, start, seconds, sample_rate.
        """
        if row.path in self.evaluated.paths:
            return LeftOut("evaluated", self.evaluated.paths[row.path])
        if row.seconds < SHORTEST_SEGMENT:
            return LeftOut("short", f"{row.seconds:.2f} s long, shorter than {SHORTEST_SEGMENT:g} s")
        key = f"{row.path}@{row.start:.3f}+{row.seconds:.3f} {file_state(row.path)}"
        decoded = self.decoded.get(key)
        if decoded is None or (not self._left_out(decoded) and not self._is_there(decoded, folder)):
            decoded = self._decode(row, folder)
            self.decoded[key] = decoded
            with self.journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, *decoded]) + "\n")
        if reason := self._left_out(decoded):
            return reason
        self.first_of[decoded.digest] = f"same audio as {row.path} at {row.start:.1f} s"
        return decoded.file

    def remove_unlisted(self, listed: set[str]) -> None:
        """Delete segments of earlier calls that are not in the list any more."""
        for decoded in self.decoded.values():
            if decoded.file and decoded.file not in listed:
                (self.out / decoded.file).unlink(missing_ok=True)

    def _left_out(self, decoded: _Decoded) -> LeftOut | None:
        if decoded.problem:
            return LeftOut("unusable", decoded.problem)
        if not decoded.digest:
            return LeftOut("silence", "digital silence")
        if decoded.digest in self.evaluated.digests:
            return LeftOut("evaluated", self.evaluated.digests[decoded.digest])
        if decoded.digest in self.first_of:
            return LeftOut("duplicate", self.first_of[decoded.digest])
        return None

    def _is_there(self, decoded: _Decoded, folder: Path) -> bool:
        file = Path(decoded.file)
        path = self.out / file
        return file.parent == _plain_folder(folder) and path.is_file() and path.stat().st_size == decoded.size

    def _decode(self, row, folder: Path) -> _Decoded:
        try:
            wave = read_row(row.path, row.start, row.seconds, row.sample_rate)
        except InputError as error:
            return _Decoded(problem=str(error).removeprefix(f"{row.path}: "))
        decoded = _Decoded(fingerprint(wave, row.sample_rate).digest)
        if self._left_out(decoded):
            return decoded
        if row.sample_rate != self.sample_rate:
            wave = soxr.resample(wave, row.sample_rate, self.sample_rate, quality="HQ")
        name = f"{_plain(Path(row.path).stem)[:60]}-{decoded.digest[:12]}.flac"
        file = _plain_folder(folder) / name
        # Not flushed file by file, which would take longer than everything else; the size shows an incomplete one.
        temporary = self.out / file.with_suffix(".part")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(temporary, wave, self.sample_rate, format="FLAC", subtype="PCM_16")  # clips beyond full scale
        os.replace(temporary, self.out / file)
        return decoded._replace(file=str(file), size=(self.out / file).stat().st_size)


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
        except (ValueError, TypeError):  # the last line after a kill
            continue
    return entries
