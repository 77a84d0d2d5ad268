"""The spectrogram view in a bare page: zoom, cursor, selection, sound and files, all without a kernel."""

import base64
import csv
import io
import json

import numpy as np
import pytest
import soundfile
from PIL import Image
from playwright.sync_api import expect
from script_case import STATIC

from asit_lab.figures import MelAxes
from asit_lab.widgets.scene import Panel, Scene
from asit_lab.widgets.spectrogram_view import SpectrogramView

pytestmark = pytest.mark.browser

FRAMES, BANDS, HOP, START, RATE = 200, 16, 0.01, 3.0, 8000
AXES = MelAxes(HOP, 16000, 20.0, 0.0, normalised=True, start=START)
WAVE = np.arange(2 * RATE) / (2 * RATE) - 0.5  # of which every sample says when it was
TONE = 0.2 * np.sin(2 * np.pi * 3000 * np.arange(2 * RATE) / RATE)  # above the bands that are masked
LOAD = """async ([esm, css, state, sounds]) => {
  const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
  state.values = state.values.map(bytes);
  for (const name of ["mask", "kept", "tokens"]) state[name] = bytes(state[name]);
  for (const name in state.maps) state.maps[name] = bytes(state.maps[name]);
  window.model = fakeModel(state);
  const here = document.querySelector("#here");
  here.className = "asit-explorer";
  here.style.width = "700px";
  for (const [name, wav] of Object.entries(sounds)) {
    const src = URL.createObjectURL(new Blob([bytes(wav)], { type: "audio/wav" }));
    const inside = `<div class="widget-label">${name}</div><audio src="${src}"></audio>`;
    here.innerHTML += `<div class="asit-sound">${inside}</div>`;
  }
  const el = here.appendChild(document.createElement("div"));
  const { render } = await load(esm);
  window.cleanup = render({ model: window.model, el });
  const limit = Date.now() + 120000;
  while (!el.querySelector("[data-drawn]") || document.querySelector("select[aria-label=sound]").options.length < 2) {
    if (Date.now() > limit) throw new Error("the view was not drawn");
    await new Promise((next) => setTimeout(next, 20));
  }
}"""


def scene() -> Scene:
    """Levels that name their frame and their band; the left half of the lower bands is masked."""
    frame, band = np.meshgrid(np.arange(FRAMES) / FRAMES, np.arange(BANDS) / 1000, indexing="ij")
    mask = np.zeros((FRAMES, BANDS), bool)
    mask[: FRAMES // 2, : BANDS // 2] = True
    panels = [
        Panel("clean", "clean: a clip", frame + band, sound="clean"),
        Panel("corrupted", "corrupted", np.where(mask, 0.0, frame + band), outline=True, sound="corrupted"),
        Panel("error", "error", np.where(mask, 0.25, np.nan), "error"),
    ]
    return Scene(panels, AXES, (2.0, -7.0), mask=mask, patch=(10, 4), file="a clip")


def wav(wave: np.ndarray) -> str:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, RATE, format="WAV", subtype="PCM_16")
    return base64.b64encode(buffer.getvalue()).decode()


class View:
    """The view in the page, and how a user handles it."""

    def __init__(self, page):
        self.page = page
        self.frame = page.locator(".asit-spectrogram")
        self.readout = page.locator(".asit-readout")
        self.box = self.frame.bounding_box()

    def point(self, across: float, up: float, panel: int = 0) -> tuple[float, float]:
        """On the page, of a place in a panel (fractions of it). Numbers as in spectrogram_draw.js, three rows."""
        left, right, title, height = 52, 86, 19, 128
        top = title + panel * (height + 5 + title)
        wide = self.box["width"] - left - right
        return self.box["x"] + left + across * wide, self.box["y"] + top + (1 - up) * height

    def hover(self, across: float, up: float, panel: int = 0) -> None:
        self.page.mouse.move(*self.point(across, up, panel))

    def drag(self, start: float, end: float, up: float = 0.5) -> None:
        self.hover(start, up)
        self.page.mouse.down()
        self.page.mouse.move(*self.point((start + end) / 2, up))
        self.hover(end, up)
        self.page.mouse.up()

    def drawn(self) -> None:
        """Wait until changes are on the page."""
        self.page.evaluate("() => new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(next)))")

    def time(self, across: float) -> float:
        """What the readout says of a place, s."""
        self.hover(across, 0.5)
        self.drawn()
        return float(self.readout.inner_text().split(" s")[0])

    def levels(self) -> list[str]:
        return self.page.locator(".asit-value").all_inner_texts()

    def saved(self, button: str) -> bytes:
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name=button, exact=True).click()
        self.name = download.value.suggested_filename
        return download.value.path().read_bytes()

    def pixels(self) -> np.ndarray:
        self.drawn()
        url = self.page.locator("canvas.asit-plot").evaluate("canvas => canvas.toDataURL()")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA")).astype(int)


