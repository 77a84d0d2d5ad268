"""Finds the clips of a data set on which a head is most focused."""

from collections.abc import Callable
from contextlib import suppress

import ipywidgets
import numpy as np

from ..encoder import Encoder
from ..errors import InputError
from ..inspection.clip_attention import ClipAttention, window
from .base import labelled
from .clips import ClipChooser
from .work import LongWork, ReportProgress

_SEARCHED = 40  # clips of a data set, evenly spread
_LISTED = 6
_NONE = -1  # in the list


class ClipsOfHead(ipywidgets.VBox):
    """A button that looks through the data set, and the clips in which the chosen head's attention has the lowest
    entropy; choosing one opens it."""

    def __init__(self, enc: Encoder, chooser: ClipChooser, answer: Callable[[Callable[[], None]], None]):
        """answer: calls a function so that its errors are shown in words."""
        self.encoder, self.chooser, self._call = enc, chooser, answer
        self.work = LongWork()
        self.button = ipywidgets.Button(icon="search")
        labelled(self.button, "clips that drive this head", f"the lowest entropy of attention in {_SEARCHED} clips")
        self.list = labelled(ipywidgets.Dropdown(), "entropy", "clips by entropy of this head, the most focused first")
        self.list.layout.display = "none"
        super().__init__([self.button, self.work, self.list])
        self.entropy = np.empty((0, 0, 0))  # [clips, layers, heads + 1]
        self.rows: list[int] = []
        self._source = ""
        self._place = (0, 0)
        self._listing = False  # the list is being replaced
        self.button.on_click(lambda _: answer(self._search))
        self.list.observe(lambda _: answer(self._open), names="value")

    def follow(self, layer: int, head: int) -> None:
        """List the clips of another head; head: the number of heads is their mean."""
        self._place = (layer, head)
        if not self.rows or self._source != self.chooser.data.value:
            self.list.layout.display = "none"
            return
        scores = self.entropy[:, layer, head]
        best = np.argsort(scores, kind="stable")[:_LISTED]
        labels = self.chooser.manifest.table["label"]
        options = [
            (f"{scores[n]:.3f}  {self.rows[n]}: {labels.iloc[self.rows[n]] or 'no label'}", self.rows[n]) for n in best
        ]
        self._listing = True
        self.list.options, self.list.value = [("choose one", _NONE), *options], _NONE
        self._listing = False
        self.list.layout.display = None

    def _search(self) -> None:
        if self.work.busy:
            return
        manifest, enc, source = self.chooser.manifest, self.encoder, self.chooser.data.value
        rows = np.unique(np.linspace(0, len(manifest) - 1, min(len(manifest), _SEARCHED)).astype(int)).tolist()

        def compute(report: ReportProgress) -> dict[int, np.ndarray]:
            tables = {}
            for done, row in enumerate(rows):
                report(done, len(rows))
                with suppress(InputError):  # a file that cannot be decoded
                    wave = manifest.read(row, enc.config.features.sample_rate)
                    clip = ClipAttention(enc, window(enc, wave), enc.config.features.sample_rate)
                    tables[row] = clip.measures("map")["entropy"]
            return tables

        def show(result) -> None:
            if isinstance(result, Exception):
                raise result
            if not result:
                raise InputError(f"{manifest.source}: none of {len(rows)} clips can be read")
            self.entropy, self.rows = np.stack(list(result.values())), list(result)
            self._source = source
            self.follow(*self._place)

        self.work.run("looking", compute, lambda result: self._call(lambda: show(result)), background=True)

    def _open(self) -> None:
        if not self._listing and self.list.value not in (_NONE, self.chooser.row):
            self.chooser.show_row(self.list.value)
