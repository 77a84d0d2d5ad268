"""The ASiT objective: what is built, what each loss looks at, what moves when."""

import math
from itertools import pairwise

import pytest
import torch
from asit_case import CLIPS, batch_of, config, gradients, step_of

from asit_lab.errors import InputError
from asit_lab.masking import Masks, token_mask
from asit_lab.objectives import ASiT, build_network, build_objective
from asit_lab.objectives.losses import cross_entropy, cross_view_loss, masked_l1, teacher_probabilities

TABLE_2 = [  # corruption, reconstruction, local, global: Table II of the paper
    (0, 1, 0, 0),
    (0, 0, 0, 1),
    (1, 0, 1, 0),
    (1, 1, 0, 0),
    (1, 0, 1, 1),
    (1, 1, 0, 1),
    (1, 1, 1, 0),
    (1, 1, 1, 1),
]
NO_CORRUPTION = "mask.kinds={none: 1}"


# --- Table II -------------------------------------------------------------------------------------------------------


def row_config(corruption: int, reconstruction: int, local: int, global_: int):
    weights = f"{{reconstruction: {reconstruction}, local: {local}, global: {global_}}}"
    clean = [] if corruption else [NO_CORRUPTION, "objective.reconstruct=all", "objective.local_tokens=all"]
    return config(f"objective.weights={weights}", *clean)


