"""The mask explorer without a browser: what its pictures, shares and sounds are of."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from notebook_case import stock_papermill
from PIL import Image
from widgets_case import assert_flat, assert_widget_and_picture

from asit_lab import load_config
from asit_lab.config import parameter
from asit_lab.data import load_manifest
from asit_lab.encoder import Encoder
from asit_lab.widgets import MaskExplorer
from asit_lab.widgets.mask_numbers import gap_lengths

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "explore_masks.ipynb"


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> str:
    """micro with square patches: 12 x 4 of them."""
    path = tmp_path_factory.mktemp("preset") / "square.yaml"
    path.write_text("base: micro\nmodel: {patch: [16, 16]}\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def made(preset) -> MaskExplorer:
    return MaskExplorer(data="synth:12", preset=preset)


@pytest.fixture
def explorer(made) -> MaskExplorer:
    """One explorer for all tests, with its controls where they were at first."""
    for control, value in (
        (made.chooser.source, "data set"),
        (made.chooser.data, "synth:12"),
        (made.chooser.clip, 0),
        (made.kind, "zeros"),
        (made.ratio, 70),
        (made.block, 30),
        (made.align, False),
        (made.seed, 0),
        (made.beside, False),
    ):
        control.value = value
    made._take_drawn(None)
    return made


def hidden(explorer) -> np.ndarray:
    """Pixels the corrupted log-mel has differently from the clean one: bool [frames, mels]."""
    return (explorer.corrupted != explorer.clean[0]).numpy()


def test_it_shows_a_picture_at_once_and_leaves_it_with_the_view(explorer):
    bundle = explorer._repr_mimebundle_()
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert image.width > 800 and image.height > 500 and np.asarray(image)[..., :3].std() > 10
    assert {"asit-explorer", "asit-mask"} <= set(explorer._dom_classes)
    assert explorer.picture.alt.startswith("clip 0 of synth:12")


@pytest.mark.parametrize(
    "control, value",
    [
        ("ratio", 30),
        ("block", 80),
        pytest.param("align", True, marks=pytest.mark.slow),
        pytest.param("kind", "noise", marks=pytest.mark.slow),
        pytest.param("seed", 5, marks=pytest.mark.slow),
    ],
)
def test_every_control_of_the_mask_changes_the_picture(explorer, control, value):
    before = explorer.png()
    getattr(explorer, control).value = value
    assert explorer.message.text == "" and explorer.png() != before


@pytest.mark.parametrize("kind", ["zeros", "noise", "alien", "time", "frequency"])
def test_the_shares_shown_are_those_of_the_mask(explorer, kind):
    explorer.chooser.clip.value = 4  # neither it nor the next one has silent pixels, which would look alike
    explorer.kind.value, explorer.ratio.value = kind, 50
    mask = hidden(explorer)
    patch = explorer.cfg.model.patch
    patches = mask.reshape(mask.shape[0] // patch[0], patch[0], mask.shape[1] // patch[1], patch[1]).mean((1, 3)) >= 0.5
    assert 0.49 < mask.mean() < 0.75  # the last block may be a large one
    assert f"<b>{100 * mask.mean():.1f} %</b> of pixels" in explorer.summary.value
    assert (
        f"<b>{100 * patches.mean():.1f} %</b> of tokens ({patches.sum()} of {patches.size})" in explorer.summary.value
    )
    if kind == "time":
        assert (mask.all(1) | ~mask.any(1)).all()
    if kind == "frequency":
        assert (mask.all(0) | ~mask.any(0)).all()


def test_alien_blocks_are_those_of_the_clip_named(explorer, preset):
    explorer.kind.value = "alien"
    other = MaskExplorer(data="synth:12", preset=preset, clip=1)
    other.start.value = 0
    mask = hidden(explorer)
    assert torch.equal(explorer.corrupted[mask], other.clean[0][mask])
    assert "Alien blocks come from clip 1 of synth:12 (" in explorer.summary.value


def test_the_donor_can_be_chosen(explorer, preset):
    explorer.kind.value = "alien"
    assert explorer.donor.control.label == "the next clip"
    explorer.donor.control.value = 5
    other = MaskExplorer(data="synth:12", preset=preset, clip=5)
    other.start.value = 0
    mask = hidden(explorer)
    assert torch.equal(explorer.corrupted[mask], other.clean[0][mask])
    assert "Alien blocks come from clip 5 of synth:12 (" in explorer.summary.value
    explorer.chooser.clip.value = 1
    assert explorer.donor.control.value == 5  # it stays with the data set
    explorer.chooser.data.value = "synth:10"
    assert explorer.donor.control.label == "the next clip"


@pytest.fixture
def by_hand(explorer) -> np.ndarray:
    """A mask as the page sends it: half of a patch's pixels, and a few more beside it."""
    mask = np.zeros(explorer.clean.shape[1:], bool)
    mask[16:24, 16:32] = mask[40:44, 16:32] = True
    return mask


