"""Finds the files that a list names, however it writes their names."""

import contextlib
import os
import unicodedata
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from ...audio.lengths import shard_member
from .clips import SUFFIXES, audio_files


def exists(path: str) -> bool:
    """Whether there is such a file, or the shard that it is in."""
    member = shard_member(path)
    return os.path.exists(member[0] if member else path)


def finder(folder: Path) -> Callable[[str], str]:
    """Finds the file of a name in a list: name -> absolute path, where the file should be if it does not exist.

    A name that does not exist as written is tried with slashes for backslashes, as an address (%20), with accents in
    the other Unicode form and in an older encoding; then a file of that name (with or without suffix, in capitals or
    not) is searched for below `folder`, with as much of its path as tells several apart.
    """
    below: dict[str, list[str]] | None = None

    def absolute(name: str) -> str:
        path = Path(name)
        with contextlib.suppress(RuntimeError):  # "~name" without such a user
            path = path.expanduser()
        return str(path) if path.is_absolute() else os.path.normpath(folder.resolve() / path)

    def find(name: str) -> str:
        nonlocal below
        plain = absolute(name)
        if os.path.exists(plain):
            return plain
        for spelling in _spellings(name):
            if os.path.exists(absolute(spelling)):
                return absolute(spelling)
        if below is None:
            below = {}
            for file in audio_files(folder):
                for key in {file.name.lower(), file.stem.lower()}:
                    below.setdefault(key, []).append(str(file))
        parts = name.replace("\\", "/").split("/")
        last = parts[-1].lower()
        stem = last.rpartition(".")[0] if Path(last).suffix in SUFFIXES else last
        matches = below.get(last) or below.get(stem) or []
        for inner in reversed(parts[:-1]):
            if len(matches) <= 1:
                break
            nearer = [file for file in matches if inner in Path(file).parts]
            matches = nearer or matches
        return matches[0] if len(matches) == 1 else plain

    return find


def _spellings(name: str) -> list[str]:
    slashed = name.replace("\\", "/")
    address = urllib.parse.unquote(slashed.removeprefix("file://"))
    spellings = [slashed, address, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]
    for encoding in ("cp1252", "cp437"):
        try:
            spellings.append(os.fsdecode(slashed.encode(encoding)))
        except UnicodeEncodeError:
            continue
    return spellings
