"""Where a point stands, from its files alone; and who may work on it.

status.json says what was reached. That somebody works on it now is not a line in a file but a lock that the system
takes back when the process ends; for other machines, whose locks this one may not see, a heartbeat that stays fresh.
"""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...storage.atomic import write_json
from ...storage.lock import only_writer
from . import processes

STATES = ("waiting", "running", "finished", "failed", "interrupted")
BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0  # without a heartbeat for this long, a process on another machine counts as gone
HELD = 75  # exit status of a point's process that found another one at work
# Names in a point's folder.
RUN, RESULT, NOTEBOOK, ERROR, LOG = "run", "run/result.json", "notebook.ipynb", "error.txt", "log.txt"
HEARTBEAT = "heartbeat.json"


class Held(InputError):
    """Another process works on this point."""


@dataclass(frozen=True)
class State:
    """Where a point stands."""

    state: str
    """one of STATES"""
    reason: str
    """why it failed or was interrupted"""
    held_by: str
    """who works on it"""
    share: float
    """how far its training is, 0 to 1; 0 where that is not known"""
    seconds: float
    """of work so far, over all attempts"""


def state_of(folder: Path) -> State:
    """Where the point in `folder` stands. Nothing is changed, and files that are cut off are no error."""
    from ...storage.lock import is_held

    status, beat = read_status(folder), read_beat(folder)
    seconds, share = float(status.get("seconds", 0.0)), _share(folder)
    said = status.get("state", "waiting")
    if is_held(folder) or _beats_elsewhere(folder, beat):
        who = f"process {beat.get('pid', '?')} on {beat.get('host', '?')}"
        return State("running", "", who, share, seconds + _since_start(folder, status))
    if said == "running":
        reason = "its process ended without a word (killed, or the machine went down)"
        return State("interrupted", reason, "", share, seconds + _since_start(folder, status))
    if said == "finished" and not result_of(folder):
        return State("interrupted", f"{folder / RESULT} is missing or cut off", "", share, seconds)
    return State(said, status.get("reason", ""), "", 1.0 if said == "finished" else share, seconds)


def result_of(folder: Path) -> dict[str, Any]:
    """The point's numbers; {} where there are none or the file is cut off."""
    return _read(folder / RESULT)


def read_status(folder: Path) -> dict[str, Any]:
    """What the last attempt wrote: state, reason, seconds, host, versions, ..."""
    return _read(folder / "status.json")


def read_beat(folder: Path) -> dict[str, Any]:
    """The last sign of life: pid, host, sessions."""
    return _read(folder / HEARTBEAT)


def beaten(folder: Path) -> float | None:
    """When that was, s since 1970, by the clock of the file system."""
    with suppress(OSError):
        return (folder / HEARTBEAT).stat().st_mtime
    return None


def write_state(folder: Path, state: str, reason: str = "", **about: Any) -> None:
    """Write status.json; what `about` does not say anew stays."""
    kept = read_status(folder)
    write_json(folder / "status.json", {**kept, "state": state, "reason": reason, **about, "updated": _now()})


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Work on a point alone. Raises Held, naming who does already."""
    folder.mkdir(parents=True, exist_ok=True)
    beat = read_beat(folder)
    if _beats_elsewhere(folder, beat):
        raise Held(f"{folder}: process {beat.get('pid')} on {beat.get('host')} works on this point")
    with ExitStack() as held:
        try:
            held.enter_context(only_writer(folder))
        except InputError as error:
            raise Held(str(error)) from None
        yield


@contextmanager
def beating(folder: Path) -> Iterator[None]:
    """Leave a sign of life every BEAT_SECONDS, from this process, and none after it."""
    done = threading.Event()

    def keep() -> None:
        while True:
            with suppress(OSError):  # a full disk is met elsewhere
                leaders = sorted(processes.sessions(processes.family(os.getpid())))
                about = {"pid": os.getpid(), "host": socket.gethostname(), "sessions": leaders}
                write_json(folder / HEARTBEAT, about)
            if done.wait(BEAT_SECONDS):
                return

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        (folder / HEARTBEAT).unlink(missing_ok=True)


def worked_until_killed(folder: Path) -> float:
    """Seconds of work so far; those of an attempt that was killed count up to its last sign of life."""
    status = read_status(folder)
    return float(status.get("seconds", 0.0)) + (_since_start(folder, status) if status.get("state") == "running" else 0)


def _since_start(folder: Path, status: dict) -> float:
    """Seconds from the start of the attempt to its last sign of life."""
    last = beaten(folder)
    return max(0.0, last - status["began"]) if last and status.get("began") else 0.0


def _beats_elsewhere(folder: Path, beat: dict) -> bool:
    """Whether a process on another machine gave a sign of life lately."""
    last = beaten(folder)
    return bool(last and beat.get("host") not in (None, socket.gethostname()) and time.time() - last < STALE_SECONDS)


def _share(folder: Path) -> float:
    """How far the training is, by the last row it has logged."""
    total = _read(folder / RUN / "status.json").get("total_steps") or 0
    with suppress(OSError):
        found = re.findall(rb"^(\d+),.*\n", (folder / RUN / "timings.csv").read_bytes(), re.MULTILINE)
        return min(1.0, (int(found[-1]) + 1) / total) if found and total else 0.0
    return 0.0


def _read(path: Path) -> dict[str, Any]:
    """Contents of a JSON file; {} where there is none, or one that is cut off."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
