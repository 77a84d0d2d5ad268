"""A line of text with a button that copies it."""

from pathlib import Path

import anywidget
import traitlets


class CopyText(anywidget.AnyWidget):
    """Shows settings as a configuration takes them."""

    _esm = Path(__file__).parent / "static" / "copy_text.js"

    text = traitlets.Unicode().tag(sync=True)
