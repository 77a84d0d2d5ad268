"""Processes of a point: how much memory they take, and their certain end.

A point's process and its kernel lead a session each; loader processes are in one of the two. What belongs to a point
is therefore found even after the process that started it is gone.
"""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

_GONE = (psutil.NoSuchProcess, ProcessLookupError)
_WAIT = 10.0  # s that killed processes may take to be gone


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it; empty when it is gone."""
    with suppress(*_GONE):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def sessions(processes: Iterable[psutil.Process]) -> set[int]:
    """The sessions these processes are in."""
    found = set()
    for process in processes:
        with suppress(*_GONE):
            found.add(os.getsid(process.pid))
    return found


def memory(processes: Iterable[psutil.Process]) -> int:
    """Bytes these processes hold for themselves, what they share with others left out."""
    total = 0
    for process in processes:
        with suppress(*_GONE, psutil.AccessDenied):
            total += process.memory_full_info().uss
    return total


def end(leaders: Iterable[int], before: float | None = None) -> list[int]:
    """Kill all processes in these sessions and what descends from them, and wait until they are gone. Returns pids.

    before: only processes that began before this time (s since 1970); a number may have been given anew since.
    """
    wanted, ended = {leader for leader in leaders if leader != os.getsid(0)}, set()
    deadline = time.monotonic() + _WAIT
    while wanted:
        alive = _members(wanted, before)
        if not alive or time.monotonic() > deadline:
            break
        for process in alive:
            with suppress(*_GONE):
                process.send_signal(signal.SIGKILL)
                ended.add(process.pid)
        psutil.wait_procs(alive, timeout=1.0)
    return sorted(ended)


def _members(leaders: set[int], before: float | None) -> list[psutil.Process]:
    """Living processes of these sessions, with their descendants."""
    found = {}
    for process in psutil.process_iter():
        with suppress(*_GONE):
            if os.getsid(process.pid) in leaders and (before is None or process.create_time() < before):
                found |= {one.pid: one for one in family(process.pid)}
    return [process for process in found.values() if _alive(process)]


def _alive(process: psutil.Process) -> bool:
    with suppress(*_GONE):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
