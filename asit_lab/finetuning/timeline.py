"""Classifies a recording of any length over time, by overlapping windows, and finds the events in it.

Each step of the timeline (a hop) gets the mean of the windows over it; silent steps (nothing above -80 dB of full
scale) have no class. The recording is processed in blocks, so memory grows only with the scores: steps x classes.

Shapes: N steps, K classes, C columns of the picture, M mel bands.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import soxr
import torch

from .. import audio
from ..checks import number
from ..config import resolve
from ..data.silence import SOUND
from ..encoder.waveforms import as_waveforms
from ..errors import InputError
from ..features import LogMel
from ..settings import Features

if TYPE_CHECKING:
    from .classifier import Classifier

THRESHOLD = 0.5  # of classifiers without thresholds of their own
PICTURE_COLUMNS = 2000  # of the log-mel kept for the picture
_BLOCK = 60.0  # s read at a time
_WINDOWS_AT_ONCE = 32


@dataclass(frozen=True, repr=False)
class Timeline:
    """Probabilities of a recording's classes in steps of `step_seconds`; the last step ends with the recording."""

    name: str
    """the file, or "recording\""""
    seconds: float
    step_seconds: float
    window_seconds: float
    classes: list[str]
    multi: bool
    """several classes may be present at once"""
    scores: np.ndarray
    """float32 [N, K]; zeros in steps without sound"""
    thresholds: np.ndarray
    """[K], from which a class is present unless `events` gets another"""
    log_mel: np.ndarray
    """float32 [C, M], natural log: the whole recording in at most 2,000 columns, each the mean of its frames"""
    column_seconds: float
    features: Features
    """front end of the log-mel"""

    def __repr__(self) -> str:
        return f"Timeline of {self.name}: {self.seconds:.2f} s, {len(self.scores)} steps, {len(self.classes)} classes"

    @property
    def table(self) -> pd.DataFrame:
        """One row per step: start, end (s), class (the likeliest; empty without sound), probability."""
        best = self.scores.argmax(1)
        probability = self.scores.max(1)
        starts = self.step_seconds * np.arange(len(self.scores))
        names = [self.classes[k] if p > 0 else "" for k, p in zip(best, probability, strict=True)]
        columns = {"start": starts, "end": np.minimum(starts + self.step_seconds, self.seconds), "class": names}
        return pd.DataFrame({**columns, "probability": probability})

    def events(
        self, threshold: float | None = None, min_seconds: float = 0.5, max_gap_seconds: float = 0.5
    ) -> pd.DataFrame:
        """Segments in which a class is present: rows with start, end (s), class, probability (mean over its steps).

        A class is present where it reaches `threshold` (None: the classifier's own, else 0.5) and, unless `multi`, is
        the most probable one. Segments of a class that are at most `max_gap_seconds` apart are merged unless another
        class is present between them; then those shorter than `min_seconds` are dropped. Raises InputError for invalid
        values.
        """
        self.check(threshold, min_seconds, max_gap_seconds)
        present = self.scores >= (self.thresholds if threshold is None else threshold)
        present &= self.scores > 0
        if not self.multi:
            present &= np.arange(len(self.classes)) == self.scores.argmax(1)[:, None]
        rows = []
        for k, name in enumerate(self.classes):
            other_present = present[:, np.arange(len(self.classes)) != k].any(1) & (not self.multi)
            for first, last in self._merged(present[:, k], other_present, max_gap_seconds):
                start, end = first * self.step_seconds, min(last * self.step_seconds, self.seconds)
                inside = self.scores[first:last, k]
                mean = float(inside[present[first:last, k]].mean())
                if end - start >= min_seconds - 1e-9:
                    rows.append({"start": start, "end": end, "class": name, "probability": mean})
        table = pd.DataFrame(rows, columns=["start", "end", "class", "probability"])
        return table.sort_values(["start", "end", "class"], ignore_index=True)

    @staticmethod
    def check(threshold: float | None = None, min_seconds: float = 0.5, max_gap_seconds: float = 0.5) -> None:
        """Raises InputError for values that `events` refuses."""
        if threshold is not None and not 0 < threshold <= 1:
            raise InputError(f"threshold: {threshold} is not a probability above 0")
        for name, value in {"min_seconds": min_seconds, "max_gap_seconds": max_gap_seconds}.items():
            if not value >= 0:
                raise InputError(f"{name}: {value} s; expected 0 or more")

    def _merged(self, present: np.ndarray, other_present: np.ndarray, gap: float) -> list[tuple[int, int]]:
        """First step of each merged segment and the step after its last."""
        edges = np.flatnonzero(np.diff(np.pad(present, 1).astype(np.int8)))
        merged: list[tuple[int, int]] = []
        for first, last in edges.reshape(-1, 2).tolist():
            near = merged and (first - merged[-1][1]) * self.step_seconds <= gap + 1e-9
            if near and not other_present[merged[-1][1] : first].any():
                merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        return merged

    def figure(self, events: pd.DataFrame | None = None) -> Any:
        """The log-mel with the events below it, a matplotlib Figure. events: None: those of `events()`."""
        from .. import figures

        axes = figures.MelAxes(
            self.column_seconds, self.features.sample_rate, self.features.low_hz, self.features.high_hz
        )
        return figures.timeline_figure(self.log_mel, axes, self.events() if events is None else events, self.name)


