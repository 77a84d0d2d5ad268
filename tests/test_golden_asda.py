"""Replay of numbers made by the published ASDA code: every golden/asda_* file.

The folder is $ASIT_LAB_GOLDEN or tests/golden; every size comes from the files.
"""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden_case import FOLDER, close, golden, under
from scipy import ndimage

from asit_lab import masking
from asit_lab.config import load_config
from asit_lab.masking import inverse_blocks
from asit_lab.nn import ConvDecoder, ViT, build_attention
from asit_lab.nn.vit import Block, sincos_positions
from asit_lab.objectives import ASDA
from asit_lab.objectives.asda import channel_variance, predict_targets, targets
from asit_lab.objectives.losses import frame_loss, latent_targets, utterance_loss
from asit_lab.objectives.teacher import ema_momentum
from asit_lab.random import key
from asit_lab.schedules import layer_scales, warmup_cosine
from asit_lab.settings import Model
from asit_lab.training.optimizer import build_optimizer, clip_gradients, set_schedule

# --- attention and block --------------------------------------------------------------------------------------------


def asda_model(settings: dict, **others) -> Model:
    """A backbone's settings from those of a file."""
    ratio = settings["mlp_hidden"] / settings["dim"]
    return Model(width=settings["dim"], heads=settings["heads"], mlp_ratio=ratio, attention="asda", **others)


@pytest.mark.parametrize("path", ["explicit", "fused", "blocks"])
def test_attention(path):
    tensors, settings = golden("asda_attention")
    module = build_attention("asda", settings["dim"], settings["heads"], path)
    module.load_state_dict(under(tensors, "param."))
    assert (settings["lambda_"], settings["output_scale"]) == (module.LAM, module.OUTPUT_SCALE)
    assert module.norm.eps == settings["norm_eps"]
    merged = []
    module.norm.register_forward_pre_hook(lambda _, given: merged.append(given[0]))
    with torch.no_grad():
        out, _ = module(tensors["input"])
        close(out, tensors["output"])
        close(merged[0], tensors["merged_before_norm"])


def test_attention_maps():
    tensors, settings = golden("asda_attention")
    module = build_attention("asda", settings["dim"], settings["heads"])
    module.load_state_dict(under(tensors, "param."))
    with torch.no_grad():
        out, maps = module(tensors["input"], maps=True)
    close(out, tensors["output"])
    close(maps.first, tensors["attn1"])
    close(maps.second, tensors["attn2"])
    close(maps.map, tensors["attn_diff"])
    assert maps.lam.item() == pytest.approx(settings["lambda_"])


@pytest.mark.parametrize("path", ["explicit", "fused"])
def test_post_norm_block(path):
    tensors, settings = golden("asda_block")
    block = Block(asda_model(settings, norm="post", attention_path=path), 0.0, layer=1)
    block.load_state_dict(under(tensors, "param."))
    assert (block.norm1.eps, block.norm2.eps) == (settings["ln_eps"],) * 2
    assert block.attn.norm.eps == settings["attn_norm_eps"]
    with torch.no_grad():
        out, target, _ = block(tensors["input"], None)
    close(out, tensors["post.x"])
    close(target, tensors["post.t"])


def test_pre_norm_block():
    """The released code then loses the residual and adds the MLP's output to itself; ours does not."""
    tensors, settings = golden("asda_block")
    block = Block(asda_model(settings, norm="pre"), 0.0, layer=1)
    block.load_state_dict(under(tensors, "param."))
    with torch.no_grad():
        out, target, _ = block(tensors["input"], None)
        between = tensors["input"] + block.attn(block.norm1(tensors["input"]))[0]
    close(target, tensors["pre.t"])
    close(2 * target, tensors["pre.x"])
    close(out, between + tensors["pre.t"])


