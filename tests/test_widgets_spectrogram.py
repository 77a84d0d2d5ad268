"""The spectrogram view without a browser: what it sends to the page, and its static picture."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from test_figures import check_layout

from asit_lab.errors import InputError
from asit_lab.figures import MelAxes
from asit_lab.widgets.clips import loudest
from asit_lab.widgets.scene import DECIBELS, Panel, Scene
from asit_lab.widgets.spectrogram_figure import borders, error_by_band, error_by_time, fit_text
from asit_lab.widgets.spectrogram_view import COLOUR_MAPS, SpectrogramView

AXES = MelAxes(0.01, 16000, normalised=True, start=2.0)
SHAPE, PATCH, SCALE = (96, 32), (16, 16), (2.0, -7.0)


def scene(errors: int = 1, **changes) -> Scene:
    """As the reconstruction explorer shows: log-mels, and an error below each of `errors` columns."""
    rng = np.random.default_rng(0)
    clean, mask = rng.normal(size=SHAPE), np.zeros(SHAPE, bool)
    mask[10:40, 5:20] = True
    panels = [
        Panel("clean", "clean: clip 0", clean),
        Panel("corrupted", "corrupted", np.where(mask, 0, clean), outline=True),
    ]
    if errors == 2:
        panels += [Panel("a", "a$b$: " + "a long name " * 9, clean), Panel("b", "b", clean)]
    wrong = np.where(mask, rng.random(SHAPE), np.nan)
    panels += [Panel("error", "error: L1", wrong * (1 + i), "error") for i in range(errors)]
    settings = {"columns": max(errors, 1), "mask": mask, "names": ["a$b$", "c"][:errors]} | changes
    return Scene(panels, AXES, SCALE, **settings)


@pytest.fixture
def view() -> SpectrogramView:
    view = SpectrogramView()
    view.show(scene(), "a clip.")
    return view


def panels_of(figure) -> list:
    return [ax for ax in figure.axes if ax.get_label() == "panel"]


# --- What the page gets ---------------------------------------------------------------------------------------------


def test_the_page_gets_the_values_and_what_it_needs_to_label_them(view):
    for panel, values in zip(view.drawn_scene.panels, view.values, strict=True):
        sent = np.frombuffer(values, "<f2").reshape(SHAPE)
        np.testing.assert_allclose(sent, panel.values, rtol=1e-3, atol=1e-4)
    assert np.array_equal(np.frombuffer(view.mask, np.uint8).reshape(SHAPE), view.drawn_scene.mask)
    assert view.tokens == b"" and view.scene["grid"] == [0, 0]
    assert (view.scene["start"], view.scene["hop"], view.scene["top_hz"]) == (2.0, 0.01, 8000)
    plain = {"name": "corrupted", "title": "corrupted", "kind": "level", "kept": False, "tokens": False, "sound": ""}
    plain |= {"over": -1, "grid": list(SHAPE), "cell": [1, 1]}
    assert view.scene["panels"][1] == {**plain, "outline": True, "place": [1, 0]}
    assert all(len(view.maps[name]) == 768 for name in (*COLOUR_MAPS, view.scene["error_map"]))
    assert view.layout.display is None and SpectrogramView().layout.display == "none"


def test_decibels_are_those_of_the_log_mel(view):
    shown = view.drawn_scene.in_decibels()
    clean, error = view.drawn_scene.panels[0].values, view.drawn_scene.panels[-1].values
    np.testing.assert_allclose(shown.panels[0].values, DECIBELS * (2 * 2.0 * clean - 7.0))
    np.testing.assert_allclose(shown.panels[-1].values, DECIBELS * 2 * 2.0 * error)
    other = scene(error_unit="squared error").in_decibels()
    np.testing.assert_array_equal(other.panels[-1].values, error)
    assert pytest.approx(10 * np.log10(np.e)) == DECIBELS


def test_a_pdf_is_of_what_the_page_shows(view):
    sent = []
    view.send = lambda content, buffers: sent.append((content, buffers))
    view._receive(view, {"kind": "pdf", "view": {"t0": 10, "t1": 50, "b0": 4, "b1": 20}}, [])
    ((content, (pdf,)),) = sent
    assert content == {"kind": "pdf"} and pdf.startswith(b"%PDF")
    view._receive(view, {"kind": "something else"}, [])
    assert len(sent) == 1


def test_a_mask_drawn_in_the_page_is_handed_on(view):
    drawn, masks = np.zeros(SHAPE, np.uint8), []
    drawn[3:9, 4] = 1
    view._receive(view, {"kind": "mask"}, [memoryview(drawn.tobytes())])  # nobody wants it
    view.on_drawn = masks.append
    view._receive(view, {"kind": "mask"}, [memoryview(drawn.tobytes())])
    view._receive(view, {"kind": "mask"}, [memoryview(drawn.tobytes()[:-1])])  # of another clip
    (mask,) = masks
    assert mask.dtype == bool and np.array_equal(mask, drawn)


def test_colours_fit_the_clip_and_its_errors(view):
    clean = view.drawn_scene.panels[0].values
    view.fit(clean)
    assert view.low < np.percentile(clean, 2) < np.percentile(clean, 98) < view.high
    assert view.most == pytest.approx((view.high - view.low) / 2, rel=0.1)
    assert view.fitted == [view.low, view.high, view.most]
    view.fit(clean, [np.where(clean > 0, 0.004, np.nan)])
    assert view.most == pytest.approx(0.005)
    view.fit(np.zeros(SHAPE))
    assert view.low < view.high


def test_what_cannot_be_shown_is_said():
    with pytest.raises(InputError, match="no picture"):
        SpectrogramView().figure()
    with pytest.raises(InputError, match="one shape"):
        Scene([Panel("a", "a", np.zeros((4, 3))), Panel("b", "b", np.zeros((4, 2)))], AXES, SCALE)
    with pytest.raises(InputError, match="mask: expected shape"):
        Scene([Panel("a", "a", np.zeros((4, 3)))], AXES, SCALE, mask=np.zeros((4, 2), bool))


def test_the_loudest_part_of_a_clip():
    wave = np.full(16000 * 8, 0.01, np.float32)
    wave[16000 * 5 : 16000 * 6] = 0.5
    assert 4.0 <= loudest(wave, 16000, 2.0) <= 5.0
    assert loudest(wave, 16000, 8.0) == loudest(wave[:100], 16000, 2.0) == 0.0
    assert loudest(wave[::-1], 16000, 1.0) == 2.0


# --- The static picture ---------------------------------------------------------------------------------------------


def test_the_picture_is_drawn_when_asked_for_and_once(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "asit_lab.widgets.spectrogram_view.render_png", lambda figure, dpi: drawn.append(figure) or b"png"
    )
    view = SpectrogramView()
    assert view.png == b"" and drawn == []
    view.show(scene(0))
    assert view.png == view.png == b"png" and len(drawn) == 1
    for count, (name, value) in enumerate({"high": 0.5, "unit": "dB", "colours": "gray"}.items(), 2):
        setattr(view, name, value)
        assert view.png and len(drawn) == count
    view.show(scene(0))
    assert view.png and len(drawn) == 5


@pytest.mark.parametrize(("errors", "unit"), [(0, "dB"), (1, "dB"), (2, "normalised")])
def test_the_picture_has_room_for_everything(errors, unit):
    view = SpectrogramView()
    view.show(scene(errors), "")
    view.unit = unit
    figure = view.figure()
    check_layout(figure)
    assert len(panels_of(figure)) == len(view.drawn_scene.panels)
    for ax in panels_of(figure):
        assert ax.get_xlim() == pytest.approx((2.0, 2.96)) and ax.get_ylim() == (0, 32)


def test_corrupted_tokens_are_shaded_and_outlined():
    tokens = np.zeros((6, 2), bool)
    tokens[1:3, 0] = True
    panels = [Panel("tokens", "tokens", np.zeros(SHAPE), tokens=True)]
    view = SpectrogramView()
    view.show(Scene(panels, AXES, SCALE, tokens=tokens, patch=PATCH))
    assert np.frombuffer(view.tokens, np.uint8).sum() == 2 and view.scene["grid"] == [6, 2]
    (ax,) = panels_of(view.figure())
    assert np.array_equal(ax.images[1].get_array()[..., 3].T > 0, tokens)
    edges = np.concatenate([line for lines in ax.collections[1:] for line in lines.get_segments()])
    assert edges.min(0).tolist() == pytest.approx([2.16, 0]) and edges.max(0).tolist() == pytest.approx([2.48, 16])


def test_borders_go_around_the_mask_and_hold_every_edge_once():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 2:5] = True  # frames 1-2, bands 2-4
    lines = {tuple(sorted(map(tuple, line))) for line in borders(mask).astype(int).tolist()}
    assert lines == {((1, 2), (1, 5)), ((3, 2), (3, 5)), ((1, 2), (3, 2)), ((1, 5), (3, 5))}
    rng = np.random.default_rng(0)
    mask = rng.random((20, 30)) < 0.4
    padded = np.pad(mask, 1).astype(int)
    edges = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    lines = borders(mask)
    assert np.abs(lines[:, 1] - lines[:, 0]).sum() == edges
    assert borders(np.zeros((4, 5), bool)).shape == (0, 2, 2)


def test_profiles_are_means_over_what_counts(view):
    error = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, 5.0]])  # 2 frames, 3 bands
    np.testing.assert_array_equal(error_by_time(error), [2.0, 5.0])
    np.testing.assert_array_equal(error_by_band(error), [1.0, np.nan, 4.0])
    error = view.drawn_scene.panels[-1].values
    profiles = {ax.get_label(): ax.lines[0] for ax in view.figure().axes if ax.get_label() in ("time", "band")}
    np.testing.assert_allclose(profiles["time"].get_ydata(), error_by_time(error))
    np.testing.assert_allclose(profiles["band"].get_xdata(), error_by_band(error))
    assert profiles["time"].get_xdata()[:2] == pytest.approx([2.005, 2.015])  # seconds


def test_long_titles_are_set_smaller_before_they_are_cut():
    title = Figure().text(0, 0, "", fontsize=9)
    fit_text(title, "clip 3 of folder:/long (rain)", 22)  # a little smaller, and whole
    assert title.get_text() == "clip 3 of folder:/long (rain)" and 6 < title.get_fontsize() < 9
    fit_text(title, "0123456789", 5)
    assert title.get_text() == "01234…" and title.get_fontsize() == pytest.approx(0.72 * 9)
    fit_text(title, "clip 3", 6)
    assert title.get_text() == "clip 3" and title.get_fontsize() == 9
