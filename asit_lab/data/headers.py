"""Headers of audio files, remembered for big data sets: two million take ten minutes to read, and never change."""

import contextlib
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ..audio import AudioInfo, info
from ..config import resolve
from ..errors import InputError
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
    file = resolve("data/headers") / f"{blake2b(os.path.commonpath(paths).encode(), digest_size=8).hexdigest()}.npz"
    known = _load(file)
    keys = dict(zip(paths, _in_threads(_key, paths), strict=True))
    new = [path for path in paths if keys[path] not in known]
    read = dict(zip(new, _in_threads(_header, new), strict=True))
    good = {keys[path]: header for path, header in read.items() if keys[path] and isinstance(header, AudioInfo)}
    if good:
        numbers = {key: (header.sample_rate, header.channels, header.frames) for key, header in good.items()}
        _save(file, known | numbers)
    return {path: read[path] if path in read else _restored(path, *known[keys[path]]) for path in paths}


def _restored(path: str, rate: int, channels: int, frames: int) -> AudioInfo:
    return AudioInfo(path, frames / rate, rate, channels, frames)


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
    return blake2b(f"{path}\0{found.st_size}\0{found.st_mtime_ns}".encode(), digest_size=_KEY).digest()


def _load(file: Path) -> dict[bytes, tuple[int, int, int]]:
    try:
        with np.load(file) as kept:
            keys, numbers = kept["keys"].tobytes(), kept["numbers"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    return {keys[_KEY * row : _KEY * (row + 1)]: tuple(three) for row, three in enumerate(numbers)}


def _save(file: Path, known: dict[bytes, tuple[int, int, int]]) -> None:
    """Write it whole or not at all; several processes may."""
    fresh = file.with_name(f"{file.stem}-{os.getpid()}.npz")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        keys = np.frombuffer(b"".join(known), np.uint8)
        np.savez(fresh, keys=keys, numbers=np.array(list(known.values()), np.int64))
        os.replace(fresh, file)
    except OSError:  # a full or read-only disk: they are read again next time
        with contextlib.suppress(OSError):
            fresh.unlink()