@pytest.mark.parametrize("kind", ["zeros", "noise", "alien", "time"])
def test_a_mask_drawn_by_hand_is_filled_by_every_kind(explorer, by_hand, kind):
    explorer.kind.value = kind
    explorer.picture.on_drawn(by_hand)
    assert explorer.message.text == "" and (hidden(explorer) <= by_hand).all() and hidden(explorer).any()
    assert np.array_equal(explorer.picture.drawn_scene.mask, by_hand)
    assert f"drawn by hand, {kind}" in explorer.picture.drawn_scene.panels[1].title
    assert "(1 of 48)" in explorer.summary.value  # tokens
    explorer.chooser.clip.value = 1
    assert np.array_equal(explorer.picture.drawn_scene.mask, by_hand)  # on the next clip, too
    explorer.ratio.value = 50
    assert "blocks of" in explorer.picture.drawn_scene.panels[1].title


def test_of_a_mask_drawn_by_hand_inverse_blocks_take_whole_patches(explorer, by_hand):
    explorer.picture.on_drawn(by_hand)
    explorer.kind.value = "inverse"
    hidden_pixels = explorer.corrupted.isnan().numpy()
    assert hidden_pixels[16:32, 16:32].all() and hidden_pixels.sum() == 16 * 16


def test_two_masks_stand_beside_each_other(explorer, by_hand):
    explorer.kind.value = "noise"
    first = explorer.corrupted.numpy()
    explorer.beside.value = True
    explorer.kind.value = "zeros"
    explorer.picture.on_drawn(by_hand)
    scene = explorer.picture.drawn_scene
    names = [panel.name for panel in scene.panels]
    assert scene.columns == 2 and names == ["clean", "tokens", "corrupted", "kept"]
    np.testing.assert_array_equal(scene.panels[3].values, explorer._unpadded(torch.from_numpy(first)))
    assert np.array_equal(scene.mask, by_hand) and not np.array_equal(scene.kept_mask, by_hand)
    kept = scene.kept_mask
    explorer.chooser.clip.value = 1
    assert np.array_equal(explorer.picture.drawn_scene.kept_mask, kept)
    assert len(explorer.png()) > 10_000
    explorer.beside.value = False
    assert explorer.picture.drawn_scene.columns == 1


@pytest.mark.parametrize("kind", ["zeros", "alien", "inverse"])
def test_what_is_shown_can_be_copied_as_overrides(explorer, preset, kind):
    explorer.kind.value, explorer.ratio.value, explorer.block.value, explorer.align.value = kind, 42, 70, True
    cfg = load_config(preset, parameter("overrides", explorer.overrides.text, list[str]))
    if kind == "inverse":
        assert (cfg.asda.visible, cfg.asda.block) == (pytest.approx(0.58), explorer.side.value)
        return
    assert cfg.mask.odds[kind] == 1 and (cfg.mask.block, cfg.mask.align) == (0.7, True)
    assert (cfg.mask.alien_ratio if kind == "alien" else cfg.mask.ratio) == 0.42 == cfg.mask.ratio_min


def test_shares_over_seeds_are_hidden_when_the_blocks_change(explorer):
    explorer.over_seeds.click()
    explorer.seed.value += 1  # another mask of the same settings
    assert "50 seeds" in explorer.numbers.value
    explorer.ratio.value -= 20
    assert explorer.numbers.value == "" and explorer.message.text == ""


def test_shares_over_seeds(explorer):
    explorer.over_seeds.click()
    rows = [re.findall(r"<td[^>]*>([^<]*)", row) for row in explorer.numbers.value.split("</tr>")[:-1]]
    assert [row[0] for row in rows] == ["50 seeds", "pixels (%)", "tokens (%)", "blocks", *_GAPS]
    for row in rows[1:]:
        mean, least, most = map(float, row[1:])
        assert 0 < least <= mean <= most
    assert 70 <= float(rows[1][1]) < 75
    explorer.kind.value = "inverse"
    explorer.over_seeds.click()
    assert "every seed hides the same share" in explorer.message.text


