"""The ASDA objective: what student and teacher see, what each loss is, what moves when, and a run of it."""

import math
from itertools import pairwise

import pytest
import torch
from asda_case import CLONES, PATCHES, config, weights
from asit_case import CLIPS, batch_of, gradients, part_of

import asit_lab
from asit_lab.config import load_config
from asit_lab.errors import InputError
from asit_lab.masking import inverse_blocks
from asit_lab.objectives import ASDA, build_network, build_objective, criteria
from asit_lab.objectives.asda import decoder_noise, predict_targets, targets
from asit_lab.objectives.losses import squared_error
from asit_lab.random import key
from asit_lab.runs.snapshot import read_snapshot


@pytest.fixture
def case():
    """An objective, 4 clips of noise, masks of each, and noise for the decoder."""

    def make(*overrides: str):
        objective = ASDA(config(*overrides), CLIPS)
        clean = torch.randn(4, 64, 32, generator=torch.Generator().manual_seed(0))
        keys = objective.row_keys(torch.arange(4), 0)
        visible, hidden = inverse_blocks(keys, (8, 4), 0.2, 2)
        return objective, clean, visible, hidden, decoder_noise(keys, PATCHES, 24, 0.01)

    return make


# --- what is built, and what learns ---------------------------------------------------------------------------------


@pytest.mark.parametrize("on", [("frame", "utterance"), ("frame",), ("utterance",)], ids="+".join)
def test_every_student_weight_learns_and_no_teacher_weight(on):
    objective = build_objective(config(weights("frame" in on, "utterance" in on)), CLIPS)
    assert isinstance(objective, ASDA)
    assert (objective.student.decoder is not None) == ("frame" in on)
    assert objective.teacher.decoder is None
    losses = objective(batch_of(), 0)
    assert set(losses.parts) == set(on)
    losses.total.backward()
    for name, parameter in objective.student.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    assert not any(p.requires_grad or p.grad is not None for p in objective.teacher.parameters())
    assert objective.samples(batch_of()) == {}


def test_teacher_starts_as_the_student_and_moves_in_after_step_alone():
    objective = ASDA(config("objective.ema=0.9", "objective.ema_end=0.9"), CLIPS)
    before = {name: t.clone() for name, t in objective.teacher.state_dict().items()}
    assert before.keys() == {f"backbone.{name}" for name in objective.student.backbone.state_dict()}
    for name, tensor in before.items():
        assert torch.equal(tensor, objective.student.state_dict()[name])
    for _ in range(2):  # two forward passes, as with accumulation
        objective(batch_of(), 0).total.backward()
    with torch.no_grad():
        for p in objective.student.parameters():
            p += 1.0
    assert all(torch.equal(t, before[name]) for name, t in objective.teacher.state_dict().items())
    objective.after_step(0)
    for name, mine in objective.teacher.state_dict().items():
        torch.testing.assert_close(mine, 0.9 * before[name] + 0.1 * objective.student.state_dict()[name])
    objective.reset_teacher()
    assert torch.equal(objective.teacher.backbone.cls_token, objective.student.backbone.cls_token)


def test_momentum_is_linear_then_constant():
    objective = ASDA(config("objective.ema=0.9", "objective.ema_end=0.99", "objective.ema_length=9"), CLIPS)
    values = [objective.ema_momentum(step) for step in range(12)]
    assert values[:9] == pytest.approx([0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99])
    assert values[9:] == [0.99] * 3
    cosine = ASDA(config("objective.ema_shape=cosine", "objective.ema_length=100 %", "train.steps=20"), CLIPS)
    values = [cosine.ema_momentum(step) for step in range(21)]
    assert values[0] == 0.99 and values[10] == pytest.approx(0.9935) and values[20] == 0.997
    assert all(a < b for a, b in pairwise(values))


