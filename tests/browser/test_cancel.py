"""Long work in JupyterLab is stopped by its button and by Interrupt, and what is shown stays true."""

import pytest
from explorer_case import Explorer
from lab_case import PATIENCE, with_parameters

pytestmark = pytest.mark.browser

INTERRUPT = "() => asit.panel().sessionContext.session.kernel.interrupt()"


def press_cancel(explorer: Explorer) -> None:
    explorer.root.get_by_role("button", name="Cancel").click()


def interrupt(explorer: Explorer) -> None:
    explorer.page.evaluate(INTERRUPT)


def test_work_after_a_control_is_stopped(opened, page):
    notebook = opened("explore_embeddings")
    notebook.run_all()
    explorer = Explorer(notebook, "asit-embedding")
    entry, before = explorer.locate(explorer.control("data set", "text")), explorer.ask("state")
    for data, stop in (("synth:5000", press_cancel), ("synth:6000", interrupt)):
        entry.fill(data)
        entry.press("Enter")
        explorer.root.get_by_text("embedding: ").wait_for()  # it has begun: a bar with the time left
        stop(explorer)
        explorer.root.get_by_text("embedding cancelled; the map still shows synth:40").wait_for()
        explorer.settle()
        assert explorer.ask("state")["picture"] == before["picture"]
        assert explorer.root.locator(".asit-work").is_hidden()
    explorer.locate(explorer.control("search", "text")).press("Enter")  # the map answers, with its own clips
    assert "synth:40" in explorer.root.locator(".asit-points").get_attribute("aria-label")
    entry.fill("synth:12")
    entry.press("Enter")
    assert "picture" in explorer.changes(before)
    assert "synth:12" in explorer.root.locator(".asit-points").get_attribute("aria-label")
    assert "cancelled" not in explorer.root.inner_text()


def test_work_in_a_cell_is_stopped_by_interrupt(opened, home, page):
    notebook = opened(with_parameters(home, "explore_embeddings", "interrupted", data="synth:9000", clips=9000))
    page.evaluate("() => void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    kernel = notebook.lab.kernel()
    page.wait_for_function("() => asit.kernel() === 'busy'")
    page.locator(".jp-OutputArea-output").first.wait_for()  # the bar of the embedding
    page.evaluate(INTERRUPT)
    page.wait_for_function("() => asit.cells().error && asit.kernel() === 'idle'", timeout=PATIENCE * 1000)
    assert page.evaluate("() => asit.cells().error").startswith("KeyboardInterrupt")
    assert kernel.is_running()
