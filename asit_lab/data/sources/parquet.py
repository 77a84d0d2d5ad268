"""Reads Hugging Face data sets on disk: Parquet or Arrow files with a column of audio (bytes and path) and labels."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from ...config import resolve
from ...errors import InputError
from ...storage.atomic import atomic_write
from .clips import Listing
from .tables import list_table, lists_files, split_of, text_of

PARQUET = (".parquet", ".arrow")
_KEPT = "data/huggingface"  # sounds are extracted to this folder once
_SUFFIXES = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}


def list_parquet(files: list[Path], source: str) -> Listing:
    """Clips of all rows. A split is taken from a file's name ("train-00000-of-00002") or folder.

    Raises InputError where pyarrow is missing or no column holds audio.
    """
    _check_pyarrow(source)
    tables = [_table(file, source) for file in files]
    table = pd.concat([rows.assign(split=split) if split else rows for rows, split in tables], ignore_index=True)
    if "split" in table.columns:
        table["split"] = table["split"].fillna("")
    listing = list_table(table, files[0].parent, source, line="row")
    listing.notes.insert(0, f"{len(files)} {files[0].suffix} files are taken for a Hugging Face data set")
    return listing


def _check_pyarrow(source: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise InputError(f"data source {source!r}: Parquet needs pyarrow: pip install pyarrow") from None


def read_parquet(file: Path) -> pd.DataFrame:
    """A table without sounds in it, as text. Raises InputError where pyarrow is missing or the file is damaged."""
    _check_pyarrow(str(file))
    schema, rows = _open(file)
    texts = [{name: text_of(value) for name, value in row.items()} for row in rows]
    table = pd.DataFrame(texts, columns=schema.names, dtype=object)
    table.attrs["notes"] = []
    return table


def _table(file: Path, source: str) -> tuple[pd.DataFrame, str | None]:
    schema, rows = _open(file)
    names = schema.names
    column = next((name for name in names if _is_audio(name, schema.field(name).type)), None)
    if column is None and lists_files(pd.DataFrame(columns=names)):
        return read_parquet(file), split_of(file.stem)
    if column is None:
        raise InputError(
            f"data source {source!r}: no column with audio (bytes, path) in {file}; columns: {', '.join(names)}"
        )
    classes = _class_names(schema)
    state = file.stat()
    key = hashlib.blake2b(os.fsencode(file) + f"{state.st_size}{state.st_mtime_ns}".encode(), digest_size=8).hexdigest()
    folder = resolve(_KEPT) / key
    clips = []
    for number, row in enumerate(rows):
        sound = row.pop(column)
        row = {name: value for name, value in row.items() if not isinstance(value, dict | bytes)}
        for name, named in classes.items():
            if isinstance(row.get(name), int) and 0 <= row[name] < len(named):
                row[name] = named[row[name]]
        clips.append({**row, "path": _file_of(sound, folder, number, file)})  # some tables have a path of their own
    return pd.DataFrame(clips), split_of(file.stem) or split_of(file.parent.name)


def _open(file: Path) -> tuple[Any, Iterator[dict]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _damage_named(file):
        if file.suffix.lower() == ".parquet":
            opened = pq.ParquetFile(file)
            return opened.schema_arrow, _rows(file, opened.iter_batches(64))
        with pa.memory_map(str(file)) as memory:
            try:
                stream = pa.ipc.open_stream(memory)
            except pa.ArrowInvalid:
                table = pa.ipc.open_file(memory).read_all()
            else:
                table = stream.read_all()
            return table.schema, _rows(file, table.to_batches(64))


def _rows(file: Path, batches: Iterable) -> Iterator[dict]:
    with _damage_named(file):
        for batch in batches:
            yield from batch.to_pylist()


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    """Inside, what pyarrow says of a file that is cut or damaged becomes one sentence."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{file}: cut, damaged, or not a table of this kind: {reason}; copy it again") from None


def _is_audio(name: str, kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):  # the bytes of files alone
        return name.lower() in ("audio", "bytes", "wav", "flac", "mp3", "ogg", "file", "sound", "content", "data")
    return pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Column -> names of its numbered classes, as `datasets` keeps them in the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: kind["names"] for name, kind in features.items() if isinstance(kind, dict) and "names" in kind}


def _file_of(sound: dict | bytes | None, folder: Path, number: int, table: Path) -> str:
    """The path of a row's sound: extracted from the table, or the file its path points to."""
    sound = {"bytes": sound} if isinstance(sound, bytes) else sound
    content, name = (sound or {}).get("bytes"), (sound or {}).get("path") or ""
    if content is None:
        return str(table.parent / name) if name else str(folder / f"{number}.missing")
    suffix = Path(name).suffix or _SUFFIXES.get(content[:4], ".mp3")
    file = folder / f"{number:06d}{suffix}"
    if not file.exists():
        with atomic_write(file) as temporary:
            temporary.write_bytes(content)
    return str(file)
