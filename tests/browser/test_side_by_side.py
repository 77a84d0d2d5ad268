"""Several runs or steps in an explorer, on the screen of a laptop."""

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


def test_planes_of_two_encoders_are_beside_each_other_and_choose_together(opened, home, page, screenshots):
    page.set_viewport_size({"width": 1440, "height": 900})
    notebook = opened(
        with_parameters(home, "explore_embeddings", "two_encoders", run="runs/first", compare="runs/second")
    )
    notebook.run_all()
    explorer = Explorer(notebook, "asit-embedding")
    planes = explorer.root.locator(".asit-points")
    explorer.root.evaluate("root => root.scrollIntoView({block: 'start'})")
    page.screenshot(path=screenshots / "two-encoders-1440.png")
    first, second = planes.nth(0).bounding_box(), planes.nth(1).bounding_box()
    assert planes.count() == 2 and first["y"] == second["y"] and first["x"] + first["width"] <= second["x"]
    assert explorer.ask("clipped") == []
    drawn = "plane => plane.querySelector('canvas').toDataURL()"
    before = planes.nth(0).evaluate(drawn)
    planes.nth(1).focus()
    page.keyboard.press("End")  # the last clip, chosen on the second plane
    page.wait_for_function("before => document.querySelector('.asit-points canvas').toDataURL() !== before", arg=before)
    explorer.settle()
    assert "clip 39," in explorer.root.inner_text() and "are neighbours by " in explorer.root.inner_text()


def test_steps_of_a_training_play_to_the_last(opened, home):
    notebook = opened(with_parameters(home, "explore_reconstructions", "steps", run="runs/second"))
    notebook.run_all()
    explorer = Explorer(notebook, "asit-reconstruction")
    step = explorer.locate(explorer.control("step"))
    last = step.get_attribute("aria-valuenow")
    step.press("Home")
    explorer.settle()
    before = explorer.ask("state")["picture"]
    assert step.get_attribute("aria-valuenow") != last
    explorer.root.get_by_role("button", name="play the steps").click()
    assert "picture" in explorer.changes({**explorer.ask("state"), "picture": before})  # at rest once it has played
    assert step.get_attribute("aria-valuenow") == last


def test_attention_of_two_models_is_in_one_view(opened, home):
    notebook = opened(with_parameters(home, "explore_attention", "two_models", run="runs/first", other="runs/second"))
    notebook.run_all()
    explorer = Explorer(notebook, "asit-attention")
    titles = [text["words"] for text in explorer.ask("texts") if "attended by" in text["words"]]
    steps = [step for step in (6, 24) if any(f"smoke, step {step}" in title for title in titles)]
    assert len(titles) == 2 and steps == [6, 24], titles
    # A patch stays chosen while clips change.
    view = explorer.root.locator(".asit-spectrogram canvas.asit-plot").first
    view.click(position={"x": 200, "y": 80})
    explorer.settle()
    place = explorer.root.inner_text().split(" Hz; layer")[0].rsplit("\n", 1)[-1]
    explorer.locate(explorer.control("clip", "choice")).select_option(index=2)
    explorer.settle()
    explorer.locate(explorer.control("start (s)")).press("Home")
    explorer.settle()
    assert f", {place.split(', ')[1]} Hz; layer" in explorer.root.inner_text()
