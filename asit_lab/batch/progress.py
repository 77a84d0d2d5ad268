"""What a runner says on its way: one line when a point begins or ends, with the time left."""

import sys
import time
from collections.abc import Iterable

from ..storage.words import duration
from .execution.state import STATES, state_of
from .point import Point
from .study import Study


class Progress:
    """Counts the points of a study and says how they go, on standard error."""

    def __init__(self, study: Study, points: list[Point]):
        self.study, self.points = study, points
        self.over: dict[str, str] = {}  # hash -> state of the points that we need not think about any more
        self.took: list[float] = []  # s of those that were finished under our eyes
        self.began_at = time.monotonic()

    def began(self, point: Point) -> None:
        self._say(f"{point.label}: begun ({point.folder})")

    def skipped(self, point: Point, state: str) -> None:
        self.over[point.hash] = state
        if state == "failed":
            self._say(f"{point.label}: failed before; `asit-lab batch retry` does it again")

    def ended(self, point: Point, others: Iterable[Point]) -> None:
        """Say how a point ended; others: those under way."""
        now = state_of(point.folder)
        self.over[point.hash] = now.state
        if now.state == "finished":
            self.took.append(now.seconds)
        why = f": {now.reason.splitlines()[0]}" if now.reason else ""
        self._say(f"{point.label}: {now.state} after {duration(now.seconds)}{why}; {self.words()}{self._left(others)}")

    def words(self) -> str:
        """How many points are over, and how."""
        states = list(self.over.values())
        told = [f"{states.count(state)} {state}" for state in STATES if state in states]
        return f"{', '.join(told) or 'none finished'} of {len(self.points)}"

    def _left(self, others: Iterable[Point]) -> str:
        """The time left: what is open at the pace so far, as if all took as long as those finished under our eyes."""
        share = sum(state_of(point.folder).share for point in others)
        open_ones = len(self.points) - len(self.over) - share
        if not self.took or open_ones <= 0:
            return ""
        pace = (time.monotonic() - self.began_at) / (len(self.took) + share)  # s a point, all workers together
        return f", about {duration(open_ones * pace)} left"

    def _say(self, text: str) -> None:
        print(f"{self.study.name}: {text}", file=sys.stderr, flush=True)
