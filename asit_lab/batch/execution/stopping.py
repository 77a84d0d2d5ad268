"""How a point's process is told to stop: SIGTERM, or the end of the runner that started it."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress

from ...training.interrupt import Terminated
from . import processes

GRACE_SECONDS = 60.0  # for the step under way to be finished and saved


class Stopping:
    """Passes a request to stop on to whoever does the work, once: the kernel, or this process itself.

    A training under way finishes its step and saves its state (training/interrupt.py). What has not stopped after
    GRACE_SECONDS is killed: by the runner (supervise.py), or by this process itself where the runner is gone.
    """

    def __init__(self):
        self.asked = False
        self.kernel: int | None = None  # its process, while there is one

    def listen(self) -> None:
        """From now on. The runner holds the other end of standard input: when that closes, the runner is gone."""
        signal.signal(signal.SIGTERM, self._take)
        threading.Thread(target=self._await_the_runner_s_end, daemon=True).start()

    def _await_the_runner_s_end(self) -> None:
        with suppress(OSError):
            while os.read(sys.stdin.fileno(), 4096):
                pass
        os.kill(os.getpid(), signal.SIGTERM)
        self._insist()

    def _take(self, *_) -> None:
        self.asked = True
        if self.kernel is None:
            raise Terminated
        with suppress(ProcessLookupError):
            os.kill(self.kernel, signal.SIGTERM)

    def _insist(self) -> None:
        """End everything that is still there after a while, this process last."""
        time.sleep(GRACE_SECONDS)
        processes.end(processes.sessions(processes.family(os.getpid())))
        os._exit(128 + signal.SIGTERM)
