"""Metrics: against scikit-learn, by hand, and what the bootstrap's intervals promise."""

import time

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    precision_score,
    recall_score,
    roc_auc_score,
)

from asit_lab.errors import InputError
from asit_lab.evaluation import bootstrap as resampling
from asit_lab.evaluation import metrics

NAMES = [f"class {k}" for k in range(6)]


def single(clips=120, classes=6, strength=1.5, seed=0):
    """(targets one-hot, outputs), every class there."""
    rng = np.random.default_rng(seed)
    labels = np.r_[np.arange(classes), rng.integers(0, classes, clips - classes)]
    targets = np.eye(classes)[labels]
    return targets, strength * targets + rng.normal(size=targets.shape)


def multi(clips=150, classes=6, seed=0, ties=False):
    """(targets 0/1, outputs); with ties, outputs of few values."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((clips, classes)) < np.linspace(0.05, 0.5, classes)).astype(float)
    targets[0], targets[1] = 1, 0
    outputs = targets + rng.normal(size=targets.shape)
    return targets, np.round(outputs) if ties else outputs


# --- Against scikit-learn -------------------------------------------------------------------------------------------


def test_single_label_scores_are_scikit_learns():
    targets, outputs = single()
    truth, answers = targets.argmax(1), outputs.argmax(1)
    found = metrics.scores(targets, outputs, multi=False)
    assert list(found) == ["accuracy", "balanced_accuracy"]
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, answers))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, answers))
    table = metrics.per_class(targets, outputs, NAMES, multi=False)
    assert table["recall"].to_numpy() == pytest.approx(recall_score(truth, answers, average=None))
    assert table["precision"].to_numpy() == pytest.approx(precision_score(truth, answers, average=None))
    assert table["clips"].tolist() == np.bincount(truth).tolist()
    counts = metrics.confusion(targets, outputs, NAMES)
    assert counts.to_numpy().tolist() == confusion_matrix(truth, answers).tolist()
    assert counts.index.tolist() == counts.columns.tolist() == NAMES


@pytest.mark.parametrize("ties", [False, True])
def test_multi_label_scores_are_scikit_learns(ties):
    targets, outputs = multi(ties=ties)
    found = metrics.scores(targets, outputs, multi=True)
    auc = roc_auc_score(targets, outputs, average="macro")
    assert list(found) == ["mAP", "dprime", "auc"]
    assert found["mAP"] == pytest.approx(average_precision_score(targets, outputs, average="macro"), abs=1e-6)
    assert found["auc"] == pytest.approx(auc, abs=1e-6)
    assert found["dprime"] == pytest.approx(np.sqrt(2) * norm.ppf(auc), abs=1e-5)
    table = metrics.per_class(targets, outputs, NAMES, multi=True)
    assert table["ap"].to_numpy() == pytest.approx(average_precision_score(targets, outputs, average=None), abs=1e-6)
    assert table["auc"].to_numpy() == pytest.approx(roc_auc_score(targets, outputs, average=None), abs=1e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_measures_are_those_of_clips_repeated_that_often(ties):
    targets, outputs = multi(clips=60, ties=ties)
    drawn = np.random.default_rng(1).integers(0, 4, (5, 60)).astype(np.int32)
    drawn[0] = 1
    for k in range(targets.shape[1]):
        ranking = resampling.rank_outputs(targets[:, k] > 0, outputs[:, k])
        precision, auc = resampling.precision_and_auc(ranking, drawn)
        for row, weights in enumerate(drawn):
            truth, given = np.repeat(targets[:, k], weights), np.repeat(outputs[:, k], weights)
            assert precision[row] == pytest.approx(average_precision_score(truth, given))
            assert auc[row] == pytest.approx(roc_auc_score(truth, given))


def test_weighted_accuracy_is_that_of_clips_repeated_that_often():
    targets, outputs = single(clips=40)
    drawn = np.random.default_rng(1).integers(0, 4, (5, 40)).astype(np.int32)
    hits = outputs.argmax(1) == targets.argmax(1)
    accuracy, recall = resampling.accuracy_and_recall(targets, hits, drawn)
    for row, weights in enumerate(drawn):
        truth, answers = np.repeat(targets.argmax(1), weights), np.repeat(outputs.argmax(1), weights)
        assert accuracy[row] == pytest.approx(accuracy_score(truth, answers))
        assert np.nanmean(recall[row]) == pytest.approx(balanced_accuracy_score(truth, answers))


# --- By hand --------------------------------------------------------------------------------------------------------


def test_by_hand():
    """One class, positives at ranks 1 and 3 of 4: AP = (1 + 2/3) / 2; 3 of the 4 pairs are in order."""
    targets, outputs = [[1], [0], [1], [0]], [[9.0], [5.0], [3.0], [1.0]]
    found = metrics.scores(targets, outputs, multi=True)
    assert found["mAP"] == pytest.approx(5 / 6)
    assert found["auc"] == pytest.approx(3 / 4)
    assert found["dprime"] == pytest.approx(0.9538726)  # sqrt(2) * 0.6744898


def test_large_logits_are_not_tied_by_a_sigmoid():
    """In float32 a sigmoid makes 30 and 40 both 1."""
    found = metrics.scores(torch.tensor([[1], [0], [0]]), torch.tensor([[40.0], [30.0], [-50.0]]), multi=True)
    assert found["mAP"] == found["auc"] == 1
    assert found["dprime"] == np.inf


def test_classes_without_clips_are_left_out_and_counted():
    targets, outputs = multi()
    more = np.c_[targets, np.zeros(len(targets)), np.ones(len(targets))]
    outputs = np.c_[outputs, outputs[:, :2]]
    assert metrics.left_out(targets) == 0 and metrics.left_out(more) == 1
    precisions = average_precision_score(targets, outputs[:, :6], average=None)
    found, without = metrics.scores(more, outputs, True), metrics.scores(targets, outputs[:, :6], True)
    assert found["auc"] == pytest.approx(without["auc"])
    assert found["mAP"] == pytest.approx(np.mean([*precisions, 1.0]), abs=1e-6)  # nothing but positives: 1
    table = metrics.per_class(more, outputs, [*NAMES, "none", "all"], True, resamples=40)
    assert table.set_index("label").loc["none", ["ap", "auc", "low", "high"]].isna().all()
    assert np.isnan(table["auc"].iloc[7]) and table["ap"].iloc[7] == 1

    targets, outputs = single()
    more, outputs = np.c_[targets, np.zeros(len(targets))], np.c_[outputs, np.full(len(targets), -9.0)]
    truth, answers = targets.argmax(1), outputs.argmax(1)
    score = metrics.scores(more, outputs, False)["balanced_accuracy"]
    assert score == pytest.approx(balanced_accuracy_score(truth, answers))
    table = metrics.per_class(more, outputs, [*NAMES, "none"], False)
    assert np.isnan(table["recall"].iloc[6]) and table["precision"].iloc[6] == 0


def test_confused_with_is_the_commonest_wrong_answer():
    targets, outputs = np.eye(3)[[0, 0, 0, 1, 2]], np.eye(3)[[2, 2, 1, 1, 2]]
    table = metrics.per_class(targets, outputs, list("abc"), multi=False)
    assert table["confused_with"].tolist() == ["c", "", ""]
    assert table["precision"].tolist() == pytest.approx([0, 1 / 2, 1 / 3])


def test_one_clip():
    assert metrics.scores([[0, 1]], [[0.2, 0.1]], False) == {"accuracy": 0, "balanced_accuracy": 0}
    with pytest.raises(InputError, match="no class has both positive and negative clips"):
        metrics.scores([[0, 1]], [[0.2, 0.1]], True)
    with pytest.raises(InputError, match="at least two clips, there is one"):
        metrics.interval([[0, 1]], [[0.2, 0.1]], False)


# --- Intervals ------------------------------------------------------------------------------------------------------


def test_interval_of_the_accuracy_is_the_binomials():
    """60 % of 400 clips: the normal approximation gives 0.6 -+ 1.96 sqrt(0.24 / 400)."""
    targets = np.eye(2)[[0] * 200 + [1] * 200]
    outputs = targets.copy()
    outputs[:160] = 1 - outputs[:160]
    low, high = metrics.interval(targets, outputs, False)["accuracy"]
    assert (low, high) == pytest.approx((0.552, 0.648), abs=0.006)


def test_intervals_depend_on_the_seed_alone():
    targets, outputs = multi()
    first = metrics.interval(targets, outputs, True, resamples=100)
    assert metrics.interval(targets, outputs, True, resamples=100) == first
    assert metrics.interval(targets, outputs, True, resamples=100, seed=1) != first
    longer = np.concatenate(list(resampling.weights(np.arange(150), 3000)))  # several blocks
    assert np.array_equal(longer[:100], np.concatenate(list(resampling.weights(np.arange(150), 100))))
    assert len(longer) == 3000 and (longer.sum(1) == 150).all()
    assert longer.mean(0) == pytest.approx(np.ones(150), abs=0.1) and longer.var() == pytest.approx(1, abs=0.02)


def test_groups_are_drawn_whole_and_widen_the_interval():
    """Ten clips a recording, all right or all wrong: as many independent answers as recordings."""
    targets = np.eye(2)[[0] * 200 + [1] * 200]
    wrong = np.repeat(np.arange(40) % 3 == 0, 10)
    outputs = np.where(wrong[:, None], 1 - targets, targets)
    recordings = [f"recording {i // 10}" for i in range(400)]
    drawn = next(resampling.weights(np.arange(400) // 10, 20))
    assert (drawn.reshape(20, 40, 10) == drawn[:, ::10, None]).all()
    by_clip = np.diff(metrics.interval(targets, outputs, False)["accuracy"])
    by_group = np.diff(metrics.interval(targets, outputs, False, groups=recordings)["accuracy"])
    assert by_group / by_clip == pytest.approx(np.sqrt(10), rel=0.2)


def test_intervals_hold_the_score_even_where_every_resample_lies_above_it():
    """Rare classes: a positive drawn twice raises its own average precision."""
    rng = np.random.default_rng(0)
    targets = (rng.random((2000, 40)) < 0.003).astype(float)
    targets[0] = 1
    outputs = rng.normal(size=targets.shape)
    score = metrics.scores(targets, outputs, True)
    for name, (low, high) in metrics.interval(targets, outputs, True, resamples=100).items():
        assert low < score[name] < high


@pytest.mark.slow
def test_intervals_cover_what_other_clips_would_give():
    """Of 100 test sets' 95 % intervals, about 95 % hold the mean mAP and AUC of all test sets of that size."""
    found, ends = [], []
    for seed in range(100):
        targets, outputs = multi(clips=150, classes=3, seed=seed)
        found.append(metrics.scores(targets, outputs, True))
        ends.append(metrics.interval(targets, outputs, True, resamples=100, seed=seed))
    for name in ("mAP", "auc", "dprime"):
        mean = np.mean([one[name] for one in found])
        covered = np.mean([low <= mean <= high for low, high in (one[name] for one in ends)])
        assert 0.86 <= covered <= 0.99, (name, covered)


