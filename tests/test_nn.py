"""Attention, vision transformer, heads and decoder against torch's own modules and written-out formulas."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from asit_lab.errors import InputError
from asit_lab.masking import visible_neighbours
from asit_lab.nn import DistillationHeads, ReconstructionHead, ViT, attention_blocks, build_attention
from asit_lab.nn import attention as attention_module
from asit_lab.nn.heads import Projection, WeightNormLinear
from asit_lab.nn.vit import PatchEmbed, drop_path, fit_positions, mimetic_start, sincos_positions
from asit_lab.random import fold, key
from asit_lab.settings import Heads, Model

GRID = (6, 4)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small(**settings) -> Model:
    return Model(**{"width": 24, "depth": 3, "heads": 3, "patch": (4, 8), "drop_path": 0.5} | settings)


def spectrogram(batch: int = 2, frames: int = 24, mels: int = 32) -> torch.Tensor:
    return torch.randn(batch, frames, mels)


def loud_weights(module: nn.Module) -> nn.Module:
    """Weights large enough for attention to be far from uniform."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


# --- attention ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["fused", "blocks"])
def test_explicit_equals_the_other_paths_in_value_and_gradient(path, monkeypatch):
    monkeypatch.setattr(attention_blocks, "BLOCK_BYTES", 5 * 16)  # five queries, then four
    explicit = loud_weights(build_attention("softmax", 24, 3, "explicit"))
    other = build_attention("softmax", 24, 3, path)
    other.load_state_dict(explicit.state_dict())
    outputs, gradients = [], []
    for module in (explicit, other):
        x = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(1), requires_grad=True)
        out, maps = module(x)
        assert maps is None
        out.square().sum().backward()
        outputs.append(out.detach())
        gradients.append([x.grad, *(p.grad for p in module.parameters())])
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_softmax_attention_is_torch_multi_head_attention():
    module = loud_weights(build_attention("softmax", 24, 3, "explicit"))
    theirs = nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = module.qkv.weight.data, module.qkv.bias.data
    theirs.out_proj.load_state_dict(module.proj.state_dict())
    x = torch.randn(2, 9, 24)
    wanted, weights = theirs(x, x, x, average_attn_weights=False)
    out, maps = module(x, maps=True)
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps.map, weights, rtol=1e-4, atol=1e-6)
    assert maps.first is maps.second is maps.lam is None


@pytest.mark.parametrize("path", ["explicit", "fused", "blocks", "auto"])
def test_maps_times_values_give_the_output(path):
    module = loud_weights(build_attention("softmax", 24, 3, path))
    x = torch.randn(2, 9, 24)
    out, maps = module(x, maps=True)
    assert maps.map.shape == (2, 3, 9, 9)
    torch.testing.assert_close(maps.map.sum(-1), torch.ones(2, 3, 9))
    assert maps.map.amax(-1).mean() > 0.5  # attention that really selects
    values = F.linear(x, module.qkv.weight[48:], module.qkv.bias[48:])  # the last third of [q | k | v]
    values = values.view(2, 9, 3, 8).transpose(1, 2)
    mixed = (maps.map @ values).transpose(1, 2).reshape(2, 9, 24)
    torch.testing.assert_close(module.proj(mixed), out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module(x)[0], out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["softmax", "asda"])
