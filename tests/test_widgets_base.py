"""What all explorers share, without a browser: messages, pictures, sounds, clips to choose, targets to click."""

import base64
import io
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
import requests
import soundfile
from matplotlib.figure import Figure
from PIL import Image

from asit_lab.errors import InputError
from asit_lab.widgets import base
from asit_lab.widgets.base import Explorer, FigureImage, Message, Sound, labelled, seed_entry, stacked, whole_number
from asit_lab.widgets.clickable import ClickableImage
from asit_lab.widgets.clips import MOST_LISTED, ClipChooser


def opened(png) -> Image.Image:
    return Image.open(io.BytesIO(bytes(png)))


class Small(Explorer):
    """An explorer of one slider, which 7 upsets."""

    def __init__(self):
        super().__init__()
        self.level = labelled(ipywidgets.IntSlider(1, max=10), "level")
        self.picture = FigureImage()
        self.saved = (self.picture,)
        self.figure = Figure(figsize=(3, 2))
        self.drawn = 0
        self.arrange([self.level], [self.picture])
        self.on(self.level, self.redraw)
        with self.errors_in_words():
            self.redraw()

    def redraw(self):
        if self.level.value == 7:
            raise InputError("level: 7 <is> not a level")
        if self.level.value == 8:
            raise KeyError("eight")
        self.drawn += 1
        self.figure.clear()
        self.figure.add_subplot().plot([0, self.level.value])
        self.picture.draw(self.figure, alt=f"level {self.level.value}")


# --- Messages -------------------------------------------------------------------------------------------------------


def test_a_wrong_input_is_said_in_words_and_the_picture_before_stays():
    explorer = Small()
    before = explorer.png()
    explorer.level.value = 7
    assert explorer.message.text == "level: 7 <is> not a level"
    assert "role=" in explorer.message.value and "7 &lt;is&gt; not" in explorer.message.value
    assert explorer.message.layout.display == "block" and explorer.png() == before
    explorer.level.value = 3
    assert explorer.message.text == "" and explorer.message.layout.display == "none" and explorer.png() != before


def test_a_fault_of_the_code_is_said_in_one_line_and_raised():
    explorer = Small()
    with pytest.raises(KeyError):
        explorer.level.value = 8
    assert explorer.message.text == "KeyError: 'eight' (details are in the log)"


def test_a_failure_inside_is_not_cleared_by_success_around_it():
    message = Message()
    with message.in_words(), message.in_words():
        raise FileNotFoundError("a.wav is not there")
    assert message.text == "a.wav is not there"
    with message.in_words():
        pass
    assert message.text == ""


def test_the_mouse_that_passes_over_clears_only_its_own_message():
    message = Message()
    with message.in_words():
        raise FileNotFoundError("a.wav is not there")
    with message.in_words(clear=False):
        pass
    assert message.text == "a.wav is not there"
    with message.in_words(clear=False):
        raise FileNotFoundError("b.wav is not there")
    with message.in_words(clear=False):
        pass
    assert message.text == ""


# --- Pictures and sounds --------------------------------------------------------------------------------------------


def test_one_bundle_holds_the_view_the_picture_and_text():
    explorer = Small()
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert base64.b64decode(bundle["image/png"]) == explorer.png()
    explorer.level.value = 7
    assert explorer._repr_mimebundle_()["text/plain"] == "Small: level: 7 <is> not a level"


def test_classes_that_browser_tests_look_for():
    explorer = Small()
    assert {"asit-explorer", "asit-small"} <= set(explorer._dom_classes)
    assert "asit-picture" in explorer.picture._dom_classes and "asit-message" in explorer.message._dom_classes
    assert "asit-sound" in Sound("clean")._dom_classes


def test_a_picture_has_the_size_asked_for_and_clears_the_figure_before():
    picture = FigureImage()
    first, second = Figure(figsize=(3, 2)), Figure(figsize=(2, 2))
    first.add_subplot()
    picture.draw(first, dpi=50, alt="first")
    picture.draw(first, dpi=50, alt="first again")
    assert opened(picture.value).size == (150, 100) and len(first.axes) == 1
    picture.draw(second, dpi=100, alt="second")
    assert opened(picture.value).size == (200, 200) and first.axes == [] and picture.tooltip == "second"


