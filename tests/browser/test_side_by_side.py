"""Two runs in the reconstruction explorer, on the screen of a laptop."""

import pytest
from explorer_case import Explorer
from lab_case import with_parameters

pytestmark = pytest.mark.browser


def test_two_runs_stay_beside_the_controls(opened, home, page, screenshots):
    page.set_viewport_size({"width": 1440, "height": 900})
    notebook = opened(
        with_parameters(home, "explore_reconstructions", "two_runs", run="runs/first", other="runs/second")
    )
    notebook.run_all()
    explorer = Explorer(notebook, "asit-reconstruction")
    explorer.root.evaluate("root => root.scrollIntoView({block: 'start'})")
    page.screenshot(path=screenshots / "two-runs-1440.png")
    top = explorer.root.bounding_box()["y"]
    seed = explorer.locate(explorer.control("seed", "number")).bounding_box()
    view = explorer.root.locator(".asit-view").bounding_box()
    assert view["x"] >= seed["x"] + seed["width"] and view["y"] < top + 300
    assert view["width"] > 500 and explorer.ask("clipped") == []
    words = explorer.root.inner_text()
    assert "first, step 6" in words and "second, step 24" in words
