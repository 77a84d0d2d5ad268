"""Start weights: snapshots of other crop lengths, run directories, and ImageNet transformers in timm's layout."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from asit_lab import load_encoder, zoo
from asit_lab.config import load_config
from asit_lab.errors import InputError
from asit_lab.nn.vit import fit_positions
from asit_lab.objectives import ASiT, build_network
from asit_lab.runs.directory import open_run
from asit_lab.runs.snapshot import save_snapshot
from asit_lab.training.start_weights import init_student


def config(*overrides: str):
    """`smoke` with 16 kHz and 64 mel bands: 6 x 4 tokens of 48."""
    return load_config("smoke", ["mask.kinds={zeros: 1}", *overrides])


def snapshot(path, *overrides: str, step: int = 7):
    """A snapshot whose student and teacher differ; returns the two."""
    cfg = config(*overrides)
    student, teacher = build_network(cfg, seed=1), build_network(cfg, seed=2)
    save_snapshot(path, student, teacher, cfg, step)
    return student, teacher


# --- snapshots and runs ---------------------------------------------------------------------------------------------


def test_a_snapshot_gives_its_teacher_backbone_and_its_decoder(tmp_path):
    theirs, teacher = snapshot(tmp_path / "step-7.safetensors")
    student = build_network(config())
    notes = init_student(student, str(tmp_path / "step-7.safetensors"), config())
    for name, tensor in teacher.backbone.state_dict().items():
        assert torch.equal(student.backbone.state_dict()[name], tensor), name
    for name, tensor in theirs.decoder.state_dict().items():
        assert torch.equal(student.decoder.state_dict()[name], tensor), name
    assert torch.equal(student.heads.cls_layer.weight_v, build_network(config()).heads.cls_layer.weight_v)
    assert notes == [
        f"start weights: step 7 of {tmp_path / 'step-7.safetensors'}",
        "heads start untrained: only a run directory has trained ones",
    ]
    assert all(p.requires_grad for p in student.backbone.parameters())


def test_the_shipped_encoder_gives_its_backbone_and_its_decoder():
    cfg, shipped = load_config("small"), load_encoder("shipped")
    student = build_network(cfg)
    notes = init_student(student, "shipped", cfg)
    for name, tensor in shipped.backbone.state_dict().items():
        assert torch.equal(student.backbone.state_dict()[name], tensor), name
    for name, tensor in shipped.decoder.state_dict().items():
        assert torch.equal(student.decoder.state_dict()[name], tensor), name
    assert notes == [f"start weights: {shipped.name}", "heads start untrained: a saved encoder has none"]


def test_a_saved_encoder_of_another_shape_is_refused(tmp_path):
    load_encoder("shipped").save_pretrained(tmp_path / "saved")
    with pytest.raises(InputError, match=r"saved: weights of another architecture\n  mask_embed"):
        init_student(build_network(load_config("micro")), str(tmp_path / "saved"), load_config("micro"))


@pytest.mark.parametrize("setting", ["model.heads=1", "model.norm=post", "model.class_token_at=1"])
def test_weights_of_equal_shapes_that_mean_something_else_are_refused(tmp_path, setting):
    snapshot(tmp_path / "s.safetensors")
    cfg = config(setting)
    with pytest.raises(InputError, match=f"s.safetensors has {setting.partition('=')[0]} .*, this run "):
        init_student(build_network(cfg), str(tmp_path / "s.safetensors"), cfg)


def test_weights_of_another_log_mel_are_noted(tmp_path):
    snapshot(tmp_path / "s.safetensors")
    cfg = config("features.mel_bins=32", "features.hop_ms=8", "features.mean=0")
    notes = init_student(build_network(cfg), str(tmp_path / "s.safetensors"), cfg)
    assert notes[1] == (
        "the start weights were trained on another log-mel: "
        "features.mel_bins 64 there, 32 here, features.hop_ms 10 there, 8 here"
    )
    cfg = config("features.high_hz=8000")  # half the sample rate, as 0 is
    assert len(init_student(build_network(cfg), str(tmp_path / "s.safetensors"), cfg)) < len(notes)


@pytest.mark.parametrize(("seconds", "frames"), [(0.5, 48), (1.98, 192)])
def test_a_snapshot_of_another_crop_length(tmp_path, seconds, frames):
    _, teacher = snapshot(tmp_path / "s.safetensors")  # 1 s: 6 x 4 tokens
    student = build_network(config(f"data.crop_seconds={seconds}"))
    init_student(student, str(tmp_path / "s.safetensors"), config(f"data.crop_seconds={seconds}"))
    wanted = fit_positions(teacher.backbone.pos_embed, (6, 4), (frames // 16, 4))
    assert torch.equal(student.backbone.pos_embed, wanted)
    assert student.backbone.grid == (frames // 16, 4)
    if frames == 48:
        assert torch.equal(wanted, teacher.backbone.pos_embed[:, : 1 + 12])
    with torch.no_grad():
        assert student.backbone(torch.randn(1, frames, 64)).shape == (1, 1 + frames // 4, 48)


def test_a_decoder_of_another_shape_is_left(tmp_path):
    _, teacher = snapshot(tmp_path / "s.safetensors", "heads.decoder_hidden=40")
    student = build_network(config())
    before = {name: t.clone() for name, t in student.decoder.state_dict().items()}
    notes = init_student(student, str(tmp_path / "s.safetensors"), config())
    assert notes[1] == "its decoder has another shape and was not taken"
    assert all(torch.equal(t, before[name]) for name, t in student.decoder.state_dict().items())
    assert torch.equal(student.backbone.cls_token, teacher.backbone.cls_token)


COPIES = ("model.mask_input=true", "heads.decoder_copies=true")


@pytest.mark.parametrize(("there", "here"), [(COPIES[:1], COPIES), (COPIES, COPIES[:1])])
def test_a_decoder_that_copies_on_one_side_only(tmp_path, there, here):
    theirs, _ = snapshot(tmp_path / "s.safetensors", *there)
    student = build_network(config(*here))
    note = init_student(student, str(tmp_path / "s.safetensors"), config(*here))[1]
    assert note == (
        "its decoder copies, which is left out" if there is COPIES else "the decoder's copying starts untrained"
    )
    for name, tensor in theirs.decoder.state_dict().items():
        assert "copies" in name or torch.equal(student.decoder.state_dict()[name], tensor), name


@pytest.mark.parametrize(("there", "here"), [("local", "reconstruction"), ("reconstruction", "local")])
def test_a_decoder_on_one_side_only(tmp_path, there, here):
    _, teacher = snapshot(tmp_path / "s.safetensors", f"objective.weights={{{there}: 1}}")
    student = build_network(config(f"objective.weights={{{here}: 1}}"))
    notes = init_student(student, str(tmp_path / "s.safetensors"), config())
    assert not any("decoder" in note for note in notes[1:])
    assert torch.equal(student.backbone.cls_token, teacher.backbone.cls_token)


def test_a_run_gives_its_last_snapshot(tmp_path):
    run = open_run(tmp_path / "run", config())
    with pytest.raises(InputError, match=r"train\.init_from: .*run holds no snapshot yet"):
        init_student(build_network(config()), str(run.dir), config())
    snapshot(run.dir / "snapshots/step-9.safetensors", step=9)
    last = build_network(config(), seed=3)
    save_snapshot(run.dir / "snapshots/step-10.safetensors", build_network(config()), last, config(), 10)
    student = build_network(config())
    notes = init_student(student, str(run.dir), config())
    assert torch.equal(student.backbone.cls_token, last.backbone.cls_token)
    assert "step 10 of" in notes[0]


def test_the_teacher_starts_from_the_same_weights(tmp_path):
    _, theirs = snapshot(tmp_path / "s.safetensors")
    objective = ASiT(config(), 40)
    init_student(objective.student, str(tmp_path / "s.safetensors"), config())
    objective.reset_teacher()
    assert torch.equal(objective.teacher.backbone.norm.weight, theirs.backbone.norm.weight)
    assert torch.equal(objective.teacher.backbone.cls_token, theirs.backbone.cls_token)


# --- timm -----------------------------------------------------------------------------------------------------------

SIDE = 14  # 224 / 16 patches


def timm_weights(width: int = 48, depth: int = 2, side: int = SIDE, patch: int = 16) -> dict[str, torch.Tensor]:
    """What timm saves for an ImageNet vision transformer, with random numbers."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + side * side, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (10, width),
        "head.bias": (10,),
    }
    for i in range(depth):
        shapes |= {
            f"blocks.{i}.norm1.weight": (width,),
            f"blocks.{i}.norm1.bias": (width,),
            f"blocks.{i}.attn.qkv.weight": (3 * width, width),
            f"blocks.{i}.attn.qkv.bias": (3 * width,),
            f"blocks.{i}.attn.proj.weight": (width, width),
            f"blocks.{i}.attn.proj.bias": (width,),
            f"blocks.{i}.norm2.weight": (width,),
            f"blocks.{i}.norm2.bias": (width,),
            f"blocks.{i}.mlp.fc1.weight": (4 * width, width),
            f"blocks.{i}.mlp.fc1.bias": (4 * width,),
            f"blocks.{i}.mlp.fc2.weight": (width, 4 * width),
            f"blocks.{i}.mlp.fc2.bias": (width,),
        }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def load(tmp_path):
    """Save tensors as timm would, load them into a new network; returns (its backbone, notes)."""

    def load(tensors: dict[str, torch.Tensor], *overrides: str):
        save_file(tensors, tmp_path / "vit.safetensors")
        student = build_network(config(*overrides))
        return student.backbone, init_student(student, str(tmp_path / "vit.safetensors"), config())

    return load