@pytest.fixture
def view(bare):
    bare.set_viewport_size({"width": 800, "height": 900})
    widget = SpectrogramView()
    widget.show(scene(), "a clip, with its error.")
    text = {name: base64.b64encode(getattr(widget, name)).decode() for name in ("mask", "kept", "tokens")}
    plain = ("scene", "low", "high", "most", "peak", "fitted", "unit", "colours", "alt", "choosable", "marked")
    state = {name: getattr(widget, name) for name in plain} | {"drawable": True}
    state["values"] = [base64.b64encode(values).decode() for values in widget.values]
    state["maps"] = {name: base64.b64encode(colours).decode() for name, colours in widget.maps.items()}
    css = (STATIC / "spectrogram.css").read_text()
    sounds = {"recording": wav(WAVE), "clean": wav(WAVE + TONE), "corrupted": wav(-WAVE)}
    bare.evaluate(LOAD, [widget._esm, css, json.loads(json.dumps(state | text)), sounds])
    return View(bare)


def audio(page, name: str, what: str):
    return page.locator(".asit-sound", has_text=name).locator("audio").evaluate(f"audio => audio.{what}")


def test_the_cursor_reads_every_panel(view):
    view.hover(0.25 + 0.001, 9.5 / BANDS, panel=1)
    view.drawn()
    hz = [hz for hz in range(8000) if AXES.position(hz, BANDS) >= 9.5][0]
    time, pitch = view.readout.inner_text().split(", ")
    assert float(time.split()[0]) == pytest.approx(START + 0.25 * FRAMES * HOP, abs=0.006)
    assert float(pitch.split()[0]) == pytest.approx(hz, rel=0.02) and pitch.endswith("(band 9)")
    assert view.levels() == ["0.26", "0.26", "–"]
    view.hover(0.25 + 0.001, 2.5 / BANDS, panel=2)
    view.drawn()
    assert view.levels() == ["0.25", "0.00", "0.25"]
    view.page.get_by_label("unit").select_option("dB")
    view.hover(0.25 + 0.001, 2.5 / BANDS)
    view.drawn()
    level, error = 10 / np.log(10) * (4 * 0.2525 - 7), 10 / np.log(10) * 4 * 0.25
    assert view.levels()[0] == f"{level:.1f} dB" and view.levels()[2] == f"{error:.1f} dB"


def test_the_wheel_zooms_about_the_cursor_and_a_drag_moves(view):
    before = view.pixels()
    view.hover(0.5, 0.5)
    view.page.mouse.wheel(0, -100)
    view.page.mouse.wheel(0, -100)
    assert (view.pixels() != before).any()
    left, middle, right = (view.time(across) for across in (0.001, 0.5, 0.999))
    assert middle == pytest.approx(4.0, abs=0.01) and left == pytest.approx(4 - np.exp(-0.5), abs=0.02)
    view.drag(0.5, 0.75)
    moved = [view.time(across) for across in (0.001, 0.5, 0.999)]
    assert np.allclose(np.array(moved), np.array([left, middle, right]) - 0.25 * (right - left), atol=0.02)
    view.page.mouse.dblclick(*view.point(0.5, 0.5))
    assert view.time(0.001) == pytest.approx(START, abs=0.01) and (view.pixels() == before).all()
    view.page.keyboard.down("Shift")
    view.hover(0.4, 0.01)
    view.page.mouse.wheel(0, -100)
    view.page.keyboard.up("Shift")
    view.hover(0.4, 0.999)
    view.drawn()
    assert view.readout.inner_text().endswith("(band 12)")  # of 15: lower bands fill the panel
    assert view.time(0.001) == pytest.approx(START, abs=0.01)


def test_the_page_scrolls_where_it_was_scrolled_under_the_mouse(view):
    view.page.evaluate("() => { document.body.style.height = '3000px'; }")
    view.hover(0.5, 0.5)
    view.page.mouse.wheel(0, 100)  # all is in view: nothing to zoom out to
    view.page.wait_for_function("() => scrollY > 0")
    view.page.mouse.wheel(0, -100)
    view.page.wait_for_function("() => scrollY === 0")
    assert view.time(0.001) == pytest.approx(START, abs=0.01)


def test_keys_do_what_the_mouse_does(view):
    before = view.pixels()
    view.frame.focus()
    view.page.keyboard.press("+")
    assert view.time(0.001) > START + 0.2
    view.page.keyboard.press("ArrowLeft")
    view.page.keyboard.press("ArrowLeft")
    assert view.time(0.001) == pytest.approx(START, abs=0.01)
    view.page.keyboard.press("Home")
    assert (view.pixels() == before).all()


