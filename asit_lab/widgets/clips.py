"""Chooses an explorer's clip: one of a data set, a file, or an upload."""

from contextlib import suppress
from pathlib import Path

import ipywidgets
import numpy as np
import traitlets

from .. import audio
from ..config import resolve
from ..data import DataSource, Manifest, load_manifest
from ..data.lists import as_source
from ..errors import InputError
from .base import Message, labelled
from .upload import FileUpload

MOST_LISTED = 500  # clips in the list; of larger data sets as many, evenly spread
_TRIED = 20  # clips, where the first ones are digital silence
_SILENT = 1e-4  # peak below which a clip is inaudible
_SOURCES = ("data set", "file", "upload")


def clip_name(manifest: Manifest, row: int) -> str:
    """A clip's title: its number and label."""
    return f"clip {row} of {manifest.source} ({manifest.table['label'].iloc[row] or 'no label'})"


def loudest(wave: np.ndarray, sample_rate: int, seconds: float) -> float:
    """Where the `seconds` of a wave [samples] with the most energy start, s; 0 for a wave that is not longer."""
    hop = sample_rate // 10
    wide = round(seconds * sample_rate) // hop
    places = (len(wave) - round(seconds * sample_rate)) // hop + 1
    if places < 2:
        return 0.0
    sums = np.add.reduceat(np.square(wave, dtype=np.float64), np.arange(0, len(wave), hop))
    energy = np.concatenate([[0.0], np.cumsum(sums)])
    return int(np.argmax(energy[wide : wide + places] - energy[:places])) / 10


class ClipChooser(ipywidgets.VBox):
    """A clip of a data set (`synth:40`, `esc50:PATH`), a file, or an upload.

    `wave` (float32 [samples], mono) at `sample_rate` Hz, `name`, for a clip of a data set `row`, its number in
    `manifest`, and for a file `file`, its path. Observe `changed`, which counts up when there is another wave. Read
    errors are shown below the controls, and the previous clip stays.
    """

    changed = traitlets.Int(0)

    def __init__(self, data: DataSource = "synth:40", clip: int = 0, sample_rate: int | None = None):
        """data: a source as `load_manifest` takes it. clip: row of the data set. sample_rate: what clips are brought
        to, Hz; None: each keeps its own. Raises InputError for data that is none of these."""
        self.wanted_rate = sample_rate
        self.sample_rate, self.name, self.row = sample_rate, "", None
        self.manifest: Manifest | None = None
        self.file: Path | None = None
        self._wave: np.ndarray | None = None
        self._listing = False  # the list of clips is being replaced
        self.message = Message()
        self.source = labelled(ipywidgets.ToggleButtons(options=_SOURCES), "", "where the clip comes from")
        self.source.style.button_width = "78px"
        self.data = ipywidgets.Text(value=as_source(data), continuous_update=False)
        labelled(self.data, "data set", "synth:CLIPS, esc50:PATH, speech_commands:PATH, folder:PATH, ...")
        self.clip = labelled(ipywidgets.Dropdown(), "clip", "row of the data set, label and file")
        self.path = ipywidgets.Text(placeholder="recording.wav", continuous_update=False)
        labelled(self.path, "file", "path of an audio file; a relative one counts from the project's root")
        self.upload = FileUpload()
        super().__init__([self.source, self.data, self.clip, self.path, self.upload, self.message])
        with self.message.in_words():
            self._open(clip)
        self._show_controls()
        self.source.observe(lambda _: self._switch(), names="value")
        for control, handler in (
            (self.data, self._open),
            (self.clip, self._read_row),
            (self.path, self._read_path),
        ):
            control.observe(lambda _, handler=handler: self._answer(handler), names="value")
        self.upload.observe(lambda _: self._answer(self._read_upload), names="changed")

    @property
    def wave(self) -> np.ndarray:
        """float32 [samples], mono. Raises InputError while there is none."""
        if self._wave is None:
            raise InputError("there is no clip to show: choose another data set, a file or an upload")
        return self._wave

    def _answer(self, handler) -> None:
        with suppress(KeyboardInterrupt), self.message.in_words():
            handler()

    def _switch(self) -> None:
        """Another source was chosen: show its controls, and its clip where one is given already."""
        self._show_controls()
        kind = self.source.value
        if kind == "data set" and self.clip.value is not None:
            self._answer(self._read_row)
        elif kind == "file" and self.path.value.strip():
            self._answer(self._read_path)
        elif kind == "upload" and self.upload.path:
            self._answer(self._read_upload)

    def _show_controls(self) -> None:
        fields = {"data set": (self.data, self.clip), "file": (self.path,), "upload": (self.upload,)}
        for kind, controls in fields.items():
            for control in controls:
                control.layout.display = None if kind == self.source.value else "none"

    def _open(self, clip: int = 0) -> None:
        """List the data set and take its row `clip`."""
        manifest = load_manifest(self.data.value)
        if not 0 <= clip < len(manifest):
            raise InputError(f"clip {clip}: {manifest.source} has clips 0 to {len(manifest) - 1}")
        self.manifest = manifest
        listed = {*np.linspace(0, len(manifest) - 1, min(len(manifest), MOST_LISTED)).astype(int).tolist(), clip}
        if clip == 0:
            clip = self._first_sounding(manifest)
        self._listing = True
        self.clip.options = [(self._entry(row), row) for row in sorted(listed)]
        self.clip.value = clip
        self._listing = False
        self._read_row()

    def show_row(self, row: int) -> None:
        """Take a row of the data set, listed or not."""
        if row not in dict(self.clip.options).values():
            self.clip.options = [*self.clip.options, (self._entry(row), row)]
        self.source.value, self.clip.value = "data set", row

    def _entry(self, row: int) -> str:
        """A row in the list: number, label, and the name of its file."""
        label, path = self.manifest.table[["label", "path"]].iloc[row]
        name = "" if "://" in path else Path(path).name  # synthetic sounds and shards have none
        return f"{row}: {', '.join(filter(None, (label, name))) or 'no label'}"

    def _first_sounding(self, manifest: Manifest) -> int:
        """The first clip, or the first one of the next few that can be read and is not digital silence."""
        for row in range(min(len(manifest), _TRIED)):
            with suppress(InputError):
                if np.abs(manifest.read(row, self._rate_of(manifest, row))).max() > _SILENT:
                    return row
        return 0

    def _read_row(self) -> None:
        if self._listing:
            return
        row = self.clip.value
        rate = self._rate_of(self.manifest, row)
        self._take(self.manifest.read(row, rate), rate, clip_name(self.manifest, row), row)

    def _rate_of(self, manifest: Manifest, row: int) -> int:
        return self.wanted_rate or int(manifest.table["sample_rate"].iloc[row])

    def _read_path(self) -> None:
        if not self.path.value.strip():
            return
        path = resolve(self.path.value.strip())
        rate = self.wanted_rate or audio.info(path).sample_rate
        self._take(audio.read(path, rate), rate, path.name, file=path)

    def _read_upload(self) -> None:
        """The file that was uploaded last."""
        path = self.upload.path
        try:
            rate = self.wanted_rate or audio.info(path).sample_rate
            wave = audio.read(path, rate)
        except InputError as error:
            raise InputError(str(error).replace(str(path), path.name)) from None
        self._take(wave, rate, path.name)

    def _take(self, wave: np.ndarray, rate: int, name: str, row: int | None = None, file: Path | None = None) -> None:
        self._wave, self.sample_rate, self.name, self.row, self.file = wave, rate, name, row, file
        self.changed += 1
