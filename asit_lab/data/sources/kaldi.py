"""Reads lists of speech toolkits: Kaldi's data folders (wav.scp, segments, utt2spk, ...) and fairseq's manifests."""

import math
import shlex
from pathlib import Path

from ...errors import InputError
from .clips import Clip, Listing

SCP = "wav.scp"
# Files that say what an utterance is, in the order they are looked for; `text` is a transcript, no class.
_LABELS = ("utt2label", "utt2class", "utt2lang", "utt2emo", "utt2num", "label", "labels")


def list_kaldi(folder: Path) -> Listing:
    """One clip an utterance; speakers (utt2spk) are the groups. Raises InputError naming file and line."""
    places = _by_name(folder / SCP)
    segments = folder / "segments"
    speakers, labels = _by_name(folder / "utt2spk"), {}
    kind = next((name for name in _LABELS if (folder / name).is_file()), None)
    if kind:
        labels = _by_name(folder / kind)
    clips, piped = [], 0
    utterances = _segments(segments, places) if segments.is_file() else [(name, name, None, None) for name in places]
    for name, recording, start, seconds in utterances:
        value = places[recording]
        if value.endswith("|"):  # a command that Kaldi runs
            decoded = _file_decoded(value, folder)
            if decoded is None:
                piped += 1
                continue
            value = decoded
        path = str(_place_of(value, folder))
        clips.append(Clip(path, labels.get(name, ""), group=speakers.get(name), start=start, seconds=seconds))
    if not clips:
        raise InputError(f"{folder / SCP}: none of its {len(places)} entries is a file ({piped} are commands)")
    notes = [f"{SCP} is taken for Kaldi's list, {kind or 'no file'} for the labels and utt2spk for the groups"]
    if piped:
        notes.append(f"{piped} entries of {SCP} are commands, which are not run; they are left out")
    if any(value.endswith("|") for value in places.values()) and piped < len(places):
        notes.append(f"commands in {SCP} that do nothing but decode a file are replaced by the file")
    return Listing(clips, notes)


def _place_of(value: str, folder: Path) -> Path:
    """A file of wav.scp; relative ones count from the folder, or as in Kaldi's recipes from one above it."""
    path = Path(value)
    if path.is_absolute():
        return path
    places = [above / path for above in (folder, *list(folder.parents)[:4])]
    return next((place for place in places if place.exists()), places[0])


def _file_decoded(command: str, folder: Path) -> str | None:
    """The file that a command does nothing but decode ("flac -c -d -s x.flac |"); None for other commands."""
    try:
        words = shlex.split(command.rstrip("| "))
    except ValueError:
        return None
    changes = {"-ss", "-t", "-af", "-c", "--skip", "--until"} if words[:1] != ["flac"] else {"--skip", "--until"}
    if words[:1] == ["sox"]:  # what follows the output are effects
        changes = {"remix", "trim", "speed", "tempo", "pitch", "vol", "gain", "reverb", "-v"}
    if not words or Path(words[0]).name not in ("cat", "flac", "sox", "sph2pipe", "ffmpeg") or "|" in words:
        return None
    files = [word for word in words[1:] if _place_of(word, folder).is_file()]
    return files[0] if len(files) == 1 and not changes & set(words) else None


def _by_name(file: Path) -> dict[str, str]:
    """First word of every line -> the rest."""
    return {name: value for _, name, value in _lines(file)}


def _lines(file: Path) -> list[tuple[int, str, str]]:
    """(number, first word, the rest) of every line; nothing where there is no such file."""
    if not file.is_file():
        return []
    lines = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="surrogateescape").splitlines(), start=1):
        name, _, value = line.strip().partition(" ") if "\t" not in line else line.strip().partition("\t")
        if name and not value.strip():
            raise InputError(f"{file}, line {number}: expected a name and a value, found {line!r}")
        if name:
            lines.append((number, name, value.strip()))
    return lines


def _segments(file: Path, places: dict[str, str]) -> list[tuple[str, str, float, float]]:
    """(utterance, recording, start, length) of each line, s."""
    rows = []
    for number, name, value in _lines(file):
        try:
            recording, start, end = value.split()
            stop = float(end)
            if not 0 <= float(start) < math.inf or math.isnan(stop):
                raise ValueError
            rows.append((name, recording, float(start), math.inf if stop < 0 else stop - float(start)))  # -1: the end
        except ValueError:
            raise InputError(f"{file}, line {number}: expected utterance, recording, start and end") from None
        if recording not in places:
            raise InputError(f"{file}, line {number}: recording {recording!r} is not in {SCP}")
    return rows


def list_tsv_of_frames(file: Path) -> Listing | None:
    """fairseq's manifest: a folder in the first line, then file and number of frames, tab between; None for others."""
    with file.open(encoding="utf-8", errors="surrogateescape") as lines:
        root = Path(lines.readline().rstrip("\r\n"))
        if not root.is_absolute() or not root.is_dir():
            return None
        names = [line.split("\t")[0].strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f"{file}: lists no files below {root}")
    return Listing([Clip(str(root / name)) for name in names], [f"{file.name} is taken for fairseq's list of {root}"])
