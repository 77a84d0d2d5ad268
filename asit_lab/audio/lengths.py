"""Detects files whose header states a wrong length, and presents them to libsndfile so that they decode to their end.

libsndfile never reads past the length that a header states, or that it estimates where the header has none. For the
files below that length is wrong, so they are passed on with a patched header and read until they end:

- MP3 without a Xing, Info or VBRI frame (cut or streamed), or with one that does not fit the file (two files in one);
- FLAC whose STREAMINFO says "unknown" (0), or another number of samples than its last frame;
- WAV whose data chunk is empty or ends within the audio (a recorder that crashed);
- CAF whose data chunk is longer than the file;
- Ogg with several streams one after the other.
"""

import os
import re
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal

from .frames import count_frames, end_of_last_frame, first_frame, frame_bytes

_MEMBER = re.compile(r"(.*\.tar)::(\d+)\+(\d+)/", re.IGNORECASE | re.DOTALL)
MEMBER = "::"  # between a shard and the place of a member in it
TRAILING = 4096  # bytes of tags, padding or junk behind the audio that say nothing about the length
_FIRST = 65536  # bytes looked through for the first frame of an MP3
_TAIL = 1 << 18  # bytes looked through for the last frame of a FLAC
_FLAC_START = b"fLaC\0\0\0\x22"
_FLAC_BEST = 6000  # samples a byte that FLAC's best case, constant blocks of 65,535 samples, stays below
_MP3_FRAME = 1441  # the most bytes of a frame
_MP3_SMALL = 1 << 20  # bytes of an MP3 whose frames are counted
_MP3_ENDLESS = 2000  # factor by which the size of an MP3 is overstated, so that no estimate of its length is too short


def shard_member(path: str | Path) -> tuple[str, int, int] | None:
    """(shard, first byte, bytes) of a path such as "x.tar::START+SIZE/name.flac"; None for a file of its own, which may
    have "::" in its name."""
    match = _MEMBER.match(os.fspath(path))
    return (match[1], int(match[2]), int(match[3])) if match else None


@dataclass(frozen=True)
class Doubt:
    """Why the length in a header is not trusted, and how the file is read instead."""

    note: str
    """for the user, after a number of files: "MP3s without a length in their header: read to the end" """
    parts: tuple["Part", ...]


@dataclass(frozen=True)
class Part:
    """A range of a file's bytes, some of them replaced; its size may be overstated."""

    start: int = 0
    stop: int | None = None
    patches: dict[int, bytes] = field(default_factory=dict, hash=False)
    """place in the file -> bytes put there"""
    claimed: int = 1
    """factor by which the size is overstated"""


@dataclass(frozen=True)
class Stored:
    """Where the bytes of an audio file are: a file of its own, or a member of a shard (a tar file)."""

    file: Path
    start: int
    size: int
    changed: int
    """time of change, ns"""

    @classmethod
    def of_path(cls, path: Path) -> "Stored":
        """From a path, or from "x.tar::START+SIZE/name.flac". Raises OSError, and ValueError for a place outside the
        file."""
        member = shard_member(path)
        if member is None:
            state = path.stat()
            return cls(path, 0, state.st_size, state.st_mtime_ns)
        tar, start, size = member
        state = os.stat(tar)
        if start + size > state.st_size:
            raise ValueError(f"{tar} ends before it")
        return cls(Path(tar), start, size, state.st_mtime_ns)

    def head(self, count: int) -> bytes:
        """The first bytes."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(min(count, self.size))

    def tail(self, count: int) -> bytes:
        """The last bytes."""
        with self.file.open("rb") as file:
            file.seek(self.start + max(0, self.size - count))
            return file.read(min(count, self.size))


class View:
    """A Part of stored bytes as a file object for libsndfile (readinto, seek, tell)."""

    def __init__(self, stored: Stored, part: Part | None = None):
        self._part = part or Part()
        self._file: BinaryIO = stored.file.open("rb")
        self._base, self._position = stored.start, 0
        self._size = (self._part.stop or stored.size) - self._part.start
        self._claimed = self._size * self._part.claimed

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._claimed)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer) -> int:
        if (
            self._part.claimed > 1 and self._position >= self._claimed - 128
        ):  # libsndfile looks for an ID3v1 tag here: there is none
            buffer[:] = bytes(len(buffer))
            return len(buffer)
        place = self._part.start + self._position
        self._file.seek(self._base + place)
        content: bytes | bytearray = self._file.read(max(0, min(len(buffer), self._size - self._position)))
        if self._part.patches:
            content = bytearray(content)
            for start, patch in self._part.patches.items():
                for i in range(max(start, place), min(start + len(patch), place + len(content))):
                    content[i - place] = patch[i - start]
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def read(self, count: int = -1) -> bytes:
        remaining = max(0, self._size - self._position)
        if self._part.patches or self._part.claimed > 1:
            buffer = bytearray(remaining if count < 0 else count)
            return bytes(buffer[: self.readinto(buffer)])
        self._file.seek(self._base + self._part.start + self._position)
        content = self._file.read(remaining if count < 0 else min(count, remaining))
        self._position += len(content)
        return content

    def close(self) -> None:
        self._file.close()


@lru_cache(maxsize=100_000)  # training crops one file again and again
def doubt(stored: Stored) -> Doubt | None:
    """Why the length in a file's header is not trusted; None where it is. Raises OSError."""
    file, size = View(stored), stored.size
    try:
        start = _behind_id3(file)
        file.seek(start)
        first = file.read(12)
        if first[:4] == b"fLaC":
            return _flac(file, start, size)
        if first[:4] == b"RIFF" and first[8:] == b"WAVE":
            return _wav(file, size) if start == 0 else None
        if first[:4] == b"OggS":
            return _ogg(file) if start == 0 else None
        if first[:4] == b"caff":
            return _caf(file, size)
        return _mp3(file, start, size)
    finally:
        file.close()


