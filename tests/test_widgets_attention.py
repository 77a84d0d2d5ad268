"""The attention explorer without a browser: what a click shows is what the encoder attends to."""

import asyncio
import base64
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from notebook_case import stock_papermill
from PIL import Image
from widgets_case import assert_flat, assert_widget_and_picture

from asit_lab import load_config
from asit_lab.encoder import Encoder
from asit_lab.inspection.clip_attention import ClipAttention, rollout, window
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
    explorer.token = 0
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
    """What the maps show as weights, each [patches]: by column, what the token attends to and what attends to it."""
    scene = explorer.maps.drawn_scene
    weights = [panel.values.ravel() / 100 for panel in scene.panels if panel.cell != (1, 1)]
    return [values for column in range(scene.columns) for values in weights[column :: scene.columns]]


def test_it_shows_a_picture_at_once_and_leaves_it_with_the_view(explorer):
    bundle = explorer._repr_mimebundle_()
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert image.width >= 1000 and image.height > 700 and np.asarray(image)[..., :3].std() > 10
    assert {"asit-explorer", "asit-attention"} <= set(explorer._dom_classes)


def test_a_click_shows_the_row_and_the_column_of_that_patch(explorer):
    weights = maps_of(explorer).map[0, 0, 1].numpy()
    for token, (frame, band) in {1: (0, 0), 14: (49, 30), 24: (95, 63)}.items():
        explorer.maps.on_place(0, frame, band)
        assert explorer.token == token
        towards, back = shown(explorer)
        np.testing.assert_allclose(towards, weights[token, 1:], rtol=1e-5)
        np.testing.assert_allclose(back, weights[1:, token], rtol=1e-5)
        titles = [panel.title for panel in explorer.maps.drawn_scene.panels]
        assert titles[1].endswith(f"class token {100 * weights[token, 0]:.1f} %")
        (place,) = explorer.maps.marked
        assert place == [(token - 1) // 4 * 16, (token - 1) % 4 * 16, 16, 16]
    strongest = int(weights[24].argmax())
    assert explorer.attention.place(strongest) in explorer.facts.value and "0.80 to 0.96 s, " in explorer.facts.value


def test_keys_choose_the_next_patch(explorer):
    explorer.maps.on_step(1, 0)
    assert explorer.token == 1  # from the class token
    for (right, up), token in {(1, 0): 5, (0, 1): 6, (-1, 0): 2, (0, -1): 1}.items():
        explorer.maps.on_step(right, up)
        assert explorer.token == token
    explorer.maps.on_step(-1, 0)
    assert explorer.token == 1  # at the edge


def test_every_layer_and_head_is_there_in_small_and_a_click_chooses_it(explorer):
    explorer.token = 9
    scene, weights = explorer.multiples.drawn_scene, maps_of(explorer).map[:, 0]
    assert scene.columns == 2 and [panel.name for panel in scene.panels][2] == "layer 1, head 0"
    for number, panel in enumerate(scene.panels):
        np.testing.assert_allclose(panel.values.ravel() / 100, weights[number // 2, number % 2, 9, 1:], rtol=1e-5)
    explorer.view.value = "rollout"
    explorer.multiples.on_place(2, 5, 5)
    assert (explorer.layer.value, explorer.head.value, explorer.view.value) == (1, 0, "one layer")
    assert explorer.token == 9


def test_the_mean_of_a_class(explorer):
    explorer.token, explorer.view.value = 9, "class mean"
    manifest = explorer.chooser.manifest
    rows = np.flatnonzero(manifest.table["label"] == manifest.table["label"][0])
    assert len(rows) > 1
    clips = [window(explorer.encoder, manifest.read(row, RATE)) for row in rows]
    weights = np.mean([explorer.encoder.attention(clip, RATE, (0,)).map[0, 0, 1, 9] for clip in clips], axis=0)
    np.testing.assert_allclose(shown(explorer)[0], weights[1:], rtol=1e-4)
    assert "mean of the class" in explorer.facts.value and explorer.message.text == ""


def test_the_mean_of_a_class_stands_over_the_clip_that_is_chosen(explorer):
    labels = explorer.chooser.manifest.table["label"]
    other = np.flatnonzero(labels == labels[0])[1]
    explorer.view.value = "class mean"
    weights = shown(explorer)[0]
    explorer.chooser.show_row(int(other))
    panel = explorer.maps.drawn_scene.panels[0]
    assert panel.title.startswith(f"clip {other} of")
    np.testing.assert_array_equal(panel.values, explorer.attention.log_mel)
    np.testing.assert_allclose(shown(explorer)[0], weights)


def test_a_mean_of_another_class_is_made_and_a_cancelled_one_is_left(explorer):
    labels = explorer.chooser.manifest.table["label"]
    other = int(np.flatnonzero(labels != labels[0])[0])

    explorer._class_means.clear()

    async def look() -> None:
        explorer.view.value = "class mean"
        assert "this clip until its class is averaged" in explorer.facts.value
        explorer.chooser.show_row(other)  # meanwhile
        assert explorer.maps.drawn_scene.panels[0].title.startswith(f"clip {other} of")
        while explorer.work.busy:
            await explorer.work.task
        assert explorer.maps.drawn_scene.panels[0].title.startswith(f"clip {other} of")
        explorer._class_means.clear()
        explorer.layer.value = 1
        explorer.work.cancel.click()
        await explorer.work.task

    asyncio.run(look())
    assert explorer.view.value == "one layer" and "cancelled" in explorer.message.text
    assert "layer 1" in explorer.facts.value and "mean of the class" not in explorer.facts.value


def test_a_mean_that_is_cancelled_leaves_the_view_chosen_meanwhile(explorer):
    explorer._class_means.clear()

    async def look() -> None:
        explorer.view.value = "class mean"
        explorer.view.value = "rollout"
        explorer.work.cancel.click()
        await explorer.work.task

    asyncio.run(look())
    assert explorer.view.value == "rollout" and "rollout" in explorer.facts.value
    explorer.view.value = "one layer"


def test_the_selected_head_clicked_again_leaves_rollout(explorer):
    explorer.view.value = "rollout"
    explorer.heads._handle_custom_msg({"kind": "again"}, [])
    assert explorer.view.value == "one layer" and "rollout" not in explorer.facts.value


def test_a_colour_scale_that_was_set_by_hand_stays():
    explorer = AttentionExplorer(encoder("softmax"), "synth:12")
    explorer.maps.peak = 9.0
    explorer.token = 7
    assert explorer.maps.peak == 9.0 and explorer.multiples.peak != 9.0


def test_a_search_lists_the_data_set_that_was_searched():
    explorer = AttentionExplorer(encoder("softmax"), "synth:12")

    async def look() -> None:
        explorer.search.button.click()
        task = explorer.search.work.task
        explorer.search.button.click()
        assert explorer.search.work.task is task  # no second search
        explorer.chooser.data.value = "synth:10"
        await explorer.search.work.task

    asyncio.run(look())
    assert explorer.message.text == "" and explorer.search.list.layout.display == "none"


def test_a_file_has_no_class_to_average(explorer, tmp_path):
    explorer.view.value = "class mean"
    soundfile.write(tmp_path / "own.wav", np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    explorer.chooser.source.value, explorer.chooser.path.value = "file", str(tmp_path / "own.wav")
    assert explorer.message.text.endswith("which has a class; one layer is shown")
    assert explorer.view.value == "one layer" and "own.wav" in explorer.maps.drawn_scene.panels[0].title
    explorer.view.value = "rollout"
    assert explorer.message.text == ""


def test_clips_that_drive_a_head(explorer):
    assert explorer.search.list.layout.display == "none"
    explorer.search.button.click()
    entropy = explorer.search.entropy
    assert entropy.shape == (12, 2, 3) and explorer.search.list.layout.display is None
    listed = [row for _, row in explorer.search.list.options[1:]]
    assert listed == np.argsort(entropy[:, 0, 1], kind="stable")[:6].tolist()
    explorer.layer.value, explorer.head.value = 1, -1
    assert [row for _, row in explorer.search.list.options[1:]] == np.argsort(entropy[:, 1, 2], kind="stable")[
        :6
    ].tolist()
    chosen = explorer.search.list.options[3][1]
    explorer.search.list.value = chosen
    assert explorer.chooser.clip.value == chosen and explorer.chooser.name.startswith(f"clip {chosen} ")


def test_two_models_side_by_side():
    first, second = encoder("softmax"), encoder("learned", "model.patch=[8, 32]")
    explorer = AttentionExplorer(first, "synth:12", layer=0, head=1, other=second)
    explorer.start.value = 0.0
    explorer.token = 14  # frames 48 to 63, bands 16 to 31
    titles = [panel.title for panel in explorer.maps.drawn_scene.panels]
    assert explorer.maps.drawn_scene.columns == 4 and explorer.message.text == ""
    assert [f"{second.name}: {name}" in title for name, title in zip(_KINDS, titles[1:], strict=False)] == [True] * 3
    there = second.attention(window(first, explorer.chooser.wave), RATE, (0,)).first[0, 0, 1].numpy()
    np.testing.assert_allclose(
        shown(explorer)[2], there[1 + 7 * 2, 1:], rtol=1e-4
    )  # the patch around frame 56, band 24
    other_rate = AttentionExplorer(first, "synth:12", other=encoder("softmax", "features.sample_rate=8000"))
    assert (
        "their features are the same" in other_rate.message.text and "features.sample_rate" in other_rate.message.text
    )


_KINDS = ("first softmax", "second softmax", "difference")


def test_the_button_asks_the_class_token(explorer):
    explorer.token = 9
    before = explorer.png()
    explorer.class_token.click()
    assert explorer.token == 0 and explorer.png() != before


@pytest.mark.parametrize(("control", "value"), [("layer", 1), ("head", 0), ("head", -1), ("view", "rollout")])
def test_every_control_changes_the_picture(explorer, control, value):
    before = explorer.maps.png
    getattr(explorer, control).value = value
    assert explorer.message.text == "" and explorer.maps.png != before


def test_mean_over_heads_and_rollout(explorer):
    maps = maps_of(explorer).map[:, 0]
    explorer.token = 7
    explorer.head.value, explorer.layer.value = -1, 1
    np.testing.assert_allclose(shown(explorer)[0], maps[1].mean(0)[7, 1:], rtol=1e-5)
    explorer.view.value = "rollout"
    towards, back = shown(explorer)
    rolled = rollout(maps)[1]
    np.testing.assert_allclose(towards, rolled[7, 1:], rtol=1e-5)
    np.testing.assert_allclose(back, rolled[1:, 7], rtol=1e-5)
    assert explorer.head.disabled and "rollout through layers 0 to 1" in explorer.facts.value
    explorer.view.value = "one layer"
    assert not explorer.head.disabled


@pytest.mark.slow
def test_differential_attention_shows_both_softmaxes_and_their_difference(differential):
    maps = maps_of(differential)
    differential.layer.value, differential.head.value = 1, 0
    differential.token = 11
    found = shown(differential)
    assert len(found) == 6
    for number, kind in enumerate(("first", "second", "map")):
        weights = getattr(maps, kind)[1, 0, 0]
        np.testing.assert_allclose(found[2 * number], weights[11, 1:], rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(found[2 * number + 1], weights[1:, 11], rtol=1e-4, atol=1e-8)
    lam = float(maps.lam[1])
    np.testing.assert_allclose(found[4], found[0] - lam * found[2], rtol=1e-3, atol=1e-6)
    kinds = [panel.kind for panel in differential.maps.drawn_scene.panels]
    assert kinds[3:] == ["weight", "weight", "difference"] * 2
    assert f"\u03bb = {lam:.2g}" in differential.facts.value
    differential.view.value = "rollout"
    assert "by magnitude" in differential.facts.value and len(shown(differential)) == 2


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
        np.testing.assert_allclose(shown(explorer)[0], expected[0, 1:], rtol=1e-5)
    explorer.layer.value = 1  # and the controls move the mark, in the panel it is in
    assert explorer.heads.selected == 12 + 3
    value = explorer.attention.measures("map")["freq"][1, 0]
    assert explorer.heads.labels[15] == f"layer 1, head 0\ndistance in frequency (mel bands): {value:.3g}"


@pytest.mark.slow
def test_a_long_clip_has_windows_and_a_short_one_has_none(explorer, tmp_path):
    assert explorer.start.layout.display is None  # 5 s, and 1 s at a time
    explorer.start.value = 1.6
    weights = maps_of(explorer, 10).map[0, 0, 1]
    np.testing.assert_allclose(shown(explorer)[0], weights[0, 1:], rtol=1e-5)
    heard, rate = soundfile.read(io.BytesIO(bytes(explorer.sound.player.value)))
    first = explorer.chooser.wave[int(1.6 * RATE) :][: len(heard)]
    assert rate == RATE and 0.9 < len(heard) / rate < 1.05
    np.testing.assert_allclose(heard, first, atol=1e-4)
    explorer.token = 24
    soundfile.write(tmp_path / "a$short$.wav", 0.1 * np.random.default_rng(0).normal(size=RATE // 2), RATE)
    explorer.chooser.source.value = "file"
    explorer.chooser.path.value = str(tmp_path / "a$short$.wav")
    assert explorer.message.text == "" and explorer.start.layout.display == "none"
    assert explorer.attention.grid == (3, 4)
    assert explorer.token == explorer.attention.loudest and len(shown(explorer)[0]) == 12


@pytest.mark.slow
def test_a_patch_stays_chosen_when_the_clip_changes(explorer):
    explorer.token = 9
    explorer.chooser.clip.value = 5
    assert explorer.token == 9
    explorer.start.value = 0.0
    np.testing.assert_allclose(shown(explorer)[0], maps_of(explorer).map[0, 0, 1, 9, 1:], rtol=1e-5)


def test_attention_is_computed_once_a_window(explorer, monkeypatch):
    calls = []
    inner = Encoder.attention
    monkeypatch.setattr(Encoder, "attention", lambda self, *given: calls.append(given) or inner(self, *given))
    explorer.chooser.clip.value = 3
    assert len(calls) == 1
    for token in range(6):
        explorer.token = token
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


def test_a_long_clip_opens_where_it_is_loudest(tmp_path):
    (tmp_path / "tones").mkdir()
    for name, second in {"a": 6, "b": 2}.items():
        wave = np.zeros(8 * RATE)
        wave[second * RATE : second * RATE + 8000] = 0.5 * np.sin(2 * np.pi * 300 * np.arange(8000) / RATE)
        soundfile.write(tmp_path / "tones" / f"{name}.wav", wave, RATE)
    explorer = AttentionExplorer("smoke", f"folder:{tmp_path}")
    assert [name for name, _ in explorer.chooser.clip.options] == ["0: tones, a.wav", "1: tones, b.wav"]
    assert 5.4 < explorer.start.value < 6.1
    explorer.chooser.clip.value = 1
    assert 1.4 < explorer.start.value < 2.1
    assert explorer.attention.start == pytest.approx(explorer.start.value)


@pytest.mark.parametrize("frames, token", [(32, 1 + 10 * 2 + 1), (14, 1)])
def test_the_loudest_patch_is_inside_a_clip_that_has_an_inside(frames, token):
    log_mel = np.zeros((frames, 8))
    log_mel[:2, :4], log_mel[20:22, 4:] = 9.0, 5.0
    model = SimpleNamespace(patch=(2, 4))
    clip = SimpleNamespace(config=SimpleNamespace(model=model), log_mel=log_mel, grid=(frames // 2, 2))
    assert ClipAttention.loudest.fget(clip) == token


def test_it_begins_with_the_loudest_patch(tmp_path):
    wave = np.zeros(RATE)
    wave[RATE // 2 : RATE // 2 + 2400] = 0.5 * np.sin(2 * np.pi * 300 * np.arange(2400) / RATE)  # from 0.5 s on
    (tmp_path / "tones").mkdir()
    soundfile.write(tmp_path / "tones" / "a.wav", wave, RATE)
    explorer = AttentionExplorer("smoke", f"folder:{tmp_path}")
    assert explorer.encoder.name == "smoke, untrained" and explorer.message.text == ""
    time, freq = divmod(explorer.token - 1, 4)
    assert time in (3, 4) and freq == 0  # patches of 0.16 s; the lowest 16 of 64 bands reach 600 Hz


@pytest.mark.slow
def test_memory_and_output_stay_flat_in_500_moves(differential):
    def move(n):
        differential.token = n % 25
        differential.layer.value = n % 2
        if n % 20 == 0:
            differential.chooser.clip.value = n // 20 % 12

    assert_flat(differential, move)


@pytest.mark.notebook
def test_the_notebook_runs_under_stock_papermill(tmp_path):
    done = stock_papermill(NOTEBOOK, tmp_path, "run", "micro-asda", "clip", "3")
    assert done.returncode == 0, done.stderr[-6000:]
    assert_widget_and_picture(tmp_path / "out.ipynb")
