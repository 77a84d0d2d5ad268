"""Does a point in this process: its notebook by papermill, or the same by package calls.

The kernel talks over files instead of ports, and its process is known, so that it can be told to stop.
"""

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ..notebook import read_notebook
from ..point import Point
from .state import NOTEBOOK, RUN

if TYPE_CHECKING:
    from .child import Stopping

_KILLED = (-signal.SIGKILL, -signal.SIGTERM)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Killed(Exception):
    """The kernel was killed from outside: nothing is wrong with the point, and it can be resumed."""


class Failed(Exception):
    """The notebook failed. Its text is the reason in one line, `trace` the whole traceback."""

    def __init__(self, reason: str, trace: str):
        super().__init__(reason)
        self.trace = trace


def execute_notebook(folder: Path, point: Point, stopping: "Stopping") -> None:
    """Run the point's notebook into folder/notebook.ipynb, which is saved after each cell, also where one fails.

    The kernel's files go to $JUPYTER_RUNTIME_DIR, which is this point's own.
    Raises Failed for an error in a cell and a kernel that ends by itself, Killed for one that was killed, InputError
    for a notebook whose code is not the point's any more.
    """
    if read_notebook(Path(point.notebook)).code != point.code:
        raise InputError(
            f"{point.notebook}: its code was changed after the study had begun; the same command again does the points "
            "of the notebook as it is now"
        )
    import papermill
    from jupyter_client.manager import AsyncKernelManager
    from papermill.exceptions import PapermillExecutionError

    started = []

    class OwnKernel(AsyncKernelManager):
        """A kernel over IPC whose process is known."""

        def __init__(self, **options: Any):
            # Without `ip` the sockets are in the working directory, and two kernels take each other's.
            super().__init__(transport="ipc", ip=f"{os.environ['JUPYTER_RUNTIME_DIR']}/kernel", **options)

        async def start_kernel(self, **options: Any) -> None:
            await super().start_kernel(**options)
            started.append(self.provisioner.process)
            stopping.kernel = self.provisioner.process.pid

    try:
        papermill.execute_notebook(
            point.notebook,
            folder / NOTEBOOK,
            parameters={**point.parameters, "out": str(folder / RUN)},
            kernel_manager_class=OwnKernel,
            progress_bar=False,
            cwd=Path(point.notebook).parent,
        )
    except PapermillExecutionError as error:
        raise Failed(_without_colours(f"{error.ename}: {error.evalue}"), _without_colours(str(error))) from None
    except RuntimeError as error:  # nbclient's DeadKernelError, and a kernel that did not start
        code = started[0].poll() if started else None
        if code in _KILLED:
            raise Killed(f"its kernel was killed (signal {-code})") from None
        how = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit status {code})"
        raise Failed(f"its kernel died{how}", f"{type(error).__name__}: {error}{how}") from None
    finally:
        stopping.kernel = None


def without_notebook(folder: Path, point: Point) -> None:
    """The same point by package calls alone."""
    from ..experiments import experiment

    experiment(**point.parameters, out=str(folder / RUN))


def check_without_notebook(point: Point) -> None:
    """Raises InputError for a point that only its notebook can do, or where a package is missing."""
    from ..experiments import PARAMETERS, check_packages

    check_packages()
    other = [name for name in point.parameters if name not in PARAMETERS]
    missing = [name for name in ("preset", "data", "overrides") if name not in point.parameters]
    if other or missing:
        raise InputError(
            f"{point.notebook}: only notebooks with the parameters {', '.join(PARAMETERS)} can be done without their "
            f"kernel; {'unknown: ' + other[0] if other else 'missing: ' + missing[0]}"
        )


def _without_colours(text: str) -> str:
    """Text without a terminal's colours."""
    return _COLOUR.sub("", text)
