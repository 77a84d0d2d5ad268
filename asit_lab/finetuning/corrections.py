"""Keeps labels that a person gives to recordings, or to parts of them, in a CSV that `folder:FILE.csv` reads."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from ..config import resolve
from ..data.sources.tables import MULTI, read_table
from ..errors import InputError
from ..storage.atomic import atomic_write, write_text


class Corrections:
    """Corrected labels, one row for each recording (start and end empty) or part of one.

    Columns: path, start, end (s), label (labels where clips may have several, joined by semicolons), predicted,
    probability (of the class that was predicted). A file that exists is continued, and other columns in it are kept.
    """

    def __init__(self, path: str | Path, multi: bool = False):
        """path: .csv. multi: clips may have several classes. Raises InputError for another ending, or a file that is
        no such list."""
        self.path, self.column = resolve(path), MULTI if multi else "label"
        if self.path.suffix.lower() != ".csv":
            raise InputError(f"{self.path}: give a name that ends in .csv")
        self.table  # noqa: B018  so that a wrong file is noticed now

    @property
    def table(self) -> pd.DataFrame:
        """The rows as they are in the file, all of them text."""
        columns = ["path", "start", "end", self.column, "predicted", "probability"]
        if not self.path.is_file():
            return pd.DataFrame(columns=columns, dtype=object)
        table = read_table(self.path)
        missing = [name for name in columns[:4] if name not in table.columns]
        if missing:
            raise InputError(f"{self.path}: column {missing[0]!r} is missing; choose another file for corrections")
        return table

    def labels(self, path: str | Path) -> dict[tuple[float | None, float | None], str]:
        """Labels given to a recording: start and end of its part (s, None: all of it) -> label."""
        table = self.table
        rows = table.loc[table["path"] == self._written(path), ["start", "end", self.column]]
        parts = ((_number(start), _number(end), str(label)) for start, end, label in rows.itertuples(index=False))
        return {(start, end): label for start, end, label in parts}

    def add(
        self,
        path: str | Path,
        label: str,
        start: float | None = None,
        end: float | None = None,
        predicted: str = "",
        probability: float | None = None,
    ) -> None:
        """Save a label of a recording, or of its part from `start` to `end` (s); it replaces an earlier one of the same
        part. A part of several classes has them in one label.

        Raises InputError for an empty label.
        """
        label = " ".join(label.split())
        if not label:
            raise InputError("label: is empty; type a class, or choose one from the list")
        table = self.table
        row: dict[str, Any] = {"path": self._written(path), self.column: label, "predicted": predicted}
        row |= {"start": _seconds(start), "end": _seconds(end)}
        row["probability"] = "" if probability is None else f"{probability:.4f}"
        self._write(pd.concat([table[~self._rows(table, path, start, end)], pd.DataFrame([row])], ignore_index=True))

    def remove(self, path: str | Path, start: float | None = None, end: float | None = None) -> None:
        """Forget the label of a recording, or of its part from `start` to `end` (s)."""
        table = self.table
        self._write(table[~self._rows(table, path, start, end)])

    def audio_path(self, wave: np.ndarray, sample_rate: int, name: str) -> Path:
        """Where `keep_audio` writes a waveform: beside the CSV, under a name that depends on the samples."""
        digest = hashlib.blake2b(np.ascontiguousarray(wave, np.float32).tobytes(), digest_size=4)
        digest.update(str(sample_rate).encode())
        plain = "".join(letter if letter.isalnum() else "_" for letter in Path(name).stem)[:60]
        return self.path.with_name(f"{self.path.stem}_audio") / f"{plain}-{digest.hexdigest()}.wav"

    def keep_audio(self, wave: np.ndarray, sample_rate: int, name: str) -> Path:
        """Write a waveform, float [samples] in [-1, 1], that is in no file that stays; returns its path."""
        path = self.audio_path(wave, sample_rate, name)
        if not path.is_file():
            with atomic_write(path) as temporary:
                soundfile.write(temporary, np.clip(wave, -1, 1), sample_rate, format="WAV", subtype="PCM_16")
        return path

    def _written(self, path: str | Path) -> str:
        """A path as it stands in the CSV: relative to its folder where the file is in that."""
        path = resolve(path)
        return str(path.relative_to(self.path.parent) if path.is_relative_to(self.path.parent) else path)

    def _rows(self, table: pd.DataFrame, path: str | Path, start: float | None, end: float | None) -> pd.Series:
        same_place = (table["start"].fillna("") == _seconds(start)) & (table["end"].fillna("") == _seconds(end))
        return (table["path"] == self._written(path)) & same_place

    def _write(self, table: pd.DataFrame) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, table.fillna("").to_csv(index=False))


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _number(cell: str) -> float | None:
    return float(cell) if cell else None
