"""Builds a pretraining corpus from many collections: FLAC segments at one sample rate and a list of them.

Clips of evaluation sets are excluded by path, by content, and by recording or speaker. Hours are limited per collection
and per kind of sound, evenly over its collections. Every segment is decoded once, compared with all others by content
(further copies are left out), resampled and written.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ...config import resolve
from ...errors import InputError
from ...storage.atomic import read_json, write_json, write_text
from ...storage.progress import bar_style
from ..manifest import SOURCES, Manifest, load_manifest, stable_hash
from .evaluated import Evaluated
from .licences import copy_licences
from .segments import LeftOut, Segmenter

# "start" and "seconds" would be read as a stretch of the segment's own file.
LIST_COLUMNS = ("path", "label", "group", "collection", "licence", "original", "original_start", "original_seconds")
LEFT_OUT_COLUMNS = ("file", "start", "kind", "collection", "cause", "reason")


@dataclass(frozen=True)
class Collection:
    """Recordings of one kind and origin."""

    kind: str
    """speech, music, ...: what hours are balanced by, and the label in the list"""
    name: str
    spec: str
    """a data source: folder:PATH, speech_commands:PATH, ..."""
    licence: str = ""
    licence_file: Path | None = None


@dataclass
class Corpus:
    """The result of a call."""

    listed: pd.DataFrame
    """a row for each segment, as in list.csv"""
    left_out: pd.DataFrame
    """file, start (s), kind, collection, cause, reason; as in left_out.csv"""
    hours: pd.DataFrame
    """per kind: hours listed, hours available, segments, recordings, collections"""
    notes: list[str]


def of_sources(texts: Iterable[str]) -> list[Collection]:
    """Collections of "KIND=SOURCE": a data source, or the path of a folder. Each is called by its last name.

    Raises InputError for another form.
    """
    collections: list[Collection] = []
    for text in texts:
        kind, equals, source = text.partition("=")
        if not (kind.strip() and equals and source.strip()):
            raise InputError(f"{text!r}: expected KIND=SOURCE, for example speech=PATH or effects=esc50:PATH")
        spec = source if source.partition(":")[0] in SOURCES else f"folder:{source}"
        name = Path(spec.rpartition(":")[2].rstrip("/")).stem or spec
        used = {collection.name for collection in collections}
        candidates = (name, *(f"{name}-{n}" for n in range(2, 10**6)))
        unique = next(candidate for candidate in candidates if candidate not in used)
        collections.append(Collection(kind.strip(), unique, spec))
    return collections


def build_corpus(
    collections: list[Collection],
    out: Path,
    keep_out: Iterable[str] = (),
    segment_seconds: float = 10.0,
    sample_rate: int = 16000,
    collection_hours: float = float("inf"),
    kind_hours: float = float("inf"),
) -> Corpus:
    """Write OUT/KIND/COLLECTION/*.flac, OUT/list.csv (for folder:OUT), OUT/left_out.csv and OUT/licences/*.

    keep_out: evaluation sets, or parts of them ("esc50:PATH#5", "speech_commands:PATH#valid,test").
    segment_seconds: the longest segment; recordings are cut into equal parts, none longer than this.
    collection_hours, kind_hours: the most that a collection, and all collections of a kind, may give.
    A call that was interrupted is continued by the same call; another one adds or takes away what has changed.
    Raises InputError for a source that cannot be listed, an unknown part, or a folder made with other settings.
    """
    settings = {"segment_seconds": segment_seconds, "sample_rate": sample_rate}
    made_with = read_json(out / "corpus.json")
    if made_with and made_with != settings:
        raise InputError(f"{out}: was made with {made_with}, not with {settings}; give another folder")
    evaluated = Evaluated(keep_out, segment_seconds)
    manifests = [load_manifest(collection.spec, segment_seconds) for collection in collections]
    limits = _limits(collections, manifests, collection_hours * 3600, kind_hours * 3600)
    write_json(out / "corpus.json", settings)
    segmenter = Segmenter(out, sample_rate, evaluated)
    listed, left_out = [], []
    with tqdm(total=round(sum(limits) / 3600, 3), unit="h", disable=None, **bar_style()) as bar:
        for collection, manifest, limit in zip(collections, manifests, limits, strict=True):
            kind_and_name = (collection.kind, collection.name)
            left_out += [(path, 0.0, *kind_and_name, "unusable", reason) for path, reason in manifest.bad.to_numpy()]
            for row in _chosen(manifest, limit):
                file = segmenter.take(row, Path(*kind_and_name))
                if isinstance(file, LeftOut):
                    left_out.append((row.path, round(row.start, 3), *kind_and_name, file.cause, file.reason))
                else:
                    source = (file, collection.kind, _group(row, collection), collection.name, collection.licence)
                    listed.append((*source, row.path, round(row.start, 3), round(row.seconds, 3)))
                bar.update(row.seconds / 3600)
    table = pd.DataFrame(listed, columns=list(LIST_COLUMNS))
    missed = pd.DataFrame(left_out, columns=list(LEFT_OUT_COLUMNS))
    segmenter.remove_unlisted(set(table["path"]))
    write_text(out / "list.csv", table.to_csv(index=False, lineterminator="\n"))
    write_text(out / "left_out.csv", missed.to_csv(index=False, lineterminator="\n"))
    return Corpus(table, missed, _hours(table, collections, manifests), copy_licences(collections, out))


def _limits(
    collections: list[Collection], manifests: list[Manifest], collection_seconds: float, kind_seconds: float
) -> list[float]:
    """Most seconds of each collection: where a kind has too many, its largest collections are cut to one length."""
    lengths = [min(collection_seconds, float(manifest.table["seconds"].sum())) for manifest in manifests]
    limits = list(lengths)
    for kind in {collection.kind for collection in collections}:
        members = [number for number, collection in enumerate(collections) if collection.kind == kind]
        left = kind_seconds
        for place, number in enumerate(sorted(members, key=lengths.__getitem__)):
            limits[number] = min(lengths[number], left / (len(members) - place))
            left -= limits[number]
    return limits


def _chosen(manifest: Manifest, limit: float) -> list:
    """Rows in the order of the files; under a limit as many as fit, chosen by a hash."""
    rows = list(manifest.table.itertuples(index=False))
    if manifest.table["seconds"].sum() <= limit + 1e-3:
        return rows
    by_hash = sorted(range(len(rows)), key=lambda place: stable_hash(f"{rows[place].path}@{rows[place].start:.3f}"))
    ends = np.cumsum([rows[place].seconds for place in by_hash])
    return [rows[place] for place in sorted(by_hash[: int(np.searchsorted(ends, limit, side="right"))])]


def _group(row, collection: Collection) -> str:
    """The recording or speaker, under the collection's name: the same wherever the collection lies."""
    name = Path(row.group)
    root = resolve(collection.spec.partition(":")[2])
    return f"{collection.name}/{name.relative_to(root) if name.is_relative_to(root) else name.name}"


def _hours(table: pd.DataFrame, collections: list[Collection], manifests: list[Manifest]) -> pd.DataFrame:
    rows = []
    for kind in sorted({collection.kind for collection in collections}):
        of_kind = [m for c, m in zip(collections, manifests, strict=True) if c.kind == kind]
        part = table[table["label"] == kind]
        rows.append(
            {
                "kind": kind,
                "hours": round(part["original_seconds"].sum() / 3600, 2),
                "of": round(sum(manifest.table["seconds"].sum() for manifest in of_kind) / 3600, 2),
                "segments": len(part),
                "recordings": part["group"].nunique(),
                "collections": part["collection"].nunique(),
            }
        )
    return pd.DataFrame(rows)