def test_what_auto_means(kind, monkeypatch):
    called = []
    for of, name in ((F, "scaled_dot_product_attention"), (attention_module, "in_blocks")):
        real = getattr(of, name)
        monkeypatch.setattr(of, name, lambda *a, _real=real, _name=name, **k: called.append(_name) or _real(*a, **k))
    # Three heads; of nine, nineteen and twenty tokens.
    for name, value in {"MAPS_FP32": 3 * 9**2 * 4, "MAPS": 3 * 19**2 * 2, "SHORT": 12, "LONGEST_MAP": 20}.items():
        monkeypatch.setattr(attention_module, name, value)
    kernel, blocks = {"scaled_dot_product_attention"}, {"in_blocks"}
    for path, clips, tokens, dtype, wanted in [
        ("auto", 1, 9, torch.float32, kernel if kind == "softmax" else set()),
        ("auto", 1, 10, torch.float32, kernel),
        ("auto", 2, 9, torch.float32, kernel),  # as many bytes
        ("auto", 100, 12, torch.bfloat16, set()),
        ("auto", 1, 19, torch.bfloat16, set()),
        ("auto", 1, 20, torch.bfloat16, blocks),
        ("auto", 2, 19, torch.bfloat16, blocks),
        ("explicit", 1, 40, torch.float32, set()),
        ("fused", 1, 2, torch.bfloat16, kernel),
        ("blocks", 1, 2, torch.float32, blocks),
    ]:
        called.clear()
        module, x = build_attention(kind, 24, 3, path), torch.randn(clips, tokens, 24)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):  # what counts is what attention works in
            module(x)
        assert set(called) == wanted, (path, clips, tokens, dtype)
        called.clear()
        module(x, maps=True)
        assert called == []
    with monkeypatch.context() as many:
        for name in ("MAPS_FP32", "MAPS"):
            many.setattr(attention_module, name, 1e9)
        for dtype, otherwise in ((torch.float32, "fused"), (torch.bfloat16, "blocks")):
            for tokens, wanted in ((20, "explicit"), (21, otherwise)):
                there = torch.empty(1, tokens, 3, 3, 8, dtype=dtype)
                assert attention_module.choose_path("auto", there, softmaxes=2) == wanted
    for softmaxes in (1, 2):  # on a GPU torch's kernel is always the fastest
        there = torch.empty(1, 2, 3, 1, 4, device="meta")
        assert attention_module.choose_path("auto", there, softmaxes) == "fused"


def test_unknown_attention_lists_what_there_is():
    with pytest.raises(InputError, match=r"model\.attention: 'performer' is unknown; valid: softmax, asda, learned"):
        build_attention("performer", 24, 3)
    with pytest.raises(InputError, match=r"model\.attention_path: 'flash' is not one of auto, explicit, fused, blocks"):
        build_attention("softmax", 24, 3, "flash")
    with pytest.raises(InputError, match="5 does not divide"):
        build_attention("softmax", 24, 5)


# --- patches and positions ------------------------------------------------------------------------------------------