def test_pictures_are_read_on_bright_and_on_dark_pages():
    figure = Figure(figsize=(2, 2))
    figure.add_subplot().set_title("a title")
    image = FigureImage()
    image.draw(figure)
    pixels = np.asarray(Image.open(io.BytesIO(bytes(image.value))))
    assert pixels.shape[2] == 4 and pixels[0, 0, 3] == 0  # no background
    drawn = pixels[pixels[..., 3] == 255][:, :3]
    assert len(drawn) and 100 < np.median(drawn) < 140  # grey on both
    whole = np.asarray(Image.open(io.BytesIO(stacked([bytes(image.value)]))))
    assert whole[0, 0].tolist() == [255, 255, 255]


def test_pictures_are_stacked_in_order():
    def plain(width, colour):
        buffer = io.BytesIO()
        Image.new("RGB", (width, 10), colour).save(buffer, "png")
        return buffer.getvalue()

    whole = opened(stacked([plain(20, "red"), b"", plain(30, "blue")]))
    assert whole.size == (30, 20)
    assert [whole.getpixel(at) for at in ((5, 5), (25, 5), (25, 15))] == [(255, 0, 0), (255, 255, 255), (0, 0, 255)]
    with pytest.raises(InputError, match="no picture"):
        stacked([b""])


def test_a_sound_is_a_wav_that_holds_the_wave_and_hides_when_empty():
    player = Sound("clean")
    assert player.layout.display == "none"
    wave = np.sin(np.arange(800) / 5).astype(np.float32)
    wave[0] = 3.0  # clipped, not wrapped round
    player.load(wave, 8000)
    heard, rate = soundfile.read(io.BytesIO(bytes(player.player.value)))
    assert rate == 8000 and player.layout.display == "flex" and heard[0] > 0.99
    np.testing.assert_allclose(heard[1:], wave[1:], atol=1e-4)
    assert player.player.controls and not player.player.autoplay and not player.player.loop
    player.load(None, 0)
    assert player.layout.display == "none" and not bytes(player.player.value)


# --- Targets --------------------------------------------------------------------------------------------------------


def test_targets_are_where_the_picture_shows_them():
    """A dot is drawn at each target; its pixels are looked up in the PNG."""
    image = ClickableImage()
    figure = Figure(figsize=(4, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    places = [np.array([[1.0, 10.0], [3.0, 20.0]]), np.array([[-0.5, 0.25]])]
    for ax, at in zip((left, right), places, strict=True):
        ax.plot(*at.T, "s", color="red", markersize=5)
    right.set_aspect("equal")
    image.draw(figure, [(left, places[0]), (right, places[1])], ["a", "b", "c"], dpi=80, alt="dots")
    pixels = np.asarray(opened(image.png).convert("RGB")).astype(int)
    assert image.fractions.shape == (3, 2) and image.alt == "dots" and image.labels == ["a", "b", "c"]
    for x, y in image.fractions:
        colour = pixels[int(y * pixels.shape[0]), int(x * pixels.shape[1])]
        assert colour[0] > 200 and colour[1] < 60, (x, y, colour)


def test_targets_are_little_endian_float32_and_labels_must_fit():
    image = ClickableImage()
    figure = Figure(figsize=(2, 2))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 4), ylim=(0, 4))
    image.draw(figure, [(ax, [[1, 1], [2, 3]])])
    assert image.targets == np.array([[0.25, 0.75], [0.5, 0.25]], "<f4").tobytes()
    with pytest.raises(InputError, match="labels: 1 for 2 targets"):
        image.draw(figure, [(ax, [[1, 1], [2, 3]])], ["one"])
    image.draw(figure, [])
    assert image.fractions.shape == (0, 2)


def test_a_selection_outlives_a_drawing_unless_its_target_is_gone():
    image = ClickableImage()
    figure = Figure(figsize=(2, 2))
    ax = figure.add_subplot()
    image.draw(figure, [(ax, np.zeros((5, 2)))])
    image.selected, image.hovered = 3, 4
    image.draw(figure, [(ax, np.zeros((4, 2)))])
    assert (image.selected, image.hovered) == (3, -1)
    image.draw(figure, [(ax, np.zeros((2, 2)))])
    assert image.selected == -1


def test_the_script_needs_no_network_and_writes_no_html():
    scripts = {path.name: path.read_text() for path in (Path(base.__file__).parent / "static").glob("*.js")}
    drawing = {f"spectrogram{part}.js" for part in ("", "_scales", "_draw", "_brush", "_toolbar", "_masked")}
    shared = {"parts.js", "targets.js", "markers.js"}
    own = drawing | shared | {"copy_text.js", "overview.js", "plane.js", "curves.js", "rows.js"}  # hear what they made
    others = {"clickable.js", "page.js", "upload.js", "spectrogram_sound.js", "spectrogram_gestures.js"}
    assert set(scripts) == own | others
    for name, script in scripts.items():
        assert "http" not in script and "import " not in script and "innerHTML" not in script
        assert name in own or "removeEventListener" in script
    assert scripts["clickable.js"] in str(ClickableImage._esm) and "revokeObjectURL" in scripts["clickable.js"]