_GAPS = ["mean gap (s)", "longest gap (s)"]


def test_gaps_are_hidden_frames_without_a_break():
    mask = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], bool)
    assert sorted(gap_lengths(mask)) == [1, 1, 2]


def test_aligned_blocks_cover_whole_patches(explorer):
    explorer.align.value = True
    mask, patch = hidden(explorer), explorer.cfg.model.patch
    share = mask.reshape(mask.shape[0] // patch[0], patch[0], mask.shape[1] // patch[1], patch[1]).mean((1, 3))
    assert set(np.unique(share)) == {0.0, 1.0}


def test_inverse_blocks_leave_exactly_the_visible_share(explorer):
    explorer.kind.value, explorer.ratio.value, explorer.side.value = "inverse", 80, 3
    grid = explorer.cfg.grid
    seen = int(0.2 * grid[0] * grid[1])
    assert f"({grid[0] * grid[1] - seen} of {grid[0] * grid[1]})" in explorer.summary.value
    assert int(explorer.corrupted.isfinite().sum()) == seen * explorer.cfg.model.patch[0] * explorer.cfg.model.patch[1]
    assert (explorer.side.layout.display, explorer.block.layout.display) == (None, "none")
    explorer.ratio.value = 0
    assert "leaves none visible, or none hidden" in explorer.message.text
    explorer.kind.value = "zeros"
    assert explorer.message.text == "" and explorer.side.layout.display == "none"


def test_a_seed_gives_the_mask_that_reconstruct_draws(explorer):
    wanted = Encoder.random(explorer.cfg).draw_mask(explorer.clean, seed=3)[0].numpy()
    explorer.seed.value = 3
    assert np.array_equal(hidden(explorer), wanted)


def test_controls_start_where_the_preset_is():
    explorer = MaskExplorer(data="synth:10", preset="micro-asda")
    asda = load_config("micro-asda").asda
    assert (explorer.kind.value, explorer.ratio.value) == ("inverse", round(100 - 100 * asda.visible))
    assert explorer.side.value == asda.block and explorer.message.text == ""
    explorer = MaskExplorer(data="synth:10", preset="micro", seed=9)
    controls = (explorer.kind, explorer.ratio, explorer.block, explorer.align, explorer.seed)
    assert [control.value for control in controls] == ["zeros", 70, 30, False, 9]


def test_a_short_clip_is_padded_and_a_long_one_gets_a_slider(explorer, tmp_path):
    rate, crop = explorer.cfg.features.sample_rate, explorer.cfg.data.crop_seconds
    tone = np.sin(2 * np.pi * 440 * np.arange(int(rate * (crop + 4))) / rate)
    soundfile.write(tmp_path / "short.wav", 0.5 * tone[: int(0.5 * crop * rate)], rate)
    soundfile.write(tmp_path / "a$long$.wav", 0.5 * tone * np.linspace(0, 1, len(tone)), rate)
    explorer.chooser.source.value = "file"
    explorer.chooser.path.value = str(tmp_path / "short.wav")
    assert "padding" in explorer.summary.value and explorer.start.layout.display == "none"
    assert explorer.overview.layout.display == "none"
    assert 0 < explorer.frames < explorer.clean.shape[1]
    explorer.chooser.path.value = str(tmp_path / "a$long$.wav")
    assert explorer.start.max == pytest.approx(4, abs=0.01) and explorer.start.layout.display is None
    assert "padding" not in explorer.summary.value
    assert explorer.start.value == pytest.approx(4, abs=0.11)  # the tone swells: the end is the loudest
    overview = explorer.overview
    assert overview.layout.display is None and overview.start == explorer.start.value
    assert overview.total == pytest.approx(crop + 4, abs=0.01) and overview.seconds == pytest.approx(crop, abs=0.1)
    peaks = np.frombuffer(overview.peaks, np.int8).reshape(-1, 2)
    assert peaks.max() == 127 and (np.diff(np.abs(peaks).max(1).astype(int)) >= -1).all()  # it swells
    overview.start = 1.234
    assert explorer.start.value == overview.start == pytest.approx(1.2)
    explorer.start.value = explorer.start.max
    loud = float(explorer.clean.mean())
    explorer.start.value = 0
    assert float(explorer.clean.mean()) < loud and explorer.message.text == ""
    heard, _ = soundfile.read(io.BytesIO(bytes(explorer.original.player.value)))
    assert len(heard) == explorer.cfg.crop_samples


@pytest.mark.slow
def test_sounds_are_made_when_asked_for_and_the_corrupted_one_goes_with_its_mask(explorer):
    assert explorer.original.layout.display == "flex" and explorer.corrupted_sound.layout.display == "none"
    explorer.listen.click()
    waves = {}
    for name in ("clean_sound", "corrupted_sound"):
        waves[name], rate = soundfile.read(io.BytesIO(bytes(getattr(explorer, name).player.value)))
        assert rate == explorer.cfg.features.sample_rate
        assert len(waves[name]) / rate == pytest.approx(explorer.frames * explorer.cfg.features.hop_ms / 1000, abs=0.1)
    assert not np.allclose(*waves.values(), atol=1e-3) and not explorer.listen.disabled
    explorer.ratio.value = 20
    assert explorer.corrupted_sound.layout.display == "none" and explorer.clean_sound.layout.display == "flex"
    explorer.kind.value = "inverse"
    explorer.listen.click()
    assert explorer.corrupted_sound.layout.display == "flex" and explorer.message.text == ""
    explorer.chooser.clip.value = 2
    assert explorer.clean_sound.layout.display == "none"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"preset": "asit-vit"}, "did you mean asit-vit-"),
        ({"preset": "micro", "data": "sinth"}, "there is no clip to show"),
        ({"preset": "micro", "data": "synth:10", "clip": 10}, "there is no clip to show"),
        ({"preset": "micro", "data": 3}, 'such as "folder:PATH" or "synth", got a int'),
    ],
)
def test_a_wrong_argument_is_said_in_words(arguments, words):
    explorer = MaskExplorer(**arguments)
    assert words in explorer.message.text
    assert "image/png" not in explorer._repr_mimebundle_()


