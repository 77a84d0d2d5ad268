"""Builds a manifest's table from listed clips: reads headers and divides long files into several rows."""

import math
from collections import Counter

import pandas as pd

from ...audio import SHORTEST, AudioInfo
from ..headers import read_headers
from .clips import Clip

TABLE_COLUMNS = ("path", "label", "fold", "split", "group", "start", "seconds", "sample_rate", "channels")
_TYPES = {
    "fold": "Int64",
    "split": "string",
    "start": "float64",
    "seconds": "float64",
    "sample_rate": "int64",
    "channels": "int64",
}
_CUT_SLACK = 1.0  # s a file may be longer than its stretch and still hold nothing but that: cutting rounds up


def scan(clips: list[Clip], segment_seconds: float) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """(table, bad, notes): rows of the readable clips in the order listed, (path, reason) of the files that are not,
    and what was unusual in headers, once a kind with the number of files.

    Reads every header once, in threads.
    """
    headers = read_headers(list(dict.fromkeys(clip.path for clip in clips)))
    bad = {path: header for path, header in headers.items() if isinstance(header, str)}
    rows = []
    outside = []  # stretches that their files do not have: (path, reason)
    for clip in clips:
        header = headers[clip.path]
        if isinstance(header, str):
            continue
        first, total = _stretch(clip, header)
        if total < SHORTEST:
            outside.append((clip.path, f"{header.seconds:g} s long, but {_words(clip)} listed"))
            continue
        rows += _rows(clip, header, first, total, segment_seconds)
    used = {row[0] for row in rows}
    bad |= {path: reason for path, reason in outside if path not in used}
    unusual = Counter(header.note for header in headers.values() if isinstance(header, AudioInfo) and header.note)
    notes = [f"{count:,} {note}" for note, count in unusual.most_common()]
    if left_out := [f"{path}: {reason}" for path, reason in outside if path in used]:
        notes.append(
            f"outside their files, so left out: {len(left_out):,} of {len(clips):,} stretches, the first {left_out[0]}"
        )
    return to_table(rows), pd.DataFrame(list(bad.items()), columns=["path", "reason"]), notes


def to_table(rows: list[tuple]) -> pd.DataFrame:
    """A table with the manifest's columns and types."""
    return pd.DataFrame(rows, columns=list(TABLE_COLUMNS)).astype(_TYPES)


def _words(clip: Clip) -> str:
    end = clip.start + clip.seconds
    return f"{clip.start:g} to {end:g} s are" if math.isfinite(end) else f"the part from {clip.start:g} s on is"


def _stretch(clip: Clip, header: AudioInfo) -> tuple[float, float]:
    """(start, length) in s of the clip within its file; the length is limited by the file's end."""
    if clip.start is None or (clip.maybe_cut and header.seconds <= clip.seconds + _CUT_SLACK):
        return 0.0, header.seconds
    left = header.seconds - clip.start
    return clip.start, clip.seconds if clip.seconds <= left + 1e-6 else left


def _rows(clip: Clip, header: AudioInfo, first: float, total: float, segment_seconds: float) -> list[tuple]:
    """One row, or several of equal length, none longer than `segment_seconds`.

    Equal parts leave no short rest: 130 s at a limit of 60 s become three rows of 43.3 s.
    """
    parts = max(1, math.ceil(total / segment_seconds - 1e-9))
    group = clip.group or clip.path
    return [
        (
            clip.path,
            clip.label,
            clip.fold,
            clip.split,
            group,
            first + part * total / parts,
            total / parts,
            header.sample_rate,
            header.channels,
        )
        for part in range(parts)
    ]
