"""Reads lists of speech toolkits: Kaldi's data folders (wav.scp, segments, utt2spk, ...) and fairseq's manifests."""

from pathlib import Path

from ...errors import InputError
from .clips import Clip, Listing

SCP = "wav.scp"
# Files that say what an utterance is, in the order they are looked for; `text` is a transcript, no class.
_LABELS = ("utt2label", "utt2class", "utt2lang", "utt2emo", "utt2num", "label", "labels")


def list_kaldi(folder: Path) -> Listing:
    """One clip an utterance; speakers (utt2spk) are the groups. Raises InputError naming file and line."""
    places = dict(_pairs(folder / SCP))
    segments = folder / "segments"
    speakers, labels = dict(_pairs(folder / "utt2spk")), {}
    kind = next((name for name in _LABELS if (folder / name).is_file()), None)
    if kind:
        labels = dict(_pairs(folder / kind))
    clips, piped = [], 0
    utterances = _segments(segments, places) if segments.is_file() else [(name, name, None, None) for name in places]
    for name, recording, start, seconds in utterances:
        value = places[recording]
        if value.endswith("|"):  # a command that Kaldi runs
            piped += 1
            continue
        path = Path(value).expanduser()
        path = path if path.is_absolute() else folder / path
        clips.append(Clip(str(path), labels.get(name, ""), group=speakers.get(name), start=start, seconds=seconds))
    if not clips:
        raise InputError(f"{folder / SCP}: none of its {len(places)} entries is a file ({piped} are commands)")
    notes = [f"{SCP} is taken for Kaldi's list, {kind or 'no file'} for the labels and utt2spk for the groups"]
    if piped:
        notes.append(f"{piped} entries of {SCP} are commands, which are not run; they are left out")
    return Listing(clips, notes)


def _pairs(file: Path) -> list[tuple[str, str]]:
    """(first word, the rest) of every line; nothing where there is no such file."""
    if not file.is_file():
        return []
    pairs = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="surrogateescape").splitlines(), start=1):
        name, _, value = line.strip().partition(" ") if "\t" not in line else line.strip().partition("\t")
        if name and not value.strip():
            raise InputError(f"{file}, line {number}: expected a name and a value, found {line!r}")
        if name:
            pairs.append((name, value.strip()))
    return pairs


def _segments(file: Path, places: dict[str, str]) -> list[tuple[str, str, float, float]]:
    """(utterance, recording, start, length) of each line, s."""
    rows = []
    for number, (name, value) in enumerate(_pairs(file), start=1):
        try:
            recording, start, end = value.split()
            rows.append((name, recording, float(start), float(end) - float(start)))
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
