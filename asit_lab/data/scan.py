"""From listed clips to the table of a manifest: headers are read, long files become several rows."""

import math
from concurrent.futures import ThreadPoolExecutor

import pandas as pd

from ..audio import AudioInfo, info
from ..errors import InputError
from . import synth
from .clips import Clip

COLUMNS = ("path", "label", "fold", "split", "group", "start", "seconds", "sample_rate", "channels")
_TYPES = {
    "fold": "Int64",
    "split": "string",
    "start": "float64",
    "seconds": "float64",
    "sample_rate": "int64",
    "channels": "int64",
}
_THREADS = 8  # headers are small reads: the time goes into waiting for the disk or the network


def scan(clips: list[Clip], segment_seconds: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(table, bad): rows of the readable clips in the order listed, and (path, reason) of the files that are not.

    Reads every header once, in threads.
    """
    paths = list(dict.fromkeys(clip.path for clip in clips))
    with ThreadPoolExecutor(_THREADS) as threads:
        headers = dict(zip(paths, threads.map(_header, paths), strict=True))
    usable = [clip for clip in clips if isinstance(headers[clip.path], AudioInfo)]
    rows = [row for clip in usable for row in _rows(clip, headers[clip.path], segment_seconds)]
    bad = [(path, header) for path, header in headers.items() if isinstance(header, str)]
    return to_table(rows), pd.DataFrame(bad, columns=["path", "reason"])


def to_table(rows: list[tuple]) -> pd.DataFrame:
    """A table with the manifest's columns and types."""
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(_TYPES)


def _header(path: str) -> AudioInfo | str:
    """The header, or why it cannot be used."""
    try:
        return synth.header(path) if path.startswith(synth.PREFIX) else info(path)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")


def _rows(clip: Clip, header: AudioInfo, segment_seconds: float) -> list[tuple]:
    """One row, or several of equal length, none longer than `segment_seconds`.

    Equal parts leave no short rest: 130 s at a limit of 60 s become three rows of 43.3 s.
    """
    first = clip.start or 0.0
    total = clip.seconds if clip.seconds is not None else header.seconds - first
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