def test_a_click_seeks_and_chooses_the_sound_of_its_panel(view):
    view.page.mouse.click(*view.point(0.5, 0.5, panel=1))
    assert audio(view.page, "corrupted", "currentTime") == pytest.approx(1.0, abs=0.01)
    sound = view.page.get_by_label("sound")
    expect(sound).to_have_value("corrupted")  # in the next frame of the page
    view.page.keyboard.press("2")
    expect(sound).to_have_value("clean")
    assert audio(view.page, "clean", "currentTime") == pytest.approx(1.0, abs=0.01)


def test_a_selection_is_played_and_repeated(view):
    view.page.keyboard.down("Shift")
    view.drag(0.25, 0.5)
    view.page.keyboard.up("Shift")
    view.page.mouse.move(1, 1)
    view.drawn()
    words = view.readout.inner_text().split()
    assert float(words[1]) == pytest.approx(3.5, abs=0.01) and float(words[3]) == pytest.approx(4.0, abs=0.01)
    play = view.page.get_by_role("button", name="Play")
    play.click()
    view.page.wait_for_function("() => document.querySelector('.asit-tools button').textContent.includes('Pause')")
    assert 0.49 <= audio(view.page, "recording", "currentTime") < 0.9
    view.page.wait_for_function("() => document.querySelector('.asit-tools button').textContent.includes('Play')")
    assert audio(view.page, "recording", "currentTime") == pytest.approx(1.0, abs=0.15)
    view.page.evaluate(
        """() => { window.jumps = 0; const audio = document.querySelector("audio"); let before = 0;
          audio.addEventListener("seeking", () => { if (audio.currentTime < before) window.jumps++; });
          audio.addEventListener("timeupdate", () => (before = audio.currentTime)); }"""
    )
    view.page.get_by_role("button", name="Loop").click()
    play.click()
    view.page.wait_for_function("() => window.jumps >= 2")
    before = audio(view.page, "recording", "currentTime")
    view.page.get_by_label("sound").select_option("corrupted")  # while it plays: from there on
    assert audio(view.page, "recording", "paused") and not audio(view.page, "corrupted", "paused")
    assert audio(view.page, "corrupted", "currentTime") >= before - 0.51


def test_files_hold_what_is_shown(view):
    view.hover(0.5, 0.5)
    for _ in range(6):
        view.page.mouse.wheel(0, -100)
    view.drawn()
    rows = list(csv.DictReader(io.StringIO(view.saved("CSV").decode())))
    times = sorted({float(row["time_s"]) for row in rows})
    assert view.name == "a-clip.csv" and len(rows) == len(times) * BANDS and 40 < len(times) < 50
    assert times[0] == pytest.approx(view.time(0.001), abs=0.011)
    values = scene()
    for row in rows:
        frame = round((float(row["time_s"]) - START) / HOP)
        band = round(float(AXES.position(float(row["frequency_hz"]), BANDS)) - 0.5)
        assert float(row["clean"]) == pytest.approx(values.panels[0].values[frame, band], abs=1e-3)
        assert row["masked"] == str(int(values.mask[frame, band]))
        assert row["error"] == ("0.2500" if values.mask[frame, band] else "")
    picture = Image.open(io.BytesIO(view.saved("PNG")))
    assert picture.width == 2 * round(view.box["width"]) and np.asarray(picture).std() > 20
    assert np.asarray(picture.convert("RGB"))[2, 2].tolist() == [255, 255, 255]
    view.page.get_by_role("button", name="PDF").click()
    (asked,) = view.page.evaluate("() => window.sent")
    assert asked["kind"] == "pdf" and asked["view"]["t0"] * HOP + START == pytest.approx(times[0], abs=0.011)


def test_the_wav_is_the_selection(view):
    assert len(soundfile.read(io.BytesIO(view.saved("WAV")))[0]) == len(WAVE)
    view.page.keyboard.down("Shift")
    view.drag(0.25, 0.5)
    view.page.keyboard.up("Shift")
    wave, rate = soundfile.read(io.BytesIO(view.saved("WAV")))
    assert rate == RATE and view.name == "a-clip.recording.wav"
    assert wave[0] == pytest.approx(-0.25, abs=0.005) and wave[-1] == pytest.approx(0, abs=0.005)


