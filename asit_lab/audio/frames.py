"""Parses frame headers of FLAC and MP3: where a frame begins, how long it is, which samples it holds."""

# --- FLAC -----------------------------------------------------------------------------------------------------------


def end_of_last_frame(content: bytes, block: int) -> int | None:
    """Samples of a FLAC up to the end of the last frame, complete or not, that begins in `content`; None if none does.

    block: samples of every frame but the last, as STREAMINFO says.
    A frame's header: sync code; sizes of block and rate (4 bits each); channels and depth; number of the frame, or of
    its first sample, in UTF-8's manner; block size and rate where they are none of the usual; CRC-8.
    """
    offset = len(content)
    while (offset := content.rfind(b"\xff", 0, offset)) >= 0:
        head = content[offset : offset + 16]
        if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1:
            continue
        kind, number_bytes = head[2] >> 4, 8 - (head[4] ^ 0xFF).bit_length()  # one leading 1 bit for each byte
        length = 4 + max(1, number_bytes)
        sizes = {6: 1, 7: 2}.get(kind, 0)
        end = length + sizes + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
        if kind == 0 or number_bytes == 1 or number_bytes > 7 or len(head) <= end or _crc8(head[:end]) != head[end]:
            continue
        number = head[4] & (0x7F >> number_bytes)
        for byte in head[5:length]:
            number = number << 6 | byte & 0x3F
        samples = 1 + int.from_bytes(head[length : length + sizes], "big") if sizes else _usual_block(kind)
        return number + samples if head[1] & 1 else number * block + samples
    return None


def _usual_block(kind: int) -> int:
    """Samples in a frame, from the 4 bits of its header that encode common sizes."""
    if kind == 1:
        return 192
    return 576 << kind - 2 if kind < 6 else 256 << kind - 8


def _crc8(content: bytes) -> int:
    crc = 0
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 7 if crc & 0x80 else crc << 1) & 0xFF
    return crc


# --- MP3 ------------------------------------------------------------------------------------------------------------


def first_frame(content: bytes) -> int | None:
    """Offset of the first layer III frame, None if there is none. Three consecutive frames of one version and rate are
    required (at the very beginning as many as there are), so that bytes that look like a frame by chance are
    skipped."""
    offset = -1
    while (offset := content.find(b"\xff", offset + 1)) >= 0:
        if _is_frame(content, offset):
            return offset
    return None


def _is_frame(content: bytes, offset: int) -> bool:
    kind, begin = None, offset
    for _ in range(3):
        head = content[offset : offset + 4]
        if len(head) < 4:
            return begin == 0 and kind is not None
        length = frame_bytes(head)
        if head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or not length or kind not in (None, (head[1], head[2] & 12)):
            return False
        kind, offset = (head[1], head[2] & 12), offset + length
    return True


def count_frames(content: bytes) -> int:
    """How many layer III frames follow one another from the beginning of `content`."""
    offset = count = 0
    while offset + 4 <= len(content) and content[offset] == 0xFF and content[offset + 1] & 0xE6 == 0xE2:
        length = frame_bytes(content[offset : offset + 4])
        if not length:
            break
        offset, count = offset + length, count + 1
    return count


def frame_bytes(frame: bytes) -> int:
    """Bytes of a layer III frame from its header; 0 if the header is invalid or in free format."""
    version, rate_index, padding = frame[1] >> 3 & 3, frame[2] >> 2 & 3, frame[2] >> 1 & 1
    kbit = ((0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0) if version == 3 else
            (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0))[frame[2] >> 4]  # fmt: skip
    if rate_index == 3 or not kbit or version == 1:
        return 0
    rate = (44100, 48000, 32000)[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    return (144 if version == 3 else 72) * 1000 * kbit // rate + padding
