"""ASiT on parts of a batch, on several processes, over time: what a result may not depend on; schedules and reports."""

import math

import pytest
import torch
from asit_case import CLIPS, batch_of, config, gradients, part_of, step_of

from asit_lab.errors import InputError
from asit_lab.objectives import ASiT
from asit_lab.objectives.collapse import effective_rank, spread

# --- parts and processes --------------------------------------------------------------------------------------------


def accumulated(objective: ASiT, parts: int) -> dict[str, torch.Tensor]:
    batch = batch_of(16)
    for part in batch.split(parts):
        (objective(part, 0).total / parts).backward()
    objective.after_step(0)
    return gradients(objective)


@pytest.mark.parametrize("counted", ["all", "corrupted"])
def test_gradients_in_two_parts(counted):
    """Also of means over corrupted tokens and pixels, of which the parts have different numbers."""
    settings = [f"objective.local_tokens={counted}", f"objective.reconstruct={counted}"]
    one, two = (ASiT(config("train.batch_size=16", *settings), CLIPS) for _ in range(2))
    whole, halves = accumulated(one, 1), accumulated(two, 2)
    torch.testing.assert_close(one.centre_local, two.centre_local)
    torch.testing.assert_close(one.centre_global, two.centre_global)
    a, b = (torch.cat([g.flatten() for g in grads.values()]) for grads in (whole, halves))
    assert (a - b).norm() / a.norm() < 1e-4


def test_a_process_sees_what_the_whole_batch_has_in_its_place():
    cfg = config("train.batch_size=16", "mask.kinds={zeros: 1, alien: 1, noise: 1}")
    objective, batch, step = ASiT(cfg, CLIPS), batch_of(16), 3
    clean = objective.log_mel(batch)
    corrupted, masks = objective.corrupt(clean, batch.position, step)
    assert set(masks.kind.tolist()) == {0, 1, 2}
    for places in (slice(0, 8), slice(8, 16)):
        part = part_of(batch, places)
        clean_part = objective.log_mel(part)
        torch.testing.assert_close(clean_part, clean[:, places], rtol=0, atol=1e-5)
        corrupted_part, masks_part = objective.corrupt(clean[:, places], part.position, step)
        assert torch.equal(corrupted_part, corrupted[:, places])
        assert torch.equal(masks_part.pixels.view(2, 8, 64, 32), masks.pixels.view(2, 16, 64, 32)[:, places])


def test_views_steps_and_clips_are_corrupted_each_on_its_own():
    objective, batch = ASiT(config("mask.kinds={zeros: 1}"), CLIPS), batch_of()
    clean = objective.log_mel(batch)
    first = objective.corrupt(clean, batch.position, 0)[1].pixels
    again = objective.corrupt(clean, batch.position, 0)[1].pixels
    later = objective.corrupt(clean, batch.position, 1)[1].pixels
    assert torch.equal(first, again)
    everything = torch.cat([first, later])
    assert len({tuple(p.flatten().tolist()) for p in everything}) == 32
    other = ASiT(config("mask.kinds={zeros: 1}", "train.seed=1"), CLIPS)
    assert not torch.equal(other.corrupt(clean, batch.position, 0)[1].pixels, first)


def test_alien_blocks_come_from_the_same_view_of_the_group():
    objective = ASiT(config("train.batch_size=16", "mask.kinds={alien: 1}"), CLIPS)
    number = (100 * torch.arange(2)[:, None] + torch.arange(16)).float()  # each view a constant of its own
    clean = number[..., None, None].expand(2, 16, 64, 32).contiguous()
    corrupted, _ = objective.corrupt(clean, torch.arange(16), 0)
    for view in range(2):
        for clip in range(16):
            values = set(corrupted[view, clip].unique().tolist())
            donor = values - {number[view, clip].item()}
            assert len(values) == 2
            assert 100 * view + clip // 8 * 8 <= donor.pop() < 100 * view + clip // 8 * 8 + 8


