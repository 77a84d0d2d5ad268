"""Data that Python code hands over as a table becomes a file, so that a run can name its data and resume."""

import json
import os

from ..errors import InputError
from ..paths import data_folder
from ..storage.atomic import write_text
from .manifest import TABLE, DataSource, Manifest, load_manifest, stable_hash
from .sources import synth


def as_source(data: DataSource, segment_seconds: float = 60.0) -> str:
    """The text for data.source that stands for `data`, which is what `load_manifest` takes.

    A table, a list of files and a part of a manifest are written to $ASIT_LAB_DATA/lists, under a name that depends on
    their rows alone. Raises InputError as `load_manifest` does, and for a part of the synthesised sounds.
    """
    if isinstance(data, str | os.PathLike):
        return os.fspath(data)
    manifest = load_manifest(data, segment_seconds)
    if not manifest.source.startswith(TABLE):
        if manifest.table.equals(load_manifest(manifest.source, segment_seconds).table):
            return manifest.source
        if manifest.table["path"].str.startswith(synth.PREFIX).any():
            raise InputError("data: a part of the synthesised sounds cannot be named; give synth:CLIPS as data.source")
    text = "".join(f"{json.dumps(row)}\n" for row in _rows(manifest))
    path = data_folder() / "lists" / f"table-{stable_hash(text).hex()}.jsonl"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return f"folder:{path}"


def _rows(manifest: Manifest) -> list[dict]:
    """Rows as `folder:LIST` reads them; files that cannot be used stay in the list, to be counted there too."""
    columns = ["path", "label", "fold", "split", "group", "start", "seconds"]
    table = manifest.table[columns].astype(object)
    table = table.where(table.notna(), None).rename(columns={"label": "labels"} if manifest.multi else {})
    return table.to_dict("records") + [{"path": path} for path in manifest.bad["path"]]
