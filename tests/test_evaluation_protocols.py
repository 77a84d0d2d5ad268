"""Splits: official ones as given, grouped folds otherwise, and never a recording on both sides."""

import numpy as np
import pandas as pd
import pytest

from asit_lab.errors import InputError
from asit_lab.evaluation.splits import gaps, groups_of, inner_splits, splits, strata_of


def table(labels, fold=None, split=None, group=None) -> pd.DataFrame:
    count = len(labels)
    return pd.DataFrame(
        {
            "path": [f"clip{i}.wav" for i in range(count)],
            "label": labels,
            "fold": pd.array(fold if fold is not None else [None] * count, dtype="Int64"),
            "split": pd.array(split if split is not None else [None] * count, dtype="string"),
            "group": group if group is not None else [f"clip{i}.wav" for i in range(count)],
        }
    )


def test_official_folds_leave_one_out():
    found = splits(table(list("ababab"), fold=[1, 1, 3, 3, 2, 2]))
    assert [one.name for one in found] == ["fold 1", "fold 2", "fold 3"]
    assert found[1].test.tolist() == [4, 5] and found[1].train.tolist() == [0, 1, 2, 3]
    assert all(len(one.valid) == 0 for one in found)


def test_official_splits_keep_valid_apart():
    one = splits(table(list("ababab"), split=["train", "train", "valid", "test", "test", "valid"]))
    assert len(one) == 1
    assert (one[0].train.tolist(), one[0].valid.tolist(), one[0].test.tolist()) == ([0, 1], [2, 5], [3, 4])