def test_batches_whose_parts_cut_a_group():
    objective = ASiT(config("train.batch_size=16"), CLIPS)
    with pytest.raises(InputError, match=r"batch: 4 clips are not a multiple of 8, .* pass whole batches"):
        objective(batch_of(4), 0)
    for part in batch_of(16).split(4):  # parts know the rest of their batch
        assert objective(part, 0).total.isfinite()
    ASiT(config("train.batch_size=16", "mask.kinds={zeros: 1}"), CLIPS)(batch_of(4), 0)  # no donors, no groups


def test_one_clip_has_no_donor():
    with pytest.raises(InputError, match=r"mask\.kinds: alien blocks need another clip"):
        ASiT(config("train.batch_size=1"), CLIPS)
    ASiT(config("train.batch_size=9"), CLIPS)(batch_of(9), 0)


def test_stochastic_depth_is_the_students_and_depends_on_step_and_place():
    cfg = config("train.batch_size=16", "model.drop_path=0.5", "objective.weights={reconstruction: 1}")
    objective, seen = ASiT(cfg, CLIPS), []
    for role in (objective.student, objective.teacher):
        role.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1:]))
    for step, first in ((0, 0), (0, 0), (1, 0), (0, 8)):
        objective(batch_of(first=first), step)
    keys = [given[0] for given in seen]  # of the student: without distillation the teacher is not asked
    assert keys[0].shape == (16,)
    assert torch.equal(keys[0], keys[1])
    everything = torch.cat([keys[0], keys[2], keys[3]])
    assert len(everything.unique()) == 48
    seen.clear()
    distilling = ASiT(config("model.drop_path=0.5"), CLIPS)
    distilling.teacher.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1:]))
    distilling(batch_of(), 0)
    assert seen == [()]  # the teacher gets no keys, so nothing of it is dropped


# --- schedule, health, samples --------------------------------------------------------------------------------------


def test_teacher_temperature_per_epoch_and_per_step():
    epochs = ASiT(config("objective.teacher_temperature_warmup=4 epochs", "train.steps=100"), CLIPS)
    assert epochs.steps_per_epoch == 5
    values = [epochs.teacher_temperature(step) for step in range(30)]
    assert [len(set(values[i : i + 5])) for i in range(0, 30, 5)] == [1] * 6  # changes once an epoch
    assert values[::5] == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07, 0.07])
    steps = ASiT(config("objective.teacher_temperature_warmup=4", "train.steps=100"), CLIPS)
    assert [steps.teacher_temperature(s) for s in range(6)] == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07, 0.07])
    share = ASiT(config("objective.teacher_temperature_warmup=4 %", "train.steps=100"), CLIPS)
    assert share.teacher_temperature(1) == pytest.approx(0.05)
    none = ASiT(config("objective.teacher_temperature_warmup=0"), CLIPS)
    assert none.teacher_temperature(0) == pytest.approx(0.07)


EMBEDDINGS = {"spread_class", "rank_class", "spread_mean", "rank_mean"}


def test_health():
    objective = ASiT(config(), CLIPS)
    before = objective.health()
    assert {name for name, value in before.items() if math.isnan(value)} == EMBEDDINGS | {
        "entropy_local", "information_local", "entropy_global", "information_global",
    }  # fmt: skip
    step_of(objective, 0)
    health = objective.health()
    assert list(health) == list(before)  # the columns of metrics.csv are those of its first row
    assert set(health) == EMBEDDINGS | {
        "momentum", "teacher_temperature", "entropy_local", "information_local", "centre_local", "entropy_global",
        "information_global", "centre_global",
    }  # fmt: skip
    assert health["momentum"] == objective.ema_momentum(0)
    for name, outputs in (("local", 12), ("global", 20)):
        entropy, information = health[f"entropy_{name}"], health[f"information_{name}"]
        assert 0 < entropy < entropy + information <= math.log(outputs) + 1e-6
    assert health["centre_local"] == pytest.approx(objective.centre_local.norm().item())
    for pool in ("class", "mean"):
        assert 0 < health[f"spread_{pool}"] < 1 < health[f"rank_{pool}"] < 16  # 16 views of 8 clips
    only = ASiT(config("objective.weights={reconstruction: 1}"), CLIPS)
    step_of(only, 0)
    assert set(only.health()) == {"momentum"} | EMBEDDINGS