# --- decoder and positions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["a", "b"])
def test_decoder(case):
    tensors, settings = golden("asda_decoder")
    decoder = ConvDecoder(
        settings[f"input_dim_{case}"], settings["dim"], settings["layers"], settings["kernel"], settings["groups"]
    )
    decoder.load_state_dict(under(tensors, f"{case}.param."))
    with torch.no_grad():
        close(decoder(tensors[f"{case}.input"], (settings["h"], settings["w"])), tensors[f"{case}.output"])


def test_patches_and_fixed_positions():
    tensors, settings = golden("asda_patch_pos")
    weight = tensors["param.proj.weight"]
    model = Model(width=settings["dim"], heads=1, depth=1, patch=tuple(weight.shape[2:]), positions="fixed")
    vit = ViT(model, tuple(settings["grid"]))
    vit.patch_embed.load_state_dict(under(tensors, "param."))
    with torch.no_grad():
        vit.cls_token.zero_()
        close(vit.patch_embed(tensors["input"][:, 0]), tensors["patches"])
        close(vit.positions(vit.grid)[0, 1:], tensors["pos"])
        embedded = vit.embed(tensors["input"][:, 0])
    close(embedded[:, 1:], tensors["patches_plus_pos"])
    assert not embedded[:, 0].any()  # the class token has no position
    close(sincos_positions(tuple(settings["grid2"]), settings["grid2_dim"]), tensors["pos_grid2"])


# --- targets, losses, schedules -------------------------------------------------------------------------------------


def test_targets_and_losses():
    tensors, s = golden("asda_targets_losses")
    target = latent_targets([tensors[f"layer.{i}"] for i in range(s["L"] - s["k"], s["L"])])
    close(target, tensors["targets"])
    utterance = target.mean(1)
    close(utterance.repeat_interleave(s["clone"], dim=0), tensors["cls_target"])
    rows, hidden = s["B"] * s["clone"], tensors["mask"] == 1
    counted = tensors["sample_size"].item()
    assert hidden.sum() == counted
    frame = frame_loss(tensors["decoder_out"], target, hidden)
    close(s["d2v_loss"] * frame[None] * counted, tensors["loss_frame_sum"])
    clip = utterance_loss(tensors["encoder_out"][:, s["extra"] - 1], utterance)
    weight = s["cls_loss"] * rows  # the released weight is of a sum
    close(weight * clip[None] * counted, tensors["loss_cls_sum"])
    close((s["d2v_loss"] * frame + weight * clip)[None], tensors["loss_total"])


# Peak, updates, warm-up and lowest rate of each curve: the configurations that were released.
RATES = {
    "pretrain": (5e-4, 800_000, 106_666, 0.0),
    "as2m": (5e-5, 600_000, 60_000, 1e-6),
    "as20k": (5e-5, 60_000, 6_000, 1e-6),
    "esc50": (5e-5, 4_000, 400, 1e-6),
    "spcv2": (2e-4, 80_000, 8_000, 1e-6),
}


def test_learning_rates():
    tensors, _ = golden("asda_schedules")
    assert {name.removesuffix(".step") for name in tensors if name.endswith(".step")} == {*RATES, "ema"}
    for name, (peak, steps, warmup, low) in RATES.items():
        ours = [warmup_cosine(peak, low, steps, step, warmup) for step in tensors[f"{name}.step"].tolist()]
        np.testing.assert_allclose(ours, tensors[f"{name}.lr"].numpy(), rtol=1e-9, atol=1e-20, err_msg=name)


