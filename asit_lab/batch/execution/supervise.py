"""Watches one attempt at a point, in a process of its own: limits on time and memory, requests to stop, a certain end.

`supervise` is the task that a Dask worker does.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...storage.atomic import write_text
from .child import STOP_GRACE_SECONDS
from .processes import TOKEN, end_attempt, family, memory
from .state import ERROR, HELD, LOG, Held, hold, read_status, state_of, worked_until_killed, write_state

POLL_SECONDS = 0.5
_STOPPED = (-signal.SIGTERM, -signal.SIGKILL, 128 + signal.SIGTERM)
_MORE_GRACE_SECONDS = 15.0  # beyond what the point's process itself grants its kernel


@dataclass(frozen=True)
class Attempt:
    """What a worker needs for an attempt at a point; plain values, as it may go to another machine."""

    folder: str
    """the point's"""
    mode: str
    """notebook or package"""
    stop: str
    """file that appears when the work is to be stopped"""
    hours: float
    """limit on the time of this attempt"""
    memory_gb: float | None
    """limit on memory"""
    threads: int
    environment: dict[str, str]


def supervise(attempt: Attempt) -> str:
    """Do a point and return the state it ended in, or "held" when another process works on it.

    Whatever happens inside, nothing of the attempt is running when this returns.
    """
    folder = Path(attempt.folder)
    earlier = read_status(folder).get("began")
    # A socket's path may have no more than about 100 characters, so a kernel's cannot be in the point's folder.
    with tempfile.TemporaryDirectory(prefix="asit-", dir="/tmp" if Path("/tmp").is_dir() else None) as runtime:
        code, reason, stopped = _watch(attempt, runtime)
    if code == HELD:
        return "held"
    with suppress(OSError):  # a full disk: what is there already says that it was interrupted
        _write_down(folder, code, reason, stopped, earlier)
    return state_of(folder).state


def _watch(attempt: Attempt, runtime: str) -> tuple[int, str | None, bool]:
    """(exit status, limit it exceeded, whether it was told to stop) of a point's process, once all of it is gone."""
    token = uuid.uuid4().hex
    child, stop = _start(attempt, runtime, token), Path(attempt.stop)
    began, told_at, reason = time.monotonic(), None, None
    while child.poll() is None:
        time.sleep(POLL_SECONDS)
        now = time.monotonic()
        memory_bytes = memory(family(child.pid)) if attempt.memory_gb else 0
        if attempt.memory_gb and memory_bytes > attempt.memory_gb * 1e9:
            reason = f"took {memory_bytes / 1e9:.3g} GB of memory, more than its limit of {attempt.memory_gb:g} GB"
        elif told_at is None and now - began > attempt.hours * 3600:
            reason = f"took longer than its limit of {attempt.hours:g} h"
        elif told_at is None and stop.exists():
            told_at = now
            child.terminate()
        if reason or told_at and (_at_once(stop) or now - told_at > STOP_GRACE_SECONDS + _MORE_GRACE_SECONDS):
            break
    end_attempt(token)
    child.kill()
    child.wait()
    if child.stdin:
        child.stdin.close()
    return child.returncode, reason, told_at is not None


def _at_once(stop: Path) -> bool:
    """Whether the file that tells to stop has something in it: then nothing is waited for."""
    with suppress(OSError):
        return stop.stat().st_size > 0
    return False


def _start(attempt: Attempt, runtime: str, token: str) -> subprocess.Popen:
    """The point's process, in a session of its own: Ctrl-C in a terminal is the runner's alone."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(attempt.threads))
    kernels = {"JUPYTER_RUNTIME_DIR": runtime, "JUPYTER_PREFER_ENV_PATH": "1"}  # this environment's before the user's
    command = [sys.executable, "-m", "asit_lab.batch.execution.child", attempt.folder, attempt.mode]
    with (Path(attempt.folder) / LOG).open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closes when the runner is gone
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **threads, **kernels, **attempt.environment, TOKEN: token},
        )


def _write_down(folder: Path, code: int, reason: str | None, stopped: bool, earlier: float | None) -> None:
    """How an attempt ended, where its process could not say so itself. earlier: when the attempt before it began."""
    try:
        with hold(folder) as left:
            status, seconds = read_status(folder), worked_until_killed(folder, left)
            if status.get("began") == earlier and code not in (0, *_STOPPED) and not stopped:
                text = f"its process ended with status {code} before it could begin; {folder / LOG} has its words"
                write_text(folder / ERROR, text + "\n")
                write_state(folder, "failed", text)
            elif status.get("state") == "running" and reason:
                write_text(folder / ERROR, f"The point {reason} and was ended.\n")
                write_state(folder, "failed", reason, seconds=seconds)
            elif status.get("state") == "running":
                write_state(folder, "interrupted", _why(folder, code, stopped), seconds=seconds)
    except Held:
        pass  # another runner has taken it over already


def _why(folder: Path, code: int, stopped: bool) -> str:
    """Why a point's process ended before it had written down how its work did."""
    if stopped or code in (0, 128 + signal.SIGTERM):
        return "stopped"
    if code < 0:
        return f"its process was killed (signal {-code})"
    return f"its process ended with status {code}; {folder / LOG} has its words"
