"""Calibration against torchmetrics and by hand: temperature, calibration error, reliability, thresholds."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from asit_lab import InputError, figures
from asit_lab.evaluation import metrics
from asit_lab.evaluation.calibration import best_thresholds, calibration_error, fit_temperature, reliability


def answers(count: int = 4000, classes: int = 5, seed: int = 0):
    """Targets drawn from the softmax of logits, which are therefore calibrated."""
    generator = np.random.default_rng(seed)
    logits = 2.0 * generator.standard_normal((count, classes))
    chances = torch.from_numpy(logits).softmax(1).numpy()
    drawn = (chances.cumsum(1) > generator.random((count, 1))).argmax(1)
    return np.eye(classes)[drawn], logits


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_undoes_a_factor(factor):
    targets, logits = answers()
    assert fit_temperature(targets, factor * logits, False) == pytest.approx(factor, rel=0.1)
    truth = (np.random.default_rng(1).random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    assert fit_temperature(truth, factor * logits, True) == pytest.approx(factor, rel=0.1)


def test_a_few_right_answers_make_none_certain():
    targets = np.eye(4)[np.arange(8) % 4]
    temperature = fit_temperature(targets, 3.0 * targets, False)
    certain = torch.from_numpy(3.0 * targets / temperature).softmax(1).amax(1)
    assert certain.max() == pytest.approx((8 + 1 / 4) / 9, abs=1e-3)
    several = torch.from_numpy((6.0 * targets - 3.0) / fit_temperature(targets, 6.0 * targets - 3.0, True)).sigmoid()
    assert several.max() == pytest.approx(8.5 / 9, abs=1e-3)


def test_calibration_error_is_torchmetrics():
    targets, logits = answers()
    for factor in (1.0, 4.0):
        given = torch.from_numpy(factor * logits).softmax(1)
        expected = multiclass_calibration_error(given, torch.from_numpy(targets.argmax(1)), 5, n_bins=15, norm="l1")
        assert calibration_error(targets, given.numpy(), False) == pytest.approx(expected.item(), abs=2e-3)
        several = torch.from_numpy(factor * logits).sigmoid()
        flat = binary_calibration_error(
            several.flatten(), torch.from_numpy(targets).int().flatten(), n_bins=15, norm="l1"
        )
        assert calibration_error(targets, several.numpy(), True) == pytest.approx(flat.item(), abs=2e-3)
    assert calibration_error(targets, torch.from_numpy(logits).softmax(1).numpy(), False) < 0.03
    assert calibration_error(targets, torch.from_numpy(4 * logits).softmax(1).numpy(), False) > 0.1


def test_reliability_by_hand():
    given = np.array([[0.95, 0.05], [0.95, 0.05], [0.4, 0.6], [0.0, 1.0]])
    table = reliability(np.eye(2)[[0, 1, 1, 1]], given, False)
    assert table["answers"].tolist() == [1, 3]
    assert table["accuracy"].tolist() == [1.0, pytest.approx(2 / 3)]
    assert table["confidence"].tolist() == [0.6, pytest.approx(2.9 / 3)]
    assert table["low"].tolist() == [9 / 15, 14 / 15] and table["high"].iloc[1] == 1.0


def test_thresholds_are_those_of_the_best_f1():
    given = np.array([[0.9, 0.1, 0.3], [0.3, 0.2, 0.3], [0.25, 0.9, 0.3], [0.2, 0.8, 0.3]])
    targets = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]])
    found = best_thresholds(targets, given)
    assert 0.25 < found[0] < 0.3 and 0.8 < found[1] < 0.9 and found[2] == 0.5
    np.testing.assert_array_equal(given[:, :2] >= found[:2], targets[:, :2] > 0)


# --- Figures --------------------------------------------------------------------------------------------------------


class Result:
    """Has what figures of results look at."""

    def __init__(self, targets, given):
        self.reliability = reliability(targets, given, False)
        names = [f"class {k}" for k in range(targets.shape[1])]
        self.confusion = metrics.confusion(targets, given, names)


def test_figures_take_a_result_or_its_table():
    targets, logits = answers()
    given = torch.from_numpy(3 * logits).softmax(1).numpy()
    result = Result(targets, given)
    for drawn in (figures.reliability_figure(result), figures.reliability_figure(result.reliability, "title")):
        top, below = drawn.axes
        line = top.get_lines()[0]
        np.testing.assert_allclose(line.get_xdata(), 100 * result.reliability["confidence"])
        np.testing.assert_allclose(line.get_ydata(), 100 * result.reliability["accuracy"])
        assert sum(bar.get_height() for bar in below.patches) == len(targets)
        error = 100 * calibration_error(targets, given, False)
        assert top.get_legend().get_title().get_text() == f"expected calibration error {error:.1f} %"
    with pytest.raises(InputError, match="lacks .'accuracy', 'answers'"):
        figures.reliability_figure(result.reliability[["low", "high", "confidence"]])
    shown = [
        [text.get_text() for text in figures.confusion_figure(source).axes[0].texts]
        for source in (result, result.confusion)
    ]
    assert shown[0] == shown[1] and len(shown[0]) == 25