@pytest.mark.parametrize("padding", ["learn", "ignore"])
def test_health_measures_the_teacher_on_the_clean_views(padding):
    """With and without distillation: the same embeddings of the same weights."""
    settings = f"data.padding={padding}"
    distilling, only = (
        ASiT(config(settings, *also), CLIPS) for also in ([], ["objective.weights={reconstruction: 1}"])
    )
    only.student.backbone.load_state_dict(distilling.student.backbone.state_dict())
    only.reset_teacher()
    for objective in (distilling, only):
        objective(batch_of(), 0)
    ours, theirs = distilling.health(), only.health()
    audio = distilling.audio_tokens(distilling.audio_frames(batch_of().lengths.T.flatten()))
    tokens = distilling.teacher.backbone(distilling.log_mel(batch_of()).flatten(0, 1), audio=audio)
    if padding == "ignore":
        assert audio.tolist() == [[True] * 8, [True] * 6 + [False] * 2] * 8
        means = torch.stack([row[1:][kept].mean(0) for row, kept in zip(tokens, audio, strict=True)])
    else:
        assert audio is None
        means = tokens[:, 1:].mean(1)
    for pool, rows in {"class": tokens[:, 0], "mean": means}.items():
        assert ours[f"spread_{pool}"] == pytest.approx(spread(rows).item(), rel=1e-4)
        assert ours[f"rank_{pool}"] == pytest.approx(effective_rank(rows).item(), rel=1e-4)
        assert theirs[f"spread_{pool}"] == pytest.approx(ours[f"spread_{pool}"], rel=1e-4)
    assert only.health() == theirs  # and again


def test_health_looks_at_all_parts_of_a_batch():
    cfg = config("train.batch_size=16", "objective.local_tokens=all")
    whole, parts = ASiT(cfg, CLIPS), ASiT(cfg.with_overrides(["train.accumulate=2"]), CLIPS)
    whole(batch_of(16), 0)
    for part in batch_of(16).split(2):
        parts(part, 0)
    for objective in (whole, parts):
        objective.after_step(0)
    for name, value in whole.health().items():
        assert parts.health()[name] == pytest.approx(value, rel=1e-3), name
    parts(batch_of(8, first=20), 1)
    later = ASiT(cfg.with_overrides(["train.accumulate=2"]), CLIPS)
    later.load_state_dict(whole.state_dict())
    later(batch_of(8, first=20), 1)
    names = ("information_global", "entropy_local", "rank_class")  # nothing is left of the batch before
    assert [parts.health()[n] for n in names] == pytest.approx([later.health()[n] for n in names], rel=1e-2)


def test_health_where_nothing_is_corrupted():
    objective, seen = ASiT(config(), CLIPS), []
    for step in range(2):
        batch = batch_of(step=step)
        clean = objective.log_mel(batch)
        masks = objective.corrupt(clean, batch.position, step)[1]
        if step:
            masks.pixels.zero_()
        objective.losses(clean, clean, masks, step)
        seen.append(objective.health())
        objective.after_step(step)
    assert not math.isnan(seen[0]["entropy_local"])
    assert math.isnan(seen[1]["entropy_local"]) and math.isnan(seen[1]["information_local"])
    assert list(seen[0]) == list(seen[1]) and not math.isnan(seen[1]["entropy_global"])