@pytest.mark.parametrize("row", TABLE_2)
def test_every_row_of_table_2_builds_and_steps(row):
    corruption, *on = row
    objective = ASiT(row_config(*row), CLIPS)
    names = {name for name, wanted in zip(("reconstruction", "local", "global"), on, strict=True) if wanted}
    built = {name.split(".")[1] for name, _ in objective.student.named_parameters() if name.startswith("heads.")}
    assert built == {
        part
        for name in names
        for part in {"local": ("local_mlp", "data_layer"), "global": ("global_mlp", "cls_layer")}.get(name, ())
    }
    assert (objective.student.decoder is not None) == ("reconstruction" in names)
    assert {name for name, _ in objective.named_buffers() if "centre" in name} == {
        f"centre_{name}" for name in names & {"local", "global"}
    }
    losses = step_of(objective)
    assert set(losses.parts) == names
    assert torch.isfinite(losses.total)
    assert losses.total.item() == pytest.approx(sum(x.item() for x in losses.parts.values()) / len(names), rel=1e-5)
    unused = [n for n, p in objective.student.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []  # nothing is built that no loss reaches
    clean = objective.log_mel(batch_of())
    assert objective.corrupt(clean, batch_of().position, 0)[1].pixels.any() == bool(corruption)
    step_of(objective, 1)
    assert set(objective.samples(batch_of())) == (
        {"clean", "corrupted", "reconstructed", "mask"} if "reconstruction" in names else set()
    )


def test_corruption_must_be_on_where_it_is_counted():
    with pytest.raises(InputError, match=r"objective\.reconstruct: nothing is corrupted"):
        config(NO_CORRUPTION, "objective.weights={reconstruction: 1}")
    with pytest.raises(InputError, match=r"objective\.local_tokens: nothing is corrupted"):
        config("mask.ratio=0", "mask.kinds={zeros: 1}", "objective.weights={local: 1}")


def test_build_objective_and_start_weights():
    cfg = config()
    objective = build_objective(cfg, CLIPS)
    torch.manual_seed(123)
    again = build_network(cfg)
    for ours, theirs in zip(objective.student.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    other = build_network(cfg, seed=1)
    assert not torch.equal(other.backbone.cls_token, again.backbone.cls_token)
    state = torch.random.get_rng_state()
    build_network(cfg)
    assert torch.equal(torch.random.get_rng_state(), state)


# --- teacher and centres --------------------------------------------------------------------------------------------


def test_teacher_starts_as_the_student_and_never_takes_a_gradient():
    objective = ASiT(config(), CLIPS)
    for mine, other in zip(objective.teacher.parameters(), objective.student.parameters(), strict=True):
        assert torch.equal(mine, other)
        assert mine is not other
    objective(batch_of(), 0).total.backward()
    assert not any(p.requires_grad or p.grad is not None for p in objective.teacher.parameters())
    in_groups = {id(p) for group in objective.param_groups() for p in group["params"]}
    assert not in_groups & {id(p) for p in objective.teacher.parameters()}


def test_teacher_and_centres_move_in_after_step_alone():
    objective = ASiT(config("objective.ema=0.9", "objective.ema_end=0.9"), CLIPS)
    before = {name: t.clone() for name, t in objective.state_dict().items() if not name.startswith("student")}
    for _ in range(2):  # two forward passes, as with accumulation
        objective(batch_of(), 0).total.backward()
    for name, tensor in before.items():
        assert torch.equal(objective.state_dict()[name], tensor), name
    with torch.no_grad():
        for p in objective.student.parameters():
            p += 1.0
    objective.after_step(0)
    for name, mine in objective.teacher.state_dict().items():
        student = objective.student.state_dict()[name]
        torch.testing.assert_close(mine, 0.9 * before[f"teacher.{name}"] + 0.1 * student)
    assert objective.centre_local.abs().sum() > 0
    assert objective.centre_global.abs().sum() > 0


def test_centre_is_a_moving_mean_of_the_teachers_logits():
    objective = ASiT(config("objective.centre_momentum=0.8", "objective.local_tokens=all", "data.padding=learn"), CLIPS)
    objective.centre_global.fill_(0.5)
    clean = objective.log_mel(batch_of()).flatten(0, 1)
    with torch.no_grad():
        tokens = objective.teacher.backbone(clean)
        of_class = objective.teacher.heads.global_(tokens[:, 0]).mean(0)
        of_tokens = objective.teacher.heads.local(tokens[:, 1:]).flatten(0, 1).mean(0)
    objective(batch_of(), 0)
    objective.after_step(0)
    torch.testing.assert_close(objective.centre_global, 0.8 * 0.5 + 0.2 * of_class)
    torch.testing.assert_close(objective.centre_local, 0.2 * of_tokens)
    still = objective.centre_local.clone()
    objective.after_step(1)  # no forward pass since: nothing to move by
    assert torch.equal(objective.centre_local, still)


def test_the_centre_in_use_is_the_one_before_the_step():
    one, two = ASiT(config(), CLIPS), ASiT(config(), CLIPS)
    with torch.no_grad():
        two.centre_global.copy_(torch.linspace(-1, 1, 20))
    assert one(batch_of(), 0).parts["global"] != two(batch_of(), 0).parts["global"]
    assert one(batch_of(), 0).parts["local"] == two(batch_of(), 0).parts["local"]


def test_ema_momentum_goes_from_start_to_end():
    objective = ASiT(config("objective.ema=0.9", "train.steps=50"), CLIPS)
    values = [objective.ema_momentum(step) for step in range(51)]
    assert values[0] == 0.9
    assert values[25] == pytest.approx(0.95)
    assert values[50] == 1.0
    assert all(a < b for a, b in pairwise(values))


def test_reset_teacher():
    objective = ASiT(config(), CLIPS)
    with torch.no_grad():
        objective.student.backbone.cls_token += 1
    objective.reset_teacher()
    assert torch.equal(objective.teacher.backbone.cls_token, objective.student.backbone.cls_token)


# --- what each loss looks at ----------------------------------------------------------------------------------------


@pytest.fixture
def views():
    """Two views of 4 clips with a mask of the first two columns of patches, and what the networks make of them."""

    def make(*overrides):
        objective = ASiT(config("model.drop_path=0", *overrides), CLIPS)
        clean = torch.randn(2, 4, 64, 32, generator=torch.Generator().manual_seed(0))
        pixels = torch.zeros(8, 64, 32, dtype=torch.bool)
        pixels[:, :20] = True  # tokens of the first 16 frames, and a quarter of the next ones
        masks = Masks(pixels, torch.zeros(8), torch.zeros(8))
        corrupted = clean.masked_fill(pixels.view_as(clean), 0.0)
        return objective, clean, corrupted, masks

    return make


@pytest.mark.parametrize("tokens", ["corrupted", "all"])
def test_local_loss_counts_the_tokens_it_should(views, tokens):
    objective, clean, corrupted, masks = views(f"objective.local_tokens={tokens}")
    chosen = token_mask(masks.pixels, (16, 16)).flatten(1)
    assert chosen.sum() == 8 * 2
    with torch.no_grad():
        student = objective.student.heads.local(objective.student.backbone(corrupted.flatten(0, 1))[:, 1:])
        teacher = objective.teacher.heads.local(objective.teacher.backbone(clean.flatten(0, 1))[:, 1:])
        rows = cross_entropy(student, teacher_probabilities(teacher, torch.zeros(12), 0.04), 0.1)  # [8, N]
        wanted = rows[chosen].mean() if tokens == "corrupted" else rows.mean()
    loss = objective.losses(clean, corrupted, masks, 0).parts["local"]
    torch.testing.assert_close(loss.detach(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", ["corrupted", "all"])
def test_local_loss_and_the_logits_of_clean_tokens(views, tokens):
    objective, clean, corrupted, masks = views(f"objective.local_tokens={tokens}")
    before = objective.losses(clean, corrupted, masks, 0).parts
    backbone = objective.student.backbone

    def disturb(module, inputs, output):
        output = output.clone()
        output[:, 1 + 2 :] += 3 * torch.randn_like(output[:, 1 + 2 :])  # patch tokens that are not corrupted
        return output

    handle = backbone.register_forward_hook(disturb)
    after = objective.losses(clean, corrupted, masks, 0).parts
    handle.remove()
    assert (before["local"] == after["local"]) == (tokens == "corrupted")
    assert before["global"] == after["global"]
    assert before["reconstruction"] != after["reconstruction"]  # the mask reaches into the second row of patches


@pytest.mark.parametrize("pixels", ["corrupted", "all"])
def test_reconstruction_loss_counts_the_pixels_it_should(views, pixels):
    objective, clean, corrupted, masks = views(f"objective.reconstruct={pixels}")
    with torch.no_grad():
        tokens = objective.student.backbone(corrupted.flatten(0, 1))
        error = (objective.student.decoder(tokens[:, 1:], (4, 2)) - clean.flatten(0, 1)).abs()
    wanted = error[masks.pixels].mean() if pixels == "corrupted" else error.mean()
    loss = objective.losses(clean, corrupted, masks, 0).parts["reconstruction"]
    torch.testing.assert_close(loss.detach(), wanted)
    # nothing corrupted shows in the corrupted view, so the loss can only be of the clean one
    assert masked_l1(corrupted, clean, masks.pixels.view_as(clean)) > 0.5


def test_global_loss_is_across_views(views):
    objective, clean, corrupted, masks = views()
    with torch.no_grad():
        student = objective.student.heads.global_(objective.student.backbone(corrupted.flatten(0, 1))[:, 0])
        teacher = objective.teacher.heads.global_(objective.teacher.backbone(clean.flatten(0, 1))[:, 0])
        wanted = teacher_probabilities(teacher, torch.zeros(20), 0.04)
        loss = cross_view_loss(student.view(2, 4, 20), wanted.view(2, 4, 20), 0.1)
    torch.testing.assert_close(objective.losses(clean, corrupted, masks, 0).parts["global"].detach(), loss)


def test_teacher_sees_the_clean_view_and_the_student_the_corrupted_one(views):
    objective, clean, corrupted, masks = views()
    seen = {}
    for role in ("student", "teacher"):
        getattr(objective, role).backbone.register_forward_pre_hook(
            lambda module, inputs, role=role: seen.__setitem__(role, inputs[0])
        )
    objective.losses(clean, corrupted, masks, 0)
    assert torch.equal(seen["student"], corrupted.flatten(0, 1))
    assert torch.equal(seen["teacher"], clean.flatten(0, 1))


def test_temperature_is_used(views):
    objective, clean, corrupted, masks = views("objective.teacher_temperature_warmup=4", "train.steps=100")
    early, late = (objective.losses(clean, corrupted, masks, step).parts for step in (0, 4))
    assert early["local"] != late["local"]
    assert early["global"] != late["global"]
    assert early["reconstruction"] == late["reconstruction"]


def test_no_corrupted_token_at_all(views):
    objective, clean, _, masks = views()
    nothing = Masks(torch.zeros_like(masks.pixels), masks.kind, masks.blocks)
    losses = objective.losses(clean, clean, nothing, 0)
    assert losses.parts["local"] == 0
    assert losses.parts["reconstruction"] == 0
    losses.total.backward()
    assert all(torch.isfinite(g).all() for g in gradients(objective).values())
    objective.after_step(0)
    assert (objective.centre_local == 0).all()
    unknown = {name for name, value in objective.health().items() if not math.isfinite(value)}
    assert unknown == {"entropy_local", "information_local"}


# --- weights --------------------------------------------------------------------------------------------------------


def test_combining_the_losses(views):
    weights = "objective.weights={reconstruction: 2, local: 1, global: 0.5}"
    totals = {}
    for combine in ("mean", "sum", "uncertainty"):
        objective, clean, corrupted, masks = views(weights, f"objective.combine={combine}")
        losses = objective.losses(clean, corrupted, masks, 0)
        totals[combine] = losses.total.item()
        parts = {name: loss.item() for name, loss in losses.parts.items()}
        if combine == "uncertainty":
            assert totals[combine] == pytest.approx(sum(parts.values()), rel=1e-5)  # all log variances start at 0
            losses.total.backward()
            learned = objective.log_variance["local"]
            assert learned.grad.item() == pytest.approx(1 - parts["local"], rel=1e-4)
            assert any(learned is p for p in objective.param_groups()[1]["params"])
            with torch.no_grad():
                learned.fill_(0.7)
            total = objective.losses(clean, corrupted, masks, 0).total.item()
            wanted = parts["reconstruction"] + math.exp(-0.7) * parts["local"] + 0.7 + parts["global"]
            assert total == pytest.approx(wanted, rel=1e-5)
            assert objective.health()["log_variance_local"] == pytest.approx(0.7)
    weighted = 2 * parts["reconstruction"] + parts["local"] + 0.5 * parts["global"]
    assert totals["sum"] == pytest.approx(weighted, rel=1e-5)
    assert totals["mean"] == pytest.approx(weighted / 3.5, rel=1e-5)


def test_which_parameters_decay():
    objective = ASiT(config("objective.combine=uncertainty"), CLIPS)
    decayed, free = objective.param_groups()
    assert decayed["decay"]
    assert not free["decay"]
    names = {id(p): name for name, p in objective.named_parameters()}
    in_decayed, in_free = ({names[id(p)] for p in group["params"]} for group in (decayed, free))
    assert {"student.backbone.cls_token", "student.backbone.pos_embed"} <= in_decayed
    assert all(n.endswith("bias") or "norm" in n or n.startswith("log_variance") for n in in_free)
    assert not in_decayed & in_free
    trained = {name for name, p in objective.named_parameters() if p.requires_grad}
    assert in_decayed | in_free == trained
    assert not any(name.endswith("weight_g") for name in trained)


# --- the contrastive global loss ------------------------------------------------------------------------------------

CONTRASTIVE = "objective.global_kind=contrastive"
GLOBAL_ONLY = "objective.weights={global: 1}"


def test_contrastive_global_loss_has_no_outputs_and_no_centre():
    objective = ASiT(config(CONTRASTIVE), CLIPS)
    assert objective.student.heads.cls_layer is None and not hasattr(objective, "centre_global")
    losses = step_of(objective)
    assert set(losses.parts) == {"reconstruction", "local", "global"}
    assert [n for n, p in objective.student.named_parameters() if p.requires_grad and p.grad is None] == []
    assert {name for name in objective.health() if "global" in name} == {"chance_global"}
    assert objective.health()["chance_global"] == pytest.approx(math.log(8))


@pytest.mark.parametrize("token", ["class", "mean"])
def test_what_stands_for_a_clip_in_the_global_loss(token):
    """Without attention between tokens the class token sees no patch, and then cannot tell clips apart."""
    objective = ASiT(config(CONTRASTIVE, GLOBAL_ONLY, f"objective.global_token={token}", NO_CORRUPTION), CLIPS)
    for network in (objective.student, objective.teacher):
        for block in network.backbone.blocks:
            torch.nn.init.zeros_(block.attn.proj.weight)
    loss = step_of(objective).total.item()
    uniform = math.log(objective.cfg.train.batch_size)
    assert loss == pytest.approx(uniform, abs=1e-4) if token == "class" else loss < uniform - 0.1


def test_contrastive_loss_needs_a_second_clip():
    with pytest.raises(InputError, match="global_kind: contrastive needs another clip"):
        ASiT(config(CONTRASTIVE, "train.batch_size=1", "mask.kinds={zeros: 1}"), CLIPS)
    with pytest.raises(InputError, match=r"data\.mix: needs another clip"):
        ASiT(config("data.mix=0.2", "train.batch_size=1", "mask.kinds={zeros: 1}"), CLIPS)


@pytest.mark.parametrize("change", ["data.mix=0.3", "data.gain_db=6", "data.filter_db=6"])
def test_views_are_augmented_for_student_and_teacher_alike(change):
    """What is reconstructed and what the teacher sees is the augmented view; the pictures are of the clip as it is."""
    plain, changed = (ASiT(config(*extra), CLIPS) for extra in ((), (change,)))
    batch = batch_of()
    clean = plain.log_mel(batch)
    augmented = changed.augment(clean, batch.position, 0)
    assert torch.equal(plain.augment(clean, batch.position, 0), clean)
    assert not torch.equal(augmented[0], augmented[1]) and not torch.equal(augmented, clean)
    assert not torch.equal(changed.augment(clean, batch.position, 1), augmented)
    torch.testing.assert_close(
        changed.samples(batch)["clean"], plain.samples(batch)["clean"], rtol=0, atol=0, equal_nan=True
    )
    assert step_of(changed).total.item() != step_of(plain).total.item()
