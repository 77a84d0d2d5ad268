"""Checks a data set before it is used: decodes every clip once and reports what is unusual.

Measurements are cached in data/checks by path, segment, size and time of change, so an interrupted check resumes
and a repeated one reads only new clips.
"""

import contextlib
import hashlib
import html
import json
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from tqdm import tqdm

from ..audio import INTEGERS
from ..audio.lengths import shard_member
from ..audio.state import file_state
from ..config import resolve
from ..errors import InputError
from ..storage.atomic import write_text
from ..storage.progress import passing_bar_style
from .fingerprints import fingerprint
from .manifest import Manifest, read_row
from .silence import SOUND
from .sources import synth

_FOLDER = "data/checks"
_DAMAGED = "cannot be decoded"
_TOGETHER = 8  # clips that a thread is given at a time
_AT_ONCE = 1000  # of these that wait for a thread: a million waiting futures would be gigabytes
_KEEP_EVERY = 500  # clips after which what was measured is written down
_CLIPPED = 0.001  # share of samples at full scale
_CANCEL = 0.1  # the average of the channels has less than this of their level
_NARROW = -60.0  # dB below its strongest band that a clip's spectrum ends at
_NARROW_HZ = 4000.0
_LONGEST = 60.0  # s of a clip that are examined


@dataclass(frozen=True)
class Check:
    """The findings about a data set."""

    table: pd.DataFrame
    """a row a clip: path, peak, silent and clipped (shares of samples), bandwidth (Hz), cancels, digest, reason"""
    findings: pd.DataFrame
    """a row a kind: finding, clips, share (of the clips), example"""


def check(
    manifest: Manifest,
    crop_seconds: float | None = None,
    workers: int | None = None,
    seconds: float = math.inf,
    keep: bool = True,
) -> Check:
    """Decode every clip on all cores and examine it.

    crop_seconds: crops that are planned, to say how much of them would be padding. workers: threads (None: the cores).
    seconds: clips that are not begun by then are left out. keep: write down what was measured.
    """
    latest = time.monotonic() + seconds
    journal = resolve(_FOLDER) / f"{hashlib.blake2b(os.fsencode(manifest.source), digest_size=8).hexdigest()}.jsonl"
    facts_by_name = _load(journal)
    columns = manifest.table[["path", "start", "seconds", "sample_rate", "channels"]]
    clips = list(columns.itertuples(index=False, name=None))
    names = [f"{path}@{start:.6f}+{seconds:.6f} {file_state(path)}" for path, start, seconds, _, _ in clips]

    def measure(items: list) -> list:
        return [_in_time(name, clip, latest) for name, clip in items]

    new = [(name, clip) for name, clip in zip(names, clips, strict=True) if name not in facts_by_name]
    with ThreadPoolExecutor(workers or os.cpu_count()) as threads:
        few = [new[first : first + _TOGETHER] for first in range(0, len(new), _TOGETHER)]
        chunks = (few[first : first + _AT_ONCE] for first in range(0, len(few), _AT_ONCE))
        measured = (item for chunk in chunks for items in threads.map(measure, chunk) for item in items)
        words = {"desc": "checking", "unit": "clip", "total": len(clips), "initial": len(clips) - len(new)}
        fresh: dict[str, dict[str, Any]] = {}
        for name, facts in tqdm(measured, **words, **passing_bar_style()):
            if facts is not None:
                fresh[name] = facts
            if len(fresh) == _KEEP_EVERY:
                _keep(journal, fresh, keep)
                facts_by_name |= fresh
                fresh = {}
        _keep(journal, fresh, keep)
        facts_by_name |= fresh
    reached = [row for row, name in enumerate(names) if name in facts_by_name]
    if len(reached) < len(names):
        manifest = manifest.subset(reached)
    table = pd.DataFrame([{"path": clips[row][0], **facts_by_name[names[row]]} for row in reached])
    return Check(table, _findings(manifest, table, crop_seconds))


def _in_time(name: str, clip: tuple, latest: float) -> tuple[str, dict[str, Any] | None]:
    """(name, facts) of a clip, without facts where it is later than `latest` (see time.monotonic)."""
    return name, _measure(*clip) if time.monotonic() < latest else None


