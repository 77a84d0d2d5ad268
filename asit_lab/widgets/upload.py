"""A button that uploads a file of any size from the browser to the kernel."""

import tempfile
from pathlib import Path, PurePath

import anywidget
import traitlets


class FileUpload(anywidget.AnyWidget):
    """Receives a file in pieces of 1 MB; observe `changed`, then read `path`.

    ipywidgets' own upload sends a file as one message, and from some 10 MB on that closes the connection to the kernel.
    The last file stays in a temporary folder of the kernel, which is removed with the widget.
    """

    _esm = Path(__file__).parent / "static" / "upload.js"

    name = traitlets.Unicode().tag(sync=True)
    """name of the last complete file; empty before the first"""
    hint = traitlets.Unicode("an audio file of this computer, of any size").tag(sync=True)
    changed = traitlets.Int(0)

    def __init__(self):
        super().__init__()
        self.path: Path | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="asit_lab_upload_")
        self._number, self._file, self._size = None, None, 0
        self.on_msg(self._receive)

    def _receive(self, _widget, content: dict, buffers: list) -> None:
        """A message of the page: begin (number, name, size), piece (number, with its bytes) or end (number)."""
        if content["kind"] == "begin":
            self._close()
            name = PurePath(content["name"].replace("\\", "/")).name or "upload"
            self._number, self._size = content["number"], content["size"]
            self._file = (Path(self._folder.name) / name).open("wb")
        elif content["number"] != self._number or self._file is None:
            self.send({"stored": False})
        elif content["kind"] == "piece":
            self._file.write(buffers[0])
            self.send({"stored": True})
        else:
            path, size = Path(self._file.name), self._file.tell()
            self._close()
            if size == self._size:  # else the page stopped half-way
                self.path, self.name = path, path.name
                self.changed += 1

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._number = None
