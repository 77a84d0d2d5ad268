"""The process that does one point: `python -m asit_lab.batch.execution.child FOLDER notebook|package`, which
supervise.py starts.

It claims the point, does it, and writes down how it ended.
"""

import json
import os
import platform
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from ..._version import __version__
from ...errors import InputError
from ...storage.atomic import write_text
from ...storage.source_code import differences
from ...training.interrupt import Terminated
from ..inputs import code_inputs
from ..point import Point
from .execute import Failed, Killed, execute_notebook, without_notebook
from .processes import TOKEN, end_attempt
from .state import (
    ERROR,
    HELD,
    NOTEBOOK,
    RESULT,
    Claim,
    Held,
    hold,
    read_status,
    renewing,
    result_of,
    worked_until_killed,
    write_state,
)

STOP_GRACE_SECONDS = 60.0  # for the step under way to be finished and saved


class Stopping:
    """Passes a request to stop on, once, to whatever does the work: the kernel, or this process itself.

    The request is SIGTERM, or the end of the runner that started this process. A training under way finishes its step
    and saves its state (training/interrupt.py). What has not stopped after STOP_GRACE_SECONDS is killed: by the runner
    (supervise.py), or by this process itself where the runner is gone.
    """

    def __init__(self) -> None:
        self.requested = False
        self.kernel: int | None = None  # its process, while there is one

    def listen(self) -> None:
        """From now on. The runner holds the other end of standard input: when that closes, the runner is gone."""
        signal.signal(signal.SIGTERM, self._pass_on)
        threading.Thread(target=self._await_end_of_runner, daemon=True).start()

    def _await_end_of_runner(self) -> None:
        with suppress(OSError):
            while os.read(sys.stdin.fileno(), 4096):
                pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_GRACE_SECONDS)
        end_attempt(os.environ.get(TOKEN))
        os._exit(128 + signal.SIGTERM)

    def _pass_on(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        if self.kernel is None:
            raise Terminated
        with suppress(ProcessLookupError):
            os.kill(self.kernel, signal.SIGTERM)


def main() -> int:
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    stopping = Stopping()
    stopping.listen()
    try:
        with hold(folder) as left:
            if left.is_here:  # what is left of an attempt that was killed: its kernel may not have noticed yet
                end_attempt(left.about.get("token"))
            if not (read_status(folder).get("state") == "finished" and result_of(folder)):
                _work(folder, mode, stopping, left)
    except Held:
        return HELD
    except Terminated:
        return 128 + signal.SIGTERM
    return 0


def _work(folder: Path, mode: str, stopping: Stopping, left: Claim) -> None:
    """Do the point, and write down how that ended."""
    before, began = worked_until_killed(folder, left), time.time()
    _set_aside(folder)
    write_state(folder, "running", seconds=before, began=began, how=mode, **_environment())
    with renewing(folder):
        state, reason = _attempt(folder, mode, stopping)
        end_attempt(os.environ.get(TOKEN))
    write_state(folder, state, reason, seconds=before + time.time() - began)


def _attempt(folder: Path, mode: str, stopping: Stopping) -> tuple[str, str]:
    """(state, reason) that the work ended with; error.txt has the traceback where it failed."""
    try:
        point = Point.from_dict(json.loads((folder / "point.json").read_text(encoding="utf-8")))
        _check_code(point)
        if mode == "notebook":
            execute_notebook(folder, point, stopping)
        else:
            without_notebook(folder, point)
        if not result_of(folder):
            raise InputError(f"{folder / RESULT}: nothing readable there, though the point was done to its end")
        return "finished", ""
    except (Terminated, KeyboardInterrupt):
        return "interrupted", "stopped"
    except Killed as error:
        return "interrupted", "stopped" if stopping.requested else str(error)
    except Exception as error:
        if stopping.requested:  # what was under way was ended by our own signal
            return "interrupted", "stopped"
        with suppress(OSError):
            write_text(folder / ERROR, error.trace if isinstance(error, Failed) else traceback.format_exc())
        return "failed", str(error) if isinstance(error, Failed | InputError) else f"{type(error).__name__}: {error}"


def _check_code(point: Point) -> None:
    """Raises InputError where this process would compute with other code than the point is of."""
    if point.version != __version__:
        raise InputError(f"asit_lab is {__version__} on {socket.gethostname()}, the point is of {point.version}")
    of_code = {name: code for name, code in point.inputs.items() if name.endswith(".py")}
    changes = differences(of_code, code_inputs(point.config or {})) if of_code else []
    if changes:
        raise InputError(
            f"{', '.join(changes)} on {socket.gethostname()} after the study had begun; the same command again does "
            "the points of the code as it is now"
        )


def _set_aside(folder: Path) -> None:
    """Keep the notebook and traceback of an earlier attempt that failed."""
    if not (folder / ERROR).is_file():
        return
    number = 1 + len(list(folder.glob("failed-*.txt")))
    (folder / ERROR).rename(folder / f"failed-{number}.txt")
    if (folder / NOTEBOOK).is_file():
        (folder / NOTEBOOK).rename(folder / f"failed-{number}.ipynb")


def _environment() -> dict[str, Any]:
    """What the results may depend on: host, threads, versions."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(threads) if threads.isdecimal() else None
    versions = {"asit_lab": __version__, "python": platform.python_version(), "system": platform.platform()}
    return {"host": socket.gethostname(), "threads": threads, **versions}


if __name__ == "__main__":
    sys.exit(main())
