"""Progress bars for terminals, logs and notebooks."""

import sys

from ..paths import in_notebook


def bar_style() -> dict:
    """Settings of the progress bar: quick in a terminal, an occasional line where output is kept (logs, notebooks)."""
    live = sys.stderr.isatty()
    return {"mininterval": 0.5 if live else 20.0, "dynamic_ncols": live, "smoothing": 0.05}


def passing_bar_style() -> dict:
    """The same for what is over soon, or done many times. Nothing for the first second; no notebook keeps it."""
    if not in_notebook():
        return {**bar_style(), "delay": 1.0}
    return {"file": _Place(), "leave": False, "delay": 1.0, "mininterval": 0.5}


class _Place:
    """A file to tqdm: one output of a notebook, which holds what was written last, so a cleared bar leaves it empty."""

    encoding = "utf-8"  # else bars are drawn with #

    def __init__(self):
        self.shown = None

    def write(self, text: str) -> None:
        content = {"text/plain": text.strip()}
        if self.shown:
            self.shown.update(content, raw=True)
        elif text.strip():
            from IPython.display import display

            self.shown = display(content, raw=True, display_id=True)
