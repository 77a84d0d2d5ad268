"""Checkpoints in the form the released ASiT code saves, made here, through `zoo.load("asit", ...)`."""

import argparse

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from asit_lab import zoo
from asit_lab.config import load_config
from asit_lab.errors import InputError
from asit_lab.objectives.asit_network import AsitNetwork

GRID = (6, 4)  # 96 frames x 64 mel bands


def network(seed: int) -> AsitNetwork:
    """A small network in the released form: shared projection, GELU after the decoder's bottleneck."""
    cfg = load_config(
        "asit-official-vit-s",
        [
            "features.mel_bins=64",
            "data.crop_seconds=0.975",
            "model={width: 48, depth: 2, heads: 3, mlp_ratio: 3.5}",
            "heads={shared: true, hidden: 40, bottleneck: 16, local_out: 12, global_out: 20, decoder_hidden: 36, "
            "decoder_bottleneck: 10, decoder_last_gelu: true}",
        ],
    )
    torch.manual_seed(seed)
    made = AsitNetwork(cfg)
    assert made.backbone.grid == GRID
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def released_names(made: AsitNetwork, prefix: str = "") -> dict[str, torch.Tensor]:
    """The network's weights under the names of the released code."""
    state = {}
    for name, tensor in made.state_dict().items():
        part, rest = name.split(".", 1)
        part = {"heads": "head_cls", "decoder": "head_recons"}.get(part, part)
        state[f"{prefix}{part}.{rest}"] = tensor
    return state


@pytest.fixture(scope="module")
def student():
    return network(0)


@pytest.fixture(scope="module")
def teacher():
    return network(1)


@pytest.fixture
def published(tmp_path, student, teacher):
    """A training checkpoint: two roles, optimiser, arguments, centres."""
    path = tmp_path / "checkpoint0003.pth"
    optimizer = torch.optim.AdamW(student.backbone.parameters())
    torch.save(
        {
            "student": released_names(student, "module."),
            "teacher": released_names(teacher),
            "optimizer": optimizer.state_dict(),
            "epoch": 3,
            "args": argparse.Namespace(data_path="somewhere", lr=5e-4, patch_size=16),
            "fp16_scaler": None,
            "cls_loss": {"center": torch.zeros(1, 20)},
            "data_loss": {"center": torch.zeros(1, 12)},
        },
        path,
    )
    return path


def wave(seconds: float = 0.975) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, int(32000 * seconds))).astype(np.float32) * 0.1


SIZES = {"heads": 3, "mel_bins": 64}


def test_teacher_by_default(published, teacher):
    encoder = zoo.load("asit", published, **SIZES)
    for name, tensor in teacher.backbone.state_dict().items():
        assert torch.equal(encoder.backbone.state_dict()[name], tensor)
    x = encoder.log_mel(wave(), 32000)
    assert x.shape == (2, 96, 64)
    torch.testing.assert_close(encoder.backbone(x), teacher.backbone(x))
    assert encoder.embed(wave(), 32000).shape == (2, 48)
    assert encoder.tokens(wave(), 32000).shape == (2, *GRID, 48)
    assert "checkpoint0003.pth" in encoder.name
    assert "teacher" in encoder.name


def test_what_the_weights_imply(published):
    cfg = zoo.load("asit", published, **SIZES).config
    assert (cfg.model.width, cfg.model.depth, cfg.model.heads, cfg.model.mlp_ratio) == (48, 2, 3, 3.5)
    assert cfg.model.patch == (16, 16)
    assert cfg.grid == GRID
    assert (cfg.heads.decoder_hidden, cfg.heads.decoder_bottleneck, cfg.heads.decoder_last_gelu) == (36, 10, True)
    front = cfg.features
    assert (front.sample_rate, front.mel_bins, front.mean, front.std) == (32000, 64, -4.2677393, 4.5689974)


def test_reconstruction_is_the_students(published, student):
    encoder = zoo.load("asit", published, **SIZES)
    mask = torch.zeros(96, 64, dtype=torch.bool)
    mask[20:50] = True
    got = encoder.reconstruct(wave(), 32000, mask=mask)
    assert torch.equal(got.mask, mask.expand(2, -1, -1))
    assert (got.corrupted[got.mask] == 0).all()
    with torch.no_grad():
        wanted = student.decoder(student.backbone(got.corrupted)[:, 1:], GRID)
    torch.testing.assert_close(got.reconstructed, wanted)


def test_student_role(published, student):
    encoder = zoo.load("asit", published, role="student", **SIZES)
    assert torch.equal(encoder.backbone.cls_token, student.backbone.cls_token)
    assert encoder.student is encoder.backbone
    assert "student" in encoder.name


