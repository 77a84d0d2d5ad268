"""Finds leakage: clips, recordings or sounds on both sides of a split, which inflate a score.

`splits` refuses a user's own folds that share a source recording; here every division, official or not, is also checked
by the contents of the files. A file or recording used in pretraining is only noted: no labels were used there.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..config import RunConfig
from ..data.fingerprints import Fingerprint, fingerprints
from ..data.manifest import Manifest, load_manifest
from ..errors import InputError
from ..paths import data_folder
from .splits import Split, groups_of

LEAKS = ("shared recording", "same audio", "test used for a choice")
PRETRAINED = "pretraining clip"
_NAMED = 5  # files or recordings a message names
_MOST_PRETRAINING = 50_000  # clips read to compare their contents; more would take longer than the evaluation
_SIDES = (("train", "test", "leak"), ("valid", "test", "leak"), ("train", "valid", "warning"))


@dataclass(frozen=True)
class Finding:
    """A reason to doubt a score, or a note on it."""

    kind: str
    """shared recording, test used for a choice, same audio, pretraining clip, digital silence or unreadable"""
    severity: str
    """leak: the score cannot be trusted; warning: a choice or this check cannot; note: for information, such as what
    official splits share"""
    message: str
    """names splits and files"""
    tested: tuple[int, ...] = field(default=(), repr=False)
    """rows of the clips concerned that are tested"""

    def to_dict(self) -> dict[str, str]:
        """For result.json, without the rows."""
        return {"kind": self.kind, "severity": self.severity, "message": self.message}


@dataclass
class _Crossing:
    """Content on two sides of splits."""

    rows: tuple[int, int]
    """one on each side"""
    splits: list[str] = field(default_factory=list)
    tested: set[int] = field(default_factory=set)


Prints = Mapping[int, Fingerprint | str]
"""the fingerprint of each row that a split uses, or why its clip cannot be read"""


def prints_of(manifest: Manifest, splits: Sequence[Split]) -> Prints:
    """Decodes every clip in `splits` once; unchanged files are not read again (data/hashes). Synthesised sounds are
    left out: each has its own seed.

    Raises InputError for positions outside the table.
    """
    rows = _rows(splits, len(manifest))
    if _is_synthesised(manifest.source):
        return {}
    return dict(zip(rows.tolist(), fingerprints(manifest, rows), strict=True))


def findings(
    manifest: Manifest,
    splits: Sequence[Split],
    run_config: RunConfig | None = None,
    official: bool = False,
    prints: Prints | None = None,
) -> list[Finding]:
    """Every finding, leaks first; an empty list where there is none.

    splits: row positions of the manifest's table. run_config: of the encoder, where it was pretrained by this package;
    its `data.source` is listed (never downloaded) and divided by `data.holdout` as pretraining did. official: the
    splits are those of the data set's authors, so that what they share is a note. prints: `prints_of` these splits, for
    callers that check several encoders.
    Raises InputError for positions outside the table.
    """
    groups = groups_of(manifest.table)
    prints = prints_of(manifest, splits) if prints is None else prints
    collected = [
        *_shared_recordings(manifest.table, splits, groups),
        *_same_audio(manifest.table, splits, groups, prints),
    ]
    if official:
        collected = [Finding(f.kind, "note", f"official split, {f.message}", f.tested) for f in collected]
    collected += [*_chosen_on_test(manifest.table, splits), *_not_compared(manifest.table, prints)]
    if run_config is not None:
        collected += _pretraining_clips(manifest, splits, prints, run_config)
    return sorted(collected, key=lambda finding: ("leak", "warning", "note").index(finding.severity))


def leaking_rows(findings: Iterable[Finding]) -> set[int]:
    """Rows of the tested clips that share something with the training clips, or were used for a choice."""
    return {row for finding in findings if finding.kind in LEAKS for row in finding.tested}


def notes_on_score(
    findings: Iterable[Finding], rows: np.ndarray, metric: str, score_of: Callable[[np.ndarray], float]
) -> list[str]:
    """Short notes on a score from findings, for a table.

    rows: int [N], the row of each prediction. score_of: bool [N], the predictions that count -> their score.
    """
    findings, clips = list(findings), np.unique(rows)
    notes = []
    leaking = np.isin(rows, list(leaking_rows(findings)))
    if leaking.any():
        count = len(np.unique(rows[leaking]))
        without = f"{metric} {score_of(~leaking):.4g} without them" if not leaking.all() else "no other is tested"
        notes.append(f"{count:,} of {len(clips):,} test clips share audio with training: {without}")
    pretrained = {row for finding in findings if finding.kind == PRETRAINED for row in finding.tested}
    if pretrained := pretrained & set(clips.tolist()):
        notes.append(f"{len(pretrained):,} of {len(clips):,} test clips were in pretraining (without labels)")
    return notes


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
        in_both = np.intersect1d(split.valid, split.test)
        if len(in_both):
            files = _list(table["path"].iloc[in_both])
            message = f"{split.name}: {len(in_both)} of the clips that settings are chosen on are tested too: {files}"
            yield Finding("test used for a choice", "leak", message, tuple(in_both.tolist()))


def _shared_recordings(table: pd.DataFrame, splits: Sequence[Split], groups: np.ndarray) -> Iterable[Finding]:
    names, codes = np.unique(groups, return_inverse=True)
    for (a, b, severity), crossings in _crossings(codes, splits).items():
        examples = [f"{names[code]!r} ({_where(table, a, b, crossing)})" for code, crossing in crossings.items()]
        message = f"source recordings in {a} and {b} both: {_list(examples, '; ')}"
        yield Finding("shared recording", severity, message, _tested(crossings.values()))


def _same_audio(table: pd.DataFrame, splits: Sequence[Split], groups: np.ndarray, prints: Prints) -> Iterable[Finding]:
    """Equal contents and overlapping stretches of one file, between recordings (within one: `_shared_recordings`)."""
    digests = np.full(len(table), "", dtype=object)
    for row, fingerprint in prints.items():
        digests[row] = "" if isinstance(fingerprint, str) else fingerprint.digest
    codes = np.where(digests == "", -1, pd.factorize(digests)[0])

    for (a, b, severity), crossings in _between_recordings(codes, splits, groups).items():
        equal = list(crossings.values())
        examples = [f"{_where(table, a, b, crossing)}{_but_for_zeros(prints, crossing)}" for crossing in equal]
        yield Finding("same audio", severity, f"the same audio in {a} and {b}: {_list(examples, '; ')}", _tested(equal))
    for (a, b, severity), crossings in _between_recordings(_stretches(table), splits, groups).items():
        # Equal ones are reported above.
        overlaps = [crossing for crossing in crossings.values() if codes[crossing.rows[0]] != codes[crossing.rows[1]]]
        if overlaps:
            examples = [_where(table, a, b, crossing) for crossing in overlaps]
            message = f"overlapping stretches in {a} and {b}: {_list(examples, '; ')}"
            yield Finding("same audio", severity, message, _tested(overlaps))


def _between_recordings(
    codes: np.ndarray, splits: Sequence[Split], groups: np.ndarray
) -> dict[tuple[str, str, str], dict[int, _Crossing]]:
    """The `_crossings` of codes that several recordings have; within one, `_shared_recordings` names them."""
    recordings = pd.Series(groups).groupby(codes).nunique()
    between = {
        sides: {code: crossing for code, crossing in crossings.items() if recordings[code] > 1}
        for sides, crossings in _crossings(codes, splits).items()
    }
    return {sides: crossings for sides, crossings in between.items() if crossings}


def _but_for_zeros(prints: Prints, crossing: _Crossing) -> str:
    a, b = (prints[row] for row in crossing.rows)
    return "" if (a.samples, a.lead) == (b.samples, b.lead) else ", but for zeros at the ends"


def _stretches(table: pd.DataFrame) -> np.ndarray:
    """A number for each row; rows of one file that overlap, directly or through others, have the same."""
    ordered = table.sort_values(["path", "start"], kind="stable")
    ends = (ordered["start"] + ordered["seconds"]).groupby(ordered["path"]).cummax()
    apart = (ordered["path"] != ordered["path"].shift()) | (ordered["start"] >= ends.shift() - 1e-6)
    return apart.cumsum().sort_index().to_numpy()


def _crossings(codes: np.ndarray, splits: Sequence[Split]) -> dict[tuple[str, str, str], dict[int, _Crossing]]:
    """(side, side, severity) -> {code on both sides: where}; codes below 0 stand for nothing."""
    crossings: dict[tuple[str, str, str], dict[int, _Crossing]] = {}
    for split in splits:
        for sides in _SIDES:
            left, right = (np.asarray(getattr(split, side), dtype=np.int64) for side in sides[:2])
            left = np.setdiff1d(left, right) if sides[0] == "valid" else left  # the same clips: `_chosen_on_test`
            shared, in_left, in_right = np.intersect1d(codes[left], codes[right], return_indices=True)
            for code, a, b in zip(shared.tolist(), left[in_left], right[in_right], strict=True):
                if code < 0:
                    continue
                crossing = crossings.setdefault(sides, {}).setdefault(code, _Crossing((int(a), int(b))))
                crossing.splits.append(split.name)
                if sides[1] == "test":
                    crossing.tested.update(right[codes[right] == code].tolist())
    return crossings


def _tested(crossings: Iterable[_Crossing]) -> tuple[int, ...]:
    return tuple(sorted(set().union(*(crossing.tested for crossing in crossings))))


def _where(table: pd.DataFrame, a: str, b: str, crossing: _Crossing) -> str:
    first, second = (table["path"].iloc[row] for row in crossing.rows)
    return f"{a} {first}, {b} {second}; {_list(crossing.splits)}"


def _not_compared(table: pd.DataFrame, prints: Prints) -> Iterable[Finding]:
    silent = [
        row for row, fingerprint in prints.items() if isinstance(fingerprint, Fingerprint) and not fingerprint.digest
    ]
    if silent:
        files = _list(table["path"].iloc[silent])
        message = f"{len(silent)} of {len(prints)} clips are digital silence, so not compared by content: {files}"
        yield Finding("digital silence", "note", message)
    unreadable = [reason for reason in prints.values() if isinstance(reason, str)]
    if unreadable:
        message = f"{len(unreadable)} of {len(prints)} clips cannot be read, so not compared by content: "
        yield Finding("unreadable", "warning", message + _list(unreadable, "; "))


# --- Against pretraining --------------------------------------------------------------------------------------------


def _pretraining_clips(
    manifest: Manifest, splits: Sequence[Split], prints: Prints, config: RunConfig
) -> Iterable[Finding]:
    """Test clips that were used in pretraining: by path, and by content where the data is small enough to be read."""
    source = config.data.source
    if _is_synthesised(source):  # every epoch synthesised new sounds
        return
    if not _on_disk(source):
        message = f"test clips were not compared with those of pretraining ({source}), which are not on this machine"
        yield Finding(PRETRAINED, "note", message)
        return
    try:
        trained, _ = load_manifest(source, config.data.segment_seconds).holdout(config.data.holdout)
    except InputError as error:
        yield Finding(PRETRAINED, "note", f"the data of pretraining cannot be listed: {error}")
        return
    paths = manifest.table["path"].to_numpy()
    tested = np.unique(np.concatenate([split.test for split in splits])) if splits else np.empty(0, dtype=np.int64)
    pretrained = np.isin(paths[tested], trained.table["path"].to_numpy())
    if len(trained) > _MOST_PRETRAINING:
        message = f"{len(trained)} clips of {source} are too many to be read: compared by file name alone"
        yield Finding(PRETRAINED, "note", message)
    else:
        untested = np.flatnonzero(~trained.table["path"].isin(paths[tested]).to_numpy(dtype=bool))
        digests = {f.digest for f in fingerprints(trained, untested) if isinstance(f, Fingerprint)} - {""}
        of_tested = [prints.get(row) for row in tested.tolist()]
        pretrained |= np.array([isinstance(f, Fingerprint) and f.digest in digests for f in of_tested], dtype=bool)
    if pretrained.any():
        message = f"{int(pretrained.sum())} of {len(tested)} test clips were in pretraining on {source} "
        message += f"(without labels): {_list(paths[tested[pretrained]])}"
        yield Finding(PRETRAINED, "note", message, tuple(tested[pretrained].tolist()))


def _is_synthesised(source: str) -> bool:
    return source.partition(":")[0].strip() == "synth"


def _on_disk(source: str) -> bool:
    """Whether listing a data source needs no download."""
    kind, _, argument = source.strip().partition(":")
    folders = {"esc10": ("esc10", "esc50"), "audioset_20k": ("audioset_20k", "audioset")}
    folders["audioset_2m"] = ("audioset_2m", "audioset")
    data = data_folder()
    return bool(argument) or any((data / name).is_dir() for name in folders.get(kind, (kind,)))


def _list(names: Iterable[str], between: str = ", ") -> str:
    names = list(names)
    remainder = f"{between}and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return between.join(names[:_NAMED]) + remainder
