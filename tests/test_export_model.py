"""Models in the formats of other programs give what the package gives."""

import json
import sys

import numpy as np
import pytest
import torch
from test_classifier import command

from asit_lab import Encoder, InputError, load_config
from asit_lab.features import LogMel
from asit_lab.finetuning import Classifier, export_model, load_recipe
from asit_lab.finetuning.classifier import ProbeHead, classifier_metadata
from asit_lab.finetuning.export import PlainLogMel, open_model
from asit_lab.finetuning.network import build_classifier

RATE = 16000
CLASSES = ["bell", "siren", "vowel"]


def audio(clips: int, samples: int, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.2 * torch.randn(clips, samples, generator=generator) * torch.linspace(0.01, 1, samples)


def encoder(*overrides: str) -> Encoder:
    config = load_config("smoke", list(overrides))
    return Encoder(config, Encoder.random(config, 3).backbone)


def probe(multi: bool = False) -> Classifier:
    """A linear head with random weights on two layers."""
    enc = encoder()
    generator, width = torch.Generator().manual_seed(0), enc.config.model.width
    parts = [torch.randn(2, 2 * width, generator=generator).double() for _ in range(2)]
    weights = torch.randn(2 * width, 3, generator=generator).double()
    enc.head = ProbeHead(parts[0], parts[1].exp(), weights, weights[0].clone(), torch.tensor([0.3, 0.7]).double())
    about = {"layers": [0, len(enc.backbone.blocks)], "pool": "mean+std"}
    thresholds = [0.5] * 3 if multi else None
    return Classifier(
        enc, enc.config, classifier_metadata("probe", enc.config, CLASSES, multi, None, about, 1.7, thresholds)
    )


def tuned(recipe: str = "smoke") -> Classifier:
    enc, recipe = encoder(), load_recipe(recipe)
    network = build_classifier(enc, recipe, 3, 1)
    return Classifier(network, enc.config, classifier_metadata("tuned", enc.config, CLASSES, False, recipe, None, 0.8))


def test_a_log_mel_of_convolutions_is_the_log_mel():
    for options in ({}, {"sample_rate": 32000, "mel_bins": 128}, {"frame_ms": 30, "hop_ms": 7}):
        front_end = LogMel(**{"sample_rate": RATE, "mel_bins": 64, **options})
        wave = audio(2, 12345)
        np.testing.assert_allclose(PlainLogMel(front_end)(wave), front_end(wave), atol=2e-3)
        assert (PlainLogMel(front_end)(0 * wave) == front_end(0 * wave)).all()


def in_onnxruntime(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return lambda wave: session.run(None, {"wave": wave.numpy()})[0]


@pytest.mark.slow
@pytest.mark.parametrize("model", [encoder(), probe(), probe(multi=True), tuned()], ids=lambda model: str(model)[:20])
def test_onnx_gives_the_same_for_any_batch(model, tmp_path):
    import onnx

    done = export_model(model, tmp_path / "model.onnx")
    assert done.difference < 1e-4
    run, scores = in_onnxruntime(done.path), isinstance(model, Classifier)
    for clips in (1, 5):
        wave = audio(clips, done.samples)
        expected = model.scores(wave, RATE) if scores else model.embed(wave, RATE).numpy()
        np.testing.assert_allclose(run(wave), expected, atol=1e-4)
    about = json.loads({entry.key: entry.value for entry in onnx.load(done.path).metadata_props}["asit_lab"])
    names = CLASSES if scores else [f"d{i}" for i in range(48)]
    assert about == {"sample_rate": RATE, "samples": done.samples, "output": done.output, "names": names}
    assert not [node.op_type for node in onnx.load(done.path).graph.node if node.domain not in ("", "ai.onnx")]


@pytest.mark.slow
@pytest.mark.parametrize(("to", "ending"), [("torchscript", ".pt"), ("torch-export", ".pt2")])
def test_torch_formats_give_the_same_for_any_batch(to, ending, tmp_path):
    model = probe()
    done = export_model(model, tmp_path / f"model{ending}", to)
    extra = {"asit_lab.json": ""}
    if to == "torchscript":
        loaded = torch.jit.load(str(done.path), _extra_files=extra)
    else:
        loaded = torch.export.load(str(done.path), extra_files=extra).module()
    wave = audio(4, done.samples)
    np.testing.assert_allclose(loaded(wave), model.scores(wave, RATE), atol=1e-5)
    assert json.loads(extra["asit_lab.json"])["names"] == CLASSES


@pytest.mark.slow
@pytest.mark.parametrize("model", [encoder(), probe(), tuned()], ids=["encoder", "probe", "tuned"])
def test_onnx_in_16_and_in_8_bits(model, tmp_path):
    import onnx

    done = {name: export_model(model, tmp_path / f"{name}.onnx", precision=name) for name in ("fp32", "fp16", "int8")}
    sizes = {name: export.path.stat().st_size for name, export in done.items()}
    assert sizes["fp32"] > sizes["fp16"] > sizes["int8"]
    wave, scores = audio(5, done["fp32"].samples), isinstance(model, Classifier)
    expected = model.scores(wave, RATE) if scores else model.embed(wave, RATE).numpy()
    for name, bound in (("fp16", 0.005), ("int8", 0.05)):
        np.testing.assert_allclose(in_onnxruntime(done[name].path)(wave), expected, atol=bound * abs(expected).max())
        proto = onnx.load(done[name].path)
        assert [entry.key for entry in proto.metadata_props] == ["asit_lab"]
        kinds = {onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in proto.graph.initializer}
        assert {"fp16": "FLOAT16", "int8": "INT8"}[name] in kinds
    products = [node.op_type for node in proto.graph.node if node.op_type == "MatMulInteger"]
    assert len(products) == 8 + (model.recipe is not None if scores else 0)  # four in each of two blocks, and a head


def test_half_the_bytes_in_torchscript(tmp_path):
    model = encoder()
    full, half = (export_model(model, tmp_path / f"{p}.pt", "torchscript", precision=p) for p in ("fp32", "fp16"))
    assert 1e-6 < half.difference < 0.005 and half.path.stat().st_size < full.path.stat().st_size
    wave = audio(2, half.samples)
    output = torch.jit.load(str(half.path))(wave)
    assert output.dtype == torch.float32
    np.testing.assert_allclose(output, model.embed(wave, RATE), rtol=0.02, atol=0.01)


def test_shorter_input_and_other_attention(tmp_path):
    models = [encoder("model.attention=learned"), encoder("model.attention=asda"), tuned()]
    for model in models:
        done = export_model(model, tmp_path / "model.pt", "torchscript", seconds=0.5, **_class_pool(model))
        assert done.samples == 8000 and done.difference < 1e-4


def _class_pool(model) -> dict:
    return {} if isinstance(model, Classifier) else {"pool": "class"}


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_a_model_is_not_lost_to_its_export(tmp_path, kind):
    model = probe() if kind == "classifier" else encoder()
    model.save(tmp_path) if kind == "classifier" else model.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="holds a model or a run of asit_lab"):
        export_model(model, tmp_path, "transformers")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    for _ in range(2):  # its own export may be written again
        export_model(model, tmp_path / "exported", "transformers")


def test_a_damaged_classifier_is_named(tmp_path):
    probe().save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="not a readable .safetensors file"):
        open_model(str(tmp_path))


