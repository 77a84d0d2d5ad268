"""One point in a process of its own, watched from outside: limits on time and memory, requests to stop, a certain end.

`supervise` is what a worker does, of the local pool and of a Dask cluster alike.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...storage.atomic import write_text
from . import processes
from .state import ERROR, HEARTBEAT, HELD, LOG, Held, hold, read_status, state_of, worked_until_killed, write_state
from .stopping import GRACE_SECONDS

POLL_SECONDS = 0.5
_TOLD = (-signal.SIGTERM, -signal.SIGKILL, 128 + signal.SIGTERM)
_MORE_GRACE = 15.0  # s beyond what the point's process itself grants its kernel


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of a point; plain values, as it may go to another machine."""

    folder: str
    """the point's"""
    how: str
    """notebook or package"""
    stop: str
    """file that appears when the work is to be stopped"""
    hours: float
    """limit on the time of one attempt"""
    memory_gb: float | None
    """limit on memory"""
    threads: int
    environment: dict[str, str]


def supervise(job: Job) -> str:
    """Do a point and return the state it ended in, or "held" when another process is at work on it.

    Whatever happens inside, nothing of the point is running when this returns.
    """
    folder = Path(job.folder)
    earlier = read_status(folder).get("began")
    # Names of sockets may have no more than about 100 characters, so a kernel's cannot lie in the point's folder.
    with tempfile.TemporaryDirectory(prefix="asit-", dir="/tmp" if Path("/tmp").is_dir() else None) as runtime:
        code, reason, asked = _watch(_start(job, folder, runtime), job)
    if code == HELD:
        return "held"
    with suppress(OSError):  # a full disk: what is there already says that it was interrupted
        _write_down(folder, code, reason, asked, earlier)
    return state_of(folder).state


def _watch(child: subprocess.Popen, job: Job) -> tuple[int, str | None, bool]:
    """(exit status, limit it went over, whether it was told to stop) of a point's process, once all of it is gone."""
    stop = Path(job.stop)
    leaders, began, asked, reason = {child.pid}, time.monotonic(), None, None
    while child.poll() is None:
        time.sleep(POLL_SECONDS)
        members = processes.family(child.pid)
        leaders |= processes.sessions(members)
        now = time.monotonic()
        taken = processes.memory(members) if job.memory_gb else 0
        if job.memory_gb and taken > job.memory_gb * 1e9:
            reason = f"took {taken / 1e9:.3g} GB of memory, more than its limit of {job.memory_gb:g} GB"
        elif asked is None and now - began > job.hours * 3600:
            reason = f"took longer than its limit of {job.hours:g} h"
        elif asked is None and stop.exists():
            asked = now
            child.terminate()
        if reason or asked and (_size(stop) or now - asked > GRACE_SECONDS + _MORE_GRACE):
            break
    processes.end(leaders)
    child.wait()
    child.stdin.close()
    return child.returncode, reason, asked is not None


def _size(stop: Path) -> int:
    """Bytes of the file that tells to stop; some: at once."""
    with suppress(OSError):
        return stop.stat().st_size
    return 0


def _start(job: Job, folder: Path, runtime: str) -> subprocess.Popen:
    """The point's process, in a session of its own: Ctrl-C in a terminal is ours alone."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(job.threads))
    kernels = {"JUPYTER_RUNTIME_DIR": runtime, "JUPYTER_PREFER_ENV_PATH": "1"}  # this environment's before the user's
    command = [sys.executable, "-m", "asit_lab.batch.execution.child", str(folder), job.how]
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closes when we are gone
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **threads, **kernels, **job.environment},
        )


def _write_down(folder: Path, code: int, reason: str | None, asked: bool, earlier: float | None) -> None:
    """How it ended, where the point's process could not say so itself. earlier: when the attempt before it began."""
    try:
        with hold(folder):
            status, seconds = read_status(folder), worked_until_killed(folder)
            (folder / HEARTBEAT).unlink(missing_ok=True)
            if status.get("began") == earlier and code not in (0, *_TOLD) and not asked:
                text = f"its process ended with status {code} before it could begin; {folder / LOG} has its words"
                write_text(folder / ERROR, text + "\n")
                write_state(folder, "failed", text)
            elif status.get("state") == "running" and reason:
                write_text(folder / ERROR, f"The point {reason} and was ended.\n")
                write_state(folder, "failed", reason, seconds=seconds)
            elif status.get("state") == "running":
                write_state(folder, "interrupted", _why(folder, code, asked), seconds=seconds)
    except Held:
        pass  # another runner has taken it over already


def _why(folder: Path, code: int, asked: bool) -> str:
    """Why a point's process ended before it had written down how its work did."""
    if asked or code in (0, 128 + signal.SIGTERM):
        return "stopped"
    if code < 0:
        return f"its process was killed (signal {-code})"
    return f"its process ended with status {code}; {folder / LOG} has its words"