def test_masked_only_plays_the_masked_patches_in_time_and_frequency(view):
    view.page.get_by_label("sound").select_option("clean")
    view.page.get_by_role("button", name="Masked only").click()
    wave = soundfile.read(io.BytesIO(view.saved("WAV")))[0]
    early, late = slice(round(0.1 * RATE), round(0.9 * RATE)), slice(round(1.1 * RATE), None)
    assert view.name == "a-clip.clean.masked.wav" and len(wave) == len(WAVE)
    assert np.abs(wave[early] - WAVE[early]).max() < 0.02 and np.abs(wave[late]).max() == 0
    part = view.page.locator("audio[hidden]")
    view.page.mouse.click(*view.point(0.25, 0.5))
    view.page.get_by_role("button", name="Play").click()
    view.page.wait_for_function("() => document.querySelector('audio[hidden]').currentTime > 0.52")
    assert audio(view.page, "clean", "paused") and not part.evaluate("audio => audio.paused")
    view.page.get_by_label("sound").select_option("corrupted")  # at the same place, and still its masked part
    view.page.wait_for_function("() => document.querySelector('audio[hidden]').currentTime > 0.54")
    view.frame.focus()
    view.page.keyboard.press("h")
    view.page.wait_for_function("() => !document.querySelectorAll('.asit-sound audio')[2].paused")
    assert part.evaluate("audio => audio.paused") and audio(view.page, "corrupted", "currentTime") >= 0.5
    only = view.page.get_by_role("button", name="Masked only")
    expect(only).to_have_attribute("aria-pressed", "false")
    view.page.get_by_role("button", name="Clear").click()
    expect(only).to_be_disabled()


def test_colours_follow_range_and_map_and_what_the_kernel_sends(view):
    before = view.pixels()
    view.page.get_by_label("highest level").fill("0.5")
    view.page.get_by_label("highest level").press("Enter")
    narrow = view.pixels()
    assert view.page.evaluate("() => model.get('high')") == 0.5 and (narrow != before).any()
    view.page.get_by_label("colour map").select_option("gray")
    grey = view.pixels()
    x, y = (int(a - b) for a, b in zip(view.point(0.2, 0.8), (view.box["x"], view.box["y"]), strict=True))
    assert len(set(grey[y, x, :3])) == 1 < len(set(narrow[y, x, :3]))
    view.page.get_by_role("button", name="Fit").click()
    assert view.page.evaluate("() => model.get('high')") == 1
    view.page.evaluate("() => model.set('mask', new DataView(new ArrayBuffer(0)))")
    assert (view.pixels() != grey).any()


def sent_mask(page) -> np.ndarray:
    """The mask that the page sent last."""
    assert page.evaluate("() => window.sent.at(-1).kind") == "mask"
    sent = page.evaluate("() => [...window.sentBuffers[0]]")
    return np.array(sent, dtype=bool).reshape(FRAMES, BANDS)


def test_a_mask_is_drawn_and_erased_by_the_mouse(view):
    before, clean = view.pixels(), scene().mask
    view.page.get_by_label("mouse").select_option("draw")
    view.drag(0.72, 0.88, up=0.8)  # patches of 10 frames and 4 bands: 14 to 17, the upmost
    drawn = clean.copy()
    drawn[140:180, 12:16] = True
    assert np.array_equal(sent_mask(view.page), drawn)
    assert (view.pixels() != before).any()  # without an answer of the kernel
    assert view.time(0.001) == pytest.approx(START, abs=0.01)  # the window has not moved
    view.page.get_by_label("brush").select_option("three patches")
    view.frame.focus()
    view.page.keyboard.press("e")
    view.page.mouse.click(*view.point(0.25, 0.25))
    drawn[35:65, 0:10] = False
    assert np.array_equal(sent_mask(view.page), drawn)
    view.page.get_by_role("button", name="Clear").click()
    assert not sent_mask(view.page).any()
    view.page.get_by_label("mouse").select_option("move")
    view.drag(0.5, 0.6)
    assert not sent_mask(view.page).any()


def test_the_outline_of_the_mask_can_be_left_out(view):
    before = view.pixels()
    button = view.page.get_by_role("button", name="Outline")
    button.click()
    assert (view.pixels() != before).any() and button.get_attribute("aria-pressed") == "false"
    view.frame.focus()
    view.page.keyboard.press("o")
    assert (view.pixels() == before).all()


def test_a_dark_page_has_bright_text_and_the_saved_picture_is_light(view):
    saved = view.saved("PNG")
    view.page.evaluate("() => document.body.style.setProperty('--jp-ui-font-color1', '#ffffff')")
    view.page.evaluate("() => { document.body.className = 'dark'; }")
    view.drawn()
    title = view.pixels()[2:17, 52:140]
    assert title[title[..., 3] > 200][:, :3].mean() > 180
    assert view.saved("PNG") == saved
