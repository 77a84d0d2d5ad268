"""What the tests of several explorers ask."""

import base64
import ctypes
import gc
import io
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import psutil
from PIL import Image


def assert_flat(explorer, move: Callable[[int], None], moves: int = 500) -> None:
    """After a hundred moves, so many more take no memory that stays and leave nothing in the notebook.

    move: makes the n-th change to the explorer's controls.
    """
    sizes = []
    for n in range(100 + moves):
        move(n)
        if n in (99, 99 + moves):
            sizes.append((_held(), len(str(explorer._repr_mimebundle_())) / 2**20))
    (memory, output), (memory_after, output_after) = sizes
    print(f"{moves} moves: memory {memory:.0f} -> {memory_after:.0f} MB, output {output:.2f} -> {output_after:.2f} MB")
    assert memory_after < memory + 15 and output_after < 2 * output


def _held() -> float:
    """MB of this process, without what is free and only kept by the C library."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
    return psutil.Process().memory_info().rss / 2**20


def assert_widget_and_picture(notebook: Path) -> None:
    """An executed notebook has one output: a widget, and for those who have no widgets a picture that is not empty."""
    cells = nbformat.read(notebook, as_version=4).cells
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    # A bar, which comes where work takes more than a moment, leaves an empty text.
    (output,) = [output for output in outputs if output.data != {"text/plain": ""}]
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= set(output.data)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("RGB"))
    assert image.std() > 10
