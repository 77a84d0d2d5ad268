"""What libsndfile's log says about a file that ends before its header says it should."""

import re
from pathlib import Path

import soundfile

from .lengths import Stored

_CHUNK = re.compile(r"(?:data|SSND|BODY|Data Size|^riff)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
_DS64 = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
_SPHERE = re.compile(rb"sample_count -i (\d+)")
_CUT_VOC = "Seems to be a truncated file"
_UNKNOWN_LENGTH = 0x7FFF0000  # bytes: writers that stream put this or more because they did not know the length


def note_on_end(file: soundfile.SoundFile, path: Path, stored: Stored) -> str:
    """A note on a file that is shorter than its header says, cut or with a wrong header, of which libsndfile silently
    takes what is there; "" for none."""
    early = f"{path.suffix.removeprefix('.').upper()}s that end before their header says: read to the end"
    log = file.extra_info
    for pattern, promised_at, held_at in ((_CHUNK, 1, 2), (_DS64, 2, 1)):
        match = pattern.search(log)
        if match:
            held, promised = int(match[held_at]), int(match[promised_at])
            return early if held < promised < _UNKNOWN_LENGTH else ""
    if file.format == "NIST":
        promised = int(found[1]) if (found := _SPHERE.search(stored.head(1024))) else 0
        return early if file.frames < promised else ""
    if file.format == "OGG" and _stops_early(stored):
        return "Oggs that were stopped without an end: read to the last page"
    return early if _CUT_VOC in log else ""


def _stops_early(stored: Stored) -> bool:
    """Whether an Ogg's last page is cut, or does not say that it is the last."""
    end = stored.tail(1 << 17)  # a page has at most 65,307 bytes
    at = end.rfind(b"OggS")
    if at < 0 or len(end) < at + 27:
        return True
    segments = end[at + 26]
    is_last = end[at + 5] & 4
    return not is_last or len(end) < at + 27 + segments + sum(end[at + 27 : at + 27 + segments])
