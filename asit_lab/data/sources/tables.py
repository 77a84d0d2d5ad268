"""Reads lists of clips as people make them: CSV, JSON lines and data frames, with other column names and encodings."""

import csv
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ...errors import InputError
from ...storage.words import nearest_of
from .. import labels
from .clips import SUFFIXES, Clip, Listing, audio_files

MULTI = "labels"  # the column of clips with several labels
SPLITS = {
    **dict.fromkeys(("train", "training", "tr", "development"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev", "validate"), "valid"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "tst"), "test"),
}
# Our name of a column -> what others call it, the likelier first.
ALIASES: dict[str, tuple[str, ...]] = {
    "path": (
        *("file_name", "filename", "filepath", "file_path", "file", "fname", "audio_path", "audio_file", "wav_path"),
        *("audio_filepath", "wav_file", "wav", "audio", "slice_file_name", "clip_path", "clip", "relative_path"),
    ),
    "label": (
        *("class", "category", "class_name", "classname", "label_name", "tag", "species", "target", "classid"),
        "class_id",
    ),
    MULTI: ("tags", "categories", "classes"),
    "fold": ("fold_id", "cv_fold"),
    "split": ("set", "subset", "partition", "part", "data_split"),
    "group": (
        *("speaker", "speaker_id", "spk", "spk_id", "client_id", "recording", "recording_id", "source_file"),
        *("src_file", "source_id", "subject", "subject_id", "session", "actor"),
    ),
    "start": ("start_time", "onset", "begin", "start_seconds", "start_s"),
    "end": ("end_time", "stop", "end_seconds", "end_s"),
    "seconds": ("duration", "length"),
}
_SEPARATORS = ",;\t|"
_LISTS = (".csv", ".tsv", ".txt", ".lst", ".jsonl")


def is_list(path: Path) -> bool:
    """Whether a file's name is that of a table of clips."""
    return path.suffix.lower() in _LISTS


# --- Reading --------------------------------------------------------------------------------------------------------


def read_table(path: Path) -> pd.DataFrame:
    """A CSV (or one with semicolons, tabs or bars) or JSON lines as text, nothing interpreted: a class called "none" or
    "NA" stays one. `.attrs["notes"]` has what was unusual. Raises InputError naming the line."""
    text, notes = _decoded(path)
    table = _json_lines(path, text) if path.suffix.lower() == ".jsonl" else _rows(path, text)
    table.attrs["notes"] = notes
    return table


def _decoded(path: Path) -> tuple[str, list[str]]:
    content = path.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16").removeprefix("\ufeff"), []
    if 0 in content:
        line = content[: content.index(0)].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: has a NUL byte; save the list as UTF-8 text")
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), [f"{path.name} is not UTF-8; it is read as Windows-1252"]


def _rows(path: Path, text: str) -> pd.DataFrame:
    lines = text.splitlines()
    header = next((line for line in lines if line.strip(_SEPARATORS + ' "')), None)
    if header is None:
        raise InputError(f"{path}: not a CSV that can be read: it has no header")
    separator = max(_SEPARATORS, key=lambda sign: (_names_in(header, sign), header.count(sign)))
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
    names: list[str] = []
    rows: list[list[str]] = []
    numbers: list[int] = []
    try:
        for row in reader:
            while row and not row[-1].strip():  # trailing commas
                row.pop()
            if not row:
                continue
            if not names:
                names = [name.strip() for name in row]
                continue
            if len(row) > len(names):
                raise InputError(
                    f"{path}, line {reader.line_num}: {len(row)} values for {len(names)} columns; put a value that "
                    f'has a {separator!r} in it between double quotes, as in "Dog{separator} Bark"'
                )
            rows.append(row + [""] * (len(names) - len(row)))
            numbers.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not a CSV that can be read: {error}") from None
    doubled = [name for name, count in Counter(names).items() if count > 1 and name]
    if doubled:
        raise InputError(f"{path}: column {doubled[0]!r} occurs more than once")
    return pd.DataFrame(rows, columns=names, index=pd.Index(numbers, dtype="int64"), dtype=object)


def _names_in(header: str, separator: str) -> int:
    """How many columns of a header line have a known name."""
    understood = {*ALIASES, *(alias for aliases in ALIASES.values() for alias in aliases)}
    return sum(name.strip(' "').lower() in understood for name in header.split(separator))


def _json_lines(path: Path, text: str) -> pd.DataFrame:
    import json

    rows, numbers = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f'{path}, line {number}: expected an object such as {{"path": ..., "label": ...}}')
        rows.append({name: _text(value) for name, value in row.items()})
        numbers.append(number)
    return pd.DataFrame(rows, index=pd.Index(numbers, dtype="int64"), dtype=object).fillna("")


