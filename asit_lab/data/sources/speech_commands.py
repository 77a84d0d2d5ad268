"""Lists Speech Commands: one-second spoken words with the official validation and test lists.

Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", arXiv 1804.03209. Version 0.01 has 30
words, version 0.02 has 35. Two tasks:

- every word a class (35 with version 0.02), all recordings;
- twelve classes, after TensorFlow's tutorial recipe: ten words, "unknown" and "silence", the last two each a tenth
  of the number of the ten words' recordings in every split. That recipe draws both at random; here "unknown" goes by
  a stable hash of the file's name, and "silence" takes evenly spaced seconds of the background recordings, whose
  first 80 % are for training, the next 10 % for validation, the rest for the test: no sample is in two splits.
"""

import hashlib
import math
import os
from collections import Counter
from pathlib import Path

from ...audio import info
from ...errors import InputError
from .clips import Clip, Listing, audio_files, entries, find_root
from .download import Remote

NOISE = "_background_noise_"
SPLIT_LISTS = {"validation_list.txt": "valid", "testing_list.txt": "test"}
ONLY_V2 = frozenset(("backward", "follow", "forward", "learn", "visual"))
TEN_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
EXTRA_SHARE = 0.1  # of "unknown" and of "silence", in recordings of the ten words (recipe: 10 % each)
NOISE_SHARES = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}  # stretch of each noise recording

_ADDRESS = "http://download.tensorflow.org/data/speech_commands_v0.0{}.tar.gz"
REMOTE_V1 = Remote(
    _ADDRESS.format(1), "743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d", megabytes=1489
)
REMOTE_V2 = Remote(
    _ADDRESS.format(2), "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58", megabytes=2429
)


def list_words(path: Path, source: str) -> Listing:
    """Every recording of a word, label = the word, group = the speaker, split by the official lists.

    Raises InputError where the lists or the words are missing.
    """
    root = find_root(path, "testing_list.txt", source)
    split_of = _official_splits(root, source)
    clips, listed = [], Counter()
    for folder in entries(root):
        if not folder.is_dir() or folder.name == NOISE or folder.name.startswith("."):
            continue
        for file in audio_files(folder):
            speaker = file.name.split("_nohash_")[0]
            split = split_of.get(f"{folder.name}/{file.name}", "train")
            listed[split] += 1
            clips.append(Clip(str(file), folder.name, split=split, group=speaker))
    if not clips:
        raise InputError(f"data source {source!r}: no folders of words with recordings in {root}")
    labels = {clip.label for clip in clips}
    version, expected = ("v2", 35) if labels & ONLY_V2 else ("v1", 30)
    notes = [f"Speech Commands {version}: {len(labels)} of its {expected} words, {len(clips)} recordings"]
    for name, split in SPLIT_LISTS.items():
        present, total = listed[split], list(split_of.values()).count(split)
        if not present:
            raise InputError(
                f"data source {source!r}: none of the {total} recordings in {root / name} is present, so there is "
                f"nothing to {'test on' if split == 'test' else 'validate on'}; the list and the recordings do not "
                "match"
            )
        if present < total:
            notes.append(f"{name}: {present:,} of {total:,} recordings are present")
    return Listing(clips, notes)


def list_twelve(path: Path, source: str) -> Listing:
    """The twelve-class task; without the folder of background noise there is no class "silence", and a note says so."""
    root = find_root(path, "testing_list.txt", source)
    listing = list_words(path, source)
    ten = [clip for clip in listing.clips if clip.label in TEN_WORDS]
    other_words = [clip for clip in listing.clips if clip.label not in TEN_WORDS]
    if not ten:
        raise InputError(f"data source {source!r}: none of the words {', '.join(TEN_WORDS)} in {root}")
    extras = {split: math.ceil(EXTRA_SHARE * sum(clip.split == split for clip in ten)) for split in NOISE_SHARES}
    unknown = [clip for split, count in extras.items() for clip in _unknown(other_words, split, count)]
    clips = ten + unknown
    noise, notes = _noise_recordings(root), list(listing.notes)
    notes.append(f"class 'unknown': {len(unknown)} of the {len(other_words)} recordings of other words")
    for split, count in extras.items():
        clips += _silence(noise, split, count)
    if not noise:
        notes.append(f"no class 'silence': {root} has no folder {NOISE} with recordings")
    return Listing(clips, notes)


def _official_splits(root: Path, source: str) -> dict[str, str]:
    """{"word/file.wav": "valid" | "test"}; what is in neither list is for training."""
    splits = {}
    for name, split in SPLIT_LISTS.items():
        if not (root / name).is_file():
            raise InputError(f"data source {source!r}: the official list {name} is missing in {root}")
        listed = {line.strip() for line in (root / name).read_text().splitlines() if line.strip()}
        in_both = sorted(listed & splits.keys())
        if in_both:
            raise InputError(f"{root / name}: {in_both[0]} is in the other official list too")
        splits.update(dict.fromkeys(listed, split))
    return splits


def _unknown(recordings: list[Clip], split: str, count: int) -> list[Clip]:
    """`count` recordings of other words of a split, the first by a hash of word and file name."""
    candidates = [clip for clip in recordings if clip.split == split]
    candidates.sort(key=lambda clip: hashlib.sha1(os.fsencode("/".join(Path(clip.path).parts[-2:]))).digest())
    return [Clip(clip.path, "unknown", split=split, group=clip.group) for clip in candidates[:count]]


def _noise_recordings(root: Path) -> list[tuple[str, float]]:
    """(path, seconds) of the background recordings that can be read."""
    recordings = []
    for file in audio_files(root / NOISE) if (root / NOISE).is_dir() else []:
        try:
            recordings.append((str(file), info(file).seconds))
        except InputError:  # one unreadable noise file of several costs nothing; none at all is noted by the caller
            continue
    return recordings


def _silence(noise: list[tuple[str, float]], split: str, count: int) -> list[Clip]:
    """`count` stretches of one second, spread evenly over the split's share of every background recording."""
    lows_highs = [(path, seconds * NOISE_SHARES[split][0], seconds * NOISE_SHARES[split][1]) for path, seconds in noise]
    fitting = [(path, low, high) for path, low, high in lows_highs if high - low >= 1.0]
    clips = []
    for place, (path, low, high) in enumerate(fitting):
        stretches = count // len(fitting) + (place < count % len(fitting))
        step = (high - low - 1.0) / max(1, stretches - 1)
        group = f"{NOISE}/{Path(path).name}/{split}"  # a split's stretch of it is no other's
        clips += [Clip(path, "silence", None, split, group, low + k * step, 1.0) for k in range(stretches)]
    return clips
