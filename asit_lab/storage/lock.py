"""Locks a run directory, so that only one process writes to it."""

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
    """Hold the lock of a run directory. The system releases it when the process ends, however it ends; loader processes
    do not inherit it.

    Raises InputError naming the process that holds it.
    """
    path = folder / ".lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=1)  # another process may hold it for a moment to test it
    except Timeout:
        raise InputError(
            f"{folder}: {_holder(path)} is writing to this run directory; wait for it, stop it, or choose another one"
        ) from None
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        path.write_text(json.dumps(holder), encoding="utf-8")
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']} (since {holder['since']})"
    except (OSError, ValueError):  # it has the lock but has not written its details yet
        return "another process"


def is_held(folder: Path) -> bool:
    """Whether a process is writing to a run directory: tries its lock and releases it at once."""
    try:
        with (folder / ".lock").open("rb") as file:  # read-only, so that the holder's details stay
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
