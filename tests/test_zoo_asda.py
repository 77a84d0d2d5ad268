"""Checkpoints in the form fairseq saves ASDA's, made here, through `zoo.load("asda", ...)`; and the published code's
numbers, replayed through it."""

import argparse
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_case import close, golden, under
from safetensors.torch import save_file

from asit_lab import Encoder, load_config, zoo
from asit_lab.errors import InputError
from asit_lab.nn.vit import sincos_positions
from asit_lab.objectives.asda import targets

WIDTH, HEADS, GRID = 48, 3, (6, 8)  # 96 frames x 128 mel bands
ENCODER = "modality_encoders.IMAGE."
CFG = load_config(
    "asda-vit-b",
    [
        "data.crop_seconds=0.975",
        f"model.width={WIDTH}",
        "model.depth=2",
        f"model.heads={HEADS}",
        "asda.decoder_width=32",
        "asda.decoder_layers=2",
    ],
)


def made(seed: int) -> Encoder:
    """An encoder of the released form whose weights, norms and biases too, are no start weights."""
    encoder = Encoder.random(CFG, seed)
    with torch.no_grad():
        torch.manual_seed(seed)
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


def released(encoder: Encoder, decoder: bool = True) -> dict[str, torch.Tensor]:
    """Weights under the names of the released code, positions for many more frames among them."""
    names = {
        "cls_token": "extra_tokens",
        "patch_embed.": "local_encoder.",
        "norm.": "context_encoder.norm.",
    }
    state = {f"{ENCODER}fixed_positional_encoder.positions": sincos_positions((12, 8), WIDTH)[None]}
    for name, tensor in encoder.backbone.state_dict().items():
        for ours, theirs in names.items():
            if name.startswith(ours):
                name = f"{ENCODER}{theirs}{name[len(ours) :]}"
                break
        state[name] = tensor
    if decoder:
        state |= {f"{ENCODER}decoder.{name}": tensor for name, tensor in encoder.decoder.state_dict().items()}
    return state


@pytest.fixture(scope="module")
def student():
    return made(1)


@pytest.fixture(scope="module")
def teacher():
    return made(2)


