"""The browser of a data set's rows: sort, filter, see, hear, and mark as bad."""

import html
from pathlib import Path

import anywidget
import ipywidgets
import pandas as pd
import torch
import traitlets

from ..config import resolve
from ..data import DataSource, Manifest, load_manifest
from ..data.lists import as_source
from ..data.sources.tables import MULTI
from ..errors import InputError
from ..features import LogMel
from ..figures import MelAxes
from ..settings import Features
from ..storage.atomic import write_text
from .base import Explorer, Sound, labelled
from .clips import clip_name
from .scene import Panel, Scene
from .scripts import joined
from .spectrogram_view import SpectrogramView

_LONGEST = 30.0  # s of a row that are read
_LISTED = ["path", "label", "fold", "split", "group", "start", "seconds"]  # columns of a list that `data` accepts


class RowsTable(anywidget.AnyWidget):
    """A table; observe `selected`, a row's number or -1, and `bad`, the numbers of those that are marked."""

    _esm = joined("parts.js", "rows.js")
    _css = joined("spectrogram.css", "rows.css")

    columns = traitlets.List(traitlets.Unicode()).tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    selected = traitlets.Int(-1).tag(sync=True)
    bad = traitlets.List(traitlets.Int()).tag(sync=True)


class DataExplorer(Explorer):
    """Rows of a data set. What is marked as bad is left out of a list that `data=folder:LIST` takes.

    A click on a row, or the arrow keys, show it and offer its sound; x marks it. A list that exists is continued: rows
    it lacks are marked at first.
    """

    def __init__(self, data: DataSource = "synth:40", kept: str | Path = "data/kept.csv", sample_rate: int = 16000):
        """kept: the CSV for the rows that are not marked. sample_rate: of the log-mel, Hz."""
        super().__init__()
        self.kept, self.features = resolve(kept), Features(sample_rate=sample_rate, mel_bins=64)
        self.front_end = LogMel.from_config(self.features)
        self.rows, self.picture = RowsTable(), SpectrogramView()
        self.saved = (self.picture,)
        self.data = ipywidgets.Text(value=as_source(data), continuous_update=False)
        labelled(self.data, "data set", "synth:CLIPS, esc50:PATH, speech_commands:PATH, folder:PATH, ...")
        self.sound, self.facts = Sound("clip"), ipywidgets.HTML()
        self.save = labelled(ipywidgets.Button(icon="save"), "save the rows kept", f"writes {self.kept}")
        self.arrange([self.data, self.sound, self.save, self.facts], [self.picture], below=[self.rows])
        self.on(self.data, self.list_rows)
        self.on_click(self.save, self.write)
        self.rows.observe(lambda _: self._answer(self.redraw), names="selected")
        with self.errors_in_words():
            self.list_rows()

    def list_rows(self) -> None:
        """List the data set that is named, with the marks of a list that was saved of it before."""
        manifest = load_manifest(self.data.value)
        bad, _ = self._left_out(manifest)
        table = manifest.table
        shown = table[[name for name in _LISTED if table[name].notna().any()] + ["sample_rate"]].copy()
        shown.insert(0, "row", range(len(shown)))
        self.manifest = manifest
        with self.rows.hold_sync():
            self.rows.columns, self.rows.bad, self.rows.selected = [str(name) for name in shown], bad, -1
            self.rows.rows = [[_plain(cell) for cell in row] for row in shown.itertuples(index=False)]
        self.rows.selected = 0

    def _left_out(self, manifest: Manifest) -> tuple[list[int], bool]:
        """Rows that a list saved before lacks, and whether that list may be written over: not where it names other
        files, too."""
        if not self.kept.is_file():
            return [], True
        try:
            saved = load_manifest(f"folder:{self.kept}").table
        except InputError:  # its files have been moved, or it is none
            return [], False
        kept = set(zip(saved["path"], saved["start"].round(3), strict=True))
        here = list(zip(manifest.table["path"], manifest.table["start"].round(3), strict=True))
        if not kept <= set(here):
            return [], False
        return [row for row, place in enumerate(here) if place not in kept], True

    def redraw(self) -> None:
        """Show and offer to play the selected row."""
        row, rate = self.rows.selected, self.features.sample_rate
        if not 0 <= row < len(self.manifest):
            return
        wave = self.manifest.read(row, rate, seconds=_LONGEST)
        log_mel = self.front_end(torch.from_numpy(wave)[None])[0].numpy()
        name = clip_name(self.manifest, row)
        self.picture.fit(log_mel)
        # Plain log-mels: a mean of 0 and half a unit of deviation leave values as they are.
        scene = Scene([Panel("clip", name, log_mel, sound="clip")], MelAxes.of(self.features), (0.5, 0.0), file=name)
        self.picture.show(scene, f"Log-mel of {name}.")
        self.sound.load(wave, rate)

    def write(self) -> None:
        """Save the rows that are not marked. Raises InputError for sounds without files, where none is left, and where
        the list names other files."""
        table = self.manifest.table[_LISTED]
        if table["path"].str.startswith("synth://").any():
            raise InputError("synthesised sounds are no files that a list could name; nothing is saved")
        if not self._left_out(self.manifest)[1]:
            raise InputError(f"{self.kept} lists files that this data set lacks; move it away, or give another `kept`")
        kept = table.drop(index=table.index[list(self.rows.bad)])
        if not len(kept):
            raise InputError("every row is marked as bad; nothing is left to save")
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        kept = kept.dropna(axis=1, how="all").rename(columns={"label": MULTI} if self.manifest.multi else {})
        write_text(self.kept, kept.to_csv(index=False))
        words = f"{len(kept)} of {len(table)} rows saved. Use them with data=folder:{self.kept}"
        self.facts.value = f'<div style="overflow-wrap: anywhere">{html.escape(words)}</div>'


def _plain(cell):
    if pd.isna(cell):
        return ""
    return round(float(cell), 3) if isinstance(cell, float) else cell if isinstance(cell, str) else int(cell)
