"""What a point measures after its pretraining: a probe, and fine-tuning where a recipe is given."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile

from asit_lab import InputError, load_run
from asit_lab.batch import experiment
from asit_lab.batch import experiments as pretrain_and_measure
from asit_lab.finetuning import load_result

pytestmark = pytest.mark.slow
DATA = "synth:40"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A finished point with a recipe."""
    return experiment("smoke", DATA, "", 3, tmp_path_factory.mktemp("tuned") / "run", recipe="smoke")


def test_fine_tuning_stands_beside_the_probe(tuned):
    found, scores = tuned.result["finetune"], load_result(tuned.dir / "finetuned")
    assert found["mean"] == scores.mean and found["folds"] == len(scores.scores) and found["clips"] == 40
    assert (found["protocol"], found["metric"]) == ("finetune smoke", "accuracy")
    assert {split["seed"] for split in scores.split_results} == {3}
    assert [row["encoder"] for row in tuned.result["probe"]][:2] == ["teacher", "random init"]
    answers = pd.read_csv(tuned.dir / "finetuned.csv", dtype=str)
    right = (answers["label"] == answers["predicted"]).groupby(answers["split"]).mean()
    assert right.to_dict() == pytest.approx(scores.scores)
    assert list(answers) == list(pd.read_csv(tuned.dir / "predictions.csv")) and answers["group"].notna().all()


def test_measured_statistics_of_the_log_mel(tmp_path):
    run = experiment("smoke", DATA, ["features.mean=auto", "features.std=auto"], 0, tmp_path / "run")
    assert "probe" in run.result and isinstance(run.config.features.mean, float)


def test_a_finished_point_is_not_measured_again(tuned, monkeypatch):
    before = {path: path.read_bytes() for path in tuned.dir.rglob("*") if path.is_file() and path.name != ".lock"}
    monkeypatch.setattr(pretrain_and_measure, "_measure", None)
    experiment("smoke", DATA, "", 3, tuned.dir, recipe="smoke")
    assert {path: path.read_bytes() for path in before} == before


def test_a_recipe_can_be_given_later(tuned, tmp_path):
    """To a point that was probed before; it comes to the same."""
    run = experiment("smoke", DATA, "", 3, tmp_path / "run")
    assert "finetune" not in run.result and not (run.dir / "finetuned").exists()
    again = experiment("smoke", DATA, "", 3, tmp_path / "run", recipe="smoke")
    assert json.dumps(again.result) == json.dumps(tuned.result)


def test_fine_tuning_that_was_interrupted_is_not_finished(tuned, monkeypatch):
    stopped = load_result(tuned.dir / "finetuned")
    stopped.status = "interrupted"
    monkeypatch.setattr(pretrain_and_measure, "finetune", lambda *rest, **options: stopped)
    before = load_run(tuned.dir).result
    with pytest.raises(KeyboardInterrupt):
        experiment("smoke", DATA, "", 3, tuned.dir, recipe="smoke")
    assert load_run(tuned.dir).result == before


@pytest.mark.parametrize(
    ("recipe", "words"),
    [("smokey", "did you mean smoke"), ("ast-audioset-20k", "its clips have one label each")],
)
def test_a_recipe_that_does_not_fit_is_refused_before_the_training(tmp_path, recipe, words):
    with pytest.raises(InputError, match=words):
        experiment("smoke", DATA, "", 0, tmp_path / "run", recipe=recipe)
    assert not (tmp_path / "run").exists()


def test_labels_that_cannot_be_measured_on_are_refused_before_the_training(tmp_path):
    for number in range(9):
        path = tmp_path / "sounds" / ("rare" if number == 8 else f"class {number % 2}") / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, 16000), 16000)
    data = f"folder:{tmp_path / 'sounds'}"
    for evaluate, words in (("", "'rare' comes from one source recording only"), ("folder:/nowhere", "does not exist")):
        with pytest.raises(InputError, match=words):
            experiment("smoke", data, "", 0, tmp_path / "run", evaluate)
    assert not (tmp_path / "run").exists()


def test_clips_with_several_labels_have_no_right_or_wrong(tmp_path):
    """Their score is mAP; whether all labels of a clip were found says something else."""
    rng = np.random.default_rng(0)
    rows = ["path,labels,split"]
    for number in range(24):
        soundfile.write(tmp_path / f"{number}.wav", rng.normal(0, 0.1, 16000), 16000)
        labels = ["dog", "rain", "dog;rain", "cat"][number % 4]
        rows.append(f"{number}.wav,{labels},{'train' if number < 16 else 'test'}")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    recipe = tmp_path / "several.yaml"
    recipe.write_text("base: smoke\ntask: multi\nloss: bce\nsmoothing: 0\n")
    run = experiment("smoke", DATA, "", 0, tmp_path / "run", f"folder:{tmp_path / 'list.csv'}", str(recipe))
    assert run.result["finetune"]["metric"] == "mAP" and 0 < run.result["finetune"]["mean"] <= 1
    assert 0 < run.result["probe"][0]["mean"] <= 1
    assert {path.name for path in run.dir.glob("*.csv")} == {"metrics.csv", "timings.csv"}
