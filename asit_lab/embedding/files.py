"""Embeds audio files into one table, for users who only want vectors."""

import glob
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from tqdm import tqdm

from .. import audio
from ..checks import number
from ..config import resolve
from ..data.sources.clips import audio_files, noting_closed_folders
from ..encoder import Encoder
from ..errors import InputError
from ..paths import path_text
from ..storage.atomic import UNPRINTABLE, atomic_write
from ..storage.progress import passing_bar_style
from ..zoo import open_source

_Found = TypeVar("_Found")

TABLE_SUFFIXES = (".parquet", ".csv")
LONG_SECONDS = 600.0  # files above this are read in blocks
FILES_AT_ONCE, SECONDS_AT_ONCE = 32, 600.0  # a batch ends with the file that reaches either


@dataclass(frozen=True)
class Vectors:
    """The result of `embed_files`."""

    out: Path
    """the file it wrote"""
    table: pd.DataFrame
    """columns path, seconds (or start, end), d0, d1, ... (float32)"""
    skipped: list[tuple[str, str]]
    """(path, reason) of what could not be read"""
    notes: list[str]
    """what was unusual in files that were read, once a kind with the number of files"""


def embed_files(
    enc: Encoder | str | Path,
    files: str | Path | Sequence[str | Path],
    out: str | Path,
    pool: str = "mean",
    layer: int | None = None,
    overlap: float = 0.25,
    windows: float | None = None,
) -> Vectors:
    """Embed audio files and write one row a file: path as given or found, seconds, and the vector as d0, d1, ...

    enc: an Encoder, or what `zoo.open_source` takes. files: files, folders (all audio below them) and patterns such as
    "calls/**/*.wav", one or several; duplicates are embedded once, and the leading part of a pattern that exists is
    taken literally. out: .parquet (needs pyarrow; float32) or .csv (enough digits to restore the same float32), written
    atomically. A Parquet file keeps encoder, pool and layer as `pandas.read_parquet(out).attrs`.
    pool, layer, overlap: as in `Encoder.embed`.
    windows: one row for each window of this many seconds (the last of a file may be shorter), with `start` and `end`
    in s in place of `seconds`. Memory does not grow with the length of a file, with or without.
    What cannot be read is left out and listed in `skipped`. Raises InputError, before anything is read, for an `out`
    that cannot be written, and when nothing can be read, with the first reason.
    """
    out = check_table_path(resolve(out))
    enc = open_source(enc) if isinstance(enc, str | os.PathLike) else enc
    rate = enc.config.features.sample_rate
    if windows is not None and not enc.front_end.frames_of(round(number("windows", windows, "a length in s") * rate)):
        raise InputError(f"windows: {windows:g} s are shorter than one frame")
    paths, skipped = find_files(files)
    rows: list[tuple] = []
    vectors, notes = [], Counter[str]()
    clips = _windows(enc, paths, skipped, notes, windows) if windows else _whole_files(enc, paths, skipped, notes)
    bar = tqdm(total=len(paths), desc="embedding", unit="file", disable=None, **passing_bar_style())
    last = None
    for batch in _batches(clips, rate):
        for clip in batch:
            bar.update(clip.path != last)
            last = clip.path
        waves = [clip.wave for clip in batch if clip.wave is not None]
        if waves:
            vectors.append(enc.embed(waves, rate, pool, layer, overlap).float().cpu().numpy())
            rows += [(clip.path, *clip.place) for clip in batch]
            continue
        (clip,) = batch  # a long recording
        blocks = audio.blocks(resolve(clip.path), rate)
        try:
            vector = enc.embed_blocks(blocks, clip.samples, pool, layer, overlap)
        except InputError as error:
            skipped.append((clip.path, str(error)))
            continue
        vectors.append(vector.float().cpu().numpy()[None])
        rows.append((clip.path, *clip.place))
    bar.close()
    if not rows:
        raise InputError(f"nothing to embed: none of {len(skipped)} can be read, the first: {skipped[0][1]}")
    table = pd.DataFrame(rows, columns=["path", "start", "end"] if windows else ["path", "seconds"])
    values = np.concatenate(vectors)  # [rows, dim]
    table = pd.concat([table, pd.DataFrame(values, columns=[f"d{i}" for i in range(values.shape[1])])], axis=1)
    table.attrs = {"encoder": enc.name, "pool": pool, "layer": layer}
    write_table_file(table, out)
    return Vectors(out, table, skipped, [f"{count:,} {note}" for note, count in notes.most_common()])


def write_table_file(table: pd.DataFrame, out: Path) -> None:
    """Write a table atomically, as .csv or .parquet by its name."""
    with atomic_write(out) as temporary:
        if out.suffix.lower() == ".csv":
            table.to_csv(temporary, index=False, errors=UNPRINTABLE)
        else:
            paths = table["path"].map(lambda path: os.fsencode(path).decode("utf-8", UNPRINTABLE))
            table.assign(path=paths).to_parquet(temporary, engine="pyarrow", index=False)


