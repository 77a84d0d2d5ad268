"""Lists a user's own recordings: class folders, perhaps below splits or folds; tables; Kaldi and Hugging Face data.

With a column `labels` in place of `label`, a clip may have several, joined by semicolons ("dog;rain"), or none.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ...errors import InputError
from .class_folders import WRAPPERS, from_class_folders
from .clips import Listing, audio_files, check_is_folder, entries, is_audio, walk
from .kaldi import SCP, list_kaldi, list_tsv_of_frames
from .parquet import PARQUET, list_parquet, read_parquet
from .tables import is_list, list_table, lists_classes, lists_files, may_list_files, read_table, split_of

# Hugging Face's audiofolder, also inside the folder of a split.
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_LIST_FOLDERS = ("metadata", "meta", "data", "annotations", "lists", "labels")


def list_folder(path: Path, source: str) -> Listing:
    """Clips of a folder, or of the list it is or holds; the notes say how it was understood.

    Raises InputError for a missing path, an archive, a folder without audio, a list that lacks a column.
    """
    if path.is_file() and is_list(path):
        return _list_file(path)
    if path.is_file() and path.suffix.lower() in PARQUET:
        return list_parquet([path], source)
    check_is_folder(path, source)
    for folder in _with_lists(path):
        listing = _from_kaldi(folder) or _from_metadata(folder) or _from_lists(folder, source)
        listing = listing or _from_parquet(folder, source)
        if listing:
            return listing
    return from_class_folders(path, source)


def _with_lists(path: Path) -> Iterator[Path]:
    """A folder, and those below it where it holds nothing but one folder: what an archive unpacks to."""
    yield path
    for _ in range(3):
        visible = [entry for entry in entries(path) if entry.name[:1] not in "._"]
        folders = [entry for entry in visible if os.path.isdir(entry)]
        if len(folders) != 1 or any(is_audio(entry) for entry in visible) or folders[0].is_symlink():
            return
        (path,) = folders
        yield path


def _splits_in(folder: Path) -> list[tuple[Path, str | None]]:
    """The folder itself, and those in it that are called after splits, with these."""
    below = [(sub, split_of(sub.name)) for sub in entries(folder) if os.path.isdir(sub)]
    return [(folder, None), *((sub, split) for sub, split in below if split)]


def _together(listings: list[Listing]) -> Listing:
    """Several listings as one."""
    clips = [clip for listing in listings for clip in listing.clips]
    notes = list(dict.fromkeys(note for listing in listings for note in listing.notes))
    multi = any(listing.multi for listing in listings)
    classes = sorted({name for listing in listings for name in listing.labels or []}) if multi else None
    return Listing(clips, notes, multi, classes)


def _from_kaldi(folder: Path) -> Listing | None:
    """Clips of Kaldi's lists in the folder or in those of its splits; None where there are none."""
    listings = []
    for place, split in _splits_in(folder):
        if os.path.isfile(place / SCP):
            listing = list_kaldi(place)
            listing.clips = [replace(clip, split=split) for clip in listing.clips]
            listings.append(listing)
    return _together(listings) if listings else None


def _list_file(path: Path) -> Listing:
    fairseq = list_tsv_of_frames(path)
    if fairseq:
        return fairseq
    table = read_table(path)
    listing = list_table(table, path.parent, str(path))
    listing.notes[:0] = table.attrs["notes"]
    return listing


def _from_metadata(folder: Path) -> Listing | None:
    """Clips of metadata.csv or .jsonl in the folder or in those of its splits; None where there is none."""
    files = [
        (sub / name, split) for sub, split in _splits_in(folder) for name in _METADATA if os.path.isfile(sub / name)
    ]
    tables = [(file, split, _read_metadata(file)) for file, split in files]
    tables = [(file, split, table) for file, split, table in tables if "file_name" in table.columns]
    if not tables:
        return None
    listings = [list_table(table, file.parent, str(file), split=split) for file, split, table in tables]
    together = _together(listings)
    if not any(clip.split for clip in together.clips):  # one list for files in folders of splits
        splits = [_split_above(Path(clip.path), folder) for clip in together.clips]
        if None not in splits:
            together.clips = [replace(clip, split=split) for clip, split in zip(together.clips, splits, strict=True)]
            together.notes.append("the folders of the files are taken for splits")
    if not together.multi and not any(clip.label for clip in together.clips):
        _label_by_folder(together, folder)
    return together


