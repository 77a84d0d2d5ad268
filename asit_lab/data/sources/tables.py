"""Reads lists of clips as people make them: CSV, JSON lines and data frames, with other column names and encodings."""

import csv
import io
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from yaml import YAMLError

from ...errors import InputError
from ...storage.plain_yaml import read_yaml_text
from ...storage.words import nearest_of
from .. import labels
from .clips import SUFFIXES, Clip, Listing
from .finding import exists, finder

MULTI = "labels"  # the column of clips with several labels
SPLITS = {
    **dict.fromkeys(("train", "training", "tr", "development"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev", "validate"), "valid"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "tst"), "test"),
}
# Words beside that of a split in the name of a folder or list: train_set, test-clean, 1_val, train-00000-of-00002.
_BESIDE_SPLITS = ("set", "data", "split", "clean", "other", "audio", "wav", "wavs", "list", "files", "of", "metadata")
_NOTHING = ("", "na", "n/a", "nan", "none", "null", "-", "<na>")  # a cell without split or fold
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
_LISTS = (".csv", ".tsv", ".txt", ".lst", ".jsonl", ".json")
csv.field_size_limit(1 << 24)  # transcripts may be long


def is_list(path: Path) -> bool:
    """Whether a file's name is that of a table of clips."""
    return path.suffix.lower() in _LISTS


def split_of(name: str) -> str | None:
    """train, valid or test, where a folder or list is called after one of them; else None."""
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    words = [word.removesuffix("set") or word for word in words]  # trainset
    splits = {SPLITS[word] for word in words if word in SPLITS}
    rest = [word for word in words if word not in SPLITS and word not in _BESIDE_SPLITS and not word.isdecimal()]
    return splits.pop() if len(splits) == 1 and not rest else None


# --- Reading --------------------------------------------------------------------------------------------------------


def read_table(path: Path) -> pd.DataFrame:
    """A CSV (or one with semicolons, tabs or bars) or JSON lines as text, nothing interpreted: a class called "none" or
    "NA" stays one. `.attrs["notes"]` has what was unusual. Raises InputError naming the line."""
    text, notes = _decoded(path)
    is_json = path.suffix.lower() in (".jsonl", ".json")
    table = _json_rows(path, text) if is_json else _rows(path, text)
    table.attrs["notes"] = notes
    return table


def _decoded(path: Path) -> tuple[str, list[str]]:
    content = path.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16").removeprefix("\ufeff"), []
    if content[1:200:2].count(0) > 50 or content[1::2].count(0) == len(content) // 2 > 0:
        return content.decode("utf-16-le", errors="replace"), []
    if 0 in content:
        line = content[: content.index(0)].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: has a NUL byte; save the list as UTF-8 text")
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), [f"{path.name} is not UTF-8; it is read as Windows-1252"]


def _rows(path: Path, text: str) -> pd.DataFrame:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    first = next((n for n, line in enumerate(lines) if _may_be_header(line)), None)
    if first is None:
        raise InputError(f"{path}: not a CSV that can be read: it has no header")
    header = lines[first]
    separator = max(_SEPARATORS, key=lambda sign: (_names_in(header, sign), header.count(sign)))
    reader = csv.reader(io.StringIO("\n".join(lines[first:])), delimiter=separator, skipinitialspace=True, strict=True)
    names = _names_of_bare_list(header, separator)
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
                    f"{path}, line {first + reader.line_num}: {len(row)} values for {len(names)} columns; put a value "
                    f'that has a {separator!r} in it between double quotes, as in "Dog{separator} Bark"'
                )
            rows.append(row + [""] * (len(names) - len(row)))
            numbers.append(first + reader.line_num)
    except csv.Error as error:
        raise InputError(f"{path}, line {first + reader.line_num}: not a CSV that can be read: {error}") from None
    doubled = [name for name, count in Counter(names).items() if count > 1 and name]
    if doubled:
        raise InputError(f"{path}: column {doubled[0]!r} occurs more than once")
    return pd.DataFrame(rows, columns=names, index=pd.Index(numbers, dtype="int64"), dtype=object)


def _may_be_header(line: str) -> bool:
    """Whether a line is not empty, no comment, and not Excel's word on the separator ("sep=;")."""
    return bool(line.strip(_SEPARATORS + ' "\r\n')) and not line.startswith(("#", "sep="))