def _text(value: Any) -> str:
    """A cell as text; nothing for what is missing."""
    if isinstance(value, list | tuple | set):
        return labels.join(map(str, value))
    if value is None or (isinstance(value, float) and value != value) or value is pd.NA or value is pd.NaT:
        return ""
    return os.fsdecode(value) if isinstance(value, os.PathLike | bytes) else str(value)


# --- Columns --------------------------------------------------------------------------------------------------------


def rename_columns(table: pd.DataFrame, name: str) -> tuple[pd.DataFrame, list[str]]:
    """The table with our names for its columns, and notes on those that had another or none of ours.

    Raises InputError where there is no column of files, or one class and several classes a clip are both there.
    """
    present = {str(column).strip().lower(): column for column in table.columns}
    renames, notes = {}, []
    for ours, aliases in ALIASES.items():
        theirs = next((alias for alias in (ours, *aliases) if alias in present), None)
        if theirs is None or (ours == MULTI and "label" in present):
            continue
        if theirs != ours:
            if ours == MULTI and "label" in renames.values():
                continue
            notes.append(f"{name}: column {present[theirs]!r} is taken as {ours!r}")
        renames[present[theirs]] = ours
    if {"label", MULTI} <= set(present):
        raise InputError(f"{name}: columns 'label' (one class a clip) and {MULTI!r} (several) are both there; give one")
    if "path" not in renames.values():
        columns = ", ".join(map(repr, table.columns))
        raise InputError(f"{name}: column 'path' is missing; columns present: {columns}")
    for column in table.columns:
        if column in renames:
            continue
        near = nearest_of(str(column).lower(), [ours for ours in ALIASES if ours not in renames.values()], cutoff=0.75)
        if near:
            notes.append(f"{name}: column {column!r} is not used; did you mean {near!r}?")
    return table.rename(columns=renames), notes


def lists_files(table: pd.DataFrame) -> bool:
    """Whether a table has a column of files, and one of labels or nothing else."""
    present = {str(column).strip().lower() for column in table.columns}
    fields = {ours for ours, aliases in ALIASES.items() if present & {ours, *aliases}}
    return "path" in fields and bool(fields & {"label", MULTI} or len(present) == 1)


# --- Rows -----------------------------------------------------------------------------------------------------------


def list_table(table: pd.DataFrame, folder: Path, name: str, line: str = "line", split: str | None = None) -> Listing:
    """Clips of a table whose columns are ours or aliases; relative paths count from `folder`.

    name: of the table in messages. line: what a row's index is called. split: of all rows, where the table has none.
    Raises InputError naming the row.
    """
    table, notes = rename_columns(table, name)
    multi = MULTI in table.columns
    if table.empty:
        raise InputError(f"{name}: has a header but no rows")
    find = _finder(folder)
    divide = _label_divider(table[MULTI].map(_text), name, notes) if multi else None
    clips, first = [], {}
    forms = 0
    for number, row in zip(table.index, table.to_dict("records"), strict=True):
        place = f"{name}, {line} {number}"
        cells = {ours: _text(row.get(ours, "")) for ours in ALIASES}
        if not cells["path"].strip():
            raise InputError(f"{place}: the path is empty")
        text = labels.join(divide(cells[MULTI])) if divide else cells["label"].strip()
        label = unicodedata.normalize("NFC", text)
        forms += label != text
        start, seconds = _stretch(cells, place)
        clip = Clip(
            path=find(cells["path"].strip()),
            label=label,
            fold=_fold(cells["fold"], place),
            split=_split(cells["split"], place) or split,
            group=cells["group"].strip() or None,
            start=start,
            seconds=seconds,
        )
        first_number, earlier = first.setdefault((clip.path, clip.start, clip.fold, clip.split), (number, clip))
        if earlier is not clip and earlier.label != clip.label:
            raise InputError(
                f"{place}: {cells['path']} has the label {clip.label!r}, but {earlier.label!r} in {line} "
                f"{first_number}; give it one, or both in a column {MULTI!r}: {earlier.label};{clip.label}"
            )
        if earlier is clip:
            clips.append(clip)
    if len(clips) < len(table):
        notes.append(f"{name}: {len(table) - len(clips)} rows are duplicates and are left out")
    if forms:
        notes.append(f"{name}: {forms} labels are written with accents apart from their letters; they are joined")
    if not any(os.path.exists(clip.path.partition("::")[0]) for clip in clips):
        raise InputError(
            f"{name}: none of the {len(clips)} files it lists exists; the first would be {clips[0].path} "
            f"(relative paths count from {folder})"
        )
    # Collected here, so that every part of the data set has the same classes.
    classes = sorted({name for clip in clips for name in labels.split(clip.label)}) if multi else None
    return Listing(clips, notes, multi=multi, labels=classes)


