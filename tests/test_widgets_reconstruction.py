"""The reconstruction explorer without a browser: what its pictures, words and sounds are of."""

import asyncio
import base64
import io
import re
from pathlib import Path

import asda_case
import numpy as np
import pytest
import soundfile
import torch
from notebook_case import stock_papermill
from PIL import Image
from test_figures import check_layout
from widgets_case import assert_flat, assert_widget_and_picture

from asit_lab import load_config, load_encoder
from asit_lab.encoder import Encoder
from asit_lab.errors import InputError
from asit_lab.widgets import ReconstructionExplorer
from asit_lab.widgets.reconstruction_numbers import error_table, relative
from asit_lab.widgets.snapshots_compared import KEPT, Snapshots, hidden_patches

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "explore_reconstructions.ipynb"


@pytest.fixture(scope="module")
def made(smoke_run) -> ReconstructionExplorer:
    return ReconstructionExplorer(smoke_run.dir, data="synth:12")


@pytest.fixture
def explorer(made) -> ReconstructionExplorer:
    """One explorer of a run for all tests, with its controls where they were at first."""
    for control, value in (
        (made.chooser.data, "synth:12"),
        (made.chooser.clip, 0),
        (made.start, 0.0),
        (made.kind, "zeros"),
        (made.ratio, 70),
        (made.block, 30),
        (made.align, False),
        (made.seed, 0),
        (made.snapshots[0], 1),
    ):
        control.value = value
    made._take_drawn(None)
    made._cut()  # colours as the clip has them
    assert made.message.text == ""
    return made


@pytest.fixture(scope="module")
def asda() -> Encoder:
    return Encoder.random(asda_case.config())


def drawn(explorer, title: str) -> np.ndarray:
    """What the panel whose title begins with `title` shows: [frames, mels], NaN where it is grey."""
    (panel,) = [panel for panel in explorer.picture.drawn_scene.panels if panel.title.startswith(title)]
    return panel.values


def scales(explorer) -> tuple[float, float, float]:
    return explorer.picture.low, explorer.picture.high, explorer.picture.most


def table(explorer) -> dict[str, list[str]]:
    """The numbers beside the picture: name -> cells."""
    rows = re.findall("<tr>(.*?)</tr>", explorer.summary.value)
    cells = [re.findall("<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]
    return {row[0]: row[1:] for row in cells}


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


# --- What is shown --------------------------------------------------------------------------------------------------


def test_it_shows_a_picture_at_once_and_leaves_it_with_the_view(explorer):
    bundle = explorer._repr_mimebundle_()
    image = pixels(base64.b64decode(bundle["image/png"]))
    assert "application/vnd.jupyter.widget-view+json" in bundle and bundle["text/plain"] == "ReconstructionExplorer()"
    assert image.shape[0] > 600 and image.shape[1] > 700 and image.std() > 10
    assert {"asit-explorer", "asit-reconstruction"} <= set(explorer._dom_classes)
    assert explorer.picture.alt.startswith("clip 0 of synth:12") and "L1 " in explorer.picture.alt


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("ratio", 30),
        pytest.param("kind", "noise", marks=pytest.mark.slow),
        pytest.param("kind", "time", marks=pytest.mark.slow),
        pytest.param("block", 80, marks=pytest.mark.slow),
        pytest.param("align", True, marks=pytest.mark.slow),
        pytest.param("seed", 5, marks=pytest.mark.slow),
        ("start", 2.0),
        pytest.param("picture.high", 0.5, marks=pytest.mark.slow),
        pytest.param("picture.most", 0.2, marks=pytest.mark.slow),
        ("picture.unit", "dB"),
        pytest.param("picture.colours", "gray", marks=pytest.mark.slow),
    ],
)
def test_every_control_changes_the_picture(explorer, control, value):
    before = explorer.png()
    if control.startswith("picture."):
        setattr(explorer.picture, control.removeprefix("picture."), value)
    else:
        getattr(explorer, control).value = value
    assert explorer.message.text == "" and explorer.png() != before


