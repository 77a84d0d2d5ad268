"""What a data source lists, before any file is opened."""

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError

# Suffixes of formats libsndfile reads. Headerless .raw is left out: its rate is not in the file.
SUFFIXES = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64")
    + (".voc", ".sph", ".nist", ".sf", ".ircam", ".avr", ".paf", ".svx", ".8svx", ".iff", ".wve")
)


@dataclass(frozen=True)
class Clip:
    """One recording (or a set stretch of it) as a data source lists it."""

    path: str
    label: str = ""
    fold: int | None = None
    split: str | None = None  # train, valid or test
    group: str | None = None  # source recording; the path where unknown
    start: float | None = None  # s, for a set stretch of a longer file
    seconds: float | None = None  # s, likewise


@dataclass
class Listing:
    """Clips of a data source, and what its user should know about them."""

    clips: list[Clip]
    notes: list[str] = field(default_factory=list)


def is_audio(path: Path) -> bool:
    """Whether the name is that of an audio file (hidden files, such as macOS' ._x.wav, are not)."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def audio_files(folder: Path) -> list[Path]:
    """Every audio file below `folder`, sorted; hidden files and folders left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if is_audio(path) and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def check_folder(path: Path, source: str) -> None:
    """Raise InputError unless `path` is a folder; an archive gets its own sentence."""
    if not path.exists():
        raise InputError(f"data source {source!r}: {path} does not exist")
    if path.is_file() and path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz"):
        raise InputError(f"data source {source!r}: {path} is an archive: unpack it and give the folder")
    if not path.is_dir():
        raise InputError(f"data source {source!r}: {path} is a file; a folder is expected")
    if not any(path.iterdir()):
        raise InputError(f"data source {source!r}: the folder {path} is empty")


def find_root(path: Path, needed: str, source: str, depth: int = 2) -> Path:
    """`path`, or the nearest folder at most `depth` levels below it, that holds the file `needed`.

    Raises InputError if there is none, or several equally near.
    """
    check_folder(path, source)
    level = [path]
    for _ in range(depth + 1):
        found = [folder for folder in level if (folder / needed).is_file()]
        if len(found) > 1:
            raise InputError(f"data source {source!r}: several in {path}: {', '.join(map(str, found))}; give one")
        if found:
            return found[0]
        level = sorted(child for folder in level for child in folder.iterdir() if child.is_dir())
    raise InputError(f"data source {source!r}: {needed} not found in {path}; give the folder that holds it")