def test_everything_but_patches_positions_and_classifier_is_taken_as_it_is(load):
    theirs = timm_weights()
    backbone, notes = load(theirs)
    adapted = {"patch_embed.proj.weight", "pos_embed"}
    for name, tensor in backbone.state_dict().items():
        if name not in adapted:
            assert torch.equal(tensor, theirs[name]), name
    assert "summed to 1" in notes[1]
    assert "14x14 resized to (6, 4)" in notes[1]


def test_an_image_of_equal_channels_gives_the_same_patches(load):
    """A spectrogram, as a grey image with the mel bands as rows, through the original convolution."""
    theirs = timm_weights()
    backbone, _ = load(theirs)
    x = torch.randn(2, 96, 64)
    image = x.transpose(1, 2)[:, None].expand(-1, 3, -1, -1)  # [B, 3, mel, time]
    patches = F.conv2d(image, theirs["patch_embed.proj.weight"], theirs["patch_embed.proj.bias"], stride=16)
    wanted = patches.transpose(2, 3).flatten(2).transpose(1, 2)  # [B, D, mel, time] -> time-major
    torch.testing.assert_close(backbone.patch_embed(x), wanted, rtol=1e-4, atol=1e-3)


def test_positions_are_resized_with_mel_for_height(load):
    theirs = timm_weights()
    rows = torch.arange(SIDE).repeat_interleave(SIDE).float()  # of each patch of the image, row by row
    columns = torch.arange(SIDE).repeat(SIDE).float()
    theirs["pos_embed"][0, 1:, 0], theirs["pos_embed"][0, 1:, 1] = rows, columns
    backbone, _ = load(theirs)
    image = backbone.pos_embed[0, 1:].view(6, 4, 48)  # time, mel
    assert torch.equal(backbone.pos_embed[:, 0], theirs["pos_embed"][:, 0])
    along_mel = (torch.arange(4) + 0.5) * SIDE / 4 - 0.5
    along_time = (torch.arange(6) + 0.5) * SIDE / 6 - 0.5
    torch.testing.assert_close(image[..., 0], along_mel.expand(6, 4), rtol=0, atol=0.25)
    torch.testing.assert_close(image[..., 1], along_time[:, None].expand(6, 4), rtol=0, atol=0.25)


