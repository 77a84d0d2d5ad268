"""Finds the audio files of an official list in a copy with any folder layout."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from .clips import SUFFIXES, walk

# Frequent formats of downloads that libsndfile does not read.
UNREADABLE = frozenset((".m4a", ".mp4", ".aac", ".webm", ".mkv", ".wma"))


@dataclass(frozen=True)
class Found:
    """The files of the listed keys."""

    paths: dict[str, str]  # key -> file
    notes: list[str]


def match_files(root: Path, keys: Collection[str], keys_of: Callable[[str, str], Iterable[str]]) -> Found:
    """Find the audio file of every key below `root`, whatever its suffix.

    keys_of(folder, stem): the keys a file may stand for; the first that is in `keys` counts. Of several files of a key
    the first is taken (folders and names in alphabetical order).
    """
    paths, unreadable, twice = {}, {}, 0
    for folder, names in walk(root):
        for name in names:
            stem, suffix = os.path.splitext(name)
            suffix = suffix.lower()
            if suffix not in SUFFIXES and suffix not in UNREADABLE:
                continue
            key = next((key for key in keys_of(folder, stem) if key in keys), None)
            if key is None:
                continue
            if suffix in UNREADABLE:
                unreadable[key] = suffix
            elif key in paths:
                twice += 1
            else:
                paths[key] = f"{folder}{os.sep}{name}"
    notes = [f"{twice:,} clips are present more than once; the first file of each is taken"] if twice else []
    lost = Counter(suffix for key, suffix in unreadable.items() if key not in paths)
    for suffix, count in sorted(lost.items()):
        notes.append(f"{count:,} more are present as {suffix}, which cannot be read: convert them to WAV or FLAC")
    return Found(paths, notes)
