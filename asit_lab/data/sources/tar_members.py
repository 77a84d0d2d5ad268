"""Reads what is left of a tar file that may be cut or damaged."""

import mmap
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_BLOCK = 512  # bytes: headers begin at multiples of it
_MAGIC, _MAGIC_AT = b"ustar", 257  # of headers since 1988, and where in them
CUT, DAMAGED = "cut", "damaged"


def read_members(path: Path, damage: Counter[str]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """(archive, member) of every member whose header is right and whose bytes are all there.

    `tarfile` ends silently at a damaged header; here reading resumes at the next good one. damage: counts places that
    are DAMAGED, and whether the file is CUT. Raises OSError.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start: int | None = 0
        while start is not None and start < size:
            file.seek(start)
            stop = start
            try:
                with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as archive:
                    while (member := archive.next()) is not None:
                        stop = archive.offset
                        if member.offset_data + member.size <= size:
                            yield archive, member
                    stop = archive.offset
            except (tarfile.TarError, ValueError, OverflowError):
                pass
            file.seek(min(stop, size))
            block = file.read(_BLOCK)
            start = _next_header(file, stop, size)
            if len(block) == _BLOCK and not any(block):  # the mark of the end; another archive may be joined to it
                continue
            damage[CUT if start is None and stop + _BLOCK > size else DAMAGED] += 1


def _next_header(file: BinaryIO, start: int, size: int) -> int | None:
    """The place of the first good header behind `start`."""
    if start + _BLOCK >= size:
        return None
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = start + _MAGIC_AT
        while (place := content.find(_MAGIC, place + 1)) >= 0:
            header = place - _MAGIC_AT
            if header % _BLOCK == 0 and _is_header(content[header : header + _BLOCK]):
                return header
    return None


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")  # checks its checksum
    except tarfile.HeaderError:
        return False
    return True
