"""Reads the state of a point from its files, and gives one process alone the claim to work on it.

status.json says what was reached. That a process works on the point now is not a line in a file but a lock, which the
system takes back when the process ends. Other machines may not see that lock: for them there is the claim, a file that
one process alone can create, and whose time of change its owner keeps fresh.
"""

import functools
import json
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...storage.atomic import write_json
from ...storage.lock import is_held, only_writer
from .processes import TOKEN

STATES = ("waiting", "running", "finished", "failed", "interrupted")
BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0  # a claim that was not renewed for this long counts as given up
HELD = 75  # exit status of a point's process that found another one at work
# Names in a point's folder.
RUN, RESULT, NOTEBOOK, ERROR, LOG = "run", "run/result.json", "notebook.ipynb", "error.txt", "log.txt"
CLAIM = ".claim-{}.json"


class Held(InputError):
    """Another process works on this point."""


@dataclass(frozen=True)
class State:
    """The state of a point."""

    state: str
    """one of STATES"""
    reason: str
    """why it failed or was interrupted"""
    held_by: str
    """the process that works on it"""
    share: float
    """how far its training is, 0 to 1; 0 where that is not known"""
    seconds: float
    """of work so far, over all attempts"""


def state_of(folder: Path) -> State:
    """The state of the point in `folder`. Nothing is changed, and files that are cut off are no error."""
    status, claim = read_status(folder), read_claim(folder)
    seconds, share = float(status.get("seconds", 0.0)), _share(folder)
    recorded = status.get("state", "waiting")
    if is_held(folder) or claim.is_elsewhere:
        return State("running", "", claim.owner, share, seconds + _since_start(claim, status))
    if recorded == "running":
        reason = "its process ended without a word (killed, or the machine went down)"
        return State("interrupted", reason, "", share, seconds + _since_start(claim, status))
    if recorded == "finished" and not result_of(folder):
        return State("interrupted", f"{folder / RESULT} is missing or cut off", "", share, seconds)
    return State(recorded, status.get("reason", ""), "", 1.0 if recorded == "finished" else share, seconds)


def result_of(folder: Path) -> dict[str, Any]:
    """The point's numbers; {} where there are none or the file is cut off."""
    return _read(folder / RESULT)


def read_status(folder: Path) -> dict[str, Any]:
    """What the last attempt wrote: state, reason, seconds, host, versions, ..."""
    return _read(folder / "status.json")


def write_state(folder: Path, state: str, reason: str = "", **about: Any) -> None:
    """Write status.json; entries that `about` does not replace stay."""
    status, now = read_status(folder), time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_json(folder / "status.json", {**status, "state": state, "reason": reason, **about, "updated": now})


def worked_until_killed(folder: Path, left: "Claim") -> float:
    """Seconds of work so far. Those of an attempt that was killed count up to the last renewal of its claim `left`."""
    status = read_status(folder)
    killed = status.get("state") == "running"
    return float(status.get("seconds", 0.0)) + (_since_start(left, status) if killed else 0.0)


def _since_start(claim: "Claim", status: dict[str, Any]) -> float:
    """Seconds from the start of the attempt to the last renewal of its claim."""
    return max(0.0, claim.renewed - status["began"]) if claim.renewed and status.get("began") else 0.0


def _share(folder: Path) -> float:
    """How far the training is, by the last row it has logged."""
    total = _read(folder / RUN / "status.json").get("total_steps") or 0
    with suppress(OSError):
        steps = re.findall(rb"^(\d+),.*\n", (folder / RUN / "timings.csv").read_bytes(), re.MULTILINE)
        return min(1.0, (int(steps[-1]) + 1) / total) if steps and total else 0.0
    return 0.0


def _read(path: Path) -> dict[str, Any]:
    """Contents of a JSON file; {} where there is none, or one that is cut off."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


# --- Claims ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A claim on a point.

    Claims are numbered, and numbers only grow: a claim that is released or stale stays as a file until the next one is
    made. So of all machines that find the same one to be over, exactly one can create the next.
    """

    number: int = 0
    """0: the point was never claimed"""
    about: dict[str, Any] = field(default_factory=dict)
    """pid, host, machine, token of its owner; released"""
    renewed: float | None = None
    """when its owner last renewed it, s since 1970, by the clock of the file system; None: released, or none"""

    @property
    def owner(self) -> str:
        return f"process {self.about.get('pid', '?')} on {self.about.get('host', '?')}"

    @property
    def is_here(self) -> bool:
        """Whether its owner is, or was, a process of this machine."""
        return self.about.get("machine") == machine()

    @property
    def is_elsewhere(self) -> bool:
        """Whether a process of another machine holds it; of this machine's own, the lock says that."""
        return self.renewed is not None and not self.is_here and time.time() - self.renewed < STALE_SECONDS


def read_claim(folder: Path) -> Claim:
    """The newest claim on the point in `folder`."""
    path = max(folder.glob(CLAIM.format("[0-9]*")), key=_number, default=None)
    if path is None:
        return Claim()
    about = _read(path)
    try:
        renewed = None if about.get("released") else path.stat().st_mtime
    except OSError:
        renewed = None
    return Claim(_number(path), about, renewed)


@contextmanager
def hold(folder: Path) -> Iterator[Claim]:
    """Be the one process that works on a point. Gives the claim before this one. Raises Held, naming the owner."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as lock:
        try:
            lock.enter_context(only_writer(folder))
        except InputError as error:
            raise Held(str(error)) from None
        before = read_claim(folder)
        if before.is_elsewhere:
            raise Held(f"{folder}: {before.owner} works on this point")
        path = _claim(folder, before)
        try:
            yield before
        finally:
            with suppress(OSError):  # a full disk: the claim becomes stale instead
                if path.exists():
                    write_json(path, {**_read(path), "released": True})


def _claim(folder: Path, before: Claim) -> Path:
    """Create the claim that follows `before`. Raises Held where another machine did so in the meantime."""
    path = folder / CLAIM.format(before.number + 1)
    about = {"pid": os.getpid(), "host": socket.gethostname(), "machine": machine(), "token": os.environ.get(TOKEN)}
    try:
        with path.open("x", encoding="utf-8") as file:  # O_EXCL: the file system lets one alone create it
            file.write(json.dumps(about))
    except FileExistsError:
        raise Held(f"{folder}: {read_claim(folder).owner} has just begun to work on this point") from None
    for older in folder.glob(CLAIM.format("[0-9]*")):
        if _number(older) < _number(path):
            older.unlink(missing_ok=True)
    return path


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


@contextmanager
def renewing(folder: Path) -> Iterator[None]:
    """Renew this process's claim every BEAT_SECONDS. Where another one has taken the point over (this machine slept,
    say), the process is asked to stop."""
    path, done = folder / CLAIM.format(read_claim(folder).number), threading.Event()

    def renew() -> None:
        while not done.wait(BEAT_SECONDS):
            try:
                os.utime(path)
            except FileNotFoundError:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except OSError:
                continue  # the file system is away for a moment

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@functools.cache
def machine() -> str:
    """What tells machines apart, and containers too: they may share the host's name and its process numbers."""
    with suppress(OSError):
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{kernel} {os.readlink('/proc/self/ns/pid')}"
    return f"{socket.gethostname()}-{uuid.getnode()}"
