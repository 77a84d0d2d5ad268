"""A trained classifier by itself: one file that gives the scores of the test, from Python and from the shell."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import asit_lab
from asit_lab import Encoder, InputError, load_config
from asit_lab.cli import main
from asit_lab.data import load_manifest
from asit_lab.evaluation.calibration import best_thresholds, calibration_error, fit_temperature
from asit_lab.evaluation.classifiers import probabilities
from asit_lab.evaluation.probing import probe
from asit_lab.finetuning import finetune, load_classifier, load_result, predict, predict_files
from asit_lab.finetuning.outputs import Outputs, read_outputs
from asit_lab.finetuning.timeline import sliding

RATE = 16000
FP32 = ["precision=fp32"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A project's root of its own."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("home")
        patch.setenv("ASIT_LAB_HOME", str(root))
        yield root


@pytest.fixture(scope="module")
def manifest():
    return load_manifest("synth:40")  # four folds of ten classes


@pytest.fixture(scope="module")
def tuned(home, manifest):
    """Fine-tuned on two of the folds, moved: nothing else is there."""
    encoder = Encoder.random(load_config("smoke"), 0)
    done = finetune(encoder, manifest, "smoke", home / "first", [*FP32, "statistics=measured"], folds=[1, 2])
    shutil.move(done.dir, home / "tuned")
    return load_result(home / "tuned")


@pytest.fixture(scope="module")
def probed(home, manifest):
    encoder = Encoder.random(load_config("smoke"), 3)
    return probe(encoder, manifest, out=home / "probed"), load_classifier(home / "probed"), encoder


def waves(manifest, rows) -> list[np.ndarray]:
    return [manifest.read(int(row), RATE) for row in rows]


def command(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["asit-lab", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    return (end.value.code or 0, *capsys.readouterr())


# --- Fine-tuned -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", ["fold 1", "fold 2"])
def test_a_fine_tuned_folder_gives_the_outputs_of_the_test(tuned, manifest, fold):
    classifier = asit_lab.load_classifier(tuned.dir, split=fold)
    assert classifier.classes == manifest.classes and not classifier.multi and classifier.sample_rate == RATE
    (split,) = [entry for entry in tuned.split_results if entry["name"] == fold]
    tested = tuned.outputs(split)
    np.testing.assert_allclose(classifier.logits(waves(manifest, tested.rows), RATE), tested.outputs, atol=2e-4)
    scores = classifier.scores(waves(manifest, tested.rows), RATE)
    expected = probabilities(tested.outputs / split["calibration"]["temperature"], False)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert split["calibration"]["temperature"] == fit_temperature(tested.targets, tested.outputs, False)


def test_the_table_of_a_prediction(tuned, manifest):
    classifier = load_classifier(tuned.dir)
    wave = manifest.read(0, RATE)
    table = classifier.predict(wave, RATE)
    assert list(table.columns) == ["class", "probability", "predicted"] and set(table["class"]) == set(manifest.classes)
    assert table["probability"].is_monotonic_decreasing and table["probability"].sum() == pytest.approx(1)
    assert table["predicted"].tolist() == [True] + 9 * [False]
    several = classifier.predict([wave, wave[:8000]], RATE, top=2)
    assert several["clip"].tolist() == [0, 0, 1, 1]
    pd.testing.assert_frame_equal(several[:2].drop(columns="clip"), table[:2])
    # Another rate, a batch, a tensor.
    doubled = np.repeat(wave, 2)
    assert classifier.scores(doubled, 2 * RATE)[0].argmax() == classifier.scores(wave, RATE)[0].argmax()
    np.testing.assert_allclose(classifier.scores(torch.from_numpy(wave)[None], RATE), classifier.scores(wave, RATE))
    assert classifier.embed([wave, wave], RATE).shape == (2, 2 * 3 * 48)  # of three layers
    with pytest.raises(InputError, match="clip 0: shorter than one frame"):
        classifier.predict(wave[:100], RATE)
    with pytest.raises(InputError, match="top: 0"):
        classifier.predict(wave, RATE, top=0)


def test_a_model_is_one_file_that_can_be_moved(tuned, manifest, tmp_path):
    classifier = load_classifier(tuned.dir)
    copied = load_classifier(classifier.save(tmp_path / "published"))
    wave = manifest.read(3, RATE)
    np.testing.assert_array_equal(copied.scores(wave, RATE), classifier.scores(wave, RATE))
    assert copied.about == classifier.about and load_classifier(tmp_path / "published").name == classifier.name


def test_a_clip_of_two_channels_is_refused_in_a_list(tuned, manifest):
    classifier = load_classifier(tuned.dir, "fold 1")
    with pytest.raises(InputError, match=r"waves\[1\]: expected one clip, \[samples\], got \(2, "):
        classifier.scores([manifest.read(0, RATE), np.stack([manifest.read(0, RATE)] * 2)], RATE)


def test_what_is_no_classifier_is_said(tuned, home, tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        load_classifier(tmp_path / "nothing")
    with pytest.raises(InputError, match="has no model.safetensors"):
        load_classifier(tmp_path)
    (tmp_path / "config.yaml").write_text("name: mine\n")
    with pytest.raises(InputError, match="a pretraining run, which knows no classes; fine-tune it"):
        load_classifier(tmp_path)
    with pytest.raises(InputError, match="split: 'fold 9' is none of those in .*: fold 1, fold 2"):
        load_classifier(tuned.dir, split="fold 9")
    with pytest.raises(InputError, match="holds no classifier; encoders are loaded by load_encoder"):
        load_classifier(next(tuned.dir.rglob("last.safetensors")))
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="not a readable .safetensors file"):
        load_classifier(tmp_path)


def test_calibration_of_folds_is_by_clips_of_other_folds(tuned):
    table = tuned.calibration
    assert list(table["split"]) == ["fold 1", "fold 2"] and set(table["on"]) == {"test"}
    first, second = (tuned.outputs(entry) for entry in tuned.split_results)
    assert table["ece"][0] == calibration_error(first.targets, probabilities(first.outputs, False), False)
    apart = probabilities(first.outputs / fit_temperature(second.targets, second.outputs, False), False)
    assert table["ece_calibrated"][0] == calibration_error(first.targets, apart, False)
    for name in ("predictions", "per_class", "calibration", "reliability"):
        written = pd.read_csv(tuned.dir / f"{name}.csv")
        assert len(written) == len(getattr(tuned, name)) and list(written.columns) == list(getattr(tuned, name).columns)
    assert pd.read_csv(tuned.dir / "confusion.csv", index_col=0).to_numpy().sum() == 20
    stored = json.loads((tuned.dir / "result.json").read_text())
    assert [row["split"] for row in stored["calibration"]] == ["fold 1", "fold 2"]


def test_the_best_epochs_weights_are_kept_and_calibrated_on_valid(home, manifest, tmp_path):
    parts = ["train" if i < 20 else "valid" if i < 30 else "test" for i in range(40)]
    manifest.table, before = manifest.table.assign(fold=pd.NA, split=parts), manifest.table
    try:
        options = [*FP32, "average_from=null", "epochs=4", "rate=3e-3"]
        done = finetune(Encoder.random(load_config("smoke"), 0), manifest, "smoke", tmp_path / "ft", options)
    finally:
        manifest.table = before
    (split,) = done.split_results
    assert done.folds["headline"][0] == "best" and split["calibration"]["on"] == "valid"
    tested, classifier = done.outputs(split), load_classifier(done.dir)
    np.testing.assert_allclose(classifier.logits(waves(manifest, tested.rows), RATE), tested.outputs, atol=2e-4)
    held = classifier.logits(waves(manifest, range(20, 30)), RATE).numpy()
    assert classifier.temperature == pytest.approx(
        fit_temperature(manifest.targets(range(20, 30)), held, False), rel=1e-3
    )


def test_several_classes_a_clip_have_thresholds(home, manifest, tmp_path):
    several = load_manifest("synth:40")
    several.table["label"] = several.table["label"] + np.where(np.arange(40) % 4 == 0, ";vowel", "")
    several.table.loc[several.table["label"] == "vowel;vowel", "label"] = "vowel"
    several.multi, several.table["fold"] = True, np.arange(40) % 2 + 1
    options = [*FP32, "task=multi", "loss=bce", "smoothing=0"]
    done = finetune(Encoder.random(load_config("smoke"), 0), several, "smoke", tmp_path / "ft", options, folds=[1])
    classifier = load_classifier(done.dir)
    tested = read_outputs(done.dir / "seed-0-fold-1" / "test-averaged.npz")
    assert isinstance(tested, Outputs) and classifier.multi
    given = probabilities(tested.outputs / classifier.temperature, True)
    assert classifier.thresholds == pytest.approx(best_thresholds(tested.targets, given))
    wave = several.read(0, RATE)
    table = classifier.predict(wave, RATE).set_index("class").loc[classifier.classes]
    assert table["predicted"].tolist() == (classifier.scores(wave, RATE)[0] >= classifier.thresholds).tolist()


# --- Probes ---------------------------------------------------------------------------------------------------------


def test_a_probe_leaves_a_classifier_of_all_clips(probed, manifest, home):
    result, classifier, encoder = probed
    assert classifier.classes == manifest.classes and classifier.about["probe"]["pool"] in ("mean+std", "mean", "class")
    scores = classifier.scores(waves(manifest, range(40)), RATE)
    answered = [classifier.classes[k] for k in scores.argmax(1)]
    assert (np.array(answered) == manifest.table["label"]).mean() > result.mean  # these it was fitted on
    pooled = encoder.pooled(waves(manifest, [5]), RATE, classifier.about["probe"]["layers"])
    assert classifier.embed(manifest.read(5, RATE), RATE).shape[1] in (pooled.shape[-1], 2 * pooled.shape[-1])
    stored = json.loads((home / "probed" / "result.json").read_text())
    assert stored["mean"] == pytest.approx(result.mean) and stored["temperature"] == classifier.temperature
    assert len(pd.read_csv(home / "probed" / "predictions.csv")) == 40


@pytest.mark.parametrize("protocol", ["linear", pytest.param("weighted", marks=pytest.mark.slow)])
def test_a_probes_classifier_is_the_regression_on_its_features(home, manifest, tmp_path, protocol):
    encoder = Encoder.random(load_config("smoke"), 3)
    probe(encoder, manifest, protocol, pool="mean", out=tmp_path, layer="last" if protocol == "linear" else "auto")
    classifier = load_classifier(tmp_path)
    features = classifier.embed(waves(manifest, range(40)), RATE).double()
    logits = features @ classifier.network.head.weights + classifier.network.head.intercepts
    np.testing.assert_allclose(classifier.logits(waves(manifest, range(40)), RATE), logits, atol=1e-4)
    if protocol == "linear":
        assert features.mean(0).abs().max() < 1e-3  # standardised by the clips it was fitted on
        np.testing.assert_allclose(features.std(0, correction=0), 1, atol=1e-3)
    else:
        assert classifier.network.head.layer_weights.sum().item() == pytest.approx(1)


def test_what_leaves_no_classifier_is_refused_before_anything_is_computed(home, manifest, tuned, monkeypatch):
    encoder = Encoder.random(load_config("smoke"), 0)
    monkeypatch.setattr(Encoder, "pooled", lambda *_, **__: pytest.fail("embedded"))
    with pytest.raises(InputError, match="nearest neighbours give no classifier"):
        probe(encoder, manifest, "knn", out=home / "x")
    with pytest.raises(InputError, match="holds a run, a fine-tuning or an evaluation"):
        probe(encoder, manifest, out=tuned.dir)
    assert not (home / "x").exists()


# --- Files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(manifest, tmp_path):
    """A recording of three seconds, one of half a second, and one that cannot be read."""
    folder = tmp_path / "audio"
    folder.mkdir()
    soundfile.write(folder / "long.wav", np.concatenate(waves(manifest, [0, 1, 2]))[: 3 * RATE], RATE)
    soundfile.write(folder / "short.wav", manifest.read(4, RATE)[: RATE // 2], RATE)
    (folder / "broken.wav").write_bytes(b"no audio")
    return folder


def test_files_and_windows_are_predicted(tuned, files):
    classifier = load_classifier(tuned.dir)
    table, skipped = predict_files(classifier, files)
    assert list(table.columns) == ["path", "rank", "class", "probability", "predicted"] and len(table) == 6
    assert [path.endswith("broken.wav") for path, _ in skipped] == [True]
    wave, rate = soundfile.read(files / "long.wav", dtype="float32")
    alone = classifier.predict(wave, rate, 3)
    np.testing.assert_allclose(table["probability"][:3], alone["probability"], rtol=1e-4)
    inside, _ = predict_files(classifier, files / "long.wav", top=1, window_seconds=1.0, hop_seconds=0.75)
    assert inside["start"].tolist() == [0, 0.75, 1.5, 2.0] and inside["end"].tolist() == [1, 1.75, 2.5, 3.0]
    third = classifier.predict(wave[int(1.5 * rate) : int(2.5 * rate)], rate, 1)
    assert inside["class"][2] == third["class"][0]
    for options, words in (
        ({"hop_seconds": 1.0}, "needs windows"),
        ({"window_seconds": 0.0}, "windows: 0.0 s is less"),
    ):
        with pytest.raises(InputError, match=words):
            predict_files(classifier, files, **options)
    with pytest.raises(InputError, match="nothing to predict: none of 1 can be read"):
        predict_files(classifier, files / "broken.wav")


def test_a_long_file_is_predicted_in_blocks(tuned, probed, files, monkeypatch):
    soundfile.write(files / "other.wav", soundfile.read(files / "long.wav")[0], 11025)
    starting = load_classifier(tuned.dir)
    starting.recipe = starting.recipe.model_copy(update={"crop": "start"})
    for classifier in (load_classifier(tuned.dir), starting, probed[1]):
        expected, skipped = predict_files(classifier, files, top=None)
        with monkeypatch.context() as patch:
            patch.setattr(predict, "LONG_SECONDS", 0.1)
            patch.setattr(classifier, "scores", None)  # none of them is read whole
            table, also_skipped = predict_files(classifier, files, top=None)
        assert also_skipped == skipped and len(table) == 3 * len(classifier.classes)
        by_class = [part.sort_values(["path", "class"])["probability"] for part in (table, expected)]
        np.testing.assert_allclose(*by_class, atol=2e-4)
    for classifier in (load_classifier(tuned.dir), probed[1]):
        with pytest.raises(InputError, match="blocks: 10 samples are shorter than"):
            classifier.scores_of_blocks([np.zeros(10, np.float32)], 10)


def test_windows_cover_a_file():
    for length, size, hop, starts in ((10, 10, 5, [0]), (10, 4, 3, [0, 3, 6]), (11, 4, 4, [0, 4, 7]), (4, 4, 9, [0])):
        assert [start for start, _ in sliding([np.zeros(length)], size, hop)] == starts


def test_predictions_from_the_shell_are_those_of_python(tuned, probed, files, tmp_path, monkeypatch, capsys):
    for model in (tuned.dir, tuned.dir.parent / "probed"):
        expected, _ = predict_files(load_classifier(model), str(files), top=2)
        for out in (tmp_path / "p.csv", tmp_path / "p.parquet"):
            status, shown, _ = command(monkeypatch, capsys, "predict", model, files, "--out", out, "--top", 2)
            assert status == 0 and f"2 files: {out}" in shown and "broken.wav" in shown
            written = pd.read_csv(out) if out.suffix == ".csv" else pd.read_parquet(out)
            pd.testing.assert_frame_equal(written, expected, check_dtype=False)
    status, shown, _ = command(monkeypatch, capsys, "predict", tuned.dir, files / "long.wav", "--windows", 1, "--json")
    content = json.loads(shown)
    assert status == 0 and [row["start"] for row in content["predictions"][::3]] == [0.0, 1.0, 2.0]
    status, shown, _ = command(monkeypatch, capsys, "predict", tuned.dir, files / "long.wav")
    assert status == 0 and "probability" in shown and "long.wav" in shown
    status, _, error = command(monkeypatch, capsys, "predict", files, files / "long.wav")
    assert status == 2 and "has no model.safetensors" in error
    status, shown, _ = command(
        monkeypatch, capsys, "probe", "smoke", "-d", "synth:20", "--layer", "last", "--out", tmp_path / "shell"
    )
    assert status == 0 and f"classifier: {tmp_path / 'shell'}" in shown
    assert load_classifier(tmp_path / "shell").classes