def test_health_under_half_precision_is_close_to_full():
    full, half = ASiT(config(), CLIPS), ASiT(config(), CLIPS)
    full(batch_of(), 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half(batch_of(), 0)
    for name, value in full.health().items():
        assert half.health()[name] == pytest.approx(value, rel=0.1, abs=0.02), name


def test_entropy_tells_a_collapsed_teacher():
    objective = ASiT(config(), CLIPS)
    with torch.no_grad():
        for p in objective.teacher.heads.cls_layer.parameters():
            p.fill_(1.0)  # every output the same
    objective(batch_of(), 0)
    assert objective.health()["entropy_global"] == pytest.approx(math.log(20), rel=1e-4)
    assert objective.health()["information_global"] < 1e-5 < 3e-4 < objective.health()["information_local"]


def test_samples():
    objective = ASiT(config("mask.kinds={alien: 1}"), CLIPS)
    batch = batch_of(3)
    shown = objective.samples(batch)
    assert {name: tuple(t.shape) for name, t in shown.items()} == dict.fromkeys(
        ("clean", "corrupted", "reconstructed", "mask"), (3, 64, 32)
    )
    audio = objective.audio_frames(batch.lengths[:, 0])
    assert 0.5 < audio.float().mean() < 1
    assert all(torch.isnan(shown[name][~audio]).all() for name in ("clean", "corrupted", "reconstructed"))
    assert torch.equal(shown["clean"][audio], objective.log_mel(batch)[0][audio])
    assert shown["mask"].dtype == torch.bool and not shown["mask"][~audio].any()
    assert (shown["corrupted"][shown["mask"]] == 0).all()  # zeros, whatever training uses
    left = ~shown["mask"] & audio[..., None]
    assert torch.equal(shown["corrupted"][left], shown["clean"][left])
    assert not any(t.requires_grad for t in shown.values())
    step_of(objective, 0)
    later = objective.samples(batch)
    assert torch.equal(later["mask"], shown["mask"])
    assert not torch.equal(later["reconstructed"][audio], shown["reconstructed"][audio])
    objective._logit_sums.clear()
    objective.samples(batch)
    assert objective._logit_sums == {}  # looking does not move the centres


def test_log_mel_is_cut_and_padded_before_normalising():
    objective = ASiT(config(), CLIPS)
    clean = objective.log_mel(batch_of())
    assert clean.shape == (2, 8, 64, 32)
    mean, std = objective.cfg.features.mean, objective.cfg.features.std
    pad = (0.0 - mean) / (2 * std)
    short = objective.front_end.frames_of(5360 - 2000)
    assert torch.allclose(clean[:, 1, short:], torch.tensor(pad))
    assert not torch.isclose(clean[:, 1, short - 1], torch.tensor(pad)).all()
    front = objective.front_end(batch_of().waves[2, 1][None])[0, :64]  # clip 2, view 1
    torch.testing.assert_close(clean[1, 2], (front - mean) / (2 * std), rtol=0, atol=1e-4)


def test_training_lowers_the_losses_it_can():
    objective = ASiT(config("objective.weights={reconstruction: 1}", "mask.kinds={zeros: 1}"), CLIPS)
    parameters = [p for group in objective.param_groups() for p in group["params"]]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    values = []
    for step in range(25):
        loss = objective(batch_of(step=step), step).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step(step)
        values.append(loss.item())
    assert sum(values[-5:]) < 0.7 * sum(values[:5])


def test_half_precision_arithmetic_stays_close_to_full():
    full, half = ASiT(config(), CLIPS), ASiT(config(), CLIPS)
    wanted = full(batch_of(), 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = half(batch_of(), 0)
    losses.total.backward()
    for name, loss in losses.parts.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(wanted.parts[name].item(), rel=0.05)
    assert {g.dtype for g in gradients(half).values()} == {torch.float32}
    half.after_step(0)
    full.after_step(0)
    torch.testing.assert_close(half.centre_global, full.centre_global, rtol=0.1, atol=1e-2)
