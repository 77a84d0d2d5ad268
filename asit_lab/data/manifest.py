"""The manifest of a data set: a pandas table with a row per clip (or segment of a long one).

`load_manifest("esc50:PATH")` lists a data source, reads every header and returns a Manifest.
"""

import difflib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from .. import audio, registry
from ..checks import integer, number
from ..config import resolve
from ..errors import InputError
from ..paths import data_folder
from . import labels
from .sources import audioset, esc50, speech_commands, synth, voxceleb1
from .sources.clips import Clip, Listing, noting_closed_folders
from .sources.download import Remote, download
from .sources.folder import list_folder
from .sources.scan import scan
from .sources.shards import list_shards
from .sources.tables import list_table

# Texts in Python's own form: Arrow's refuse file names that are not UTF-8, as old archives leave them.
pd.set_option("mode.string_storage", "python")

TABLE = "table:"  # begins the source of a manifest that was given as a table or a list of files
SOURCES = {
    "synth": "synth[:CLIPS]",
    "folder": "folder:PATH",
    "shards": "shards:PATH",
    "esc50": "esc50[:PATH]",
    "esc10": "esc10[:PATH]",
    "speech_commands": "speech_commands[:PATH]",
    "speech_commands_v1": "speech_commands_v1[:PATH]",
    "audioset": "audioset[:PATH]",
    "audioset_20k": "audioset_20k[:PATH]",
    "audioset_2m": "audioset_2m[:PATH]",
    "voxceleb1": "voxceleb1[:PATH]",
}


@dataclass
class Manifest:
    """A data set as a table.

    table columns: path (absolute; synth://SEED/INDEX for synthesised sounds), label (where `multi`, several
    joined by ";", or none: ""), fold (1, 2, ... or NA), split (train, valid, test or NA), group (the source recording
    or speaker; the path where unknown), start and seconds (the stretch of the file), sample_rate (Hz, of the file),
    channels.
    bad: path and reason of the files that cannot be used, as found in their headers.
    multi: a clip may have several labels. labels: the data set's own list of classes; None: those of the clips.
    """

    name: str
    source: str
    table: pd.DataFrame
    bad: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["path", "reason"]))
    notes: list[str] = field(default_factory=list)
    multi: bool = False
    labels: list[str] | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def classes(self) -> list[str]:
        """The data set's own list of classes, in its order, including those without a clip; else the labels of the
        clips in alphabetical order.
        """
        if self.labels is not None:
            return list(self.labels)
        per_clip = (self._names(label) for label in self.table["label"].unique())
        return sorted({name for names in per_clip for name in names})

    def targets(self, rows=None) -> np.ndarray:
        """float32 [rows, classes]: 1 where a clip has the class, 0 elsewhere; an unlabelled clip has none.

        rows: row numbers; None: all of them, which for AudioSet-2M are 4 GB.
        Raises InputError for a label that is not among `classes`.
        """
        label = self.table["label"] if rows is None else self.table["label"].iloc[rows]
        return labels.indicators(label, self.classes, self.multi)

    def by_label(self) -> pd.DataFrame:
        """The table with a row per clip and label: a clip with several appears once for each, one without not at all.

        Index: the row of the manifest.
        """
        table = self.table.assign(label=self.table["label"].map(self._names)).explode("label")
        return table[table["label"].notna()]

    def _names(self, label: str) -> list[str]:
        return labels.split(label) if self.multi else [label] if label else []

    def subset(self, rows) -> "Manifest":
        """A manifest of some rows, renumbered from 0. rows: a boolean mask, or row numbers."""
        rows = np.asarray(rows)
        if rows.dtype == bool and len(rows) != len(self):
            raise InputError(f"a mask of {len(rows)} for a manifest of {len(self)} rows")
        try:
            rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64).ravel()
        except (TypeError, ValueError):
            raise InputError(f"rows: expected a boolean mask or row numbers, got {rows.dtype}") from None
        outside = rows[(rows < -len(self)) | (rows >= len(self))]
        if len(outside):
            raise InputError(f"rows: {outside[0]} is not among the {len(self)} rows")
        return replace(self, table=self.table.iloc[rows].reset_index(drop=True))

    def holdout(self, share: float, seed: int = 0) -> tuple["Manifest", "Manifest"]:
        """(train, held): `share` of the groups, chosen by a stable hash of their names, are held out.

        All clips of a recording are on one side. With two groups or more and share > 0, neither side is empty.
        Raises InputError for a share outside 0..1.
        """
        share, seed = number("holdout", share, "a share between 0 and 1"), integer("seed", seed)
        if not 0 <= share <= 1:
            raise InputError(f"holdout: {share} is not a share between 0 and 1")
        groups = sorted(self.table["group"].unique(), key=lambda group: stable_hash(f"{seed}/{group}"))
        count = min(max(1, round(share * len(groups))), len(groups) - 1) if share > 0 else 0
        held_out = self.table["group"].isin(groups[:count]).to_numpy(dtype=bool)
        return self.subset(~held_out), self.subset(held_out)

    def read(self, i: int, sample_rate: int, offset: float = 0.0, seconds: float | None = None) -> np.ndarray:
        """Mono float32 [samples] of row i at `sample_rate` Hz; `offset`, `seconds`: a stretch of the row.

        Raises InputError naming file and reason where it cannot be read.
        """
        row = self.table.iloc[integer("row", i, -len(self), len(self) - 1)]
        return read_row(row["path"], row["start"], row["seconds"], sample_rate, offset, seconds)


