"""Lists a user's own recordings: class folders, perhaps below splits or folds; tables; Kaldi and Hugging Face data.

With a column `labels` in place of `label`, a clip may have several, joined by semicolons ("dog;rain"), or none.
"""

import re
from collections import Counter
from pathlib import Path

from ...errors import InputError
from .clips import Clip, Listing, audio_files, check_is_folder
from .kaldi import SCP, list_kaldi, list_tsv_of_frames
from .parquet import PARQUET, list_parquet
from .tables import SPLITS, is_list, list_table, lists_files, read_table

_FOLD = re.compile(r"(?:fold|cv|split)[ _-]?(\d+)$", re.IGNORECASE)
_WRAPPERS = ("audio", "audios", "wav", "wavs", "clips", "data", "sounds", "recordings", "files")
_METADATA = ("metadata.csv", "metadata.jsonl")  # Hugging Face's audiofolder, also inside the folder of a split


def list_folder(path: Path, source: str) -> Listing:
    """Clips of a folder, or of the list it is or holds; the notes say how it was understood.

    Raises InputError for a missing path, an archive, a folder without audio, a list that lacks a column.
    """
    if path.is_file() and is_list(path):
        return _list_file(path)
    if path.is_file() and path.suffix.lower() in PARQUET:
        return list_parquet([path], source)
    check_is_folder(path, source)
    if (path / SCP).is_file():
        return list_kaldi(path)
    listing = _from_metadata(path) or _from_lists(path, source) or _from_parquet(path, source)
    return listing or _from_class_folders(path, source)


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
    places = [(folder, None)]
    places += [(sub, SPLITS[sub.name.lower()]) for sub in sorted(folder.iterdir()) if sub.name.lower() in SPLITS]
    files = [(sub / name, split) for sub, split in places for name in _METADATA if (sub / name).is_file()]
    tables = [(file, split, read_table(file)) for file, split in files]
    tables = [(file, split, table) for file, split, table in tables if "file_name" in table.columns]
    if not tables:
        return None
    listings = [list_table(table, file.parent, str(file), split=split) for file, split, table in tables]
    clips = [clip for listing in listings for clip in listing.clips]
    notes = list(dict.fromkeys(note for listing in listings for note in listing.notes))
    multi = any(listing.multi for listing in listings)
    classes = sorted({name for listing in listings for name in listing.labels or []}) if multi else None
    return Listing(clips, notes, multi, classes)


def _from_lists(folder: Path, source: str) -> Listing | None:
    """Clips of the one table in the folder (else in its meta/ or metadata/) that lists files; None for none."""
    for place in (folder, folder / "metadata", folder / "meta"):
        names = [file for file in sorted(place.glob("*.[ct]sv")) if not file.name.startswith(".")]
        tables = {file: read_table(file) for file in names}
        lists = [file for file, table in tables.items() if lists_files(table)]
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


def _from_parquet(folder: Path, source: str) -> Listing | None:
    """Clips of a Hugging Face data set: Parquet files (or Arrow's) with a column of audio."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in PARQUET and file.is_file()]
    return list_parquet(files, source) if files and not audio_files(folder) else None


def _from_class_folders(folder: Path, source: str) -> Listing:
    files = audio_files(folder)
    if not files:
        suffixes = Counter(path.suffix.lower() or "none" for path in folder.rglob("*") if path.is_file())
        summary = ", ".join(f"{suffix} ({count})" for suffix, count in suffixes.most_common(5)) or "no files"
        raise InputError(
            f"data source {source!r}: no audio files that can be read in {folder}; suffixes found: {summary}"
        )
    parts = {file: file.relative_to(folder).parts for file in files}
    if all(len(below) > 1 for below in parts.values()):
        tops = {below[0] for below in parts.values()}
        if len(tops) == 1 and tops <= set(_WRAPPERS) and len({below[1] for below in parts.values()}) > 1:
            return _from_class_folders(folder / tops.pop(), source)
    tops = {below[0] for below in parts.values() if len(below) > 1}
    if tops and all(len(below) > 1 for below in parts.values()):
        if all(top.lower() in SPLITS for top in tops) and (len(tops) > 1 or _has_classes(parts.values())):
            return _divided(parts, {top: {"split": SPLITS[top.lower()]} for top in tops}, "splits")
        if all(_FOLD.match(top) for top in tops) and (len(tops) > 1 or _has_classes(parts.values())):
            return _divided(parts, {top: {"fold": int(_FOLD.match(top)[1])} for top in tops}, "folds")
    clips = [Clip(str(file), label=below[0] if len(below) > 1 else "") for file, below in parts.items()]
    return Listing(clips)


def _has_classes(parts) -> bool:
    return all(len(below) > 2 for below in parts)


def _divided(parts: dict[Path, tuple[str, ...]], meanings: dict[str, dict], divisions: str) -> Listing:
    """Clips of folders that are splits or folds, with classes below them or none."""
    clips = [
        Clip(str(file), label=path[1] if len(path) > 2 else "", **meanings[path[0]]) for file, path in parts.items()
    ]
    classes = sorted({clip.label for clip in clips} - {""})
    below = f"{len(classes)} class folders below them" if classes else "no classes below them"
    return Listing(clips, [f"the folders {', '.join(sorted(meanings))} are taken for {divisions}, with {below}"])
