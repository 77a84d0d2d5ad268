"""Probes: classifiers checked against scikit-learn and by hand, test clips that choose nothing, readable results."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import asit_lab
from asit_lab import load_config
from asit_lab.data import load_manifest
from asit_lab.encoder import Encoder
from asit_lab.errors import InputError
from asit_lab.evaluation.embeddings import log_mel_embedder
from asit_lab.evaluation.probe import GRIDS, ProbeResult, _answers, compare, probe, probe_features

CLASSES = ("bark", "purr", "quack")


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


@pytest.mark.parametrize("protocol", GRIDS)
def test_separable_classes_are_read_off_and_noise_is_not(protocol):
    data = table(120)
    clear = probe_features(features(data, 0.1), data, "clear", protocol)
    assert clear.mean == 1.0 and clear.spread == 0.0
    assert list(clear.scores) == list(clear.chosen) == ["fold 1", "fold 2", "fold 3"]
    assert all(chosen in GRIDS[protocol] for chosen in clear.chosen.values())
    nothing = probe_features(np.random.default_rng(1).standard_normal((120, 8)), data, "noise", protocol)
    assert abs(nothing.mean - 1 / 3) < 0.15


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


def test_valid_split_chooses_and_does_not_train():
    data = table(90)
    data["split"] = pd.array(["train", "valid", "test"], dtype="string")[data["fold"] - 1]
    data["fold"] = pd.array([None] * len(data), dtype="Int64")
    points = features(data, 2.0)
    result = probe_features(points, data, "x")
    parts = {name: (data["split"] == name).to_numpy(bool) for name in ("train", "valid", "test")}
    labels = data["label"].to_numpy()
    scaler = StandardScaler().fit(points[parts["train"]])
    rates, answers = {}, {}
    for strength in GRIDS["linear"]:
        model = LogisticRegression(C=strength, max_iter=5000, tol=1e-6)
        model.fit(scaler.transform(points[parts["train"]]), labels[parts["train"]])
        rates[strength] = model.score(scaler.transform(points[parts["valid"]]), labels[parts["valid"]])
        answers[strength] = model.score(scaler.transform(points[parts["test"]]), labels[parts["test"]])
    best = max(rates, key=rates.get)
    assert len(set(rates.values())) > 1  # there is something to choose
    assert result.chosen == {"test": best}
    assert result.scores["test"] == pytest.approx(answers[best])
    assert np.isnan(result.spread) and result.to_dict()["spread"] is None


def test_more_dimensions_than_clips_is_the_same_regression():
    data = table()
    points = features(data, 3.0, dim=150)
    labels = data["label"].to_numpy(dtype=object)
    train, test = np.arange(40), np.arange(40, 60)
    scaler = StandardScaler().fit(points[train])
    direct = LogisticRegression(C=0.1, max_iter=5000, tol=1e-8).fit(scaler.transform(points[train]), labels[train])
    expected = direct.predict(scaler.transform(points[test]))
    assert (expected != labels[test]).any()  # hard enough to tell two classifiers apart
    found = _answers(points[train], labels[train], points[test], "linear", (0.1,), 1e-8)[0]
    assert found.tolist() == expected.tolist()


def test_nearest_neighbours_by_hand():
    # Standardising changes nothing here: both columns have mean 0 and deviation 1.
    train = np.sqrt(2) * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    labels = np.array(["east", "north", "west", "north"], dtype=object)
    test = np.array([[5.0, 4.0], [0.1, -0.2], [-3.0, -2.0]])
    one, two, all_ = _answers(train, labels, test, "knn", (1, 2, 4))
    assert one.tolist() == ["east", "north", "west"]
    assert two.tolist() == ["east", "north", "west"]  # one vote each: the more similar one decides
    assert all_.tolist() == ["north"] * 3


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
    scores = {"fold 1": 0.5, "fold 2": 0.7}
    result = ProbeResult("enc", "knn", "mean", scores, {"fold 1": 5.0, "fold 2": 1.0}, 0.25, predictions, 16, [])
    assert result.mean == pytest.approx(0.6)
    assert result.spread == pytest.approx(0.1 * 2**0.5)
    assert result.table.to_dict("records") == [
        {
            "encoder": "enc",
            "protocol": "knn",
            "pool": "mean",
            "mean": pytest.approx(0.6),
            "spread": pytest.approx(0.1 * 2**0.5),
            "folds": 2,
            "clips": 4,
            "chance": 0.25,
        }
    ]
    by_class = result.per_class.set_index("label")
    assert by_class["recall"].to_dict() == {"cat": 0.5, "dog": 1.0, "owl": 0.0}
    assert by_class["precision"].to_dict() == {"cat": 1.0, "dog": pytest.approx(1 / 3), "owl": 0.0}
    assert by_class["confused_with"].to_dict() == {"cat": "dog", "dog": "", "owl": "dog"}
    assert json.loads(json.dumps(result.to_dict()))["scores"] == scores


def test_chance_is_the_best_constant_answer():
    data = table()
    data["label"] = np.where(data["label"] == "quack", "bark", data["label"])
    result = probe_features(np.random.default_rng(0).standard_normal((60, 4)), data, "x")
    assert result.chance == pytest.approx((data["label"] == "bark").mean())
    assert 0.6 < result.chance < 0.7


def test_bad_input_is_named():
    data = table()
    points = features(data, 0.5)
    with pytest.raises(InputError, match="protocol 'svm': expected one of linear, knn"):
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
    assert found["pool"].tolist() == ["mean+std", "mean+std", ""]
    assert found["clips"].tolist() == [12, 12, 12] and found["folds"].tolist() == [3, 3, 3]
    assert found["mean"].iloc[2] == 1.0 and found["chance"].iloc[0] == 0.5
    results = found.attrs["results"]
    assert [one["mean"] for one in results] == found["mean"].tolist()
    assert [one["dim"] for one in results] == [96, 96, 128]
    named = compare({"only": enc}, tones, protocol="knn", pool="class")
    assert named["encoder"].tolist() == ["only", "mean+std log-mel"]


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
