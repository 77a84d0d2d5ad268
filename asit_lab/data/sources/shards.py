"""Reads and writes data sets as shards: tar files in WebDataset's layout, each sound beside a JSON of the same name.

A shard is read in place: a clip's path is "x.tar::START+SIZE/name.flac", so order, resume and the division over
processes are those of any other data set.
"""

import io
import json
import math
import os
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from ...audio import info
from ...audio.lengths import MEMBER
from ...errors import InputError
from ...storage.atomic import atomic_write
from .. import labels
from .clips import SUFFIXES, Clip, Listing, walk
from .tables import ALIASES, SPLITS, split_of, text_of
from .tar_members import CUT, DAMAGED, read_members

ABOUT = "about.json"  # of the whole data set, beside the shards
_LABELS = (".cls", ".txt")  # what others write in place of a JSON
_NAMED = 5  # damaged shards that are named


def list_shards(path: Path, source: str) -> Listing:
    """Clips of the shards in a folder, or of one. Of a shard that is cut or damaged, what can be read is used, which a
    note says. Raises InputError for none, or where nothing can be read."""
    files = [Path(inside, name) for inside, names in walk(path) for name in names] if path.is_dir() else [path]
    shards = sorted(file for file in files if file.suffix == ".tar") if path.is_dir() else [path]
    if not path.exists() or not shards:
        is_packed = any(file.name.endswith(".tar.gz") for file in files)
        packed = "; unpack the .tar.gz with gunzip first" if is_packed else ""
        raise InputError(f"data source {source!r}: no shards (.tar) in {path}{packed}")
    about = _about(path if path.is_dir() else path.parent)
    multi = bool(about.get("multi"))
    clips, unpaired, odd, damages = [], 0, Counter[str](), []
    for shard in shards:
        split = next((SPLITS[word] for word in _words(shard) if word in SPLITS), None) or split_of(shard.parent.name)
        samples, damage = _samples(shard, odd)
        for place, facts in samples:
            unpaired += not facts
            multi = multi or isinstance(facts.get("label"), list)
            clips.append(_clip(place, facts, split))
        damages += [damage] if damage else []
    if len(damages) > _NAMED:
        damages[_NAMED:] = [f"{len(damages) - _NAMED:,} more shards are cut or damaged"]
    if not clips:
        words = "; ".join(["", *damages])
        raise InputError(f"data source {source!r}: no audio in the {len(shards)} shards of {path}{words}")
    notes = [*about.get("notes", []), *damages, *(f"{count:,} {words}" for words, count in odd.items())]
    if unpaired:
        notes.append(f"{unpaired:,} of {len(clips):,} clips in the shards have no label beside them")
    classes = about.get("classes")
    if multi and classes is None:
        classes = sorted({name for clip in clips for name in labels.split(clip.label)})
    return Listing(clips, notes, multi, classes)


def _about(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # shards that others wrote have none
        return {}


def _words(shard: Path) -> list[str]:
    return [*shard.stem.lower().replace("_", "-").split("-"), shard.parent.name.lower()]


def _samples(shard: Path, odd: Counter[str]) -> tuple[list[tuple[str, dict[str, Any]]], str]:
    """(path, facts) of every sound in a shard, and a sentence where it is cut or damaged; what is wrong with its JSONs
    is counted in `odd`.

    Members of one sample share the name before the first dot; where that is the same for several (rec.2020.wav), the
    name before the last.
    """
    sounds: dict[str, list[tuple[str, str]]] = {}  # short key -> (place, long key)
    facts: dict[str, dict[str, Any]] = {}
    damage = Counter[str]()
    try:
        for archive, member in read_members(shard, damage):
            folder, _, name = member.name.rpartition("/")
            if not member.isfile() or name.startswith(".") or "__MACOSX" in folder:
                continue
            long, suffix = os.path.splitext(name)
            key, long_key = f"{folder}/{name.partition('.')[0]}", f"{folder}/{long}"
            if suffix.lower() in SUFFIXES:
                place = f"{shard}{MEMBER}{member.offset_data}+{member.size}/{name}"
                sounds.setdefault(key, []).append((place, long_key))
            elif suffix.lower() in (".json", *_LABELS):
                content = archive.extractfile(member).read()
                read = _facts(content) if suffix.lower() == ".json" else {"label": _decoded(content)}
                if read is None:
                    odd["members .json of shards cannot be read; their clips have no label"] += 1
                elif suffix.lower() == ".json" or long_key not in facts:
                    facts[long_key] = read
    except OSError as error:
        return [], f"{shard} cannot be opened: {error.strerror or error}"
    samples = [
        (place, facts.get(long_key) or facts.get(key, {}))
        for key, places in sounds.items()
        for place, long_key in places
    ]
    if damage[CUT] and len(samples) > 1 and not samples[-1][1] and samples[-2][1]:
        samples.pop()  # its label was cut off
    return samples, _on_damage(shard, damage, len(samples))


def _on_damage(shard: Path, damage: Counter[str], clips: int) -> str:
    """A sentence on a shard that is cut or damaged; empty for others."""
    if not damage:
        return ""
    if not clips:
        return f"{shard} is not a shard that can be read, or cut"
    places = f"damaged in {damage[DAMAGED]:,} place{'s' * (damage[DAMAGED] > 1)}" if damage[DAMAGED] else ""
    cut = "cut, so the rest is missing" if damage[CUT] else ""
    return f"{shard} is {' and '.join(filter(None, (places, cut)))}; {clips:,} clips in it are read"


def _decoded(content: bytes) -> str:
    return content.decode("utf-8", "replace").strip()


def _facts(content: bytes) -> dict[str, Any] | None:
    """The object in a JSON, with our names for what others call otherwise; None where it is none."""
    try:
        read = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(read, dict):
        return None
    if (several := read.pop("labels", None)) is not None:  # null says nothing
        read["label"] = several if isinstance(several, list) else [several]
    for ours in ("label", "fold", "split", "group"):
        theirs = next((alias for alias in ALIASES[ours] if alias in read), None)
        if ours not in read and theirs:
            read[ours] = read[theirs]
    return read


def _clip(place: str, facts: dict[str, Any], split: str | None) -> Clip:
    fold, start, seconds = facts.get("fold"), facts.get("start"), facts.get("seconds")
    own_split = text_of(facts.get("split")).strip().lower()
    if own_split and own_split not in SPLITS:
        raise InputError(f"{place}: split {own_split!r} is not one of train, valid, test")
    try:
        if start is not None and not (0 <= float(start) < math.inf and (seconds is None or float(seconds) > 0)):
            raise ValueError
        return Clip(
            path=place,
            label=text_of(facts.get("label", "")),
            fold=None if fold is None else int(float(str(fold).lower().removeprefix("fold"))),
            split=SPLITS.get(own_split) or split,
            group=text_of(facts.get("group")) or None,
            start=None if start is None else float(start),
            seconds=None if start is None or seconds is None else float(seconds),
        )
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{place}: fold {fold!r}, start {start!r}, seconds {seconds!r}: no number, or no stretch"
        ) from None


