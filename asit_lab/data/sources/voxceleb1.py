"""Lists VoxCeleb1 for speaker identification: which of 1,251 people speaks, with the official split.

Nagrani et al., "VoxCeleb: a large-scale speaker identification dataset", Interspeech 2017, section 5.1; the task of
SUPERB's SID. iden_split.txt lists 153,516 utterances: 138,361 to train on, 6,904 for validation, 8,251 to test.
The speakers are the same in all three parts; the test utterances of each come from a video kept for the test.

The verification archives (vox1_dev, vox1_test) hold the same recordings divided by speaker; identification needs both,
unpacked side by side in any folders. Only the last three parts of a path count: SPEAKER/VIDEO/NUMBER.
"""

import os
import re
from pathlib import Path

from ...errors import InputError
from .clips import Clip, Listing, find_root
from .matching import match_files

LIST = "iden_split.txt"
PARTS = {"1": "train", "2": "valid", "3": "test"}
PAGE_URL = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/"
HOW_TO_GET = (
    f"VoxCeleb1 cannot be downloaded here: its authors give the audio on request ({PAGE_URL}vox1.html); the list is at "
    f"{PAGE_URL}meta/{LIST}"
)

_LINE = re.compile(r"([123])\s+([^\s/]+)/([^\s/]+)/([^\s/]+)\.\w+")


def list_voxceleb1(path: Path, source: str) -> Listing:
    """The available utterances of the list: label = the speaker, split by the official list.

    group = the video, as long as the list keeps every video in one part; where it does not, the file, since grouping
    by video would then refuse the official parts, and a note says so.
    The audio may be recoded (.flac, .ogg): the suffix does not count. Missing utterances are counted in the notes.
    Raises InputError for a missing list, a damaged line, an utterance listed twice, and when none is available.
    """
    file = find_root(path, LIST, source, hint=f"It is published at {PAGE_URL}meta/{LIST}") / LIST
    part_of = _read_list(file)
    matched = match_files(path, part_of, lambda folder, stem: ["/".join([*folder.split(os.sep)[-2:], stem])])
    if not matched.paths:
        hints = "; ".join(["they are found as SPEAKER/VIDEO/NUMBER.wav below it", *matched.notes])
        raise InputError(
            f"data source {source!r}: none of the {len(part_of):,} utterances of {file} is in {path}; {hints}"
        )
    torn = _torn_videos(part_of)
    clips = []
    for utterance, part in part_of.items():
        if utterance in matched.paths:
            speaker, video, _ = utterance.split("/")
            group = None if torn else f"{speaker}/{video}"
            clips.append(Clip(matched.paths[utterance], speaker, split=part, group=group))
    speakers = sorted({utterance.split("/")[0] for utterance in part_of})
    notes = [_share(part, part_of, clips) for part in PARTS.values()] + matched.notes
    if torn:
        notes.append(f"{LIST} has {len(torn):,} videos in two parts ({min(torn)}): every file is its own group")
    return Listing(clips, notes, labels=speakers)


def _read_list(file: Path) -> dict[str, str]:
    """{"speaker/video/number": part} in the order listed."""
    part_of = {}
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if not match:
            raise InputError(f"{file}, line {number}: {line!r} is not '1|2|3 SPEAKER/VIDEO/NUMBER.wav'")
        utterance = "/".join(match.group(2, 3, 4))
        if utterance in part_of:
            raise InputError(f"{file}, line {number}: {utterance} is listed twice")
        part_of[utterance] = PARTS[match[1]]
    if not part_of:
        raise InputError(f"{file}: lists no utterances")
    return part_of


def _torn_videos(part_of: dict[str, str]) -> set[str]:
    """Videos ("speaker/video") with utterances in more than one part."""
    first, torn = {}, set()
    for utterance, part in part_of.items():
        video = utterance.rpartition("/")[0]
        if first.setdefault(video, part) != part:
            torn.add(video)
    return torn


def _share(part: str, part_of: dict[str, str], clips: list[Clip]) -> str:
    present = sum(clip.split == part for clip in clips)
    listed = sum(listed_part == part for listed_part in part_of.values())
    return f"{part}: {present:,} of the {listed:,} utterances in {LIST} are present"
