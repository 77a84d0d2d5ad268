"""Decodes what phones and browsers record (MP4, AAC, WebM, AMR, ...) by PyAV, an optional extra that brings FFmpeg."""

import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import InputError
from .lengths import Stored, View

# libsndfile reads none of these.
CONTAINER_SUFFIXES = frozenset(
    (".m4a", ".mp4", ".m4b", ".m4v", ".mov", ".3gp", ".3g2", ".aac", ".adts", ".webm", ".weba", ".mkv", ".mka")
    + (".wma", ".asf", ".amr", ".awb", ".ac3", ".eac3", ".ape", ".wv", ".tta", ".mpc", ".spx", ".ra", ".rm", ".dts")
)
HOW_TO_ADD = "pip install av"
_FIRST_BYTES = (b"\x1aE\xdf\xa3", b"\x30&\xb2u", b"#!AMR", b"\xff\xf0", b"\xff\xf1", b"\xff\xf8", b"\xff\xf9")
_EARLIER = 1.0  # s decoded before the requested start: codecs need a few frames to settle


class ContainerDecoder:
    """A file that FFmpeg reads, as blocks of mono samples."""

    def __init__(self, path: Path, stored: Stored):
        """Raises InputError where PyAV is missing or finds no audio."""
        try:
            import av
        except ImportError:
            kind = f"{path.suffix} files need" if path.suffix.lower() in CONTAINER_SUFFIXES else "its content needs"
            raise InputError(f"{path}: {kind} PyAV: {HOW_TO_ADD}, or convert it to FLAC") from None
        self._av, self._path, self._view = av, path, View(stored)
        try:
            self._container = av.open(self._view, "r", metadata_errors="ignore")
        except (av.FFmpegError, OSError, ValueError) as error:
            self._view.close()
            raise InputError(f"{path}: not audio that FFmpeg reads, or corrupt ({_reason(error)})") from None
        if not self._container.streams.audio:
            self.close()
            raise InputError(f"{path}: it holds no audio")
        self._stream = self._container.streams.audio[0]
        if self._stream.codec_context is None:
            self.close()
            raise InputError(f"{path}: FFmpeg does not know its codec")
        self.sample_rate, self.channels = self._stream.rate or 0, self._stream.channels or 0
        self.note, self._indexed = "", "mp4" in self._container.format.name
        self.frames = self._length(stored)
        self.exact = False

    def _length(self, stored: Stored) -> int | None:
        """Samples, where the container has an index; None if they are only known after decoding."""
        if self._indexed and _is_cut(View(stored), stored.size):
            self.note = (
                f"{self._path.suffix.removeprefix('.').upper()}s that end before their header says: read to the end"
            )
            return None
        if not self._indexed or not self._stream.duration or not self._stream.time_base:
            self.note = f"{self._path.suffix.lower()} files without a length in their header: read to the end"
            return None
        return round(float(self._stream.duration * self._stream.time_base) * self.sample_rate)

    def blocks(self, begin: int, size: float = math.inf) -> Iterator[np.ndarray]:
        """Mono float32 [samples] from sample `begin` to the end, a codec's frame each. Raises InputError where nothing
        can be decoded."""
        to_float = self._av.AudioResampler(format="fltp")
        # Times in other containers than MP4 are rounded to ms, so these are decoded from their beginning.
        near = begin / self.sample_rate - _EARLIER if self._indexed else 0.0
        decoded = False
        try:
            if near > 0:
                self._container.seek(int(near * self._av.time_base))
            place = None  # of the next frame, in samples
            for frame in self._container.decode(self._stream):
                decoded = True
                if place is None:
                    seconds = frame.time or 0.0  # s
                    place = round(seconds * self.sample_rate) if near > 0 else 0
                for part in to_float.resample(frame):
                    wave = part.to_ndarray().mean(axis=0, dtype=np.float32)
                    if place + len(wave) > begin:
                        yield wave[max(0, begin - place) :]
                    place += len(wave)
        except (self._av.FFmpegError, OSError, ValueError) as error:
            if not decoded:
                raise InputError(f"{self._path}: corrupt or truncated: {_reason(error)}") from None

    def close(self) -> None:
        self._container.close()
        self._view.close()


@lru_cache(maxsize=100_000)
def is_container(stored: Stored) -> bool:
    """Whether the content has one of these formats, whatever the file is called. Raises OSError."""
    view = View(stored)
    first = view.read(12)
    view.close()
    return first[4:8] == b"ftyp" or first.startswith(_FIRST_BYTES)


def _is_cut(file: View, size: int) -> bool:
    """Whether the last box of an MP4 is longer than the file."""
    offset = 0
    while offset + 8 <= size:
        file.seek(offset)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:], "big") if length == 1 else length
        if length < 8:  # 0: to the end
            break
        offset += length
    file.close()
    return offset > size


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", "") or str(error)