def test_a_manifest_and_a_list_of_files_are_named_in_the_entry(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_DATA", str(tmp_path / "data"))
    assert MaskExplorer(load_manifest("synth:10"), preset="micro").chooser.data.value == "synth:10"
    soundfile.write(tmp_path / "mine.wav", np.full(8000, 0.1), 8000)
    explorer = MaskExplorer([tmp_path / "mine.wav"], preset="micro")
    assert explorer.chooser.data.value.startswith(f"folder:{tmp_path}") and explorer.message.text == ""


def test_it_can_be_mended_after_a_wrong_data_set():
    explorer = MaskExplorer(data="sinth", preset="micro")
    explorer.ratio.value = 40  # nothing to draw yet, which is said and not raised
    assert "no clip" in explorer.message.text
    explorer.chooser.data.value = "synth:10"
    assert explorer.message.text == "" and explorer.png()


def test_one_clip_alone_has_nobody_to_lend_it_blocks(explorer):
    explorer.chooser.data.value = "synth:1"
    explorer.kind.value = "alien"
    assert "at least two clips" in explorer.message.text


@pytest.mark.slow
def test_memory_and_output_stay_flat_in_500_moves(explorer):
    def move(n):
        if n % 2:
            explorer.ratio.value = 10 + n % 80
        else:
            explorer.seed.value = n

    assert_flat(explorer, move)


@pytest.mark.notebook
def test_the_notebook_runs_under_stock_papermill(tmp_path):
    done = stock_papermill(NOTEBOOK, tmp_path, "preset", "micro", "clip", "3")
    assert done.returncode == 0, done.stderr[-6000:]
    assert_widget_and_picture(tmp_path / "out.ipynb")


def test_time_is_that_of_the_recording(tmp_path):
    soundfile.write(tmp_path / "long.wav", 0.1 * np.sin(np.arange(16000 * 20) / 9), 16000)
    explorer = MaskExplorer(data=f"folder:{tmp_path}", preset="smoke")
    explorer.start.value = 7.5
    assert explorer.picture.scene["start"] == pytest.approx(7.5, abs=0.06)
    panels = [ax for ax in explorer.picture.figure().axes if ax.get_label() == "panel"]
    assert len(panels) == 3
    for ax in panels:
        assert ax.get_xlim()[0] == pytest.approx(7.5, abs=0.06)
    edges = np.concatenate([line for lines in panels[1].collections for line in lines.get_segments()])
    assert edges[:, 0].min() >= 7.4