@pytest.fixture(scope="module")
def pretrained(student, teacher):
    """What fairseq's trainer saves: plain settings, optimiser, the student's weights, the teacher's inside them."""
    return {
        "args": None,
        "cfg": {"common": {"seed": 1}, "model": {"num_heads": HEADS}, "task": {"target_length": 96}},
        "model": released(student) | {"_ema": released(teacher, decoder=False)},
        "criterion": None,
        "optimizer_history": [{"optimizer_name": "FairseqAdam", "num_updates": 7}],
        "extra_state": {"train_iterator": {"epoch": 1}},
        "last_optimizer_state": {"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}},
    }


@pytest.fixture
def waves():
    return np.random.default_rng(0).normal(size=(2, round(0.975 * 16000))).astype(np.float32) * 0.1


def equal(module: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(module.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == name_ and torch.equal(tensor, tensor_) for (name, tensor), (name_, tensor_) in pairs)


# --- What is in a file ----------------------------------------------------------------------------------------------


def test_a_pretrained_file(tmp_path, pretrained, student, teacher, waves):
    torch.save(pretrained, tmp_path / "checkpoint_last.pt")
    encoder = zoo.load("asda", tmp_path / "checkpoint_last.pt")
    assert encoder.name == "ASDA (teacher, checkpoint_last.pt)"
    assert equal(encoder.backbone, teacher.backbone)
    assert equal(encoder.student, student.backbone) and equal(encoder.decoder, student.decoder)
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())
    torch.testing.assert_close(encoder.embed(waves, 16000), teacher.embed(waves, 16000))
    whole = Encoder(CFG, teacher.backbone, student.backbone, student.decoder)
    torch.testing.assert_close(encoder.prediction_error(waves, 16000), whole.prediction_error(waves, 16000))
    with pytest.raises(InputError, match="predicts latent targets .* cannot reconstruct; prediction_error"):
        encoder.reconstruct(waves, 16000)


def test_what_the_weights_imply(pretrained):
    cfg = zoo.load("asda", pretrained).config
    assert (cfg.model, cfg.asda, cfg.features) == (CFG.model, CFG.asda, CFG.features)
    assert (cfg.grid, cfg.objective.name) == (GRID, "asda")
    assert (cfg.features.sample_rate, cfg.features.mean, cfg.features.std) == (16000, -4.268, 4.569)


def test_both_maps_of_a_published_encoder(pretrained, waves):
    maps = zoo.load("asda", pretrained).attention(waves, 16000, layers=(0, -1))
    assert maps.first.shape == maps.second.shape == (2, 2, HEADS, 49, 49)
    torch.testing.assert_close(maps.first.sum(-1), torch.ones(maps.first.shape[:-1]))
    torch.testing.assert_close(maps.map, maps.first - 0.1 * maps.second)
    assert not torch.allclose(maps.first, maps.second)


def test_the_student(pretrained, student, waves):
    encoder = zoo.load("asda", pretrained, role="student")
    assert equal(encoder.backbone, student.backbone) and encoder.name == "ASDA (student, state dict)"
    with pytest.raises(InputError, match="with teacher and student both"):
        encoder.prediction_error(waves, 16000)


def test_half_precision_becomes_single(pretrained, teacher):
    half = {name: t.half() for name, t in pretrained["model"].items() if name != "_ema"}
    encoder = zoo.load("asda", pretrained | {"model": half | {"_ema": pretrained["model"]["_ema"]}})
    assert {t.dtype for t in encoder.state_dict().values()} == {torch.float32}
    assert equal(encoder.backbone, teacher.backbone)
    assert {t.dtype for t in zoo.load("asda", {"model": half}, heads=HEADS).state_dict().values()} == {torch.float32}


def test_a_fine_tuned_file(tmp_path, student, waves):
    """One level deeper, without teacher and decoder, with a classifier; settings of both runs."""
    weights = {f"model.{name}": t for name, t in released(student, decoder=False).items()}
    weights |= {"fc_norm.weight": torch.ones(WIDTH), "head.weight": torch.zeros(5, WIDTH), "head.bias": torch.zeros(5)}
    settings = {"model": {"target_length": 64, "pretrained_model_args": {"model": {"num_heads": HEADS}}}}
    torch.save({"cfg": settings, "model": weights}, tmp_path / "esc50.pt")
    encoder = zoo.load("asda", tmp_path / "esc50.pt")
    assert encoder.name == "ASDA (fine-tuned, esc50.pt)" and encoder.decoder is None
    assert equal(encoder.backbone, student.backbone)
    assert encoder.config.grid == (4, 8) and encoder.config.model.heads == HEADS
    assert encoder.embed(waves, 16000, pool="class").shape == (2, WIDTH)
    with pytest.raises(InputError, match="has no decoder that predicts latent targets"):
        encoder.prediction_error(waves, 16000)


def test_bare_weights(tmp_path, student):
    state = released(student)
    save_file(state, tmp_path / "bare.safetensors")
    for source in (state, tmp_path / "bare.safetensors", {f"module.{name}": t for name, t in state.items()}):
        encoder = zoo.load("asda", source, heads=HEADS, frames=100)  # 96 and a rest
        assert equal(encoder.backbone, student.backbone) and encoder.config.grid == GRID
    assert zoo.load("asda", state).config.model.heads == 1  # 64 channels each, but at least one head
    assert zoo.load("asda", state).config.grid == (64, 8)  # the released length


# --- Pickled settings -----------------------------------------------------------------------------------------------


def pickled_with(monkeypatch, path: Path, content: dict, **classes: type) -> None:
    """Save `content` while `classes` can be imported from a module that is gone when the file is read."""
    module = types.ModuleType("fairseq_settings")
    for name, made_here in classes.items():
        made_here.__module__, made_here.__qualname__ = "fairseq_settings", name
        setattr(module, name, made_here)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "fairseq_settings", module)
        torch.save(content, path)
    assert "fairseq_settings" not in sys.modules


def test_settings_of_classes_that_are_not_there(tmp_path, monkeypatch, pretrained, teacher):
    """argparse and the boxes of omegaconf, whose classes the reader neither has nor needs."""

    class AnyNode:
        def __init__(self, value):
            self._val = value

    class DictConfig:
        def __init__(self, content):
            self._parent, self._content = None, content
            for inner in content.values():
                if isinstance(inner, DictConfig):
                    inner._parent = self  # a loop, as omegaconf has them

    model = DictConfig({"num_heads": AnyNode(HEADS), "target_length": AnyNode(96)})
    boxed = {"cfg": DictConfig({"model": model, "common": AnyNode("x")})}
    spaced = {"cfg": None, "args": argparse.Namespace(arch="asda", num_heads=HEADS, target_length=96)}
    for name, settings in (("boxed.pt", boxed), ("spaced.pt", spaced)):
        pickled_with(monkeypatch, tmp_path / name, pretrained | settings, AnyNode=AnyNode, DictConfig=DictConfig)
        encoder = zoo.load("asda", tmp_path / name)
        assert equal(encoder.backbone, teacher.backbone)
        assert (encoder.config.model.heads, encoder.config.grid) == (HEADS, GRID)


def test_a_payload_is_not_executed(tmp_path, pretrained, teacher):
    trace = tmp_path / "executed"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {trace}",)

    torch.save(pretrained | {"args": Payload(), "task_state": [Payload()]}, tmp_path / "hostile.pt")
    torch.load(tmp_path / "hostile.pt", weights_only=False)
    assert trace.exists()  # so the payload is real
    trace.unlink()
    assert equal(zoo.load("asda", tmp_path / "hostile.pt").backbone, teacher.backbone)
    assert not trace.exists()