def test_layer_wise_rates():
    tensors, _ = golden("asda_schedules")
    depth = len(tensors["layer_scale"]) - 2
    scales = layer_scales(0.65, depth)
    np.testing.assert_allclose(scales, tensors["layer_scale"].numpy(), rtol=1e-9)
    peak, steps, warmup, low = RATES["as20k"]
    manifest = FOLDER / "manifest.json"
    files = json.loads(manifest.read_text())["asda"] if manifest.exists() else {}
    what = files.get("asda_schedules.safetensors", {}).get("tensors", {})
    blocks = [int(name.removeprefix("as20k_block").removesuffix(".lr")) for name in tensors if "_block" in name]
    assert len(blocks) >= 3
    for block in blocks:
        said = re.search(r"at steps (\[.*?\])", what.get(f"as20k_block{block}.lr", {}).get("what", ""))
        steps_at = json.loads(said[1]) if said else (0, 100, 400, 1000, 4000, 20000, 59999)
        ours = [warmup_cosine(peak * scales[block + 1], low, steps, step, warmup) for step in steps_at]
        np.testing.assert_allclose(ours, tensors[f"as20k_block{block}.lr"].numpy(), rtol=1e-9, err_msg=f"block {block}")


def test_rate_and_momentum_of_the_preset():
    tensors, _ = golden("asda_schedules")
    cfg = load_config("asda-vit-b")
    weight = torch.nn.Parameter(torch.ones(2, 2))
    group = [{"params": [weight], "decay": True}]
    optimizer = build_optimizer(cfg, SimpleNamespace(param_groups=lambda: group))
    for step, rate in zip(tensors["pretrain.step"].tolist(), tensors["pretrain.lr"].tolist(), strict=True):
        assert set_schedule(optimizer, cfg, 10_000, step) == pytest.approx(
            {"rate": rate, "weight_decay": 0.05}, rel=1e-9, abs=1e-20
        )
    updates = dict(zip(tensors["ema.step"].tolist(), tensors["ema.decay"].tolist(), strict=True))
    assert len(updates) >= 3
    for update, decay in updates.items():
        if update:  # before the first there is nothing to average
            assert ema_momentum(cfg.objective, 200, 800_000, update - 1) == pytest.approx(decay, rel=1e-9)


# --- a whole training step ------------------------------------------------------------------------------------------


def released_names(tensors: dict) -> dict:
    """Released names of a model's tensors -> ours; fixed positions are not among our weights."""
    image = "modality_encoders.IMAGE."
    ours = {
        f"{image}extra_tokens": "backbone.cls_token",
        f"{image}local_encoder.": "backbone.patch_embed.",
        f"{image}context_encoder.norm.": "backbone.norm.",
        f"{image}decoder.": "decoder.",
        "blocks.": "backbone.blocks.",
    }
    renamed = {}
    for name, tensor in tensors.items():
        if "fixed_positional_encoder" not in name:
            prefix = next(prefix for prefix in ours if name.startswith(prefix))
            renamed[ours[prefix] + name.removeprefix(prefix)] = tensor
    return renamed


def asda_objective(tensors: dict, s: dict) -> ASDA:
    """Our objective with the sizes of the file; what has no number there is the preset's."""
    frames, mel_bins = tensors["source"].shape[2:]
    p, q = tensors["student.modality_encoders.IMAGE.local_encoder.proj.weight"].shape[2:]
    start, end, updates = re.search(r"([\d.]+) -> ([\d.]+) over (\d+) updates", s["ema_schedule"]).groups()
    assert float(start) == s["ema"]
    return ASDA(
        load_config(
            "asda-vit-b",
            [
                f"features.mel_bins={mel_bins}",
                f"data.crop_seconds={(frames * 10 + 15) / 1000}",
                f"model.patch=[{p}, {q}]",
                f"model.width={s['embed']}",
                f"model.depth={s['depth']}",
                f"model.heads={s['heads']}",
                f"model.mlp_ratio={s['mlp_hidden'] / s['embed']}",
                f"asda.clones={s['clone']}",
                f"asda.target_blocks={s['k']}",
                f"asda.weights={{frame: {s['d2v_loss']}, utterance: {s['cls_loss'] * s['B'] * s['clone']}}}",
                f"asda.decoder_width={s['dec_dim']}",
                f"asda.decoder_layers={s['layers']}",
                f"asda.decoder_kernel={s['kernel']}",
                f"asda.decoder_groups={s['groups']}",
                f"objective.ema={start}",
                f"objective.ema_end={end}",
                f"objective.ema_length={updates}",
                f"optim.rate={s['lr']}",
                f"optim.rate_batch={s['B']}",
                "optim.warmup=0",
                f"train.batch_size={s['B']}",
            ],
        ),
        clips=s["B"],
    )


