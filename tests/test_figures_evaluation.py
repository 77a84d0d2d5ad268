"""Figures of evaluations: what is drawn is what the tables hold, told apart without colour, nothing clipped."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from test_figures import check_layout, drawn_texts

from asit_lab import figures
from asit_lab.embedding.projection import project
from asit_lab.errors import InputError
from asit_lab.evaluation import metrics

ESC10 = ["chainsaw", "clock tick", "crackling fire", "crying baby", "dog"]
ESC10 += ["helicopter", "rain", "rooster", "sea waves", "sneezing"]
LONG = [f"{name} with a rather long explanation" for name in ESC10]
WORDS = [f"word {number}" for number in range(35)]


def answers(names, clips, seed=0):
    """(one-hot targets, outputs) with about two thirds right."""
    rng = np.random.default_rng(seed)
    targets = np.eye(len(names))[np.r_[np.arange(len(names)), rng.integers(0, len(names), clips - len(names))]]
    return targets, 2.5 * targets + rng.normal(size=targets.shape)


def texts(figure) -> list[str]:
    return [text.get_text() for text in drawn_texts(figure)]


# --- Confusion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [ESC10, LONG, WORDS, [f"class {n}" for n in range(90)]])
def test_confusion_figure_is_laid_out(names):
    figure = figures.confusion_figure(metrics.confusion(*answers(names, 600), names), "micro, linear probe")
    check_layout(figure)
    ax = figure.axes[0]
    assert ax.images[0].get_array().shape == (len(names), len(names))
    assert len(ax.get_yticklabels()) == len(names) if len(names) < 90 else ax.get_ylabel().startswith("class (number")


def test_confusion_figure_shows_shares_and_counts():
    table = pd.DataFrame([[6, 2, 0], [0, 3, 0], [0, 0, 0]], index=list("abc"), columns=list("abc"))
    figure = figures.confusion_figure(table)
    ax = figure.axes[0]
    shown = np.ma.filled(ax.images[0].get_array(), np.nan)
    assert shown[:2].tolist() == [[75, 25, 0], [0, 100, 0]] and np.isnan(shown[2]).all()
    assert {(text.get_position(), text.get_text()) for text in ax.texts} == {
        ((0, 0), "6"),
        ((1, 0), "2"),
        ((1, 1), "3"),
    }
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("answer", "class")


@pytest.mark.parametrize(
    "table, words",
    [
        (pd.DataFrame([[1, 2]], index=["a"], columns=["a", "b"]), "same classes as rows and columns"),
        (pd.DataFrame([[1, -2], [0, 1]], index=["a", "b"], columns=["a", "b"]), "counts of at least 0"),
        (pd.DataFrame([["x"]], index=["a"], columns=["a"]), "not an array of numbers"),
        (pd.DataFrame(), "not empty"),
    ],
)
def test_confusion_figure_refuses(table, words):
    with pytest.raises(InputError, match=words):
        figures.confusion_figure(table)


# --- Per class ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [ESC10, LONG, WORDS])
@pytest.mark.parametrize("resamples", [0, 50])
def test_per_class_figure_is_sorted_and_laid_out(names, resamples):
    table = metrics.per_class(*answers(names, 600), names, multi=False, resamples=resamples)
    figure = figures.per_class_figure(table)
    check_layout(figure)
    ax = figure.axes[0]
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == sorted(widths, reverse=True)
    assert sorted(widths) == pytest.approx(sorted(100 * table["recall"]))
    best = table.sort_values(["recall", "label"], ascending=[False, True]).iloc[0]
    assert ax.get_yticklabels()[0].get_text().endswith(f"({best['clips']})")
    assert ax.get_xlabel() == "recall (%)"
    assert ("95 % interval" in texts(figure)) == bool(resamples)
    if resamples:
        segments = np.array(ax.collections[0].get_segments())
        assert np.sort(segments[:, 0, 0]) == pytest.approx(np.sort(100 * table["low"]))


def test_per_class_figure_of_many_classes_shows_both_ends():
    values = np.linspace(0, 1, 527)
    table = pd.DataFrame({"label": [f"class {n}" for n in range(527)], "clips": 60, "ap": values})
    table.loc[7, "ap"] = np.nan
    figure = figures.per_class_figure(table)
    check_layout(figure)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == pytest.approx([*100 * values[:-26:-1], *100 * np.delete(values, 7)[24::-1]])
    assert "class (clips), 50 of 527 classes" in texts(figure)
    assert any("476 classes between" in text for text in texts(figure))
    assert figure.axes[0].get_xlabel() == "average precision (%)"


def test_per_class_figure_of_a_class_without_clips():
    table = pd.DataFrame({"label": ["a", "b"], "clips": [0, 4], "recall": [np.nan, 0.5]})
    figure = figures.per_class_figure(table)
    assert "no clips" in texts(figure) and "mean of classes 50.0 %" in texts(figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b (4)", "a (0)"]


@pytest.mark.parametrize(
    "table, words",
    [
        (pd.DataFrame({"label": ["a"], "clips": [1]}), "missing column recall"),
        (pd.DataFrame({"label": ["a"], "clips": [1], "ap": [40.0]}), "ap must be a share from 0 to 1, got 40"),
        (pd.DataFrame({"label": [], "clips": [], "ap": []}), "expected at least one row"),
    ],
)
def test_per_class_figure_refuses(table, words):
    with pytest.raises(InputError, match=words):
        figures.per_class_figure(table)


# --- Embeddings -----------------------------------------------------------------------------------------------------


def clusters(names, clips, seed=0):
    """(features [clips, 24], labels): a cluster a class."""
    rng = np.random.default_rng(seed)
    numbers = np.r_[np.arange(len(names)), rng.integers(0, len(names), clips - len(names))]
    centres = 3 * rng.normal(size=(len(names), 24))
    return centres[numbers] + rng.normal(size=(clips, 24)), [names[number] for number in numbers]


@pytest.mark.parametrize("names", [ESC10, LONG, WORDS, [f"class {n}" for n in range(60)]])
def test_embedding_map_draws_every_clip_and_tells_classes_apart_without_colour(names):
    features, labels = clusters(names, 400)
    points = features[:, :2]
    figure = figures.embedding_map(points, labels, "400 clips", "two of 24 dimensions")
    check_layout(figure)
    ax, (legend,) = figure.axes[0], figure.legends
    drawn = np.concatenate([line.get_xydata() for line in ax.get_lines()])
    assert sorted(map(tuple, drawn)) == sorted(map(tuple, points))
    looks = [(line.get_marker(), line.get_fillstyle()) for line in legend.get_lines()]
    assert len(set(looks)) == len(looks) == min(len(names), 40)  # the last of 40 may stand for the others
    assert len(ax.get_xticks()) == 0 and ax.get_xlabel() == "two of 24 dimensions"
    named = dict(zip([text.get_text() for text in legend.get_texts()], legend.get_lines(), strict=True))
    for name in {label for label in labels if label in named}:
        key = named[name]
        if name.endswith("other classes"):
            continue
        same = [
            line
            for line in ax.get_lines()
            if (line.get_marker(), line.get_fillstyle(), to_hex(line.get_color()))
            == (key.get_marker(), key.get_fillstyle(), to_hex(key.get_color()))
        ]
        found = np.concatenate([line.get_xydata() for line in same])
        assert sorted(map(tuple, found)) == sorted(map(tuple, points[np.array(labels) == name]))


@pytest.mark.parametrize(
    "points, labels", [(np.zeros((3, 3)), "abc"), (np.zeros((3, 2)), "ab"), (np.full((3, 2), np.nan), "abc")]
)
def test_embedding_map_refuses(points, labels):
    with pytest.raises(InputError, match="expected finite .clips, 2. with a label each"):
        figures.embedding_map(points, labels)


def test_projection_keeps_classes_together_and_repeats():
    features, labels = clusters(ESC10[:4], 60)
    points = project(features)
    assert points.shape == (60, 2) and points.dtype == np.float32 and np.isfinite(points).all()
    assert np.array_equal(points, project(features)) and not np.array_equal(points, project(features, seed=1))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag(np.full(60, np.inf))
    assert np.mean(np.array(labels)[distances.argmin(1)] == np.array(labels)) > 0.95


def test_projection_of_few_clips_and_of_one_dimension():
    few = project(np.random.default_rng(0).normal(size=(5, 8)))
    assert few.shape == (5, 2) and few.std(0).min() > 0
    one = project(np.arange(4.0)[:, None])
    assert one[:, 1].tolist() == [0] * 4 and len(set(one[:, 0])) == 4
    many = project(np.arange(12.0)[:, None])
    assert np.isfinite(many).all() and len(np.unique(many, axis=0)) == 12


def test_a_collapsed_encoders_projection_is_one_place():
    """scikit-learn's t-SNE would divide by no spread, and crash the process."""
    assert not project(np.full((20, 8), 0.3)).any()
    two = project(np.repeat([[0.0, 1.0], [2.0, 0.0]], 10, axis=0))
    assert len(np.unique(two.round(3), axis=0)) == 2