def test_patch_embed_is_its_convolution():
    embed, x = PatchEmbed((4, 8), 24), spectrogram()
    wanted = embed.proj(x[:, None]).flatten(2).transpose(1, 2)  # [B, D, time, mel] -> [B, N, D], mel fastest
    torch.testing.assert_close(embed(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("time", "mel"), [(0, 0), (0, 3), (5, 0), (2, 1)])
def test_patches_are_time_major_with_mel_fastest(time, mel):
    embed, x = PatchEmbed((4, 8), 24), torch.zeros(1, 24, 32)
    empty = embed(x)
    x[0, time * 4 : time * 4 + 4, mel * 8 : mel * 8 + 8] = 1.0
    changed = (embed(x) != empty).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == [time * GRID[1] + mel]


def test_positions_of_shorter_clips_are_the_first_ones():
    vit = ViT(small(), GRID)
    assert vit.positions(GRID) is vit.pos_embed
    learned = torch.randn(1, 25, 24)
    image = learned[:, 1:].view(1, *GRID, 24)
    shorter = fit_positions(learned, GRID, (2, 4))
    assert torch.equal(shorter[:, 0], learned[:, 0])
    assert torch.equal(shorter[:, 1:], image[:, :2].reshape(1, 8, 24))
    narrower = fit_positions(learned, GRID, (3, 2))
    assert torch.equal(narrower[:, 1:], image[:, :3, :2].reshape(1, 6, 24))


def test_positions_of_longer_clips_are_interpolated():
    """A ramp stays a ramp, away from the border; a side that fits is left alone, and so is the class row."""
    time, mel = torch.meshgrid(torch.arange(6.0), torch.arange(4.0), indexing="ij")
    learned = torch.cat([torch.full((1, 1, 2), 9.0), torch.stack([time, mel], -1).view(1, 24, 2)], dim=1)
    longer = fit_positions(learned, GRID, (12, 4))
    assert torch.equal(longer[:, 0], learned[:, 0])
    image = longer[0, 1:].view(12, 4, 2)
    wanted = (torch.arange(12) + 0.5) / 2 - 0.5
    torch.testing.assert_close(image[3:-3, :, 0], wanted[3:-3, None].expand(-1, 4), rtol=0, atol=0.1)
    torch.testing.assert_close(image[:, :, 1], torch.arange(4.0).expand(12, 4), rtol=0, atol=1e-5)
    mixed = fit_positions(learned, GRID, (12, 2))  # longer in time, sliced in mel
    torch.testing.assert_close(mixed[0, 1:].view(12, 2, 2), image[:, :2], rtol=0, atol=1e-5)


def test_sine_cosine_positions():
    ours = sincos_positions(GRID, 24).view(*GRID, 24).numpy()
    for time in range(6):
        for mel in range(4):
            for i in range(6):  # a quarter of the channels
                rate = 10000 ** (-i / 6)
                wanted = [np.sin(mel * rate), np.cos(mel * rate), np.sin(time * rate), np.cos(time * rate)]
                np.testing.assert_allclose(ours[time, mel, i::6], wanted, atol=1e-6)
    with pytest.raises(InputError, match=r"model\.width: 30 is not a multiple of 4"):
        sincos_positions(GRID, 30)


def test_positions_start_at_random_or_as_sines():
    vit = ViT(small(), GRID)
    assert 0 < vit.pos_embed.std() < 0.03
    torch.manual_seed(0)
    started = ViT(small(position_start="sincos"), GRID)
    assert torch.equal(started.pos_embed[0, 1:], sincos_positions(GRID, 24))
    assert started.pos_embed.requires_grad
    for name, tensor in vit.state_dict().items():  # nothing else is drawn differently
        assert name == "pos_embed" or torch.equal(tensor, started.state_dict()[name])


def test_gradients_reach_the_positions_of_any_length():
    for frames in (8, 24, 48):
        vit = ViT(small(), GRID)
        vit(spectrogram(frames=frames)).square().sum().backward()
        seen = vit.pos_embed.grad.abs().sum(-1)[0] > 0
        used = 1 + min(frames // 4, 6) * 4
        assert seen[:used].all()
        assert not seen[used:].any()


# --- vision transformer ---------------------------------------------------------------------------------------------


def by_hand(vit: ViT, x: torch.Tensor) -> torch.Tensor:
    """The whole pass, from the weights and torch's functions."""
    w = dict(vit.named_parameters())
    width = vit.width
    patches = F.conv2d(x[:, None], w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=vit.patch)
    z = torch.cat([w["cls_token"].expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)], 1) + w["pos_embed"]
    for i in range(len(vit.blocks)):
        b = f"blocks.{i}."
        h = F.layer_norm(z, (width,), w[b + "norm1.weight"], w[b + "norm1.bias"], 1e-6)
        h, _ = F.multi_head_attention_forward(
            *[h.transpose(0, 1)] * 3, width, 3, w[b + "attn.qkv.weight"], w[b + "attn.qkv.bias"], None, None, False,
            0.0, w[b + "attn.proj.weight"], w[b + "attn.proj.bias"], need_weights=False,
        )  # fmt: skip
        z = z + h.transpose(0, 1)
        h = F.layer_norm(z, (width,), w[b + "norm2.weight"], w[b + "norm2.bias"], 1e-6)
        h = F.gelu(F.linear(h, w[b + "mlp.fc1.weight"], w[b + "mlp.fc1.bias"]))
        z = z + F.linear(h, w[b + "mlp.fc2.weight"], w[b + "mlp.fc2.bias"])
    return F.layer_norm(z, (width,), w["norm.weight"], w["norm.bias"], 1e-6)


def test_forward_is_the_written_out_transformer():
    vit, x = loud_weights(ViT(small(), GRID)), spectrogram()
    torch.testing.assert_close(vit(x), by_hand(vit, x), rtol=1e-3, atol=1e-4)
    vit, x = ViT(small(), GRID), 1e-3 * spectrogram()  # so quiet that the epsilon of the norms counts
    torch.testing.assert_close(vit(x), by_hand(vit, x), rtol=1e-3, atol=1e-4)


def test_inspect_sees_the_same_pass():
    vit, x = loud_weights(ViT(small(), GRID)), spectrogram()
    keys = key(0, torch.arange(2))
    for given in (None, keys):
        seen = vit.inspect(x, given, hidden=[0, 2], maps=[1])
        torch.testing.assert_close(seen.tokens, vit(x, given), rtol=1e-5, atol=1e-5)
        assert seen.grid == GRID
        assert sorted(seen.hidden) == [0, 2]
        assert sorted(seen.maps) == [1]
        torch.testing.assert_close(vit.norm(seen.hidden[2]), seen.tokens)
        assert seen.maps[1].map.shape == (2, 3, 25, 25)
    alone, *_ = vit.blocks[0](vit.embed(x), None)
    torch.testing.assert_close(vit.inspect(x, hidden=[0]).hidden[0], alone)


def test_every_parameter_gets_a_gradient():
    vit = ViT(small(), GRID)
    vit(spectrogram(16), key(0, torch.arange(16))).square().sum().backward()
    assert [name for name, p in vit.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_input_that_does_not_fit():
    vit = ViT(small(), GRID)
    for shape in [(2, 23, 32), (2, 24, 24), (2, 0, 32), (24, 32), (2, 1, 24, 32)]:
        with pytest.raises(InputError, match=r"expected \[batch, a multiple of 4 frames, 32 mel\]"):
            vit(torch.zeros(shape))


def test_sizes_of_the_paper(monkeypatch):
    """About 22 M and 85 M parameters (section IV)."""
    monkeypatch.setattr(ViT, "_init_weights", lambda self, *settings: None)  # slow without storage
    counts = {}
    for width, heads in ((384, 3), (768, 6)):
        with torch.device("meta"):
            vit = ViT(Model(width=width, heads=heads), (37, 8))
        counts[width] = sum(p.numel() for p in vit.parameters()) / 1e6
    assert counts[384] == pytest.approx(22, rel=0.05)
    assert counts[768] == pytest.approx(85, rel=0.02)


def test_width_of_the_mlp_survives_the_ratio():
    """A ratio worked out from a checkpoint's weights gives its width back."""
    for width, hidden in [(56, 61), (88, 109), (24, 96), (24, 84)]:
        vit = ViT(small(width=width, heads=1, depth=1, mlp_ratio=hidden / width), GRID)
        assert vit.blocks[0].mlp.fc1.out_features == hidden
    assert ViT(small(width=51, heads=1, depth=1, mlp_ratio=3.5), GRID).blocks[0].mlp.fc1.out_features == 178


# --- stochastic depth -----------------------------------------------------------------------------------------------


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    x = torch.ones(4000, 3, 2)
    dropped = drop_path(x, 0.3, key(0, torch.arange(4000)))
    per_sample = dropped.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    assert per_sample[:, 0].unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    share = (per_sample[:, 0] == 0).float().mean().item()
    assert share == pytest.approx(0.3, abs=4 * (0.21 / 4000) ** 0.5)
    assert dropped.mean().item() == pytest.approx(1.0, abs=4 * (0.3 / 0.7 / 4000) ** 0.5)


def test_drop_path_depends_on_the_key_alone():
    keys, x = key(0, torch.arange(64)), torch.randn(64, 5)
    whole = drop_path(x, 0.5, keys)
    assert torch.equal(whole, torch.cat([drop_path(a, 0.5, b) for a, b in zip(x.split(7), keys.split(7), strict=True)]))
    assert not torch.equal(whole == 0, drop_path(x, 0.5, fold(keys, 1)) == 0)
    assert drop_path(x, 0.5, None) is x
    assert drop_path(x, 0.0, keys) is x


def test_stochastic_depth_of_the_model():
    vit, x = ViT(small(depth=3, drop_path=0.5), GRID), spectrogram(8)
    assert [block.drop for block in vit.blocks] == [0.0, 0.25, 0.5]
    keys = key(0, torch.arange(8))
    torch.manual_seed(1)
    one = vit(x, keys)
    torch.manual_seed(2)
    assert torch.equal(one, vit(x, keys))
    torch.testing.assert_close(one[5:], vit(x[5:], keys[5:]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(one, vit(x, fold(keys, 1)))
    clean = vit(x)
    assert torch.equal(clean, vit.train()(x))
    assert torch.equal(clean, vit.eval()(x))
    assert not torch.allclose(one, clean)


def test_the_two_branches_and_the_blocks_drop_on_their_own():
    """With every branch adding a constant, what comes out counts the branches that were kept."""
    vit = ViT(small(depth=2, width=24, drop_path=0.5), GRID)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.zero_()
        for i, block in enumerate(vit.blocks):
            block.drop = 0.5
            block.attn.proj.bias.fill_(10.0 ** (2 * i))
            block.mlp.fc2.bias.fill_(10.0 ** (2 * i + 1))
    keys = key(0, torch.arange(400))
    total = vit.inspect(torch.zeros(400, 4, 32), keys, hidden=[1]).hidden[1][:, 0, 0] / 2
    kept = torch.stack([(total / 10**digit).round().long() % 10 for digit in range(4)])
    assert set(kept.unique().tolist()) == {0, 1}
    agreement = np.corrcoef(kept.numpy()) - np.eye(4)
    assert np.abs(agreement).max() < 4 / 400**0.5


# --- heads ----------------------------------------------------------------------------------------------------------


def test_weight_norm_linear_is_torch_weight_norm():
    ours = WeightNormLinear(6, 4)
    theirs = nn.utils.parametrizations.weight_norm(nn.Linear(6, 4, bias=False), dim=0)
    with torch.no_grad():
        theirs.parametrizations.weight.original0.copy_(ours.weight_g)
        theirs.parametrizations.weight.original1.copy_(ours.weight_v)
    x = torch.randn(3, 5, 6)
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    torch.testing.assert_close(ours.weight_v.grad, theirs.parametrizations.weight.original1.grad)
    assert ours.weight_g.grad is None
    torch.testing.assert_close(ours(torch.eye(6)).norm(dim=0), torch.ones(4))  # rows of length one
    with torch.no_grad():
        ours.weight_g.mul_(3.0)
    torch.testing.assert_close(ours(torch.eye(6)).norm(dim=0), torch.full((4,), 3.0))


def test_projection_by_hand():
    head = loud_weights(Projection(24, 32, 8))
    x = torch.randn(3, 5, 24)
    h = F.gelu(F.linear(x, head[0].weight, head[0].bias))
    h = F.gelu(F.linear(h, head[2].weight, head[2].bias))
    h = F.linear(h, head[4].weight, head[4].bias)
    torch.testing.assert_close(head(x), h / h.norm(dim=-1, keepdim=True))


HEADS = {"hidden": 32, "bottleneck": 8, "local_out": 10, "global_out": 20}


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("global_", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_only_wanted_heads_are_built(local, global_, shared):
    heads = DistillationHeads(24, Heads(shared=shared, **HEADS), local, global_)
    wanted = set()
    if local:
        wanted |= {"data_layer", "mlp" if shared else "local_mlp"}
    if global_:
        wanted |= {"cls_layer", "mlp" if shared else "global_mlp"}
    assert {name.split(".")[0] for name, _ in heads.named_parameters()} == wanted
    if local:
        assert heads.local(torch.randn(2, 7, 24)).shape == (2, 7, 10)
    if global_:
        assert heads.global_(torch.randn(2, 24)).shape == (2, 20)


def test_shared_and_separate_projections():
    shared = DistillationHeads(24, Heads(shared=True, **HEADS), True, True)
    separate = DistillationHeads(24, Heads(shared=False, **HEADS), True, True)
    for heads, same in ((shared, True), (separate, False)):
        heads.local(torch.randn(2, 7, 24)).square().sum().backward()
        by_local = {name for name, p in heads.named_parameters() if p.grad is not None and "mlp" in name}
        heads.zero_grad()
        heads.global_(torch.randn(2, 24)).square().sum().backward()
        by_global = {name for name, p in heads.named_parameters() if p.grad is not None and "mlp" in name}
        assert by_local
        assert (by_local == by_global) == same
        assert same or not by_local & by_global
    count = {name: sum(p.numel() for p in h.parameters()) for name, h in (("one", shared), ("two", separate))}
    assert count["two"] - count["one"] == sum(p.numel() for p in shared.mlp.parameters())


@pytest.mark.parametrize("last_gelu", [False, True])
def test_reconstruction_head_is_its_transposed_convolution(last_gelu):
    head = loud_weights(ReconstructionHead(24, 32, 8, (4, 8), last_gelu))
    tokens = torch.randn(2, 24, 24)
    x = head.mlp(tokens)
    x = F.gelu(x) if last_gelu else x
    wanted = head.convTrans(x.transpose(1, 2).unflatten(2, GRID))[:, 0]  # [B, bottleneck, time, mel] -> [B, T, M]
    assert wanted.shape == (2, 24, 32)
    torch.testing.assert_close(head(tokens, GRID), wanted, rtol=1e-4, atol=1e-4)
    changed = tokens.clone()
    changed[:, 2 * 4 + 1] += 1.0  # the patch at time 2, mel 1
    difference = (head(changed, GRID) - head(tokens, GRID)).abs().sum(0) > 1e-6
    assert difference[8:12, 8:16].all()
    assert difference.sum() == 4 * 8


def test_reconstruction_head_that_copies():
    plain, head = (loud_weights(ReconstructionHead(24, 32, 8, (4, 8), copies=copies)) for copies in (False, True))
    plain.load_state_dict({name: t for name, t in head.state_dict().items() if "copies" not in name})
    tokens, log_mel, mask = torch.randn(2, 24, 24), torch.randn(2, 24, 32), torch.rand(2, 24, 32) < 0.6
    weights = head.copies(head.mlp(tokens)).view(2, 6, 4, 3, 4, 8)  # [B, time, mel, copied, p, q]
    weights = weights.permute(3, 0, 1, 4, 2, 5).reshape(3, 2, 24, 32).exp()
    copied = torch.stack(visible_neighbours(log_mel, mask))
    wanted = (plain(tokens, GRID) + (weights * copied).sum(0)) / (1.0 + weights.sum(0))
    torch.testing.assert_close(head(tokens, GRID, log_mel, mask), wanted, rtol=1e-4, atol=1e-4)
    nothing = torch.zeros_like(mask)
    torch.testing.assert_close(head(tokens, GRID, log_mel), head(tokens, GRID, log_mel, nothing))
    with pytest.raises(InputError, match="corrupted: a head that copies"):
        head(tokens, GRID)


def test_a_head_that_copies_mostly_predicts_at_first():
    head = ReconstructionHead(24, 32, 8, (4, 8), copies=True)
    tokens, level = torch.randn(1, 24, 24), torch.full((1, 24, 32), 4.0)
    copied = (head(tokens, GRID, level) - head(tokens, GRID, 0.0 * level)) / 4.0
    torch.testing.assert_close(copied, torch.full_like(copied, 3 * math.exp(-2) / (1 + 3 * math.exp(-2))))


# --- What the network is told and starts from -----------------------------------------------------------------------


def test_a_network_told_what_is_hidden():
    told, plain = ViT(small(mask_input=True), GRID), ViT(small(), GRID)
    told.load_state_dict(plain.state_dict(), strict=False)
    x = spectrogram()
    hidden = torch.zeros_like(x, dtype=torch.bool)
    torch.testing.assert_close(told(x), plain(x))  # nothing said
    torch.testing.assert_close(told(x, mask=hidden), plain(x))  # nothing hidden
    torch.testing.assert_close(plain(x, mask=~hidden), plain(x))  # a network that is not told
    hidden[1, 4:7, 8:20] = True  # patches (1, 1) and (1, 2)
    out = told(x, mask=hidden)
    torch.testing.assert_close(out[0], plain(x)[0])
    assert not torch.allclose(out[1], plain(x)[1], atol=1e-3)
    step = (told._embed(x, None, 1, hidden)[1] - told._embed(x, None, 1)[1])[1]  # [N, D], what is added to the patches
    wanted = torch.zeros(GRID, dtype=torch.bool)
    wanted[1, 1:3] = True
    assert torch.equal(step.abs().amax(-1).view(GRID) > 1e-4, wanted)
    mask = hidden[1, 4:8, 8:16].float().flatten()  # frames then bands, as the patch itself
    torch.testing.assert_close(step[5], told.mask_embed.weight @ mask, rtol=1e-4, atol=1e-5)


def test_mimetic_start_has_the_products_it_names():
    width, heads = 48, 4
    module = build_attention("softmax", width, heads)
    mimetic_start(module)
    query, key_, value = module.qkv.weight.view(3, width, width)
    mean_diagonals = []
    for head in range(heads):
        rows = slice(head * width // heads, (head + 1) * width // heads)
        product = (query[rows].T @ key_[rows]).detach()
        assert torch.linalg.matrix_rank(product) == width // heads
        mean_diagonals.append(product.diagonal().mean())
    # The largest quarter of the singular directions of 0.7 (noise + identity); all together would give 0.7.
    assert 0.15 < torch.stack(mean_diagonals).mean() < 0.5
    mixed = (module.proj.weight @ value).detach()
    assert mixed.diagonal().mean().item() == pytest.approx(-0.4, abs=0.05)
    off = mixed - torch.diag(mixed.diagonal())
    assert off.std().item() == pytest.approx(0.4 / width**0.5, rel=0.1)


def test_mimetic_start_attends_to_near_patches():
    grid, model = (12, 4), small(width=48, heads=3, position_start="sincos", attention_start="mimetic")
    near, uniform = (
        ViT(one, grid).inspect(0.1 * spectrogram(frames=48), maps=[0]).maps[0].map[:, :, 1:, 1:].mean((0, 1))
        for one in (model, model.model_copy(update={"attention_start": "random"}))
    )
    time = torch.arange(48) // 4
    within = (time[:, None] - time[None]).abs() <= 1
    assert (near * within).sum(1).mean() > 1.5 * (uniform * within).sum(1).mean()
