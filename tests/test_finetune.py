"""Fine-tuning from end to end on a few clips: what it leaves, what it goes on from, and what it refuses."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml
from children import assert_same
from safetensors.torch import load_file
from torch.nn import functional as F

from asit_lab import Encoder, InputError, load_config
from asit_lab.batch import experiments
from asit_lab.data import load_manifest
from asit_lab.data.statistics import measure
from asit_lab.evaluation import metrics, provenance
from asit_lab.evaluation.classifiers import answers
from asit_lab.finetuning import finetune, linear_start, load_classifier, load_recipe, load_result, loop
from asit_lab.finetuning import over_splits as run
from asit_lab.finetuning.batches import Reader, windows
from asit_lab.finetuning.network import build_classifier
from asit_lab.finetuning.over_splits import with_length

SHORT = ["steps=2", "average_from=null"]  # of the recipe smoke, for what needs no training


@pytest.fixture(scope="module")
def encoder():
    return Encoder.random(load_config("smoke"), seed=0)


@pytest.fixture(scope="module")
def manifest():
    return load_manifest("synth:20")  # two folds, one clip a class in each


@pytest.fixture(scope="module")
def done(encoder, manifest, tmp_path_factory):
    return finetune(encoder, manifest, "smoke", tmp_path_factory.mktemp("ft") / "run")


def test_auto_is_the_recipe_for_so_many_clips(encoder, manifest, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "_fit_all", lambda *_: "interrupted")  # its set-up alone
    finetune(encoder, manifest, "auto", tmp_path / "run", ["epochs=1"])
    recipe = yaml.safe_load((tmp_path / "run/setup.yaml").read_text())["recipe"]
    assert (recipe["name"], recipe["epochs"]) == ("micro", 1)
    assert "note: recipe micro, for 20 clips" in capsys.readouterr().err


def with_splits(manifest):
    """The same clips in official splits: every class in each."""
    table = manifest.table.assign(fold=pd.NA)
    table["split"] = ["train" if i < 20 else "valid" if i < 30 else "test" for i in range(len(table))]
    return replace(manifest, table=table)


# --- What it leaves -------------------------------------------------------------------------------------------------


def test_result(done):
    assert done.status == "finished" and list(done.scores) == ["fold 1", "fold 2"]
    folds = done.folds
    assert list(folds["headline"]) == ["averaged"] * 2 and list(folds["chosen_on"]) == ["test, optimistic"] * 2
    for row, point in zip(folds.to_dict("records"), done.split_results, strict=True):
        for which in ("best", "last", "averaged"):
            found = done.outputs(point, which)
            right = (found.outputs.argmax(1) == found.targets.argmax(1)).mean()
            assert row[f"{which}_accuracy"] == pytest.approx(right)
        assert row["best_accuracy"] >= row["last_accuracy"]
        assert done.scores[row["split"]] == row["averaged_accuracy"]
        rows = pd.read_csv(done.dir / f"seed-0-{row['split'].replace(' ', '-')}" / "metrics.csv")
        assert list(rows["epoch"]) == [1, 2] and rows["test_accuracy"].iloc[-1] == pytest.approx(row["last_accuracy"])
        assert row["best_accuracy"] == pytest.approx(rows["test_accuracy"].max())
    assert done.mean == pytest.approx(np.mean(list(done.scores.values())))
    columns = ["encoder", "protocol", "layer", "pool", "mean", "spread", "low", "high", "folds", "clips", "chance"]
    columns += ["unit", "note"]
    assert list(done.table.columns) == columns
    low, high = done.interval
    assert low <= done.mean <= high
    table = done.table.iloc[0]
    assert (table["protocol"], table["clips"], table["chance"]) == ("finetune smoke", 20, pytest.approx(0.1))


def test_a_result_in_a_cell_is_its_table(done, tmp_path):
    assert repr(done) == done.table.to_string(index=False) and "finetune smoke" in repr(done)
    assert repr(replace(done, split_results=[])) == f"{done.dir}: no split is finished"


def test_predictions_and_tables_agree(done, manifest):
    predictions = done.predictions
    assert sorted(predictions["path_row"]) == list(range(20))
    assert list(predictions["label"]) == list(manifest.table["label"][predictions["path_row"]])
    right = (predictions["label"] == predictions["predicted"]).mean()
    assert right == pytest.approx(done.mean)  # folds of equal size
    assert done.per_class["clips"].sum() == 20 == done.confusion.to_numpy().sum()
    assert np.trace(done.confusion.to_numpy()) == right * 20


def test_files_hold_it_all(done):
    again = load_result(done.dir)
    assert again.to_dict() == done.to_dict() and again.folds.equals(done.folds)
    stored = json.loads((done.dir / "result.json").read_text())
    assert stored["scores"] == done.scores and stored["recipe"]["name"] == "smoke" and stored["findings"] == []
    assert stored["normalisation"]["fold 1"] == {"source": "those of pretraining", "mean": -7.0, "std": 4.5}
    assert not list(done.dir.rglob("state.pt"))
    with pytest.raises(InputError, match="not a folder of fine-tuning"):
        load_result(done.dir / "seed-0-fold-1")


def test_everything_is_trained_and_nothing_else_touched(done, encoder):
    fresh = Encoder.random(load_config("smoke"), seed=0)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name])
    assert not any(p.requires_grad for p in encoder.parameters())
    start = build_classifier(encoder, done.recipe, 10, seed=0).trained()
    last = load_file(done.dir / "seed-0-fold-1" / "last.safetensors")
    assert last.keys() == start.keys()
    assert all(not torch.equal(last[name], start[name]) for name in start)


def test_averaged_weights_are_the_mean_over_epochs(encoder, manifest, tmp_path):
    flags = ["schedule=constant", "checkpoint_every=1"]
    weights = {}
    for epochs in (1, 2):
        result = finetune(encoder, manifest, "smoke", tmp_path / str(epochs), [*flags, f"epochs={epochs}"], folds=[2])
        weights[epochs] = load_file(result.dir / "seed-0-fold-2" / "last.safetensors")
    averaged = load_file(result.dir / "seed-0-fold-2" / "averaged.safetensors")
    statistics = {name: averaged.pop(name) for name in ("center", "deviation")}
    for name, tensor in averaged.items():
        torch.testing.assert_close(tensor, (weights[1][name] + weights[2][name]) / 2)
    for name, tensor in statistics.items():  # those of the averaged weights' own features
        assert not torch.equal(tensor, weights[2][name])
        torch.testing.assert_close(tensor, weights[2][name], rtol=0.3, atol=0.3)


def test_best_epoch_is_chosen_on_valid(encoder, tmp_path):
    manifest = with_splits(load_manifest("synth:40"))
    result = finetune(encoder, manifest, "smoke", tmp_path / "ft", ["average_from=null", "epochs=4", "rate=3e-3"])
    rows = pd.read_csv(result.dir / "seed-0-test" / "metrics.csv")
    best = rows["valid_accuracy"].idxmax()  # the first of equals
    row = result.folds.iloc[0]
    assert (row["headline"], row["chosen_on"], row["best_epoch"]) == ("best", "valid", best + 1)
    assert row["best_accuracy"] == pytest.approx(rows["test_accuracy"][best]) == result.mean
    assert row["last_accuracy"] == pytest.approx(rows["test_accuracy"].iloc[-1])
    worse = rows["valid_accuracy"] <= rows["valid_accuracy"].cummax().shift(fill_value=-1)
    assert list(rows["test_accuracy"].isna()) == [bool(w) and i < 3 for i, w in enumerate(worse)]


def test_several_labels(encoder, tmp_path):
    manifest = with_splits(load_manifest("synth:40"))
    labels = [f"{'even' if i % 2 else 'odd'};{'low' if i % 10 < 5 else 'high'}" for i in range(40)]
    several = replace(manifest, table=manifest.table.assign(label=labels), multi=True, labels=None)
    flags = ["task=multi", "loss=bce", "smoothing=0", *SHORT]
    result = finetune(encoder, several, "smoke", tmp_path / "ft", flags)
    found = result.pooled
    assert result.metric == "mAP" and result.classes == ["even", "high", "low", "odd"]
    assert result.mean == pytest.approx(metrics.scores(found.targets, found.outputs, True)["mAP"])
    assert (found.targets.sum(1) == 2).all() and result.chance == pytest.approx(0.5)
    assert set(result.per_class["label"]) == set(result.classes)
    with pytest.raises(InputError, match="no confusion matrix"):
        _ = result.confusion
    with pytest.raises(InputError, match="may have several labels, but recipe smoke is for one class a clip"):
        finetune(encoder, several, "smoke", tmp_path / "other")
    with pytest.raises(InputError, match="one label each, but recipe ast-audioset-20k is for several"):
        finetune(encoder, manifest, "ast-audioset-20k", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_mean_and_std_of_the_training_clips(encoder, manifest, tmp_path):
    result = finetune(encoder, manifest, "smoke", tmp_path / "ft", ["statistics=measured", *SHORT], folds=["fold 1"])
    mean, std, *_ = measure(manifest.subset(manifest.table["fold"] == 2), encoder.config.features)
    used = result.to_dict()["normalisation"]["fold 1"]
    assert used == {"source": "measured on 10 of 10 training clips", "mean": mean, "std": std}


# --- The network ----------------------------------------------------------------------------------------------------


def test_superb_trains_the_head_alone(encoder, manifest, tmp_path):
    flags = ["steps=2", "batch_size=8", "frames=96"]
    result = finetune(encoder, manifest, "superb-voxceleb1", tmp_path / "ft", flags, folds=[1])
    trained = load_file(result.dir / "seed-0-fold-1" / "last.safetensors")
    assert set(trained) == {"layers", "projector.weight", "projector.bias", "linear.weight", "linear.bias"}
    assert result.table.iloc[0]["protocol"] == "finetune superb-voxceleb1"


def test_weighted_sum_of_layers(encoder):
    network = build_classifier(encoder, load_recipe("superb-voxceleb1", ["frames=96"]), 5, seed=1)
    with torch.no_grad():
        network.layers.copy_(torch.tensor([0.3, -0.2, 0.9]))
        x = torch.randn(3, 96, 64)
        seen = network.backbone.inspect(x, hidden=[0])
        states = torch.stack([network.backbone.embed(x), seen.hidden[0], seen.tokens])[:, :, 1:]  # [L, B, N, D]
        weighted = (network.layers.softmax(0)[:, None, None, None] * states).sum(0)
        wanted = F.linear(network.projector(weighted).mean(1), network.linear.weight, network.linear.bias)
        torch.testing.assert_close(network(x), wanted)


def test_head_of_all_layers_starts_as_a_linear_probe(encoder, manifest, tmp_path):
    flags = ["head=mean+std", "frames=96", "rate=1e-9", "steps=1", "average_from=null", "precision=fp32"]
    result = finetune(encoder, manifest, "smoke", tmp_path / "ft", flags, folds=[1])
    classifier, rate = load_classifier(result.dir), encoder.front_end.sample_rate
    samples = round(classifier.window_seconds * rate)
    pooled, labels = {}, {}
    for fold in (1, 2):
        rows = np.flatnonzero(manifest.table["fold"] == fold)
        parts = [windows(manifest.read(row, rate), samples)[0] for row in rows]
        pooled[fold] = [encoder.pooled(part, rate)[:, :, 1:].flatten(1).numpy() for part in parts]  # mean, deviation
        labels[fold] = np.repeat(manifest.targets(rows), [len(part) for part in parts], axis=0)
    train = np.concatenate(pooled[2])
    (answer,) = answers("linear", train, labels[2], train[:1], (linear_start.STRENGTH,), False)
    expected = [answer.head.logits(part).mean(0) for part in pooled[1]]
    np.testing.assert_allclose(result.pooled.outputs, expected, atol=1e-3)


def test_length_of_the_input_is_that_of_the_crops_or_of_shorter_clips(encoder, manifest):
    recipe = load_recipe("smoke", ["frames=auto"])
    assert with_length(recipe, encoder, manifest).frames == encoder.config.input_frames
    short = replace(manifest, table=manifest.table.assign(seconds=0.5))
    assert with_length(recipe, encoder, short).frames == encoder.front_end.frames_of(8000) == 48
    assert with_length(load_recipe("smoke"), encoder, short).frames == 96
    assert build_classifier(encoder, recipe, 3, seed=0).frames == encoder.config.input_frames


@pytest.mark.parametrize("preset", ["smoke", "micro-asda"])
@pytest.mark.parametrize("frames", [32, 320])
def test_other_lengths(preset, frames):
    """Shorter inputs see the first positions of pretraining, longer ones stretched positions."""
    encoder = Encoder.random(load_config(preset, ["model.depth=2"]))
    network = build_classifier(encoder, load_recipe("micro", [f"frames={frames}"]), 3, seed=0)
    grid = (frames // encoder.config.model.patch[0], encoder.config.grid[1])
    torch.testing.assert_close(network.backbone.pos_embed, encoder.backbone.positions(grid))
    x = torch.randn(2, network.frames, encoder.config.features.mel_bins)
    with torch.no_grad():
        torch.testing.assert_close(network.backbone(x), encoder.backbone(x), rtol=1e-4, atol=1e-5)
        assert network(x).shape == (2, 3)


def test_start_weights(encoder):
    student = Encoder.random(load_config("smoke"), seed=5).backbone
    both = Encoder(encoder.config, encoder.backbone, student)
    for which, module in {"teacher": encoder.backbone, "student": student}.items():
        network = build_classifier(both, load_recipe("smoke", [f"backbone={which}"]), 3, seed=0)
        for name, tensor in network.backbone.named_parameters():
            if name != "pos_embed":
                assert torch.equal(tensor, module.state_dict()[name])
    with pytest.raises(InputError, match="has no student, which backbone=student needs"):
        build_classifier(Encoder(encoder.config, encoder.backbone), load_recipe("asda-esc50"), 3, seed=0)
    other = Encoder(load_config("smoke", ["model.depth=3"]), encoder.backbone, name="mine")
    with pytest.raises(InputError, match=r"mine: weights of another architecture.*missing.*blocks\.2"):
        build_classifier(other, load_recipe("smoke"), 3, seed=0)


# --- Going on, and what is refused ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_interrupt_changes_nothing(done, encoder, manifest, tmp_path, monkeypatch):
    step, seen = loop._Trainer.step, []

    def interrupted(self, batch):
        seen.append(batch.step)
        if len(seen) in (2, 4):
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(loop._Trainer, "step", interrupted)
    arguments = (encoder, manifest, "smoke", tmp_path / "ft", ["checkpoint_every=1"])
    first = finetune(*arguments)
    assert first.status == "interrupted" and not first.split_results and np.isnan(first.mean)
    second = finetune(*arguments)
    assert second.status == "interrupted"
    result = finetune(*arguments)
    assert result.status == "finished" and result.scores == done.scores
    assert seen == [0, 1, 1, 2, 2, 3, 0, 1, 2, 3]
    for fold in ("seed-0-fold-1", "seed-0-fold-2"):
        assert_same(tmp_path / "ft" / fold, done.dir / fold)


def test_finished_splits_stay(done, encoder, manifest, monkeypatch):
    def fit(job, *_):
        raise AssertionError(f"{job.folder} was fine-tuned again")

    monkeypatch.setattr(run, "fit_task", fit)
    same = finetune(encoder, manifest, "smoke", done.dir, ["workers=1", "cache_mb=1"], resume="must")
    assert same.scores == done.scores
    assert list(finetune(encoder, manifest, "smoke", done.dir, folds=[2]).scores) == ["fold 2"]
    assert load_result(done.dir).scores == done.scores  # what other calls have finished stays in the files
    with pytest.raises(AssertionError, match="seed-1-fold-1 was fine-tuned again"):
        finetune(encoder, manifest, "smoke", done.dir, seeds=(0, 1))
    assert finetune(encoder, manifest, "smoke", done.dir).to_dict() == done.to_dict()


def test_folds_of_earlier_calls_stay_with_their_notes_and_other_seeds_do_not_mix(encoder, manifest, tmp_path):
    both = replace(manifest, table=manifest.table.assign(group=["x", *map(str, range(18)), "x"]))
    arguments = (encoder, both, "smoke")
    more = {"overrides": ["epochs=1"], "allow_leaks": True}
    (tmp_path / "apart").mkdir()
    (tmp_path / "apart" / ".notes.7.tmp").write_text("mine")
    finetune(*arguments, tmp_path / "apart", **more, folds=[1])
    assert (tmp_path / "apart" / ".notes.7.tmp").read_text() == "mine"  # it was there before the fine-tuning
    finetune(*arguments, tmp_path / "apart", **more, folds=[2])
    finetune(*arguments, tmp_path / "once", **more)
    apart, once = load_result(tmp_path / "apart"), load_result(tmp_path / "once")
    assert len(apart.scores) == 2 and apart.findings == once.findings and apart.findings[0]["tested"] == [0, 19]
    other = finetune(*arguments, tmp_path / "apart", **more, seeds=(1,), folds=[1])
    assert load_result(tmp_path / "apart").to_dict() == other.to_dict() and list(other.scores) == ["fold 1"]


def test_leaks_are_looked_for_once(done, encoder, manifest, monkeypatch):
    looked = []

    def find(manifest, divisions, *arguments):
        looked.append(len(divisions))
        return []

    monkeypatch.setattr(run, "findings", find)
    finetune(encoder, manifest, "smoke", done.dir)
    assert looked == [2]  # it may decode every clip
    finetune(encoder, manifest, "smoke", done.dir, folds=[2])
    assert looked == [2, 1, 2]  # of the fold asked for, and of all that result.json lists


def test_names_of_files_that_are_no_utf_8(encoder, manifest, tmp_path):
    """In the settings of a folder of fine-tuning, and in the tables of a study's point."""
    paths = [os.fsdecode(b"caf\xe9.wav"), *manifest.table["path"][1:]]
    odd = replace(manifest, table=manifest.table.assign(path=paths))
    recipe = load_recipe("smoke")
    assert run._setup(encoder, recipe, odd, False)["data"] != run._setup(encoder, recipe, manifest, False)["data"]
    answers = pd.DataFrame({"split": "test", "path": paths, "label": "a", "predicted": "b"})
    experiments._keep(SimpleNamespace(dir=tmp_path), "answers.csv", answers, odd.table)
    assert pd.read_csv(tmp_path / "answers.csv")["path"][0] == r"caf\udce9.wav"


