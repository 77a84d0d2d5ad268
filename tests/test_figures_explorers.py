"""The pictures of the attention and the embedding explorer: what is drawn where, and that nothing overlaps."""

import io

import numpy as np
import pytest
from matplotlib.image import imread
from test_figures import check_layout

from asit_lab.errors import InputError
from asit_lab.figures import MelAxes, embedding_map
from asit_lab.widgets.attention_panels import head_map
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