@pytest.mark.parametrize(
    "features, words",
    [
        (np.zeros(5), r"expected \[clips, dim\]"),
        (np.zeros((1, 4)), "at least two clips"),
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), "NaN or infinite for 1 clips, the first is clip 1"),
    ],
)
def test_projection_refuses(features, words):
    with pytest.raises(InputError, match=words):
        project(features)


# --- Scores ---------------------------------------------------------------------------------------------------------


def score_table() -> pd.DataFrame:
    rows = [
        {"encoder": encoder, "protocol": protocol, "mean": score, "low": score - 0.05, "high": score + 0.04}
        for encoder, base in (("micro", 0.7), ("micro-asda", 0.68), ("random init", 0.6), ("mean+std log-mel", 0.755))
        for protocol, score in (("linear", base), ("knn", base - 0.1), ("fine-tuned", base + 0.1))
    ]
    return pd.DataFrame(rows).assign(chance=0.1)


def test_scores_figure_draws_dots_whiskers_and_chance():
    table = score_table()
    figure = figures.scores_figure(table)
    check_layout(figure)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "protocol: linear",
        "protocol: knn",
        "protocol: fine-tuned",
    ]
    for ax in figure.axes:
        rows = table["protocol: " + table["protocol"] == ax.get_title(loc="left")]
        dots = [line.get_xdata()[0] for line in ax.get_lines() if line.get_marker() == "D"]
        assert dots == pytest.approx((100 * rows["mean"]).tolist())
        ends = np.array([collection.get_segments()[0][:, 0] for collection in ax.collections])
        assert ends == pytest.approx(100 * rows[["low", "high"]].to_numpy())
        dashed = [line.get_xdata()[0] for line in ax.get_lines() if line.get_linestyle() == "--"]
        assert dashed == pytest.approx([10.0] * 4)
        assert ax.get_xlabel() == "accuracy (%)"
    assert {"70.0 [65.0, 74.0]", "accuracy, 95 % interval", "chance"} <= set(texts(figure))
    of_speakers = figures.scores_figure(table.assign(unit="speaker"))
    assert "accuracy, 95 % interval over speakers" in texts(of_speakers)


def test_scores_figure_with_scores_alone_and_holes():
    table = score_table().drop(columns=["low", "high", "chance"]).iloc[:-1]
    figure = figures.scores_figure(table, metric="mAP")
    check_layout(figure)
    assert {"70.0", "mAP", "mAP (%)"} <= set(texts(figure))
    assert not any("chance" in text or "interval" in text for text in texts(figure))


@pytest.mark.parametrize(
    "table, words",
    [
        (score_table().drop(columns="mean"), "missing column mean"),
        (score_table().assign(high=70.0), "high must be a share from 0 to 1, got 70"),
        (score_table().iloc[:0], "expected at least one row"),
    ],
)
def test_scores_figure_refuses(table, words):
    with pytest.raises(InputError, match=words):
        figures.scores_figure(table)
