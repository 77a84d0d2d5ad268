"""Folders for transformers without transformers: their files, and the network in them, which needs torch alone.

`make transformers` loads them by transformers, in an environment of its own.
"""

import ast
import importlib.util
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_classifier import command
from test_export_model import CLASSES, RATE, audio, encoder, probe, tuned

from asit_lab import InputError
from asit_lab.finetuning import Classifier, export_model, transformers_folder

FILES = {
    "README.md",
    "config.json",
    "configuration_asit_lab.py",
    "feature_extraction_asit_lab.py",
    "model.safetensors",
    "modeling_asit_lab.py",
    "network_asit_lab.py",
    "preprocessor_config.json",
}


def network_of(folder):
    """The network as the folder's own code makes it."""
    spec = importlib.util.spec_from_file_location("network_of_a_folder", folder / "network_asit_lab.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = json.loads((folder / "config.json").read_text())
    network = module.AsitLabNetwork(SimpleNamespace(**config)).eval()
    tensors = load_file(folder / "model.safetensors")
    assert all(name.startswith("network.") for name in tensors)
    network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in tensors.items()})
    return network


def test_the_files_of_a_folder_need_torch_and_transformers_alone(tmp_path):
    done = export_model(encoder(), tmp_path / "model", "transformers")
    assert {file.name for file in done.path.iterdir()} == FILES and done.samples is None
    for file in done.path.glob("*.py"):
        nodes = [
            node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
        assert {name.split(".")[0] for name in names} <= {"torch", "transformers", "numpy", "math", "typing"}
        own = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level}
        assert {f"{name}.py" for name in own} <= FILES
    config = json.loads((done.path / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_asit_lab.AsitLabModel" and config["sampling_rate"] == RATE
    extractor = json.loads((done.path / "preprocessor_config.json").read_text())
    assert extractor["auto_map"] == {"AutoFeatureExtractor": "feature_extraction_asit_lab.AsitLabFeatureExtractor"}


ASDA = ("model.attention=asda", "model.norm=post", "model.positions=fixed", "model.class_token_at=1")


@pytest.mark.parametrize(
    "overrides",
    [("model.patch=[16,16]",), ASDA, ("model.attention=learned", "model.mask_input=true")],
    ids=["softmax", "asda", "learned"],
)
@torch.no_grad()
def test_an_encoder_gives_the_same_tokens_of_clips_of_any_length(overrides, tmp_path):
    model = encoder(*overrides)
    assert export_model(model, tmp_path, "transformers", pool="class").difference < 1e-5
    network = network_of(tmp_path)
    for samples in (500, 20000, 70000):
        wave = audio(2, samples)
        states = network.states(wave)
        np.testing.assert_allclose(states[-1][:, 1:], model.tokens(wave, RATE).flatten(1, 2), rtol=1e-3, atol=1e-4)
        for pool in ("class", "mean", "mean+std"):
            expected = model.embed(wave, RATE, pool)
            np.testing.assert_allclose(network.pooled(states[-1], pool), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        network.pooled(states[1], "mean"), model.embed(wave, RATE, "mean", layer=1), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("make", [probe, lambda: probe(multi=True), tuned], ids=["probe", "several", "tuned"])
@torch.no_grad()
def test_a_classifier_gives_the_same_logits(make, tmp_path):
    model = make()
    done = export_model(model, tmp_path, "transformers")
    assert done.output == "logits" and done.names == CLASSES
    network = network_of(tmp_path)
    for samples in (5000, 70000):
        wave = audio(3, samples)
        expected = model.logits(wave, RATE) / model.temperature
        np.testing.assert_allclose(network.logits(wave), expected, rtol=1e-3, atol=1e-4)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["problem_type"] == ("multi" if model.multi else "single") + "_label_classification"
    assert config["id2label"] == {"0": "bell", "1": "siren", "2": "vowel"} and config["auto_map"]["AutoModel"].endswith(
        "AsitLabForAudioClassification"
    )


@pytest.mark.parametrize("overrides", [("head=layers",), ("head=mean", "crop=random")], ids=["layers", "mean"])
@torch.no_grad()
def test_other_heads_and_all_of_a_long_clip(overrides, tmp_path):
    from asit_lab.finetuning import load_recipe
    from asit_lab.finetuning.classifier import classifier_metadata
    from asit_lab.finetuning.network import build_classifier

    enc, recipe = encoder(), load_recipe("smoke", list(overrides))
    torch.manual_seed(0)
    network = build_classifier(enc, recipe, 3, 1)
    model = Classifier(network, enc.config, classifier_metadata("tuned", enc.config, CLASSES, False, recipe))
    assert export_model(model, tmp_path, "transformers").difference < 1e-5


def test_what_cannot_be_written_is_said(tmp_path, monkeypatch, capsys):
    for options, words in (
        ({"seconds": 1.0}, "takes audio of any length"),
        ({"path": tmp_path / "a.onnx"}, "give the name of a folder"),
    ):
        with pytest.raises(InputError, match=words):
            export_model(encoder(), **{"path": tmp_path / "a", "to": "transformers", **options})
    with monkeypatch.context() as patch:
        patch.setattr(transformers_folder, "_KINDS", ("asda", "learned"))  # softmax is then one of the user's own
        with pytest.raises(InputError, match=r"attention 'softmax' is your own; asda, learned can be exported"):
            export_model(encoder(), tmp_path / "a", "transformers")
    monkeypatch.setattr(transformers_folder, "_difference", lambda *_: 0.5)
    with pytest.raises(InputError, match="not written: the exported model differs from the original by 0.5"):
        export_model(encoder(), tmp_path / "a", "transformers")
    assert list(tmp_path.iterdir()) == []


def test_from_the_shell(tmp_path, monkeypatch, capsys):
    model = tuned().save(tmp_path / "tuned").parent
    arguments = ["export-model", model, "--to", "transformers", "--out", tmp_path / "out"]
    status, shown, _ = command(monkeypatch, capsys, *arguments)
    assert status == 0 and "any number of samples] at 16000 Hz" in shown and "logits, float32 [batch, 3]" in shown
    assert {file.name for file in (tmp_path / "out").iterdir()} == FILES
    assert "transformers" not in sys.modules