def window_and_hop(
    classifier: "Classifier", window_seconds: float | None, hop_seconds: float | None
) -> tuple[float, float]:
    """Both in s, with defaults for None. Raises InputError for invalid lengths."""
    window = classifier.window_seconds if window_seconds is None else window_seconds
    hop = window / 4 if hop_seconds is None else hop_seconds
    for option, value in {"windows": window, "hop": hop}.items():
        if number(option, value, "a length in s") < audio.SHORTEST:
            raise InputError(f"{option}: {value} s is less than {audio.SHORTEST} s")
    if hop > window:
        raise InputError(f"hop: {hop:g} s is longer than the windows ({window:g} s), so they would leave gaps")
    return window, hop


def make_timeline(
    classifier: "Classifier",
    source: Any,
    sample_rate: int | None = None,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Timeline:
    """See `Classifier.timeline`. report: called with how many steps are classified, of how many."""
    rate = classifier.sample_rate
    window, hop = window_and_hop(classifier, window_seconds, hop_seconds)
    name, samples, blocks = _read_source(source, sample_rate, rate)
    size, step = max(round(window * rate), classifier.front_end.frame), round(hop * rate)
    picture = _Picture(classifier.front_end, samples)
    total, over, loudest = (np.zeros((-(-samples // step), width)) for width in (len(classifier.classes), 1, 1))
    batch: list[tuple[int, np.ndarray]] = []

    def classify() -> None:
        scores = classifier.scores([wave for _, wave in batch], rate)
        for (start, wave), row in zip(batch, scores, strict=True):
            cells, share = _shares(start, len(wave), step, len(total))
            total[cells] += share[:, None] * row
            over[cells] += share[:, None]
        if report is not None:
            report(min(int(batch[-1][0]) // step + 1, len(total)), len(total))
        batch.clear()

    for start, wave in sliding(_with_levels(blocks, picture, loudest[:, 0], step), size, step):
        if np.abs(wave).max() > SOUND:
            batch.append((start, wave))
        if len(batch) == _WINDOWS_AT_ONCE:
            classify()
    if batch:
        classify()
    scores = (total / np.maximum(over, 1e-12)).astype(np.float32)
    scores[loudest[:, 0] <= SOUND] = 0
    own = classifier.thresholds
    thresholds = np.full(len(classifier.classes), THRESHOLD) if own is None else np.asarray(own)
    return Timeline(
        name,
        samples / rate,
        step / rate,
        size / rate,
        classifier.classes,
        classifier.multi,
        scores,
        thresholds,
        picture.log_mel(),
        picture.column_seconds,
        classifier.config.features,
    )


def _read_source(source: Any, sample_rate: int | None, rate: int) -> tuple[str, int, Iterator[np.ndarray]]:
    """Name, samples at `rate` and blocks of a file or of a waveform."""
    if isinstance(source, str | Path):
        path = resolve(source)
        about = audio.info(path)
        # The header's length may be a little off; samples beyond it are counted as they come.
        return str(source), max(1, round(about.seconds * rate)), audio.blocks(path, rate, _BLOCK)
    if sample_rate is None:
        raise InputError("sample_rate: needed with a waveform, in Hz")
    waves = as_waveforms(source, sample_rate)
    if len(waves) != 1:
        raise InputError(f"wave: expected one recording, [samples], got {tuple(waves.shape)}")
    wave = waves[0].detach().cpu().numpy()
    if sample_rate != rate:
        wave = soxr.resample(wave, sample_rate, rate)
    if len(wave) < audio.SHORTEST * rate:
        raise InputError(f"wave: {1000 * len(wave) / rate:.3g} ms long, shorter than {1000 * audio.SHORTEST:g} ms")
    size = round(_BLOCK * rate)
    return "recording", len(wave), (wave[first : first + size] for first in range(0, len(wave), size))


def _with_levels(
    blocks: Iterable[np.ndarray], picture: "_Picture", loudest: np.ndarray, step: int
) -> Iterator[np.ndarray]:
    """Yield the blocks, cut at the announced length, and fill in the picture and the peak of each step."""
    position, samples = 0, picture.samples
    for block in blocks:
        block = block[: samples - position]
        if not len(block):
            return
        steps, starts = np.unique(np.arange(position, position + len(block)) // step, return_index=True)
        loudest[steps] = np.maximum(loudest[steps], np.maximum.reduceat(np.abs(block), starts))
        picture.add(block)
        position += len(block)
        yield block


def sliding(blocks: Iterable[np.ndarray], size: int, hop: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first sample, window [size]) every `hop` samples over consecutive blocks, the last one at their end; a recording
    shorter than a window is one window. Memory: a block and a window."""
    buffer, first, following, covered = np.zeros(0, np.float32), 0, 0, 0
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while following + size <= first + len(buffer):
            yield following, buffer[following - first : following - first + size]
            covered, following = following + size, following + hop
        drop = max(0, min(following, first + len(buffer) - size) - first)
        buffer, first = buffer[drop:], first + drop
    end = first + len(buffer)
    if covered < end:
        start = max(0, end - size)
        yield start, buffer[start - first :]


def _shares(start: int, length: int, step: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps that a window overlaps, and the share of each that it covers."""
    cells = np.arange(start // step, min(steps, -(-(start + length) // step)))
    inside = np.minimum(start + length, (cells + 1) * step) - np.maximum(start, cells * step)
    return cells, inside / step


class _Picture:
    """Accumulates the log-mel of a recording, block by block, in at most `PICTURE_COLUMNS` columns."""

    def __init__(self, front_end: LogMel, samples: int):
        self.front_end, self.samples = front_end, samples
        frames = max(1, front_end.frames_of(samples))
        self.frames_a_column = -(-frames // PICTURE_COLUMNS)
        self.column_seconds = self.frames_a_column * front_end.hop / front_end.sample_rate
        columns = -(-frames // self.frames_a_column)
        self.sums, self.counts = np.zeros((columns, front_end.mel_bins)), np.zeros((columns, 1))
        self.rest, self.frame = np.zeros(0, np.float32), 0

    def add(self, block: np.ndarray) -> None:
        """Add the next block; samples of an incomplete frame wait for the block after it."""
        wave = np.concatenate([self.rest, block])
        frames = self.front_end.frames_of(len(wave))
        if frames:
            device = self.front_end.window.device
            raw = self.front_end(torch.from_numpy(wave)[None].to(device))[0].cpu().numpy()  # [T, M]
            columns = np.minimum(np.arange(self.frame, self.frame + frames) // self.frames_a_column, len(self.sums) - 1)
            np.add.at(self.sums, columns, raw)
            np.add.at(self.counts, columns, 1)
        self.rest, self.frame = wave[frames * self.front_end.hop :], self.frame + frames

    def log_mel(self) -> np.ndarray:
        """float32 [C, M]; without columns that received no frame."""
        filled = self.counts[:, 0] > 0
        return (self.sums[filled] / self.counts[filled]).astype(np.float32)
