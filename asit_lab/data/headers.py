"""Headers of audio files, remembered for big data sets: two million take ten minutes to read, and never change."""

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
from ..config import resolve
from ..errors import InputError
from ..storage.atomic import whole
from .sources import synth

FEWEST = 5000  # files from which on headers are remembered; below, reading them takes seconds
_THREADS = 8  # headers are small reads: the time goes into waiting for the disk or the network
_CHUNK = 200  # files a thread is given at a time
_KEY = 16  # bytes


def read_headers(paths: list[str]) -> dict[str, AudioInfo | str]:
    """{path: its header, or why it cannot be used}, read in threads.

    Of many files, headers are kept in data/headers/*.npz and believed as long as path, size and time of change are
    the same. Whatever is wrong with such a file or its folder, the headers are simply read again.
    """
    if len(paths) < FEWEST:
        return dict(zip(paths, _in_threads(_header, paths), strict=True))
    place = blake2b(os.fsencode(os.path.commonpath(paths)), digest_size=8).hexdigest()
    file = resolve("data/headers") / f"{place}.npz"
    known = _load(file)
    keys = dict(zip(paths, _in_threads(_key, paths), strict=True))
    new = [path for path in paths if keys[path] not in known]
    read = dict(zip(new, _in_threads(_header, new), strict=True))
    good = {keys[path]: header for path, header in read.items() if keys[path] and isinstance(header, AudioInfo)}
    if good:
        _save(file, known | {key: _Kept.of(header) for key, header in good.items()})
    return {path: read[path] if path in read else known[keys[path]].restored(path) for path in paths}


class _Kept(NamedTuple):
    """What is kept of a header."""

    rate: int
    channels: int
    frames: int
    note: str

    @classmethod
    def of(cls, header: AudioInfo) -> "_Kept":
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
        return synth.header(path) if path.startswith(synth.PREFIX) else info(path)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")


def _key(path: str) -> bytes:
    """What a file is known by; empty for one that is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return b""
    return blake2b(os.fsencode(f"{path}\0{found.st_size}\0{found.st_mtime_ns}"), digest_size=_KEY).digest()


def _load(file: Path) -> dict[bytes, _Kept]:
    try:
        with np.load(file) as kept:
            keys, numbers, notes = kept["keys"].tobytes(), kept["numbers"].tolist(), kept["notes"].tolist()
        return {
            keys[_KEY * row : _KEY * (row + 1)]: _Kept(rate, channels, frames, notes[note])
            for row, (rate, channels, frames, note) in enumerate(numbers)
        }
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
        return {}


def _save(file: Path, known: dict[bytes, _Kept]) -> None:
    """A disk that is full or cannot be written is no obstacle: the headers are read again next time."""
    keys = np.frombuffer(b"".join(known), np.uint8)
    notes = sorted({header.note for header in known.values()})
    numbers = [(header.rate, header.channels, header.frames, notes.index(header.note)) for header in known.values()]
    with contextlib.suppress(OSError), whole(file) as temporary, temporary.open("wb") as opened:
        np.savez(opened, keys=keys, numbers=np.array(numbers, np.int64), notes=np.array(notes))