@pytest.mark.parametrize("seed", [0, 3])
def test_it_is_what_the_encoder_reconstructs_with_that_seed(explorer, smoke_run, seed):
    explorer.seed.value = seed
    wanted = load_encoder(smoke_run.dir).reconstruct(explorer.crop, explorer.cfg.features.sample_rate, seed=seed)
    (found,) = explorer.results
    assert np.array_equal(found.mask, wanted.mask[0].numpy())
    for name in ("clean", "reconstructed"):
        np.testing.assert_allclose(drawn(explorer, name), getattr(wanted, name)[0].numpy(), atol=1e-5)
    grey = wanted.corrupted[0].masked_fill(wanted.mask[0], torch.nan).numpy()
    np.testing.assert_allclose(drawn(explorer, "corrupted"), grey, atol=1e-5)
    error = (wanted.clean - wanted.reconstructed).abs()[wanted.mask].mean()
    decibels = f"{error * 2 * explorer.cfg.features.std * 10 / np.log(10):.1f} dB"
    assert f"L1 {decibels} on corrupted pixels" in explorer.picture.alt
    row = table(explorer)["run, step 6"]
    assert row[:2] == [f"{error:.3f}", decibels]


@pytest.mark.parametrize("kind", ["zeros", "noise", "alien", "time", "frequency"])
def test_pasted_is_the_clip_where_it_was_not_corrupted_and_the_reconstruction_elsewhere(explorer, kind):
    explorer.kind.value, explorer.ratio.value = kind, 50
    clean, together, filled = (drawn(explorer, name) for name in ("clean", "pasted", "reconstructed"))
    mask, error = explorer.results[0].mask, drawn(explorer, "error: L1")
    assert 0.45 < mask.mean() < 0.8
    assert np.array_equal(together[~mask], clean[~mask]) and np.array_equal(together[mask], filled[mask])
    assert np.array_equal(drawn(explorer, "corrupted")[~mask], clean[~mask])
    assert np.array_equal(np.isnan(error), ~mask)
    np.testing.assert_allclose(error[mask], np.abs(clean - filled)[mask])


def test_alien_blocks_are_those_of_the_clip_named(explorer, smoke_run):
    explorer.kind.value = "alien"
    other = ReconstructionExplorer(smoke_run.dir, data="synth:12", clip=1)
    other.start.value = 0
    mask = explorer.results[0].mask
    np.testing.assert_allclose(drawn(explorer, "corrupted")[mask], drawn(other, "clean")[mask], atol=1e-5)
    assert "Alien blocks come from clip 1 of synth:12 (" in explorer.summary.value


def test_a_mask_drawn_by_hand_is_filled_in(explorer):
    mask = np.zeros(explorer.clean.shape[1:], bool)
    mask[20:60, 10:40] = True
    explorer.picture.on_drawn(mask)
    clip = explorer.results[0]
    assert np.array_equal(clip.mask, mask) and np.array_equal(np.isnan(drawn(explorer, "corrupted")), mask)
    assert np.array_equal(np.isfinite(drawn(explorer, "error: L1")), mask)
    assert "drawn by hand" in explorer.summary.value
    explorer.kind.value = "alien"
    explorer.donor.control.value = 3
    assert np.array_equal(explorer.results[0].mask, mask)
    assert "Alien blocks come from clip 3 of synth:12 (" in explorer.summary.value
    explorer.picture.on_drawn(np.zeros_like(mask))
    assert "no corrupted pixels" in explorer.summary.value
    explorer.seed.value = 4
    assert not np.array_equal(explorer.results[0].mask, mask) and "drawn by hand" not in explorer.summary.value