def _names_of_bare_list(first: str, separator: str) -> list[str]:
    """Names for the columns of a list without a header, whose first line is a file and perhaps a label already; none
    where there is a header."""
    cells = [cell.strip(' "') for cell in first.split(separator)]
    while cells and not cells[-1]:
        cells.pop()
    is_file = Path(cells[0]).suffix.lower() in SUFFIXES if cells else False
    return ["path", "label"][: len(cells)] if is_file and len(cells) <= 2 else []


def _names_in(header: str, separator: str) -> int:
    """How many columns of a header line have a known name."""
    understood = {_bare(name) for ours, aliases in ALIASES.items() for name in (ours, *aliases)}
    return sum(_bare(name) in understood for name in header.split(separator))


def _bare(name: object) -> str:
    """A column's name without case and signs: "File Name" and "fileName" are file_name."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def _json_rows(path: Path, text: str) -> pd.DataFrame:
    """JSON lines, or one list of objects."""
    import json

    rows, numbers = [], []
    # splitlines would cut at other signs, too, which JSON may hold
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if text.lstrip().startswith("["):
        try:
            lines = [json.dumps(row) for row in json.loads(text)]
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not JSON: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f'{path}, line {number}: expected an object such as {{"path": ..., "label": ...}}')
        rows.append({name: text_of(value) for name, value in row.items()})
        numbers.append(number)
    return pd.DataFrame(rows, index=pd.Index(numbers, dtype="int64"), dtype=object).fillna("")


def text_of(value: Any) -> str:
    """A cell as text; nothing for what is missing."""
    if hasattr(value, "tolist"):  # of numpy
        value = value.tolist()
    if isinstance(value, list | tuple | set):
        return labels.join(map(text_of, value))
    if value is None or (isinstance(value, float) and value != value) or value is pd.NA or value is pd.NaT:
        return ""
    return os.fsdecode(value) if isinstance(value, os.PathLike | bytes) else str(value)


# --- Columns --------------------------------------------------------------------------------------------------------


def rename_columns(table: pd.DataFrame, name: str) -> tuple[pd.DataFrame, list[str]]:
    """The table with our names for its columns, and notes on those that had another or none of ours.

    Raises InputError where there is no column of files, or one class and several classes a clip are both there.
    """
    table = table.loc[:, [bool(str(column).strip()) for column in table.columns]]  # an index has no name
    twice = [column for column, count in Counter(table.columns).items() if count > 1]
    if twice:
        raise InputError(f"{name}: column {twice[0]!r} occurs more than once")
    if "path" in table.index.names and "path" not in table.columns:
        table = table.reset_index()
    present: dict[str, Any] = {}
    for column in sorted(table.columns, key=lambda column: str(column) not in ALIASES):
        present.setdefault(str(column).strip().lower(), column)
    bare = {_bare(column): column for column in reversed(list(present))}
    renames, notes = {}, []
    for ours, aliases in ALIASES.items():
        theirs = next((alias for alias in (ours, *aliases) if alias in present), None)
        theirs = theirs or next((bare[_bare(alias)] for alias in aliases if _bare(alias) in bare), None)
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
    """Whether a table has a column of files, and one on what they are or nothing else."""
    fields = _fields(table)
    about = {"label", MULTI, "group", "split", "fold", "start"}
    return "path" in fields and bool(fields & about or len(table.columns) == 1)


def may_list_files(path: Path) -> bool:
    """Whether the header of a CSV, which cannot be read as a table, has a name for a column of files, or a file."""
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        cells = re.split(f"[{_SEPARATORS}]", next(filter(_may_be_header, lines), ""))
    named = {_bare(name) for name in ("path", *ALIASES["path"])}
    return any(_bare(cell) in named or Path(cell.strip(' "\n')).suffix.lower() in SUFFIXES for cell in cells)


def lists_classes(table: pd.DataFrame) -> bool:
    """Whether a table has a column of classes."""
    return bool(_fields(table) & {"label", MULTI})


def _fields(table: pd.DataFrame) -> set[str]:
    """Which of our columns a table has, by any of their names."""
    present = {_bare(column) for column in table.columns}
    return {ours for ours, aliases in ALIASES.items() if present & set(map(_bare, (ours, *aliases)))}


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
    if "label" in table.columns and any(isinstance(cell, list | tuple | set) for cell in table["label"]):
        raise InputError(f"{name}: column 'label' has lists in it; call it {MULTI!r}, and a clip may have several")
    find = finder(folder)
    divide = _label_divider(table[MULTI].map(text_of), name, notes) if multi else None
    clips, first = [], {}
    forms = no_seconds = 0
    for number, row in zip(table.index, table.to_dict("records"), strict=True):
        place = f"{name}, {line} {number}"
        cells = {ours: text_of(row.get(ours, "")) for ours in ALIASES}
        if not cells["path"].strip():
            raise InputError(f"{place}: the path is empty")
        text = labels.join(divide(cells[MULTI])) if divide else cells["label"].strip()
        label = unicodedata.normalize("NFC", text)
        forms += label != text
        start, seconds = _stretch(cells, place)
        no_seconds += start is None and bool(cells["start"].strip())
        clip = Clip(
            path=find(cells["path"].strip()),
            label=label,
            fold=_fold(cells["fold"], place),
            split=_split(cells["split"], place) or split,
            group=cells["group"].strip() or None,
            start=start,
            seconds=seconds,
        )
        first_number, earlier = first.setdefault(
            (clip.path, clip.start, clip.seconds, clip.fold, clip.split), (number, clip)
        )
        if earlier is not clip and earlier.label != clip.label:
            raise InputError(
                f"{place}: {cells['path']} has the label {clip.label!r}, but {earlier.label!r} in {line} "
                f"{first_number}; give it one, or both in a column {MULTI!r}: {earlier.label};{clip.label}"
            )
        if earlier is clip:
            clips.append(clip)
    if len(clips) < len(table):
        notes.append(f"{name}: {len(table) - len(clips)} rows are duplicates and are left out")
    if no_seconds:
        notes.append(
            f"{name}: {no_seconds} of its starts are no numbers of seconds; these files are read from their start"
        )
    if forms:
        notes.append(f"{name}: {forms} labels are written with accents apart from their letters; they are joined")
    if not any(exists(clip.path) for clip in clips):
        raise InputError(
            f"{name}: none of the {len(clips)} files it lists exists; the first would be {clips[0].path} "
            f"(relative paths count from {folder})"
        )
    # Collected here, so that every part of the data set has the same classes.
    classes = sorted({name for clip in clips for name in labels.split(clip.label)}) if multi else None
    return Listing(clips, notes, multi=multi, labels=classes)


def _label_divider(column: Iterable[str], name: str, notes: list[str]) -> Callable[[str], list[str]]:
    """Splits a cell into labels: at semicolons, or where the column has none, at commas or bars."""
    cells = [_without_brackets(cell) for cell in column]
    separator = next((sign for sign in (";", ",", "|") if any(sign in cell for cell in cells)), ";")
    if separator != ";":
        notes.append(f"{name}: labels are divided at {separator!r}")
    return lambda cell: _without_brackets(cell).split(separator)


def _without_brackets(cell: str) -> str:
    """The labels of a cell that is written as a list: ['dog', 'cat']."""
    if not (cell.strip().startswith("[") and cell.strip().endswith("]")):
        return cell
    try:
        return labels.join(map(str, read_yaml_text(cell)))
    except (ValueError, TypeError, YAMLError, RecursionError):
        return cell


def _stretch(cells: Mapping[str, str], place: str) -> tuple[float | None, float | None]:
    """(start, length) in s, of rows that name a stretch of their file; a length without a start is the file's.

    A start alone goes on to the end of the file, unless it is no number, as the time of day of a recording.
    """
    if not cells["start"].strip():
        return None, None
    if not (cells["end"].strip() or cells["seconds"].strip()):
        alone = pd.to_numeric(cells["start"], errors="coerce")
        return (float(alone), math.inf) if 0 <= alone < math.inf else (None, None)
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
    digits = text.strip().lower().removeprefix("fold").lstrip(" _")
    digits = digits.removeprefix("-") if "fold" in text.lower() else digits
    digits = "" if digits in _NOTHING else digits
    try:
        number = float(digits) if digits else None  # pandas writes 1.0 where another row has no fold
        if number is None or number.is_integer():
            return None if number is None else int(number)
        raise ValueError
    except (ValueError, OverflowError):
        raise InputError(f"{place}: fold {text!r} is not a whole number") from None


def _split(text: str, place: str) -> str | None:
    name = text.strip().lower()
    if name in _NOTHING:
        return None
    if name not in SPLITS:
        raise InputError(f"{place}: split {text!r} is not one of train, valid, test")
    return SPLITS.get(name)
