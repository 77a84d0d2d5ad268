"""The explorers' scripts in a bare page, with a stand-in for the kernel: marks, keys, sounds."""

import io

import numpy as np
import pytest
from PIL import Image
from script_case import STATIC, show

from asit_lab.widgets.clickable import ClickableImage
from asit_lab.widgets.overview import Overview, peaks_of

pytestmark = pytest.mark.browser


@pytest.fixture
def clickable(bare):
    """`clickable(targets)`: a picture of 400 x 200 pixels whose left half is a panel with these targets (fractions)."""
    buffer = io.BytesIO()
    Image.new("RGB", (400, 200), "white").save(buffer, "png")

    def clickable(targets):
        state = {"png": buffer.getvalue(), "targets": np.array(targets, "<f4").tobytes(), "labels": [], "alt": "dots."}
        show(bare, ClickableImage, state | {"areas": [[0, 0, 0.5, 1]], "selected": -1, "hovered": -1}, 400)
        bare.wait_for_function("() => document.querySelector('#here img').naturalWidth")
        return bare.locator(".asit-clickable")

    return clickable


def selected(page) -> int:
    return page.evaluate("() => window.model.get('selected')")


def test_a_click_beside_the_panels_chooses_nothing(bare, clickable):
    picture = clickable([[0.1, 0.5], [0.4, 0.5]])
    picture.click(position={"x": 300, "y": 100})  # where a legend is
    assert selected(bare) == -1
    picture.click(position={"x": 150, "y": 100})
    assert selected(bare) == 1
    picture.click(position={"x": 390, "y": 20})
    assert selected(bare) == 1


def test_arrows_reach_every_target(bare, clickable):
    """Two at one place, and one so steep above that it is not on the way to the right."""
    picture = clickable([[0.1, 0.9], [0.1, 0.9], [0.12, 0.1], [0.4, 0.85]])
    picture.focus()
    seen = set()
    for key in ["ArrowRight"] * 6 + ["ArrowUp"] * 3 + ["ArrowLeft"] * 6 + ["ArrowDown"] * 3:
        picture.press(key)
        seen.add(selected(bare))
    assert seen == {0, 1, 2, 3}


def test_enter_does_not_take_what_lies_under_the_mouse(bare, clickable):
    picture = clickable([[0.1, 0.5], [0.4, 0.5]])
    picture.click(position={"x": 40, "y": 100})
    picture.hover(position={"x": 160, "y": 100})
    bare.wait_for_function("() => window.model.get('hovered') === 1")
    picture.press("Enter")
    assert selected(bare) == 0


def test_settings_are_copied(bare):
    bare.evaluate(
        """async (source) => {
          const el = document.querySelector("#here");
          (await load(source)).render({ model: fakeModel({ text: "mask.ratio=0.7" }), el });
          document.addEventListener("copy", () => (window.copied = getSelection().toString()));
        }""",
        (STATIC / "copy_text.js").read_text(),
    )
    bare.get_by_role("button", name="copy as overrides").click()
    assert bare.evaluate("() => window.copied") == "mask.ratio=0.7"
    assert bare.get_by_role("button").inner_text() == "copied"


def test_the_window_of_a_long_recording_is_dragged(bare):
    peaks = peaks_of(np.sin(np.arange(20000) / 3)).tobytes()
    show(bare, Overview, {"peaks": peaks, "total": 100, "seconds": 10, "start": 20}, 600)
    box = bare.locator(".asit-overview").bounding_box()
    place = lambda time: (box["x"] + time / 100 * box["width"], box["y"] + 20)  # noqa: E731
    start = lambda: bare.evaluate("() => window.model.get('start')")  # noqa: E731
    bare.mouse.move(*place(22))
    bare.mouse.down()
    bare.mouse.move(*place(52), steps=4)
    bare.mouse.up()
    assert start() == pytest.approx(50, abs=0.5)
    bare.mouse.click(*place(80))  # beside the window: it is centred there
    assert start() == pytest.approx(75, abs=0.5)
    bare.mouse.move(*place(78))
    bare.mouse.down()
    bare.mouse.move(*place(99.9))
    bare.mouse.up()
    assert start() == 90  # not beyond the end
    bare.locator(".asit-overview").press("ArrowLeft")
    assert start() == 85
    picture = "document.querySelector('.asit-overview canvas').toDataURL()"
    drawn = bare.evaluate(picture)
    assert len(drawn) > 1000
    bare.evaluate("""() => {
      document.body.dataset.jpThemeLight = "true"; // the colours of a theme come after its name
      setTimeout(() => document.documentElement.style.setProperty("--jp-ui-font-color2", "rgb(255, 0, 0)"), 200);
    }""")
    bare.wait_for_function(
        "before => document.querySelector('.asit-overview canvas').toDataURL() !== before", arg=drawn
    )


def test_one_sound_at_a_time(bare):
    paused = bare.evaluate(
        """async (source) => {
          const here = document.querySelector("#here");
          here.innerHTML = "<div class='asit-explorer'><audio></audio><audio></audio><div id='page'></div></div>";
          const [first, second] = document.querySelectorAll("audio");
          const paused = [];
          for (const audio of [first, second]) audio.pause = () => paused.push(audio === first ? "first" : "second");
          const { render } = await load(source);
          render({ model: fakeModel({ explorer: "x" }), el: document.querySelector("#page") });
          await new Promise((next) => setTimeout(next, 300));
          second.dispatchEvent(new Event("play"));
          return paused;
        }""",
        (STATIC / "page.js").read_text(),
    )
    assert paused == ["first"]