def test_refusals(done, encoder, manifest, tmp_path):
    def refused(match, enc=encoder, data=manifest, recipe="smoke", out=done.dir, **more):
        with pytest.raises(InputError, match=match):
            finetune(enc, data, recipe, out, **more)

    refused(r"another set-up.*\n  recipe.rate: 0.0003 there, 0.001 requested", overrides=["rate=1e-3"])
    refused(r"another set-up.*\n  encoder.weights: ", enc=Encoder.random(load_config("smoke"), seed=1))
    refused(r"another set-up.*\n  data.clips: 20 there, 30 requested", data="synth:30")
    refused("already holds a fine-tuning", resume="never")
    refused("there is no fine-tuning to resume", out=tmp_path / "none", resume="must")
    refused("resume: 'yes' is not one of", resume="yes")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    refused("holds a pretraining run", out=tmp_path / "run")
    refused("folds: fold 7: .* has fold 1, fold 2", folds=[7])
    refused(r"seeds: \(\); expected some", seeds=())
    refused("seeds: 3; expected some", seeds=3)
    refused("folds: fold 7: ", folds=7)
    refused("no such recipe or file; did you mean smoke", recipe="smok")
    refused("no such run, snapshot or preset", enc="runs/none")
    one = replace(manifest, table=manifest.table.assign(fold=1))
    refused("every clip is in fold 1", data=one, out=tmp_path / "none")
    refused("frames: 8 are fewer than one patch of 16", overrides=["frames=8"], out=tmp_path / "short")
    (tmp_path / "file").touch()
    refused("a file is in the way", out=tmp_path / "file")