def check_sample(manifest: Manifest, clips: int = 200, seconds: float = 30.0, keep: bool = True) -> Check:
    """What `check` finds in some clips, evenly spread, as far as they can be read in `seconds`: for a look at the data
    before a run. Sounds that are made on the spot are not among them, and the files' list of bad ones is not repeated.
    """
    rows = np.flatnonzero(~manifest.table["path"].str.startswith(synth.PREFIX).to_numpy(dtype=bool))
    if len(rows) > clips:
        rows = rows[np.linspace(0, len(rows) - 1, clips).round().astype(int)]
    sample = replace(manifest.subset(rows), bad=manifest.bad.iloc[:0])
    return check(sample, seconds=seconds, keep=keep) if len(rows) else Check(pd.DataFrame(), pd.DataFrame())


def sample_notes(result: Check) -> list[str]:
    """A sentence for each finding in a sample, except damaged files, which are listed separately."""
    return [
        f"{row.clips} of {len(result.table)} sampled clips: {row.finding}, such as {row.example}"
        for row in result.findings.itertuples()
        if row.finding != _DAMAGED
    ]


def _measure(path: str, start: float, seconds: float, rate: int, channels: int) -> dict[str, Any]:
    """Facts on one clip; `reason` where it cannot be used."""
    try:
        wave = read_row(path, start, min(seconds, _LONGEST), rate)
    except InputError as error:
        return {"reason": str(error).removeprefix(f"{path}: ")}
    level = np.abs(wave)
    peak = float(level.max())
    clipped = np.count_nonzero(level >= 0.999 * peak) if 0.99 <= peak <= INTEGERS else 0
    return {
        "peak": peak,
        "silent": np.count_nonzero(level <= SOUND) / len(wave),
        "clipped": clipped / len(wave),
        "bandwidth": _bandwidth(wave, rate),
        "cancels": channels > 1 and _cancels(path, start, min(seconds, _LONGEST), wave),
        "digest": fingerprint(wave, rate).digest if peak <= INTEGERS else "",
        "reason": "",
    }


@lru_cache(maxsize=4)
def _window(size: int) -> np.ndarray:
    return np.hanning(size).astype(np.float32)


