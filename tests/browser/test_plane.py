"""Clips on a plane in a bare page: zoom, lasso, table, CSV, legend and search, all without a kernel."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from script_case import show

from asit_lab.widgets.plane import Plane

pytestmark = pytest.mark.browser

SIDE = 20  # points on a grid


class Page:
    def __init__(self, page, plane: Plane):
        self.page = page
        names = ("categories", "range", "unit", "palette", "names", "columns", "rows", "title", "method", "near")
        names += ("selected", "hovered", "points", "values", "colours")
        show(page, plane, {name: getattr(plane, name) for name in names}, 640)
        page.locator("[data-drawn]").wait_for()
        self.box = page.locator(".asit-points").bounding_box()

    def point(self, across: float, down: float) -> tuple[float, float]:
        """Of places 0 to 1 on the square of all points, before any zoom."""
        side = min(self.box["width"], self.box["height"]) / 1.2
        middle = self.box["x"] + self.box["width"] / 2, self.box["y"] + self.box["height"] / 2
        return middle[0] + (across - 0.5) * side, middle[1] + (down - 0.5) * side

    def get(self, name: str):
        return self.page.evaluate(f"() => window.model.get('{name}')")

    def drawn(self) -> str:
        """The picture, once changes are in it."""
        self.page.evaluate("() => new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(next)))")
        return self.page.locator("canvas.asit-plot").evaluate("canvas => canvas.toDataURL()")

    def lasso(self, left: float, top: float, right: float, bottom: float) -> None:
        self.page.keyboard.down("Shift")
        self.page.mouse.move(*self.point(left, top))
        self.page.mouse.down()
        for corner in ((right, top), (right, bottom), (left, bottom), (left, top)):
            self.page.mouse.move(*self.point(*corner), steps=3)
        self.page.mouse.up()
        self.page.keyboard.up("Shift")

    def saved(self) -> list[dict]:
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name="CSV").click()
        return list(csv.DictReader(io.StringIO(download.value.path().read_text())))


@pytest.fixture
def plane(bare):
    """A grid, row by row from the top; its left half is one class."""
    bare.set_viewport_size({"width": 700, "height": 900})
    widget = Plane()
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    labels = np.where(across.ravel() < SIDE // 2, "bell, small", "rain")
    table = pd.DataFrame({"clip": np.arange(SIDE**2), "label": labels})
    names = [f"{label}, clip {clip}" for clip, label in zip(table["clip"], labels, strict=True)]
    widget.show(np.stack([across.ravel(), -down.ravel()], 1), table, names, "a title", "a grid")
    widget.colour_by(table["label"])
    return Page(bare, widget)


def test_a_lasso_selects_for_table_and_csv(plane):
    assert len(plane.saved()) == SIDE**2  # nothing is selected: all
    plane.lasso(-0.02, -0.02, 0.08, 0.08)  # two by two
    rows = plane.saved()
    assert [row["clip"] for row in rows] == ["0", "1", "20", "21"] and rows[0]["label"] == "bell, small"
    assert (float(rows[3]["x"]), float(rows[3]["y"])) == (1, -1)
    table = plane.page.locator(".asit-chosen-rows")
    assert "4 clips selected" in table.inner_text()
    table.get_by_role("cell", name="21", exact=True).click()
    assert plane.get("selected") == 21
    # Another layer: other points and rows of the same clips.
    plane.page.evaluate("""() => {
      model.set("rows", model.get("rows").map(([clip]) => [clip, "wind"]));
      model.set("points", new DataView(model.get("points").buffer.slice(0)));
    }""")
    assert table.inner_text().count("wind") == 4 and "4 clips selected" in table.inner_text()


def test_the_legend_hides_and_the_search_finds(plane):
    before = plane.drawn()
    plane.page.get_by_role("button", name="rain").click()
    assert plane.drawn() != before and len(plane.saved()) == SIDE**2 // 2
    assert "200 of 400 clips shown" in plane.page.locator(".asit-plane-says").inner_text()
    plane.page.mouse.click(*plane.point(1, 0))  # of the hidden class
    assert plane.get("selected") == -1
    plane.page.get_by_role("button", name="rain").click()
    assert plane.drawn() == before
    plane.page.get_by_role("button", name="rain").click(modifiers=["Shift"])  # alone
    assert {row["label"] for row in plane.saved()} == {"rain"}
    plane.page.get_by_role("button", name="rain").click(modifiers=["Shift"])
    plane.page.get_by_label("search").fill("clip 37")
    plane.page.get_by_label("search").press("Enter")
    assert plane.get("selected") == 37 and [row["clip"] for row in plane.saved()] == ["37", *map(str, range(370, 380))]


def test_what_the_legend_hides_stays_hidden_in_another_layer(plane):
    rain = plane.page.get_by_role("button", name="rain")
    rain.click()
    plane.page.evaluate("() => model.set('points', new DataView(model.get('points').buffer.slice(0)))")
    assert rain.get_attribute("aria-pressed") == "false" and len(plane.saved()) == SIDE**2 // 2


def test_the_selected_clip_is_told_of_again(plane):
    plane.page.evaluate("() => { window.told = []; model.send = (message) => told.push(message.kind); }")
    plane.page.mouse.click(*plane.point(0, 0))
    assert plane.get("selected") == 0 and plane.page.evaluate("told") == []
    plane.page.mouse.click(*plane.point(0, 0))
    plane.page.keyboard.press("Enter")
    assert plane.page.evaluate("told") == ["again", "again"]


def test_a_look_leaves_the_notebook_as_it_was_saved(plane):
    drawn = plane.page.locator("canvas.asit-plot").get_attribute("data-drawn")
    plane.page.mouse.move(*plane.point(0.2, 0.2), steps=5)
    plane.drawn()
    assert plane.page.locator("canvas.asit-plot").get_attribute("data-drawn") == drawn


def test_fifty_classes_have_marks_of_their_own(bare):
    widget = Plane()
    names = [f"class {number}" for number in range(50)]
    table = pd.DataFrame({"label": names})
    places = np.stack([np.arange(50) % 10, np.arange(50) // 10], 1)
    widget.show(places, table, names, "", "")
    widget.colour_by(table["label"])
    page = Page(bare, widget)
    swatches = page.page.eval_on_selector_all(".asit-legend canvas", "all => all.map((one) => one.toDataURL())")
    assert len(swatches) == len(set(swatches)) == 50


def test_wheel_drag_click_and_keys(plane):
    before = plane.drawn()
    plane.page.mouse.click(*plane.point(0, 0))
    assert plane.get("selected") == 0
    plane.page.keyboard.press("ArrowRight")
    plane.page.keyboard.press("ArrowDown")
    assert plane.get("selected") == 21
    plane.page.mouse.move(*plane.point(0.5, 0.5))
    plane.page.mouse.wheel(0, -100)
    plane.page.mouse.wheel(0, -100)
    place = 0.5 + (5 / 19 - 0.5) / np.exp(-2 / 3)
    plane.page.mouse.click(*plane.point(place, place))
    assert plane.get("selected") == 5 * SIDE + 5
    zoomed = plane.drawn()
    plane.page.mouse.down()
    plane.page.mouse.move(*plane.point(0.3, 0.3), steps=3)
    plane.page.mouse.up()
    assert plane.drawn() != zoomed
    plane.page.mouse.dblclick(*plane.point(0.5, 1.08))  # where no point is
    plane.page.evaluate("() => model.set('selected', -1)")
    plane.page.mouse.move(1, 1)
    assert plane.drawn() == before


def test_a_dark_page_has_bright_text(plane):
    light = plane.drawn()
    plane.page.evaluate("() => document.body.style.setProperty('--jp-ui-font-color1', '#ffffff')")
    plane.page.evaluate("() => { document.body.className = 'dark'; }")
    assert plane.drawn() != light
    pixel = "canvas => canvas.getContext('2d').getImageData(1, 1, 1, 1).data[3]"
    assert plane.page.locator("canvas.asit-plot").evaluate(pixel) == 0  # no white slab
    saved = "canvas => canvas.asitPicture().getContext('2d').getImageData(1, 1, 1, 1).data.join()"
    assert plane.page.locator("canvas.asit-plot").evaluate(saved) == "255,255,255,255"
