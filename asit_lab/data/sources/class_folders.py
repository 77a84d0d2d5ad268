"""What folders of audio mean: classes, perhaps below or above splits or folds, perhaps inside other folders."""

import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

from ...errors import InputError
from .clips import Clip, Listing, audio_files, entries, walk
from .tables import split_of

_FOLD = re.compile(r"(?:fold|cv|split)[ _-]?(\d+)$", re.IGNORECASE)
WRAPPERS = ("audio", "audios", "wav", "wavs", "clips", "data", "sounds", "recordings", "files")

Parts = dict[Path, tuple[str, ...]]  # file -> names of the folders from the data set's on, and of the file


def from_class_folders(folder: Path, source: str) -> Listing:
    """Clips of all audio below a folder; the notes say what its folders were taken for, where that is not plain.

    Raises InputError where there is no audio.
    """
    files = audio_files(folder)
    if not files:
        raise InputError(f"data source {source!r}: no audio files that can be read in {folder}; {_contents(folder)}")
    parts, notes = _unwrapped({file: file.relative_to(folder).parts for file in files}, folder)
    listing = _below_divisions(parts) or _above_splits(parts) or _by_class(parts)
    listing.notes[:0] = notes
    empty = _without_audio(folder, listing)
    if empty:
        few = ", ".join(empty[:3]) + (", ..." if len(empty) > 3 else "")
        listing.notes.append(f"{len(empty)} folders have no audio in them: {few}")
    return listing


def _contents(folder: Path) -> str:
    suffixes = Counter(Path(name).suffix.lower() or "none" for _, names in walk(folder) for name in names)
    summary = ", ".join(f"{suffix} ({count})" for suffix, count in suffixes.most_common(5)) or "no files"
    hint = f"; shards are read as shards:{folder}" if ".tar" in suffixes else ""
    return f"suffixes found: {summary}{hint}"


def _unwrapped(parts: Parts, folder: Path) -> tuple[Parts, list[str]]:
    """Without folders that hold nothing but another level of folders; what was left out is noted."""
    skipped: list[str] = []
    while all(len(below) > 2 for below in parts.values()):
        tops, seconds = {below[0] for below in parts.values()}, {below[1] for below in parts.values()}
        if len(tops) > 1 or _division(next(iter(tops))):
            break
        if len(seconds) == 1 and not _division(next(iter(seconds))) and not _deep(parts, 3):
            break  # a class, and a folder below it
        skipped += tops
        parts = {file: below[1:] for file, below in parts.items()}
    odd = [name for name in skipped if name.lower() not in WRAPPERS]
    return parts, [f"the folders below {'/'.join(skipped)} in {folder.name} are looked at"] if odd else []


def _deep(parts: Parts, folders: int) -> bool:
    return all(len(below) > folders for below in parts.values())


def _division(name: str) -> dict | None:
    """The split or fold that a folder is called after."""
    fold = _FOLD.match(name)
    if fold:
        return {"fold": int(fold[1])}
    split = split_of(name)
    return {"split": split} if split else None


def _below_divisions(parts: Parts) -> Listing | None:
    """Clips of folders that are splits or folds, with classes below them or none; None for other folders."""
    tops = Counter(below[0] for below in parts.values() if len(below) > 1)
    meanings = {top: meaning for top in sorted(tops) if (meaning := _division(top))}
    inside = sum(tops[top] for top in meanings)
    several = len({str(meaning) for meaning in meanings.values()}) > 1
    if not meanings or len({*map(str, (set(meaning) for meaning in meanings.values()))}) > 1:
        return None
    if not several and (inside < len(parts) or not _deep(parts, 2)):
        return None  # one folder called "test" among others, or by itself with no classes
    if inside < len(parts) / 2:
        return None
    clips = []
    for top, meaning in meanings.items():
        own = {file: below for file, below in parts.items() if len(below) > 1 and below[0] == top}
        wrapped = {below[1].lower() for below in own.values() if len(below) > 2} <= set(WRAPPERS) and _deep(own, 2)
        depth = 2 if wrapped else 1  # train/audio/dog/x.wav
        clips += [
            Clip(str(file), label=_label(below[depth]) if len(below) > depth + 1 else "", **meaning)
            for file, below in own.items()
        ]
    divisions = "folds" if "fold" in next(iter(meanings.values())) else "splits"
    classes = {clip.label for clip in clips} - {""}
    words = f"{len(classes)} class folders below them" if classes else "no classes below them"
    notes = [f"the folders {', '.join(sorted(meanings))} are taken for {divisions}, with {words}"]
    if len(clips) < len(parts):
        example = next(file for file, below in parts.items() if len(below) == 1 or below[0] not in meanings)
        notes.append(f"{len(parts) - len(clips)} audio files outside the {divisions} are left out, such as {example}")
    return Listing(sorted(clips, key=lambda clip: Path(clip.path)), notes)


def _above_splits(parts: Parts) -> Listing | None:
    """Clips of class folders that have splits below them (dog/train/x.wav); None for other folders."""
    if not _deep(parts, 2):
        return None
    seconds = sorted({below[1] for below in parts.values()})
    splits = {second: split_of(second) for second in seconds}
    if None in splits.values() or len(set(splits.values())) < 2:
        return None
    clips = [Clip(str(file), label=_label(below[0]), split=splits[below[1]]) for file, below in parts.items()]
    return Listing(clips, [f"the folders {', '.join(seconds)} are taken for splits, below those of the classes"])


def _by_class(parts: Parts) -> Listing:
    clips = [Clip(str(file), label=_label(below[0]) if len(below) > 1 else "") for file, below in parts.items()]
    loose = sum(not clip.label for clip in clips)
    if 0 < loose < len(clips):
        return Listing(clips, [f"{loose} audio files are in no class folder and have no label"])
    return Listing(clips)


def _label(name: str) -> str:
    """A folder's name as a class: accents in the form that typed text has."""
    return unicodedata.normalize("NFC", name)


def _without_audio(folder: Path, listing: Listing) -> list[str]:
    """Folders beside those of the classes that can be opened and have no audio in them or below."""
    parents = {Path(clip.path).parent for clip in listing.clips if clip.label}
    places = {parent.parent for parent in parents if parent != folder}
    beside = [child for place in places for child in entries(place) if child not in parents and os.path.isdir(child)]
    beside = [child for child in beside if child.name[:1] not in "._" and os.access(child, os.R_OK | os.X_OK)]
    return sorted(child.name for child in beside if not audio_files(child))
