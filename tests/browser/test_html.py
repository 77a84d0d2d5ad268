"""Executed notebooks of explorers as HTML: the pictures are there with the network off."""

import nbformat
import pytest
from lab_case import environment
from notebook_case import stock_papermill
from test_explorers import EXPLORERS

from asit_lab.report.export import export_html

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("name", ["start", *EXPLORERS])
def test_export_shows_every_picture_offline(name, home, browser, tmp_path):
    executed = tmp_path / "out.ipynb"
    done = stock_papermill(home / "notebooks" / f"{name}.ipynb", tmp_path, environment=environment(home))
    assert done.returncode == 0, done.stderr[-3000:]
    cells = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    bundles = [output.get("data", {}) for cell in cells for output in cell.outputs]
    expected = sum("image/png" in bundle for bundle in bundles)
    assert any("application/vnd.jupyter.widget-view+json" in bundle and "image/png" in bundle for bundle in bundles)

    page_file = tmp_path / f"{name}.html"
    export_html(executed, page_file)
    asked = []
    with browser.new_context(offline=True) as context:
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        visible = "all => all.filter(image => image.checkVisibility())"
        shown = page.locator("img").evaluate_all(
            f"all => ({visible})(all).map(image => [image.naturalWidth, image.naturalHeight])"
        )
    assert [url[:80] for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([size for size in shown if min(size) > 100]) >= expected >= 1, shown
    print(f"\n{name}: {expected} pictures, {page_file.stat().st_size / 1e6:.2f} MB")
