"""The attention explorer without a browser: what a click shows is what the encoder attends to."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from notebook_case import stock_papermill
from PIL import Image
from widgets_case import assert_flat, assert_widget_and_picture

from asit_lab import load_config
from asit_lab.encoder import Encoder
from asit_lab.inspection.clip_attention import rollout, window
from asit_lab.widgets import AttentionExplorer

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "explore_attention.ipynb"
RATE = 16000


def encoder(kind: str, *overrides: str) -> Encoder:
    """Untrained, and sharp enough to differ from even attention: 6 x 4 patches a window of 1 s."""
    enc = Encoder.random(load_config("smoke", [f"model.attention={kind}", *overrides]), 0)
    with torch.no_grad():
        for block in enc.backbone.blocks:
            (block.attn.qkv if hasattr(block.attn, "qkv") else block.attn.qk).weight.mul_(8)
    return enc


@pytest.fixture(scope="module")
def made():
    return {kind: AttentionExplorer(encoder(kind), "synth:12", layer=0, head=1) for kind in ("softmax", "learned")}


def put_back(explorer: AttentionExplorer) -> AttentionExplorer:
    """With its controls where they were at first."""
    for control, value in (
        (explorer.chooser.source, "data set"),
        (explorer.chooser.data, "synth:12"),
        (explorer.chooser.clip, 0),
        (explorer.start, 0.0),
        (explorer.view, "one layer"),
        (explorer.layer, 0),
        (explorer.head, 1),
        (explorer.measured, "map"),
    ):
        control.value = value
    explorer.picker.selected = 0
    assert explorer.message.text == ""
    return explorer


@pytest.fixture
def explorer(made) -> AttentionExplorer:
    return put_back(made["softmax"])


@pytest.fixture
def differential(made) -> AttentionExplorer:
    return put_back(made["learned"])


def maps_of(explorer, first: int = 0):
    """The encoder's own attention in the window that starts at a patch: [layer, head, query, key] of each kind."""
    heard = window(explorer.encoder, explorer.chooser.wave, first)
    return explorer.encoder.attention(heard, RATE, (0, 1))


def shown(explorer) -> list[np.ndarray]:
    """What the panels show as weights with the class token first, each [tokens], column by column."""
    figure = explorer._panels.figure
    panels = [ax for ax in figure.axes if ax.images]
    drawn = [np.ma.filled(ax.images[0].get_array().astype(float), np.nan).T.ravel() / 100 for ax in panels]
    by_place = sorted(zip([ax.get_subplotspec().colspan.start for ax in panels], range(len(drawn)), drawn, strict=True))
    boxes = [values for column, _, values in by_place if column % 2 == 0]
    patches = [values for column, _, values in by_place if column % 2 == 1]
    return [np.concatenate(pair) for pair in zip(boxes, patches, strict=True)]


def test_it_shows_a_picture_at_once_and_leaves_it_with_the_view(explorer):
    bundle = explorer._repr_mimebundle_()
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert image.width >= 1000 and image.height > 700 and np.asarray(image)[..., :3].std() > 10
    assert {"asit-explorer", "asit-attention"} <= set(explorer._dom_classes)


def test_a_click_shows_the_row_and_the_column_of_that_patch(explorer):
    weights = maps_of(explorer).map[0, 0, 1].numpy()
    assert len(explorer.picker.fractions) == len(weights) == 25
    for token in (0, 1, 14, 24):
        explorer.picker.selected = token
        towards, back = shown(explorer)
        np.testing.assert_allclose(towards, weights[token], rtol=1e-5)
        np.testing.assert_allclose(back, weights[:, token], rtol=1e-5)
    strongest = int(weights[24].argmax())
    assert explorer.attention.place(strongest) in explorer.facts.value
    assert explorer.picker.labels[24].startswith("0.80 to 0.96 s, ") and explorer.picker.labels[0] == "class token"


def test_the_button_asks_the_class_token(explorer):
    explorer.picker.selected = 9
    before = explorer.png()
    explorer.class_token.click()
    assert explorer.picker.selected == 0 and explorer.png() != before


