"""Figures: units on the axes, what is drawn, and that no text is clipped or lies on another."""

import cProfile
import pstats

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch

from asit_lab import figures, load_config
from asit_lab.errors import InputError
from asit_lab.figures import MelAxes
from asit_lab.runs.directory import Run

AXES = MelAxes(hop_seconds=0.01, sample_rate=16000)
NORMALISED = MelAxes(hop_seconds=0.01, sample_rate=32000, normalised=True)
FRAMES, MELS, PATCH = 192, 64, (16, 16)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def log_mel(rng):
    slope = np.linspace(2, -6, MELS) + 3 * np.sin(np.arange(FRAMES) / 9)[:, None]
    return slope + rng.normal(size=(FRAMES, MELS))


@pytest.fixture
def mask():
    mask = np.zeros((FRAMES, MELS), dtype=bool)
    mask[20:90, 5:50] = True
    mask[120:150, 30:64] = True
    return mask


# --- Helpers --------------------------------------------------------------------------------------------------------


def drawn_texts(figure):
    """Every text that appears on paper, as matplotlib's text objects; ticks outside an axis are not drawn."""
    texts = list(figure.texts)  # the title among them
    for legend in figure.legends:
        texts += legend.get_texts()
    panels = list(figure.axes)
    panels += [child for ax in figure.axes for child in ax.child_axes if child not in panels]
    for ax in panels:
        texts += [ax.title, ax._left_title, ax._right_title, *ax.texts]
        texts += ax.get_legend().get_texts() if ax.get_legend() else []
        if not ax.axison:
            continue
        for axis in (ax.xaxis, ax.yaxis):
            texts += [axis.label, axis.get_offset_text()]
            texts += [label for tick in axis._update_ticks() for label in (tick.label1, tick.label2)]
    return [text for text in texts if text is not None and text.get_visible() and text.get_text().strip()]