def read_row(
    path: str, start: float, length: float, sample_rate: int, offset: float = 0.0, seconds: float | None = None
) -> np.ndarray:
    """A stretch (`offset`, `seconds`) of the row that is `length` s long from `start` s on; see `Manifest.read`."""
    seconds = length - offset if seconds is None else min(seconds, length - offset)
    if not path.startswith(synth.PREFIX):
        return audio.read(path, sample_rate, start + offset, seconds)
    first = round((start + offset) * sample_rate)
    return synth.render_clip(*synth.parse(path), sample_rate)[first : first + round(seconds * sample_rate)]


DataSource: TypeAlias = str | os.PathLike | Manifest | pd.DataFrame | pd.Series | Sequence[str | os.PathLike]


def load_manifest(spec: DataSource, segment_seconds: float = 60.0) -> Manifest:
    """List a data source and read its headers.

    spec: a Manifest (as it is), a table with a column path and perhaps label (or labels), fold, split, group, start and
    seconds, a list of audio files, or a text: synth[:CLIPS], synth:examples, folder:PATH (or a list such as
    folder:PATH/X.csv), shards:PATH, esc50[:PATH], esc10[:PATH], speech_commands[:PATH], speech_commands_v1[:PATH],
    audioset_20k[:PATH] (or audioset), audioset_2m[:PATH], voxceleb1[:PATH]; or one of your own (docs/extending.md),
    NAME[:PATH] or path/to/file.py:FUNCTION[:PATH].
    Relative paths count as `paths.home` says. Without PATH, the data set is searched for in $ASIT_LAB_DATA (default
    data/) and, if it is openly available, downloaded to it.
    segment_seconds: longer files become several rows of equal length, none longer than this.
    Raises InputError for an unknown source, a path that does not exist or holds no audio, a wrong list, or when no
    file at all, or none of a fold or split, can be used.
    """
    if isinstance(spec, Manifest):
        return spec
    if segment_seconds < audio.SHORTEST:
        raise InputError(f"segment_seconds: {segment_seconds} is shorter than {audio.SHORTEST} s")
    closed: list[str] = []
    if isinstance(spec, pd.DataFrame | pd.Series | list | tuple):
        with noting_closed_folders(closed):
            name, source, listing = _list_objects(spec)
        listing.notes += closed
        return _from_listing(name, source, listing, segment_seconds)
    spec = os.fspath(spec) if isinstance(spec, os.PathLike) else spec
    if not isinstance(spec, str):
        raise InputError(
            f'data source: expected a text such as "folder:PATH" or "synth", got a {type(spec).__name__}; a Manifest, '
            "a table with a column path and a list of files are taken, too"
        )
    kind, argument = _parse(spec)
    if kind in ("folder", "shards") and not argument:
        raise InputError(f"data source {spec!r}: give the folder: {kind}:PATH")
    name = Path(argument.rstrip("/")).name if kind in ("folder", "shards") else kind.rpartition(":")[2]
    try:
        with noting_closed_folders(closed):
            listing = _list(kind, argument, spec)
    except PermissionError as error:
        raise InputError(f"data source {spec!r}: {error.filename} cannot be opened: {error.strerror}") from None
    listing.notes += closed
    return _from_listing(name, spec, listing, segment_seconds)


def _list_objects(spec: "pd.DataFrame | Sequence") -> tuple[str, str, Listing]:
    """(name, source, listing) of a table or a list of files; relative paths count as in the shell."""
    if not isinstance(spec, pd.DataFrame):
        spec = list(spec)
        not_paths = [file for file in spec if not isinstance(file, str | bytes | os.PathLike)]
        if not_paths or not spec:
            raise InputError(
                f"data source: a list of files is expected, found {not_paths[0] if not_paths else 'an empty list'!r}"
            )
        spec = pd.DataFrame({"path": [os.fsdecode(file) for file in spec]}, dtype=object)
    listing = list_table(spec, resolve("."), "table", line="row")
    digest = stable_hash("\n".join(map(repr, listing.clips))).hex()
    return "table", f"{TABLE}{digest}", listing


