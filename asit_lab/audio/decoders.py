"""Opens an audio file with the decoder that can read it and yields its samples as mono blocks."""

import errno
import math
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile

from ..errors import InputError
from ..paths import path_text
from .containers import CONTAINER_SUFFIXES, ContainerDecoder, is_container
from .lengths import Stored, View, doubt, shard_member
from .sndfile_log import note_on_end

_BLOCK = 1 << 20  # frames and channels decoded at a time
_SMALL = 1024  # frames decoded at a time where the file turns out to be damaged


class Decoder(Protocol):
    """An open audio file."""

    sample_rate: int
    """Hz"""
    channels: int
    frames: int | None
    """samples a channel; None if they are only known after decoding"""
    exact: bool
    """whether fewer than `frames` samples mean that the file is truncated"""
    note: str
    """a note for the user that follows a number of files ("MP3s without ..."); may be empty"""

    def blocks(self, begin: int, size: float = math.inf) -> Iterator[np.ndarray]:
        """Mono float32 [samples], one after the other, from sample `begin` to the end; `size`: the most samples of a
        block."""
        ...

    def close(self) -> None: ...


def open_decoder(path: str | Path) -> Decoder:
    """Raises InputError naming file and reason: missing, a folder, empty, not audio, cut."""
    path = Path(path_text(path))
    try:
        if shard_member(path):
            return _open_member(path)
        state = os.stat(path)
        if stat.S_ISDIR(state.st_mode):
            raise InputError(f"{path}: a folder, not an audio file")
        if not stat.S_ISREG(state.st_mode):
            raise InputError(f"{path}: not a file (a device, pipe or socket)")
        if state.st_size == 0:
            raise InputError(f"{path}: zero length (the file has 0 bytes)")
        return _open_stored(path, Stored(path, 0, state.st_size, state.st_mtime_ns))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            raise InputError(f"{path}: no such file") from None
        raise InputError(f"{path}: cannot be opened: {error.strerror or error}") from None


def _open_member(path: Path) -> Decoder:
    """A file inside a shard."""
    try:
        stored = Stored.of_path(path)
    except ValueError as error:
        raise InputError(f"{path}: no such member of a shard ({error})") from None
    return _open_stored(path, stored)


def _open_stored(path: Path, stored: Stored) -> Decoder:
    """Choose the decoder by name and first bytes (an M4A may be called .mp3). FFmpeg reads some files that libsndfile
    refuses (other codecs in WAV and Ogg)."""
    if path.suffix.lower() in CONTAINER_SUFFIXES or is_container(stored):
        return ContainerDecoder(path, stored)
    try:
        return SndfileDecoder(path, stored)
    except InputError as error:
        if View(stored).read(4) in (b"RIFF", b"OggS"):
            with suppress(InputError):
                return ContainerDecoder(path, stored)
        raise error


class _Forward(soundfile.SoundFile):
    """A SoundFile that never seeks by itself. soundfile seeks to the current position after each block, which fails at
    the end of a file that is shorter than its header says."""

    def seekable(self) -> bool:
        return False


class SndfileDecoder:
    """A file that libsndfile reads."""

    def __init__(self, path: Path, stored: Stored):
        self.path, self.note, self.exact = path, "", True
        self._stored, self._doubt = stored, doubt(stored)
        self._file = self._open(0)
        self.sample_rate, self.channels = self._file.samplerate, self._file.channels
        self.frames: int | None = self._file.frames
        if self._doubt:
            self.note, self.frames, self.exact = self._doubt.note, None, False
        else:
            self.note = note_on_end(self._file, self.path, self._stored)

    def _open(self, part: int) -> _Forward:
        """The whole file, or one of the parts it is read in. Raises InputError."""
        self._view = None
        if self._doubt:
            self._view = View(self._stored, self._doubt.parts[part])
        elif self._stored.file != self.path:
            self._view = View(self._stored)
        try:
            return _Forward(self._view or os.fsencode(self.path))
        except (soundfile.SoundFileError, TypeError, ValueError) as error:
            self._close_view()
            words = _reason(error)
            raise InputError(f"{self.path}: not audio that libsndfile reads, or corrupt ({words})") from None

    def blocks(self, begin: int, size: float = math.inf) -> Iterator[np.ndarray]:
        parts = len(self._doubt.parts) if self._doubt else 1
        for part in range(parts):
            if part:
                self.close()
                try:
                    self._file = self._open(part)
                except InputError:  # what follows the first stream need not be audio
                    return
                if self._file.samplerate != self.sample_rate:
                    return
            yield from self._part_blocks(begin, size)
            begin = max(0, begin - self._skipped)

    def _part_blocks(self, begin: int, size: float) -> Iterator[np.ndarray]:
        """Blocks of the open part; sets `_skipped`, the samples that it has before `begin`."""
        self._skipped, position = begin, begin
        if begin and not self._seek(begin):
            self._skipped = position = self._read_over(begin)
            if position < begin:
                return
        size = int(max(1, min(size, _BLOCK // self._file.channels)))
        while True:
            remaining = size if self.frames is None else self.frames - position  # bytes behind the end may not be audio
            if remaining <= 0:
                return
            try:
                block = self._file.read(min(size, remaining), dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, RuntimeError) as error:
                if size <= _SMALL:
                    if position == begin:
                        words = _reason(error)
                        raise InputError(f"{self.path}: corrupt or truncated: {words}") from None
                    return
                size = _SMALL  # the block takes intact samples before the damage with it: try again in small blocks
                self._reopen(position)
                continue
            if not len(block):
                return
            position += len(block)
            yield block.mean(axis=1, dtype=np.float32) if block.shape[1] > 1 else block[:, 0]

    def _seek(self, frame: int) -> bool:
        """Seek to a frame; False if that fails. Files of doubtful length cannot be trusted to seek."""
        if self._doubt:
            return False
        try:
            return self._file.seek(frame) == frame
        except (soundfile.SoundFileError, RuntimeError):  # GSM, G.72x, damaged files
            self._reopen(0)
            return False

    def _reopen(self, frame: int) -> None:
        self.close()
        self._file = self._open(0)
        if frame:
            self._read_over(frame)

    def _read_over(self, frames: int) -> int:
        """Decode and drop samples; returns how many there were."""
        position = 0
        while position < frames:
            try:
                block = self._file.read(
                    min(frames - position, _BLOCK // self._file.channels), dtype="float32", always_2d=True
                )
            except (soundfile.SoundFileError, RuntimeError):
                return position
            if not len(block):
                return position
            position += len(block)
        return position

    def close(self) -> None:
        self._file.close()
        self._close_view()

    def _close_view(self) -> None:
        if self._view:
            self._view.close()


def _reason(error: Exception) -> str:
    """libsndfile's message without the path, which ours already names."""
    words = (getattr(error, "error_string", "") or str(error)).removeprefix("Error : ").strip().rstrip(".")
    return words or "no reason given"
