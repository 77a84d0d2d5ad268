"""One writer a run directory."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a run directory. The system lets go of it when the process ends, however it ends; loader processes do not
    hold it.

    Raises InputError naming the process that holds it.
    """
    path = folder / ".lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=1)  # a moment: others look whether it is held
    except Timeout:
        raise InputError(
            f"{folder}: {_holder(path)} is writing to this run directory; wait for it, stop it, or choose another one"
        ) from None
    try:
        about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        path.write_text(json.dumps(about), encoding="utf-8")
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return f"process {about['pid']} on {about['host']} (since {about['since']})"
    except (OSError, ValueError):  # it has the lock and has not written yet
        return "another process"


def is_held(folder: Path) -> bool:
    """Whether a process is writing to a run directory: its lock is asked for and let go of at once."""
    try:
        with (folder / ".lock").open("rb") as file:  # only read: what it says of its holder stays
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
