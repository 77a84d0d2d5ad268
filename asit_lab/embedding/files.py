"""Audio files -> one table of clip embeddings, for people who only want vectors."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from .. import audio
from ..config import resolve
from ..data.sources.clips import audio_files
from ..encoder import Encoder
from ..errors import InputError
from ..storage.atomic import UNPRINTABLE, whole
from ..storage.progress import passing_bar_style

FORMATS = (".parquet", ".csv")
FILES_AT_ONCE, SECONDS_AT_ONCE = 32, 600.0  # a batch ends with the file that reaches either


@dataclass(frozen=True)
class Vectors:
    """What `embed_files` made."""

    out: Path
    """the file it wrote"""
    table: pd.DataFrame
    """columns path, seconds, d0, d1, ... (float32)"""
    skipped: list[tuple[str, str]]
    """(path, reason) of what could not be read"""


def embed_files(
    enc: Encoder,
    files: str | Path | Sequence[str | Path],
    out: str | Path,
    pool: str = "mean",
    layer: int | None = None,
    overlap: float = 0.25,
) -> Vectors:
    """Embed audio files and write one row a file: path as given or found, seconds, and the vector as d0, d1, ...

    files: files, folders (all audio below them) and patterns such as "calls/**/*.wav", one of them or several; what is
    named twice is taken once, and in a pattern the folders that exist are taken by their names, whatever signs these
    have. out: .parquet (needs pyarrow; float32) or .csv (digits enough to give the same float32 back), written whole or
    not at all. A Parquet file keeps encoder, pool and layer as `pandas.read_parquet(out).attrs`.
    pool, layer, overlap: as in `Encoder.embed`.
    What cannot be read is left out and listed in `skipped`. Raises InputError, before anything is read, for an `out`
    that cannot be written, and when nothing can be read, with the first reason.
    """
    out = check_table_path(resolve(out))
    paths, skipped = find_files(files)
    rate, rows, vectors = enc.config.features.sample_rate, [], []
    for batch in _batches(enc, paths, skipped):
        vectors.append(enc.embed(list(batch.values()), rate, pool, layer, overlap).float().cpu().numpy())
        rows += [(path, len(wave) / rate) for path, wave in batch.items()]
    if not paths and not skipped:
        raise InputError("no files given; name files, folders or patterns")
    if not rows:
        raise InputError(f"nothing to embed: none of {len(skipped)} can be read, the first: {skipped[0][1]}")
    table = pd.DataFrame(rows, columns=["path", "seconds"])
    found = np.concatenate(vectors)  # [files, dim]
    table = pd.concat([table, pd.DataFrame(found, columns=[f"d{i}" for i in range(found.shape[1])])], axis=1)
    table.attrs = {"encoder": enc.name, "pool": pool, "layer": layer}
    write_table_file(table, out)
    return Vectors(out, table, skipped)


def write_table_file(table: pd.DataFrame, out: Path) -> None:
    """Write a table as the name says, .csv or .parquet, whole or not at all."""
    with whole(out) as temporary:
        if out.suffix.lower() == ".csv":
            table.to_csv(temporary, index=False, errors=UNPRINTABLE)
        else:
            paths = table["path"].map(lambda path: os.fsencode(path).decode("utf-8", UNPRINTABLE))
            table.assign(path=paths).to_parquet(temporary, engine="pyarrow", index=False)


def find_files(files: str | Path | Sequence[str | Path]) -> tuple[list[str], list[tuple[str, str]]]:
    """Paths of files, of the audio in folders and of what patterns match, each once; and (name, reason) where nothing
    was found. files: one name or several."""
    paths_found: dict[str, None] = {}
    missing = []
    for name in map(str, [files] if isinstance(files, str | Path) else files):
        place = resolve(name)
        matches = [name] if place.exists() else _matches(place)
        paths = []
        for match in matches:
            folder = resolve(match)
            paths += map(str, audio_files(folder)) if folder.is_dir() else [match]
        if not paths:
            reason = "no audio files in it" if matches else "no such file or folder, and no match"
            missing.append((name, f"{place}: {reason}"))
        paths_found.update(dict.fromkeys(paths))
    return list(paths_found), missing


def _matches(pattern: Path) -> list[str]:
    """Paths that match; the part of the pattern that exists is none, so a folder may be called "g [1]"."""
    existing = next(folder for folder in pattern.parents if folder.exists())
    return sorted(glob.glob(str(Path(glob.escape(str(existing)), pattern.relative_to(existing))), recursive=True))


def check_table_path(out: Path) -> Path:
    """`out`, if a table can be written there as .parquet or .csv. Raises InputError."""
    if out.suffix.lower() not in FORMATS:
        raise InputError(f"{out}: give a name that ends in {' or '.join(FORMATS)}")
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


def _batches(enc: Encoder, paths: list[str], skipped: list[tuple[str, str]]) -> Iterator[dict[str, np.ndarray]]:
    """Waveforms of a few files at a time; what cannot be read goes to `skipped`."""
    rate, batch = enc.config.features.sample_rate, {}
    for path in tqdm(
        paths, desc="embedding", unit="file", disable=None, **passing_bar_style()
    ):  # not shown where nobody looks
        try:
            wave = audio.read(resolve(path), rate)
        except InputError as error:
            skipped.append((path, str(error)))
            continue
        if not enc.front_end.frames_of(len(wave)):
            skipped.append((path, f"{path}: {len(wave)} samples are shorter than one frame of {enc.front_end.frame}"))
            continue
        batch[path] = wave
        if len(batch) == FILES_AT_ONCE or sum(map(len, batch.values())) >= SECONDS_AT_ONCE * rate:
            yield batch
            batch = {}
    if batch:
        yield batch