def write_shards(manifest, out: Path, megabytes: float = 500.0) -> list[Path]:
    """Pack the files of a manifest into shards of about `megabytes`; files are copied as they are.

    One sample per file; `load_manifest("shards:PATH")` gives the same rows with their labels, folds, splits and groups.
    Raises InputError for a folder that has shards already, and for synthesised sounds.
    """
    if list(out.glob("*.tar")):
        raise InputError(f"{out}: has shards already; give an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    shards: list[Path] = []
    files = manifest.table.groupby("path", sort=False)
    batch, size = [], 0
    for path, rows in files:
        if not os.path.isfile(path):
            raise InputError(f"{path}: is no file of its own, so it cannot be packed")
        batch.append((path, rows))
        size += os.path.getsize(path)
        if size >= megabytes * 1e6:
            shards.append(_write(out / f"shard-{len(shards):06d}.tar", batch, len(shards)))
            batch, size = [], 0
    if batch:
        shards.append(_write(out / f"shard-{len(shards):06d}.tar", batch, len(shards)))
    about = {"source": manifest.source, "multi": manifest.multi, "classes": manifest.labels, "files": len(files)}
    with atomic_write(out / ABOUT) as temporary:
        temporary.write_text(json.dumps(about, indent=2), encoding="utf-8")
    return shards


def _write(shard: Path, batch: list[tuple[str, Any]], number: int) -> Path:
    with atomic_write(shard) as temporary, tarfile.open(temporary, "w", errors="surrogateescape") as members:
        for place, (path, rows) in enumerate(batch):
            stretches = _stretches(rows, info(path).seconds)
            for part, facts in enumerate(stretches):
                key = f"{number:06d}-{place:08d}"
                if len(stretches) > 1:  # each has a copy of the file, which says no longer that they are of one
                    facts["group"] = facts["group"] or key
                    key += f"-{part}"
                members.add(path, f"{key}{Path(path).suffix.lower()}", filter=_plain_member)
                content = json.dumps(facts).encode()
                member = tarfile.TarInfo(f"{key}.json")
                member.size = len(content)
                members.addfile(member, io.BytesIO(content))
    return shard


def _plain_member(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the owner's name and times: the same data set gives the same shard."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _stretches(rows: pd.DataFrame, seconds: float) -> list[dict[str, Any]]:
    """What the rows of a file of `seconds` say: one entry for the whole file, or one a stretch where a list names
    stretches."""
    rows = rows.astype(object).where(rows.notna(), None)
    facts = [
        {
            "label": row["label"],
            "fold": None if row["fold"] is None else int(row["fold"]),
            "split": row["split"],
            "group": None if row["group"] == row["path"] else row["group"],
            "name": os.fsencode(os.path.basename(row["path"])).decode("utf-8", "backslashreplace"),
            "start": row["start"],
            "seconds": row["seconds"],
        }
        for row in rows.to_dict("records")
    ]
    meanings = {(fact["label"], fact["fold"], fact["split"]) for fact in facts}
    ends = [0.0, *(fact["start"] + fact["seconds"] for fact in facts)]
    follow = all(abs(fact["start"] - end) < 1e-6 for fact, end in zip(facts, ends, strict=False))
    if len(meanings) > 1 or not follow:
        return facts
    # The segments of one recording, made again when listed; its end may have been left out.
    is_whole = abs(ends[-1] - seconds) < 1e-3
    return [facts[0] | ({"start": None, "seconds": None} if is_whole else {"start": 0.0, "seconds": ends[-1]})]