def test_positions_of_the_same_grid_are_only_turned(load):
    theirs = timm_weights(side=4)
    backbone, _ = load(theirs, "data.crop_seconds=0.66")  # 4 x 4 tokens
    wanted = theirs["pos_embed"][:, 1:].view(4, 4, 48).transpose(0, 1)
    torch.testing.assert_close(backbone.pos_embed[0, 1:].view(4, 4, 48), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files(load, dtype):
    theirs = timm_weights()
    backbone, _ = load({name: t.to(dtype) for name, t in theirs.items()})
    assert {t.dtype for t in backbone.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(backbone.norm.weight, theirs["norm.weight"], rtol=1e-2, atol=1e-2)
    wanted = theirs["patch_embed.proj.weight"].sum(1, keepdim=True).transpose(2, 3)
    torch.testing.assert_close(backbone.patch_embed.proj.weight, wanted, rtol=1e-2, atol=3e-2)


# --- what does not fit ----------------------------------------------------------------------------------------------


def test_another_architecture_is_named_tensor_by_tensor(load, tmp_path):
    theirs = timm_weights(width=24)
    with pytest.raises(InputError) as error:
        load(theirs)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'vit.safetensors'}: weights of another architecture")
    assert "blocks.0.attn.proj.weight: (24, 24) there, (48, 48) here" in text
    assert "and 24 more" in text  # 6 of the 30 tensors of two blocks are shown
    theirs = timm_weights(depth=3)
    with pytest.raises(InputError, match=r"blocks\.2\.attn\.proj\.bias: not part of this model"):
        load(theirs)
    theirs = timm_weights()
    del theirs["norm.bias"]
    with pytest.raises(InputError, match=r"norm\.bias: missing"):
        load(theirs)
    with pytest.raises(InputError, match=r"patch_embed\.proj\.weight: \(48, 1, 8, 8\) there, \(48, 1, 16, 16\) here"):
        load(timm_weights(patch=8))


def test_transformers_without_usual_positions(load):
    distilled = timm_weights()
    distilled["pos_embed"] = torch.randn(1, 2 + SIDE * SIDE, 48)
    with pytest.raises(InputError, match=r"pos_embed has 197 places, which is not a square image"):
        load(distilled)
    relative = timm_weights()
    del relative["pos_embed"]
    with pytest.raises(InputError, match=r"vit\.safetensors: weights of another architecture\n  pos_embed: missing"):
        load(relative)


def test_a_snapshot_of_another_architecture(tmp_path):
    snapshot(tmp_path / "s.safetensors", "model.depth=3")
    with pytest.raises(InputError, match=r"s\.safetensors: weights of another architecture\n  blocks\.2\."):
        init_student(build_network(config()), str(tmp_path / "s.safetensors"), config())
    student = build_network(config())
    before = {name: t.clone() for name, t in student.state_dict().items()}
    snapshot(tmp_path / "wide.safetensors", "model.width=96")
    with pytest.raises(InputError, match=r"\(96,\) there, \(48,\) here"):
        init_student(student, str(tmp_path / "wide.safetensors"), config())
    assert all(torch.equal(t, before[name]) for name, t in student.state_dict().items())


def test_tensors_are_no_imagenet_file():
    with pytest.raises(InputError, match="imagenet: expected the path of a .safetensors file, got tensors"):
        zoo.load("imagenet", {})


def test_files_that_are_no_start_weights(tmp_path):
    student = build_network(config())
    with pytest.raises(InputError, match=r"train\.init_from: .*nothing does not exist"):
        init_student(student, str(tmp_path / "nothing"), config())
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(InputError, match=r"text\.safetensors: not a readable \.safetensors file"):
        init_student(student, str(tmp_path / "text.safetensors"), config())
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors: not a snapshot of asit_lab"):
        init_student(student, str(tmp_path / "other.safetensors"), config())
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder: not a run directory"):
        init_student(student, str(tmp_path / "folder"), config())
