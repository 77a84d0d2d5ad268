"""Connects an explorer to its page: names for screen readers, one sound at a time, and the last picture saved."""

from pathlib import Path

import anywidget
import traitlets


class PageSide(anywidget.AnyWidget):
    """An invisible child of an explorer, which runs static/page.js."""

    _esm = Path(__file__).parent / "static" / "page.js"
    _css = Path(__file__).parent / "static" / "page.css"

    explorer = traitlets.Unicode().tag(sync=True)
    """model id of the explorer, by which its output is found in the notebook"""
    saves = traitlets.Bool(False).tag(sync=True)
    """whether the page puts the last picture into the notebook when that is saved, as JupyterLab's does"""

    def __init__(self, explorer: str):
        super().__init__(explorer=explorer)
        self.layout.height = self.layout.width = "0px"
        self.layout.margin = self.layout.padding = "0"
