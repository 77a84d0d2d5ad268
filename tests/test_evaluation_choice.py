"""What a probe reads: layer, pooling and setting are chosen inside the training clips, near-ties by preference."""

import numpy as np
import pytest

from asit_lab.errors import InputError
from asit_lab.evaluation import choice
from asit_lab.evaluation.choice import Candidate, candidates, fit_probe, pick
from asit_lab.evaluation.classifiers import GRIDS, answers
from asit_lab.evaluation.splits import Split

COUNT, LAYERS, WIDTH = 96, 4, 4


@pytest.fixture
def split():
    """Two thirds to train on, the rest to test; recordings of two clips."""
    return Split("x", np.arange(64), np.arange(64, COUNT))


LABELS = np.arange(COUNT) // 2 % 3
TARGETS = np.eye(3)[LABELS]
STRATA = np.array(["abc"[label] for label in LABELS], dtype=object)
GROUPS = np.array([f"recording {i // 2}" for i in range(COUNT)], dtype=object)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((COUNT, LAYERS, 3, WIDTH)).astype(np.float32)


def planted(layer: int, statistic: int, strength: float = 3.0) -> np.ndarray:
    """Noise, but for one statistic (0 class, 1 mean, 2 std) of one layer that tells the classes."""
    vectors = noise()
    vectors[:, layer, statistic] += strength * np.random.default_rng(9).standard_normal((3, WIDTH))[LABELS]
    return vectors


def chosen(vectors, split, protocol="linear", pool="auto", layer="auto", multi=False, targets=TARGETS):
    among = candidates("x", vectors, protocol, pool, layer)
    fitted = fit_probe(vectors, targets, STRATA, GROUPS, split, protocol, among, multi)
    return fitted.outputs, fitted.chosen


@pytest.mark.parametrize("protocol", ["linear", "knn"])
@pytest.mark.parametrize("layer, statistic, pool", [(1, 0, "class"), (2, 1, "mean"), (3, 1, "mean")])
def test_what_tells_the_classes_is_chosen(split, protocol, layer, statistic, pool):
    outputs, made = chosen(planted(layer, statistic), split, protocol)
    assert made["layer"] == ("last" if layer == 3 else layer)
    assert made["pool"] in ((pool,) if pool == "class" else (pool, "mean+std"))
    assert made["C" if protocol == "linear" else "k"] in GRIDS[protocol] and made["inner"] > 0.9
    assert (outputs.argmax(1) == LABELS[split.test]).mean() > 0.9
    np.testing.assert_allclose(outputs.sum(1), 1, atol=1e-6)


def test_layers_that_are_equal_give_way_to_the_last_and_mean_std(split):
    vectors = np.repeat(planted(0, 1)[:, :1], LAYERS, axis=1)
    vectors[:, :, 0] = vectors[:, :, 1]  # class token as good as the mean
    _, made = chosen(vectors, split)
    assert (made["layer"], made["pool"]) == ("last", "mean+std")


def test_test_clips_choose_nothing(split):
    vectors = planted(1, 0, strength=1.0)
    outputs, made = chosen(vectors, split)
    other = vectors.copy()
    other[split.test] = planted(2, 1, strength=50.0)[split.test]
    found, again = chosen(other, split)
    assert again == made and not np.allclose(found, outputs)


def test_valid_clips_choose_and_do_not_train():
    split = Split("x", np.arange(48), np.arange(64, COUNT), np.arange(48, 64))
    vectors = noise()
    vectors[:48] = planted(1, 0)[:48]  # in training layer 1 tells as well ...
    vectors[:, 2, 1] += 3 * np.random.default_rng(5).standard_normal((3, WIDTH))[LABELS]  # ... but layer 2 holds
    outputs, made = chosen(vectors, split)
    assert made["layer"] == 2 and made["inner"] > 0.8
    (one,) = candidates("x", vectors, "linear", made["pool"], made["layer"])
    x = one.pooled(vectors)
    (alone,) = answers("linear", x[:48], TARGETS[:48], x[split.test], (made["C"],), False)
    np.testing.assert_array_equal(alone.outputs, outputs)


def test_given_layer_and_pooling_are_kept(split):
    _, made = chosen(planted(2, 1), split, pool="class", layer=1)
    assert (made["layer"], made["pool"]) == (1, "class") and made["inner"] < 0.7
    assert chosen(planted(2, 1), split, layer="last")[1]["layer"] == "last"
    assert chosen(planted(2, 1), split, layer=-1)[1]["layer"] == 2  # the last block; 3 is the final output
    assert chosen(planted(2, 1), split, layer=3)[1]["layer"] == "last"


