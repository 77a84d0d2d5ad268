"""Reads any audio file that libsndfile or FFmpeg can decode, as mono float32 at a given rate.

Whatever is wrong with a file, one InputError names the file and the reason. Where the length in a header cannot be
right (see lengths.py), everything that can be decoded is used.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from ..checks import integer, number
from ..errors import InputError
from .decoders import Decoder, open_decoder

SHORTEST = 0.025  # s: one analysis frame; anything shorter gives no log-mel at all
MARGIN = 0.1  # s read on either side of a segment before resampling, as context for the filter
SLACK = 0.05  # s a compressed file may fall short of its header: codecs pad and skip a frame or two
LOUDEST = 2.0**32  # 32-bit integers as float stay below; larger values are damage, and log-mels would overflow
INTEGERS = 8.0  # a peak beyond this is not a level of -1 to 1: integers written as float
RATES = (100, 10_000_000)  # Hz, the lowest and highest rate that a header may give


@dataclass(frozen=True)
class AudioInfo:
    """Facts from the header of an audio file or, where that cannot be right, from decoding it."""

    path: str
    seconds: float
    sample_rate: int  # Hz
    channels: int
    frames: int  # samples a channel
    note: str = ""  # for the user; follows a number of files ("MP3s without ..."); may be empty


def info(path: str | Path) -> AudioInfo:
    """Length, rate and channels, from the header alone where its length can be right.

    Raises InputError naming file and reason: missing, not audio, truncated, zero length, shorter than 25 ms.
    """
    with _opened(path) as decoder:
        frames, rate = decoder.frames, decoder.sample_rate
        if frames is None:
            frames = sum(len(block) for block in decoder.blocks(0))
        if frames <= 0:
            raise InputError(f"{path}: zero length (it holds no samples)")
        if frames < SHORTEST * rate:
            raise InputError(f"{path}: {1000 * frames / rate:.3g} ms long, shorter than {1000 * SHORTEST:g} ms")
        return AudioInfo(str(path), frames / rate, rate, decoder.channels, frames, decoder.note)


def read(path: str | Path, sample_rate: int, start: float = 0.0, seconds: float | None = None) -> np.ndarray:
    """Mono float32 [samples] at `sample_rate` Hz: channels averaged, resampled with soxr's HQ filter.

    start, seconds: the segment to read; only that part of the file is decoded. At most round(seconds * sample_rate)
    samples come back, fewer where the file ends. `seconds=None` reads to the end.
    Raises InputError naming file and reason: missing, not audio, corrupt, truncated, zero length, shorter than 25 ms,
    a segment that starts outside the file, samples that are not numbers; and for a rate or length that is not above 0.
    """
    sample_rate, start = _check_rate(sample_rate), number("start", start, "a number of s")
    seconds = None if seconds is None else _check_positive("seconds", seconds, "s")
    nothing = f"{path}: no audio at {start:g} s"
    if start < 0:
        raise InputError(nothing)
    with _opened(path) as decoder:
        rate, frames = decoder.sample_rate, decoder.frames
        if frames is not None:
            if frames <= 0:
                raise InputError(f"{path}: zero length (it holds no samples)")
            if frames < SHORTEST * rate:
                raise InputError(f"{path}: {1000 * frames / rate:.3g} ms long, shorter than {1000 * SHORTEST:g} ms")
            if start >= frames / rate:
                raise InputError(f"{nothing}, the file is {frames / rate:.3f} s long")
        length = math.inf if seconds is None else round(seconds * sample_rate)
        begin, end, skip = _source_stretch(rate, frames, sample_rate, round(start * sample_rate), length)
        wave = _decode(path, decoder, begin, end)
    if len(wave) and rate != sample_rate:
        wave = soxr.resample(wave, rate, sample_rate, quality="HQ")
    wave = wave[skip : skip + length] if length != math.inf else wave[skip:]
    if len(wave) == 0:
        raise InputError(f"{nothing}, the file ends before")
    return wave


def blocks(path: str | Path, sample_rate: int, seconds: float = 60.0, checked: bool = True) -> Iterator[np.ndarray]:
    """A file from its beginning to its end in blocks of `seconds`, the last one shorter: mono float32 [samples].

    The same samples as `read` gives in one piece, in memory that does not grow with the length. Raises InputError as
    `read` does, for a damaged file after the blocks before the damage; unless `checked`, invalid samples are returned,
    too (see `check_samples`).
    """
    sample_rate, seconds = _check_rate(sample_rate), _check_positive("seconds", seconds, "s")
    size = max(1, round(seconds * sample_rate))
    with _opened(path) as decoder:
        resampler = soxr.ResampleStream(decoder.sample_rate, sample_rate, 1, dtype="float32", quality="HQ")
        waiting, decoded = np.zeros(0, np.float32), 0
        for block in decoder.blocks(0):
            decoded += len(block)
            if checked:
                check_samples(path, block)
            fresh = resampler.resample_chunk(block) if decoder.sample_rate != sample_rate else block
            waiting = np.concatenate([waiting, fresh])
            while len(waiting) >= size:
                yield waiting[:size]
                waiting = waiting[size:]
        if decoder.sample_rate != sample_rate:
            waiting = np.concatenate([waiting, resampler.resample_chunk(np.zeros(0, np.float32), last=True)])
        for start in range(0, len(waiting), size):
            yield waiting[start : start + size]
        if decoder.frames is not None:
            _check_complete(path, decoder, decoded, decoder.frames)


def _check_positive(name: str, value: Any, unit: str) -> float:
    parsed = number(name, value, f"a number of {unit}")
    if not parsed > 0:
        raise InputError(f"{name}: {parsed:g}; expected more than 0")
    return parsed


def _check_rate(sample_rate: Any) -> int:
    _check_positive("sample_rate", sample_rate, "Hz")
    return integer("sample_rate", sample_rate, 1, RATES[1])


@contextmanager
def _opened(path: str | Path) -> Iterator[Decoder]:
    decoder = open_decoder(path)
    try:
        if decoder.channels < 1:
            raise InputError(f"{path}: the header says {decoder.channels} channels")
        if not RATES[0] <= decoder.sample_rate <= RATES[1]:
            raise InputError(f"{path}: the header says {decoder.sample_rate} Hz, which is no sample rate of audio")
        yield decoder
    finally:
        decoder.close()


def _source_stretch(
    source_rate: int, frames: int | None, rate: int, first: int, length: float
) -> tuple[int, float, int]:
    """Frames (begin, end) of the file that give target samples first..first+length, and how many of them to skip.

    `begin` falls on an instant that is a whole sample at both rates, so a segment has the phase of the whole file.
    frames: of the file; None if not known before decoding.
    """
    available = math.inf if frames is None else frames
    if source_rate == rate:
        return first, min(available, first + length), 0
    common = math.gcd(source_rate, rate)
    source_unit, target_unit = source_rate // common, rate // common
    margin = max(MARGIN, 64 / source_rate)
    units = max(0, first - math.ceil(margin * rate)) // target_unit
    last = (first + length) * source_rate / rate + margin * source_rate
    end = available if last >= available else math.ceil(last)
    return units * source_unit, end, first - units * target_unit


def _decode(path: str | Path, decoder: Decoder, begin: int, end: float) -> np.ndarray:
    """Frames begin..end of an open file, averaged over channels, float32; fewer where the length of the file is in
    doubt."""
    pieces, remaining = [], end - begin
    for block in decoder.blocks(begin, end - begin):
        pieces.append(block if len(block) <= remaining else block[: int(remaining)])
        remaining -= len(pieces[-1])
        if remaining <= 0:
            break
    wave = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if decoder.frames is not None:
        _check_complete(path, decoder, begin + len(wave), begin + len(wave) + remaining)
    check_samples(path, wave)
    return wave


def _check_complete(path: str | Path, decoder: Decoder, decoded: float, expected: float) -> None:
    """Raises InputError where a file of known length ends before the `expected` sample, by more than a few."""
    frames = decoder.frames
    if decoder.exact and frames is not None and expected - decoded > _few(frames, decoder.sample_rate):
        raise InputError(f"{path}: corrupt: of {frames} samples only {decoded} can be decoded")


def _few(frames: int, rate: int) -> float:
    """Samples that a file may lack at its end: a frame of a codec (4,608 samples at most), or a hundredth of it up to a
    second."""
    return max(SLACK * rate, 4608, min(0.01 * frames, rate))


def check_samples(path: str | Path, wave: np.ndarray) -> None:
    """Raises InputError for samples that are NaN, infinite or absurdly large."""
    if len(wave) and not (wave.max() <= LOUDEST and wave.min() >= -LOUDEST):  # also where it is NaN
        infinite, huge = np.count_nonzero(~np.isfinite(wave)), np.count_nonzero(np.abs(wave) > LOUDEST)
        if infinite:
            raise InputError(f"{path}: {infinite} samples are NaN or infinite")
        raise InputError(f"{path}: {huge} samples are beyond ±{LOUDEST:.2g}, which is no level of sound")
