"""Writes files atomically: complete or not at all, whatever happens meanwhile."""

import csv
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..errors import InputError
from .jsonable import plain

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, quota used up, file over the allowed size
UNPRINTABLE: Final = "backslashreplace"  # bytes of names that are no UTF-8 are written as \udce9, which JSON reads back
_LEFTOVER = re.compile(r"\..+\.\d+\.tmp|\.tmp\w{6}")  # names of unfinished files, ours and those of safetensors


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path; the file written there replaces `path` when the block ends without an error.

    Raises OSError with the file's name when the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{_short(path.name)}.{os.getpid()}.tmp")  # several processes may write it at once
    try:
        with naming(path):
            temporary.touch()
            mode = temporary.stat().st_mode  # by the user's umask; safetensors would let nobody else read it
            yield temporary
            temporary.chmod(mode)
            sync(temporary)  # else a power cut could leave the name without the contents
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _short(name: str) -> str:
    """A name that leaves room for more where names may have 255 bytes."""
    return name if len(os.fsencode(name)) < 200 else hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the file's name to the error of a full disk, which torch and safetensors wrap in errors of their own."""
    try:
        yield
    except Exception as error:
        number = _full(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _full(error: BaseException | None) -> int | None:
    """The errno when a full disk caused `error`, else None."""
    while error is not None:
        match = re.search(r"\(os error (\d+)\)", str(error))  # safetensors keeps no more than the text
        number = int(match[1]) if match else getattr(error, "errno", None)
        if number in FULL:
            return number
        error = error.__cause__ or error.__context__
    return None


def sync(path: Path) -> None:
    """Flush a file to disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def clear_leftovers(folder: Path) -> None:
    """Remove unfinished files of killed processes in a folder that is ours alone, not in those below it."""
    for path in folder.glob(".*"):
        if _LEFTOVER.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=UNPRINTABLE)


def write_json(path: Path, content: dict) -> None:
    """Write JSON atomically. Arrays and tensors become lists, tables a list of their rows."""
    write_text(path, json.dumps(content, indent=2, default=plain) + "\n")


def read_json(path: Path) -> dict:
    """The object in a JSON file, {} when there is no file. Raises InputError where there is something else in it."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected named entries, found a {type(content).__name__}")
    return content


def write_table(path: Path, header: list[str], rows: list[tuple]) -> None:
    """Write a small CSV atomically."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors=UNPRINTABLE) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