def _bandwidth(wave: np.ndarray, rate: int) -> float:
    """Hz below which all of a clip's spectrum lies, down to 60 dB below its strongest band."""
    size = min(1024, len(wave))
    frames = wave[: len(wave) // size * size].reshape(-1, size) * _window(size)  # float32, which -60 dB is far within
    spectrum = np.fft.rfft(frames)
    power = np.einsum("tf,tf->f", spectrum.real, spectrum.real) + np.einsum("tf,tf->f", spectrum.imag, spectrum.imag)
    loud = np.flatnonzero(power > power.max() * 10 ** (_NARROW / 10))
    return float((loud[-1] + 1) * rate / size) if len(loud) and power.max() > 0 else 0.0


def _cancels(path: str, start: float, seconds: float, mono: np.ndarray) -> bool:
    """Whether the channels' average is far below their level, as of a phase-inverted pair."""
    if shard_member(path):
        return False
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            file.seek(round(start * file.samplerate))
            channels = file.read(round(seconds * file.samplerate), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, OSError):
        return False
    level = float(np.sqrt(np.mean(np.square(channels)))) if len(channels) else 0.0
    return level > SOUND and float(np.sqrt(np.mean(np.square(mono)))) < _CANCEL * level


def _findings(manifest: Manifest, table: pd.DataFrame, crop_seconds: float | None) -> pd.DataFrame:
    for name in ("peak", "silent", "clipped", "bandwidth", "cancels", "digest", "reason"):
        if name not in table:
            table[name] = np.nan if name not in ("cancels", "digest", "reason") else ""
    rate = manifest.table["sample_rate"]
    doubled = table["digest"].fillna("").astype(bool) & table["digest"].duplicated(keep=False)
    low = (table["bandwidth"] <= _NARROW_HZ) & (table["bandwidth"] > 0) & (table["silent"] < 1)
    narrow = low & (rate > 2 * _NARROW_HZ)
    kinds = {
        _DAMAGED: table["reason"].fillna("") != "",
        "silent throughout (below -80 dB)": table["silent"] == 1,
        "more than half silent": (table["silent"] > 0.5) & (table["silent"] < 1),
        "clipped (over 0.1 % of samples at full scale)": table["clipped"] > _CLIPPED,
        "level of integers (±32768 as float?)": table["peak"] > INTEGERS,
        "channels cancel each other": table["cancels"].fillna(False).astype(bool),
        "nothing above 4 kHz": narrow,
        "sample rate below 16 kHz": rate < 16000,
        "same samples as another clip": doubled,
    }
    rows = [_row(finding, mask, table["path"], len(table)) for finding, mask in kinds.items() if mask.any()]
    bad = manifest.bad
    if len(bad):
        example = f"{bad['path'].iloc[0]}: {bad['reason'].iloc[0]}"
        share = round(len(bad) / (len(table) + len(bad)), 4)
        rows.insert(0, {"finding": "cannot be used", "clips": len(bad), "share": share, "example": example})
    for column in ("split", "fold"):
        shared = shared_groups(manifest, column)
        if len(shared):
            mask = manifest.table["group"].isin(shared)
            rows.append(_row(f"group in more than one {column}", mask, manifest.table["group"], len(table)))
    if crop_seconds:
        padding = 1 - float((manifest.table["seconds"].clip(upper=crop_seconds) / crop_seconds).mean())
        short = manifest.table["seconds"] < crop_seconds
        if short.any():
            words = f"shorter than a crop of {crop_seconds:g} s: {padding:.0%} of all crops is padding"
            rows.append(_row(words, short, table["path"], len(table)))
    return pd.DataFrame(rows, columns=["finding", "clips", "share", "example"])


def _row(finding: str, mask: pd.Series, names: pd.Series, clips: int) -> dict[str, Any]:
    count = int(mask.sum())
    return {"finding": finding, "clips": count, "share": round(count / clips, 4), "example": names[mask].iloc[0]}


def shared_groups(manifest: Manifest, column: str) -> list[str]:
    """Groups (recordings, speakers) with clips in more than one split or fold."""
    table = manifest.table[manifest.table[column].notna()]
    parts = table.groupby("group")[column].nunique()
    return sorted(parts.index[parts > 1])


def group_notes(manifest: Manifest) -> list[str]:
    """A sentence for each column, split or fold, in which a group has several values."""
    notes = []
    for column in ("split", "fold"):
        shared = shared_groups(manifest, column)
        if shared:
            few = ", ".join(shared[:3]) + (", ..." if len(shared) > 3 else "")
            notes.append(
                f"{len(shared)} of {manifest.table['group'].nunique()} groups are in more than one {column}: {few}"
            )
    return notes


def write_page(result: Check, manifest: Manifest, out: Path) -> None:
    """Write the findings and the clips concerned as one HTML file."""
    table = result.table
    silent, loud = table["silent"] > 0.5, (table["clipped"] > _CLIPPED) | (table["peak"] > INTEGERS)
    unusual = table[(table["reason"].fillna("") != "") | silent | loud].head(1000)
    style = (
        "body{font:15px sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:.3em .8em;text-align:left}"
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in [*manifest.notes, *group_notes(manifest)])
    tables = [rows.to_html(index=False, border=0, float_format="%.4g") for rows in (result.findings, unusual)]
    write_text(
        out,
        f"<!doctype html><meta charset=utf-8><title>{html.escape(manifest.name)}</title><style>{style}</style>"
        f"<h1>{html.escape(manifest.source)}</h1><p>{len(result.table):,} clips</p><ul>{notes}</ul>"
        f"<h2>Findings</h2>{tables[0]}<h2>Clips</h2>{tables[1]}",
    )


def _load(journal: Path) -> dict[str, dict[str, Any]]:
    """{clip: its facts} of a journal: a line a clip, [clip, facts]. Damaged lines, such as the last one of a process
    that was killed, do not count."""
    facts_by_name = {}
    with contextlib.suppress(OSError), journal.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                name, facts = json.loads(line)
                facts_by_name[name] = dict(facts)
            except (ValueError, TypeError):
                continue
    return facts_by_name


def _keep(journal: Path, facts_by_name: dict[str, dict[str, Any]], keep: bool) -> None:
    """Add to the journal, unless nothing is to be kept."""
    if not keep or not facts_by_name:
        return
    lines = "".join(f"{json.dumps(item)}\n" for item in facts_by_name.items())
    with contextlib.suppress(OSError):  # a full or read-only disk: measured again next time
        journal.parent.mkdir(parents=True, exist_ok=True)
        with journal.open("ab") as file:
            file.write(f"\n{lines}".encode())  # on a line of its own, whatever a killed process left
