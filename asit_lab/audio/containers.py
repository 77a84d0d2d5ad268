"""What phones and browsers record (MP4, AAC, WebM, AMR, ...): decoded by PyAV, an optional extra that brings FFmpeg."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

# libsndfile reads none of these.
FORMATS = frozenset(
    (".m4a", ".mp4", ".m4b", ".m4v", ".mov", ".3gp", ".3g2", ".aac", ".adts", ".webm", ".weba", ".mkv", ".mka")
    + (".wma", ".asf", ".amr", ".awb", ".ac3", ".eac3", ".ape", ".wv", ".tta", ".mpc", ".spx", ".ra", ".rm", ".dts")
)
HOW_TO_ADD = "pip install 'asit-lab[formats]'"
_EARLIER = 1.0  # s decoded before the stretch that is wanted: codecs need a few frames to settle


class ContainerDecoder:
    """A file that FFmpeg reads, as blocks of mono samples."""

    def __init__(self, path: Path, file: Any = None):
        """file: its bytes, where part of another file. Raises InputError where PyAV is missing or finds no audio."""
        try:
            import av
        except ImportError:
            raise InputError(f"{path}: {path.suffix} files need PyAV: {HOW_TO_ADD}, or convert it to FLAC") from None
        self._av, self._path = av, path
        try:
            self._container = av.open(file or str(path), metadata_errors="ignore")
        except (OSError, ValueError) as error:  # FFmpeg's errors are OSErrors or ValueErrors
            raise InputError(f"{path}: not audio that FFmpeg reads, or corrupt ({_reason(error)})") from None
        if not self._container.streams.audio:
            self.close()
            raise InputError(f"{path}: no audio in it")
        self._stream = self._container.streams.audio[0]
        self.sample_rate, self.channels = self._stream.rate or 0, self._stream.channels or 0
        self.note, self._indexed = "", "mp4" in self._container.format.name
        self.frames = self._length()
        self.exact = False

    def _length(self) -> int | None:
        """Samples where the container has an index of them; None: only decoding tells."""
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
                    place = round(float((frame.pts or 0) * frame.time_base) * self.sample_rate) if near > 0 else 0
                for part in to_float.resample(frame):
                    wave = part.to_ndarray().mean(axis=0, dtype=np.float32)
                    if place + len(wave) > begin:
                        yield wave[max(0, begin - place) :]
                    place += len(wave)
        except (OSError, ValueError) as error:
            if not decoded:
                raise InputError(f"{self._path}: corrupt or truncated: {_reason(error)}") from None

    def close(self) -> None:
        self._container.close()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", "") or str(error)
