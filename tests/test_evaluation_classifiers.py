"""Classifiers against scikit-learn and by hand: regressions single- and multi-label, sums of layers, neighbours."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from asit_lab.evaluation.classifiers import answers


def problem(count: int, dim: int, multi: bool = False, noise: float = 2.0, seed: int = 0):
    """Features [count, dim] on very different scales and 0/1 targets [count, 3] that can partly be told from them."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 3, count)
    targets = np.eye(3)[codes]
    if multi:
        targets = np.maximum(targets, np.eye(3)[generator.integers(0, 3, count)])
        targets[::7] = 0  # clips without any label
    features = targets @ generator.standard_normal((3, dim)) + noise * generator.standard_normal((count, dim))
    return features * 10.0 ** generator.uniform(-2, 2, dim) + 5, targets


def scaled(train, test):
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test)


@pytest.mark.parametrize("dim", [8, 150])
def test_single_label_is_scikit_learns_regression(dim):
    features, targets = problem(90, dim)
    train, test = scaled(features[:60], features[60:])
    found = answers("linear", features[:60], targets[:60], features[60:], (0.01, 1.0), False)
    for answer, strength in zip(found, (0.01, 1.0), strict=True):
        model = LogisticRegression(C=strength, max_iter=10000, tol=1e-8).fit(train, targets[:60].argmax(1))
        np.testing.assert_allclose(answer.outputs, model.predict_proba(test), atol=2e-4)
    assert np.abs(found[0].outputs - found[1].outputs).max() > 0.1


@pytest.mark.parametrize("dim", [8, 150])
def test_multi_label_is_scikit_learns_one_against_the_rest(dim):
    features, targets = problem(90, dim, multi=True)
    train, test = scaled(features[:60], features[60:])
    (answer,) = answers("linear", features[:60], targets[:60], features[60:], (0.1,), True)
    model = OneVsRestClassifier(LogisticRegression(C=0.1, max_iter=10000, tol=1e-8)).fit(train, targets[:60])
    np.testing.assert_allclose(answer.outputs, model.predict_proba(test), atol=2e-4)


@pytest.mark.parametrize("multi", [False, True])
def test_one_layer_is_the_plain_regression(multi):
    features, targets = problem(60, 5, multi)
    plain = answers("linear", features, targets, features, (0.1, 1.0), multi)
    summed = answers("weighted", features[:, None], targets, features[:, None], (0.1, 1.0), multi)
    for one, other in zip(plain, summed, strict=True):
        np.testing.assert_allclose(other.outputs, one.outputs, atol=1e-3)
        assert other.head.layer_weights.tolist() == [1.0]


def test_the_layer_that_tells_gets_the_weight():
    features, targets = problem(120, 6, noise=1.0)
    noise = np.random.default_rng(1).standard_normal((120, 2, 6))
    layers = np.stack([noise[:, 0], features, noise[:, 1]], axis=1)
    (found,) = answers("weighted", layers[:80], targets[:80], layers[80:], (0.1,), False)
    weights = found.head.layer_weights
    assert weights.sum() == pytest.approx(1) and weights[1] > 0.8
    (alone,) = answers("linear", features[:80], targets[:80], features[80:], (0.1,), False)
    assert (found.outputs.argmax(1) == alone.outputs.argmax(1)).mean() > 0.9


def test_constant_features_and_classes_without_a_clip_do_no_harm():
    features, targets = problem(60, 5)
    features[:, 2] = 3.0
    targets = np.column_stack([targets, np.zeros(60)])
    other = features.copy()
    other[:, 2] = -7.0  # a constant of the training clips tells nothing, whatever it is in the others
    for protocol, multi in (("linear", False), ("linear", True), ("knn", False)):
        (one,) = answers(protocol, features, targets, features, (1,), multi)
        (two,) = answers(protocol, features, targets, other, (1,), multi)
        assert np.isfinite(one.outputs).all() and one.outputs[:, 3].max() < 0.1
        np.testing.assert_allclose(one.outputs, two.outputs)


def test_nearest_neighbours_by_hand():
    # Standardising changes nothing here: both columns have mean 0 and deviation 1.
    train = np.sqrt(2) * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    targets = np.eye(3)[[0, 1, 2, 1]]  # east, north, west, north
    test = np.array([[5.0, 4.0], [0.1, -0.2], [-3.0, -2.0]])
    one, two, every = answers("knn", train, targets, test, (1, 2, 4), False)
    assert one.outputs.argmax(1).tolist() == [0, 1, 2]
    assert two.outputs.argmax(1).tolist() == [0, 1, 2]  # one vote each: the more similar one decides
    np.testing.assert_allclose(two.outputs[0], [0.5, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(every.outputs, [[0.25, 0.5, 0.25]] * 3, atol=1e-6)


def test_neighbours_vote_for_each_label():
    train = np.sqrt(2) * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    targets = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]])
    (found,) = answers("knn", train, targets, np.array([[5.0, 4.0]]), (2,), True)
    np.testing.assert_allclose(found.outputs, [[1.0, 0.5, 0.0]], atol=1e-6)