def test_per_class_intervals_hold_the_measure():
    targets, outputs = single()
    table = metrics.per_class(targets, outputs, NAMES, False, resamples=200)
    assert (table["low"] <= table["recall"]).all() and (table["recall"] <= table["high"]).all()
    assert (table["low"] < table["high"]).all()


def test_a_perfect_system_has_a_defined_interval():
    targets, _ = multi()
    found = metrics.interval(targets, targets, True, resamples=40)
    assert found == {"mAP": (1, 1), "dprime": (np.inf, np.inf), "auc": (1, 1)}


def test_a_thousand_resamples_of_400_clips_take_no_second():
    targets, outputs = multi(400, 10)
    metrics.interval(targets, outputs, True, resamples=40)  # torchmetrics' import
    start = time.process_time()
    metrics.interval(targets, outputs, True)
    assert time.process_time() - start < 1


# --- Bad input ------------------------------------------------------------------------------------------------------

GOOD = np.eye(3)[[0, 1, 2, 0]]


@pytest.mark.parametrize(
    "targets, outputs, several, words",
    [
        (GOOD, GOOD[:, :2], False, r"outputs: expected shape \[4, 3\] as targets have, got \[4, 2\]"),
        (GOOD[0], GOOD[0], False, r"targets: expected shape \[clips, classes\], not empty, got \[3\]"),
        (GOOD[:0], GOOD[:0], True, r"targets: expected shape .*got \[0, 3\]"),
        (GOOD, np.where(GOOD[:, :1] > 0, np.nan, GOOD), False, "NaN or infinite for 2 of 4 clips, the first is clip 0"),
        (GOOD * 0.9, GOOD, True, "targets: expected 0 and 1 alone"),
        (np.ones((4, 3)), GOOD, False, "targets: clip 0 has 3 classes, expected one; .* need multi=True"),
        (GOOD * [1, 1, 0], GOOD, False, "targets: clip 2 has 0 classes, expected one"),
        (np.ones((4, 3)), GOOD, True, "no class has both positive and negative clips"),
        ([["a", "b"]], GOOD, False, "targets: not an array of numbers"),
    ],
)
def test_bad_input_is_said(targets, outputs, several, words):
    for function in (metrics.scores, metrics.interval):
        with pytest.raises(InputError, match=words):
            function(targets, outputs, several)


def test_bad_arguments_are_said():
    with pytest.raises(InputError, match="classes: 2 names for 3 columns"):
        metrics.per_class(GOOD, GOOD, ["a", "b"], False)
    with pytest.raises(InputError, match="groups: 3 for 4 clips"):
        metrics.interval(GOOD, GOOD, False, groups=list("aab"))
    with pytest.raises(InputError, match="at least two groups, there is one"):
        metrics.interval(GOOD, GOOD, False, groups=list("aaaa"))
    with pytest.raises(InputError, match="resamples: 10; a 95 % interval needs at least 40"):
        metrics.interval(GOOD, GOOD, False, resamples=10)