def test_start_weights_follow_from_the_seed():
    one, again, other = build_network(config()), build_network(config()), build_network(config("train.seed=1"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not torch.equal(one.backbone.cls_token, other.backbone.cls_token)


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_which_parameters_decay(decay):
    objective = ASDA(config(f"optim.decay={decay}"), CLIPS)
    decayed, free = (group["params"] for group in objective.param_groups())
    assert len(decayed) + len(free) == len(list(objective.student.parameters()))
    names = {id(p): name for name, p in objective.student.named_parameters()}
    assert {names[id(p)] for p in free} == {
        name for name, p in objective.student.named_parameters() if decay == "weights" and p.ndim == 1
    }


# --- what is seen ---------------------------------------------------------------------------------------------------


def test_student_sees_nothing_of_hidden_patches(case):
    objective, clean, visible, hidden, noise = case()
    student = objective.student
    pixels = hidden.view(4, CLONES, 8, 4)[:, 0].repeat_interleave(8, 1).repeat_interleave(8, 2)  # of each first mask
    other = torch.where(pixels, 5.0, clean)
    with torch.no_grad():
        one, two = (predict_targets(student.backbone, student.decoder, view, visible, noise) for view in (clean, other))
        for ours, theirs in zip(one, two, strict=True):
            torch.testing.assert_close(ours[::CLONES], theirs[::CLONES], rtol=0, atol=1e-6)
            assert (ours[1::CLONES] - theirs[1::CLONES]).abs().amax() > 1e-3
        before, after = (targets(objective.teacher.backbone, view, objective.cfg.asda)[0] for view in (clean, other))
    assert (before.patches - after.patches).abs().mean() > 0.1


def test_decoder_gets_visible_tokens_and_noise_in_their_places(case):
    objective, clean, visible, hidden, noise = case()
    student, given = objective.student, []
    student.decoder.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    with torch.no_grad():
        predict_targets(student.backbone, student.decoder, clean, visible, noise)
        for row in range(4 * CLONES):  # each mask by itself
            tokens = student.backbone.inspect(clean[row // CLONES][None], visible=visible[row][None]).tokens
            torch.testing.assert_close(given[0][row, visible[row]], tokens[0, 1:], rtol=1e-4, atol=1e-5)
            assert torch.equal(given[0][row, hidden[row]], noise[row, hidden[row]])
    assert noise.std().item() == pytest.approx(0.01, rel=0.05)
    assert abs(noise.mean().item()) < 0.0005


def test_masks_and_noise_of_each_clip_and_step_are_their_own():
    objective = ASDA(config(), CLIPS)
    keys = torch.cat([objective.row_keys(torch.arange(8), step) for step in (0, 1)])
    visible, _ = inverse_blocks(keys, (8, 4), 0.2, 2)
    noise = decoder_noise(keys, 4, 2, 1.0)
    assert len(keys) == 2 * 8 * CLONES
    assert len({tuple(row) for row in visible.tolist()}) > 0.9 * len(keys)  # a few are alike on so small a grid
    assert len({tuple(row) for row in noise.flatten(1).tolist()}) == len(keys)
    assert torch.equal(decoder_noise(keys[5:9], 4, 2, 1.0), noise[5:9])


def test_noise_made_in_portions_is_the_same(monkeypatch):
    keys = key(0, torch.arange(7))
    whole = decoder_noise(keys, 5, 4, 0.3)
    monkeypatch.setattr("asit_lab.objectives.asda._NOISE_AT_ONCE", 45)  # two rows
    assert torch.equal(decoder_noise(keys, 5, 4, 0.3), whole)


# --- targets and losses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_in", [False, True])
@pytest.mark.parametrize("class_at", [0, 1])
@pytest.mark.parametrize("blocks", [1, 3])
def test_targets_are_what_they_are_said_to_be(case, class_in, class_at, blocks):
    objective, clean, *_ = case(
        f"asda.class_in_targets={class_in}", f"model.class_token_at={class_at}", f"asda.target_blocks={blocks}"
    )
    seen = objective.teacher.backbone.inspect(clean, mlp=range(3)).mlp
    found, tokens = targets(objective.teacher.backbone, clean, objective.cfg.asda)
    torch.testing.assert_close(tokens, objective.teacher.backbone(clean))
    for clip in range(4):
        sums, counts = torch.zeros(1 + PATCHES, 24), torch.zeros(1 + PATCHES, 1)
        for block in range(3 - blocks, 3):
            made = seen[block][clip].detach()
            rows = made if class_in else made[-PATCHES:]
            normal = (rows - rows.mean(0)) / (rows.var(0, correction=0) + 1e-5).sqrt()
            sums[-len(rows) :] += normal
            counts[-len(rows) :] += 1
        mean = (sums / counts)[counts[:, 0] > 0]
        wanted = (mean - mean.mean(1, keepdim=True)) / (mean.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(found.patches[clip], wanted[-PATCHES:], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.utterance[clip], wanted.mean(0), rtol=1e-4, atol=1e-4)


def test_losses_are_means_over_hidden_patches_and_over_masks(case):
    objective, clean, visible, hidden, noise = case(weights(2, 5))
    student = objective.student
    target, _ = targets(objective.teacher.backbone, clean, objective.cfg.asda)
    utterance, frames = predict_targets(student.backbone, student.decoder, clean, visible, noise)
    frame, clip, count = 0.0, 0.0, 0
    for row in range(4 * CLONES):
        clip += (utterance[row] - target.utterance[row // CLONES]).square().sum() / 24**0.5
        for patch in hidden[row].nonzero().flatten():
            frame += (frames[row, patch] - target.patches[row // CLONES, patch]).square().sum() / 24**0.5
            count += 1
    losses = objective.losses(clean, visible, hidden, noise)
    assert count == 4 * CLONES * 26
    torch.testing.assert_close(losses.parts["frame"], frame / count, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(losses.parts["utterance"], clip / (4 * CLONES), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(losses.total, 2 * losses.parts["frame"] + 5 * losses.parts["utterance"])
    more = [torch.cat([t, t]) for t in (clean, visible, hidden, noise)]  # twice the clips: the same
    torch.testing.assert_close(objective.losses(*more).total, losses.total, rtol=1e-5, atol=1e-5)


CHOICES = [
    "model.class_token_at=1",
    "model.class_token_at=2",
    "model.attention=softmax",
    "model.attention=learned",
    "asda.class_in_targets=true",
    "asda.target_blocks=1",
    "asda.visible=0.4",
    "asda.block=4",
    "asda.clones=2",
    "asda.noise=0.5",
    "asda.decoder_layers=1",
    "asda.decoder_kernel=5",
    weights(1, 2),
    weights(1, 0),
    "train.seed=1",
]


def test_each_choice_changes_the_losses():
    batch = batch_of()
    found = [ASDA(config(*choice), CLIPS)(batch, 0).total.item() for choice in [[], *([c] for c in CHOICES)]]
    assert all(math.isfinite(loss) for loss in found)
    assert len({round(loss, 5) for loss in found}) == len(found)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("asda.visible=0.02", r"asda\.visible: 0\.02 of 32 patches leaves none visible"),
        ("asda.decoder_groups=5", r"asda\.decoder_groups: 5 does not divide model\.width 24"),
        ("asda.decoder_width=26", r"asda\.decoder_groups: 4 does not divide asda\.decoder_width 26"),
        ("asda.target_blocks=4", r"asda\.target_blocks: 4 is more than model\.depth 3"),
        ("asda.weights={frame: 0}", r"asda\.weights: at least one of frame, utterance"),
        ("asda.weights.clip=1", r"asda\.weights\.clip: unknown key"),
        ("objective.ema_length=soon", r"objective\.ema_length: 'soon' is not valid: .*a duration"),
    ],
)
def test_settings_that_cannot_be(override, message):
    with pytest.raises(InputError, match=message):
        config(override)


def test_presets():
    released = load_config("asda-vit-b")
    assert released.grid == (64, 8) and released.input_frames == 1024
    # 0.5 on a sum over 12 clips of 16 masks each
    assert released.asda.weights == {"frame": 1.0, "utterance": 0.5 * 12 * released.asda.clones}
    assert released.optim.rate_batch == released.train.batch_size == 4 * 12
    small = load_config("micro-asda")
    assert (small.model.width, small.model.depth) == (192, 6) and small.grid == (24, 4)
    assert small.train.steps is None


# --- parts, processes, precision ------------------------------------------------------------------------------------


def test_gradients_in_two_parts_are_those_of_the_whole():
    found = []
    for parts in (1, 2):
        objective = ASDA(config("train.batch_size=16"), CLIPS)
        for part in batch_of(16).split(parts):
            (objective(part, 0).total / parts).backward()
        found.append(torch.cat([g.flatten() for g in gradients(objective).values()]))
    assert (found[0] - found[1]).norm() < 1e-4 * found[0].norm()


def test_a_process_sees_what_the_whole_batch_has_in_its_place():
    objective, batch = ASDA(config("train.batch_size=16", "model.drop_path=0.5"), CLIPS), batch_of(16)
    keys = objective.row_keys(batch.position, 3)
    halves = [part_of(batch, places) for places in (slice(0, 8), slice(8, 16))]
    assert torch.equal(torch.cat([objective.row_keys(half.position, 3) for half in halves]), keys)
    assert len(set(keys.tolist())) == 16 * CLONES
    total = sum(objective(half, 3).total for half in halves) / 2
    torch.testing.assert_close(total, objective(batch, 3).total, rtol=1e-4, atol=1e-4)


def test_stochastic_depth_is_the_students():
    objective, batch = ASDA(config("model.drop_path=0.9"), CLIPS), batch_of()
    first, again, later = (objective(batch, step).total.item() for step in (0, 0, 1))
    assert first == again != later
    made = [targets(objective.teacher.backbone, objective.log_mel(batch), objective.cfg.asda)[0] for _ in range(2)]
    assert torch.equal(made[0].patches, made[1].patches)


def test_half_precision_arithmetic_stays_close_to_full():
    full, batch = ASDA(config(), CLIPS), batch_of()
    with torch.autocast("cpu", torch.bfloat16):
        half = full(batch, 0)
    assert half.total.dtype == torch.float32
    assert half.total.item() == pytest.approx(full(batch, 0).total.item(), rel=0.03)


# --- health ---------------------------------------------------------------------------------------------------------


def test_health_of_an_untrained_teacher():
    objective = ASDA(config(), CLIPS)
    before = objective.health()
    objective(batch_of(), 0)
    report = objective.health()
    assert before.keys() == report.keys()
    assert math.isnan(before["target_variance"]) and math.isnan(before["rank_class"])
    assert 0.5 < report["target_variance"] <= 1.05  # LayerNorm leaves a token a variance of 1
    assert report["prediction_variance"] > 0.0001
    assert report["momentum"] == objective.ema_momentum(0)
    assert 0 < report["spread_mean"] < 1 and 1 <= report["rank_mean"] <= 7
    for criterion in criteria(objective.cfg):
        assert criterion.value(report) > 1


@pytest.mark.parametrize("on", [("frame", "utterance"), ("frame",), ("utterance",)], ids="+".join)
def test_collapse_is_told(on):
    objective = ASDA(config(weights("frame" in on, "utterance" in on)), CLIPS)
    with torch.no_grad():
        for block in objective.teacher.backbone.blocks:  # every token gets the same from each MLP
            block.mlp.fc2.weight.zero_()
        if objective.student.decoder is not None:
            objective.student.decoder.proj.weight.zero_()
        else:
            objective.student.backbone.blocks[-1].norm2.weight.zero_()
    objective(batch_of(), 0)
    report = objective.health()
    assert len(criteria(objective.cfg)) == 2
    for criterion, name in zip(criteria(objective.cfg), ("target", "prediction"), strict=True):
        assert criterion.part == f"{name} variance"
        assert criterion.value(report) < 1
        assert f"variance {report[f'{name}_variance']:.2g}" in criterion.words(report, 70)


# --- training -------------------------------------------------------------------------------------------------------


def test_training_lowers_both_losses():
    objective, batch = ASDA(config("objective.ema=0.99", weights(1, 4)), CLIPS), batch_of(4)
    optimizer = torch.optim.AdamW(objective.student.parameters(), lr=5e-3)
    found = []
    for step in range(24):
        losses = objective(batch, step)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        objective.after_step(step)
        found.append({name: loss.item() for name, loss in losses.parts.items()})
    for name in ("frame", "utterance"):
        assert sum(row[name] for row in found[-3:]) < 0.9 * sum(row[name] for row in found[:3]), name
    assert objective.health()["target_variance"] > 0.5


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    rich = ["model.drop_path=0.3", "data.circular_shift=0.5", "train.accumulate=2", "objective.ema_length=4"]
    often = ["train.log_every=1", "train.checkpoint_every=2", "train.snapshots=2"]
    cfg = config("data.source=synth:20", "train.batch_size=4", "train.steps=5", *rich, *often)

    def stop(run, row):
        if row["step"] == 3:  # past the state saved after step 1
            raise KeyboardInterrupt

    whole = asit_lab.pretrain(cfg, tmp_path / "whole")
    assert asit_lab.pretrain(cfg, tmp_path / "parts", on_log=stop).status == "interrupted"
    parts = asit_lab.pretrain(cfg, tmp_path / "parts", resume="must")
    assert parts.status == whole.status == "finished"
    assert (parts.dir / "metrics.csv").read_bytes() == (whole.dir / "metrics.csv").read_bytes()
    assert {"loss_frame", "loss_utterance", "target_variance"} <= set(whole.metrics)
    assert len(parts.snapshots) == 2
    for ours, theirs in zip(parts.snapshots, whole.snapshots, strict=True):
        (a, *about), (b, *wanted) = read_snapshot(ours), read_snapshot(theirs)
        assert about == wanted and a.keys() == b.keys()
        assert {name.split(".")[0] + "." + name.split(".")[1] for name in a} == {
            "student.backbone",
            "student.decoder",
            "teacher.backbone",
        }
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_start_weights_of_a_run(tmp_path):
    small = ["data.source=synth:20", "train.batch_size=4", "train.snapshots=1"]
    first = asit_lab.pretrain(config(*small, "train.steps=1"), tmp_path / "first")
    longer = ["data.crop_seconds=1.3", "optim.rate=1e-9", f"train.init_from={first.dir}"]
    run = asit_lab.pretrain(config(*small, *longer, "train.steps=1"), tmp_path / "next")
    theirs, ours = (read_snapshot(r.snapshots[-1])[0] for r in (first, run))
    assert any("start weights: step 1" in note for note in run.progress["notes"])
    torch.testing.assert_close(ours["student.decoder.proj.weight"], theirs["student.decoder.proj.weight"])
    torch.testing.assert_close(ours["student.backbone.cls_token"], theirs["teacher.backbone.cls_token"])


def test_squared_error_is_over_the_root_of_the_channels():
    assert squared_error(torch.zeros(2, 16), torch.full((2, 16), 2.0)).tolist() == [16.0, 16.0]
