"""What libsndfile's log says about a file that ends before its header says it should."""

import re
from pathlib import Path

from ..errors import InputError
from .lengths import Stored

_CHUNK = re.compile(r"(?:data|SSND|Data Size|^riff)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
_DS64 = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
_CONTAINER = re.compile(r"(?:RIFF|RIFX|FORM)\s*:\s*\d+(?! \(should be)\s*$", re.MULTILINE)
_UNFINISHED_OGG = "Last page lacks an end-of-stream bit"
_JUNK_IN_OGG = "Ogg: Junk after the last page"
_CUT_VOC = "Seems to be a truncated file"
_FEW = 256  # bytes that may be missing without being worth a refusal, or a hundredth
_UNKNOWN_LENGTH = 0x7FFF0000  # bytes: writers that stream put this or more because they did not know the length
_ABSURD = 100  # times what the file holds: no cut file, a wrong header


def missing_at_end(log: str, path: Path, stored: Stored) -> str:
    """A note on a file that is a little shorter than its header says, or whose header contradicts itself; "" for none.

    Raises InputError for a file that is cut: libsndfile silently takes the length that the file has, so a half-copied
    WAV would pass for a shorter recording.
    """
    for pattern, unit, promised_at, held_at in ((_CHUNK, "bytes", 1, 2), (_DS64, "samples", 2, 1)):
        match = pattern.search(log)
        if not match:
            continue
        promised, held = int(match[promised_at]), int(match[held_at])
        if not held < promised < _UNKNOWN_LENGTH:
            return ""
        if promised - held <= max(_FEW, promised // 100):
            return f"{_kind(path)} a little shorter than their header says"
        if _CONTAINER.search(log) or promised > _ABSURD * max(held, 1):
            return f"{_kind(path)} shorter than a part of their header says: read to the end"
        raise InputError(f"{path}: truncated: the header promises {promised} {unit} of audio, the file has {held}")
    if _CUT_VOC in log:
        raise InputError(f"{path}: truncated: the header promises more than the file has")
    unfinished = _UNFINISHED_OGG in log
    if (unfinished or _JUNK_IN_OGG in log) and _last_page_is_cut(stored):
        raise InputError(f"{path}: truncated: the Ogg stream stops within a page")
    return "Oggs that were stopped without an end: read to the last page" if unfinished else ""


def _kind(path: Path) -> str:
    return f"{path.suffix.removeprefix('.').upper()}s"


def _last_page_is_cut(stored: Stored) -> bool:
    end = stored.tail(1 << 17)  # a page has at most 65,307 bytes
    at = end.rfind(b"OggS")
    if at < 0:
        return False
    if len(end) < at + 27:
        return True
    segments = end[at + 26]
    return len(end) < at + 27 + segments + sum(end[at + 27 : at + 27 + segments])