def find_files(files: str | Path | Sequence[str | Path]) -> tuple[list[str], list[tuple[str, str]]]:
    """Paths of files, of the audio in folders and of what patterns match, each once; and (name, reason) where nothing
    was found. files: one name or several. Raises InputError for none."""
    paths_found: dict[str, None] = {}
    missing = []
    names = files if isinstance(files, list | tuple | set | np.ndarray | pd.Series) else [files]
    for name in map(path_text, names):
        place = resolve(name)
        matches = [name] if os.path.exists(place) else _matches(place)
        paths: list[str] = []
        closed: list[str] = []
        with noting_closed_folders(closed):
            for match in matches:
                folder = resolve(match)
                paths += map(str, audio_files(folder)) if os.path.isdir(folder) else [match]
        missing += [(name, f"{place}: {sentence}") for sentence in closed]
        if not paths and not closed:
            reason = "no audio files in it" if matches else "no such file or folder, and no match"
            missing.append((name, f"{place}: {reason}"))
        paths_found.update(dict.fromkeys(paths))
    if not paths_found and not missing:
        raise InputError("no files given; name files, folders or patterns")
    return list(paths_found), missing


def _matches(pattern: Path) -> list[str]:
    """Paths that match a pattern; its leading part that exists is taken literally, so a folder may be called "g
    [1]"."""
    existing = next(folder for folder in pattern.parents if os.path.exists(folder))
    return sorted(glob.glob(str(Path(glob.escape(str(existing)), pattern.relative_to(existing))), recursive=True))


def check_table_path(out: Path) -> Path:
    """`out`, if a table can be written there as .parquet or .csv. Raises InputError."""
    if out.suffix.lower() not in TABLE_SUFFIXES:
        raise InputError(f"{out}: give a name that ends in {' or '.join(TABLE_SUFFIXES)}")
    if out.is_dir():
        raise InputError(f"{out}: is a folder; give the name of a file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: its folder cannot be made: {error.strerror}") from None
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"{out}: its folder cannot be written to")
    if out.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise InputError(f"{out}: Parquet needs pyarrow: pip install pyarrow, or give a .csv") from None
    return out


@dataclass(frozen=True)
class _Clip:
    """What becomes a row."""

    path: str
    place: tuple[float, ...]
    """length, or start and end, s"""
    samples: int
    wave: np.ndarray | None
    """None: a file too long to be held in memory"""


def _whole_files(
    enc: Encoder, paths: Sequence[str], skipped: list[tuple[str, str]], notes: Counter[str]
) -> Iterator[_Clip]:
    """A clip a file, decoded on all cores; what cannot be read goes to `skipped`, what is odd is counted in `notes`."""
    for path, (clip, words) in zip(paths, _ahead(lambda path: _read(enc, path), paths), strict=True):
        if clip is None:
            skipped.append((path, words))
            continue
        if words:
            notes[words] += 1
        yield clip


def _read(enc: Encoder, path: str, counted: bool = True) -> tuple[_Clip | None, str]:
    """(clip, note), or (None, why the file cannot be used). counted: the samples of long files, by decoding them."""
    rate, place = enc.config.features.sample_rate, resolve(path)
    try:
        header = audio.info(place)
        if header.seconds > LONG_SECONDS:  # decoded twice: windows are spread evenly over the exact length
            samples = sum(map(len, audio.blocks(place, rate))) if counted else round(header.seconds * rate)
            wave = None
        else:
            wave = audio.read(place, rate)
            samples = len(wave)
    except InputError as error:
        return None, str(error)
    if not enc.front_end.frames_of(samples):
        return None, f"{path}: {samples} samples are shorter than one frame of {enc.front_end.frame}"
    return _Clip(path, (samples / rate,), samples, wave), header.note


def _ahead(function: Callable[[str], _Found], items: Sequence[str]) -> Iterator[_Found]:
    """`function` of each item in order, in threads that are a few items ahead."""
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Found]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _windows(
    enc: Encoder, paths: Sequence[str], skipped: list[tuple[str, str]], notes: Counter[str], seconds: float
) -> Iterator[_Clip]:
    """The windows of every file; those that hold no sound are left out alone. Short files are decoded on all cores."""
    rate = enc.config.features.sample_rate
    size = max(1, round(seconds * rate))
    for path, (clip, words) in zip(paths, _ahead(lambda path: _read(enc, path, counted=False), paths), strict=True):
        first, windows = 0, 0
        if clip is None or clip.wave is None:  # long, or with a reason to be looked at window by window
            blocks: Iterable[np.ndarray] = audio.blocks(resolve(path), rate, seconds, checked=False)
        else:
            blocks = (clip.wave[start : start + size] for start in range(0, clip.samples, size))
        if clip and words:
            notes[words] += 1
        try:
            for wave in blocks:
                start, end = first / rate, (first + len(wave)) / rate
                first += len(wave)
                try:
                    audio.check_samples(f"{path}, {start:g} to {end:g} s", wave)
                except InputError as error:
                    skipped.append((path, str(error)))
                    continue
                if enc.front_end.frames_of(len(wave)):  # else a rest
                    windows += 1
                    yield _Clip(path, (start, end), len(wave), wave)
        except InputError as error:
            skipped.append((path, str(error)))
            continue
        if not windows and (not skipped or skipped[-1][0] != path):
            skipped.append((path, words if clip is None else f"{path}: no window in it holds a frame"))


def _batches(clips: Iterable[_Clip], rate: int) -> Iterator[list[_Clip]]:
    """A few clips at a time; a long one by itself."""
    batch: list[_Clip] = []
    for clip in clips:
        if clip.wave is None:
            yield [clip]
            continue
        batch.append(clip)
        if len(batch) == FILES_AT_ONCE or sum(queued.samples for queued in batch) >= SECONDS_AT_ONCE * rate:
            yield batch
            batch = []
    if batch:
        yield batch
