"""Probes from embeddings or audio to a readable result: scores, intervals, findings, tables, and bad input."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
import soundfile

import asit_lab
from asit_lab import load_config
from asit_lab.data import load_manifest
from asit_lab.embedding.dataset import log_mel_embedder
from asit_lab.encoder import Encoder
from asit_lab.errors import InputError
from asit_lab.evaluation import leakage as guard
from asit_lab.evaluation import metrics
from asit_lab.evaluation.classifiers import GRIDS
from asit_lab.evaluation.probe_result import ProbeResult
from asit_lab.evaluation.probing import compare, compare_results, probe, probe_features
from asit_lab.evaluation.splits import splits, with_few_labels

CLASSES = ("bark", "purr", "quack")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The project's root, where embeddings and what the guard has read are kept."""
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))


def table(count: int = 60, folds: int = 3) -> pd.DataFrame:
    """Clips of three classes, two a recording, recordings spread over the folds."""
    recording = np.arange(count) // 2
    return pd.DataFrame(
        {
            "path": [f"{i}.wav" for i in range(count)],
            "label": [CLASSES[i % 3] for i in recording],
            "fold": pd.array(recording // 3 % folds + 1, dtype="Int64"),
            "split": pd.array([None] * count, dtype="string"),
            "group": [f"recording {i}" for i in recording],
        }
    )


def features(data: pd.DataFrame, noise: float, dim: int = 8, seed: int = 0) -> np.ndarray:
    """A point a class, and noise."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((3, dim))
    codes = data["label"].map(CLASSES.index).to_numpy()
    return centres[codes] + noise * generator.standard_normal((len(data), dim))


@pytest.mark.parametrize("protocol", ["linear", "knn"])
def test_separable_classes_are_read_off_and_noise_is_not(protocol):
    data = table(120)
    clear = probe_features(features(data, 0.1), data, "clear", protocol)
    assert clear.mean == 1.0 and clear.spread == 0.0 and clear.interval == (1.0, 1.0)
    assert list(clear.scores) == list(clear.chosen) == ["fold 1", "fold 2", "fold 3"]
    assert all(one["C" if protocol == "linear" else "k"] in GRIDS[protocol] for one in clear.chosen.values())
    assert (clear.layer, clear.pool, clear.dim) == ("", "", 8)
    nothing = probe_features(np.random.default_rng(1).standard_normal((120, 8)), data, "noise", protocol)
    assert abs(nothing.mean - 1 / 3) < 0.15
    low, high = nothing.interval
    assert low < nothing.mean < high and 0.1 < high - low < 0.25  # 4 standard errors of 120 clips are 0.17


@pytest.mark.parametrize("protocol", ["linear", "knn"])
def test_splits_fitted_at_once_give_what_they_give_one_by_one(protocol, monkeypatch):
    data, results = table(120), []
    for threads in (1, 3):
        monkeypatch.setattr("torch.get_num_threads", lambda threads=threads: threads)
        results.append(probe_features(features(data, 1.0), data, "", protocol))
    one_by_one, at_once = results
    np.testing.assert_array_equal(at_once.outputs, one_by_one.outputs)
    assert at_once.chosen == one_by_one.chosen


def test_few_labels_are_drawn_from_training_clips_once_for_every_seed():
    data = table(120)
    few = probe_features(features(data, 1.0), data, "", seeds=(0, 1), labels_per_class=2)
    folds = sorted({name.partition(",")[0] for name in few.scores})
    assert list(few.scores) == [f"{fold}, draw {seed}" for seed in (0, 1) for fold in folds]
    assert few.notes == ["2 labels per class"]
    every = probe_features(features(data, 1.0), data, "", labels_per_class=1000)
    assert every.mean > few.mean > every.chance
    strata = data["label"].to_numpy()
    draws = with_few_labels(splits(data), strata, 2, (0, 1))
    for draw, division in zip(draws, [*splits(data), *splits(data)], strict=True):
        assert set(draw.train) <= set(division.train) and list(draw.test) == list(division.test)
        assert not len(draw.valid) and (pd.Series(strata[draw.train]).value_counts() == 2).all()
    assert not np.array_equal(draws[0].train, draws[len(draws) // 2].train)
    with pytest.raises(InputError, match="labels_per_class: 0"):
        probe_features(features(data, 1.0), data, "", labels_per_class=0)


def test_test_clips_choose_nothing():
    data = table()
    points = features(data, 1.5)
    before = probe_features(points, data, "x")
    test = (data["fold"] == 1).to_numpy(bool)
    other = points.copy()
    other[test] = 100.0  # their features tell nothing now
    after = probe_features(other, data, "x")
    assert after.chosen["fold 1"] == before.chosen["fold 1"]
    predicted = after.predictions.query("split == 'fold 1'")["predicted"]
    assert predicted.nunique() == 1


def test_outputs_predictions_and_scores_belong_together():
    data = table()
    found = probe_features(features(data, 1.5), data, "x")
    assert found.classes == list(CLASSES) and found.outputs.shape == (60, 3) and found.outputs.dtype == np.float32
    np.testing.assert_allclose(found.outputs.sum(1), 1, atol=1e-5)
    answers = [CLASSES[k] for k in found.outputs.argmax(1)]
    assert answers == found.predictions["predicted"].tolist()
    assert found.predictions["path"].tolist() == data["path"].iloc[found.predictions["path_row"]].tolist()
    assert found.targets.argmax(1).tolist() == [CLASSES.index(label) for label in found.predictions["label"]]
    right = found.predictions["predicted"] == found.predictions["label"]
    for fold, score in found.scores.items():
        assert score == pytest.approx(right[found.predictions["split"] == fold].mean())
    assert 0.5 < found.mean < 1  # hard enough that all this could be wrong
    counts = found.confusion
    assert np.trace(counts.to_numpy()) == right.sum() and counts.to_numpy().sum() == 60
    pd.testing.assert_frame_equal(found.per_class, metrics.per_class(found.targets, found.outputs, CLASSES, False))


def test_layers_and_pooling_are_chosen_and_told():
    data = table()
    vectors = np.random.default_rng(2).standard_normal((60, 3, 3, 8))
    vectors[:, 1, 0] += 5 * features(data, 0.0)
    found = probe_features(vectors, data, "x")
    assert (found.layer, found.pool, found.dim, found.mean) == ("1", "class", 16, 1.0)
    assert all(one["layer"] == 1 and one["inner"] == 1.0 for one in found.chosen.values())
    fixed = probe_features(vectors, data, "x", pool="mean", layer="last")
    assert (fixed.layer, fixed.pool, fixed.dim) == ("last", "mean", 8) and fixed.mean < 0.7
    summed = probe_features(vectors, data, "x", "weighted", pool="class")
    assert (summed.layer, summed.pool) == ("weighted", "class") and summed.mean > 0.9
    assert all(one["weights"]["1"] > one["weights"]["last"] for one in summed.chosen.values())
    assert json.loads(json.dumps(summed.to_dict()))["chosen"]["fold 1"]["weights"].keys() == {"0", "1", "last"}


def test_several_labels_are_scored_by_average_precision():
    data = table(90)
    both = np.arange(90) % 5 == 0
    data.loc[both, "label"] = data["label"][both].map(lambda label: f"{label};{CLASSES[CLASSES.index(label) - 1]}")
    data.loc[88, "label"] = ""
    has = np.array([[name in label.split(";") for name in CLASSES] for label in data["label"]], float)
    points = has @ np.random.default_rng(0).standard_normal((3, 8))
    points += 0.7 * np.random.default_rng(1).standard_normal(points.shape)
    found = probe_features(points, data, "x", multi=True, classes=[*CLASSES, "moo"])
    assert found.metric == "mAP" and found.to_dict()["metric"] == "mAP" and found.outputs.shape == (90, 4)
    for fold, score in found.scores.items():
        rows = (found.predictions["split"] == fold).to_numpy()
        assert score == metrics.scores(found.targets[rows], found.outputs[rows], True)["mAP"]
    assert found.mean > 0.8 > 0.5 > found.chance == pytest.approx(has.mean())
    assert found.interval[0] < found.mean < found.interval[1]
    assert found.per_class["clips"].tolist() == [*has.sum(0).astype(int), 0]
    neighbours = probe_features(points, data, "x", "knn", multi=True)
    assert neighbours.mean > 0.7 and set(neighbours.outputs.sum(1) > 1.01) == {True, False}


def test_result_by_hand():
    predictions = pd.DataFrame(
        [
            ("fold 1", "a.wav", 0, "cat", "cat"),
            ("fold 1", "b.wav", 1, "cat", "dog"),
            ("fold 2", "c.wav", 2, "dog", "dog"),
            ("fold 2", "d.wav", 3, "owl", "dog"),
        ],
        columns=["split", "path", "path_row", "label", "predicted"],
    )
    outputs = np.eye(3, dtype=np.float32)[[0, 1, 1, 1]]
    scores = {"fold 1": 0.5, "fold 2": 0.7}
    chosen = {"fold 1": {"layer": 2, "pool": "mean", "k": 5}, "fold 2": {"layer": "last", "pool": "mean", "k": 1}}
    classes, finding = ["cat", "dog", "owl"], guard.Finding("same audio", "leak", "a and b")
    result = ProbeResult("enc", "knn", scores, chosen, 0.5, predictions, outputs, classes, False, 16, [], [finding])
    assert result.mean == pytest.approx(0.6)
    assert result.spread == pytest.approx(0.1 * 2**0.5)
    assert result.table.to_dict("records") == [
        {
            "encoder": "enc",
            "protocol": "knn",
            "layer": "2 ×1, last ×1",
            "pool": "mean",
            "mean": pytest.approx(0.6),
            "spread": pytest.approx(0.1 * 2**0.5),
            "low": 0.0,
            "high": 1.0,
            "folds": 2,
            "clips": 4,
            "chance": 0.5,
            "unit": "clip",
            "note": "",
        }
    ]
    by_class = result.per_class.set_index("label")
    assert by_class["recall"].to_dict() == {"cat": 0.5, "dog": 1.0, "owl": 0.0}
    assert by_class["precision"].to_dict() == {"cat": 1.0, "dog": pytest.approx(1 / 3), "owl": 0.0}
    assert by_class["confused_with"].to_dict() == {"cat": "dog", "dog": "", "owl": "dog"}
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["scores"] == scores and plain["chosen"] == chosen and plain["metric"] == "accuracy"
    assert plain["findings"] == [{"kind": "same audio", "severity": "leak", "message": "a and b"}]


def test_a_single_split_has_no_spread():
    data = table(90)
    data["split"] = pd.array(["train", "valid", "test"], dtype="string")[data["fold"] - 1]
    data["fold"] = pd.array([None] * len(data), dtype="Int64")
    result = probe_features(features(data, 2.0), data, "x")
    assert list(result.scores) == ["test"] and len(result.outputs) == 30
    assert np.isnan(result.spread) and result.to_dict()["spread"] is None


def test_clips_tested_by_several_seeds_count_once_in_the_interval():
    data = table(60)
    data["fold"] = pd.array([None] * 60, dtype="Int64")
    points = features(data, 2.0)
    one, two = (probe_features(points, data, "x", "knn", seeds=seeds) for seeds in ((0,), (0, 1, 2, 3)))
    assert len(two.outputs) == 240 and two.table["clips"].iloc[0] == 60 and len(two.scores) == 20
    widths = [high - low for low, high in (one.interval, two.interval)]
    assert widths[1] > 0.7 * widths[0]  # as independent clips they would halve it


def test_chance_is_the_best_constant_answer():
    data = table()
    data["label"] = np.where(data["label"] == "quack", "bark", data["label"])
    result = probe_features(np.random.default_rng(0).standard_normal((60, 4)), data, "x")
    assert result.chance == pytest.approx((data["label"] == "bark").mean())
    assert 0.6 < result.chance < 0.7


def test_bad_input_is_named():
    data = table()
    points = features(data, 0.5)
    with pytest.raises(InputError, match="protocol 'svm': expected one of linear, knn, weighted"):
        probe_features(points, data, "x", "svm")
    with pytest.raises(InputError, match=r"shape \(59, 8\) for 60 clips"):
        probe_features(points[1:], data, "x")
    points[7, 2] = np.nan
    with pytest.raises(InputError, match="7.wav is not finite"):
        probe_features(points, data, "x")
    data.loc[0, "group"] = "recording 4"
    with pytest.raises(InputError, match="'recording 4' is on both sides"):
        probe_features(features(data, 0.5), data, "x")


# --- From audio -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tones(tmp_path):
    """Two classes told apart by pitch, 12 clips, a CSV with three folds."""
    rate, lines = 16000, ["path,label,fold"]
    generator = np.random.default_rng(0)
    for i in range(12):
        label, hz = ("low", 300) if i % 2 else ("high", 2000)
        wave = 0.3 * np.sin(2 * np.pi * hz * np.arange(rate) / rate) + 0.01 * generator.standard_normal(rate)
        soundfile.write(tmp_path / f"{i}.wav", wave, rate)
        lines.append(f"{i}.wav,{label},{1 + i // 2 % 3}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    return f"folder:{tmp_path / 'list.csv'}"


def test_compare_makes_the_table_of_the_notebook(tones):
    enc = Encoder.random(load_config("smoke"), seed=5)
    found = compare(enc, tones)
    assert found["encoder"].tolist() == ["teacher", "random init", "mean+std log-mel"]
    columns = ["encoder", "protocol", "layer", "pool", "mean", "spread", "low", "high", "folds", "clips", "chance"]
    columns += ["unit", "note"]
    assert found.columns.tolist() == columns and found["pool"].iloc[2] == found["layer"].iloc[2] == ""
    assert found["clips"].tolist() == [12, 12, 12] and found["folds"].tolist() == [3, 3, 3]
    assert found["mean"].iloc[2] == 1.0 and found["chance"].iloc[0] == 0.5
    assert (found["low"] <= found["mean"]).all() and (found["mean"] <= found["high"]).all()
    results = found.attrs["results"]
    assert [one["mean"] for one in results] == found["mean"].tolist()
    assert [one["dim"] for one in results] == [96, 96, 128]
    named = compare({"only": enc}, tones, protocol="knn", pool="class", layer="last")
    assert named["encoder"].tolist() == ["only", "mean+std log-mel"]
    assert (named["layer"].iloc[0], named["pool"].iloc[0]) == ("last", "class")
    summed = compare({"only": enc}, tones, protocol="weighted")
    assert summed["encoder"].tolist() == ["only"] and summed["layer"].tolist() == ["weighted"]


def test_probe_takes_an_encoder_an_embedder_or_a_path(tones, tmp_path):
    enc = Encoder.random(load_config("smoke"))
    result = asit_lab.probe(enc, load_manifest(tones), pool="class")
    assert (result.name, result.pool, result.dim) == (enc.name, "class", 48)
    plain = probe(log_mel_embedder(20), tones, protocol="knn")
    assert (plain.name, plain.pool, plain.mean) == ("mean+std log-mel", "", 1.0)
    with pytest.raises(InputError, match="no_run"):
        probe(tmp_path / "no_run", tones)
    with pytest.raises(InputError, match="compare: no encoders"):
        compare({}, tones)


def test_findings_are_attached_and_told_once(tones, tmp_path, caplog):
    (tmp_path / "2.wav").write_bytes((tmp_path / "0.wav").read_bytes())  # folds 1 and 2
    enc = Encoder.random(load_config("smoke"))
    with caplog.at_level(logging.WARNING):
        results = compare_results({"a": enc, "b": enc}, tones, pool="mean", layer="last")
    for one in results:
        (finding,) = one.findings
        assert finding.severity == "leak" and "0.wav" in finding.message and "2.wav" in finding.message
    assert caplog.text.count("same audio in train and test") == 1


def test_clips_are_fingerprinted_once_for_all_encoders(tones, monkeypatch):
    calls, compute = [], guard.fingerprints
    monkeypatch.setattr(guard, "fingerprints", lambda *args: calls.append(args) or compute(*args))
    untrained, trained = (Encoder.random(load_config("smoke")) for _ in range(2))
    trained.pretrained = True  # on synth, so the two are checked apart
    compare_results({"a": untrained, "b": trained}, tones, pool="mean", layer="last")
    assert len(calls) == 1


def test_pretraining_clips_are_told_of_trained_encoders_alone(tones):
    data = load_config("smoke", [f"data.source={tones}", "data.holdout=0"])
    enc = Encoder.random(data)
    assert not probe(enc, tones, "knn", "mean", "last").findings
    enc.pretrained = True
    (finding,) = probe(enc, tones, "knn", "mean", "last").findings
    assert (finding.kind, finding.severity) == ("pretraining clip", "note") and "12 of 12" in finding.message


def test_what_cannot_be_probed_is_said_before_anything_is_embedded(tones, tmp_path, monkeypatch):
    enc, manifest = Encoder.random(load_config("smoke")), load_manifest(tones)
    monkeypatch.setattr(type(enc), "pooled", lambda *_, **__: pytest.fail("embedded"))
    for change, words in (
        (
            lambda table: table.assign(label=table["label"].where(table["fold"] != 1, "only")),
            "training has no clip of class",
        ),
        (lambda table: table.assign(fold=table["fold"].replace(2, 4)), "fold 2 has no clip"),
        (lambda table: table.assign(group="one"), "'one' is on both sides"),
    ):
        wrong = load_manifest(tones)
        wrong.table = change(wrong.table)
        with pytest.raises(InputError, match=words):
            probe(enc, wrong)
    with pytest.raises(InputError, match="pool: 'max' is not one of auto"):
        probe(enc, manifest, pool="max")
    with pytest.raises(InputError, match="layer: 99 is neither auto"):
        probe(enc, manifest, layer=99)


def test_a_fold_that_cannot_be_read_is_an_error_not_a_smaller_protocol(tones):
    manifest = load_manifest(tones)
    for path in manifest.table["path"][manifest.table["fold"] == 2]:
        with open(path, "r+b") as file:
            file.truncate(60)
    with pytest.raises(InputError, match="fold 2: none of its clips can be read"):
        probe(log_mel_embedder(), manifest)


def test_one_unreadable_clip_is_reported(tones):
    manifest = load_manifest(tones)
    path = manifest.table["path"].iloc[0]
    with open(path, "r+b") as file:
        file.truncate(60)
    result = probe(log_mel_embedder(), manifest)
    assert [one for one, _ in result.skipped] == [path]
    assert result.table["clips"].iloc[0] == 11