def test_grouped_folds_test_every_clip_once_and_keep_recordings_together():
    groups = [f"recording {i // 3}" for i in range(60)]
    labels = ["abc"[i // 3 % 3] for i in range(60)]
    data = table(labels, group=groups)
    found = splits(data, seeds=(0, 1))
    assert [one.name for one in found] == [f"seed {seed} fold {n}" for seed in (0, 1) for n in range(1, 6)]
    for seed in (0, 1):
        tested = np.concatenate([one.test for one in found if one.name.startswith(f"seed {seed}")])
        assert sorted(tested) == list(range(60))
    for one in found:
        assert not set(np.array(groups)[one.train]) & set(np.array(groups)[one.test])
        assert set(np.array(labels)[one.test]) == set("abc")
    assert any((a.test.tolist() != b.test.tolist()) for a, b in zip(found[:5], found[5:], strict=True))
    again = splits(data, seeds=(1,))
    assert [one.test.tolist() for one in again] == [one.test.tolist() for one in found[5:]]


def test_fewer_folds_where_a_class_has_few_recordings():
    assert len(splits(table(list("aaaaaaabb")))) == 2


def test_missing_group_is_the_clip_itself():
    data = table(list("ab"), group=[None, "r"])
    assert groups_of(data).tolist() == ["clip0.wav", "r"]


@pytest.mark.parametrize("official", [{"fold": [1, 1, 2, 2]}, {"split": ["train", "train", "test", "test"]}])
def test_a_recording_on_both_sides_is_named(official):
    with pytest.raises(InputError, match="'rec 7' is on both sides, train .*clip[0-3].wav.* and test"):
        splits(table(list("abab"), group=["rec 7", "x", "rec 7", "y"], **official))


def test_a_recording_in_train_and_valid_is_named():
    with pytest.raises(InputError, match="'rec 7' is on both sides, train .* and valid"):
        data = table(list("ababab"), split=["train", "train", "test", "test", "valid", "valid"])
        splits(data.assign(group=["rec 7", "x", "y", "z", "rec 7", "v"]))


@pytest.mark.parametrize(
    "data, words",
    [
        (table(list("aaaa"), fold=[1, 1, 2, 2]), "classes found: a; a probe needs at least two"),
        (table(["a", "", "b", "b"], fold=[1, 1, 2, 2]), "1 of 4 clips have no label .first: clip1.wav"),
        (table(list("abab"), fold=[1, 1, 1, 1]), "every clip is in fold 1"),
        (table(list("abab"), fold=[1, None, 2, 2]), "1 of 4 clips have no fold .first: clip1.wav"),
        (table(list("abab"), split=["train", "train", "valid", "valid"]), "no clip has split 'test'"),
        (table(list("abab"), split=["test", "test", "valid", "valid"]), "no clip has split 'train'"),
        (table(list("aabb"), fold=[1, 2, 2, 2]), "fold 2: training has no clip of class 'b', which is in test .clip2"),
        (table(list("abcab"), fold=[1, 1, 1, 2, 2]), "fold 1: training has no clip of class 'c'"),  # one clip a class
        (table(list("ababc"), split=["train", "train", "test", "test", "test"]), "no clip of class 'c', .*clip4.wav"),
        (table(list("ababc"), split=["train", "train", "test", "test", "valid"]), "'c', which is in valid .clip4.wav"),
        (table(list("ababab"), fold=[1, 1, 2, 2, 4, 4]), "fold 3 has no clip, though there are folds 1 to 4"),
        (table(list("aab"), group=["x", "y", "z"]), "class 'b' comes from one source recording only"),
    ],
)
def test_what_cannot_be_split_is_said(data, words):
    with pytest.raises(InputError, match=words):
        splits(data)


def test_seeds_and_folds_that_are_none():
    data = table(list("ababab"))
    with pytest.raises(InputError, match=r"seeds: 3 is one number; expected several, such as \(0, 1, 2\), or \(3,\)"):
        splits(data, seeds=3)
    with pytest.raises(InputError, match="folds: 1; expected at least 2"):
        splits(data, folds=1)


def test_inner_splits_keep_recordings_together():
    groups = np.array([f"r{i // 2}" for i in range(24)], dtype=object)
    labels = np.array(["ab"[i // 2 % 2] for i in range(24)], dtype=object)
    found = inner_splits(labels, groups)
    assert len(found) == 3
    assert sorted(np.concatenate([check for _, check in found])) == list(range(24))
    assert all(not set(groups[fit]) & set(groups[check]) for fit, check in found)
    assert inner_splits(labels, np.array(["one"] * 24, dtype=object)) == []


# --- Several labels a clip ------------------------------------------------------------------------------------------


def test_several_labels_or_none_are_no_fault_where_clips_may_have_them():
    data = table(["a;b", "", "b", "a", "c", "a;c"], split=["train"] * 3 + ["test"] * 3)
    (found,) = splits(data, multi=True)
    assert found.train.tolist() == [0, 1, 2] and found.test.tolist() == [3, 4, 5]
    assert gaps(data, [found], multi=True) == [
        "no test clip of class 'b': the score says nothing about it",
        "test: training has no clip of class 'c', which is tested",
    ]
    with pytest.raises(InputError, match="classes found: a; a probe needs at least two"):
        splits(table(["a", "", "a", ""], fold=[1, 1, 2, 2]), multi=True)


def test_folds_of_several_labels_are_balanced_by_the_rarest():
    labels = ["a;rare" if i % 10 == 0 else "a;b" if i % 2 else "b" for i in range(50)]
    assert strata_of(np.array(labels, dtype=object), True).tolist() == [
        "rare" if i % 10 == 0 else "a" if i % 2 else "b" for i in range(50)
    ]
    assert strata_of(np.array(["", "a"], dtype=object), True).tolist() == ["", "a"]
    found = splits(table(labels), multi=True)
    assert len(found) == 5
    assert all(sum("rare" in labels[row] for row in one.test) == 1 for one in found)


def test_what_is_never_tested_is_told():
    data = table(list("ababc"), split=["train", "train", "test", "test", "train"])
    assert gaps(data, splits(data)) == ["no test clip of class 'c': the score says nothing about it"]
    data = table(list("abab"), fold=[1, 1, 2, 2])
    assert gaps(data, splits(data)) == []
