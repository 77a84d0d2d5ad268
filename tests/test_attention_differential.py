"""Differential attention: written-out formulas, both ways to compute it, what it keeps, and whole models with it."""

import gc
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import asit_lab
from asit_lab.config import load_config
from asit_lab.nn import ViT, attention_blocks, build_attention
from asit_lab.settings import Model

DIFFERENTIAL = ("asda", "learned")
KINDS = ("softmax", *DIFFERENTIAL)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def loud(kind: str, dim: int = 24, heads: int = 3, path: str = "auto", layer: int = 2) -> nn.Module:
    """Weights large enough for attention to be far from uniform; lam away from its start, and not 0."""
    module = build_attention(kind, dim, heads, path, layer)
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, std=0.3 if "lambda" in name else 0.5)
    return module


def by_hand(module: nn.Module, x: torch.Tensor, kind: str, layer: int) -> torch.Tensor:
    """Head after head from the weights, with loops."""
    w = dict(module.named_parameters())
    (batch, _, dim), heads = x.shape, module.heads
    head = dim // heads
    channels = head if kind == "asda" else math.ceil(head / 2)
    if kind == "asda":
        lam, lam_start = 0.1, 0.05
    else:
        lam_start = 0.8 - 0.6 * math.exp(-0.3 * (layer - 1))
        lam = (w["lambda_q1"] @ w["lambda_k1"]).exp() - (w["lambda_q2"] @ w["lambda_k2"]).exp() + lam_start
    qk, v = F.linear(x, w["qk.weight"], w["qk.bias"]), F.linear(x, w["v.weight"], w["v.bias"])
    rows = []
    for b in range(batch):
        outputs = []
        for h in range(heads):
            parts = [
                qk[b, :, i * heads * channels + h * channels : i * heads * channels + (h + 1) * channels]
                for i in range(4)
            ]
            q1, q2, k1, k2 = parts
            maps = [torch.softmax(q @ k.T / channels**0.5, -1) for q, k in ((q1, k1), (q2, k2))]
            out = (maps[0] - lam * maps[1]) @ v[b, :, h * head : (h + 1) * head]
            if kind == "learned":
                out = out / (out.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w["norm.weight"]
            outputs.append(out)
        rows.append(torch.cat(outputs, -1))
    mixed = torch.stack(rows)
    if kind == "asda":
        mixed = F.layer_norm(mixed, (dim,), w["norm.weight"], w["norm.bias"], 1e-5)
    return F.linear((1 - lam_start) * mixed, w["proj.weight"], w["proj.bias"])


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


@pytest.fixture
def small_blocks(monkeypatch, two_threads):
    """Five queries of nine, then four; two heads of three, then one."""
    monkeypatch.setattr(attention_blocks, "BLOCK_BYTES", 5 * 16)


@pytest.mark.parametrize("path", ["explicit", "fused", "blocks"])
@pytest.mark.parametrize("kind", DIFFERENTIAL)
@pytest.mark.usefixtures("small_blocks")
def test_attention_is_the_written_out_formula(kind, path):
    for dim, heads, layer in ((24, 3, 1), (24, 2, 5), (12, 4, 2)):  # the last: heads of 3 channels
        module = loud(kind, dim, heads, path, layer)
        x = torch.randn(2, 9, dim)
        torch.testing.assert_close(module(x)[0], by_hand(module, x, kind, layer), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", ["fused", "blocks"])
@pytest.mark.parametrize("kind", DIFFERENTIAL)
@pytest.mark.usefixtures("small_blocks")
def test_explicit_equals_the_other_paths_in_value_and_gradient(kind, path):
    explicit, other = loud(kind, path="explicit"), loud(kind, path=path)
    other.load_state_dict(explicit.state_dict())
    outputs, gradients = [], []
    for module in (explicit, other):
        x = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(1), requires_grad=True)
        out, maps = module(x)
        assert maps is None
        out.square().sum().backward()
        outputs.append(out.detach())
        gradients.append({"x": x.grad} | {name: p.grad for name, p in module.named_parameters()})
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
    dim_k = explicit.qk.bias.numel() // 2
    for name, ours in gradients[0].items():
        theirs = gradients[1][name]
        scale = theirs.abs().max()
        assert scale > 0
        if name == "qk.bias":  # softmax does not see the keys' biases: their gradient is rounding noise
            assert theirs[dim_k:].abs().max() < 1e-4 * scale
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(scale))


