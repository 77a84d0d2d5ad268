"""Finds, measures and ends the processes of an attempt at a point.

Every process of an attempt inherits a random token in its environment. So what belongs to an attempt is found even
after the process that started it is gone, and nothing else is ever ended: numbers of processes and sessions are reused,
and containers share them and the host's name.
"""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

TOKEN = "ASIT_LAB_ATTEMPT"
"""environment variable that holds the token of an attempt"""
_GONE = (psutil.NoSuchProcess, ProcessLookupError)
_WAIT_SECONDS = 10.0  # for killed processes to be gone


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it; empty when it is gone."""
    with suppress(*_GONE):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def memory(processes: Iterable[psutil.Process]) -> int:
    """Bytes these processes hold for themselves; what they share with others is left out."""
    total = 0
    for process in processes:
        with suppress(*_GONE, psutil.AccessDenied):
            total += process.memory_full_info().uss
    return total


def of_attempt(token: str) -> list[psutil.Process]:
    """Living processes, other than this one, that carry an attempt's token."""
    matching = []
    for process in psutil.process_iter():
        with suppress(*_GONE, psutil.AccessDenied, OSError):
            carries = process.pid != os.getpid() and process.environ().get(TOKEN) == token
            if carries and process.status() != psutil.STATUS_ZOMBIE:
                matching.append(process)
    return matching


def end_attempt(token: str | None) -> list[int]:
    """Kill every process of an attempt but this one, and wait until they are gone. Returns their process numbers."""
    ended: set[int] = set()
    deadline = time.monotonic() + _WAIT_SECONDS
    while token and (alive := of_attempt(token)) and time.monotonic() < deadline:
        for process in alive:
            with suppress(*_GONE):
                process.send_signal(signal.SIGKILL)
                ended.add(process.pid)
        psutil.wait_procs(alive, timeout=1.0)
    return sorted(ended)
