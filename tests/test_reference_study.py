"""The scripts of reports/reference that make its results: which clips are tested and trained on, and intervals."""

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from asit_lab.data import load_manifest

SCRIPTS = Path(__file__).resolve().parents[1] / "reports/reference"


@pytest.fixture
def script(monkeypatch):
    """The names of a script in reports/reference."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return lambda name: runpy.run_path(str(SCRIPTS / f"{name}.py"))


def test_a_fold_is_tested_and_the_others_are_trained_on(script):
    table, whole = script("finetuned")["held_out"]("synth:50@2").table, load_manifest("synth:50").table
    assert table["split"].tolist() == ["test" if fold == 2 else "train" for fold in whole["fold"]]
    assert table["fold"].isna().all()


def test_few_labels_are_of_training_clips_and_differ_by_seed(script):
    finetuned = script("finetuned")
    manifest = finetuned["held_out"]("synth:200@1")
    few = [finetuned["few_labels"](manifest, 3, seed).table for seed in (0, 1)]
    for table in few:
        trained = table[table["split"] == "train"]
        assert set(trained["label"].value_counts()) == {3}
        assert (table["split"] == "test").sum() == (manifest.table["split"] == "test").sum()
    assert set(few[0]["path"]) != set(few[1]["path"])


def test_an_interval_is_over_groups_and_not_over_clips(script):
    intervals = script("intervals")
    values = np.repeat([0.0, 1.0, 0.0, 1.0], 25)
    of_clips = intervals["gain_of"](values, np.arange(100))
    of_groups = intervals["gain_of"](values, np.repeat(np.arange(4), 25))
    assert of_clips["gain"] == of_groups["gain"] == 0.5
    assert of_groups["high"] - of_groups["low"] > 3 * (of_clips["high"] - of_clips["low"])


def test_shorter_lists_are_whole_recordings_of_every_kind_and_parts_of_longer_ones(script):
    place_of = script("hours")["place_of"]
    clips = pd.DataFrame({"label": ["speech"] * 200 + ["music"] * 100, "group": [f"g{i // 2}" for i in range(300)]})
    seconds = pd.Series(np.arange(300) % 7 + 1.0)
    places = place_of(clips, seconds)
    assert (places.groupby(clips["group"]).nunique() == 1).all()
    for share in (0.1, 0.5, 1.0):
        kept = seconds[places <= share].groupby(clips["label"]).sum() / seconds.groupby(clips["label"]).sum()
        assert kept.between(share - 0.05, share).all()