def test_unreadable_clips(encoder, manifest, tmp_path, monkeypatch):
    clip, broken = Reader.clip, set()

    def read(self, row):
        if row in broken:
            raise InputError(f"{self.rows[row][0]}: broken")
        return clip(self, row)

    monkeypatch.setattr(Reader, "clip", read)
    more = load_manifest("synth:40")
    table = more.table.assign(fold=[1] * 20 + [2] * 20)  # two clips a class in each
    broken |= {3, 25}
    result = finetune(encoder, replace(more, table=table), "smoke", tmp_path / "a", ["epochs=1"], folds=[1])
    path = more.table["path"]
    assert result.skipped == sorted([(path[3], "broken"), (path[25], "broken")])
    assert 3 not in set(result.predictions["path_row"]) and len(result.predictions) == 19
    broken |= {13}
    with pytest.raises(InputError, match="fold 1: no clip of class .* can be read; synth://0/3: broken"):
        finetune(encoder, replace(more, table=table), "smoke", tmp_path / "b", ["epochs=1"], folds=[1])


def test_not_finite(encoder, manifest, tmp_path):
    flags = ["rate=1e30", "schedule=constant", "clip=0"]
    with pytest.raises(FloatingPointError, match=r"is not finite at step \d; try a lower rate"):
        finetune(encoder, manifest, "smoke", tmp_path / "ft", flags, folds=[1])


