"""A button that plays through the steps of a training."""

import asyncio
from collections.abc import Callable

import ipywidgets

from .base import labelled
from .work import running_loop

_PLAY, _STOP = "play the steps", "stop"


class StepPlayer(ipywidgets.ToggleButton):
    """Shows one step after the other, from the present one to the last, or from the first where that is the last.

    It stops when it is pressed again, and when a step cannot be shown. `task` runs while it plays.
    """

    def __init__(self, count: int, present: Callable[[], int], show: Callable[[int], bool], seconds: float = 0.7):
        """count: of steps. present: gives the place of the step that is shown. show: shows the step at a place, and
        returns whether to continue. seconds: between a picture and the next step."""
        super().__init__()
        labelled(self, _PLAY, "show the steps one after the other, on the same mask and colours")
        self.count, self.present, self.show, self.seconds = count, present, show, seconds
        self.icon = "play"
        self.layout.display = None if count > 1 else "none"
        self.task: asyncio.Task | None = None
        self.observe(lambda _: self._pressed(), names="value")

    def _pressed(self) -> None:
        loop = running_loop()
        if loop is None:
            self.value = False  # plain Python shows one picture alone
            return
        self.description, self.icon = (_STOP, "stop") if self.value else (_PLAY, "play")
        (self.add_class if self.value else self.remove_class)("asit-playing")
        self.task = loop.create_task(self._play()) if self.value else None

    async def _play(self) -> None:
        task = asyncio.current_task()
        first = (self.present() + 1) % self.count
        try:
            for place in range(first, self.count):
                if self.task is not task or not self.show(place):  # pressed meanwhile, or failed
                    break
                await asyncio.sleep(self.seconds)
        finally:
            if self.task is task:
                self.value = False