def test_a_mask_drawn_by_hand_hides_patches_of_asda(asda):
    explorer = ReconstructionExplorer(asda, data="synth:12")
    patch, mask = explorer.cfg.model.patch, np.zeros(explorer.clean.shape[1:], bool)
    mask[: patch[0], : patch[1]] = True
    explorer.picture.on_drawn(mask)
    assert np.array_equal(np.isfinite(explorer.results[0]), mask) and explorer.message.text == ""
    explorer.picture.on_drawn(np.ones_like(mask))
    assert "hides some patches and leaves others" in explorer.message.text


def test_controls_start_where_the_run_is(explorer):
    assert [label for label, _ in explorer.kind.options] == [
        *("zeros (pretrained)", "noise", "alien (pretrained)", "time", "frequency")
    ]
    whole = ReconstructionExplorer(Encoder.random(load_config("smoke", ["mask.kinds={alien: 1}", "mask.ratio=0.6"])))
    assert (whole.kind.value, whole.ratio.value, whole.message.text) == ("alien", 60, "")
    assert whole.snapshots[0].layout.display == "none"


# --- Snapshots, two runs --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_stepping_through_the_snapshots_shows_each_on_the_same_mask_and_scale(explorer, smoke_run):
    assert [label for label, _ in explorer.snapshots[0].options] == ["3", "6"]
    mask, before, clean = explorer.results[0].mask, scales(explorer), drawn(explorer, "clean")
    seen = []
    for place, path in enumerate(smoke_run.snapshots):
        explorer.snapshots[0].value = place
        wanted = load_encoder(path).reconstruct(explorer.crop, explorer.cfg.features.sample_rate)
        np.testing.assert_allclose(drawn(explorer, "reconstructed"), wanted.reconstructed[0].numpy(), atol=1e-5)
        assert f"run, step {(3, 6)[place]}" in table(explorer)
        assert np.array_equal(explorer.results[0].mask, mask) and np.array_equal(drawn(explorer, "clean"), clean)
        assert scales(explorer) == before
        seen.append(explorer.png())
    assert seen[0] != seen[1]


def test_snapshots_are_opened_when_asked_for_and_few_are_kept(smoke_run, tmp_path):
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "config.yaml").write_bytes((smoke_run.dir / "config.yaml").read_bytes())
    for step in range(6):
        (tmp_path / f"snapshots/step-{step}.safetensors").write_bytes(smoke_run.snapshots[0].read_bytes())
    source = Snapshots(tmp_path)
    assert len(source) == 6 and source.encoder.cache_info().currsize == 0
    assert source.encoder(5) is source.encoder(5)
    for place in range(6):
        source.encoder(place)
    assert source.encoder.cache_info().currsize == KEPT < 6


