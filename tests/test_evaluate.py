"""Several encoders in one table: rows, files, what goes on after a stop, and what start weights are worth."""

import importlib
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import typer
from safetensors.torch import save_file

from asit_lab import Encoder, load_config, pretrain, zoo
from asit_lab.cli.evaluation import _print as show_evaluation
from asit_lab.data import load_manifest
from asit_lab.errors import InputError
from asit_lab.evaluation import evaluate, initialisation_study
from asit_lab.evaluation import start_weights_study as initialisation
from asit_lab.evaluation.comparison import Evaluation

DATA = "synth:30"
COLUMNS = ["encoder", "protocol", "layer", "pool", "mean", "spread", "low", "high", "folds", "clips", "chance"]
COLUMNS += ["unit", "note"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project's root of its own: caches and results go there."""
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    return tmp_path


def trained(seed: int = 5) -> Encoder:
    """Weights that are not those `Encoder.random` gives for seed 0."""
    encoder = Encoder.random(load_config("smoke"), seed)
    encoder.name = "a run"
    return encoder


def test_every_encoder_stands_beside_its_untrained_architecture_and_the_log_mel(home):
    found = evaluate({"mine": trained()}, DATA, ("linear", "knn"), "out")
    assert list(found.table.columns) == COLUMNS
    names = ["mine", "mine, untrained", "mean+std log-mel"]
    assert list(found.table["encoder"]) == names * 2
    assert list(found.table["protocol"]) == ["linear"] * 3 + ["knn"] * 3
    assert (found.table["low"] <= found.table["high"]).all() and (found.table["clips"] == 30).all()
    written = json.loads((home / "out/result.json").read_text())
    assert [row["encoder"] for row in written["results"]] == names * 2 and written["status"] == "finished"
    table = pd.read_csv(home / "out/table.csv", keep_default_na=False)
    np.testing.assert_allclose(table["mean"], found.table["mean"])
    predictions = pd.read_csv(home / "out/predictions.csv")
    assert len(predictions) == 6 * 30
    linear = predictions[(predictions["encoder"] == "mine") & (predictions["protocol"] == "linear")]
    by_fold = (linear["label"] == linear["predicted"]).groupby(linear["split"]).mean()
    assert by_fold.mean() == pytest.approx(found.table["mean"][0])
    assert set(pd.read_csv(home / "out/per_class.csv")["label"]) == set(linear["label"])


def test_an_architecture_is_evaluated_untrained_once_and_not_twice(home):
    encoders = {"a": trained(5), "b": trained(6), "start": Encoder.random(load_config("smoke"), 0)}
    names = list(evaluate(encoders, DATA, ("knn",), "out").table["encoder"])
    assert names == ["a", "b", "start", "a, untrained", "mean+std log-mel"] or names[:3] == ["a", "b", "start"]
    assert sum(name.endswith("untrained") for name in names) == 1
    plain = evaluate(encoders, DATA, ("knn",), "plain", untrained=False).table["encoder"]
    assert list(plain) == ["a", "b", "start", "mean+std log-mel"]


@pytest.mark.slow
def test_fine_tuning_is_a_row_and_is_not_done_twice(home):
    def scores():
        return evaluate({"mine": trained()}, DATA, ("finetune",), "out", recipe="smoke")

    first = scores()
    assert list(first.table["protocol"]) == ["finetune smoke"] * 2
    assert list(first.table["encoder"]) == ["mine", "mine, untrained"]
    files = sorted((home / "out/finetune").rglob("*.npz"))
    times = [file.stat().st_mtime_ns for file in files]
    pd.testing.assert_frame_equal(scores().table, first.table)
    assert files and [file.stat().st_mtime_ns for file in files] == times


def test_mistakes_show_before_anything_is_computed(home):
    with pytest.raises(InputError, match="protocols: liner; expected some of linear, knn, weighted, finetune"):
        evaluate({"a": trained()}, DATA, ("liner",))
    with pytest.raises(InputError, match="protocols: kn; expected some of"):
        evaluate(trained(), DATA, "kn")
    with pytest.raises(InputError, match="encoders: there are none"):
        evaluate({}, DATA)
    with pytest.raises(InputError, match="recipe 'smok': no such recipe or file; did you mean smoke"):
        evaluate({"a": trained()}, DATA, ("linear", "finetune"), recipe="smok")
    with pytest.raises(InputError, match="encoders: A b, a-b: names must differ in letters and digits"):
        evaluate({"A b": trained(), "a-b": trained()}, DATA, ("finetune",), recipe="smoke", untrained=False)
    with pytest.raises(InputError, match="seeds: 3 is one number; expected several"):
        evaluate(trained(), DATA, "knn", seeds=3, untrained=False)
    with pytest.raises(InputError, match="nowhere: no such run, snapshot or preset"):
        evaluate({"a": "nowhere"}, DATA)
    for names in (("кит", "волк"), ("a b", "a-b")):  # of folders; a probe needs none
        with pytest.raises(InputError, match="nowhere"):
            evaluate(dict.fromkeys(names, trained()), "folder:nowhere", ("linear",))
    assert list(home.iterdir()) == []


def test_results_of_something_else_are_not_written_over(home):
    evaluate({"a": trained()}, DATA, ("knn",), "out", untrained=False)
    kept = (home / "out/result.json").read_bytes()
    for encoders, data in (({"b": trained()}, DATA), ({"a": trained()}, "synth:40")):
        with pytest.raises(InputError, match=rf"results of a \(knn\), mean.std log-mel \(knn\) on {DATA}; choose"):
            evaluate(encoders, data, ("knn",), "out", untrained=False)
    with pytest.raises(InputError, match="holds results of a"):
        evaluate({"a": trained()}, DATA, ("linear",), "out", untrained=False)
    assert (home / "out/result.json").read_bytes() == kept
    for _ in range(2):
        evaluate({"smoke, untrained": "smoke"}, DATA, ("knn",), "again")
    both = evaluate({"a": trained(), "b": trained()}, DATA, ("knn",), "out", untrained=False)
    assert set(both.table["encoder"]) == {"a", "b", "mean+std log-mel"}
    for text in ("{", "[1]", '{"data": 1}'):
        (home / "out/result.json").write_text(text)
        with pytest.raises(InputError, match="result.json: no result of an evaluation"):
            evaluate({"a": trained()}, DATA, ("knn",), "out", untrained=False)
    (home / "tuned").mkdir()
    (home / "tuned/setup.yaml").touch()
    with pytest.raises(InputError, match="tuned: holds a fine-tuning"):
        evaluate({"a": trained()}, DATA, ("knn",), "tuned")
    (home / "run").mkdir()
    (home / "run/config.yaml").touch()
    for call in (
        lambda: evaluate({"a": trained()}, DATA, ("knn",), "run"),
        lambda: initialisation_study(load_config("smoke"), DATA, "run", recipe="smoke"),
    ):
        with pytest.raises(InputError, match="run: holds a pretraining run; choose another folder"):
            call()
    assert [path.name for path in (home / "run").iterdir()] == ["config.yaml"]


# --- The files while they are written -------------------------------------------------------------------------------


def test_rows_of_an_earlier_call_stay_until_they_are_computed_again(home, monkeypatch):
    first = evaluate({"a": trained()}, DATA, ("linear", "knn"), "out", untrained=False)
    before = {name: pd.read_csv(home / f"out/{name}.csv", dtype=str) for name in ("table", "per_class", "predictions")}
    module = importlib.import_module("asit_lab.evaluation.comparison")
    inner, written = module.compare_results, []

    def stopping(encoders, manifest, protocol, **options):
        if (home / "out/result.json").is_file():
            written.append(json.loads((home / "out/result.json").read_text()))
        if protocol == "knn":
            raise KeyboardInterrupt
        return inner(encoders, manifest, protocol, **options)

    monkeypatch.setattr(module, "compare_results", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate({"a": trained()}, DATA, ("linear", "knn"), "out", untrained=False)
    assert [content["status"] for content in written] == ["finished", "running"]  # before linear, and after it
    rows = [(row["encoder"], row["protocol"]) for row in written[1]["results"]]
    assert sorted(rows) == sorted(first.results)
    for name, table in before.items():
        now = pd.read_csv(home / f"out/{name}.csv", dtype=str)
        pd.testing.assert_frame_equal(now, table)


def test_a_first_call_that_is_stopped_is_not_finished(home, monkeypatch):
    module = importlib.import_module("asit_lab.evaluation.comparison")
    inner = module.compare_results
    monkeypatch.setattr(
        module,
        "compare_results",
        lambda e, m, protocol, **o: inner(e, m, protocol, **o) if protocol == "knn" else 1 / 0,
    )
    with pytest.raises(ZeroDivisionError):
        evaluate({"a": trained()}, DATA, ("knn", "linear"), "out", untrained=False)
    assert json.loads((home / "out/result.json").read_text())["status"] == "running"


def test_a_call_that_is_stopped_before_its_first_result_has_empty_tables(tmp_path):
    stopped = Evaluation(tmp_path, {}, "interrupted")
    assert stopped.table.empty and stopped.per_class.empty and stopped.predictions.empty
    with pytest.raises(typer.Exit):
        show_evaluation(stopped, as_json=False)


def test_rows_by_other_code_are_named_and_computed_again(home, monkeypatch, caplog):
    evaluate({"a": trained()}, DATA, ("knn",), "out", untrained=False)
    evaluate({"a": trained()}, DATA, ("knn",), "out", untrained=False)
    assert not caplog.text
    module = importlib.import_module("asit_lab.evaluation.comparison")
    now = module.computed_with(module.PROBE, load_manifest(DATA)) | {"nn/vit.py": "other"}
    monkeypatch.setattr(module, "computed_with", lambda *_: now)
    evaluate({"a": trained()}, DATA, ("knn",), "out", untrained=False)
    assert "earlier rows are by other code or of other files (nn/vit.py changed)" in caplog.text
    assert json.loads((home / "out/result.json").read_text())["computed_with"] == now


# --- Start weights --------------------------------------------------------------------------------------------------


def timm_file(path, width: int = 48, depth: int = 2):
    """An ImageNet transformer's file in timm's layout, with random weights, 32 x 32 images."""
    cfg = load_config("smoke", [f"model.width={width}", f"model.depth={depth}", "data.crop_seconds=0.65"])
    state = Encoder.random(cfg, 9).backbone.state_dict()
    weight = state["patch_embed.proj.weight"]
    state["patch_embed.proj.weight"] = weight.repeat(1, 3, 1, 1) / 3
    state["pos_embed"] = state["pos_embed"][:, :5].clone()  # class token and 2 x 2 patches
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def test_an_imagenet_transformer_as_an_encoder(tmp_path):
    file = timm_file(tmp_path / "vit.safetensors")
    encoder = zoo.load("imagenet", file, config="smoke")
    assert encoder.name == "ImageNet (vit.safetensors)" and not encoder.reconstructs
    same = zoo.open_source(f"imagenet:{file}@smoke")
    wave = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert encoder.embed(wave, 16000).equal(same.embed(wave, 16000))
    assert not encoder.embed(wave, 16000).equal(Encoder.random(load_config("smoke")).embed(wave, 16000))
    with pytest.raises(InputError, match="weights of another architecture"):
        zoo.load("imagenet", file, config="micro")
    with pytest.raises(InputError, match=r"expected a \.safetensors file"):
        zoo.load("imagenet", tmp_path / "nothing.safetensors")


def test_sources_that_are_no_kind_are_opened_as_always(home):
    assert zoo.open_source("smoke").name == "smoke, untrained"
    with pytest.raises(InputError, match="no such run, snapshot or preset"):
        zoo.open_source("asit:")
    with pytest.raises(InputError):
        zoo.open_source("asit:nothing.pth")


@pytest.mark.slow
def test_what_start_weights_are_worth(home):
    file = timm_file(home / "vit.safetensors")
    cfg = load_config("smoke", [f"data.source={DATA}", "train.steps=3"])
    published = pretrain(cfg, home / "published").dir
    found = initialisation_study(cfg, DATA, "study", str(published), str(file), recipe="smoke")
    rows = ["scratch", "pretrained", "published", "ImageNet", "ImageNet, pretrained"]
    assert list(found.table["encoder"]) == rows and set(found.table["protocol"]) == {"finetune smoke"}
    assert {"pretrained", "imagenet-pretrained"} <= {path.name for path in (home / "study").iterdir()}
    with pytest.raises(InputError, match="holds results of .*ImageNet"):  # the table would lose their rows
        initialisation_study(cfg, DATA, "study", recipe="smoke")
    without = initialisation_study(cfg, DATA, "fewer", recipe="smoke")
    assert list(without.table["encoder"]) == rows[:2]
    pd.testing.assert_series_equal(without.table["mean"], found.table["mean"][:2])


def test_a_pretraining_that_is_interrupted_interrupts_the_study(home, monkeypatch):
    """Ctrl-C is no bad input: a command ends with the status of an interrupt."""
    stopped = SimpleNamespace(status="interrupted", dir=home)
    monkeypatch.setattr(initialisation, "pretrain", lambda config, folder: stopped)
    with pytest.raises(KeyboardInterrupt):
        initialisation_study(load_config("smoke"), DATA, "study", recipe="smoke")
