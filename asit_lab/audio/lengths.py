"""Headers whose length cannot be believed: which files have one, and a view of the file that decodes to its end.

libsndfile never reads past the length that a header announces, or that it estimates where there is none. Of the files
below that length is wrong, so they are handed over with other bytes in the header and are read until they end:

- MP3 without a Xing, Info or VBRI frame (cut or streamed), or with one that does not fit the file (two files in one);
- FLAC whose STREAMINFO says "unknown" (0), or another number of samples than its last frame;
- WAV whose data chunk is empty or ends within the audio (a recorder that crashed);
- CAF whose data chunk is longer than the file;
- Ogg with several streams one after the other.
"""

import os
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from .frames import count_frames, end_of_last_frame, first_frame, frame_bytes

MEMBER = "::"  # between a shard and the place of a member in it
TRAILING = 4096  # bytes of tags, padding or junk behind the audio that say nothing about the length
_FIRST = 65536  # bytes looked through for the first frame of an MP3
_TAIL = 1 << 18  # bytes looked through for the last frame of a FLAC
_FLAC_START = b"fLaC\0\0\0\x22"
_FLAC_BEST = 6000  # samples a byte that FLAC's best case, constant blocks of 65,535 samples, stays below
_MP3_FRAME = 1441  # the most bytes of a frame
_MP3_SMALL = 1 << 20  # bytes of an MP3 whose frames are counted
_MP3_ENDLESS = 2000  # times its size that an MP3 is said to have, so that no estimate ends before the file


@dataclass(frozen=True)
class Doubt:
    """Why a header's length is not believed, and how the file is read instead."""

    note: str
    """for the user, after a number of files: "MP3s without a length in their header: read to the end" """
    parts: tuple["Part", ...]


@dataclass(frozen=True)
class Part:
    """A stretch of a file's bytes, some of them replaced, perhaps said to be longer than it is."""

    start: int = 0
    stop: int | None = None
    patches: dict[int, bytes] = field(default_factory=dict, hash=False)
    """place in the file -> bytes put there"""
    claimed: int = 1
    """times its size that the stretch is said to have"""


@dataclass(frozen=True)
class Stored:
    """Where the bytes of an audio file are: a file of its own, or a member of a shard (a tar file)."""

    file: Path
    start: int
    size: int
    changed: int
    """time of change, ns"""

    @classmethod
    def at(cls, path: Path) -> "Stored":
        """Of a path, or of "x.tar::START+SIZE/name.flac". Raises OSError, and ValueError for no such place."""
        tar, mark, member = str(path).partition(MEMBER)
        if not mark:
            state = path.stat()
            return cls(path, 0, state.st_size, state.st_mtime_ns)
        state = os.stat(tar)
        start, size = map(int, member.partition("/")[0].split("+"))
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
        self._base, self._at = stored.start, 0
        self._size = (self._part.stop or stored.size) - self._part.start
        self._claimed = self._size * self._part.claimed

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._claimed)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer) -> int:
        if self._part.claimed > 1 and self._at >= self._claimed - 128:  # an ID3v1 tag is looked for here: there is none
            buffer[:] = bytes(len(buffer))
            return len(buffer)
        place = self._part.start + self._at
        self._file.seek(self._base + place)
        content = bytearray(self._file.read(max(0, min(len(buffer), self._size - self._at))))
        for start, patch in self._part.patches.items():
            for i in range(max(start, place), min(start + len(patch), place + len(content))):
                content[i - place] = patch[i - start]
        buffer[: len(content)] = bytes(content)
        self._at += len(content)
        return len(content)

    def read(self, count: int = -1) -> bytes:
        buffer = bytearray(max(0, self._size - self._at) if count < 0 else count)
        return bytes(buffer[: self.readinto(buffer)])

    def close(self) -> None:
        self._file.close()


@lru_cache(maxsize=100_000)  # training crops one file again and again
def doubt(stored: Stored) -> Doubt | None:
    """Why the length in a file's header is not believed; None where it is. Raises OSError."""
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
    at = 0
    while True:
        file.seek(at)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            return at
        at += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))


# --- FLAC -----------------------------------------------------------------------------------------------------------