@pytest.mark.slow
def test_two_encoders_fill_in_one_mask_side_by_side(smoke_run):
    """A run, and an untrained model of other patches and longer crops: the crop is the longer one."""
    explorer = ReconstructionExplorer(smoke_run.dir, "micro", data="synth:12")
    assert explorer.message.text == ""
    first, second = explorer.results
    rate = explorer.cfg.features.sample_rate
    assert len(explorer.crop) == 2 * rate and len(first.clean) % 16 == 0
    assert np.array_equal(first.mask, second.mask) and np.array_equal(first.corrupted, second.corrupted)
    assert not np.allclose(first.reconstructed, second.reconstructed)
    run, micro = explorer._encoders()
    wanted = run.reconstruct(explorer.crop, rate, mask=torch.from_numpy(first.mask)).reconstructed[0]
    np.testing.assert_allclose(first.reconstructed, wanted.numpy(), atol=1e-5)
    corrupted, mask = torch.from_numpy(first.corrupted)[None], torch.from_numpy(first.mask)[None]
    tokens = micro.student(corrupted, mask=mask)[:, 1:]  # one window, shorter than a crop of micro's
    wanted = micro.decoder(tokens, (len(first.clean) // 4, 1))[0]
    np.testing.assert_allclose(second.reconstructed, wanted.numpy(), atol=1e-5)
    assert list(table(explorer))[1:3] == ["run, step 6", "micro, untrained"]
    (legend,) = [ax.get_legend() for ax in explorer.picture.figure().axes if ax.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == ["run, step 6", "micro, untrained"]
    assert explorer.picture.scene["names"] == ["run, step 6", "micro, untrained"]
    assert [slider.layout.display for slider in explorer.snapshots] == [None, "none"]
    before = explorer.png()
    explorer.snapshots[0].value = 0
    assert explorer.png() != before and np.array_equal(explorer.results[1].reconstructed, second.reconstructed)
    check_layout(explorer.picture.figure())


@pytest.mark.slow
def test_any_number_of_encoders_fill_in_one_mask(smoke_run):
    """Three, of which two are snapshots of one run: each row begins at the left, and nothing overlaps."""
    explorer = ReconstructionExplorer(smoke_run.dir, [smoke_run.dir, "smoke"], data="synth:12")
    explorer.snapshots[0].value = 0
    assert explorer.message.text == ""
    assert list(table(explorer))[1:4] == ["run, step 3", "run, step 6", "smoke, untrained"]
    assert len({result.mask.tobytes() for result in explorer.results}) == 1
    assert len({result.reconstructed.tobytes() for result in explorer.results}) == 3
    scene = explorer.picture.drawn_scene
    rows = [
        [panel.name for panel, (at, _) in zip(scene.panels, scene.places, strict=True) if at == row] for row in range(5)
    ]
    assert rows[0] == ["clean", "corrupted"] and rows[1] == [
        "reconstructed",
        "reconstructed, 2nd",
        "reconstructed, 3rd",
    ]
    assert rows[3] == ["straight line in time", "mean of each band"] and rows[4] == [
        "error",
        "error, 2nd",
        "error, 3rd",
    ]
    assert [panel["place"] for panel in explorer.picture.scene["panels"]] == [list(place) for place in scene.places]
    check_layout(explorer.picture.figure())


@pytest.mark.slow
def test_snapshots_are_played_on_one_mask_to_the_last(explorer):
    seen, player = [], explorer.player
    explorer.picture.observe(lambda change: seen.append(change["new"]["names"]), names="scene")
    player.seconds = 0.0

    async def press():
        player.value = True
        assert player.description == "stop"
        await player.task
        assert not player.value and player.description == "play the steps"
        player.value = True
        task, player.value = player.task, False
        await task

    asyncio.run(press())
    assert seen == [["run, step 3"], ["run, step 6"]] and explorer.message.text == ""
    explorer.picture.unobserve_all("scene")
    player.value = True  # where no loop runs, nothing plays
    assert not player.value


def test_a_step_is_the_last_snapshot_until_then(smoke_run):
    source = Snapshots(smoke_run.dir)
    assert [source.place_at(step) for step in (0, 3, 5, 6, 99)] == [0, 0, 0, 1, 1]
    assert Snapshots("smoke").place_at(6) == 0


# --- Best and worst clips -------------------------------------------------------------------------------------------


def listed(explorer) -> dict[int, float]:
    """Row -> relative error of the clips in the list, as it reads."""
    texts = [label for label, row in explorer.search.list.options if row >= 0]
    return {int(re.search(r"  (\d+):", text)[1]): float(text.split()[0]) for text in texts}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zeros", "alien"])
def test_the_best_and_the_worst_clips_are_listed_and_opened(explorer, kind):
    explorer.kind.value = kind
    explorer.search.button.click()
    assert explorer.message.text == "" and explorer.search.list.layout.display is None
    errors, scores = listed(explorer), list(explorer.search.scores.values())
    assert len(scores) == 12 and list(errors.values()) == sorted(errors.values()) and len(errors) == 8
    assert min(errors.values()) == round(min(scores), 2) and max(errors.values()) == round(max(scores), 2)
    for row in (next(iter(errors)), list(errors)[-1]):
        explorer.search.list.value = row
        assert explorer.chooser.row == row and explorer.chooser.clip.value == row
        assert float(table(explorer)["run, step 6"][2].split()[0]) == errors[row]  # what the list says is what is seen
    explorer.search.list.value = -1  # what is left out
    assert explorer.chooser.row == list(errors)[-1]
    explorer.ratio.value = 30
    assert explorer.search.list.layout.display == "none"  # it was made with another mask
    explorer.ratio.value = 70
    assert explorer.search.list.layout.display is None and explorer.search.list.value == explorer.chooser.row


def test_without_a_hidden_pixel_there_is_nothing_to_list(explorer, monkeypatch):
    explorer.ratio.value = 0
    monkeypatch.setattr(explorer.search, "scorer", lambda: lambda row: float("nan"))
    explorer.search.button.click()
    assert "nothing is corrupted" in explorer.message.text and explorer.search.list.layout.display == "none"


def test_where_no_clip_can_be_filled_in_the_reason_is_said(explorer, monkeypatch):
    def fail(row: int) -> float:
        raise InputError(f"clip {row}: not an audio file")

    monkeypatch.setattr(explorer.search, "scorer", lambda: fail)
    explorer.search.button.click()
    assert explorer.message.text == "clip 0: not an audio file"
    explorer.message.say("")


# --- ASDA, and neither ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_of_asda_it_shows_the_error_of_each_hidden_patch_and_says_so(asda):
    explorer = ReconstructionExplorer(asda, data="synth:12")
    assert explorer.message.text == "" and "predicts the teacher" in explorer.summary.value
    hidden = hidden_patches(asda.config.grid, explorer.ratio.value / 100, explorer.side.value, 0)
    rate, (patch, bands) = asda.config.features.sample_rate, asda.config.model.patch
    wanted = asda.prediction_error(explorer.crop, rate, mask=hidden)[0].numpy()
    shown = drawn(explorer, "error of predicted features")
    np.testing.assert_allclose(shown[::patch, ::bands], wanted, rtol=1e-4)
    assert np.array_equal(np.isnan(shown[::patch, ::bands]), ~hidden.numpy())
    assert np.array_equal(np.isnan(drawn(explorer, "what the student sees")[::patch, ::bands]), hidden.numpy())
    assert f": {np.nanmean(shown):.3g}" in explorer.summary.value
    assert explorer.listen not in explorer.children[1].children[0].children  # nothing to hear but the recording
    for control, value in ((explorer.ratio, 50), (explorer.side, 1), (explorer.seed, 4)):
        before = explorer.png()
        control.value = value
        assert explorer.message.text == "" and explorer.png() != before
    before = explorer.png()
    explorer.picture.most = 0.05
    assert explorer.png() != before
    for share in (0, 95):
        explorer.ratio.value = share
        assert explorer.message.text == "" and np.isfinite(explorer.results[0]).any()


def test_two_encoders_of_asda(asda):
    explorer = ReconstructionExplorer(asda, Encoder.random(asda.config, 1), data="synth:12")
    first, second = explorer.results
    assert explorer.message.text == "" and np.array_equal(np.isnan(first), np.isnan(second))
    assert not np.allclose(first, second, equal_nan=True)
    check_layout(explorer.picture.figure())


# --- Errors in words ------------------------------------------------------------------------------------------------


def said(*arguments, **options) -> str:
    """What an explorer says that cannot show anything."""
    explorer = ReconstructionExplorer(*arguments, **options)
    assert "image/png" not in explorer._repr_mimebundle_()
    return explorer.message.text


def test_runs_of_other_features_are_not_compared(smoke_run):
    other = Encoder.random(load_config("smoke", ["features.mean=-6", "features.low_hz=50"]))
    text = said(smoke_run.dir, other)
    assert text.endswith("these differ: features.low_hz 20.0 and 50.0, features.mean -7.0 and -6.0")
    assert "\n" not in text


def test_what_is_missing_is_said(asda, smoke_run, tmp_path):
    teacher = Encoder(asda.config, asda.backbone, name="a published teacher")
    assert said(teacher).startswith("a published teacher: has neither ASiT's decoder")
    without = Encoder.random(load_config("smoke", ["objective.weights={local: 1, global: 1}"]))
    assert "has neither ASiT's decoder" in said(without)
    assert "one reconstructs log-mels (ASiT), the other predicts features (ASDA)" in said(smoke_run.dir, asda)
    assert "smokey: no such run, snapshot or preset" in said("smokey")
    (tmp_path / "config.yaml").write_bytes((smoke_run.dir / "config.yaml").read_bytes())
    assert said(tmp_path) == f"{tmp_path}: the run has no snapshot yet"


@pytest.mark.slow
def test_it_can_be_mended_after_a_wrong_data_set():
    explorer = ReconstructionExplorer("smoke", data="sinth")
    assert "there is no clip to show" in explorer.message.text
    explorer.ratio.value = 40  # nothing to draw yet, which is said and not raised
    assert "no clip" in explorer.message.text
    explorer.chooser.data.value = "synth:1"
    assert explorer.message.text == "" and explorer.png()
    before = explorer.png()
    explorer.kind.value = "alien"
    assert "at least two clips" in explorer.message.text and explorer.png() == before
    explorer.kind.value = "noise"
    assert explorer.message.text == "" and explorer.png() != before


# --- Sounds ---------------------------------------------------------------------------------------------------------


def heard(player) -> np.ndarray:
    wave, rate = soundfile.read(io.BytesIO(bytes(player.player.value)))
    assert rate == 16000
    return wave


def test_sounds_are_made_when_asked_for_and_go_with_their_mask(explorer):
    assert len(heard(explorer.recording)) == len(explorer.crop)
    assert [player.layout.display for player in explorer.sounds] == ["none"] * 3
    explorer.listen.click()
    clean, corrupted, filled = map(heard, explorer.sounds)
    assert len(clean) == len(corrupted) == len(filled) and 0.8 < len(clean) / 16000 < 1.1
    assert not np.allclose(clean, corrupted, atol=1e-3) and not np.allclose(corrupted, filled, atol=1e-3)
    assert not explorer.listen.disabled
    explorer.picture.high = 0.8
    assert [player.layout.display for player in explorer.sounds] == ["flex"] * 3
    explorer.ratio.value = 20
    assert [player.layout.display for player in explorer.sounds] == ["none"] * 3


# --- The picture ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("two", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_curves_stay_on_their_axes_however_large_the_error(smoke_run, tmp_path, two):
    """Of a steady tone in noise, whose log-mel has a narrow range, by models that learned nothing."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * 16000)
    (tmp_path / "tone").mkdir()
    tone = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(4 * 16000) / 16000)
    soundfile.write(tmp_path / "tone" / "a.wav", tone + noise, 16000)
    explorer = ReconstructionExplorer(smoke_run.dir, "smoke" if two else None, f"folder:{tmp_path / 'tone'}")
    assert explorer.message.text == ""

    def profiles():
        figure = explorer.picture.figure()
        check_layout(figure)
        (by_time,) = [ax for ax in figure.axes if ax.get_title(loc="left") == "mean error by time"]
        (by_band,) = [ax for ax in figure.axes if ax.get_title(loc="left").endswith("by band")]
        lines = [line.get_ydata() for line in by_time.lines]
        lines += [line.get_ydata() if two else line.get_xdata() for line in by_band.lines]
        reach = by_time.get_ylim()
        assert reach == (by_band.get_ylim if two else by_band.get_xlim)()
        return float(max(np.nanmax(line) for line in lines)), reach[1]

    highest, reach = profiles()
    assert highest > explorer.picture.most  # or this would test nothing
    assert highest < reach < 1.5 * highest
    explorer.picture.most = 3 * highest
    assert profiles() == (highest, pytest.approx(3 * highest))


# --- Over time ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_and_output_stay_flat_in_500_moves(explorer):
    def move(n):
        explorer.ratio.value = 10 + n % 80
        explorer.snapshots[0].value = n % 2
        if not n % 10:
            explorer.picture.low = -1.0 - 0.01 * (n % 7)
            explorer.chooser.clip.value = n // 10 % 12

    assert_flat(explorer, move)


@pytest.mark.notebook
def test_the_notebook_runs_under_stock_papermill(tmp_path):
    done = stock_papermill(NOTEBOOK, tmp_path, "run", "smoke", "other", "smoke", "data", "synth:12")
    assert done.returncode == 0, done.stderr[-6000:]
    assert_widget_and_picture(tmp_path / "out.ipynb")


def test_baselines_stand_beside_the_reconstruction(explorer):
    clip = explorer.results[0]
    (line, line_image, line_l1), (flat, flat_image, flat_l1) = explorer.baselines
    assert (line, flat) == ("straight line in time", "mean of each band")
    for image, l1 in ((line_image, line_l1), (flat_image, flat_l1)):
        np.testing.assert_array_equal(image[~clip.mask], clip.clean[~clip.mask])
        assert l1 == pytest.approx(np.abs(clip.clean - image)[clip.mask].mean())
    band = int(np.argmax(clip.mask.any(0) & ~clip.mask.all(0)))
    column = clip.mask[:, band]
    assert np.allclose(flat_image[column, band], clip.clean[~column, band].mean(), atol=1e-5)
    frame = int(np.argmax(column))
    if frame > 0:
        after = frame + int(np.argmin(column[frame:]))
        if after < len(column) and not column[after]:
            ends = clip.clean[[frame - 1, after], band]
            assert min(ends) - 1e-5 <= line_image[frame, band] <= max(ends) + 1e-5
    error = float(np.nanmean(clip.error()))
    in_units, decibels = table(explorer)["straight line in time"][:2]
    assert in_units == f"{line_l1:.3f}"
    assert table(explorer)["run, step 6"][2:] == [relative(error, line_l1), relative(error, flat_l1)]
    assert f"straight line in time: L1 {decibels}" in {panel.title for panel in explorer.picture.drawn_scene.panels}
    explorer.with_baselines.value = False
    assert not any("straight line" in panel.name for panel in explorer.picture.drawn_scene.panels)
    explorer.with_baselines.value = True


def test_numbers_are_relative_to_baselines():
    assert relative(0.5, 1.0) == "0.50" and relative(2.0, 1.0) == "2.00"
    assert relative(0.5, 0.0) == "–" and relative(0.0, 0.5) == "0.00"
    text = error_table({"a <b>": 0.5}, {"line": 1.0}, std=2.0)
    assert "a &lt;b&gt;" in text and "0.500" in text and f"{40 / np.log(10) * 0.5:.1f} dB" in text


def test_it_opens_on_the_loudest_crop(explorer, tmp_path):
    wave = 0.01 * np.random.default_rng(0).standard_normal(16000 * 20)
    wave[16000 * 12 : 16000 * 13] *= 30
    soundfile.write(tmp_path / "burst.wav", wave, 16000)
    explorer.chooser.source.value = "file"
    explorer.chooser.path.value = str(tmp_path / "burst.wav")
    assert explorer.start.value <= 12 <= 13 <= explorer.start.value + explorer.seconds + 0.2
    explorer.chooser.source.value = "data set"


def test_time_is_that_of_the_recording(explorer, tmp_path):
    soundfile.write(tmp_path / "long.wav", 0.1 * np.sin(np.arange(16000 * 20) / 9), 16000)
    explorer.chooser.source.value = "file"
    explorer.chooser.path.value = str(tmp_path / "long.wav")
    explorer.start.value = 12.5
    assert explorer.picture.scene["start"] == pytest.approx(12.5, abs=0.06)
    left, right = explorer.picture.figure().axes[0].get_xlim()
    assert left == pytest.approx(12.5, abs=0.06) and right > left
    explorer.chooser.source.value = "data set"
