"""The pictures of the attention and the embedding explorer: what is drawn where, and that nothing overlaps."""

import io

import numpy as np
import pytest
from matplotlib.image import imread
from test_figures import check_layout, check_mel_panels

from asit_lab.errors import InputError
from asit_lab.figures import MelAxes, embedding_map
from asit_lab.widgets.attention_panels import AttentionPanels, attention_picker, head_map
from asit_lab.widgets.embedding_panels import NeighbourMap, neighbour_strip, short_label, thumbnail

AXES = MelAxes(hop_seconds=0.01, sample_rate=16000, normalised=True)
PATCH, GRID = (16, 16), (12, 4)
TOKENS = 1 + 48
DIFFERENTIAL = {"first": "first softmax", "second": "second softmax", "map": "difference"}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def log_mel(rng):
    return rng.normal(size=(192, 64))


def pixels(figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return imread(io.BytesIO(buffer.getvalue()))


def shown(ax) -> np.ndarray:
    """What a panel shows, NaN where it is grey: [time, freq]."""
    return np.ma.filled(ax.images[0].get_array().astype(float), np.nan).T


# --- Attention ------------------------------------------------------------------------------------------------------


def test_targets_are_the_middles_of_the_patches(log_mel):
    figure, targets = attention_picker(log_mel, AXES, PATCH, "a clip")
    check_layout(figure)
    (box, class_token), (ax, patches) = targets
    check_mel_panels(figure, 1.92, 64)
    assert len(class_token) == 1 and len(patches) == 48 and box is not ax
    assert patches[0].tolist() == pytest.approx([0.08, 8]) and patches[5].tolist() == pytest.approx([0.24, 24])
    assert [text.get_text() for text in box.texts] == ["class token"]


def test_a_patch_of_all_bands(log_mel):
    figure, targets = attention_picker(log_mel, AXES, (4, 64))
    check_layout(figure)
    assert len(targets[1][1]) == 48 and set(targets[1][1][:, 1]) == {32}


@pytest.mark.parametrize("columns", [{"map": "attention"}, DIFFERENTIAL], ids=["softmax", "differential"])
def test_rows_and_columns_of_the_weights(columns, rng):
    panels = AttentionPanels(columns, GRID, PATCH, AXES)
    weights = {kind: rng.normal(size=(TOKENS, TOKENS)) / TOKENS for kind in columns}
    for token in (0, 1, 17, 48):
        figure = panels.show(weights, token, "a heading")
        boxes = [ax for ax in figure.axes if ax.images and ax.get_xlim() == (0, 1)]
        maps = [ax for ax in figure.axes if ax.images and ax.get_xlim() == pytest.approx((0, 1.92))]
        assert len(maps) == len(boxes) == 2 * len(columns)
        for number, kind in enumerate(columns):
            for row, values in enumerate((weights[kind][token], weights[kind][:, token])):
                ax = maps[row * len(columns) + number]
                np.testing.assert_allclose(shown(ax).ravel(), 100 * values[1:])
                np.testing.assert_allclose(shown(boxes[row * len(columns) + number]).ravel(), 100 * values[:1])
                assert ax.get_title(loc="left") == f"{columns[kind]}, class token {100 * values[0]:.1f} %"
    check_layout(figure)
    assert figure.get_suptitle() == "a heading"


def test_the_token_that_is_asked_for_is_framed(rng):
    panels = AttentionPanels({"map": "attention"}, GRID, PATCH, AXES)
    weights = {"map": rng.random((TOKENS, TOKENS))}
    for token, places in ((1 + 4 * 5 + 2, [(0.8, 32, 0.16, 16)]), (0, [(0, 0, 1, 1)])):
        figure = panels.show(weights, token)
        framed = [each for ax in figure.axes for each in ax.patches if each.get_visible() and not each.get_hatch()]
        framed = [each.get_bbox().bounds for each in framed if hasattr(each, "get_bbox")]
        assert len(framed) == 4  # black under white, in both rows
        for bounds in framed:
            assert bounds == pytest.approx(places[0])


def test_negative_weights_are_hatched_and_the_scale_is_symmetric(rng):
    panels = AttentionPanels(DIFFERENTIAL, GRID, PATCH, AXES)
    weights = {kind: rng.random((TOKENS, TOKENS)) / TOKENS for kind in DIFFERENTIAL}
    weights["map"] = weights["first"] - weights["second"]
    figure = panels.show(weights, 9)
    hatched = [patch for ax in figure.axes for patch in ax.patches if patch.get_hatch()]
    cells = sum(len(patch.get_path().vertices) // 5 for patch in hatched)  # five corners a rectangle
    assert cells == (weights["map"][9] < 0).sum() + (weights["map"][:, 9] < 0).sum()
    limits = [ax.images[0].get_clim() for ax in figure.axes if ax.images]
    assert sorted({low == -high for low, high in limits}) == [False, True] and {low for low, _ in limits} & {0.0}
    weights["map"] = np.abs(weights["map"])
    panels.show(weights, 9)
    assert all(len(patch.get_path().vertices) == 1 for patch in hatched)  # a point


def test_rows_without_values_are_grey(rng):
    panels = AttentionPanels({"map": "attention"}, GRID, PATCH, AXES)
    weights = rng.random((TOKENS, TOKENS))
    weights[0] = np.nan  # before the class token joins
    figure = panels.show({"map": weights}, 0)
    upper = next(ax for ax in figure.axes if ax.images and ax.get_xlim() == pytest.approx((0, 1.92)))
    assert np.isnan(shown(upper)).all() and "class token –" in upper.get_title(loc="left")
    pixels(figure)


@pytest.mark.slow
def test_the_same_figure_shows_other_weights(rng):
    panels = AttentionPanels(DIFFERENTIAL, GRID, PATCH, AXES)
    weights = {kind: rng.normal(size=(TOKENS, TOKENS)) for kind in DIFFERENTIAL}
    first, again, other = (pixels(panels.show(weights, token)) for token in (3, 3, 40))
    np.testing.assert_array_equal(first, again)
    assert first.shape == other.shape and (first != other).any()


def test_panels_reject():
    panels = AttentionPanels({"map": "attention"}, GRID, PATCH, AXES)
    with pytest.raises(InputError, match=r"token: 49 is not one of 49 \(0: class token\)"):
        panels.show({"map": np.zeros((TOKENS, TOKENS))}, 49)
    with pytest.raises(InputError, match=r"weights\['map'\]: expected shape \[49, 49\], got \[48, 48\]"):
        panels.show({"map": np.zeros((48, 48))}, 0)


def test_a_cell_a_layer_and_head(rng):
    measures = {"entropy (1: even)": rng.random((6, 4)), "distance in time (s)": rng.random((6, 4))}
    figure, targets = head_map(measures)
    check_layout(figure)
    assert [len(cells) for _, cells in targets] == [24, 24]
    for (ax, cells), values in zip(targets, measures.values(), strict=True):
        drawn = np.asarray(ax.images[0].get_array())
        np.testing.assert_allclose([drawn[int(layer), int(head)] for head, layer in cells], values.ravel())
        assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "2", "mean"]
    with pytest.raises(InputError, match="all of one shape"):
        head_map({"a": np.zeros((2, 3)), "b": np.zeros((3, 3))})


def test_a_deep_model_s_heads_fit(rng):
    figure, _ = head_map({name: rng.random((12, 13)) for name in ("entropy", "time", "frequency")})
    check_layout(figure)


# --- Embeddings -----------------------------------------------------------------------------------------------------


def test_neighbours_are_marked_where_they_are(rng):
    points, labels = rng.normal(size=(30, 2)), [f"class {number % 4}" for number in range(30)]
    drawn = NeighbourMap(points, labels, "a title", "t-SNE")
    before = pixels(drawn.mark(0, [1, 2]))
    limits = drawn.ax.get_xlim(), drawn.ax.get_ylim()
    after = pixels(drawn.mark(7, [3, 9, 11]))
    assert before.shape == after.shape and (before != after).any()
    assert (drawn.ax.get_xlim(), drawn.ax.get_ylim()) == limits
    plain = pixels(embedding_map(points, labels, "a title", "t-SNE"))  # what is under the marks
    assert plain.shape == after.shape and (plain[..., :3] != after[..., :3]).any(-1).mean() < 0.05
    segments = drawn.ax.collections[0].get_segments()
    np.testing.assert_allclose(segments, [[points[7], points[near]] for near in (3, 9, 11)])
    rings = [line.get_xydata() for line in drawn.ax.get_lines()]
    np.testing.assert_allclose(np.concatenate(rings), points[[3, 9, 11, 7]])


def test_log_mels_in_small(rng, log_mel):
    figure, targets = neighbour_strip([log_mel, log_mel[:100], *[log_mel] * 7], ["own", *"abcdefgh"], AXES)
    check_layout(figure)
    assert len(targets) == 8 and targets[0][1].tolist() == [[0.5, 32]]
    assert [ax.get_title(loc="left") for ax, _ in targets] == list("abcdefgh")
    check_layout(thumbnail(log_mel, AXES, "dog"))
    assert short_label("dog") == "dog" and len(short_label("a very long label of a class")) == 16
    with pytest.raises(InputError, match="log_mels: 1 with 0 titles"):
        neighbour_strip([log_mel], [], AXES)