@pytest.mark.parametrize(("control", "value"), [("layer", 1), ("head", 0), ("head", -1), ("view", "rollout")])
def test_every_control_changes_the_picture(explorer, control, value):
    before = explorer.maps.value
    getattr(explorer, control).value = value
    assert explorer.message.text == "" and explorer.maps.value != before


def test_mean_over_heads_and_rollout(explorer):
    maps = maps_of(explorer).map[:, 0]
    explorer.picker.selected = 7
    explorer.head.value, explorer.layer.value = -1, 1
    np.testing.assert_allclose(shown(explorer)[0], maps[1].mean(0)[7], rtol=1e-5)
    explorer.view.value = "rollout"
    towards, back = shown(explorer)
    rolled = rollout(maps)[1]
    np.testing.assert_allclose(towards, rolled[7], rtol=1e-5)
    np.testing.assert_allclose(back, rolled[:, 7], rtol=1e-5)
    assert explorer.head.disabled and "rollout through layers 0 to 1" in explorer.maps.tooltip
    explorer.view.value = "one layer"
    assert not explorer.head.disabled


@pytest.mark.slow
def test_differential_attention_shows_both_softmaxes_and_their_difference(differential):
    maps = maps_of(differential)
    differential.layer.value, differential.head.value = 1, 0
    differential.picker.selected = 11
    found = shown(differential)
    assert len(found) == 6
    for number, kind in enumerate(("first", "second", "map")):
        weights = getattr(maps, kind)[1, 0, 0]
        np.testing.assert_allclose(found[2 * number], weights[11], rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(found[2 * number + 1], weights[:, 11], rtol=1e-4, atol=1e-8)
    lam = float(maps.lam[1])
    np.testing.assert_allclose(found[4], found[0] - lam * found[2], rtol=1e-3, atol=1e-6)
    assert f"\u03bb = {lam:.2g}" in differential.maps.tooltip
    differential.view.value = "rollout"
    towards, _ = shown(differential)
    assert "by magnitude" in differential.maps.tooltip and towards.sum() == pytest.approx(1, rel=1e-5)


def test_the_map_of_the_heads_follows_the_weights_it_measures(differential, explorer):
    before = differential.heads.png
    differential.measured.value = "second"
    assert differential.heads.png != before
    assert differential.measured.layout.display is None and explorer.measured.layout.display == "none"


def test_a_cell_of_the_map_chooses_layer_and_head(explorer):
    assert len(explorer.heads.fractions) == 3 * 2 * 3  # measures, layers, heads and their mean
    assert explorer.heads.selected == 1  # layer 0, head 1
    explorer.view.value = "rollout"
    for cell, layer, head in ((3, 1, 0), (6 + 5, 1, -1), (12, 0, 0)):
        explorer.heads.selected = cell
        assert (explorer.layer.value, explorer.head.value, explorer.view.value) == (layer, head, "one layer")
        weights = maps_of(explorer).map[layer, 0]
        expected = weights.mean(0) if head == -1 else weights[head]
        np.testing.assert_allclose(shown(explorer)[0], expected[0], rtol=1e-5)
    explorer.layer.value = 1  # and the controls move the mark, in the panel it is in
    assert explorer.heads.selected == 12 + 3
    value = explorer.attention.measures("map")["freq"][1, 0]
    assert explorer.heads.labels[15] == f"layer 1, head 0\ndistance in frequency (mel bands): {value:.3g}"


@pytest.mark.slow
def test_a_long_clip_has_windows_and_a_short_one_has_none(explorer, tmp_path):
    assert explorer.start.layout.display is None  # 5 s, and 1 s at a time
    explorer.start.value = 1.6
    weights = maps_of(explorer, 10).map[0, 0, 1]
    np.testing.assert_allclose(shown(explorer)[0], weights[0], rtol=1e-5)
    heard, rate = soundfile.read(io.BytesIO(bytes(explorer.sound.player.value)))
    first = explorer.chooser.wave[int(1.6 * RATE) :][: len(heard)]
    assert rate == RATE and 0.9 < len(heard) / rate < 1.05
    np.testing.assert_allclose(heard, first, atol=1e-4)
    explorer.picker.selected = 24
    soundfile.write(tmp_path / "a$short$.wav", 0.1 * np.random.default_rng(0).normal(size=RATE // 2), RATE)
    explorer.chooser.source.value = "file"
    explorer.chooser.path.value = str(tmp_path / "a$short$.wav")
    assert explorer.message.text == "" and explorer.start.layout.display == "none"
    assert explorer.attention.grid == (3, 4) and len(explorer.picker.fractions) == 13
    assert explorer.picker.selected == explorer.attention.loudest and len(shown(explorer)[0]) == 13


@pytest.mark.slow
def test_a_patch_stays_chosen_when_the_clip_changes(explorer):
    explorer.picker.selected = 9
    explorer.start.value = 3.2
    explorer.chooser.clip.value = 5
    assert explorer.picker.selected == 9 and explorer.start.value == 0
    np.testing.assert_allclose(shown(explorer)[0], maps_of(explorer).map[0, 0, 1, 9], rtol=1e-5)


def test_attention_is_computed_once_a_window(explorer, monkeypatch):
    calls = []
    inner = Encoder.attention
    monkeypatch.setattr(Encoder, "attention", lambda self, *given: calls.append(given) or inner(self, *given))
    explorer.chooser.clip.value = 3
    assert len(calls) == 1
    for token in range(6):
        explorer.picker.selected = token
    explorer.layer.value, explorer.view.value, explorer.heads.selected = 1, "rollout", 2
    assert len(calls) == 1


def test_before_the_class_token_joins():
    explorer = AttentionExplorer(encoder("softmax", "model.class_token_at=1"), "synth:10", layer=0)
    explorer.class_token.click()
    assert explorer.message.text == "" and "The class token joins at block 1." in explorer.facts.value
    assert np.isnan(shown(explorer)[0]).all()
    explorer.layer.value = 1
    assert "joins" not in explorer.facts.value and np.isfinite(shown(explorer)[0]).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"encoder_or_run": "smok"}, "smok: no such run, snapshot or preset"),
        ({"encoder_or_run": "smoke", "data": "sinth"}, "there is no clip to show"),
        ({"encoder_or_run": "smoke", "layer": 2}, "layer: 2 is not one of 2 (0 to 1, or -1 for the last and so on)"),
        ({"encoder_or_run": "smoke", "head": 5}, "head: 5 is not one of 2"),
    ],
)
def test_a_wrong_argument_is_said_in_words(arguments, words):
    explorer = AttentionExplorer(**arguments)
    assert words in explorer.message.text
    assert "image/png" not in explorer._repr_mimebundle_()


