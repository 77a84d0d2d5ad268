"""What JupyterLab saves shows by itself: the last picture, without a kernel, and nothing of the live view."""

import base64
import io

import nbformat
import numpy as np
import pytest
from explorer_case import Explorer
from lab_case import PATIENCE, TOKEN
from PIL import Image

pytestmark = pytest.mark.browser

VIEW = "application/vnd.jupyter.widget-view+json"


def saved_picture(path) -> np.ndarray:
    cells = nbformat.read(path, as_version=4).cells
    (output,) = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert VIEW not in output.data
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("L"))


def test_a_saved_notebook_shows_the_last_state_without_a_kernel(opened, lab, page, screenshots):
    notebook = opened("explore_masks")
    notebook.run_all()
    explorer = Explorer(notebook, "asit-mask")
    notebook.save()
    first = saved_picture(notebook.path)
    explorer.answers(explorer.control("ratio (%)"), ["Home"])
    explorer.settle()
    notebook.save()
    last = saved_picture(notebook.path)
    assert first.shape == last.shape and np.abs(first.astype(int) - last).mean() > 1
    assert explorer.controls()  # the live view goes on
    notebook.shut_down()

    page.goto(f"{lab.url}/lab/tree/notebooks/explore_masks.ipynb?reset&token={TOKEN}")
    image = page.locator(".jp-OutputArea-output img")
    image.wait_for(timeout=PATIENCE * 1000)
    assert image.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])") == [
        last.shape[1],
        last.shape[0],
    ]
    assert "Error displaying widget" not in page.locator(".jp-Notebook").inner_text()
    page.screenshot(path=screenshots / "saved.png")


def test_the_monitor_saves_the_run_that_was_chosen_last(opened):
    notebook = opened("monitor_runs")
    notebook.run_all()
    explorer = Explorer(notebook, "asit-monitor")
    saved = []
    for chosen in ("first", "second", "first"):
        explorer.locate(explorer.control("runs", "several")).select_option(label=chosen)
        explorer.settle()
        notebook.save()
        saved.append(saved_picture(notebook.path))
    first, second, again = saved
    assert np.array_equal(first, again) and min(first.std(), second.std()) > 5
    assert first.shape != second.shape or np.abs(first.astype(int) - second).mean() > 1