@pytest.mark.parametrize("tokens", [9, 16, 17])
@pytest.mark.parametrize("lam", [None, 0.3])
@pytest.mark.usefixtures("small_blocks")
def test_blocks_have_the_gradients_of_their_formula(tokens, lam):
    """In double precision: queries, keys, values and the factor, whichever of them are asked for."""
    parts = 3 if lam is None else 4
    packed = [torch.randn(2, tokens, parts, 3, 4, dtype=torch.float64)]
    if lam is not None:
        packed.append(torch.randn(2, tokens, 1, 3, 6, dtype=torch.float64))
        lam = torch.tensor(lam, dtype=torch.float64)
    for asked in [(True, True)] if lam is None else [(True, True, True), (True, False, False), (False, True, True)]:
        results = []
        for attend in (attention_blocks.in_blocks, plain):
            inputs = [
                None if each is None else each.clone().requires_grad_(on)
                for each, on in zip((*packed, lam), asked, strict=True)
            ]
            out = attend(inputs[:-1], 0.7, inputs[-1])
            out.square().sum().backward()
            results.append([out.detach(), *(each.grad for each in inputs if each is not None)])
        for ours, theirs in zip(*results, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert theirs.abs().max() > 0
                torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def plain(packed, scale, lam):
    """What `in_blocks` says that it does."""
    *qk, v = (part.transpose(1, 2) for each in packed for part in each.unbind(2))
    half = len(qk) // 2
    maps = [torch.softmax(scale * q @ k.mT, -1) for q, k in zip(qk[:half], qk[half:], strict=True)]
    return ((maps[0] if lam is None else maps[0] - lam * maps[1]) @ v).transpose(1, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_leave_out_what_is_no_token(kind):
    """At sizes on both sides of a multiple of 16, with logits far below and above 0."""
    for tokens in (1, 15, 16, 17):
        explicit, blocks = build_attention(kind, 24, 3, "explicit"), build_attention(kind, 24, 3, "blocks")
        with torch.no_grad():
            first = explicit.qkv if kind == "softmax" else explicit.qk
            first.bias.copy_(10.0 * torch.randn_like(first.bias))
            blocks.load_state_dict(explicit.state_dict())
            x = torch.randn(2, tokens, 24)
            wanted, out = explicit(x)[0], blocks(x)[0]
        assert out.isfinite().all()
        torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", ["explicit", "fused", "blocks", "auto"])
@pytest.mark.parametrize("kind", DIFFERENTIAL)
def test_maps_reproduce_the_output(kind, path):
    module, x = loud(kind, path=path), torch.randn(2, 9, 24)
    out, maps = module(x, maps=True)
    assert maps.map.shape == maps.first.shape == maps.second.shape == (2, 3, 9, 9)
    assert maps.lam.shape == (1, 1, 1, 1)
    for each in (maps.first, maps.second):
        torch.testing.assert_close(each.sum(-1), torch.ones(2, 3, 9))
        assert each.amax(-1).mean() > 0.5  # attention that really selects
    assert (maps.first - maps.second).abs().max() > 0.5
    torch.testing.assert_close(maps.map, maps.first - maps.lam * maps.second)
    values = module.v(x).view(2, 9, 3, 8).transpose(1, 2)
    mixed = (maps.map @ values).transpose(1, 2)
    torch.testing.assert_close(module.proj(module.normalise(mixed)), out, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(module(x)[0], out, rtol=1e-4, atol=1e-4)


def test_learned_factor_starts_as_its_depth_says():
    """The paper's lam_start, layers counted from 1; the factor itself is off it by the vectors' small products."""
    for layer, start in ((1, 0.2), (2, 0.8 - 0.6 * math.exp(-0.3)), (12, 0.8 - 0.6 * math.exp(-3.3))):
        module = build_attention("learned", 384, 6, layer=layer)
        assert module.lam_start == pytest.approx(start)
        assert 0 < abs(module.lam().item() - start) < 0.5
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            torch.nn.init.zeros_(getattr(module, name))
        assert module.lam().item() == pytest.approx(start)
    vit = ViT(Model(width=24, depth=3, heads=3, patch=(4, 8), attention="learned"), (6, 4))
    assert [block.attn.lam_start for block in vit.blocks] == pytest.approx(
        [0.8 - 0.6 * math.exp(-0.3 * i) for i in range(3)]
    )


def test_learned_has_the_weights_of_softmax():
    """Apart from the norm's and the factor's vectors; asda has 2 D x D more, its second queries and keys."""
    for dim, heads in ((384, 3), (24, 2)):
        counts = {kind: sum(p.numel() for p in build_attention(kind, dim, heads).parameters()) for kind in KINDS}
        head = dim // heads
        assert counts["learned"] == counts["softmax"] + head + 4 * (head // 2)
        assert counts["asda"] == counts["softmax"] + 2 * dim * (dim + 1) + 2 * dim


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_memory_grows_linearly_from_1024_patches_on(kind, dtype):
    """What the forward pass keeps for the backward pass: numbers a token, and no map."""
    module, kept = build_attention(kind, 16, 2), {}
    for tokens in (1026, 2052):
        sizes = {}

        def note(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
        ):
            out, _ = module(torch.randn(1, tokens, 16, requires_grad=True))
        assert out.requires_grad
        kept[tokens] = sum(sizes.values())
        assert max(sizes.values()) < tokens**2
    assert kept[2052] < 2.1 * kept[1026]


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_gradients_of_blocks_are_as_exact_as_those_of_the_whole_map(kind, monkeypatch):
    """However many blocks they are summed over."""
    monkeypatch.setattr(attention_blocks, "BLOCK_BYTES", 2 * 208 * torch.bfloat16.itemsize)
    x, gradients = torch.randn(1, 200, 24), {}
    for path, dtype in (("explicit", torch.float32), ("explicit", torch.bfloat16), ("blocks", torch.bfloat16)):
        torch.manual_seed(0)
        module = build_attention(kind, 24, 3, path)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            out = module(x)[0]
        out.float().square().sum().backward()
        gradients[path, dtype] = torch.cat([p.grad.flatten() for p in module.parameters()])
    wanted, whole, blocks = gradients.values()
    assert 0 < (blocks - wanted).norm() < 1.5 * (whole - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.usefixtures("two_threads")
def test_what_blocks_work_in_does_not_grow():
    for tokens in (1024, 4096, 65536):
        values = torch.empty(6, tokens, 64, device="meta")  # [heads, tokens, channels]
        room = attention_blocks._room(values, tokens, 3)
        assert room.nbytes <= 3 * 2 * (attention_blocks.BLOCK_BYTES + tokens * values.itemsize)
        blocks = attention_blocks._blocks(tokens, values.dtype)
        assert [0, *(block.stop for block in blocks)] == [*(block.start for block in blocks), tokens]


@pytest.mark.parametrize("path", ["explicit", "fused", "blocks"])
@pytest.mark.parametrize("kind", DIFFERENTIAL)
def test_bf16_is_close_and_warns_of_nothing(kind, path, recwarn):
    gc.collect(), recwarn.clear()  # what tests before left open
    module, x = loud(kind, path=path), torch.randn(2, 9, 24)
    nn.init.normal_(module.qk.weight, std=0.1)  # not so loud that rounding moves the attention
    wanted = module(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = module(x)
    assert out.dtype == torch.bfloat16
    assert (out.float() - wanted).abs().max() < 0.05 * wanted.abs().max()
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("preset", ["asit-vit-s", "asit-official-vit-b", "micro"])
@pytest.mark.parametrize("kind", DIFFERENTIAL)
def test_one_override_changes_any_preset(preset, kind):
    cfg = load_config(preset, [f"model.attention={kind}"])
    module = build_attention(cfg.model.attention, cfg.model.width, cfg.model.heads)
    out, maps = module(torch.randn(2, 5, cfg.model.width), maps=True)
    assert out.shape == (2, 5, cfg.model.width)
    assert maps.first.shape == (2, cfg.model.heads, 5, 5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DIFFERENTIAL)
def test_asit_with_differential_attention(kind, tmp_path):
    """Pretraining, its snapshot, an encoder of it and that encoder's maps."""
    cfg = load_config("smoke", [f"model.attention={kind}", "train.steps=2"])
    run = asit_lab.pretrain(cfg, out=tmp_path / "run", resume="never")
    encoder = asit_lab.load_encoder(run.dir)
    names = set(encoder.backbone.state_dict())
    assert {"blocks.0.attn.qk.weight", "blocks.0.attn.norm.weight"} <= names
    assert ("blocks.0.attn.lambda_q1" in names) == (kind == "learned")
    wave = 0.1 * torch.randn(2, cfg.crop_samples)
    maps = encoder.attention(wave, cfg.features.sample_rate, layers=range(cfg.model.depth))
    assert maps.first.shape == maps.second.shape == maps.map.shape
    assert maps.first.shape[:3] == (cfg.model.depth, 2, cfg.model.heads)
    torch.testing.assert_close(maps.map, maps.first - maps.lam * maps.second)
    assert encoder.embed(wave, cfg.features.sample_rate).shape == (2, cfg.model.width)
