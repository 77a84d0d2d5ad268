"""Replay of numbers made by the published ASiT code: every golden/asit_* file.

The folder is $ASIT_LAB_GOLDEN or tests/golden; every size comes from the files.
"""

import json

import numpy as np
import pytest
import torch
from golden_case import FOLDER, close, golden, under

from asit_lab import zoo
from asit_lab.config import load_config
from asit_lab.features import LogMel
from asit_lab.masking import Masks, gmml
from asit_lab.nn import DistillationHeads, ReconstructionHead
from asit_lab.objectives import ASiT
from asit_lab.objectives.losses import cross_entropy, cross_view_loss, masked_l1, teacher_probabilities
from asit_lab.random import key
from asit_lab.schedules import cosine, linear
from asit_lab.settings import Heads
from asit_lab.training.optimizer import build_optimizer, clip_gradients, set_schedule
from asit_lab.zoo.asit import rename_asit

# --- features -------------------------------------------------------------------------------------------------------


def front_end(settings: dict) -> LogMel:
    return LogMel(
        sample_rate=settings["sample_rate"],
        mel_bins=settings["mel_bins"],
        frame_ms=settings["frame_length_ms"],
        hop_ms=settings["frame_shift_ms"],
        mean=settings["data_mean"],
        std=settings["data_std"],
    )


def test_log_mel():
    tensors, settings = golden("asit_features")
    features = front_end(settings)
    raw = features(tensors["waveform"])[0]
    assert raw.shape == tensors["fbank_raw"].shape
    assert (raw - tensors["fbank_raw"]).abs().max() < 2e-3
    assert (features.normalise(raw) - tensors["fbank_norm"]).abs().max() < 2e-4
    floor = tensors["fbank_raw"] == tensors["fbank_raw"].min()
    assert floor.any()
    assert (raw[floor] - tensors["fbank_raw"][floor]).abs().max() < 1e-5


def test_padding_comes_before_normalising():
    tensors, settings = golden("asit_features")
    features = front_end(settings)
    wanted = tensors["fbank_norm_padded_tail"]
    real = tensors["fbank_raw"].shape[0]
    added = int((wanted == wanted[-1]).all(1).sum())  # the padded frames are all alike
    padded = features.fit(features(tensors["waveform"]), real + added)
    assert (features.normalise(padded)[0, -len(wanted) :] - wanted).abs().max() < 2e-4


# --- backbone and heads ---------------------------------------------------------------------------------------------


def test_backbone_and_each_attention_map():
    tensors, settings = golden("asit_backbone")
    frames, mel_bins = settings["audio_size"]
    encoder = zoo.load("asit", under(tensors, "param."), heads=settings["num_heads"], mel_bins=mel_bins, frames=frames)
    layers = range(settings["depth"])
    vit, view = encoder.backbone, tensors["input"][:, 0]
    with torch.no_grad():
        close(vit.embed(view), tensors["embed_out"])
        seen = vit.inspect(view, hidden=[0], maps=layers)
        close(seen.hidden[0], tensors["block0_out"])
        close(seen.tokens, tensors["tokens_out"])
        for layer in layers:
            close(seen.maps[layer].map, tensors[f"attn.{layer}"])
        close(vit(view), tensors["tokens_out"])  # without maps
        for block in vit.blocks:
            block.attn.path = "fused"
        close(vit(view), tensors["tokens_out"])


def build_heads(state: dict[str, torch.Tensor], width: int) -> DistillationHeads:
    """The released shared projection with its two output layers, sizes read from the weights."""
    renamed = rename_asit({f"head_cls.{key}": tensor for key, tensor in state.items()})
    state = {key.removeprefix("heads."): tensor for key, tensor in renamed.items()}
    sizes = Heads(
        shared=True,
        hidden=state["mlp.0.weight"].shape[0],
        bottleneck=state["mlp.4.weight"].shape[0],
        local_out=state["data_layer.weight_v"].shape[0],
        global_out=state["cls_layer.weight_v"].shape[0],
    )
    heads = DistillationHeads(width, sizes, local=True, global_=True)
    heads.load_state_dict(state)
    return heads.eval()


def test_distillation_heads():
    tensors, settings = golden("asit_heads")
    x = tensors["input"]
    with torch.no_grad():
        heads = build_heads(under(tensors, "cls."), settings["embed_dim"])
        close(heads.mlp(x), tensors["bottleneck_norm"])
        close(heads.global_(x[:, 0]), tensors["cls_out"])
        close(heads.local(x[:, 1:]), tensors["data_out"])
        gains = build_heads(
            {
                **under(tensors, "cls."),
                **{k: t for k, t in under(tensors, "rand_g.").items() if k.endswith("weight_g")},
            },
            settings["embed_dim"],
        )
        close(gains.global_(x[:, 0]), tensors["rand_g.cls_out"])
        close(gains.local(x[:, 1:]), tensors["rand_g.data_out"])


