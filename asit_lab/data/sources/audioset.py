"""Lists AudioSet: ten seconds of two million videos, labelled with one or more of 527 sound classes.

Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP 2017. Two tasks share the
test clips: AudioSet-20K trains on the balanced list, AudioSet-2M on the unbalanced and the balanced one.

Google publishes the lists; the audio is on YouTube, so every copy lacks other clips and names its files in its own
way. Wherever they lie below the folder, these names are found (ID is YouTube's, eleven characters; any suffix):

    ID.wav, YID.wav                 the second as PANNs' copies have it
    ID_30.wav, ID_30.000.wav        with the start in s or ms
    ID_30000_40000.flac             with start and end
    YID_30.000_40.000.wav           both

A file not much longer than its segment is the segment; of a longer one, a whole video, the listed stretch is read.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from ...errors import InputError
from .. import labels
from .clips import Clip, Listing, find_root
from .matching import match_files

CLASS_NAMES = "class_labels_indices.csv"
SEGMENT_LISTS = {
    "audioset_20k": {"balanced_train_segments.csv": "train", "eval_segments.csv": "test"},
    "audioset_2m": {
        "unbalanced_train_segments.csv": "train",
        "balanced_train_segments.csv": "train",
        "eval_segments.csv": "test",
    },
}
LISTS_URL = "http://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/"
HOW_TO_GET = (
    f"AudioSet cannot be downloaded here: its lists are at research.google.com/audioset/download.html ({LISTS_URL}), "
    "its audio is on YouTube"
)

_VIDEO = re.compile(r"[A-Za-z0-9_-]{11}")
_NAME = re.compile(rf"({_VIDEO.pattern})(?:_\d+(?:\.\d+)?){{0,2}}")


def list_audioset(path: Path, source: str, kind: str = "audioset_20k") -> Listing:
    """The available clips of `kind`'s lists: several labels each (display names), group = the video.

    The notes say how much of every list is available; missing clips are not an error.
    Raises InputError for a missing or damaged list, a label that is not in class_labels_indices.csv, and when none
    of the clips is available.
    """
    names = _class_names(_list_file(path, CLASS_NAMES, source))
    segments = {}  # list -> [(video, start, seconds, label)]
    for list_name in SEGMENT_LISTS[kind]:
        segments[list_name] = list(_segments(_list_file(path, list_name, source), names))
    videos = {video for rows in segments.values() for video, *_ in rows}
    matched = match_files(path, videos, lambda _folder, stem: video_ids(stem))
    clips, notes = [], []
    for list_name, rows in segments.items():
        available = [
            Clip(
                matched.paths[video], label, None, SEGMENT_LISTS[kind][list_name], video, start, seconds, maybe_cut=True
            )
            for video, start, seconds, label in rows
            if video in matched.paths
        ]
        notes.append(f"{list_name}: {len(available):,} of {len(rows):,} clips are present")
        clips += available
    notes += matched.notes
    if not clips:
        hints = "; ".join(["files are found by their names, such as ID.wav, YID.flac or ID_30.000.wav", *matched.notes])
        raise InputError(
            f"data source {source!r}: none of the {len(videos):,} clips of {', '.join(segments)} is in {path}; {hints}"
        )
    return Listing(clips, notes, multi=True, labels=list(names.values()))


def video_ids(stem: str) -> list[str]:
    """The YouTube ids a file's name without suffix may stand for; see the top of this file.

    An id may begin with Y and may contain underscores, so there can be two: the lists decide.
    """
    candidates = [stem, stem[1:]] if stem.startswith("Y") else [stem]
    return [match[1] for match in map(_NAME.fullmatch, candidates) if match]


def _list_file(path: Path, name: str, source: str) -> Path:
    return find_root(path, name, source, hint=f"It is published at {LISTS_URL}{name}") / name


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, fields) of a CSV. Raises InputError where it is no text."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as text:
            rows = csv.reader(text, skipinitialspace=True)
            for row in rows:
                yield rows.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not a CSV that can be read: {error}") from None


def _class_names(file: Path) -> dict[str, str]:
    """{mid: display name} in the official order. Raises InputError naming the line."""
    names = {}
    for line, row in _rows(file):
        if not row or row == ["index", "mid", "display_name"]:
            continue
        if len(row) != 3 or row[0] != str(len(names)) or row[1] in names or row[2] in names.values():
            raise InputError(
                f"{file}, line {line}: {','.join(row)!r} is not {len(names)},MID,DISPLAY NAME with an MID and a name "
                "that are new"
            )
        if not row[2] or labels.SEPARATOR in row[2]:
            raise InputError(f"{file}, line {line}: the name {row[2]!r} is empty or contains {labels.SEPARATOR!r}")
        names[row[1]] = row[2]
    if not names:
        raise InputError(f"{file}: lists no classes")
    return names


def _segments(file: Path, names: dict[str, str]) -> Iterator[tuple[str, float, float, str]]:
    """(video, start in s, length in s, joined display names) of every row. Raises InputError naming the line."""
    for line, row in _rows(file):
        if not row or row[0].startswith("# "):  # a spreadsheet's "#NAME?" for an id such as -0abc is no comment
            continue
        try:
            video, start, end, mids = row[0], float(row[1]), float(row[2]), row[3].split(",")
            right = len(row) == 4 and _VIDEO.fullmatch(video) and 0 <= start < end
        except (IndexError, ValueError):
            right = False
        if not right:
            raise InputError(
                f'{file}, line {line}: {", ".join(row)!r} is not YTID, start_seconds, end_seconds, "mid,mid"'
            )
        unknown = [mid for mid in mids if mid not in names]
        if unknown:
            raise InputError(
                f"{file}, line {line}: label {unknown[0]!r} is not one of the {len(names)} in {CLASS_NAMES}"
            )
        yield video, start, end - start, labels.join(names[mid] for mid in mids)
