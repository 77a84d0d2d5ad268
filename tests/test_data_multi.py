"""Clips with several labels: how a CSV gives them, and what a manifest makes of them."""

import numpy as np
import pytest
import soundfile

from asit_lab.data import load_manifest, make_loader
from asit_lab.errors import InputError


@pytest.fixture
def sounds(tmp_path):
    """Four recordings."""
    for name in "abcd":
        soundfile.write(tmp_path / f"{name}.wav", np.random.default_rng(ord(name)).uniform(-0.5, 0.5, 1600), 8000)
    return tmp_path


def load(folder, text):
    (folder / "list.csv").write_text(text)
    return load_manifest(f"folder:{folder}")


def test_several_labels_a_clip(sounds):
    found = load(sounds, "path,labels\na.wav,rain;dog\nb.wav,dog\nc.wav,\nd.wav, cat ; dog;;dog\n")
    assert found.multi and found.classes == ["cat", "dog", "rain"]
    assert found.table["label"].tolist() == ["rain;dog", "dog", "", "cat;dog"]
    targets = found.targets()
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, [[0, 1, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]])
    np.testing.assert_array_equal(found.targets([3, 0]), [[1, 1, 0], [0, 1, 1]])


def test_by_label_counts_a_clip_once_for_each_of_its_labels(sounds):
    found = load(sounds, "path,labels\na.wav,rain;dog\nb.wav,dog\nc.wav,\nd.wav,cat;dog\n")
    each = found.by_label()
    assert list(zip(each.index, each["label"], strict=True)) == [
        (0, "rain"),
        (0, "dog"),
        (1, "dog"),
        (3, "cat"),
        (3, "dog"),
    ]
    assert each.groupby("label")["seconds"].sum().to_dict() == pytest.approx({"cat": 0.2, "dog": 0.6, "rain": 0.2})


def test_a_part_of_a_data_set_keeps_all_its_classes(sounds):
    found = load(sounds, "path,labels,split\na.wav,rain,train\nb.wav,dog,train\nc.wav,dog,test\nd.wav,cat,test\n")
    test = found.subset(found.table["split"] == "test")
    assert test.multi and test.classes == found.classes == ["cat", "dog", "rain"]
    np.testing.assert_array_equal(test.targets(), [[0, 1, 0], [1, 0, 0]])


def test_one_label_may_contain_a_semicolon(sounds):
    found = load(sounds, "path,label\na.wav,dog;rain\nb.wav,dog\nc.wav,\nd.wav,dog\n")
    assert not found.multi and found.classes == ["dog", "dog;rain"]
    np.testing.assert_array_equal(found.targets(), [[0, 1], [1, 0], [0, 0], [1, 0]])
    assert found.by_label()["label"].tolist() == ["dog;rain", "dog", "dog"]


def test_a_label_outside_the_list_of_classes(sounds):
    found = load(sounds, "path,labels\na.wav,rain;dog\nb.wav,dog\nc.wav,\nd.wav,cat\n")
    found.table.loc[1, "label"] = "dog;horse"
    with pytest.raises(InputError, match="label 'horse' is not one of the data set's 3 classes"):
        found.targets()


def test_both_columns(sounds):
    with pytest.raises(InputError, match=r"list\.csv: columns 'label' .* and 'labels' .* are both there; give one"):
        load(sounds, "path,label,labels\na.wav,dog,dog\n")


def test_audio_that_the_list_does_not_name(sounds):
    found = load(sounds, "path,label\na.wav,dog\nb.wav,cat\n")
    assert len(found) == 2 and found.notes == [
        f"2 audio files in {sounds} are not in list.csv and are left out",
    ]


def test_folds_as_pandas_writes_them_beside_missing_ones(sounds):
    found = load(sounds, "path,label,fold\na.wav,dog,1.0\nb.wav,cat,2.0\nc.wav,cat,\n")
    assert found.table["fold"].tolist()[:2] == [1, 2]
    with pytest.raises(InputError, match=r"list\.csv, line 2: fold '1.5' is not a whole number"):
        load(sounds, "path,label,fold\na.wav,dog,1.5\n")


@pytest.mark.parametrize("column", ["fold", "split"])
def test_a_part_without_a_usable_file(sounds, column):
    first, second = ("1", "2") if column == "fold" else ("train", "test")
    text = f"path,label,{column}\na.wav,dog,{first}\nb.wav,cat,{first}\ngone.wav,dog,{second}\n"
    with pytest.raises(InputError, match=rf"none of the files of {column} {second} .*gone\.wav: no such file"):
        load(sounds, text)


def test_batches_of_clips_with_several_labels(sounds):
    from asit_lab.config import load_config

    found = load(sounds, "path,labels\na.wav,rain;dog\nb.wav,dog\nc.wav,\nd.wav,cat\n")
    cfg = load_config("smoke", overrides=["train.batch_size=4", "data.crop_seconds=0.2", "data.workers=0"])
    (batch,) = make_loader(cfg, found, views=1, stop=1)
    assert sorted(batch.index.tolist()) == [0, 1, 2, 3]
    assert found.targets(batch.index.tolist()).sum() == 4