# In float32 Adam makes up to some per cent of a step out of the rounding noise of gradients that are nearly zero.
@pytest.mark.parametrize(("dtype", "share_of_rate"), [(torch.float64, 0.01), (torch.float32, 0.05)])
def test_training_step(dtype, share_of_rate):
    given, s = golden("asda_full_step")
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in given.items()}
    objective = asda_objective(tensors, s).to(dtype)
    student, teacher = objective.student, objective.teacher
    student.load_state_dict(released_names(under(tensors, "student.")))
    teacher.load_state_dict(released_names(under(tensors, "teacher.")))
    assert student.backbone.norm.eps == s["norm_eps"]
    clean, hidden, visible = tensors["source"][:, 0], tensors["mask"] == 1, tensors["ids_keep"]
    grid = student.backbone.grid
    rows = len(hidden)
    assert hidden.double().mean().item() == pytest.approx(given["masked_pct"].item())

    with torch.no_grad():
        close(student.backbone.embed(clean, visible, s["clone"]), tensors["student_block_in"])
        close(teacher.backbone.embed(clean), tensors["teacher_block_in"])
        for block, made in teacher.backbone.inspect(clean, mlp=range(s["depth"])).mlp.items():
            close(made, tensors[f"teacher_t.{block}"])
        target, _ = targets(teacher.backbone, clean, objective.cfg.asda)
        close(target.patches, tensors["targets"])
        utterance, frames = predict_targets(student.backbone, student.decoder, clean, visible, tensors["decoder_in"])
        close(utterance, tensors["student_out"][:, 0])
        close(frames, tensors["decoder_out"])
        close(student.decoder(tensors["decoder_in"], grid), tensors["decoder_out"])
        for name, seen in {"pred_var": frames, "target_var": target.patches.repeat_interleave(s["clone"], 0)}.items():
            close((channel_variance(seen[hidden]) + 1e-6).sqrt().mean()[None], tensors[name])

    losses = objective.losses(clean, visible, hidden, tensors["decoder_in"])
    counted = given["sample_size"].item()
    assert hidden.sum() == counted
    close(losses.parts["frame"].detach()[None] * s["d2v_loss"] * counted, tensors["loss_frame_sum"])
    close(losses.parts["utterance"].detach()[None] * s["cls_loss"] * rows * counted, tensors["loss_cls_sum"])
    close(losses.total.detach()[None], tensors["loss_total"])

    losses.total.backward()
    gradients = {name: p.grad for name, p in student.named_parameters()}
    for name, wanted in released_names(under(tensors, "grad.")).items():
        close(gradients[name], wanted, 1e-3)
    for name, norm in released_names(s["grad_norms_per_param_after_div_sample_size"]).items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-3), name
    optimizer = build_optimizer(objective.cfg, objective)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(parameters) == len(gradients)
    assert set_schedule(optimizer, objective.cfg, s["B"], 0) == pytest.approx({"rate": s["lr"], "weight_decay": 0.05})
    norm = clip_gradients(parameters, objective.cfg.optim.clip, objective.cfg.optim.clip_by)
    close(norm[None], tensors["grad_norm_global"])
    assert min(1.0, objective.cfg.optim.clip / norm.item()) == pytest.approx(s["clip_coef"], rel=1e-4)
    optimizer.step()
    objective.after_step(0)
    assert objective.ema_momentum(0) == pytest.approx(given["ema_decay_used"].item(), rel=1e-9)
    for role, module in {"student": student, "teacher": teacher}.items():
        after = released_names(under(tensors, f"{role}_after."))
        assert after
        for name, wanted in after.items():
            difference = (module.state_dict()[name] - wanted).abs()
            if name.endswith("attn.qk.bias"):  # biases of keys have no gradient but rounding noise
                difference[2 * s["embed"] :] = 0
            noise = gradients[name].abs() < 1e-5 * gradients[name].abs().max()  # Adam makes a whole step of it
            difference[noise] = 0
            assert difference.max() <= share_of_rate * s["lr"] + 2e-7 * wanted.abs().max(), f"{role}.{name}"


