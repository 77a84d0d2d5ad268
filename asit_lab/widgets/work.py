"""Runs long work of an explorer: a progress bar with the time left, and a button to cancel."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ipywidgets

from ..errors import InputError
from ..storage.words import duration

ReportProgress = Callable[[int, int], None]
"""tells how many parts are done, of how many; raises Cancelled when the work is to stop"""


class Cancelled(InputError):
    """The user pressed Cancel or Interrupt."""


@dataclass(eq=False)
class _Job:
    """A piece of work that runs."""

    description: str
    began: float = field(default_factory=time.monotonic)
    cancelled: bool = False


class LongWork(ipywidgets.VBox):
    """Runs pieces of work, of which the bar shows the one that reported last; hidden while idle.

    In a cell the work runs in the foreground. After a control it runs in a thread, so that the page can still show the
    bar and react to Cancel. The kernel's Interrupt stops it in both.
    """

    def __init__(self):
        self.bar = ipywidgets.IntProgress(layout=ipywidgets.Layout(width="auto"))
        self.words = ipywidgets.Label()
        self.cancel = ipywidgets.Button(description="Cancel", icon="stop", layout=ipywidgets.Layout(width="auto"))
        self.cancel.on_click(lambda _: self._stop())
        super().__init__([self.words, self.bar, self.cancel])
        self.layout.display = "none"
        self.add_class("asit-work")
        self._jobs: list[_Job] = []
        self.task: asyncio.Task | None = None
        # Of the main thread, which gets signals; controls may be answered in another one.
        self._home = running_loop() if threading.current_thread() is threading.main_thread() else None
        self._before: Any = None  # handler of SIGINT

    def run(
        self,
        description: str,
        work: Callable[[ReportProgress], Any],
        on_result: Callable[[Any], None],
        background: bool,
    ) -> None:
        """Do `work`, then call `on_result` with its result. description: a word or two, for the bar. background: in a
        thread, if an event loop runs. Where the work fails in a thread, `on_result` gets the exception.
        """
        job = _Job(description)
        self._jobs.append(job)
        self.bar.value, self.words.value, self.layout.display = 0, f"{description} ...", None
        loop = running_loop() if background else None
        if loop is None:
            try:
                result = work(lambda parts, total: self._show(job, parts, total))
            finally:
                self._jobs.remove(job)
                self._hide()
            on_result(result)
        else:
            self.task = loop.create_task(self._in_thread(loop, job, work, on_result))

    async def _in_thread(self, loop, job: _Job, work, on_result) -> None:
        def report(parts: int, total: int) -> None:
            if job.cancelled:
                raise Cancelled(f"{job.description} cancelled")
            loop.call_soon_threadsafe(self._show, job, parts, total)

        try:
            with self._interruptible():
                try:
                    result = await asyncio.to_thread(work, report)
                finally:
                    self._jobs.remove(job)  # before its result is drawn, which may begin other work
            if job.cancelled:  # work that tells no progress goes on in its thread, for nothing
                raise Cancelled(f"{job.description} cancelled")
        except Exception as error:  # the widget's own messages say it
            result = error
        try:
            on_result(result)  # the bar stays until its pictures are drawn
        finally:
            self._hide()

    @property
    def busy(self) -> bool:
        """Whether work is running."""
        return bool(self._jobs)

    def _hide(self) -> None:
        if self._jobs:
            self.bar.value, self.words.value = 0, f"{self._jobs[-1].description} ..."  # until it reports
        else:
            self.layout.display = "none"

    def _stop(self, *_signal) -> None:
        for job in self._jobs:
            job.cancelled = True

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Inside, Interrupt stops the work; between cells a kernel ignores it."""
        if self._home is None or self._home.is_closed():
            yield
            return
        self._home.call_soon_threadsafe(self._catch)
        try:
            yield
        finally:
            self._home.call_soon_threadsafe(self._release)

    def _catch(self) -> None:
        if signal.getsignal(signal.SIGINT) != self._stop:  # else other work runs, too
            self._before = signal.signal(signal.SIGINT, self._stop)

    def _release(self) -> None:
        if not self._jobs and signal.getsignal(signal.SIGINT) == self._stop:  # else a cell that runs has set its own
            signal.signal(signal.SIGINT, self._before)

    def _show(self, job: _Job, parts: int, total: int) -> None:
        left = (time.monotonic() - job.began) / max(parts, 1) * (total - parts)
        self.bar.max, self.bar.value = total, parts
        self.words.value = f"{job.description}: {parts} of {total}" + (f", {duration(left)} left" if parts else "")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of the kernel; None in plain Python."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
