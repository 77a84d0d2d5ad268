"""Classifies audio files, or windows of them, into one table."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from .. import audio
from ..config import resolve
from ..embedding.files import LONG_SECONDS, check_table_path, find_files, write_table_file
from ..errors import InputError
from ..storage.progress import passing_bar_style
from .classifier import Classifier
from .timeline import sliding

_WINDOWS_AT_ONCE = 32


class Predictions(NamedTuple):
    """The result of `predict_files`."""

    table: pd.DataFrame
    """columns path, [start, end (s),] rank (1: the likeliest), class, probability, predicted"""
    skipped: list[tuple[str, str]]
    """(path, reason) of files left out"""


def predict_files(
    classifier: Classifier,
    files: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    top: int | None = 3,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
) -> Predictions:
    """Classify audio files, or windows of them.

    files: files, folders (all audio below them) and patterns such as "calls/**/*.wav". out: .csv or .parquet, written
    atomically. top: classes of each file or window (None: all). window_seconds: length of the windows, each classified
    alone; hop_seconds: from one window to the next (default: the window's length). The last window ends with the file;
    a shorter file is one window. Files that cannot be read are left out and listed. Raises InputError, before anything
    is read, for an `out` that cannot be written or invalid windows, and when no file can be read, with the first
    reason.
    """
    path = None if out is None else check_table_path(resolve(out))
    if hop_seconds is not None and window_seconds is None:
        raise InputError("hop: needs windows; give their length (--windows)")
    for name, seconds in {"windows": window_seconds, "hop": hop_seconds}.items():
        if seconds is not None and not seconds >= audio.SHORTEST:
            raise InputError(f"{name}: {seconds} s is less than {audio.SHORTEST} s")
    paths, skipped = find_files(files)
    rows = []
    for name in tqdm(paths, desc="predicting", unit="file", **passing_bar_style()):
        try:
            predictions = list(_predict_file(classifier, resolve(name), top, window_seconds, hop_seconds))
        except InputError as error:
            skipped.append((name, str(error)))
            continue
        rows += [table.assign(path=name) for table in predictions]
    if not rows:
        raise InputError(f"nothing to predict: none of {len(skipped)} can be read, the first: {skipped[0][1]}")
    table = pd.concat(rows, ignore_index=True)
    spans = ["start", "end"] if window_seconds else []
    table = table[["path", *spans, "rank", "class", "probability", "predicted"]]
    if path is not None:
        write_table_file(table, path)
    return Predictions(table, skipped)


def _predict_file(
    classifier: Classifier, path: Path, top: int | None, window_seconds: float | None, hop_seconds: float | None
) -> Iterator[pd.DataFrame]:
    """A table for the file, or for each window, with rank, and start and end in seconds. Windows and long files are
    read in blocks, so that memory does not grow with the length of a file."""
    rate = classifier.sample_rate
    if window_seconds is None:
        table = classifier.table(_scores_of_file(classifier, path), top)
        yield table.assign(rank=range(1, len(table) + 1))
        return
    size, hop = round(window_seconds * rate), round((hop_seconds or window_seconds) * rate)
    windows = sliding(audio.blocks(path, rate), size, hop)
    while batch := list(itertools.islice(windows, _WINDOWS_AT_ONCE)):
        scores = classifier.scores([wave for _, wave in batch], rate)
        for (start, wave), of_window in zip(batch, scores, strict=True):
            table = classifier.table(of_window, top)
            ends = {"start": start / rate, "end": (start + len(wave)) / rate}
            yield table.assign(rank=range(1, len(table) + 1), **ends)


def _scores_of_file(classifier: Classifier, path: Path) -> np.ndarray:
    """Probabilities [K] of a file in one piece."""
    rate = classifier.sample_rate
    if audio.info(path).seconds <= LONG_SECONDS:
        return classifier.scores(audio.read(path, rate), rate)[0]
    # Decoded twice: a probe spreads its windows evenly over the exact length.
    samples = sum(map(len, audio.blocks(path, rate))) if classifier.recipe is None else 0
    return classifier.scores_of_blocks(audio.blocks(path, rate), samples)