# --- Code and files -------------------------------------------------------------------------------------------------


def test_a_fine_tuning_by_other_code_or_of_other_files_is_not_continued(encoder, tmp_path, monkeypatch):
    lines = ["path,label,fold"]
    for i in range(8):
        wave = 0.1 * np.random.default_rng(i).standard_normal(16000)
        soundfile.write(tmp_path / f"{i}.wav", wave, 16000)
        lines.append(f"{i}.wav,{'ab'[i % 2]},{1 + i // 4}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    manifest = load_manifest(f"folder:{tmp_path / 'list.csv'}")

    def again():
        return finetune(encoder, manifest, "smoke", tmp_path / "ft", SHORT, folds=[1])

    first = again()
    assert again().to_dict() == first.to_dict()
    hashes = provenance.code_hashes
    monkeypatch.setattr(provenance, "code_hashes", lambda parts: hashes(parts) | {"nn/vit.py": "other"})
    with pytest.raises(InputError, match=r"other code or of other files \(nn/vit.py changed\); choose another folder"):
        again()
    monkeypatch.undo()
    again()
    stat = (tmp_path / "3.wav").stat()
    os.utime(tmp_path / "3.wav", (stat.st_atime, stat.st_mtime + 10))
    with pytest.raises(InputError, match=r"\(data files changed\)"):
        again()
    os.utime(tmp_path / "3.wav", (stat.st_atime, stat.st_mtime))
    setup = yaml.safe_load((tmp_path / "ft" / "setup.yaml").read_text())
    del setup["computed_with"]
    (tmp_path / "ft" / "setup.yaml").write_text(yaml.safe_dump(setup))
    with pytest.raises(InputError, match="it is not known what they were computed with"):
        again()
