"""Curves of runs in a bare page: values at the cursor, pin, zoom and CSV, all without a kernel."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from script_case import show

from asit_lab.widgets.curves_view import CurvesView, curve_panels, group_line, run_line

pytestmark = pytest.mark.browser

ROWS = 41


class Page:
    def __init__(self, page):
        self.page = page
        x = np.arange(ROWS) * 10.0
        lines = [run_line(name, n, x, pd.Series(x * (n + 1)), 0.0) for n, name in enumerate(["a, first", "b"])]
        lines.append(group_line("c", 2, lines))
        panels = curve_panels(["loss", "rate"], {"loss": lines, "rate": lines[:1]}, {"loss": [(100, "ln K")]})
        state = {"panels": panels, "axis": "step", "log": "linear", "palette": ["#0072B2", "#D55E00", "#000000"]}
        show(page, CurvesView, state, 700)
        page.locator("[data-drawn]").wait_for()
        self.box = page.locator(".asit-curves-frame").bounding_box()

    def point(self, share: float) -> tuple[float, float]:
        """In the first of two panels; numbers as in curves.js."""
        return self.box["x"] + 58 + share * (350 - 58 - 12), self.box["y"] + 22 + 60

    def words(self) -> str:
        self.page.evaluate("() => new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(next)))")
        return self.page.locator(".asit-curves-says").inner_text()

    def saved(self) -> list[dict]:
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name="CSV").click()
        return list(csv.DictReader(io.StringIO(download.value.path().read_text())))


@pytest.fixture
def curves(bare):
    bare.set_viewport_size({"width": 800, "height": 700})
    return Page(bare)


def test_the_cursor_reads_every_run_and_a_click_pins_it(curves):
    curves.page.mouse.move(*curves.point(0.5))
    assert curves.words() == "step 200; total loss: a, first 200, b 400, c: mean of 2 300 (200 to 400)"
    curves.page.mouse.click(*curves.point(0.25))
    curves.page.mouse.move(1, 1)
    assert curves.words().startswith("step 100 (pinned); total loss: a, first 100, b 200")
    curves.page.mouse.click(*curves.point(0.5))
    curves.page.mouse.move(1, 1)
    assert "Move over a panel" in curves.words()


def test_zoom_moves_all_panels_and_the_csv_has_what_is_shown(curves):
    assert len(curves.saved()) == 4 * ROWS
    curves.page.mouse.move(*curves.point(0.5))
    curves.page.mouse.wheel(0, -100)
    curves.page.mouse.wheel(0, -100)
    rows = curves.saved()
    steps = sorted({float(row["step"]) for row in rows})
    assert steps[0] >= 90 and steps[-1] <= 310 and {row["curve"] for row in rows} == {"loss", "rate"}
    assert {row["run"] for row in rows} == {"a, first", "b", "c: mean of 2"}
    (row,) = [row for row in rows if row["run"].startswith("c") and row["step"] == "200"]
    assert (row["value"], row["smoothed"], row["low"], row["high"]) == ("", "300", "200", "400")
    curves.page.mouse.dblclick(*curves.point(0.5))
    assert len(curves.saved()) == 4 * ROWS


def test_a_dark_page_has_no_white_slab_and_the_saved_picture_is_white(curves):
    pixel = "canvas => canvas{}.getContext('2d').getImageData(1, 1, 1, 1).data.join()"
    canvas = curves.page.locator("canvas.asit-plot")
    assert canvas.evaluate(pixel.format("")) == "0,0,0,0"
    assert canvas.evaluate(pixel.format(".asitPicture()")) == "255,255,255,255"