def test_it_can_be_mended_after_a_wrong_data_set():
    explorer = AttentionExplorer("smoke", "sinth")
    explorer.layer.value = 0  # nothing to draw yet, which is said and not raised
    explorer.class_token.click()
    assert "no clip" in explorer.message.text
    explorer.chooser.data.value = "synth:10"
    assert explorer.message.text == "" and explorer.png()


def test_it_begins_with_the_loudest_patch(tmp_path):
    wave = np.zeros(RATE)
    wave[RATE // 2 : RATE // 2 + 2400] = 0.5 * np.sin(2 * np.pi * 300 * np.arange(2400) / RATE)  # from 0.5 s on
    (tmp_path / "tones").mkdir()
    soundfile.write(tmp_path / "tones" / "a.wav", wave, RATE)
    explorer = AttentionExplorer("smoke", f"folder:{tmp_path}")
    assert explorer.encoder.name == "smoke, untrained" and explorer.message.text == ""
    time, freq = divmod(explorer.picker.selected - 1, 4)
    assert time in (3, 4) and freq == 0  # patches of 0.16 s; the lowest 16 of 64 bands reach 600 Hz


@pytest.mark.slow
def test_memory_and_output_stay_flat_in_500_moves(differential):
    def move(n):
        differential.picker.selected = n % 25
        differential.layer.value = n % 2
        if n % 20 == 0:
            differential.chooser.clip.value = n // 20 % 12

    assert_flat(differential, move)


@pytest.mark.notebook
def test_the_notebook_runs_under_stock_papermill(tmp_path):
    done = stock_papermill(NOTEBOOK, tmp_path, "run", "micro-asda", "clip", "3")
    assert done.returncode == 0, done.stderr[-6000:]
    assert_widget_and_picture(tmp_path / "out.ipynb")
