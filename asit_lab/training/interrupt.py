"""Handles Ctrl-C, a notebook's interrupt and SIGTERM: the current step is finished and saved first."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

STOPS = ("terminated", "interrupted", "collapsed")
"""reasons to stop a run before its end; of several, the first counts"""

_NOTE = b"\nfinishing the step and saving; Ctrl-C once more stops at once\n"


class Terminated(SystemExit):
    """Ends a process that got SIGTERM, with the status that shells report for it: 143."""

    def __init__(self):
        super().__init__(128 + signal.SIGTERM)


class Signals:
    """Inside `with`, in the main thread, SIGINT and SIGTERM wait for the end of a step once `patient` is true.

    Before that they raise KeyboardInterrupt and Terminated. A second SIGINT always does. Other threads have no
    handlers; a signal that the process ignores (nohup, `&` in a script) stays ignored.
    """

    def __init__(self):
        self.requested: str | None = None  # one of STOPS
        self.patient = False
        self._before = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (None, signal.SIG_IGN):  # None: not set from Python, so it could not be put back
                    self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def saving(self, hook: Callable[..., None] | None) -> Callable[..., None] | None:
        """The user's hook, whose KeyboardInterrupt ends the run as a first Ctrl-C does: with its state saved."""
        if hook is None:
            return None

        def called(*arguments: Any) -> None:
            try:
                hook(*arguments)
            except KeyboardInterrupt:
                if self.requested == "interrupted":
                    raise  # the second
                self.requested = self.requested or "interrupted"

        return called

    def _take(self, number: int, _frame: FrameType | None) -> None:
        second = self.requested == "interrupted" and number == signal.SIGINT
        if number == signal.SIGTERM:
            self.requested = "terminated"
        else:
            self.requested = self.requested or "interrupted"
        if number == signal.SIGINT and (second or not self.patient):
            raise KeyboardInterrupt
        if not self.patient:
            raise Terminated
        if number == signal.SIGINT:
            with suppress(OSError):
                os.write(2, _NOTE)  # print is not safe in a signal handler
