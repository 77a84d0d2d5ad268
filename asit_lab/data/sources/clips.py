"""Clips as a data source lists them, before any file is opened, and the search for audio files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from ...audio import CONTAINER_SUFFIXES
from ...errors import InputError

# Suffixes of formats libsndfile reads, and of those that PyAV does, which may be missing: such files are listed all the
# same, with what adds it. Headerless .raw is left out: its rate is not in the file.
SUFFIXES = CONTAINER_SUFFIXES | frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64")
    + (".voc", ".sph", ".nist", ".sf", ".ircam", ".avr", ".paf", ".svx", ".8svx", ".iff", ".wve")
)


_NOT_DATA = ("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found")  # folders that systems make
_CLOSED: ContextVar[dict[str, str]] = ContextVar("closed folders")  # folder -> why it cannot be opened


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording (or a set stretch of it) as a data source lists it."""

    path: str
    label: str = ""  # several of a multi-label data set are joined, see labels.py
    fold: int | None = None
    split: str | None = None  # train, valid or test
    group: str | None = None  # source recording; the path where unknown
    start: float | None = None  # s, for a set stretch of a longer file
    seconds: float | None = None  # s, set where `start` is; infinite: to the end of the file
    maybe_cut: bool = False  # the file may hold nothing but the stretch already, which its length tells


@dataclass
class Listing:
    """Clips of a data source, and what its user should know about them."""

    clips: list[Clip]
    notes: list[str] = field(default_factory=list)
    multi: bool = False
    """a clip may have several labels, or none"""
    labels: list[str] | None = None
    """the data set's own list of its classes, in its order; None: what the clips are labelled with"""


def is_audio(path: Path) -> bool:
    """Whether the name is that of an audio file (hidden files, such as macOS' ._x.wav, are not)."""
    return _has_audio_suffix(path.name)


def _has_audio_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


@contextmanager
def noting_closed_folders(notes: list[str]) -> Iterator[None]:
    """Inside, folders that cannot be opened are left out of a search for files; afterwards `notes` has a sentence on
    them. An InputError gets the sentence, too, as it may be their absence that causes it."""
    closed: dict[str, str] = {}
    token = _CLOSED.set(closed)
    try:
        yield
    except InputError as error:
        if not closed:
            raise
        raise InputError(f"{error}; {_sentence(closed)}") from None
    finally:
        _CLOSED.reset(token)
    if closed:
        notes.append(_sentence(closed))


def _sentence(closed: dict[str, str]) -> str:
    few = ", ".join(f"{folder} ({reason})" for folder, reason in list(closed.items())[:3])
    folders = "1 folder" if len(closed) == 1 else f"{len(closed):,} folders"
    return f"{folders} cannot be opened, so files inside are left out: {few}{', ...' * (len(closed) > 3)}"


def _note_closed(error: OSError) -> None:
    if isinstance(error, FileNotFoundError | NotADirectoryError):  # removed meanwhile
        return
    _CLOSED.get({})[os.fsdecode(error.filename)] = error.strerror or str(error)


def entries(folder: Path) -> list[Path]:
    """Files and folders in a folder, sorted; none where it cannot be opened."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        _note_closed(error)
        return []


def walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(folder, names of the files in it, sorted) of `folder` and all below it, in a stable order.

    Hidden files and folders are left out. Links to folders are followed, every real folder is visited once. Folders
    that cannot be opened are left out (see `noting_closed_folders`).
    """
    visited = set()
    for path, folders, names in os.walk(folder, followlinks=True, onerror=_note_closed):
        real = os.path.realpath(path)
        if real in visited:  # a link in a circle, or a second link to the same folder
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _NOT_DATA)
        yield path, sorted(name for name in names if not name.startswith("."))


def audio_files(folder: Path) -> list[Path]:
    """Every audio file below `folder`, sorted; hidden files and folders left out."""
    files = (Path(path, name) for path, names in walk(folder) for name in names if _has_audio_suffix(name))
    return sorted(files, key=lambda file: file.parts)


def check_is_folder(path: Path, source: str) -> None:
    """Raise InputError unless `path` is a folder with files; an archive gets a message of its own."""
    if not path.exists():
        raise InputError(f"data source {source!r}: {path} does not exist")
    if path.is_file() and path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz"):
        raise InputError(f"data source {source!r}: {path} is an archive: unpack it and give the folder")
    if path.is_file() and path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise InputError(f"data source {source!r}: {path} is a spreadsheet: save it as CSV")
    if not path.is_dir():
        raise InputError(f"data source {source!r}: {path} is a file; a folder is expected")
    try:
        empty = not any(path.iterdir())
    except OSError as error:
        raise InputError(f"data source {source!r}: the folder {path} cannot be opened: {error.strerror}") from None
    if empty:
        raise InputError(f"data source {source!r}: the folder {path} is empty")


def find_root(path: Path, needed: str, source: str, depth: int = 2, hint: str = "") -> Path:
    """`path`, or the nearest folder at most `depth` levels below it, that holds the file `needed`.

    Raises InputError if there is none (`hint` says where it comes from), or several equally near.
    """
    check_is_folder(path, source)
    level = [path]
    for _ in range(depth + 1):
        roots = [folder for folder in level if os.path.isfile(folder / needed)]
        if len(roots) > 1:
            raise InputError(f"data source {source!r}: several in {path}: {', '.join(map(str, roots))}; give one")
        if roots:
            return roots[0]
        level = sorted(child for folder in level for child in entries(folder) if os.path.isdir(child))
    suggestion = f". {hint}" if hint else ""
    raise InputError(f"data source {source!r}: {needed} not found in {path}; give the folder that holds it{suggestion}")