def _behind_id3(file: View) -> int:
    """Where the content begins: behind ID3v2 tags, whose length has 7 bits a byte."""
    offset = 0
    while True:
        file.seek(offset)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            return offset
        offset += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))


# --- FLAC -----------------------------------------------------------------------------------------------------------


def _flac(file: View, start: int, size: int) -> Doubt | None:
    """STREAMINFO, from byte `start` on: block sizes at byte 8 and 10, the largest frame at 15 (3 bytes), total samples
    in the last 4 bits of byte 21 and the 4 after it. The frames begin behind the last metadata block."""
    file.seek(start)
    first, offset = file.read(42), start + 4
    if len(first) < 42:
        return None
    last = False
    while not last and offset < size:
        file.seek(offset)
        head = file.read(4)
        last, offset = bool(head[0] & 0x80), offset + 4 + int.from_bytes(head[1:], "big")
    total = (first[21] & 0x0F) << 32 | int.from_bytes(first[22:26], "big")
    block, largest = int.from_bytes(first[10:12], "big"), int.from_bytes(first[15:18], "big")
    most = -(-total // block) * largest if block and largest else size  # bytes that the frames can have
    begin = max(offset, size - _TAIL)
    file.seek(begin)
    last_sample = end_of_last_frame(file.read(size - begin), block)
    if total == 0 or total > size * _FLAC_BEST:
        note = "FLACs without a length in their header: read to the end"
    elif size - offset > most + TRAILING or (last_sample or 0) > total:
        file.seek(offset)
        second = file.read(size - offset).find(_FLAC_START)
        if second >= 0:
            return Doubt(
                "FLACs of several files in one: all are read", (Part(start, offset + second), Part(offset + second))
            )
        note = "FLACs longer than their header says: read to the end"
    elif last_sample is not None and last_sample < total:
        note = "FLACs that end before their header says: read to the end"
    else:
        return None
    return Doubt(note, (Part(start=start, patches={start + 21: bytes([first[21] & 0xF0]) + bytes(4)}),))


# --- WAV and CAF ----------------------------------------------------------------------------------------------------


def _data_chunk(file: View, offset: int, length_bytes: int, order: Literal["little", "big"]) -> tuple[int, int] | None:
    """Where the content of the first data chunk from byte `offset` on begins, and the length that its header says.

    A chunk: type (4 bytes), length, content. RIFF's lengths are little-endian and padded to even; CAF's are big-endian
    and signed.
    """
    while True:
        file.seek(offset)
        head = file.read(4 + length_bytes)
        if len(head) < 4 + length_bytes:
            return None
        offset += len(head)
        length = int.from_bytes(head[4:], order, signed=order == "big")
        if head[:4] == b"data":
            return offset, length
        if length < 0:
            return None
        offset += length + (length % 2 if order == "little" else 0)


def _wav(file: View, size: int) -> Doubt | None:
    """An empty data chunk, or one behind which no other chunk begins, reaches to the end of the file."""
    chunk = _data_chunk(file, 12, 4, "little")
    if chunk is None:
        return None
    begin, length = chunk
    available = size - begin
    if available - length <= TRAILING or _is_chunk(file, begin + length + length % 2, size):
        return None
    note = "WAVs longer than their header says (a recorder that crashed?): read to the end"
    patches = {4: (size - 8).to_bytes(8, "little")[:4], begin - 4: available.to_bytes(8, "little")[:4]}
    return Doubt(note, (Part(patches=patches),))


def _caf(file: View, size: int) -> Doubt | None:
    """libsndfile refuses a file whose data chunk is longer than the file."""
    chunk = _data_chunk(file, 8, 8, "big")
    if chunk is None or chunk[1] <= size - chunk[0]:
        return None
    patch = {chunk[0] - 8: (size - chunk[0]).to_bytes(8, "big")}
    return Doubt("CAFs that end before their header says: read to the end", (Part(patches=patch),))


def _is_chunk(file: View, offset: int, size: int) -> bool:
    """Whether a chunk that fits the file begins at byte `offset`, or nothing but zeros or a tag."""
    file.seek(offset)
    head = file.read(4096)
    if not any(head) or head.startswith((b"ID3", b"TAG")):
        return True
    return head[:4].isascii() and head[:4].decode("ascii").isprintable() and int.from_bytes(head[4:8], "little") <= size


# --- Ogg ------------------------------------------------------------------------------------------------------------


def _ogg(file: View) -> Doubt | None:
    """A first page of a stream after other pages begins another file."""
    file.seek(0)
    pages = file.read()
    starts, offset, previous_first = [0], 0, True
    while offset + 27 <= len(pages) and pages[offset : offset + 4] == b"OggS":
        segments = pages[offset + 26]
        is_first = bool(pages[offset + 5] & 2)
        if is_first and not previous_first:
            starts.append(offset)
        previous_first = is_first
        offset += 27 + segments + sum(pages[offset + 27 : offset + 27 + segments])
    if len(starts) == 1:
        return None
    stops = [*starts[1:], len(pages)]
    parts = tuple(Part(start, stop) for start, stop in zip(starts, stops, strict=True))
    return Doubt("Oggs of several streams one after the other: all are read", parts)


# --- MP3 ------------------------------------------------------------------------------------------------------------


def _mp3(file: View, begin: int, size: int) -> Doubt | None:
    """The first frame may be no audio but a Xing (or Info) or VBRI tag with the numbers of frames and bytes."""
    file.seek(begin)
    head = file.read(_FIRST)
    sync = first_frame(head)
    if sync is None:
        return None  # no layer III: libsndfile decides
    frame = head[sync : sync + 300]
    start = begin + sync
    note = "MP3s whose header has no length, or a wrong one: read to the end"
    for name in (b"Xing", b"Info"):
        tag = frame.find(name, 0, 48)
        if tag >= 0:
            flags, frames, length = struct.unpack(">III", frame[tag + 4 : tag + 16].ljust(12, b"\0"))
            audio_bytes = size - start
            if flags & 3 == 3 and -_MP3_FRAME <= audio_bytes - length <= max(TRAILING, 0.01 * length):
                if _has_frames(file, start + frame_bytes(frame), size, frames):
                    return None
            elif flags & 3 == 3 and frames and audio_bytes < length:
                return Doubt("MP3s that end before their header says: read to the end", (Part(begin),))
            start += frame_bytes(frame)
            break
    else:
        if frame[36:40] == b"VBRI" and abs(size - start - int.from_bytes(frame[46:50], "big")) <= TRAILING:
            return None
    return Doubt(note, (Part(start=start, claimed=_MP3_ENDLESS),))


def _has_frames(file: View, start: int, size: int, frames: int) -> bool:
    """Whether the bytes can hold as many frames as a header says; of small files, whether they do."""
    if not size / (_MP3_FRAME * 2) < frames + 1 < size / 20:
        return False
    if size - start > _MP3_SMALL:
        return True
    file.seek(start)
    counted = count_frames(file.read(size - start))
    return abs(counted - frames) <= max(2, 0.01 * frames)