def test_what_cannot_be_exported_is_said(tmp_path, monkeypatch):
    enc = encoder()
    for options, words in (
        ({"to": "onix"}, "to: 'onix'.*onnx"),
        ({"path": tmp_path / "a.pt"}, "give a name that ends in .onnx"),
        ({"seconds": 5.0}, "seconds: 5 is not between 0.025 and .* s"),
        ({"pool": "max"}, "pool: 'max' is not one of"),
        ({"precision": "int4"}, "precision: 'int4'.*int8"),
        ({"to": "torchscript", "path": tmp_path / "a.pt", "precision": "int8"}, "int8 is not available to=torchscript"),
    ):
        with pytest.raises(InputError, match=words):
            export_model(enc, **{"path": tmp_path / "a.onnx", **options})
    monkeypatch.setattr(Encoder, "embed", lambda self, wave, *_: torch.ones(len(wave), 48))
    with pytest.raises(InputError, match="not written: the exported model differs from the original by"):
        export_model(enc, tmp_path / "a.pt", "torchscript")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"onnx needs onnx: pip install onnx onnxruntime onnxscript"):
        export_model(enc, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_from_the_shell(tmp_path, monkeypatch, capsys):
    model = probe().save(tmp_path / "model")
    options = ["export-model", model.parent, "--out", tmp_path / "a.pt", "--to", "torchscript"]
    status, shown, _ = command(monkeypatch, capsys, *options, "--json")
    assert status == 0 and json.loads(shown)["names"] == CLASSES and (tmp_path / "a.pt").is_file()
    status, shown, _ = command(monkeypatch, capsys, "export-model", "smoke", *options[2:])
    assert status == 0 and "embedding, float32 [batch, 48]" in shown
    status, _, error = command(monkeypatch, capsys, "export-model", "nothing", *options[2:])
    assert status == 2 and "nothing" in error
