"""Finds events in recordings and writes them as CSV, Audacity labels and Raven selection tables.

Audacity: File > Import > Labels (manual, "Importing and Exporting Labels"). Raven: File > Open Selection Table; columns
that Raven does not know, such as Score, are kept (Raven Pro user's manual, chapter "Selections").
"""

import re
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from tqdm import tqdm

from ..config import resolve
from ..data import labels
from ..data.manifest import Manifest
from ..data.silence import SOUND
from ..embedding.files import check_table_path, find_files, write_table_file
from ..errors import InputError
from ..settings import Features
from ..storage.atomic import atomic_write, write_text
from ..storage.progress import passing_bar_style
from .classifier import Classifier
from .predict import Predictions
from .timeline import Timeline, window_and_hop

AUDACITY, RAVEN = ".labels.txt", ".selections.txt"


def write_events(events: pd.DataFrame, path: str | Path, features: Features | None = None) -> Path:
    """Write events (start, end in s, class, probability) in the format of the name: .csv, .labels.txt (Audacity) or
    .selections.txt (Raven).

    features: the front end, whose band limits become Raven's Low and High Freq; None: both are 0 Hz. Raises InputError
    for another ending.
    """
    path = resolve(path)
    if path.name.endswith(AUDACITY):
        rows = [f"{row.start:.6f}\t{row.end:.6f}\t{_one_line(name)}\n" for row, name in _rows_and_classes(events)]
        text = "".join(rows)
    elif path.name.endswith(RAVEN):
        text = _raven(events, features)
    elif path.suffix.lower() == ".csv":
        text = events.to_csv(index=False)
    else:
        raise InputError(f"{path}: give a name that ends in .csv, {AUDACITY} (Audacity) or {RAVEN} (Raven)")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def _rows_and_classes(events: pd.DataFrame) -> list:
    return list(zip(events.itertuples(), events["class"], strict=True))


def _raven(events: pd.DataFrame, features: Features | None) -> str:
    heads = ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"]
    lines = ["\t".join([*heads, "Annotation", "Score"])]
    low, high = 0.0, 0.0
    if features is not None:
        low, high = features.low_hz, features.high_hz if features.high_hz > 0 else features.sample_rate / 2
    for number, (row, name) in enumerate(_rows_and_classes(events), 1):
        times = [f"{row.start:.6f}", f"{row.end:.6f}", f"{low:.1f}", f"{high:.1f}"]
        lines.append("\t".join([str(number), "Spectrogram 1", "1", *times, _one_line(name), f"{row.probability:.4f}"]))
    return "\n".join(lines) + "\n"


def _one_line(name: str) -> str:
    return re.sub(r"\s+", " ", name)


def find_events(
    classifier: Classifier,
    files: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    folder: str | Path | None = None,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    **options: Any,
) -> Predictions:
    """Find events in long recordings: a table with path, start, end (s), class, probability.

    files: as `predict_files` takes them. out: .csv or .parquet to write the table to. folder: receives, for each
    recording, NAME.csv (its timeline, step by step), NAME.labels.txt (Audacity), NAME.selections.txt (Raven) and, where
    matplotlib is installed, NAME.png. window_seconds, hop_seconds: as in `Classifier.timeline`; options: as in
    `Timeline.events`. Files that cannot be read are left out and listed. Raises InputError as `predict_files` does.
    """
    path = None if out is None else check_table_path(resolve(out))
    Timeline.check(**options)
    window_and_hop(classifier, window_seconds, hop_seconds)
    paths, skipped = find_files(files)
    stems: set[str] = set()
    parts, read = [], 0
    for name in tqdm(paths, desc="predicting", unit="file", **passing_bar_style()):
        try:
            timeline = classifier.timeline(name, None, window_seconds, hop_seconds)
        except InputError as error:
            skipped.append((name, str(error)))
            continue
        read += 1
        events = timeline.events(**options)
        parts.append(events.assign(path=name))
        if folder is not None:
            stem = Path(name).stem
            names = chain([stem], (f"{stem}-{number}" for number in count(2)))
            unique = next(name for name in names if name not in stems)  # files of one name in several folders
            stems.add(unique)
            write_timeline(timeline, events, resolve(folder) / unique)
    if not read:
        raise InputError(f"nothing to predict: none of {len(skipped)} can be read, the first: {skipped[0][1]}")
    table = pd.concat(parts, ignore_index=True)[["path", "start", "end", "class", "probability"]]
    if path is not None:
        write_table_file(table, path)
    return Predictions(table, skipped)


def write_timeline(timeline: Timeline, events: pd.DataFrame, stem: Path) -> None:
    """Write stem.csv (step by step), stem.labels.txt, stem.selections.txt and, where matplotlib is installed,
    stem.png."""
    write_events(timeline.table, stem.with_name(f"{stem.name}.csv"))
    for ending in (AUDACITY, RAVEN):
        write_events(events, stem.with_name(stem.name + ending), timeline.features)
    try:
        from .. import figures
    except ModuleNotFoundError:
        return
    figures.save(timeline.figure(events), stem.with_name(f"{stem.name}.png"))


def join_clips(manifest: Manifest, rows: Sequence[int], path: str | Path, sample_rate: int) -> pd.DataFrame:
    """Concatenate clips into one recording (.wav, `sample_rate` Hz) and return which class sounds when.

    The table, for `covered`, has start, end (s) and class, without the silence at both ends of each clip; a clip of
    several classes has a row for each.
    """
    path, placed, position = resolve(path), [], 0
    with (
        atomic_write(path) as temporary,
        soundfile.SoundFile(temporary, "w", sample_rate, 1, "FLOAT", format="WAV") as file,
    ):
        for row in rows:
            wave = manifest.read(int(row), sample_rate)
            file.write(wave)
            loud = np.flatnonzero(np.abs(wave) > SOUND)
            label = manifest.table["label"].iloc[row]
            names = labels.split(label) if manifest.multi else [label]
            if len(loud):
                times = {"start": (position + loud[0]) / sample_rate, "end": (position + loud[-1] + 1) / sample_rate}
                placed += [times | {"class": name} for name in names]
            position += len(wave)
    return pd.DataFrame(placed, columns=["start", "end", "class"])


def covered(events: pd.DataFrame, placed: pd.DataFrame) -> np.ndarray:
    """Share of each placed segment, 0 to 1, that events of its class cover; both tables have start, end (s), class.

    Events of a class may not overlap each other, as those of a timeline do not.
    """
    shares = []
    for start, end, name in zip(placed["start"], placed["end"], placed["class"], strict=True):
        same = events[events["class"] == name]
        inside = np.minimum(same["end"], end) - np.maximum(same["start"], start)
        shares.append(float(inside.clip(lower=0).sum()) / (end - start))
    return np.array(shares)