def test_weights_of_the_sum_are_told(split):
    outputs, made = chosen(planted(2, 1), split, "weighted")
    assert (made["layer"], made["pool"]) == ("weighted", "mean+std")
    assert list(made["weights"]) == ["0", "1", "2", "last"] and sum(made["weights"].values()) == pytest.approx(1)
    assert max(made["weights"], key=made["weights"].get) == "2"
    assert (outputs.argmax(1) == LABELS[split.test]).mean() > 0.9


@pytest.mark.parametrize("protocol", ["linear", "knn", "weighted"])
def test_several_labels_are_chosen_by_average_precision(split, protocol):
    targets = np.maximum(TARGETS, np.roll(TARGETS, 1, axis=1) * (np.arange(COUNT) % 4 == 0)[:, None])
    vectors = noise()
    vectors[:, 1, 0] += 4 * targets @ np.random.default_rng(9).standard_normal((3, WIDTH))
    targets = np.column_stack([targets, np.zeros(COUNT)])  # a class nobody has: no average precision
    outputs, made = chosen(vectors, split, protocol, "class", multi=True, targets=targets)
    assert made["inner"] > 0.9 and outputs.shape == (32, 4)
    assert made["layer"] == ("weighted" if protocol == "weighted" else 1)
    tested = targets[split.test]
    for k in range(3):
        has = tested[:, k] > 0
        assert (outputs[has, k][:, None] > outputs[~has, k]).mean() > 0.85  # area under the ROC curve


def test_clips_of_one_recording_leave_the_preferred(split):
    groups = np.full(COUNT, "one", dtype=object)
    among = candidates("x", noise(), "linear", "auto", "auto")
    made = fit_probe(noise(), TARGETS, STRATA, groups, split, "linear", among, False).chosen
    assert (made["layer"], made["pool"], made["C"]) == ("last", "mean+std", GRIDS["linear"][2])
    assert np.isnan(made["inner"])


def test_pick_by_hand():
    base = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=float)  # 0.4
    one_more = base.copy()
    one_more[4] = 1  # 0.5; behind by 0.1, standard error of the difference 0.1
    four_more = base.copy()
    four_more[4:8] = 1  # 0.8; base is behind by 0.4, standard error 0.163
    assert pick([base, one_more]) == 0
    assert pick([base, four_more]) == 1
    assert pick([base, one_more, four_more]) == 2
    assert pick([four_more, base]) == 0
    assert pick([np.array([0.5, np.nan]), np.array([0.9, np.nan])]) == 1  # one class alone: no error is known


def test_many_clips_choose_by_a_part(split, monkeypatch):
    monkeypatch.setattr(choice, "CHOICE_CLIPS", 40)
    used = []
    inner = choice._inner_units
    monkeypatch.setattr(choice, "_inner_units", lambda x, t, parts, *a: used.extend(parts) or inner(x, t, parts, *a))
    outputs, made = chosen(planted(1, 0), split)
    assert {len(fit) + len(check) for fit, check in used} == {40} and made["layer"] == 1
    assert set(np.concatenate([np.concatenate(part) for part in used])) <= set(split.train)


def test_candidates_of_deep_models_are_few():
    vectors = np.zeros((2, 25, 3, 2), np.float32)
    found = candidates("x", vectors, "linear", "mean", "auto")
    assert len(found) == choice.MOST_LAYERS
    assert found[0] == Candidate((24,), "mean", ("last",)) and found[-1] == Candidate((0,), "mean", (0,))
    assert len(candidates("x", vectors[:, :13], "linear", "auto", "auto")) == 39


def test_no_class_token_is_no_candidate():
    vectors = noise()
    vectors[:, :2, 0] = np.nan
    found = candidates("x", vectors, "linear", "auto", "auto")
    assert {(one.names[0], one.pool) for one in found if one.pool == "class"} == {("last", "class"), (2, "class")}
    assert len(found) == 10
    assert candidates("x", vectors, "weighted", "class", "auto")[0].names == (2, "last")
    with pytest.raises(InputError, match="layer 1 has no class token"):
        candidates("x", vectors, "linear", "class", 1)


@pytest.mark.parametrize("layer", [4, -4, "first", 1.0, True])
def test_a_layer_that_is_not_there_is_named(layer):
    with pytest.raises(InputError, match=f"layer: {layer!r} is neither auto nor last nor a number from -3 to 3"):
        candidates("x", noise(), "linear", "auto", layer)


def test_choices_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="pool: 'max' is not one of auto, mean.std, mean, class"):
        candidates("x", noise(), "linear", "max", "auto")
    with pytest.raises(InputError, match="no layers, so there are none to weigh"):
        candidates("x", noise()[:, 0, 0], "weighted", "auto", "auto")
    with pytest.raises(InputError, match="weighted sums all layers"):
        candidates("x", noise(), "weighted", "auto", 1)