# --- What does not fit ----------------------------------------------------------------------------------------------


def without(state: dict, *names: str) -> dict:
    return {name: t for name, t in state.items() if not name.startswith(names)}


def test_other_architectures(student):
    state = released(student)
    cases = {
        r"no modality_encoders.IMAGE.extra_tokens, so not ASDA's .*: model\.cls_token \[1, 1, 48\]": {
            "cls_token": torch.zeros(1, 1, 48)
        },
        "its first: none": {},
        r"lacks blocks\.0\.attn\.qk\.weight, blocks\.0\.attn\.v\.weight; .*attn\.qkv\.weight \[144, 48\]": (
            without(state, "blocks.0.attn") | {"blocks.0.attn.qkv.weight": torch.zeros(144, 48)}  # softmax, as in EAT
        ),
        r"lacks norm\.weight": without(state, f"{ENCODER}context_encoder"),  # pre-norm
        r"Missing key\(s\).*blocks\.1\.norm2\.bias": without(state, "blocks.1.norm2.bias"),
        r"size mismatch for blocks\.1\.attn\.qk\.weight.*\[100, 48\].*\[192, 48\]": (
            state | {"blocks.1.attn.qk.weight": torch.zeros(100, 48)}
        ),
        r"Unexpected key\(s\).*blocks\.0\.attn\.logit_scale": state | {"blocks.0.attn.logit_scale": torch.zeros(3)},
        r"patch_embed\.proj\.weight \[48, 3, 16, 16\]: expected \[width, 1": (
            state | {f"{ENCODER}local_encoder.proj.weight": torch.zeros(48, 3, 16, 16)}
        ),
        r"positions \[1, 96, 40\]: expected \[1, a multiple of 8, 48\]": (
            state | {f"{ENCODER}fixed_positional_encoder.positions": torch.zeros(1, 96, 40)}
        ),
        "positions are not the 2-D sines and cosines": (
            state | {f"{ENCODER}fixed_positional_encoder.positions": torch.zeros(1, 96, 48)}
        ),
    }
    for message, weights in cases.items():
        with pytest.raises(InputError, match=f"(?s)state dict: .*{message}"):
            zoo.load("asda", {"model": weights}, heads=HEADS, frames=96)


def test_other_decoders(pretrained, student, teacher):
    bad = without(pretrained["model"], f"{ENCODER}decoder") | {f"{ENCODER}decoder.mlp.0.weight": torch.zeros(5, 48)}
    with pytest.raises(InputError, match=r"not ASDA's decoder .*mlp\.0\.weight \[5, 48\]"):
        zoo.load("asda", pretrained | {"model": bad})
    bad = pretrained["model"] | {f"{ENCODER}decoder.proj.weight": torch.zeros(48, 33)}
    with pytest.raises(InputError, match=r"size mismatch for proj\.weight"):
        zoo.load("asda", pretrained | {"model": bad})


def test_other_arguments(pretrained, student, tmp_path):
    with pytest.raises(InputError, match="role: 'ema' is not one of teacher, student"):
        zoo.load("asda", pretrained, role="ema")
    with pytest.raises(InputError, match="has weights of the student, none of the teacher"):
        zoo.load("asda", released(student), role="teacher")
    with pytest.raises(InputError, match="heads: 5 does not divide the width 48"):
        zoo.load("asda", pretrained, heads=5)
    with pytest.raises(InputError, match="patches of 16 x 16 do not fit 96 frames x 100 mel bands"):
        zoo.load("asda", pretrained, mel_bins=100)
    with pytest.raises(InputError, match=r"nowhere\.pt: no such file"):
        zoo.load("asda", tmp_path / "nowhere.pt")


# --- The published code's numbers -----------------------------------------------------------------------------------


def test_published_numbers(tmp_path):
    """The whole tiny model of the published code, saved as it saves, gives its teacher's and student's outputs."""
    numbers, settings = golden("asda_full_step")
    content = {
        "cfg": {"model": {"num_heads": settings["heads"], "target_length": settings["target_length"]}},
        "model": under(numbers, "student.") | {"_ema": under(numbers, "teacher.")},
    }
    torch.save(content, tmp_path / "checkpoint.pt")
    encoder = zoo.load("asda", tmp_path / "checkpoint.pt", mel_bins=numbers["source"].shape[-1])
    assert encoder.config.model.depth == settings["depth"]
    source = numbers["source"][:, 0]
    made, _ = targets(encoder.backbone, source, encoder.config.asda)
    close(made.patches, numbers["targets"])
    seen = encoder.backbone.inspect(source, mlp=range(settings["depth"]))
    for block in range(settings["depth"]):
        close(seen.mlp[block], numbers[f"teacher_t.{block}"])
    visible = numbers["ids_keep"]
    close(encoder.student.inspect(source, visible=visible, clones=settings["clone"]).tokens, numbers["student_out"])
    close(encoder.decoder(numbers["decoder_in"], seen.grid), numbers["decoder_out"])
