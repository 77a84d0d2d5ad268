"""Reads headers of audio files and caches those of large data sets: two million take ten minutes to read."""

import contextlib
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..audio import AudioInfo, info
from ..audio.state import stat_of
from ..config import resolve
from ..errors import InputError
from ..storage.atomic import atomic_write
from .sources import synth

CACHED_FROM = 5000  # files from which on headers are cached; fewer are read in seconds
_THREADS = 8  # headers are small reads: the time goes into waiting for the disk or the network
_CHUNK = 200  # files a thread is given at a time
_KEY = 16  # bytes


def read_headers(paths: list[str]) -> dict[str, AudioInfo | str]:
    """{path: its header, or why it cannot be used}, read in threads.

    Headers of many files are cached in data/headers/*.npz and valid as long as path, size and time of change are the
    same. When the cache is damaged or cannot be written, headers are read again.
    """
    if len(paths) < CACHED_FROM:
        return dict(zip(paths, _in_threads(_header, paths), strict=True))
    place = blake2b(os.fsencode(os.path.commonpath(paths)), digest_size=8).hexdigest()
    file = resolve("data/headers") / f"{place}.npz"
    cached = _load(file)
    keys = dict(zip(paths, _in_threads(_key, paths), strict=True))
    new = [path for path in paths if keys[path] not in cached]
    read = dict(zip(new, _in_threads(_header, new), strict=True))
    good = {keys[path]: header for path, header in read.items() if keys[path] and isinstance(header, AudioInfo)}
    if good:
        _save(file, cached | {key: _Cached.of(header) for key, header in good.items()})
    return {path: read[path] if path in read else cached[keys[path]].restored(path) for path in paths}


class _Cached(NamedTuple):
    """The cached part of a header."""

    rate: int
    channels: int
    frames: int
    note: str

    @classmethod
    def of(cls, header: AudioInfo) -> "_Cached":
        return cls(header.sample_rate, header.channels, header.frames, header.note)

    def restored(self, path: str) -> AudioInfo:
        return AudioInfo(path, self.frames / self.rate, self.rate, self.channels, self.frames, self.note)


def _in_threads(function, paths: list[str]) -> Iterator:
    """`function` of every path, in order. In chunks: a million waiting futures would be gigabytes."""
    chunks = [paths[first : first + _CHUNK] for first in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as threads:
        for results in threads.map(lambda chunk: [function(path) for path in chunk], chunks):
            yield from results


def _header(path: str) -> AudioInfo | str:
    """The header, or why it cannot be used."""
    try:
        return synth.synth_info(path) if path.startswith(synth.PREFIX) else info(path)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")


def _key(path: str) -> bytes:
    """The cache key of a file; empty for a missing one."""
    stat = stat_of(path)
    if stat is None:
        return b""
    return blake2b(os.fsencode(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}"), digest_size=_KEY).digest()


def _load(file: Path) -> dict[bytes, _Cached]:
    try:
        with np.load(file) as arrays:
            keys, numbers, notes = arrays["keys"].tobytes(), arrays["numbers"].tolist(), arrays["notes"].tolist()
        return {
            keys[_KEY * row : _KEY * (row + 1)]: _Cached(rate, channels, frames, notes[note])
            for row, (rate, channels, frames, note) in enumerate(numbers)
        }
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
        return {}


def _save(file: Path, headers: dict[bytes, _Cached]) -> None:
    """Write the cache. A full or read-only disk is no error: headers are read again next time."""
    keys = np.frombuffer(b"".join(headers), np.uint8)
    notes = sorted({header.note for header in headers.values()})
    numbers = [(header.rate, header.channels, header.frames, notes.index(header.note)) for header in headers.values()]
    with contextlib.suppress(OSError), atomic_write(file) as temporary, temporary.open("wb") as opened:
        np.savez(opened, keys=keys, numbers=np.array(numbers, np.int64), notes=np.array(notes))