def _split_above(file: Path, folder: Path) -> str | None:
    """The split that the uppermost folder of a file below `folder` is called after."""
    return split_of(file.relative_to(folder).parts[0]) if file.is_relative_to(folder) else None


def _label_by_folder(listing: Listing, folder: Path) -> None:
    """Take the folders of the files for classes, where all are in one that is called after something else than a split
    or audio, and there are several."""
    names = [Path(clip.path).parent for clip in listing.clips]
    names = ["" if parent == folder or split_of(parent.name) else parent.name for parent in names]
    if len(set(names)) > 1 and "" not in names and not any(name.lower() in WRAPPERS for name in names):
        listing.clips = [replace(clip, label=name) for clip, name in zip(listing.clips, names, strict=True)]
        listing.notes.append("the list has no classes; the folders of the files are taken for them")


def _read_metadata(file: Path) -> pd.DataFrame:
    return read_parquet(file) if file.suffix.lower() in PARQUET else read_table(file)


def _from_lists(folder: Path, source: str) -> Listing | None:
    """Clips of the one table in the folder (else in its meta/, metadata/, ...) that lists files, or of one for each
    split (train.csv, test.csv); None for none."""
    for place in (folder, *(folder / name for name in _LIST_FOLDERS)):
        names = [file for file in sorted(place.glob("*.[ct]sv")) if file.name[:1] != "." and os.path.isfile(file)]
        tables = {file: table for file in names if (table := _table_in(file)) is not None}
        lists = [file for file, table in tables.items() if lists_files(table)]
        splits = {file: split_of(file.stem) for file in lists}
        if len({split for split in splits.values() if split}) > 1:
            return _from_list_of_each_split(folder, place, {file: tables[file] for file in lists}, splits)
        if len(lists) > 1:  # a list of clips beside others that are about them
            lists = [file for file in lists if lists_classes(tables[file])] or lists
        if place == folder and len(lists) > 1:
            list_names = ", ".join(file.name for file in lists)
            raise InputError(
                f"data source {source!r}: {folder} holds several lists ({list_names}); give one: folder:PATH/X.csv"
            )
        if len(lists) == 1:
            (file,) = lists
            listing = list_table(tables[file], place if place == folder else folder, str(file))
            listing.notes[:0] = tables[file].attrs["notes"]
            listed = {str(Path(clip.path).resolve()) for clip in listing.clips}
            unlisted = sum(str(audio.resolve()) not in listed for audio in audio_files(folder))
            if unlisted:
                listing.notes.append(f"{unlisted} audio files in {folder} are not in {file.name} and are left out")
            return listing
        if names and place == folder:
            break
    return None


def _table_in(file: Path) -> pd.DataFrame | None:
    """The table in a CSV that lies beside clips; None for a damaged one that seems to be about something else."""
    try:
        return read_table(file)
    except InputError:
        if may_list_files(file):
            raise
        return None


def _from_list_of_each_split(folder: Path, place: Path, tables: dict, splits: dict[Path, str | None]) -> Listing:
    base = place if place == folder else folder
    used = [file for file, split in splits.items() if split]
    together = _together([list_table(tables[file], base, str(file), split=splits[file]) for file in used])
    together.notes.insert(0, f"the lists {', '.join(file.name for file in used)} are taken for splits")
    others = [file.name for file in tables if file not in used]
    if others:
        together.notes.append(f"{', '.join(others)} in {place} are left out: they are called after no split")
    return together


def _from_parquet(folder: Path, source: str) -> Listing | None:
    """Clips of a Hugging Face data set: Parquet files (or Arrow's) with a column of audio."""
    files = sorted(Path(inside, name) for inside, names in walk(folder) for name in names)
    files = [file for file in files if file.suffix.lower() in PARQUET and os.path.isfile(file)]
    return list_parquet(files, source) if files and not audio_files(folder) else None