# --- masks ----------------------------------------------------------------------------------------------------------


def test_inverse_block_statistics():
    wanted = json.loads((FOLDER / "asda_block_mask_stats.json").read_text())
    s, draws = wanted["settings"], wanted["draws"]
    time, mel = s["img_shape"]
    share, block = 1 - s["mask_prob"], s["mask_length"]
    keys = key(1, torch.arange(draws))
    # Released, 0.2 of 320 patches are 63, as 1 - 0.8 falls short of 0.2.
    kept_share = wanted["kept_target"] / (time * mel)
    assert abs(kept_share - share) * time * mel <= 1
    visible, hidden = inverse_blocks(keys, (time, mel), kept_share, block, s["mask_prob_adjust"] + share - kept_share)
    assert visible.shape == (draws, wanted["kept_target"])
    assert (hidden.sum(1) == wanted["masked_tokens"]).all()
    open_ = ~hidden.view(draws, time, mel)
    assert torch.equal(open_.flatten(1).nonzero()[:, 1].view(draws, -1), visible)

    def agrees(ours: torch.Tensor, theirs: dict, name: str) -> None:
        """Means, and deviations of what is not rare, within four standard errors of their difference."""
        ours = ours.double()
        error = ((theirs["std"] ** 2 + ours.var().item()) / draws) ** 0.5
        assert abs(ours.mean().item() - theirs["mean"]) <= 4 * error + 4 / draws, name
        far = (ours - ours.mean()) ** 4
        kurtosis = far.mean().item() / max(ours.var().item(), 1e-12) ** 2
        if theirs["mean"] * draws > 100:  # else a handful of draws makes the deviation
            assert ours.std().item() == pytest.approx(theirs["std"], rel=4 * ((kurtosis - 1) / (2 * draws)) ** 0.5), (
                name
            )

    pairs = (open_[:, 1:] & open_[:, :-1]).sum((1, 2)) + (open_[:, :, 1:] & open_[:, :, :-1]).sum((1, 2))
    agrees(pairs, wanted["kept_4neighbour_pairs"], "neighbours")
    cross = ndimage.generate_binary_structure(2, 1)
    parts = torch.tensor([ndimage.label(mask, cross)[1] for mask in open_.numpy()])
    agrees(parts, wanted["kept_connected_components"], "connected components")
    agrees(open_.all(2).sum(1), wanted["kept_full_time_rows"], "full rows")
    for axis, places in {1: "kept_prob_per_mel_column", 2: "kept_prob_per_time_row"}.items():
        seen = open_.double().mean(axis)  # [draws, mel] or [draws, time]
        error = seen.std(0) * (2 / draws) ** 0.5
        assert ((seen.mean(0) - torch.tensor(wanted[places])).abs() < 4.5 * error).all(), places
    before = masking._in_blocks(keys, (time, mel), wanted["block_centres_per_mask"], block)
    agrees(before.sum(1), wanted["kept_before_adjust"], "before the count is made exact")
    kept = before.sum(1)
    fewer, more = (kept < wanted["kept_target"]).double().mean(), (kept > wanted["kept_target"]).double().mean()
    assert abs(fewer - wanted["fraction_of_draws_needing_extra_random_kept"]) < 4 * (0.5 / draws) ** 0.5
    assert abs(more - wanted["fraction_needing_random_removal"]) < 4 * (0.5 / draws) ** 0.5
    # The blocks that `inverse_blocks` draws are these: what it adds or takes away is no more than is missing.
    assert torch.equal((before & ~hidden).sum(1), kept.clamp(max=wanted["kept_target"]))