# --- Clips ----------------------------------------------------------------------------------------------------------


def test_a_clip_of_a_data_set():
    chooser = ClipChooser("synth:12", clip=3, sample_rate=8000)
    assert chooser.wave.dtype == np.float32 and chooser.wave.shape == (40000,)
    assert (chooser.sample_rate, chooser.row, chooser.changed) == (8000, 3, 1)
    assert chooser.name.startswith("clip 3 of synth:12 (")
    before = chooser.wave
    chooser.clip.value = 4
    assert chooser.changed == 2 and not np.array_equal(chooser.wave, before)
    chooser.data.value = "synth:11"  # another data set starts at its first clip, and is one change
    assert (chooser.row, chooser.changed, len(chooser.clip.options)) == (0, 3, 11)


def test_without_a_rate_each_clip_keeps_its_own(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(4000, 0.1), 4000)
    chooser = ClipChooser("synth:10")
    assert chooser.sample_rate == 32000
    chooser.source.value = "file"
    chooser.path.value = str(tmp_path / "a.wav")
    assert (chooser.sample_rate, chooser.name, chooser.row) == (4000, "a.wav", None)
    np.testing.assert_allclose(chooser.wave, 0.1, atol=1e-4)


def upload(chooser: ClipChooser, name: str, content: bytes, size: int | None = None, piece: int = 1000) -> list[dict]:
    """What the page sends for a file; the kernel's answers."""
    answers, entry = [], chooser.upload
    entry.send = answers.append
    entry._receive(
        entry, {"kind": "begin", "number": 7, "name": name, "size": len(content) if size is None else size}, []
    )
    for start in range(0, len(content), piece):
        entry._receive(entry, {"kind": "piece", "number": 7}, [memoryview(content[start : start + piece])])
    entry._receive(entry, {"kind": "end", "number": 7}, [])
    return answers


def test_an_upload_is_read_and_a_broken_one_is_called_by_its_own_name():
    chooser = ClipChooser("synth:10", sample_rate=8000)
    chooser.source.value = "upload"
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full((8000, 2), 0.2), 8000, format="WAV")
    answers = upload(chooser, "../x/mine.wav", buffer.getvalue())
    assert answers == [{"stored": True}] * 33  # one a piece, before the next is sent
    assert chooser.name == "mine.wav" and chooser.wave.shape == (8000,)
    wave = chooser.wave
    upload(chooser, "noise.wav", b"nothing" * 30)
    assert chooser.message.text.startswith("noise.wav: not audio that libsndfile reads") and chooser.wave is wave


def test_an_upload_that_stops_half_way_changes_nothing_and_the_next_one_works():
    chooser = ClipChooser("synth:10", sample_rate=8000)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(8000, 0.2), 8000, format="WAV")
    before = chooser.wave
    upload(chooser, "half.wav", buffer.getvalue()[:5000], size=16044)
    assert chooser.wave is before and chooser.upload.name == ""
    entry = chooser.upload
    entry._receive(entry, {"kind": "piece", "number": 7}, [memoryview(b"late")])  # of the upload that is over
    upload(chooser, "whole.wav", buffer.getvalue())
    assert chooser.name == "whole.wav"


def test_what_cannot_be_read_is_said_and_the_clip_before_stays(tmp_path):
    chooser = ClipChooser("synth:10", sample_rate=8000)
    wave = chooser.wave
    chooser.data.value = "sinth:10"
    assert "did you mean synth" in chooser.message.text and chooser.wave is wave
    chooser.data.value = "synth:20"
    assert chooser.message.text == "" and chooser.wave is not wave
    chooser.source.value = "file"
    chooser.path.value = str(tmp_path / "no.wav")
    assert chooser.message.text == f"{tmp_path / 'no.wav'}: no such file"
    chooser.source.value = "data set"  # back to the clip that is chosen there
    assert chooser.message.text == "" and chooser.row == 0


def test_a_clip_that_is_not_there_leaves_the_controls_to_choose_another():
    chooser = ClipChooser("synth:10", clip=10)
    assert chooser.message.text == "clip 10: synth:10 has clips 0 to 9"
    with pytest.raises(InputError, match="no clip to show"):
        _ = chooser.wave
    chooser.data.value = "synth:11"
    assert chooser.wave.size and chooser.message.text == ""


