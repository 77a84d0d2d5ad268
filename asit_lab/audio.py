"""Reading audio: any file libsndfile reads, any rate, any number of channels, out comes mono float32 at one rate.

Everything that can be wrong with a file ends in one InputError that names the file and the reason.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from .errors import InputError

SHORTEST = 0.025  # s: one analysis frame; anything shorter gives no log-mel at all
MARGIN = 0.1  # s read on either side of a stretch before resampling, so that the filter sees its surroundings
SLACK = 0.05  # s a compressed file may fall short of its header: codecs pad and skip a frame or two

# What libsndfile's log says about a file that ends before its header says it should.
_CHUNK = re.compile(r"(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)")
_DS64 = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
_UNFINISHED_OGG = "Last page lacks an end-of-stream bit"
_UNKNOWN_LENGTH = 0x7FFF0000  # bytes: writers that stream put this or more because they did not know the length


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says."""

    path: str
    seconds: float
    sample_rate: int  # Hz
    channels: int
    frames: int  # samples a channel


def info(path: str | Path) -> AudioInfo:
    """Length, rate and channels from the header alone.

    Raises InputError naming file and reason: missing, not audio, truncated, zero length, shorter than 25 ms.
    """
    with _open(path) as file:
        return _check_header(path, file)


def read(path: str | Path, sample_rate: int, start: float = 0.0, seconds: float | None = None) -> np.ndarray:
    """Mono float32 [samples] at `sample_rate` Hz: channels averaged, resampled with soxr's HQ filter.

    start, seconds: the stretch wanted; only that part of the file is decoded. At most round(seconds * sample_rate)
    samples come back, fewer where the file ends. `seconds=None` reads to the end.
    Raises InputError naming file and reason: missing, not audio, corrupt, truncated, zero length, shorter than 25 ms,
    a stretch that starts outside the file, samples that are not numbers; and for a rate or length that is not above 0.
    """
    for name, value in (("sample_rate", sample_rate), ("seconds", 1.0 if seconds is None else seconds)):
        if not value > 0:
            raise InputError(f"{name}: {value:g}; expected more than 0")
    with _open(path) as file:
        header = _check_header(path, file)
        if not 0 <= start < header.seconds:
            raise InputError(f"{path}: no audio at {start:g} s, the file is {header.seconds:.3f} s long")
        length = math.inf if seconds is None else round(seconds * sample_rate)
        begin, end, skip = _source_stretch(header, sample_rate, round(start * sample_rate), length)
        wave = _decode(path, file, begin, end)
    if header.sample_rate != sample_rate:
        wave = soxr.resample(wave, header.sample_rate, sample_rate, quality="HQ")
    return wave[skip : skip + length] if length != math.inf else wave[skip:]


def _source_stretch(header: AudioInfo, rate: int, first: int, length: float) -> tuple[int, int, int]:
    """Frames (begin, end) of the file that give target samples first..first+length, and how many to skip of them.

    `begin` falls on an instant that is a whole sample at both rates, so a stretch has the phase of the whole file.
    """
    if header.sample_rate == rate:
        return first, min(header.frames, first + length), 0
    common = math.gcd(header.sample_rate, rate)
    source_unit, target_unit = header.sample_rate // common, rate // common
    units = max(0, first - math.ceil(MARGIN * rate)) // target_unit
    last = (first + length) * header.sample_rate / rate + MARGIN * header.sample_rate
    end = header.frames if last >= header.frames else math.ceil(last)
    return units * source_unit, end, first - units * target_unit


def _open(path: str | Path) -> soundfile.SoundFile:
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: a folder, not an audio file")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: zero length (the file has 0 bytes)")
        return soundfile.SoundFile(str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror or error}") from None
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not audio that libsndfile reads, or corrupt ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """libsndfile's own words without the path, which the message has already."""
    words = (getattr(error, "error_string", "") or str(error)).removeprefix("Error : ").strip().rstrip(".")
    return words or "no reason given"


def _check_header(path: str | Path, file: soundfile.SoundFile) -> AudioInfo:
    frames, rate = file.frames, file.samplerate
    if frames <= 0:
        raise InputError(f"{path}: zero length (the header announces no samples)")
    missing = _missing(file.extra_info)
    if missing:
        raise InputError(f"{path}: truncated: {missing}")
    if frames < SHORTEST * rate:
        raise InputError(f"{path}: {1000 * frames / rate:.3g} ms long, shorter than {1000 * SHORTEST:g} ms")
    return AudioInfo(str(path), frames / rate, rate, file.channels, frames)


def _missing(log: str) -> str:
    """What libsndfile's log reports as missing at the end of the file, in words; empty if nothing.

    libsndfile silently takes the length that is there, so a half-copied WAV would pass for a shorter recording.
    """
    for pattern, unit, promised, there in ((_CHUNK, "bytes", 1, 2), (_DS64, "samples", 2, 1)):
        found = pattern.search(log)
        if found and int(found[there]) < int(found[promised]) < _UNKNOWN_LENGTH:
            return f"the header promises {found[promised]} {unit} of audio, the file has {found[there]}"
    return "the Ogg stream stops before its end" if _UNFINISHED_OGG in log else ""


def _decode(path: str | Path, file: soundfile.SoundFile, begin: int, end: int) -> np.ndarray:
    """Frames begin..end of an open file, averaged over channels, float32."""
    try:
        file.seek(begin)
        wave = file.read(end - begin, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise InputError(f"{path}: corrupt or truncated: {_reason(error)}") from None
    if len(wave) < end - begin - SLACK * file.samplerate or len(wave) == 0:
        raise InputError(
            f"{path}: truncated: the header promises {file.frames} samples, only {begin + len(wave)} can be read"
        )
    wave = wave.mean(axis=1, dtype=np.float32) if wave.shape[1] > 1 else wave[:, 0]
    if not np.isfinite(wave).all():
        raise InputError(f"{path}: {np.count_nonzero(~np.isfinite(wave))} samples are NaN or infinite")
    return wave
