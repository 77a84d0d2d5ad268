"""Files as people have them, made on the spot: lying headers, cut containers, odd rates, channels and samples."""

import functools
import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

SECONDS = 5.0


@functools.cache
def tone(seconds: float = SECONDS, rate: int = 16000, hertz: float = 440.0, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(len(noise)) / rate) + 0.01 * noise
    wave = wave.astype(np.float32)
    wave.flags.writeable = False  # shared by all callers
    return wave


def encoded(format: str, wave: np.ndarray | None = None, rate: int = 16000, **how) -> bytes:
    """A sound as the bytes of a file."""
    if wave is None:
        return encoded_tone(format, SECONDS, rate, **how)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=format, **how)
    return buffer.getvalue()


@functools.cache
def encoded_tone(format: str, seconds: float = SECONDS, rate: int = 16000, **how) -> bytes:
    return encoded(format, tone(seconds, rate), rate, **how)


def patched(content: bytes, changes: dict[int, bytes]) -> bytes:
    changed = bytearray(content)
    for place, new in changes.items():
        changed[place : place + len(new)] = new
    return bytes(changed)


def wav_with(data: int, riff: int | None = None, wave: np.ndarray | None = None) -> bytes:
    """A WAV whose header states other lengths (bytes) of data and, where given, of the whole."""
    changes = {40: struct.pack("<I", data)} | ({} if riff is None else {4: struct.pack("<I", riff)})
    return patched(encoded("WAV", wave), changes)


def flac_with(total: int) -> bytes:
    """A FLAC whose STREAMINFO states another number of samples."""
    content = encoded("FLAC")
    return patched(content, {21: bytes([content[21] & 0xF0 | total >> 32]), 22: struct.pack(">I", total & 0xFFFFFFFF)})


def mp3_with_xing(frames: int | None = None, flags: int | None = None) -> bytes:
    """A VBR MP3 whose Xing frame states another number of frames, or has other flags."""
    content = encoded("MP3", rate=44100, bitrate_mode="VARIABLE", compression_level=0.5)
    at = content.index(b"Xing")
    changes = {} if frames is None else {at + 8: struct.pack(">I", frames)}
    return patched(content, changes | ({} if flags is None else {at + 4: struct.pack(">I", flags)}))


