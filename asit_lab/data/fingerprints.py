"""Fingerprints of clips by their exact audio, whatever the file's name and container.

A fingerprint is a hash of the decoded mono samples at the file's own rate, as 16-bit numbers, without the zeros at
both ends. So copies, other lossless containers and other paddings of one recording agree; a lossy copy, another rate or
another gain does not. They are cached in data/hashes by path, segment, size and time of change.
"""

import hashlib
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..audio import SHORTEST
from ..audio.state import file_state
from ..config import resolve
from ..errors import InputError
from ..storage.atomic import write_text
from ..storage.progress import passing_bar_style
from .manifest import read_row

log = logging.getLogger(__name__)

HASHES_FOLDER = "data/hashes"
_THREADS = 4  # libsndfile and the hash work outside Python's lock


class Fingerprint(NamedTuple):
    """Clips with the same digest hold the same samples, perhaps with different zero padding."""

    digest: str
    """empty for digital silence: nothing but zeros at 16 bits, or sound shorter than 25 ms"""
    samples: int
    """length with the zeros"""
    lead: int
    """zeros before the first sound, samples"""


def fingerprint(wave: np.ndarray, sample_rate: int) -> Fingerprint:
    """The fingerprint of a mono waveform [samples], -1 to 1."""
    scaled = wave * 32768
    numbers = np.clip(np.rint(scaled, out=scaled), -32768, 32767, out=scaled).astype("<i2")
    sounding = numbers != 0
    first, stop = int(sounding.argmax()), len(numbers) - int(sounding[::-1].argmax())
    if not sounding.any() or stop - first < SHORTEST * sample_rate:
        return Fingerprint("", len(numbers), 0)
    digest = hashlib.blake2b(numbers[first:stop], digest_size=16, salt=sample_rate.to_bytes(16, "little")).hexdigest()
    return Fingerprint(digest, len(numbers), first)


def fingerprints(manifest, rows) -> list[Fingerprint | str]:
    """The fingerprint of each of the manifest's `rows`, or why the clip cannot be read.

    Fingerprints of unchanged files come from the cache data/hashes; when it cannot be written, the log says so.
    """
    cache = resolve(HASHES_FOLDER) / f"{hashlib.blake2b(os.fsencode(manifest.source), digest_size=8).hexdigest()}.json"
    cached = _load(cache)
    columns = manifest.table[["path", "start", "seconds", "sample_rate"]].iloc[rows]
    clips = list(columns.itertuples(index=False, name=None))
    computed: dict[str, list] = {}

    def fingerprint_of(clip: tuple) -> Fingerprint | str:
        path, start, seconds, rate = clip
        name = f"{path}@{start:.6f}+{seconds:.6f}"
        state = [int(number) for number in file_state(path).split()]
        if state and cached.get(name, [])[:2] == state:
            return Fingerprint(*cached[name][2:])
        try:
            result = fingerprint(read_row(path, start, seconds, int(rate)), int(rate))
        except InputError as error:
            return str(error)
        if state:
            computed[name] = [*state, *result]
        return result

    with ThreadPoolExecutor(_THREADS) as threads:
        bar = {"desc": "fingerprints", "unit": "clip", "disable": None}  # None: hidden without a terminal
        prints = list(tqdm(threads.map(fingerprint_of, clips), total=len(clips), **bar, **passing_bar_style()))
    if computed:
        _keep(cache, cached | computed)
    return prints


def _load(cache: Path) -> dict[str, list]:
    try:
        return json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing or damaged: computed again
        return {}


def _keep(cache: Path, cached: dict[str, list]) -> None:
    try:
        write_text(cache, json.dumps(cached))
    except OSError as error:
        log.warning("%s: fingerprints cannot be kept for next time: %s", cache, error)
