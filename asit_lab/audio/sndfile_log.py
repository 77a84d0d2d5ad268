"""Finds out from libsndfile's log whether a file ends before its header says."""

import re
from pathlib import Path

import soundfile

from .lengths import Stored

_CHUNK = re.compile(r"(?:data|SSND|BODY|Data Size|^riff)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
_DS64 = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
_SPHERE = re.compile(rb"sample_count -i (\d+)")
_CUT_VOC = "Seems to be a truncated file"
_UNKNOWN_LENGTH = 0x7FFF0000  # bytes: streaming writers, which cannot know the length, put this or more


def note_on_end(file: soundfile.SoundFile, path: Path, stored: Stored) -> str:
    """A note on a file that is shorter than its header says (truncated, or a wrong header) and that
    libsndfile reads silently; "" for others."""
    early = f"{path.suffix.removeprefix('.').upper()}s that end before their header says: read to the end"
    log = file.extra_info
    for pattern, promised_group, actual_group in ((_CHUNK, 1, 2), (_DS64, 2, 1)):
        match = pattern.search(log)
        if match:
            actual, promised = int(match[actual_group]), int(match[promised_group])
            return early if actual < promised < _UNKNOWN_LENGTH else ""
    if file.format == "NIST":
        promised = int(sphere[1]) if (sphere := _SPHERE.search(stored.head(1024))) else 0
        return early if file.frames < promised else ""
    if file.format == "OGG" and _stops_early(stored):
        return "Oggs without an end-of-stream page: read to the last page"
    return early if _CUT_VOC in log else ""


def _stops_early(stored: Stored) -> bool:
    """Whether an Ogg's last page is cut, or does not say that it is the last."""
    tail = stored.tail(1 << 17)  # a page has at most 65,307 bytes
    offset = tail.rfind(b"OggS")
    if offset < 0 or len(tail) < offset + 27:
        return True
    segments = tail[offset + 26]
    is_last = tail[offset + 5] & 4
    return not is_last or len(tail) < offset + 27 + segments + sum(tail[offset + 27 : offset + 27 + segments])