def mp3_without_xing(quiet_start: bool = False) -> bytes:
    """A VBR MP3, half of it silent, without the frame that states its length."""
    sound, silence = tone(SECONDS, 44100), np.zeros(round(SECONDS * 44100), np.float32)
    wave = np.concatenate([silence, sound] if quiet_start else [sound, silence])
    content = encoded("MP3", wave, 44100, subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=0.3)
    kbit = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[content[2] >> 4]
    return content[144 * kbit * 1000 // 44100 + (content[2] >> 1 & 1) :]


def readable() -> dict[str, tuple[bytes, float]]:
    """{name: (content, seconds of sound)} of files that are odd and good."""
    picture = b"ID3\x03\0\0" + bytes((0, 6, 0, 0)) + bytes(6 << 14)
    wav, other = encoded("WAV"), encoded("OGG", tone(3.0, seed=1))
    files = {
        "data_size_0.wav": (wav_with(0), SECONDS),
        "both_sizes_0.wav": (wav_with(0, 0), SECONDS),
        "streamed.wav": (wav_with(0xFFFFFFFF, 0xFFFFFFFF), SECONDS),
        "sox_pipe.wav": (wav_with(0x7FFFF000, 0x7FFFF024), SECONDS),
        "data_size_too_small.wav": (wav_with(32000), SECONDS),
        "data_size_too_large.wav": (wav_with(480000), SECONDS),
        "data_size_a_little_too_large.wav": (wav_with(160036), SECONDS),
        "sizes_absurd.wav": (wav_with(160_000_000, 160_000_036), SECONDS),
        "last_bytes_missing.wav": (wav[:-7], SECONDS),
        "zeros_behind.wav": (wav + bytes(100_000), SECONDS),
        "id3_behind.wav": (wav + b"ID3\x04" + bytes(6000), SECONDS),
        "total_0.flac": (flac_with(0), SECONDS),
        "total_absurd.flac": (flac_with((1 << 36) - 1), SECONDS),
        "total_too_small.flac": (flac_with(1000), SECONDS),
        "total_half.flac": (flac_with(40000), SECONDS),
        "total_a_little_too_large.flac": (flac_with(90000), SECONDS),
        "total_double.flac": (flac_with(160000), SECONDS),
        "total_too_small_without_sizes.flac": (patched(flac_with(40000), {12: bytes(6)}), SECONDS),
        "two_in.flac": (2 * encoded("FLAC"), 2 * SECONDS),
        "id3v1_behind.flac": (encoded("FLAC") + b"TAG" + bytes(125), SECONDS),
        "two_in.ogg": (encoded("OGG") + other, SECONDS + 3.0),
        "the_same_twice.ogg": (other + other, 6.0),
        "three_in.opus": (3 * encoded_tone("OGG", 2.0, subtype="OPUS"), 6.0),
        "loud_first.mp3": (mp3_without_xing(), 2 * SECONDS),
        "quiet_first.mp3": (mp3_without_xing(quiet_start=True), 2 * SECONDS),
        "two_in.mp3": (encoded("MP3") + encoded_tone("MP3", 3.0), SECONDS + 3.0),
        "with_picture.mp3": (picture + encoded("MP3"), SECONDS),
        "with_two_pictures.mp3": (2 * picture + encoded("MP3"), SECONDS),
        "with_picture.flac": (picture + encoded("FLAC"), SECONDS),
        "with_picture.wav": (picture + wav, SECONDS),
        "zeros_before.mp3": (bytes(1000) + encoded("MP3"), SECONDS),
        "junk_before.mp3": (b"hello" * 200 + encoded("MP3"), SECONDS),
        "tag_behind.mp3": (encoded("MP3") + b"APETAGEX" + bytes(9000), SECONDS),
        "frames_0.mp3": (mp3_with_xing(0), SECONDS),
        "frames_absurd.mp3": (mp3_with_xing(0x7FFFFFFF), SECONDS),
        "frames_too_few.mp3": (mp3_with_xing(50), SECONDS),
        "frames_too_many.mp3": (mp3_with_xing(400), SECONDS),
        "no_flags.mp3": (mp3_with_xing(flags=0), SECONDS),
        "id3v1_behind.mp3": (encoded("MP3") + b"TAG" + bytes(125), SECONDS),
        "cbr.mp3": (encoded("MP3", bitrate_mode="CONSTANT"), SECONDS),
        "flac_in_a.wav": (encoded("FLAC"), SECONDS),
        "wav_in_a.mp3": (wav, SECONDS),
        "integers_as_float.wav": (encoded("WAV", tone() * 32768, subtype="FLOAT"), SECONDS),
        "double.wav": (encoded("WAV", subtype="DOUBLE"), SECONDS),
        "24_bit.flac": (encoded("FLAC", subtype="PCM_24"), SECONDS),
        "8_bit.wav": (encoded("WAV", subtype="PCM_U8"), SECONDS),
        "alac.caf": (encoded("CAF", subtype="ALAC_16"), SECONDS),
        "silence.wav": (encoded("WAV", np.zeros(80000, np.float32)), SECONDS),
        "silence.flac": (encoded("FLAC", np.zeros(1_600_000, np.float32)), 100.0),
    }
    for subtype in (
        "GSM610",
        "G721_32",
        "NMS_ADPCM_16",
        "NMS_ADPCM_24",
        "NMS_ADPCM_32",
        "MS_ADPCM",
        "IMA_ADPCM",
        "ULAW",
    ):
        files[f"{subtype.lower()}.wav"] = (encoded("WAV", rate=8000, subtype=subtype), SECONDS)
    for subtype in ("G721_32", "G723_24", "G723_40", "ALAW"):
        files[f"{subtype.lower()}.au"] = (encoded("AU", rate=8000, subtype=subtype), SECONDS)
    for subtype in ("DWVW_16", "DWVW_24"):
        files[f"{subtype.lower()}.aiff"] = (encoded("AIFF", subtype=subtype), SECONDS)
    for rate in (100, 4000, 11025, 44101, 384000):
        files[f"{rate}_hz.wav"] = (encoded("WAV", rate=rate), SECONDS)
    for channels in (2, 6, 32):
        wave = np.stack([tone()] * channels, axis=1)
        files[f"{channels}_channels.wav"] = (encoded("WAV", wave), SECONDS)
    for format, suffix in (
        ("AIFF", "aiff"),
        ("W64", "w64"),
        ("RF64", "rf64"),
        ("AVR", "avr"),
        ("NIST", "sph"),
        ("IRCAM", "sf"),
        ("VOC", "voc"),
        ("PAF", "paf"),
        ("SVX", "svx"),
        ("CAF", "caf"),
    ):
        files[f"plain.{suffix}"] = (encoded(format), SECONDS)
    return files


def unreadable() -> dict[str, bytes]:
    """{name: content} of files that hold no usable sound."""
    wav = encoded("WAV")
    short = {f"of_10_ms.{suffix}": encoded_tone(format, 0.01) for format, suffix in (("WAV", "wav"), ("FLAC", "flac"))}
    spoilt = {"nan": np.nan, "infinite": np.inf, "huge": 1e25, "beyond_32_bits": -1e10}
    files = {"empty.wav": b"", "text.wav": b"this is no audio at all\n" * 50, "text.mp3": b"hello " * 900, **short}
    for name, value in spoilt.items():
        wave = tone().copy()
        wave[1000:1010] = value
        files[f"{name}.wav"] = encoded("WAV", wave, subtype="FLOAT")
    return files | {
        "zeros.mp3": bytes(5000),
        "header_only.wav": wav[:44],
        "half_a_header.wav": wav[:30],
        "no_samples.flac": encoded("FLAC", np.zeros(0, np.float32)),
        "1_hz.wav": patched(wav, {24: struct.pack("<I", 1)}),
        "0_hz.wav": patched(wav, {24: struct.pack("<I", 0)}),
        "4_ghz.wav": patched(wav, {24: struct.pack("<I", 0xFFFFFFFF)}),
        "0_channels.wav": patched(wav, {22: struct.pack("<H", 0)}),
        "65535_channels.wav": patched(wav, {22: struct.pack("<H", 65535)}),
        "unknown_codec.wav": patched(wav, {20: struct.pack("<H", 0x1234)}),
        "page.wav": b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 20,
        "pointer.flac": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        "archive.ogg": b"PK\x03\x04" + bytes(2000),
    }


SHARES = (0.001, 0.02, 0.3, 0.5, 0.7, 0.95, 0.999)


def cut() -> dict[str, tuple[Callable[[], bytes], float | None]]:
    """{name: (what gives the content, seconds before the cut)} of files that end too early, at several places each.

    None where too little is left to be decoded: a page of an Ogg, for one, has up to 4 s.
    """
    kinds = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3", "aiff": "AIFF", "au": "AU", "caf": "CAF",
             "w64": "W64", "rf64": "RF64", "voc": "VOC", "sph": "NIST", "avr": "AVR", "svx": "SVX"}  # fmt: skip
    subtypes = {"opus": ("OGG", "OPUS"), "alac.caf": ("CAF", "ALAC_16"), "gsm.wav": ("WAV", "GSM610"),
                "ima.wav": ("WAV", "IMA_ADPCM"), "g721.au": ("AU", "G721_32"), "ulaw.wav": ("WAV", "ULAW")}  # fmt: skip
    files = {}
    for suffix, (format, subtype) in ({name: (kind, None) for name, kind in kinds.items()} | subtypes).items():
        rate = 8000 if subtype in ("GSM610", "G721_32", "ULAW") else 16000
        full = functools.partial(encoded_tone, format, 20.0, rate, subtype=subtype)
        for share in SHARES:
            seconds = None if share < 0.3 else 20.0 * share
            files[f"cut_{share:g}.{suffix}"] = functools.partial(_start_of, full, share), seconds
    return files


def _start_of(content: Callable[[], bytes], share: float) -> bytes:
    return content()[: max(1, int(len(content()) * share))]


def write_all(folder: Path) -> dict[str, float | None]:
    """Put everything into a folder: {name: seconds of sound, None where nothing can or need be read}."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float | None] = {}
    contents = readable() | {name: (content(), length) for name, (content, length) in cut().items()}
    for name, (content, length) in contents.items():
        (folder / name).write_bytes(content)
        seconds[name] = length
    for name, content in unreadable().items():
        (folder / name).write_bytes(content)
        seconds[name] = None
    (folder / "circle").symlink_to(folder)
    (folder / "itself.wav").symlink_to(folder / "itself.wav")
    (folder / "gone.wav").symlink_to(folder / "nowhere.wav")
    os.mkfifo(folder / "pipe.wav")
    (folder / "folder.wav").mkdir()
    (folder / "unreadable.wav").write_bytes(encoded("WAV"))
    (folder / "unreadable.wav").chmod(0)  # the superuser reads it all the same
    return seconds | {"itself.wav": None, "gone.wav": None, "pipe.wav": None, "unreadable.wav": None}
