"""What would make a score better than it is: clips, recordings or sounds that are on both sides of a split.

`protocols.splits` refuses official folds that share a source recording; here every division is looked at, made by hand
or not, by what the files hold too. A file or recording in pretraining is only noted: no labels were seen there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import environ

import numpy as np
import pandas as pd

from ..config import RunConfig, resolve
from ..data.fingerprints import Fingerprint, fingerprints
from ..data.manifest import Manifest, load_manifest
from ..errors import InputError
from .splits import Split, groups_of

_NAMED = 5  # files or recordings a message names
_MOST_PRETRAINING = 50_000  # clips read to compare what they hold; more would take longer than the evaluation
_SIDES = (("train", "test", "leak"), ("valid", "test", "leak"), ("train", "valid", "warning"))


@dataclass(frozen=True)
class Finding:
    """Something its user should know before believing a score."""

    kind: str
    """shared recording, test used for a choice, same audio, pretraining clip, digital silence or unreadable"""
    severity: str
    """leak: the score is not to be trusted; warning: what is chosen, or this check, is not; note: good to know"""
    message: str
    """names splits and files"""


def findings(manifest: Manifest, splits: Sequence[Split], run_config: RunConfig | None = None) -> list[Finding]:
    """Everything found, leaks first; an empty list says that all is well.

    splits: row positions of the manifest's table. run_config: of the encoder, where it was pretrained by this package;
    its `data.source` is listed (never downloaded) and divided by `data.holdout` as pretraining did.
    Every clip in `splits` is decoded once to compare contents; later calls know unchanged files (data/hashes).
    Raises InputError for positions outside the table.
    """
    rows = _rows(splits, len(manifest))
    groups = groups_of(manifest.table)
    prints = dict(zip(rows.tolist(), fingerprints(manifest, rows), strict=True))
    found = [
        *_chosen_on_test(manifest.table, splits),
        *_shared_recordings(manifest.table, splits, groups),
        *_same_audio(manifest.table, splits, groups, prints),
        *_not_compared(manifest.table, prints),
    ]
    if run_config is not None:
        found += _pretraining_clips(manifest, splits, prints, run_config)
    return sorted(found, key=lambda one: ("leak", "warning", "note").index(one.severity))


def _rows(splits: Sequence[Split], clips: int) -> np.ndarray:
    """Every row that a split uses, sorted."""
    for split in splits:
        for side in ("train", "valid", "test"):
            rows = np.asarray(getattr(split, side))
            if rows.size and not (rows.dtype.kind in "iu" and rows.min() >= 0 and rows.max() < clips):
                raise InputError(f"{split.name}: {side} holds something else than rows 0 to {clips - 1}")
    sides = [np.asarray(side, dtype=np.int64) for split in splits for side in (split.train, split.valid, split.test)]
    return np.unique(np.concatenate(sides)) if sides else np.empty(0, dtype=np.int64)


# --- Inside the data set --------------------------------------------------------------------------------------------


def _chosen_on_test(table: pd.DataFrame, splits: Sequence[Split]) -> Iterable[Finding]:
    for split in splits:
        both = np.intersect1d(split.valid, split.test)
        if len(both):
            files = _list(table["path"].iloc[both])
            message = f"{split.name}: {len(both)} of the clips that settings are chosen on are tested too: {files}"
            yield Finding("test used for a choice", "leak", message)


def _shared_recordings(table: pd.DataFrame, splits: Sequence[Split], groups: np.ndarray) -> Iterable[Finding]:
    names, codes = np.unique(groups, return_inverse=True)
    for (a, b, severity), crossing in _crossings(codes, splits).items():
        each = [f"{names[code]!r} ({_where(table, a, b, one)})" for code, one in crossing.items()]
        message = f"source recordings in {a} and {b} both: {_list(each, '; ')}"
        yield Finding("shared recording", severity, message)


def _same_audio(
    table: pd.DataFrame, splits: Sequence[Split], groups: np.ndarray, prints: dict[int, Fingerprint | str]
) -> Iterable[Finding]:
    """Equal contents, and stretches of one file that overlap; of different recordings, as others are named already."""
    digests = np.full(len(table), "", dtype=object)
    for row, one in prints.items():
        digests[row] = "" if isinstance(one, str) else one.digest
    codes = np.where(digests == "", -1, pd.factorize(digests)[0])

    for (a, b, severity), crossing in _between_recordings(codes, splits, groups).items():
        each = [f"{_where(table, a, b, one)}{_but_for_zeros(prints, one)}" for one in crossing.values()]
        yield Finding("same audio", severity, f"the same audio in {a} and {b}: {_list(each, '; ')}")
    for (a, b, severity), crossing in _between_recordings(_stretches(table), splits, groups).items():
        others = [one for one in crossing.values() if codes[one[0]] != codes[one[1]]]  # equal ones are named above
        if others:
            each = [_where(table, a, b, one) for one in others]
            yield Finding("same audio", severity, f"overlapping stretches in {a} and {b}: {_list(each, '; ')}")


def _between_recordings(codes: np.ndarray, splits: Sequence[Split], groups: np.ndarray) -> dict[tuple, dict]:
    """The `_crossings` of codes that several recordings have; within one, `_shared_recordings` names them."""
    several = pd.Series(groups).groupby(codes).nunique()
    found = {
        sides: {code: one for code, one in crossing.items() if several[code] > 1}
        for sides, crossing in _crossings(codes, splits).items()
    }
    return {sides: crossing for sides, crossing in found.items() if crossing}


def _but_for_zeros(prints: dict[int, Fingerprint | str], crossing: tuple[int, int, list[str]]) -> str:
    a, b = (prints[row] for row in crossing[:2])
    return "" if (a.samples, a.lead) == (b.samples, b.lead) else ", but for zeros at the ends"


def _stretches(table: pd.DataFrame) -> np.ndarray:
    """A number for each row; rows of one file that overlap, directly or through others, have the same."""
    ordered = table.sort_values(["path", "start"], kind="stable")
    ends = (ordered["start"] + ordered["seconds"]).groupby(ordered["path"]).cummax()
    apart = (ordered["path"] != ordered["path"].shift()) | (ordered["start"] >= ends.shift() - 1e-6)
    return apart.cumsum().sort_index().to_numpy()


def _crossings(codes: np.ndarray, splits: Sequence[Split]) -> dict[tuple, dict[int, tuple[int, int, list[str]]]]:
    """Sides that share something -> {code: (a row on each side, the splits)}; codes below 0 stand for nothing."""
    found: dict[tuple, dict[int, tuple[int, int, list[str]]]] = {}
    for split in splits:
        for sides in _SIDES:
            left, right = (np.asarray(getattr(split, side), dtype=np.int64) for side in sides[:2])
            left = np.setdiff1d(left, right) if sides[0] == "valid" else left  # the same clips: `_chosen_on_test`
            shared, in_left, in_right = np.intersect1d(codes[left], codes[right], return_indices=True)
            for code, a, b in zip(shared.tolist(), left[in_left], right[in_right], strict=True):
                if code >= 0:
                    named = found.setdefault(sides, {}).setdefault(code, (int(a), int(b), []))
                    named[2].append(split.name)
    return found


def _where(table: pd.DataFrame, a: str, b: str, crossing: tuple[int, int, list[str]]) -> str:
    first, second = (table["path"].iloc[row] for row in crossing[:2])
    return f"{a} {first}, {b} {second}; {_list(crossing[2])}"


def _not_compared(table: pd.DataFrame, prints: dict[int, Fingerprint | str]) -> Iterable[Finding]:
    silent = [row for row, one in prints.items() if not isinstance(one, str) and not one.digest]
    if silent:
        files = _list(table["path"].iloc[silent])
        message = f"{len(silent)} of {len(prints)} clips are digital silence, so not compared by content: {files}"
        yield Finding("digital silence", "note", message)
    unreadable = [one for one in prints.values() if isinstance(one, str)]
    if unreadable:
        message = f"{len(unreadable)} of {len(prints)} clips cannot be read, so not compared by content: "
        yield Finding("unreadable", "warning", message + _list(unreadable, "; "))


# --- Against pretraining --------------------------------------------------------------------------------------------


def _pretraining_clips(
    manifest: Manifest, splits: Sequence[Split], prints: dict[int, Fingerprint | str], config: RunConfig
) -> Iterable[Finding]:
    """Test clips that pretraining saw: by path, then by content where pretraining's clips are few enough to be read."""
    source = config.data.source
    if not _on_disk(source):
        yield Finding("pretraining clip", "note", f"{source}, which pretraining used, is not here: not compared")
        return
    try:
        trained, _ = load_manifest(source, config.data.segment_seconds).holdout(config.data.holdout)
    except InputError as error:
        yield Finding("pretraining clip", "note", f"what pretraining used cannot be listed: {error}")
        return
    paths = manifest.table["path"].to_numpy()
    tested = np.unique(np.concatenate([split.test for split in splits])) if splits else np.empty(0, dtype=np.int64)
    seen = np.isin(paths[tested], trained.table["path"].to_numpy())
    if len(trained) > _MOST_PRETRAINING:
        message = f"{len(trained)} clips of {source} are too many to be read: compared by file name alone"
        yield Finding("pretraining clip", "note", message)
    else:
        others = np.flatnonzero(~trained.table["path"].isin(paths[tested]).to_numpy(dtype=bool))
        heard = {one.digest for one in fingerprints(trained, others) if not isinstance(one, str)} - {""}
        digests = [prints[row] for row in tested.tolist()]
        seen |= np.array([not isinstance(one, str) and one.digest in heard for one in digests], dtype=bool)
    if seen.any():
        message = f"{int(seen.sum())} of {len(tested)} clips that are tested were in pretraining on {source} "
        yield Finding("pretraining clip", "note", f"{message}(no labels were seen): {_list(paths[tested[seen]])}")


def _on_disk(source: str) -> bool:
    """Whether listing a data source needs no download."""
    kind, _, argument = source.strip().partition(":")
    folders = {"esc10": ("esc10", "esc50"), "audioset_20k": ("audioset_20k", "audioset")}
    folders["audioset_2m"] = ("audioset_2m", "audioset")
    data = resolve(environ.get("ASIT_LAB_DATA") or "data")
    return bool(argument) or kind == "synth" or any((data / name).is_dir() for name in folders.get(kind, (kind,)))


def _list(names: Iterable[str], between: str = ", ") -> str:
    names = list(names)
    more = f"{between}and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return between.join(names[:_NAMED]) + more