def check_layout(figure):
    """Assert that every text lies within the figure and on no other text."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, page = canvas.get_renderer(), figure.bbox
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in drawn_texts(figure)]
    assert boxes
    for name, box in boxes:
        inside = box.x0 >= page.x0 - 1 and box.y0 >= page.y0 - 1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1
        assert inside, f"{name!r} is clipped: {box} on {page}"
    for number, (name, box) in enumerate(boxes):
        for other_name, other in boxes[number + 1 :]:
            wide = min(box.x1, other.x1) - max(box.x0, other.x0)
            high = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert wide <= 1 or high <= 1, f"{name!r} lies on {other_name!r}"


def mel_panels(figure):
    """Panels with a log-mel or a map over one, in the order they were made."""
    return [ax for ax in figure.axes if ax.images]


def check_mel_panels(figure, seconds, mels):
    """Seconds along x, Hz along y, and every Hz label at the band of that frequency."""
    panels = mel_panels(figure)
    assert panels
    assert any(ax.get_xlabel() == "time (s)" for ax in panels)
    assert any("Hz" in ax.get_ylabel() for ax in panels)
    for ax in panels:
        assert ax.get_xlim() == pytest.approx((0, seconds))
        assert ax.get_ylim() == (0, mels)
        places = ax.get_yticks()
        assert len(places) >= 3
        assert ((places >= 0) & (places <= mels)).all()


def values_of(ax):
    """What a panel shows, back as [frames, mels]; NaN where nothing is drawn."""
    return np.ma.filled(ax.images[0].get_array().astype(float), np.nan).T


def shapes(figure):
    return [tuple(ax.images[0].get_array().shape) for ax in mel_panels(figure)]


# --- Axes -----------------------------------------------------------------------------------------------------------


def test_band_positions_are_kaldis():
    """The mel bank's own peaks lie where the axis says, for both papers' settings."""
    from torchaudio.compliance.kaldi import get_mel_banks

    for rate, mels, high in ((16000, 64, 0.0), (32000, 128, 0.0), (16000, 40, 7000.0)):
        padded = 1 << 16  # fine bins, so that a triangle's peak is found to within 0.5 Hz
        bank, _ = get_mel_banks(mels, padded, rate, 20.0, high, 100.0, -500.0, 1.0)
        peaks_hz = bank.argmax(dim=1).numpy() * rate / padded
        places = MelAxes(0.01, rate, 20.0, high).position(peaks_hz, mels)
        np.testing.assert_allclose(places, np.arange(mels) + 0.5, atol=0.02)


def test_ticks_are_within_the_bank():
    labels = [label for _, label in AXES.ticks(MELS)]
    assert {"100", "500", "1k", "2k", "4k", "8k"} <= set(labels)
    assert "16k" not in labels
    assert all(0 <= place <= MELS for place, _ in AXES.ticks(MELS))
    narrow = MelAxes(0.01, 16000, low_hz=300, high_hz=3000)
    assert {label for _, label in narrow.ticks(MELS)} == {"500", "1k", "2k"}


@pytest.mark.parametrize(
    ("change", "named"),
    [({"hop_seconds": 0}, "hop_seconds"), ({"sample_rate": -1}, "sample_rate"), ({"low_hz": 9000}, "low_hz")],
)
def test_axes_reject(change, named):
    with pytest.raises(InputError, match=named):
        MelAxes(**{"hop_seconds": 0.01, "sample_rate": 16000} | change)


# --- Spectrogram, waveform, masks -----------------------------------------------------------------------------------


def test_spectrogram_draws_the_values(log_mel):
    figure = figures.spectrogram(log_mel, AXES, title="rain")
    check_mel_panels(figure, 1.92, MELS)
    check_layout(figure)
    np.testing.assert_allclose(values_of(figure.axes[0]), log_mel)
    assert figure.axes[0].get_title(loc="left") == "rain"
    assert figure.axes[1].get_ylabel() == "log-mel (natural log)"
    assert figures.spectrogram(log_mel, NORMALISED).axes[1].get_ylabel() == "log-mel, normalised"


def test_spectrogram_takes_tensors_and_given_panels(log_mel):
    own = Figure(layout="constrained")
    ax = own.add_subplot()
    assert figures.spectrogram(torch.from_numpy(log_mel).float(), AXES, ax=ax) is own
    np.testing.assert_allclose(values_of(ax), log_mel, rtol=1e-5)


def test_spectrogram_outlines_true_pixels(log_mel, mask):
    figure = figures.spectrogram(log_mel, AXES, title="rain", mask=mask)
    check_layout(figure)
    ax = figure.axes[0]
    (area,) = [patch for patch in ax.patches if isinstance(patch, PathPatch)]
    assert area.get_hatch()
    frame, band = np.meshgrid(np.arange(FRAMES), np.arange(MELS), indexing="ij")
    centres = np.stack([(frame.ravel() + 0.5) * 0.01, band.ravel() + 0.5], axis=1)
    hatched = area.get_path().contains_points(centres).reshape(mask.shape)
    np.testing.assert_array_equal(hatched, mask)
    # Around the two rectangles: every pixel edge between True and False once, the upper border of the second included.
    edges = [line for line in ax.collections if isinstance(line, LineCollection)][-1].get_segments()
    assert len(edges) == 2 * (70 + 45) + 2 * (30 + 34)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["outlined, hatched = corrupted"]


def test_spectrogram_without_true_pixels_and_with_none_finite(log_mel):
    figure = figures.spectrogram(log_mel, AXES, mask=np.zeros(log_mel.shape))
    assert not figure.axes[0].patches
    check_layout(figures.spectrogram(np.full(log_mel.shape, np.nan), AXES))


def test_nan_is_not_drawn_and_does_not_move_the_scale(log_mel):
    plain = figures.spectrogram(log_mel, AXES).axes[0].images[0].get_clim()
    holed = log_mel.copy()
    holed[3, 5], holed[7, 9] = np.nan, np.inf
    ax = figures.spectrogram(holed, AXES).axes[0]
    assert ax.images[0].get_array().mask.sum() == 2
    assert ax.images[0].get_clim() == pytest.approx(plain, abs=0.05)


def test_digital_silence_does_not_take_the_colours(log_mel):
    silent = log_mel.copy()
    silent[100:] = -15.94
    low, high = figures.spectrogram(silent, AXES).axes[0].images[0].get_clim()
    assert (low, high) == pytest.approx(np.percentile(log_mel[:100], (0.5, 99.9)))


@pytest.mark.parametrize(
    ("shape", "mask_shape", "named"),
    [
        ((FRAMES,), None, r"log_mel.*\[192\]"),
        ((0, 64), None, r"log_mel"),
        ((FRAMES, MELS), (MELS, FRAMES), r"mask.*192, 64"),
    ],
)
def test_spectrogram_rejects(shape, mask_shape, named):
    with pytest.raises(InputError, match=named):
        figures.spectrogram(np.zeros(shape), AXES, mask=None if mask_shape is None else np.zeros(mask_shape))


def test_a_mask_of_shares_is_rejected(log_mel):
    with pytest.raises(InputError, match="mask.*True and False"):
        figures.spectrogram(log_mel, AXES, mask=np.full(log_mel.shape, 0.5))


@pytest.mark.parametrize("samples", [100, 80000])
def test_waveform(samples, rng):
    wave = rng.uniform(-0.5, 0.5, samples)
    wave[samples // 2] = -0.9
    figure = figures.waveform(wave, 16000, title="rain")
    check_layout(figure)
    (ax,) = figure.axes
    assert ax.get_xlabel() == "time (s)"
    assert ax.get_xlim() == pytest.approx((0, samples / 16000))
    drawn = ax.lines[0].get_ydata() if ax.lines else ax.collections[0].get_paths()[0].vertices[:, 1]
    assert drawn.min() == pytest.approx(-0.9)  # the peak survives where columns stand for many samples


def test_waveform_rejects():
    with pytest.raises(InputError, match=r"wave.*\[2, 100\]"):
        figures.waveform(np.zeros((2, 100)), 16000)
    with pytest.raises(InputError, match="sample_rate"):
        figures.waveform(np.zeros(100), 0)


def test_clip_shares_the_time_axis(log_mel, rng):
    figure = figures.clip(rng.uniform(-1, 1, 31000), 16000, log_mel, AXES, title="rain")
    check_layout(figure)
    wave, mel = figure.axes[:2]
    assert wave.get_xlim() == mel.get_xlim() == pytest.approx((0, 31000 / 16000))
    assert "Hz" in mel.get_ylabel()


def test_masks_show_shares_and_both_masks(log_mel, mask):
    tokens = np.zeros((12, 4), dtype=bool)
    tokens[2:5] = True
    figure = figures.masks(log_mel, mask, torch.from_numpy(tokens), AXES, PATCH)
    check_layout(figure)
    check_mel_panels(figure, 1.92, MELS)
    upper, lower = mel_panels(figure)
    assert upper.get_title(loc="left") == f"{100 * mask.mean():.0f} % of pixels"
    assert lower.get_title(loc="left") == "25 % of tokens"
    # Tokens 2 to 4 along time are frames 32 to 79, all bands.
    corners = lower.patches[0].get_path().vertices
    assert corners.min(axis=0) == pytest.approx((0.32, 0))
    assert corners.max(axis=0) == pytest.approx((0.80, MELS))


def test_masks_reject(log_mel, mask):
    with pytest.raises(InputError, match="12 x 5 patches of 16 frames x 16 mels.*192 frames x 64 mels"):
        figures.masks(log_mel, mask, np.zeros((12, 5)), AXES)
    with pytest.raises(InputError, match="mask_pixels"):
        figures.masks(log_mel, mask[:-1], np.zeros((12, 4)), AXES)
    with pytest.raises(InputError, match=r"mask_tokens.*\[48\]"):
        figures.masks(log_mel, mask, np.zeros(48), AXES)


# --- Reconstruction -------------------------------------------------------------------------------------------------


@pytest.fixture
def pieces(log_mel, mask):
    clean = log_mel / 9
    return clean, np.where(mask, 0, clean), np.where(mask, clean + 0.25, clean + 5), mask


def test_reconstruction(pieces):
    figure = figures.reconstruction(*pieces, NORMALISED, title="rain")
    check_layout(figure)
    check_mel_panels(figure, 1.92, MELS)
    panels = mel_panels(figure)
    assert [ax.get_title(loc="left").split(" (")[0] for ax in panels] == [
        "clean",
        "corrupted",
        "reconstructed",
        "absolute error",
    ]
    assert panels[0].images[0].get_clim() == panels[1].images[0].get_clim() == panels[2].images[0].get_clim()
    clean, _, reconstructed, mask = pieces
    np.testing.assert_allclose(values_of(panels[0]), clean)
    np.testing.assert_allclose(values_of(panels[1]), np.where(mask, np.nan, clean))  # hidden, not of a middle loudness
    np.testing.assert_allclose(values_of(panels[2]), np.where(mask, reconstructed, clean))
    error = values_of(panels[3])
    assert np.isnan(error[~mask]).all()  # the 5 off on intact pixels neither show nor count
    np.testing.assert_allclose(error[mask], 0.25)
    assert figure._suptitle.get_text() == "rain: L1 0.250 on corrupted pixels"
    assert len(figure.axes) == 6  # four panels, two colour bars
    assert [len(ax.collections) for ax in panels] == [0, 0, 1, 0]  # what was corrupted is outlined
    (edge,) = (path.vertices for path in panels[2].collections[0].get_paths())
    frames = np.flatnonzero(mask.any(1))
    assert edge[:, 0].min() == pytest.approx(frames[0] * 0.01, abs=0.011)
    assert edge[:, 0].max() == pytest.approx((frames[-1] + 1) * 0.01, abs=0.011)


def test_reconstruction_leaves_out_nan_and_says_when_nothing_is_corrupted(pieces):
    clean, corrupted, reconstructed, mask = pieces
    holed = clean.copy()
    holed[:40] = np.nan
    figure = figures.reconstruction(holed, corrupted, reconstructed, mask, AXES)
    assert figure._suptitle.get_text() == "L1 0.250 on corrupted pixels"
    figure = figures.reconstruction(clean, clean, reconstructed, np.zeros_like(mask), AXES)
    assert figure._suptitle.get_text() == "no corrupted pixels"
    check_layout(figure)


def test_a_straight_line_fills_what_is_corrupted():
    clean = np.array([[0.0, 5], [9, 9], [2, 9], [np.nan, 9]])
    mask = np.array([[False, True], [True, True], [False, True], [False, True]])
    line = figures.Reconstructed(clean, clean * 0, clean, mask).line()
    np.testing.assert_allclose(line[:, 0], [0, 1, 2, np.nan])
    assert np.isnan(line[:, 1]).all()  # nothing of that band is visible


def test_aliens_are_shown_in_what_is_corrupted(pieces):
    clean, _, reconstructed, mask = pieces
    figure = figures.reconstruction(clean, np.where(mask, -0.5, clean), reconstructed, mask, NORMALISED)
    np.testing.assert_allclose(values_of(mel_panels(figure)[1]), np.where(mask, -0.5, clean))


def test_reconstruction_rejects(pieces):
    clean, corrupted, reconstructed, mask = pieces
    with pytest.raises(InputError, match=r"reconstructed.*\[192, 64\].*\[191, 64\]"):
        figures.reconstruction(clean, corrupted, reconstructed[1:], mask, AXES)
    with pytest.raises(InputError, match=r"mask.*\[192, 64\].*\[64, 192\]"):
        figures.reconstruction(clean, corrupted, reconstructed, mask.T, AXES)


def test_errors_are_in_decibels_where_the_normalisation_is_known(pieces):
    axes = figures.MelAxes.of(load_config("micro").features, normalised=True)  # (x - mean) / (2 x 4.5)
    figure = figures.reconstructions([pieces], axes)
    titles = [ax.get_title(loc="left") for ax in mel_panels(figure)]
    assert titles[3].startswith("reconstructed, L1 9.8 dB, ")  # 0.25 x 9 nepers of power, 4.34 dB each
    assert figures.reconstruction(*pieces, axes)._suptitle.get_text() == "L1 9.8 dB on corrupted pixels"
    measured = figures.MelAxes.of(load_config("micro", ["features.std=auto"]).features, normalised=True)
    assert measured.std is None


@pytest.mark.parametrize("count", [1, 3])
def test_reconstructions(pieces, count):
    clips = [(*pieces, f"clip {number}") for number in range(count)]
    figure = figures.reconstructions(clips, NORMALISED, title="held-out clips")
    check_layout(figure)
    check_mel_panels(figure, 1.92, MELS)
    panels = mel_panels(figure)
    assert len(panels) == 5 * count
    scales = {ax.images[0].get_clim() for number, ax in enumerate(panels) if number % 5 != 4}
    assert len(scales) == 1
    titles = [ax.get_title(loc="left") for ax in panels[:5]]
    assert titles[::2] == ["clean", titles[2], "the reconstruction's absolute error"]
    line = float(titles[2].removeprefix("straight line in time, L1 "))
    share = float(titles[3].removeprefix("reconstructed, L1 0.250, ").removesuffix(" of the line's"))
    assert share == pytest.approx(0.25 / line, abs=0.006)
    assert "clip 0" in panels[0].get_ylabel()
    width, height = panels[0].get_position().size * figure.get_size_inches()
    assert width > 2 and height > 1  # inches: large enough to see a sound


def test_reconstructions_of_different_lengths(pieces):
    short = figures.Reconstructed(*(values[:96] for values in pieces))
    figure = figures.reconstructions([pieces, short], NORMALISED)
    check_layout(figure)
    assert [ax.get_xlim()[1] for ax in mel_panels(figure)] == pytest.approx([1.92] * 5 + [0.96] * 5)
    with pytest.raises(InputError, match="clips"):
        figures.reconstructions([], NORMALISED)


def test_reconstruction_baselines():
    errors = {"this run": 0.231, "per-band training mean": 0.412, "linear interpolation in time": 0.336}
    figure = figures.reconstruction_baselines(errors)
    check_layout(figure)
    (ax,) = figure.axes
    assert [bar.get_width() for bar in ax.patches] == list(errors.values())
    assert [label.get_text() for label in ax.get_yticklabels()] == list(errors)
    assert "L1" in ax.get_xlabel() and ax.get_xlim()[0] == 0
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top
    with pytest.raises(InputError, match="'this run'.*nan"):
        figures.reconstruction_baselines({"this run": float("nan")})
    with pytest.raises(InputError, match="at least one"):
        figures.reconstruction_baselines({})


# --- Attention ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 3, 4, 6])
def test_class_attention(log_mel, rng, heads):
    attention = rng.dirichlet(np.ones(48), heads).reshape(heads, 12, 4)
    figure = figures.class_attention(log_mel, torch.from_numpy(attention), AXES, PATCH, title="last layer")
    check_layout(figure)
    check_mel_panels(figure, 1.92, MELS)
    panels = mel_panels(figure)
    names = ["log-mel", "attention of the class token, mean of heads", *(f"head {number}" for number in range(heads))]
    assert [ax.get_title(loc="left") for ax in panels] == names
    shown = values_of(panels[-1])
    assert shown.shape == (FRAMES, MELS)
    np.testing.assert_allclose(shown[::16, ::16], 100 * attention[-1])  # percent, one flat rectangle a patch
    np.testing.assert_allclose(shown[15::16, 15::16], 100 * attention[-1])
    np.testing.assert_allclose(values_of(panels[1])[::16, ::16], 100 * attention.mean(0))
    assert len({ax.images[0].get_clim() for ax in panels[1:]}) == 1
    assert any("attention on a patch (%)" in text.get_text() for text in drawn_texts(figure))


def test_class_attention_leaves_frames_without_patch_blank(log_mel):
    figure = figures.class_attention(log_mel, np.full((3, 11, 4), 1 / 44), AXES, PATCH)
    shown = values_of(mel_panels(figure)[1])
    assert np.isnan(shown[176:]).all() and np.isfinite(shown[:176]).all()


def test_class_attention_rejects(log_mel):
    with pytest.raises(InputError, match="13 x 4 patches"):
        figures.class_attention(log_mel, np.ones((3, 13, 4)), AXES, PATCH)
    with pytest.raises(InputError, match=r"attention.*heads, time, freq.*\[12, 4\]"):
        figures.class_attention(log_mel, np.ones((12, 4)), AXES, PATCH)


# --- Curves ---------------------------------------------------------------------------------------------------------

REFERENCES = {"loss_local": (float(np.log(256)), "ln 256: uniform")}


@pytest.fixture
def metrics(rng):
    step = np.arange(0, 800, 2)
    fall = np.exp(-step / 200)
    losses = dict.fromkeys(("loss", "loss_reconstruction", "loss_local", "loss_global"), 3 + 2 * fall)
    others = {"rate": 5e-4 * fall, "momentum": 1 - 1e-3 * fall, "weight_decay": 0.4 - 0.3 * fall}
    health = {"clips_per_second": 30 + fall, "entropy_local_teacher": 4 + fall, "entropy_global_teacher": 6 + fall}
    table = pd.DataFrame({"step": step} | losses | others | health)
    return table + rng.normal(0, 1e-3, table.shape) * (table.columns != "step")


def test_curves(metrics):
    figure = figures.curves(metrics, REFERENCES)
    check_layout(figure)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[:4] == [
        "total loss",
        "reconstruction: L1",
        "local: cross-entropy (nat)",
        "global: cross-entropy (nat)",
    ]
    assert titles[4:] == [
        "learning rate",
        "teacher momentum",
        "weight decay",
        "clips per second",
        "teacher entropy (nat)",
    ]
    local = figure.axes[2]
    raw, smoothed, reference = local.lines
    np.testing.assert_allclose(raw.get_ydata(), metrics["loss_local"])
    assert np.abs(np.diff(smoothed.get_ydata())).max() < np.abs(np.diff(raw.get_ydata())).max()
    assert reference.get_ydata() == pytest.approx([np.log(256)] * 2)
    assert local.texts[0].get_text() == "ln 256: uniform"
    assert local.get_ylim()[1] > np.log(256)
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()] == ["local teacher", "global teacher"]
    assert figure.axes[-1].get_xlabel() == "step"


@pytest.mark.parametrize("rows", [0, 1, 2, 30])
def test_curves_of_a_young_run(metrics, rows):
    figure = figures.curves(metrics[:rows], REFERENCES)
    check_layout(figure)
    assert len(figure.axes) == (9 if rows else 0)
    if rows == 1:
        assert figure.axes[0].lines[0].get_marker() == "o"  # a line of one point would not be seen


def test_curves_with_nan_missing_and_odd_columns(metrics):
    table = metrics[["step", "loss", "loss_local", "rate"]].assign(rate=np.nan, note="text", loss_extra=1.0)
    table.loc[100:120, "loss"] = np.nan
    table.loc[5, "loss_local"] = np.inf
    figure = figures.curves(table)
    check_layout(figure)
    loss, local, extra, rate = figure.axes
    assert np.isnan(loss.lines[0].get_ydata()[100:121]).all()
    assert np.isnan(loss.lines[1].get_ydata()[100:121]).all()  # smoothing does not fill the gap
    assert np.isfinite(local.get_ylim()).all()
    assert extra.get_title(loc="left") == "loss extra"
    assert rate.texts[0].get_text() == "no finite value yet"


def test_curves_are_logarithmic_only_over_a_wide_range(metrics):
    wide = metrics.assign(loss=np.geomspace(100, 0.1, len(metrics)), loss_local=np.linspace(100, -1, len(metrics)))
    figure = figures.curves(wide)
    assert [ax.get_yscale() for ax in figure.axes[:4]] == ["log", "linear", "linear", "linear"]


def test_curves_reject(metrics, tmp_path):
    with pytest.raises(InputError, match="'step'"):
        figures.curves(metrics.drop(columns="step"))
    with pytest.raises(InputError, match="metrics: expected a table, such as `metrics` of a run, got a Run"):
        figures.curves(Run(tmp_path, None))
    with pytest.raises(InputError, match="metrics of a: expected a table, .* got a dict"):
        figures.compared_curves({"a": {}})
    with pytest.raises(InputError, match="loss_local.*value, label"):
        figures.curves(metrics, {"loss_local": 5.5})


def test_compared_curves(metrics):
    """A panel for each loss any of the runs has; a run keeps its colour and dashes in all of them."""
    shorter = metrics[:100].drop(columns=["loss_local", "loss_global"]).assign(loss_extra=1.0)
    runs = {"first": metrics, "a/much/longer-name,mask.ratio=0.5": shorter, "young": metrics[:3], "new": metrics[:0]}
    figure = figures.compared_curves(runs)
    check_layout(figure)
    titles = [
        "total loss",
        "reconstruction: L1",
        "local: cross-entropy (nat)",
        "global: cross-entropy (nat)",
        "loss extra",
    ]
    assert [ax.get_title(loc="left") for ax in figure.axes] == titles
    total, local, extra = (figure.axes[place] for place in (0, 2, 4))
    assert [len(line.get_xdata()) for line in total.lines] == [400, 400, 100, 100, 3]
    np.testing.assert_allclose(total.lines[0].get_ydata(), metrics["loss"])
    rough = [np.abs(np.diff(line.get_ydata())).max() for line in total.lines[:4]]
    assert rough[1] < rough[0] and rough[3] < rough[2]
    assert [len(line.get_xdata()) for line in local.lines] == [400, 400, 3]
    assert [len(line.get_xdata()) for line in extra.lines] == [100, 100]
    (legend,) = figure.legends
    shown = {text.get_text(): line for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)}
    assert list(shown) == list(runs)[:3]
    for name, line in zip(runs, [total.lines[1], total.lines[3], total.lines[4]], strict=False):
        assert (shown[name].get_color(), shown[name].get_linestyle()) == (line.get_color(), line.get_linestyle())
    assert extra.lines[1].get_color() == shown["a/much/longer-name,mask.ratio=0.5"].get_color()
    assert len({line.get_color() for line in shown.values()}) == 3


@pytest.mark.parametrize(
    ("losses", "others", "width", "rows"),
    [
        (6, 0, None, [3, 3]),
        (5, 0, None, [5]),
        (7, 0, None, [4, 3]),
        (4, 0, 7.0, [2, 2]),
        (6, 0, 7.0, [3, 3]),
        (4, 6, None, [4, 4, 2]),
        (4, 12, None, [4, 4, 4, 4]),
    ],
)
def test_no_panel_stands_alone_in_a_last_row(losses, others, width, rows):
    """Of the losses in compared_curves, of losses and of families of columns below them in curves."""
    names = list(figures.training._LOSSES)[:losses] + [f"loss_{n}" for n in range(losses - 6)]
    names += [*figures.training._OTHERS, *(f"{family}x" for family in figures.training._FAMILIES)][:others]
    table = pd.DataFrame({"step": [0, 1], **{name: [1.0, 2.0] for name in names}})
    figure = figures.curves(table) if others else figures.compared_curves({"a": table}, width=width)
    check_layout(figure)
    found = [ax.get_subplotspec().rowspan.start for ax in figure.axes]
    assert [found.count(row) for row in sorted(set(found))] == rows


def test_losses_summed_over_channels_say_so():
    assert figures.training.curve_title("loss_frame") == "frame: error² / √width"
    assert figures.training.curve_title("loss_utterance") == "utterance: error² / √width"


def test_runs_without_rows_take_no_colour_from_the_others(metrics):
    """As in the table of RunMonitor, which numbers them all."""
    alone, young = figures.compared_curves({"a": metrics, "b": metrics}), {"a": metrics[:0], "b": metrics}
    colours = [line.get_color() for line in alone.legends[0].get_lines()]
    (legend,) = figures.compared_curves(young).legends
    assert [text.get_text() for text in legend.get_texts()] == ["b"]
    assert [line.get_color() for line in legend.get_lines()] == colours[1:] != colours[:1]


def test_compared_curves_of_nothing_and_of_something_else(metrics):
    assert figures.compared_curves({"new": metrics[:0]}).texts[0].get_text() == "nothing logged yet"
    figure = figures.compared_curves({"a": metrics.assign(loss=np.nan), "b": metrics[:1].assign(loss=np.inf)})
    check_layout(figure)
    assert figure.axes[0].texts[0].get_text() == "no finite value yet"
    with pytest.raises(InputError, match="at least one run"):
        figures.compared_curves({})
    with pytest.raises(InputError, match="metrics of b: expected a column 'step'"):
        figures.compared_curves({"a": metrics, "b": metrics.drop(columns="step")})


def test_curves_are_quick_enough_for_live_updates(metrics):
    """By the calls it makes, as seconds depend on what else the machine does."""
    figures.curves(metrics, REFERENCES)._repr_png_()  # fonts and so on are loaded once
    with cProfile.Profile() as profile:
        figures.curves(metrics, REFERENCES)._repr_png_()
    assert pstats.Stats(profile).total_calls < 1_200_000  # 820,000 with matplotlib 3.11


# --- Tables and data sets -------------------------------------------------------------------------------------------


def test_probe_table():
    rows = [
        {"encoder": encoder, "protocol": protocol, "scores": [0.7, 0.75, 0.8], "chance": 0.1}
        for protocol in ("linear", "kNN")
        for encoder in ("teacher", "random init", "mean + std log-mel")
    ]
    figure = figures.probe_table(pd.DataFrame(rows), title="synth: 1000 clips of 25 classes")
    check_layout(figure)
    assert figure._suptitle.get_text() == "synth: 1000 clips of 25 classes"
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["protocol: linear", "protocol: kNN"]
    ax = figure.axes[0]
    assert "%" in ax.get_xlabel()
    assert [text.get_text() for text in ax.texts] == ["75.0 ± 5.0"] * 3
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [70, 75, 80])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[0] == "one fold or seed" and legend[-1] == "chance"


def test_probe_table_with_means_alone():
    table = pd.DataFrame({"encoder": ["teacher"], "protocol": ["linear"], "mean": [0.5], "spread": [np.nan]})
    figure = figures.probe_table(table)
    check_layout(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["50.0"]
    assert len(figure.legends[0].get_texts()) == 1


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"encoder": ["a"], "mean": [0.5]}, "protocol"),
        ({"encoder": ["a"], "protocol": ["linear"]}, "mean or scores"),
        ({"encoder": [], "protocol": [], "mean": []}, "at least one row"),
        ({"encoder": ["a"], "protocol": ["linear"], "mean": [75.5]}, "a, linear.*75.5"),
    ],
)
def test_probe_table_rejects(table, named):
    with pytest.raises(InputError, match=named):
        figures.probe_table(pd.DataFrame(table))


def manifest(rng, classes, clips=300):
    return pd.DataFrame(
        {
            "label": [f"class {number}" for number in rng.integers(0, classes, clips)],
            "seconds": rng.gamma(3, 2, clips),
            "sample_rate": rng.choice([16000, 44100], clips),
            "channels": rng.choice([1, 2], clips),
        }
    )


def test_dataset(rng):
    table = manifest(rng, 10).assign(silence=np.linspace(0, 1, 300))
    figure = figures.dataset(table)
    check_layout(figure)
    lengths, rates, silence, classes = figure.axes
    assert lengths.get_xlabel() == "length (s)"
    assert sum(bar.get_height() for bar in lengths.patches) == 300
    assert [label.get_text() for label in rates.get_yticklabels()] == [
        "16 kHz, mono",
        "16 kHz, stereo",
        "44.1 kHz, mono",
        "44.1 kHz, stereo",
    ]
    assert sum(bar.get_width() for bar in rates.patches) == 300
    assert silence.get_title(loc="left") == "225 of 300 clips more than 25 % silent"
    assert [bar.get_width() for bar in classes.patches] == table["label"].value_counts().to_list()


def test_dataset_shows_the_largest_classes(rng):
    table = manifest(rng, 60, 3000).replace(
        {"label": {"class 7": "a very long name of a class, longer than any column"}}
    )
    figure = figures.dataset(table)
    check_layout(figure)
    assert len(figure.axes) == 3
    assert len(figure.axes[-1].patches) == 20
    assert figure.axes[-1].get_title(loc="left") == "clips a class, the 20 largest of 60 classes"


def test_dataset_of_equal_lengths_without_labels(rng):
    table = manifest(rng, 3).assign(seconds=5.0, label="", sample_rate=22050, channels=8)
    figure = figures.dataset(table)
    check_layout(figure)
    assert figure.axes[0].get_title(loc="left") == "length: all 5 s"
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["22.05 kHz, 8 channels"]
    assert [text.get_text() for text in figure.axes[2].texts] == ["no labels"]


@pytest.mark.parametrize(
    ("shortest", "longest", "first"), [(4.96, 5.03, 4.9), (5.0, 5.0013, 4.99), (0.77, 1, 0.7), (0.4, 1, 0)]
)
def test_lengths_that_are_nearly_equal_fill_their_axis(rng, shortest, longest, first):
    seconds = np.r_[shortest, longest, rng.uniform(shortest, longest, 298)]
    figure = figures.dataset(manifest(rng, 3).assign(seconds=seconds))
    check_layout(figure)
    low, high = figure.axes[0].get_xlim()
    assert first <= low <= shortest and longest <= high and longest - shortest > 0.5 * (high - low)
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 300


def test_dataset_and_silence_reject(rng):
    with pytest.raises(InputError, match="seconds"):
        figures.dataset(manifest(rng, 3).drop(columns="seconds"))
    with pytest.raises(InputError, match="at least one row"):
        figures.dataset(manifest(rng, 3)[:0])
    with pytest.raises(InputError, match="0 to 1"):
        figures.silence([0.2, 30.0])


def test_silence():
    figure = figures.silence([0, 0, 0.2, 0.3, 0.9, np.nan])
    check_layout(figure)
    assert figure.axes[0].get_title(loc="left") == "2 of 5 clips more than 25 % silent"
    assert "%" in figure.axes[0].get_xlabel()


def test_stats(log_mel):
    mean, std = log_mel.mean(0), log_mel.std(0)
    figure = figures.stats(mean, std, AXES, title="synth")
    check_layout(figure)
    (ax,) = figure.axes
    assert ax.get_xlabel() == "frequency (Hz)" and ax.get_ylabel() == "log-mel (natural log)"
    np.testing.assert_allclose(ax.lines[0].get_ydata(), mean)
    with pytest.raises(InputError, match="64.*63"):
        figures.stats(mean, std[:-1], AXES)


# --- Saving and showing ---------------------------------------------------------------------------------------------


def test_save(log_mel, tmp_path):
    figure = figures.spectrogram(log_mel, AXES)
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    for kind, start in starts.items():
        path = figures.save(figure, tmp_path / "new" / f"mel.{kind}")
        assert path.read_bytes().startswith(start)
    width, height = matplotlib.image.imread(tmp_path / "new" / "mel.png").shape[1::-1]
    assert (width, height) == tuple(np.round(figure.get_size_inches() * 120).astype(int))
    assert len(list((tmp_path / "new").iterdir())) == 3  # nothing half-written left behind
    with pytest.raises(InputError, match="mel.jpg.*png"):
        figures.save(figure, tmp_path / "mel.jpg")


def test_a_relative_path_counts_from_the_project_s_root(log_mel, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = figures.save(figures.spectrogram(log_mel, AXES), "new/mel.svg")
    assert path == (tmp_path / "home/new/mel.svg").resolve() and path.is_file()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_save_is_repeatable(log_mel, tmp_path):
    for kind in ("png", "pdf", "svg"):
        first, second = (
            figures.save(figures.spectrogram(log_mel, AXES), tmp_path / f"{name}.{kind}").read_bytes() for name in "ab"
        )
        assert first == second


def test_figures_show_themselves_and_leave_nothing_behind(log_mel):
    before = dict(matplotlib.rcParams)
    figure = figures.spectrogram(log_mel, AXES)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before
    from matplotlib import _pylab_helpers

    assert not _pylab_helpers.Gcf.figs  # pyplot does not know of it