def _label_divider(column: Iterable[str], name: str, notes: list[str]) -> Callable[[str], list[str]]:
    """Splits a cell into labels: at semicolons, or where the column has none, at commas or bars."""
    cells = list(column)
    separator = next((sign for sign in (";", ",", "|") if any(sign in cell for cell in cells)), ";")
    if separator != ";":
        notes.append(f"{name}: labels are divided at {separator!r}")
    return lambda cell: cell.split(separator)


def _finder(folder: Path) -> Callable[[str], str]:
    """Finds the file of a name in a list: name -> absolute path, where the file should be if it does not exist.

    A name that does not exist as written is tried with slashes for backslashes, with accents in the other Unicode
    form and in an older encoding; then a file of that name (with or without suffix) is searched for below `folder`.
    """
    below: dict[str, str | None] | None = None

    def absolute(name: str) -> str:
        path = Path(name).expanduser()
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
                for key in (file.name, file.stem):
                    below[key] = None if key in below and below[key] != str(file) else str(file)
        last = name.replace("\\", "/").rsplit("/", 1)[-1]
        stem = last.rpartition(".")[0] if Path(last).suffix.lower() in SUFFIXES else last
        return below.get(last) or below.get(stem) or plain

    return find


def _spellings(name: str) -> list[str]:
    slashed = name.replace("\\", "/")
    spellings = [slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]
    for encoding in ("cp1252", "cp437"):
        try:
            spellings.append(os.fsdecode(slashed.encode(encoding)))
        except UnicodeEncodeError:
            continue
    return spellings


def _stretch(cells: Mapping[str, str], place: str) -> tuple[float | None, float | None]:
    """(start, length) in s, of rows that name a stretch of their file; a length without a start is the file's."""
    if not cells["start"].strip() or not (cells["end"].strip() or cells["seconds"].strip()):
        return None, None
    start = _number(cells["start"], "start", place)
    length = (
        _number(cells["end"], "end", place) - start
        if cells["end"].strip()
        else _number(cells["seconds"], "seconds", place)
    )
    if start < 0 or length <= 0:
        raise InputError(f"{place}: {start:g} s on for {length:g} s is no stretch of a file")
    return start, length


def _number(text: str, column: str, place: str) -> float:
    try:
        number = float(text.strip().replace(",", "."))
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise InputError(f"{place}: {column} {text!r} is not a number of seconds")
    return number


def _fold(text: str, place: str) -> int | None:
    digits = text.strip().lower().removeprefix("fold").strip(" _-")
    try:
        number = float(digits) if digits else None  # pandas writes 1.0 where another row has no fold
        if number is None or number.is_integer():
            return None if number is None else int(number)
        raise ValueError
    except (ValueError, OverflowError):
        raise InputError(f"{place}: fold {text!r} is not a whole number") from None


def _split(text: str, place: str) -> str | None:
    name = text.strip().lower()
    if name and name not in SPLITS:
        raise InputError(f"{place}: split {text!r} is not one of train, valid, test")
    return SPLITS.get(name)