def test_of_a_large_data_set_the_list_shows_a_part_and_the_clip_that_was_asked_for():
    chooser = ClipChooser("synth:2000", clip=1234, sample_rate=8000)
    rows = [row for _, row in chooser.clip.options]
    assert MOST_LISTED <= len(rows) <= MOST_LISTED + 1 and {0, 1234, 1999} <= set(rows)
    assert rows == sorted(rows) and chooser.row == 1234


def test_only_the_controls_of_the_source_are_shown():
    chooser = ClipChooser("synth:10", sample_rate=8000)

    def shown():
        controls = {"data": chooser.data, "clip": chooser.clip, "path": chooser.path, "upload": chooser.upload}
        return {name for name, control in controls.items() if control.layout.display != "none"}

    assert shown() == {"data", "clip"}
    chooser.source.value = "file"
    assert shown() == {"path"}
    chooser.source.value = "upload"
    assert shown() == {"upload"}


def test_a_first_clip_of_silence_is_passed_over(tmp_path):
    for name, level in {"0.wav": 0.0, "1.wav": 0.0, "2.wav": 0.3}.items():
        soundfile.write(tmp_path / name, np.full(4000, level), 4000)
    chooser = ClipChooser(f"folder:{tmp_path}")
    assert chooser.row == 2 and chooser.clip.value == 2
    chooser.clip.value = 0  # the user may look at it
    assert chooser.row == 0 and not chooser.wave.any()


def test_a_first_clip_that_cannot_be_decoded_is_passed_over(tmp_path):
    path = tmp_path / "0.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 160_000), 16000)
    content = bytearray(path.read_bytes())
    content[5000:15000] = bytes(10000)
    path.write_bytes(content)
    soundfile.write(tmp_path / "1.wav", np.full(4000, 0.3), 4000)
    chooser = ClipChooser(f"folder:{tmp_path}")
    assert chooser.row == 1 and chooser.message.text == "" and len(chooser.clip.options) == 2
    chooser.clip.value = 0
    assert "0.flac: corrupt" in chooser.message.text and chooser.row == 1
    chooser.clip.value = 1
    assert chooser.message.text == ""


# --- What a user meets ----------------------------------------------------------------------------------------------


def test_interrupt_ends_the_answer_and_says_so():
    explorer = Small()
    before = explorer.png()

    def long():
        raise KeyboardInterrupt

    explorer.on(explorer.level, long)
    explorer.level.value = 5
    assert explorer.message.text == "interrupted; what is shown is unchanged"
    assert explorer.png() != before  # the first handler had drawn
    with pytest.raises(KeyboardInterrupt), explorer.errors_in_words():  # in a cell it ends the cell
        long()


def test_a_lost_connection_is_said_in_words():
    message = Message()
    error = requests.ConnectionError("HTTPSConnectionPool(host='x', port=443): Max retries exceeded")
    error.request = requests.Request("GET", "https://example.org/a").prepare()
    with message.in_words():
        raise error
    assert message.text.startswith("no connection to https://example.org/a: check the network and the proxy")
    assert "local copy" in message.text and "Pool" not in message.text


def test_a_seed_is_a_whole_number():
    entry = seed_entry(3)
    assert whole_number(entry) == 3
    entry.value = 1.5
    with pytest.raises(InputError, match="seed: 1.5 is not a whole number"):
        whole_number(entry)


def test_an_image_without_a_picture_is_hidden():
    image = FigureImage()
    assert image.layout.display == "none"
    image.show(b"png", "words")
    assert image.layout.display is None
    image.show(b"")
    assert image.layout.display == "none" and image.tooltip == ""


def test_a_static_output_follows_the_explorer_unless_the_page_sees_to_it(monkeypatch):
    shown = []

    class Handle:
        def update(self, bundle, raw):
            shown.append(bundle)

    monkeypatch.setattr(base, "display", lambda bundle, raw, display_id: shown.append(bundle) or Handle())
    explorer = Small()
    explorer._ipython_display_()
    explorer.update_output()
    assert len(shown) == 1  # nothing has changed
    explorer.level.value = 4
    explorer.update_output()
    assert len(shown) == 2 and base64.b64decode(shown[1]["image/png"]) == explorer.png()
    explorer._page.saves = True
    explorer.level.value = 5
    explorer.update_output()
    assert len(shown) == 2
