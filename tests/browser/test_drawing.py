"""A mask drawn with the mouse in JupyterLab, and what a model puts there."""

import pytest
from explorer_case import Explorer

pytestmark = pytest.mark.browser

LEFT, RIGHT, TOP = 52, 86, 19  # as in spectrogram_draw.js


def test_a_mask_drawn_by_the_mouse_is_filled_in(opened, page):
    notebook = opened("explore_reconstructions")
    notebook.run_all()
    explorer = Explorer(notebook, "asit-reconstruction")
    view = explorer.root.locator(".asit-spectrogram")
    explorer.root.get_by_role("button", name="Clear").click()
    explorer.settle()
    assert "no corrupted pixels" in explorer.root.inner_text()
    before = explorer.ask("state")
    explorer.root.get_by_label("mouse").select_option("draw")
    explorer.root.get_by_label("brush").select_option("three patches")
    box = view.bounding_box()
    across = lambda share: box["x"] + LEFT + share * (box["width"] - LEFT - RIGHT)  # noqa: E731
    page.mouse.move(across(0.3), box["y"] + TOP + 30)
    page.mouse.down()
    page.mouse.move(across(0.7), box["y"] + TOP + 40, steps=5)
    page.mouse.up()
    assert {"picture", "words"} <= explorer.changes(before)
    words = explorer.root.inner_text()
    assert "drawn by hand" in words and "straight line in time" in words
    explorer.root.get_by_label("mouse").select_option("move")
