"""A user's own recordings: class folders, or a CSV with the columns path,label[,split|fold|group].

With a column `labels` in place of `label`, a clip may have several, joined by semicolons ("dog;rain"), or none.
"""

from collections import Counter
from pathlib import Path

import pandas as pd

from ...errors import InputError
from .. import labels
from .clips import Clip, Listing, audio_files, check_folder

MULTI = "labels"  # the column of clips with several labels
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}


def list_folder(path: Path, source: str) -> Listing:
    """Clips of a folder (class = name of the sub-folder directly below it) or of the CSV it is or holds.

    Raises InputError for a missing path, an archive, a folder without audio, a CSV that lacks a column.
    """
    if path.is_file() and path.suffix.lower() == ".csv":
        return _read_csv(path, read_table(path))
    check_folder(path, source)
    listing = _from_contained_csv(path, source)
    return listing or _from_class_folders(path, source)


def _from_contained_csv(folder: Path, source: str) -> Listing | None:
    """Clips of the one CSV in the folder that lists files; None where no CSV means to."""
    tables = {csv: read_table(csv) for csv in sorted(folder.glob("*.csv")) if not csv.name.startswith(".")}
    complete = [csv for csv, table in tables.items() if _missing_column(table) is None]
    if len(complete) > 1:
        names = ", ".join(csv.name for csv in complete)
        raise InputError(f"data source {source!r}: {folder} holds several lists ({names}); give one: folder:PATH/X.csv")
    if complete:
        listing = _read_csv(complete[0], tables[complete[0]])
        unlisted = len({str(file.resolve()) for file in audio_files(folder)} - {_real(clip) for clip in listing.clips})
        if unlisted:
            listing.notes.append(f"{unlisted} audio files in {folder} are not in {complete[0].name} and are left out")
        return listing
    for csv, table in tables.items():
        # A CSV next to class folders may be anything; one with half of the columns, or with no class folders beside
        # it, was meant as the list.
        if {"path", "label", MULTI} & set(table.columns) or not _has_class_folders(folder):
            _check_columns(csv, table)
    return None


def _real(clip: Clip) -> str:
    return str(Path(clip.path).resolve())


def _has_class_folders(folder: Path) -> bool:
    return any(file.parent != folder for file in audio_files(folder))


def _from_class_folders(folder: Path, source: str) -> Listing:
    files = audio_files(folder)
    if not files:
        suffixes = Counter(path.suffix.lower() or "none" for path in folder.rglob("*") if path.is_file())
        found = ", ".join(f"{suffix} ({count})" for suffix, count in suffixes.most_common(5)) or "no files"
        raise InputError(
            f"data source {source!r}: no audio files that can be read in {folder}; suffixes found: {found}"
        )
    clips = []
    for file in files:
        inside = file.relative_to(folder).parts
        clips.append(Clip(str(file), label=inside[0] if len(inside) > 1 else ""))
    return Listing(clips)


def read_table(csv: Path) -> pd.DataFrame:
    """A CSV as text, nothing interpreted: a class called "none" or "NA" stays one. Raises InputError."""
    try:
        table = pd.read_csv(csv, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InputError(f"{csv}: not a CSV that can be read: {error}") from None
    table.columns = [column.strip() for column in table.columns]
    return table


def _missing_column(table: pd.DataFrame) -> str | None:
    if "path" not in table.columns:
        return "path"
    return None if {"label", MULTI} & set(table.columns) else "label"


def _check_columns(csv: Path, table: pd.DataFrame) -> None:
    missing = _missing_column(table)
    if missing:
        present = ", ".join(map(repr, table.columns))
        several = f"; several labels a clip go into a column {MULTI!r}" if missing == "label" else ""
        raise InputError(f"{csv}: column {missing!r} is missing; columns present (comma-separated): {present}{several}")
    if {"label", MULTI} <= set(table.columns):
        raise InputError(f"{csv}: columns 'label' (one class a clip) and {MULTI!r} (several) are both there; give one")


def _read_csv(csv: Path, table: pd.DataFrame) -> Listing:
    """Clips of a CSV; relative paths count from the CSV's own folder."""
    _check_columns(csv, table)
    multi = MULTI in table.columns
    if table.empty:
        raise InputError(f"{csv}: has a header but no rows")
    clips = []
    for line, row in enumerate(table.to_dict("records"), start=2):  # line 1 is the header
        if not row["path"].strip():
            raise InputError(f"{csv}, line {line}: the path is empty")
        file = Path(row["path"].strip()).expanduser()
        clips.append(
            Clip(
                path=str(file if file.is_absolute() else (csv.parent / file).resolve()),
                label=labels.join(labels.split(row[MULTI])) if multi else row["label"].strip(),
                fold=_fold(row.get("fold", ""), csv, line),
                split=_split(row.get("split", ""), csv, line),
                group=row.get("group", "").strip() or None,
            )
        )
    if not any(Path(clip.path).exists() for clip in clips):
        raise InputError(
            f"{csv}: none of the {len(clips)} files it lists exists; the first would be {clips[0].path} "
            "(relative paths count from the CSV's folder)"
        )
    # Named once for all, so that every part of the data set has the same classes.
    classes = sorted({name for clip in clips for name in labels.split(clip.label)}) if multi else None
    return Listing(clips, multi=multi, labels=classes)


def _fold(text: str, csv: Path, line: int) -> int | None:
    try:
        number = float(text) if text.strip() else None  # pandas writes 1.0 where another row has no fold
        if number is None or number.is_integer():
            return None if number is None else int(number)
        raise ValueError
    except ValueError:
        raise InputError(f"{csv}, line {line}: fold {text!r} is not a whole number") from None


def _split(text: str, csv: Path, line: int) -> str | None:
    name = text.strip().lower()
    if name and name not in SPLITS:
        raise InputError(f"{csv}, line {line}: split {text!r} is not one of train, valid, test")
    return SPLITS.get(name)
