"""Lists the clips of a data set that an encoder fills in best and worst."""

import math
from collections.abc import Callable, Hashable

import ipywidgets
import numpy as np

from ..errors import InputError
from .base import labelled
from .clips import MOST_LISTED, ClipChooser
from .work import LongWork, ReportProgress

_ENDS = 4  # clips listed of the best, and as many of the worst
_BETWEEN = -1  # in the list: what is left out


class BestAndWorst(ipywidgets.VBox):
    """A button that fills in every clip of the data set, of large ones some that are evenly spread, and a list of the
    best and the worst; choosing one opens it. The list is hidden while the controls differ from what it was made with.
    """

    def __init__(
        self,
        chooser: ClipChooser,
        answer: Callable[[Callable[[], None]], None],
        scorer: Callable[[], Callable[[int], float]],
    ):
        """answer: calls a function so that its errors are shown in words. scorer: gives, for the controls as they are,
        a function that may run in a thread: row -> error relative to a straight line in time, NaN where there is none.
        """
        self.chooser, self._call, self.scorer = chooser, answer, scorer
        self.work = LongWork()
        self.button = ipywidgets.Button(icon="search")
        hint = f"fill in all clips, at most {MOST_LISTED}, and list them by error relative to a straight line in time"
        labelled(self.button, "best and worst clips", hint)
        self.words = ipywidgets.HTML()
        self.list = ipywidgets.Select(options=[], value=None, rows=2 * _ENDS + 1)
        self.list.tooltip, self.list.layout.width = "error relative to a straight line, row and label", "auto"
        super().__init__([self.button, self.work, self.words, self.list])
        self.scores: dict[int, float] = {}  # row -> relative error
        self._now: Hashable = None  # the controls, and those that the list was made with
        self._then: Hashable = None
        self._listing = False  # the list is being replaced
        self._show()
        self.button.on_click(lambda _: answer(self._search))
        self.list.observe(lambda _: answer(self._open), names="value")

    def follow(self, state: Hashable) -> None:
        """Show the list where it was made with these controls. state: all that a score depends on."""
        self._now = state
        self._show()

    def _search(self) -> None:
        if self.work.busy:
            return
        manifest, then = self.chooser.manifest, self._now
        if manifest is None:
            raise InputError("there is no data set to look through")
        score = self.scorer()
        rows = np.unique(np.linspace(0, len(manifest) - 1, min(len(manifest), MOST_LISTED)).astype(int)).tolist()

        def compute(report: ReportProgress) -> dict[int, float]:
            scores, errors = {}, []
            for done, row in enumerate(rows):
                report(done, len(rows))
                try:
                    scores[row] = score(row)
                except InputError as error:  # a file that cannot be decoded
                    errors.append(error)
            if not scores:
                raise errors[0]
            return scores

        def take(result) -> None:
            if isinstance(result, Exception):
                raise result
            self.scores = {row: share for row, share in result.items() if math.isfinite(share)}
            if not self.scores:
                raise InputError("no clip to compare: nothing is corrupted, or the clips are silent")
            self._then = then
            self._show()

        self.work.run("filling in", compute, lambda result: self._call(lambda: take(result)), background=True)

    def _show(self) -> None:
        shown = bool(self.scores) and self._now == self._then
        for part in (self.words, self.list):
            part.layout.display = None if shown else "none"
        if not shown:
            return
        ranked = sorted(self.scores, key=self.scores.get)
        label = self.chooser.manifest.table["label"]
        options = [(f"{self.scores[row]:.2f}  {row}: {label.iloc[row] or 'no label'}", row) for row in ranked]
        if len(options) > 2 * _ENDS + 1:
            between = (f"... {len(options) - 2 * _ENDS} more ...", _BETWEEN)
            options = [*options[:_ENDS], between, *options[-_ENDS:]]
        better = sum(share < 1 for share in self.scores.values())
        self.words.value = (
            f"Error relative to a straight line: below 1 for {better} of {len(ranked)} clips. Best first:"
        )
        self._listing = True
        if list(self.list.options) != options:
            self.list.options = options
        self.list.value = self.chooser.row if self.chooser.row in dict(options).values() else None
        self._listing = False

    def _open(self) -> None:
        if not self._listing and self.list.value not in (None, _BETWEEN, self.chooser.row):
            self.chooser.show_row(self.list.value)