def _flac(file: View, start: int, size: int) -> Doubt | None:
    """STREAMINFO, from byte `start` on: block sizes at byte 8 and 10, the largest frame at 15 (3 bytes), total samples
    in the last 4 bits of byte 21 and the 4 after it. The frames begin behind the last metadata block."""
    file.seek(start)
    first, at = file.read(42), start + 4
    if len(first) < 42:
        return None
    last = False
    while not last and at < size:
        file.seek(at)
        head = file.read(4)
        last, at = bool(head[0] & 0x80), at + 4 + int.from_bytes(head[1:], "big")
    total = (first[21] & 0x0F) << 32 | int.from_bytes(first[22:26], "big")
    block, largest = int.from_bytes(first[10:12], "big"), int.from_bytes(first[15:18], "big")
    most = -(-total // block) * largest if block and largest else size  # bytes that the frames can have
    begin = max(at, size - _TAIL)
    file.seek(begin)
    held = end_of_last_frame(file.read(size - begin), block)
    if total == 0 or total > size * _FLAC_BEST:
        note = "FLACs without a length in their header: read to the end"
    elif size - at > most + TRAILING or (held or 0) > total:
        file.seek(at)
        second = file.read(size - at).find(_FLAC_START)
        if second >= 0:
            return Doubt("FLACs of several files in one: all are read", (Part(start, at + second), Part(at + second)))
        note = "FLACs longer than their header says: read to the end"
    elif held is not None and held < total:
        note = "FLACs that end before their header says: read to the end"
    else:
        return None
    return Doubt(note, (Part(start=start, patches={start + 21: bytes([first[21] & 0xF0]) + bytes(4)}),))


# --- WAV ------------------------------------------------------------------------------------------------------------


def _wav(file: View, size: int) -> Doubt | None:
    """An empty data chunk, or one behind which no other chunk begins, reaches to the end of the file."""
    at = 12
    while True:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return None
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            break
        at += 8 + length + length % 2
    rest = size - at - 8
    if rest - length <= TRAILING or _is_chunk(file, at + 8 + length + length % 2, size):
        return None
    note = "WAVs longer than their header says (a recorder that crashed?): read to the end"
    return Doubt(
        note, (Part(patches={4: (size - 8).to_bytes(8, "little")[:4], at + 4: rest.to_bytes(8, "little")[:4]}),)
    )


def _is_chunk(file: View, at: int, size: int) -> bool:
    """Whether a chunk that fits the file begins at byte `at`, or nothing but zeros or a tag."""
    file.seek(at)
    head = file.read(4096)
    if not any(head) or head.startswith((b"ID3", b"TAG")):
        return True
    return head[:4].isascii() and head[:4].decode("ascii").isprintable() and int.from_bytes(head[4:8], "little") <= size


# --- Ogg ------------------------------------------------------------------------------------------------------------


def _ogg(file: View) -> Doubt | None:
    """A first page of a stream after other pages begins another file."""
    file.seek(0)
    pages = file.read()
    starts, at, previous_first = [0], 0, True
    while at + 27 <= len(pages) and pages[at : at + 4] == b"OggS":
        segments = pages[at + 26]
        is_first = bool(pages[at + 5] & 2)
        if is_first and not previous_first:
            starts.append(at)
        previous_first = is_first
        at += 27 + segments + sum(pages[at + 27 : at + 27 + segments])
    if len(starts) == 1:
        return None
    stops = [*starts[1:], len(pages)]
    parts = tuple(Part(start, stop) for start, stop in zip(starts, stops, strict=True))
    return Doubt("Oggs of several streams one after the other: all are read", parts)


# --- CAF ------------------------------------------------------------------------------------------------------------


def _caf(file: View, size: int) -> Doubt | None:
    """Chunks of a type (4 bytes) and a length (8): libsndfile refuses a file with one that is longer than the file."""
    at = 8
    while True:
        file.seek(at)
        head = file.read(12)
        if len(head) < 12:
            return None
        length = int.from_bytes(head[4:], "big", signed=True)
        if head[:4] == b"data" and length > size - at - 12:
            patch = {at + 4: (size - at - 12).to_bytes(8, "big")}
            return Doubt("CAFs that end before their header says: read to the end", (Part(patches=patch),))
        if length < 0:
            return None
        at += 12 + length


# --- MP3 ------------------------------------------------------------------------------------------------------------


def _mp3(file: View, at: int, size: int) -> Doubt | None:
    """The first frame may be no audio but a Xing (or Info) or VBRI tag with the numbers of frames and bytes."""
    file.seek(at)
    head = file.read(_FIRST)
    sync = first_frame(head)
    if sync is None:
        return None  # no layer III: libsndfile decides
    frame = head[sync : sync + 300]
    start = at + sync
    note = "MP3s whose header has no length, or a wrong one: read to the end"
    for name in (b"Xing", b"Info"):
        tag = frame.find(name, 0, 48)
        if tag >= 0:
            flags, frames, length = struct.unpack(">III", frame[tag + 4 : tag + 16].ljust(12, b"\0"))
            held = size - start
            if flags & 3 == 3 and -_MP3_FRAME <= held - length <= max(TRAILING, 0.01 * length):
                if _has_frames(file, start + frame_bytes(frame), size, frames):
                    return None
            elif flags & 3 == 3 and frames and held < length:
                return Doubt("MP3s that end before their header says: read to the end", (Part(at),))
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
    held = count_frames(file.read(size - start))
    return abs(held - frames) <= max(2, 0.01 * frames)
