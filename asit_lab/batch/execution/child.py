"""The process that does one point: `python -m asit_lab.batch.execution.child FOLDER notebook|package`,
started by supervise.py.

It holds the point, gives signs of life, and writes down how it ended.
"""

import json
import os
import platform
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from ..._version import __version__
from ...errors import InputError
from ...storage.atomic import write_text
from ...training.interrupt import Terminated
from ..point import Point
from . import processes
from .execute import Failed, Killed, execute_notebook, without_notebook
from .state import (
    ERROR,
    HELD,
    NOTEBOOK,
    RESULT,
    Held,
    beaten,
    beating,
    hold,
    read_beat,
    read_status,
    result_of,
    worked_until_killed,
    write_state,
)
from .stopping import Stopping


def main() -> int:
    folder, how = Path(sys.argv[1]), sys.argv[2]
    stopping = Stopping()
    stopping.listen()
    try:
        with hold(folder):
            _end_leftovers(folder)
            if not (read_status(folder).get("state") == "finished" and result_of(folder)):
                _work(folder, how, stopping)
    except Held:
        return HELD
    except Terminated:
        return 143
    return 0


def _end_leftovers(folder: Path) -> None:
    """End what is left of an attempt whose process was killed: its kernel may not have noticed yet."""
    left, last = read_beat(folder), beaten(folder)
    if last and left.get("host") == socket.gethostname():
        processes.end(left.get("sessions", []), before=last)


def _work(folder: Path, how: str, stopping: Stopping) -> None:
    """Do the point, and write down how that ended."""
    before, began = worked_until_killed(folder), time.time()
    about = {"began": began, "how": how, "host": socket.gethostname(), "threads": _threads(), **_versions()}
    _set_aside(folder)
    write_state(folder, "running", seconds=before, **about)
    with beating(folder):
        ended, reason = _attempt(folder, how, stopping)
        processes.end(processes.sessions(processes.family(os.getpid())))
    write_state(folder, ended, reason, seconds=before + time.time() - began)


def _attempt(folder: Path, how: str, stopping: Stopping) -> tuple[str, str]:
    """(state, reason) that the work ended with; error.txt has the traceback where it failed."""
    try:
        point = Point.from_dict(json.loads((folder / "point.json").read_text(encoding="utf-8")))
        if point.version != __version__:
            raise InputError(f"asit_lab is {__version__} on {socket.gethostname()}, the point is of {point.version}")
        if how == "notebook":
            execute_notebook(folder, point, stopping)
        else:
            without_notebook(folder, point)
        if not result_of(folder):
            raise InputError(f"{folder / RESULT}: nothing readable there, though the point was done to its end")
        return "finished", ""
    except (Terminated, KeyboardInterrupt):
        return "interrupted", "stopped"
    except Killed as error:
        return "interrupted", "stopped" if stopping.asked else str(error)
    except Exception as error:
        if stopping.asked:  # what was under way was ended by our own signal
            return "interrupted", "stopped"
        with suppress(OSError):
            write_text(folder / ERROR, error.trace if isinstance(error, Failed) else traceback.format_exc())
        return "failed", str(error) if isinstance(error, Failed | InputError) else f"{type(error).__name__}: {error}"


def _set_aside(folder: Path) -> None:
    """Keep what an earlier attempt that failed has left: notebook and traceback."""
    if not (folder / ERROR).is_file():
        return
    number = 1 + len(list(folder.glob("failed-*.txt")))
    (folder / ERROR).rename(folder / f"failed-{number}.txt")
    if (folder / NOTEBOOK).is_file():
        (folder / NOTEBOOK).rename(folder / f"failed-{number}.ipynb")


def _threads() -> int | None:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() else None


def _versions() -> dict[str, str]:
    return {"asit_lab": __version__, "python": platform.python_version(), "system": platform.platform()}


if __name__ == "__main__":
    sys.exit(main())