def _from_listing(name: str, spec: str, listing: Listing, segment_seconds: float) -> Manifest:
    table, bad, unusual = scan(listing.clips, segment_seconds)
    if table.empty:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in bad.head(3).itertuples(index=False))
        raise InputError(f"data source {spec!r}: none of its {len(bad)} files can be used: {reasons}")
    _check_parts(spec, listing.clips, table, bad)
    notes = [*listing.notes, *unusual]
    if len(bad):
        notes.append(f"{len(bad)} of {len(bad) + table['path'].nunique()} files cannot be used and are left out")
    return Manifest(name, spec, table, bad, notes, listing.multi, listing.labels)


def _check_parts(spec: str, clips: list[Clip], table: pd.DataFrame, bad: pd.DataFrame) -> None:
    """Raise InputError for a fold or split whose files are all missing or unreadable: it would vanish unnoticed."""
    for column in ("fold", "split"):
        listed = {part: clip.path for clip in clips if (part := getattr(clip, column)) is not None}
        for part in sorted(set(listed) - set(table[column].dropna().unique())):
            reason = dict(bad.to_numpy()).get(listed[part], "the stretch is outside the file")
            raise InputError(
                f"data source {spec!r}: none of the files of {column} {part} can be used; {listed[part]}: {reason}"
            )


def _parse(spec: str) -> tuple[str, str]:
    """The source that a string names, and its argument: ("folder", "PATH"), ("my/data.py:birds", "")."""
    kind, _, argument = spec.strip().partition(":")
    if kind.endswith(".py"):
        function, _, argument = argument.partition(":")
        kind = f"{kind}:{function}"
    if kind in SOURCES or registry.in_file(kind):  # before installed packages, which take long to search
        return kind, argument
    sources = SOURCES | {name: f"{name}[:PATH]" for name in registry.names("sources")}
    if kind in sources:
        return kind, argument
    near = difflib.get_close_matches(kind, sources, 1)
    hint = f"did you mean {sources[near[0]]}? " if near else ""
    if not near and resolve(spec).exists():
        hint = f"did you mean folder:{spec}? "
    raise InputError(f"data source {spec!r}: unknown source {kind!r}; {hint}Valid: {', '.join(sources.values())}")


def _clips(spec: str, argument: str) -> int:
    if not argument:
        return synth.DEFAULT_CLIPS
    if not argument.isdecimal() or int(argument) < 1:
        raise InputError(
            f"data source {spec!r}: {argument!r} is not a number of clips; for example synth:400, or synth:examples"
        )
    return int(argument)


def _list(kind: str, argument: str, spec: str) -> Listing:
    if kind not in SOURCES:
        return _own_listing(registry.load_part("sources", kind, "data.source")(argument), spec)
    if kind == "synth":
        return synth.list_examples() if argument == "examples" else synth.list_synth(_clips(spec, argument), spec)
    if kind == "folder":
        return list_folder(resolve(argument), spec)
    if kind == "shards":
        return list_shards(resolve(argument), spec)
    if kind in ("esc50", "esc10"):
        path = resolve(argument) if argument else _local_or_downloaded(kind, "esc50", remote=esc50.REMOTE)
        return esc50.list_esc50(path, spec, only_esc10=kind == "esc10")
    if kind.startswith("audioset"):
        kind = "audioset_20k" if kind == "audioset" else kind
        path = resolve(argument) if argument else _local_or_downloaded(kind, "audioset", how_to_get=audioset.HOW_TO_GET)
        return audioset.list_audioset(path, spec, kind)
    if kind == "voxceleb1":
        path = resolve(argument) if argument else _local_or_downloaded(kind, how_to_get=voxceleb1.HOW_TO_GET)
        return voxceleb1.list_voxceleb1(path, spec)
    v1 = kind == "speech_commands_v1"
    remote = speech_commands.REMOTE_V1 if v1 else speech_commands.REMOTE_V2
    path = resolve(argument) if argument else _local_or_downloaded(kind, remote=remote)
    return speech_commands.list_twelve(path, spec) if v1 else speech_commands.list_words(path, spec)


def _own_listing(listed: Listing | list[Clip], spec: str) -> Listing:
    """The Listing returned by a user's own function, which may return only clips."""
    listing = Listing(listed) if isinstance(listed, list) else listed
    clips = getattr(listing, "clips", None)
    if not clips or not all(isinstance(clip, Clip) for clip in clips):
        raise InputError(f"data source {spec!r}: expected a Listing, or a list of at least one Clip, from its function")
    return listing


def _local_or_downloaded(*names: str, remote: Remote | None = None, how_to_get: str = "") -> Path:
    """The first folder of these names below $ASIT_LAB_DATA; else the last of them, downloaded.

    Raises InputError where there is none and no `remote`: `how_to_get` says where the data set comes from.
    """
    data = data_folder()
    for name in names:
        if (data / name).is_dir():
            return data / name
    if remote is None:
        raise InputError(f"{data / names[-1]} does not exist. {how_to_get}; then give the folder: {names[0]}:PATH")
    return download(remote, data / names[-1])


def stable_hash(text: str) -> bytes:
    """8 bytes that depend on the text alone, to choose by."""
    return hashlib.blake2b(os.fsencode(text), digest_size=8).digest()
