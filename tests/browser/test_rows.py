"""Rows of a data set in a bare page: sort, filter, choose, mark."""

import pytest
from script_case import show

from asit_lab.widgets.data_rows import RowsTable

pytestmark = pytest.mark.browser


@pytest.fixture
def rows(bare):
    cells = [[i, ["bell", "rain"][i % 2], 10.0 - i] for i in range(8)]
    show(bare, RowsTable, {"columns": ["row", "label", "seconds"], "rows": cells, "selected": -1, "bad": []}, 600)
    return bare


def listed(page) -> list[str]:
    return page.locator("tbody tr td:nth-child(2)").all_inner_texts()


def test_rows_are_sorted_and_filtered(rows):
    assert listed(rows) == list("01234567")
    rows.get_by_role("button", name="seconds").click()
    assert listed(rows) == list("76543210")
    rows.get_by_role("button", name="label").click()
    rows.get_by_role("button", name="label").click()
    assert listed(rows) == list("13570246")
    rows.get_by_label("filter rows").fill("RAIN")
    assert listed(rows) == list("1357") and "4 of 8 rows" in rows.locator(".asit-tools").inner_text()


def test_rows_are_chosen_and_marked_by_mouse_and_keys(rows):
    rows.get_by_role("cell", name="rain").first.click()
    assert rows.evaluate("() => model.get('selected')") == 1
    rows.keyboard.press("ArrowDown")
    rows.keyboard.press("x")
    rows.get_by_label("mark row 5 as bad").click()
    assert rows.evaluate("() => model.get('bad')") == [2, 5] and rows.evaluate("() => model.get('selected')") == 2
    rows.get_by_label("marked only").check()
    assert listed(rows) == ["2", "5"] and "2 marked as bad" in rows.locator(".asit-tools").inner_text()
    rows.get_by_label("mark row 2 as bad").click()
    assert listed(rows) == ["5"]


def test_marks_of_another_data_set_may_come_before_its_rows(rows):
    """The kernel sends all of it at once, and the page tells of one after the other."""
    rows.evaluate("""() => {
      const { get } = model, few = [[0, "cat", 5], [1, "dog", 4]];
      model.get = (name) => (name === "rows" ? few : get(name));
      for (const [name, value] of [["bad", [1]], ["selected", 0], ["rows", few]]) model.set(name, value);
    }""")
    assert listed(rows) == ["0", "1"] and "2 of 2 rows; 1 marked as bad" in rows.locator(".asit-tools").inner_text()
