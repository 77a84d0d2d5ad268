"""Progress bars for terminals, logs and notebooks."""

import sys

from ..paths import in_notebook


def bar_style() -> dict:
    """Settings of a progress bar: updated often in a terminal, an occasional line in logs and notebooks."""
    live = sys.stderr.isatty()
    return {"mininterval": 0.5 if live else 20.0, "dynamic_ncols": live, "smoothing": 0.05}


def passing_bar_style() -> dict:
    """The same for short or frequent work: nothing in the first second, and nothing left in a notebook."""
    if not in_notebook():
        return {**bar_style(), "delay": 1.0}
    return {"file": _NotebookOutput(), "leave": False, "delay": 1.0, "mininterval": 0.5}


class _NotebookOutput:
    """A file for tqdm that shows its last write as a notebook's output; a cleared bar leaves the output empty."""

    encoding = "utf-8"  # else bars are drawn with #

    def __init__(self):
        self.handle = None

    def write(self, text: str) -> None:
        content = {"text/plain": text.strip()}
        if self.handle:
            self.handle.update(content, raw=True)
        elif text.strip():
            from IPython.display import display

            self.handle = display(content, raw=True, display_id=True)
