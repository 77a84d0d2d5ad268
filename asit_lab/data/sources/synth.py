"""Lists synthetic sounds: an endless stream that needs no files and no network.

Clip (seed, index) is always the same; `synthesis` generates it. The listed clips, of seed 0, are for viewing, holding
out and probing. Pretraining uses other seeds: every epoch has new sounds of the same classes.
"""

import functools

import numpy as np

from ... import random
from ...audio import AudioInfo
from ...errors import InputError
from ..synthesis.scene import CLASSES, synthesise
from .clips import Clip, Listing

PREFIX = "synth://"
DEFAULT_CLIPS = 1000
SECONDS = 5.0
NOMINAL_RATE = 32000  # Hz, what the manifest shows; clips are synthesised at any rate
SYNTH_FOLDS = 5
ALL_CLASSES_FROM = (
    200  # clips from which on all classes are listed; below, the first ten, so that each has several clips
)
MOST_CLIPS = 100_000  # clips in a list
EXAMPLES = {
    "harmonic stack": (1, 8),
    "rhythm": (1, 192),
    "sweep": (1, 205),
    "vowel": (1, 202),
    "decay": (1, 253),
}
"""(seed, index) of five clips that are easily read in a log-mel"""


def render_clip(seed: int, index: int, sample_rate: int, seconds: float = SECONDS) -> np.ndarray:
    """Clip `index` of the stream `seed`: mono float32 [samples], |peak| < 1.

    The same clip at another sample rate differs only in the samples of its noise. Bits are the same in every process;
    on another type of processor, or with another numpy, samples may differ in their last bits.
    """
    return synthesise(seed, index, sample_rate, seconds)


def list_synth(clips: int, spec: str = "synth") -> Listing:
    """`clips` clips of seed 0: classes take turns, and every fold has as many of each.

    Raises InputError for more than MOST_CLIPS clips.
    """
    if clips > MOST_CLIPS:
        raise InputError(
            f"data source {spec!r}: at most {MOST_CLIPS:,} clips can be listed; pretraining makes new sounds in every "
            f"epoch, however few are listed: use synth ({DEFAULT_CLIPS:,} clips)"
        )
    classes = len(CLASSES) if clips >= ALL_CLASSES_FROM else 10
    listed = []
    for row in range(clips):
        turn, place = divmod(row, classes)
        index = turn * len(CLASSES) + place
        listed.append(Clip(f"{PREFIX}0/{index}", CLASSES[place], fold=turn % SYNTH_FOLDS + 1, group=str(index)))
    return Listing(listed)


def list_examples() -> Listing:
    """One clip each that shows a harmonic stack, a rhythm, a sweep, a vowel, a decay."""
    return Listing([Clip(f"{PREFIX}{seed}/{index}", name) for name, (seed, index) in EXAMPLES.items()])


@functools.lru_cache(maxsize=64)
def stream(seed: int, epoch: int) -> int:
    """The seed of the sounds that a run (`train.seed`) makes in an epoch."""
    return random.key(seed, epoch, "synth").item() & (2**63 - 1)


def anew(path: str, seed: int, epoch: int) -> str:
    """The clip that replaces a listed one in an epoch of pretraining: another of its class."""
    return f"{PREFIX}{stream(seed, epoch)}/{parse(path)[1]}"


def synth_info(path: str) -> AudioInfo:
    """What the header of a clip would say if it were a file."""
    parse(path)
    return AudioInfo(path, SECONDS, NOMINAL_RATE, 1, round(SECONDS * NOMINAL_RATE))


def parse(path: str) -> tuple[int, int]:
    """(seed, index) of "synth://SEED/INDEX". Raises InputError for anything else."""
    parts = path.removeprefix(PREFIX).split("/")
    if not path.startswith(PREFIX) or len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise InputError(f"{path}: not of the form {PREFIX}SEED/INDEX")
    return int(parts[0]), int(parts[1])