def test_the_encoder_is_for_use_not_for_training(published):
    encoder = zoo.load("asit", published, **SIZES)
    assert not encoder.training
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())


def test_attention_of_a_published_encoder(published):
    maps = zoo.load("asit", published, **SIZES).attention(wave(), 32000, layers=(0, -1)).map
    assert maps.shape == (2, 2, 3, 25, 25)
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))


def test_bare_backbone_as_state_dict_and_file(tmp_path, teacher):
    state = teacher.backbone.state_dict()
    torch.save(state, tmp_path / "bare.pt")
    save_file(state, tmp_path / "bare.safetensors")
    for source in (state, tmp_path / "bare.pt", str(tmp_path / "bare.safetensors")):
        encoder = zoo.load("asit", source, **SIZES)
        assert torch.equal(encoder.backbone.pos_embed, teacher.backbone.pos_embed)
        assert encoder.decoder is None
        with pytest.raises(InputError, match="has no decoder"):
            encoder.reconstruct(wave(), 32000)


def test_teacher_alone_has_no_student(tmp_path, teacher):
    state = {f"backbone.{name}": t for name, t in teacher.backbone.state_dict().items()}
    encoder = zoo.load("asit", {"teacher": state}, **SIZES)
    assert torch.equal(encoder.backbone.cls_token, teacher.backbone.cls_token)
    with pytest.raises(InputError, match="has no decoder"):
        encoder.reconstruct(wave(), 32000)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers(teacher, prefix):
    encoder = zoo.load("asit", {"teacher": released_names(teacher, prefix)}, **SIZES)
    assert torch.equal(encoder.backbone.cls_token, teacher.backbone.cls_token)
    assert encoder.decoder is not None  # where there is no student, the teacher's own


def test_other_grids(teacher):
    state = teacher.backbone.state_dict()  # 24 positions
    assert zoo.load("asit", state, heads=3, mel_bins=128).config.grid == (3, 8)
    assert zoo.load("asit", state, heads=3, mel_bins=64, frames=100).config.grid == (6, 4)  # 96 and a rest
    with pytest.raises(InputError, match=r"state dict: 24 positions do not make a grid of 16 x 16 .* over 80 mel"):
        zoo.load("asit", state, heads=3, mel_bins=80)
    with pytest.raises(InputError, match=r"over 64 mel bands and 128 frames; give mel_bins= and frames="):
        zoo.load("asit", state, heads=3, mel_bins=64, frames=128)
    with pytest.raises(InputError, match="over 100 mel bands"):
        zoo.load("asit", state, heads=3, mel_bins=100)


def test_heads_default_to_64_channels(teacher):
    state = teacher.backbone.state_dict()
    assert zoo.load("asit", state, mel_bins=64).config.model.heads == 1
    with pytest.raises(InputError, match=r"model\.heads: 5 does not divide model\.width 48"):
        zoo.load("asit", state, heads=5, mel_bins=64)


def test_files_that_are_something_else(tmp_path, published, teacher):
    with pytest.raises(InputError, match=r"state dict: no vision transformer of ASiT in it; first names: encoder\.w"):
        zoo.load("asit", {"encoder.w": torch.zeros(3)})
    with pytest.raises(InputError, match="no such file"):
        zoo.load("asit", tmp_path / "nothing.pth")
    lacking = {n: t for n, t in teacher.backbone.state_dict().items() if n != "pos_embed"}
    with pytest.raises(InputError, match="the backbone lacks pos_embed"):
        zoo.load("asit", lacking, **SIZES)
    lacking = {n: t for n, t in teacher.backbone.state_dict().items() if n != "blocks.1.norm2.bias"}
    with pytest.raises(InputError, match=r"weights do not fit(.|\n)*blocks\.1\.norm2\.bias"):
        zoo.load("asit", lacking, **SIZES)
    other = released_names(teacher)
    del other["head_recons.mlp.4.weight"]
    with pytest.raises(InputError, match=r"reconstruction head lacks mlp\.4\.weight"):
        zoo.load("asit", {"student": other}, role="student", **SIZES)
    with pytest.raises(InputError, match="'dino' is not one of asit, asda"):
        zoo.load("dino", published)


def test_a_role_that_is_not_there(published, student):
    with pytest.raises(InputError, match="role: 'studnet' is not one of teacher, student"):
        zoo.load("asit", published, role="studnet", **SIZES)
    with pytest.raises(InputError, match="has weights of the student, none of the teacher"):
        zoo.load("asit", {"student": released_names(student, "module.")}, **SIZES)