def test_reconstruction_head():
    tensors, settings = golden("asit_heads")
    patch, (frames, mel_bins) = settings["patch"], settings["audio_size"]
    head = ReconstructionHead(
        settings["embed_dim"], settings["rec_hidden"], settings["rec_bottleneck"], (patch, patch), last_gelu=True
    )
    head.load_state_dict(under(tensors, "rec."))
    with torch.no_grad():
        rebuilt = head(tensors["input"][:, 1:], (frames // patch, mel_bins // patch))
    close(rebuilt, tensors["rec_out"][:, 0])


# --- losses and schedules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cls", "data"])
def test_distillation_losses_with_centres_and_gradients(kind):
    tensors, settings = golden("asit_losses")
    centre = tensors[f"{kind}.call0.center_before"][0]
    for call in range(len(settings["epochs"])):
        given = under(tensors, f"{kind}.call{call}.")
        student, teacher = given["student"].clone().requires_grad_(), given["teacher"]
        temperature = linear(settings["wt"], settings["tt"], settings["we"], int(given["epoch"]))
        assert temperature == pytest.approx(given["teacher_temp"].item(), rel=1e-9)
        close(centre[None], given["center_before"]) if call else None
        wanted = teacher_probabilities(teacher, centre, temperature)
        if kind == "cls":
            loss = cross_view_loss(
                student.unflatten(0, (2, -1)), wanted.unflatten(0, (2, -1)), settings["student_temp"]
            )
        else:
            loss = cross_entropy(student, wanted, settings["student_temp"]).mean()
        loss.backward()
        close(loss.detach()[None], given["loss"])
        close(student.grad, given["student_grad"], 1e-3)
        momentum = settings["center_momentum"]
        centre = momentum * centre + (1 - momentum) * teacher.mean(0)
        close(centre[None], given["center_after"])


@pytest.mark.parametrize("kind", ["cls", "data"])
def test_teacher_temperature_schedule(kind):
    tensors, s = golden("asit_losses")
    wanted = tensors[f"{kind}.temp_schedule"].double().numpy()
    ours = [linear(s["wt"], s["tt"], s["we"], epoch) for epoch in range(len(wanted))]
    np.testing.assert_allclose(ours, wanted, rtol=1e-9)


def test_masked_l1():
    tensors, _ = golden("asit_losses")
    value = masked_l1(tensors["l1.recon"], tensors["l1.target"], tensors["l1.mask"] == 1)
    close(value[None], tensors["l1.value"])


def test_schedules():
    tensors, s = golden("asit_schedules")
    steps, warmup = s["epochs"] * s["niter"], s["warm"] * s["niter"]
    peak = s["base_lr"] * s["batch"] * s["world"] / 256
    curves = {
        "lr": [cosine(peak, s["min_lr"], steps, i, warmup) for i in range(steps)],
        "weight_decay": [cosine(s["wd"], s["wd_end"], steps, i) for i in range(steps)],
        "ema_momentum": [cosine(s["momentum"], 1.0, steps, i) for i in range(steps)],
    }
    for name, ours in curves.items():
        np.testing.assert_allclose(ours, tensors[name].double().numpy(), rtol=1e-9, err_msg=name)


# --- whole training steps -------------------------------------------------------------------------------------------


def objective_of(s: dict) -> tuple[ASiT, int]:
    """Our objective in the released form with the sizes of a fixture, and the number of clips that gives its steps."""
    frames, mel_bins = s["audio_size"]
    cfg = load_config(
        "asit-official-vit-s",
        [
            "mask.kinds={zeros: 1}",  # the masks are the file's
            f"features.mel_bins={mel_bins}",
            f"data.crop_seconds={(frames * 10 + 15) / 1000}",
            f"model.width={s['embed_dim']}",
            f"model.depth={s['depth']}",
            f"model.heads={s['num_heads']}",
            f"model.drop_path={s['drop_path']}",
            f"heads.hidden={s['hidden']}",
            f"heads.bottleneck={s['bottleneck']}",
            f"heads.global_out={s['out_cls']}",
            f"heads.local_out={s['out_data']}",
            f"heads.decoder_hidden={s['rec_hidden']}",
            f"heads.decoder_bottleneck={s['rec_bottleneck']}",
            f"objective.teacher_temperature={s['teacher_temp'][0]}",
            f"objective.teacher_temperature_end={s['teacher_temp'][1]}",
            f"objective.teacher_temperature_warmup={s['we']} epochs",
            f"objective.ema={s['momentum'][0]}",
            f"objective.ema_end={s['momentum'][1]}",
            f"optim.rate={s['base_lr']}",
            f"optim.min_rate={s['min_lr']}",
            f"optim.warmup={s['warm']} epochs",
            f"optim.weight_decay={s['wd'][0]}",
            f"optim.weight_decay_end={s['wd'][1]}",
            f"optim.clip={s['clip']}",
            f"train.epochs={s['epochs']}",
            f"train.batch_size={s['batch'] * s['world']}",
        ],
    )
    clips = s["batch"] * s["world"] * s["niter"]
    return ASiT(cfg, clips), clips


# In float32 Adam makes up to some per cent of a step out of the rounding noise of gradients that are nearly zero.
@pytest.mark.parametrize(("dtype", "share_of_rate"), [(torch.float64, 0.005), (torch.float32, 0.05)])
def test_training_steps(dtype, share_of_rate):
    tensors, s = golden("asit_train_step")
    tensors = {name: t.to(dtype) for name, t in tensors.items()}
    objective, clips = objective_of(s)
    objective.to(dtype)
    objective.student.load_state_dict(rename_asit(under(tensors, "student_before.")))
    objective.teacher.load_state_dict(rename_asit(under(tensors, "teacher_before.")))
    objective.centre_global.copy_(tensors["cls_center_before"][0])
    objective.centre_local.copy_(tensors["data_center_before"][0])
    optimizer = build_optimizer(objective.cfg, objective)
    decayed = {id(p) for g in optimizer.param_groups if g["decay"] for p in g["params"]}
    names = {id(p): name for name, p in objective.student.named_parameters()}
    assert {names[i] for i in decayed} == set(rename_asit(dict.fromkeys(s["regularised"])))

    clean = torch.stack([tensors["clean.0"][:, 0], tensors["clean.1"][:, 0]])  # [2, B, T, M]
    pixels = torch.stack([tensors["mask.0"][:, 0], tensors["mask.1"][:, 0]]) == 1
    masks = Masks(pixels.flatten(0, 1), torch.zeros(2 * clean.shape[1]), torch.zeros(2 * clean.shape[1]))
    corrupted = clean.masked_fill(pixels, 0.0)
    parameters = [p for g in optimizer.param_groups for p in g["params"]]
    steps = sum(name.endswith(".loss_total") for name in tensors)
    noise = {}  # where a gradient is rounding noise, of which Adam makes a whole step
    assert steps >= 2
    for i in range(steps):
        step = s["niter"] * s["epoch"] + i
        assert step == tensors[f"step{i}.iteration"].item()
        given = under(tensors, f"step{i}.")
        schedule = under(golden("asit_train_step")[0], f"step{i}.")  # float64 in the file
        rates = set_schedule(optimizer, objective.cfg, clips, step)
        assert rates["rate"] == pytest.approx(schedule["lr"].item(), rel=1e-9)
        assert rates["weight_decay"] == pytest.approx(schedule["wd"].item(), rel=1e-9)
        assert objective.ema_momentum(step) == pytest.approx(schedule["momentum"].item(), rel=1e-9)
        if i == 0:
            check_outputs(objective, corrupted, clean, given)
        losses = objective.losses(clean, corrupted, masks, step)
        losses.total.backward()
        for ours, theirs in {"global": "cls", "local": "data", "reconstruction": "rec"}.items():
            close(losses.parts[ours].detach()[None], given[f"loss_{theirs}"])
        close(losses.total.detach()[None], given["loss_total"])
        gradients = {name: p.grad for name, p in objective.student.named_parameters()}
        for name, wanted in rename_asit(under(given, "grad.")).items():
            close(gradients[name], wanted, 1e-3)
        for name, gradient in gradients.items():
            if gradient is not None:
                tiny = gradient.abs() < 1e-5 * gradient.abs().max()
                noise[name] = noise.get(name, tiny) | tiny
        clip_gradients(parameters, objective.cfg.optim.clip, objective.cfg.optim.clip_by)
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(step)
        for role in ("student", "teacher"):
            state = getattr(objective, role).state_dict()
            for name, wanted in rename_asit(under(tensors, f"{role}_after_step{i}.")).items():
                share = share_of_rate if i == 0 else 0.05  # a weight whose step was noise moves others' gradients
                limit = share * schedule["lr"].item() * (i + 1)
                check_weights(name, state[name], wanted, limit, s["embed_dim"], noise.get(name))
        if i == 0:
            close(objective.centre_global[None], tensors["cls_center_after_step0"])
            close(objective.centre_local[None], tensors["data_center_after_step0"])


def check_outputs(objective: ASiT, corrupted: torch.Tensor, clean: torch.Tensor, given: dict) -> None:
    student, teacher = objective.student, objective.teacher
    with torch.no_grad():
        tokens = student.backbone(corrupted.flatten(0, 1))
        close(student.heads.global_(tokens[:, 0]), given["student_cls"])
        close(student.decoder(tokens[:, 1:], student.backbone.grid), given["recon"][:, 0])
        close(teacher.heads.global_(teacher.backbone(clean.flatten(0, 1))[:, 0]), given["teacher_cls"])


def check_weights(name: str, ours: torch.Tensor, wanted: torch.Tensor, limit: float, dim: int, noise) -> None:
    """Within a small part of the learning rate, apart from rounding of the weights themselves; where the gradient is
    rounding noise, as that of key biases is, which are mathematically zero, Adam makes a step of it: left out."""
    difference = (ours - wanted).abs()
    if name.endswith("qkv.bias"):
        difference[dim : 2 * dim] = 0
    if noise is not None:
        difference[noise] = 0
    assert difference.max() <= limit + 2e-7 * wanted.abs().max(), f"{name}: differs by {difference.max():.2e}"


# --- corruption -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gmml_statistics():
    statistics = json.loads((FOLDER / "asit_gmml_stats.json").read_text())
    cases = {case: wanted for case, wanted in statistics.items() if "draws" in wanted}
    assert {case.split("_")[0] for case in cases} == {"zeros", "alien"}
    for case, wanted in cases.items():
        kind = case.split("_")[0]
        ratio = "alien_ratio" if kind == "alien" else "ratio"
        patch = wanted["align"] if wanted["align"] > 1 else 16
        cfg = load_config(
            "asit-official-vit-s",
            [
                f"mask.kinds={{{kind}: 1}}",
                f"mask.align={wanted['align'] > 1}",
                f"model.patch=[{patch}, {patch}]",
                f"mask.{ratio}={wanted['drop']}",
                f"mask.block={wanted['max_block_frac']}",
            ],
        )
        frames, mels = wanted["shape"]
        keys = key(1, torch.arange(wanted["draws"]), case)
        masks = [gmml(part, frames, mels, cfg.mask, cfg.model.patch) for part in keys.split(200)]
        share = torch.cat([m.pixels.float().mean((1, 2)) for m in masks]).double()
        blocks = torch.cat([m.blocks for m in masks]).double()
        error = wanted["fraction"]["std"] * (2 / wanted["draws"]) ** 0.5  # of a difference: both sides are drawn
        assert abs(share.mean() - wanted["fraction"]["mean"]) < 4 * error, case
        assert share.std().item() == pytest.approx(wanted["fraction"]["std"], rel=0.10), case
        assert blocks.mean().item() == pytest.approx(wanted["n_blocks"]["mean"], rel=0.05), case
        heights, widths = block_sides(keys, frames, mels, cfg, blocks.long())
        assert heights == pytest.approx(wanted["block_height"]["mean"], rel=0.05), case
        assert widths == pytest.approx(wanted["block_width"]["mean"], rel=0.05), case


def block_sides(keys, frames, mels, cfg, blocks) -> tuple[float, float]:
    """Mean height and width of the blocks that `gmml` used, read from the functions it draws them with."""
    from asit_lab import masking
    from asit_lab.random import fold

    align = cfg.model.patch if cfg.mask.align else (1, 1)
    never = torch.zeros(len(keys), dtype=torch.bool)
    total, sums = 0, [0.0, 0.0]
    for round_ in range(int(blocks.max()) // masking._ROUND + 1):
        used = (blocks - round_ * masking._ROUND).clamp(0, masking._ROUND)
        in_use = torch.arange(masking._ROUND) < used[:, None]
        round_keys = fold(keys, "blocks", round_)
        for i, (name, size) in enumerate((("frames", frames), ("mels", mels))):
            sides = masking._sides(fold(round_keys, name), size, cfg.mask.block, align[i], never)
            sums[i] += sides.sum(-1)[in_use].sum().item()
        total += in_use.sum().item()
    return sums[0] / total, sums[1] / total
