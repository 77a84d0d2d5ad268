"""What ASDA needs of the vision transformer: post-norm, fixed positions, visible patches, the class token's block."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from asit_lab.config import load_config
from asit_lab.errors import InputError
from asit_lab.nn import ConvDecoder, ViT
from asit_lab.nn.vit import sincos_positions
from asit_lab.random import fold, key
from asit_lab.settings import Model

GRID = (6, 4)
PATCHES = GRID[0] * GRID[1]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def asda(**settings) -> ViT:
    """A small one with weights large enough for attention to be far from uniform."""
    sizes = {"width": 24, "depth": 3, "heads": 3, "patch": (4, 8), "drop_path": 0.5}
    kinds = {"attention": "asda", "norm": "post", "positions": "fixed", "mlp_ratio": 3.5}
    vit = ViT(Model(**sizes | kinds | settings), GRID)
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.3)
    return vit


def spectrogram(batch: int = 2, frames: int = 24) -> torch.Tensor:
    return torch.randn(batch, frames, 32)


def by_hand(vit: ViT, x: torch.Tensor, keep: torch.Tensor | None = None) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Post-norm pass from weights and torch's functions; `keep`: bool [1+N], tokens anybody may look at. Softmax
    attention. Returns tokens and each MLP's output."""
    w = dict(vit.named_parameters())

    def norm(z, name):
        return F.layer_norm(z, (24,), w[name + ".weight"], w[name + ".bias"], 1e-6)

    patches = F.conv2d(x[:, None], w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=vit.patch)
    patches = patches.flatten(2).transpose(1, 2) + sincos_positions(GRID, 24)
    z = norm(torch.cat([w["cls_token"].expand(len(x), -1, -1), patches], 1), "norm")
    hide = None if keep is None else ~keep.expand(len(x), -1)
    targets = []
    for i in range(len(vit.blocks)):
        b = f"blocks.{i}."
        mixed, _ = F.multi_head_attention_forward(
            *[z.transpose(0, 1)] * 3, 24, 3, w[b + "attn.qkv.weight"], w[b + "attn.qkv.bias"], None, None, False,
            0.0, w[b + "attn.proj.weight"], w[b + "attn.proj.bias"], key_padding_mask=hide, need_weights=False,
        )  # fmt: skip
        h = norm(z + mixed.transpose(0, 1), b + "norm1")
        t = F.linear(F.gelu(F.linear(h, w[b + "mlp.fc1.weight"], w[b + "mlp.fc1.bias"])), w[b + "mlp.fc2.weight"])
        targets.append(t + w[b + "mlp.fc2.bias"])
        z = norm(h + targets[-1], b + "norm2")
    return z, targets


# --- post-norm ------------------------------------------------------------------------------------------------------


def test_post_norm_is_the_written_out_transformer():
    vit, x = asda(attention="softmax"), spectrogram()
    seen = vit.inspect(x, mlp=[0, 2], hidden=[2])
    tokens, targets = by_hand(vit, x)
    torch.testing.assert_close(seen.tokens, tokens, rtol=1e-3, atol=1e-4)
    assert torch.equal(seen.hidden[2], seen.tokens)  # no norm at the end
    assert sorted(seen.mlp) == [0, 2]
    for i, target in seen.mlp.items():
        torch.testing.assert_close(target, targets[i], rtol=1e-3, atol=1e-4)


def test_output_of_the_mlp_in_a_pre_norm_block():
    vit, x = asda(norm="pre"), spectrogram()
    seen = vit.inspect(x, hidden=[0, 1], mlp=[1])
    block, into = vit.blocks[1], seen.hidden[0]
    between = into + block.attn(block.norm1(into))[0]
    torch.testing.assert_close(seen.mlp[1], block.mlp(block.norm2(between)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen.hidden[1], between + seen.mlp[1], rtol=1e-4, atol=1e-4)


def test_stochastic_depth_of_post_norm_blocks():
    """A dropped branch leaves its norm of the input alone; what the MLP puts out is seen before it is dropped."""
    vit, x = asda(depth=1), spectrogram(64)
    block = vit.blocks[0]
    block.drop = 0.5
    keys = key(0, torch.arange(64))
    seen = vit.inspect(x, keys, mlp=[0])
    into, mixed = vit.embed(x), block.attn(vit.embed(x))[0]
    kinds = set()
    for i in range(64):
        found = []
        for attend in (0.0, 2.0):
            h = block.norm1(into[i] + attend * mixed[i])
            for think in (0.0, 2.0):
                out = block.norm2(h + think * block.mlp(h))
                if torch.allclose(out, seen.tokens[i], rtol=1e-3, atol=1e-3):
                    found.append((attend, think))
                    torch.testing.assert_close(seen.mlp[0][i], block.mlp(h), rtol=1e-3, atol=1e-3)
        assert len(found) == 1, f"clip {i}: {found}"
        kinds.update(found)
    assert len(kinds) == 4  # each branch is dropped on its own
    assert not torch.allclose(seen.tokens, vit(x, fold(keys, 1)))
    assert torch.equal(seen.tokens, vit(x, keys))


def test_every_parameter_gets_a_gradient():
    for at in (0, 2):
        vit = asda(class_token_at=at)
        vit(spectrogram(8), key(0, torch.arange(8))).pow(3).sum().backward()
        without = [name for name, p in vit.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert without == []


# --- fixed positions ------------------------------------------------------------------------------------------------


def test_fixed_positions_of_any_length_are_no_weights():
    vit = asda()
    assert "pos_embed" not in vit.state_dict()
    assert "pos_embed" not in dict(vit.named_parameters())
    for time in (1, 6, 9):
        positions = vit.positions((time, 4))
        assert not positions[:, 0].any()
        assert torch.equal(positions[0, 1:], sincos_positions((time, 4), 24))
        x = spectrogram(frames=4 * time)
        assert vit(x).shape == (2, 1 + 4 * time, 24)
        raw = asda(norm="pre")
        torch.testing.assert_close(raw.embed(x)[:, 1:] - raw.patch_embed(x), positions[:, 1:].expand(2, -1, -1))
    other = ViT(Model(width=24, depth=3, heads=3, patch=(4, 8), attention="asda", norm="post", positions="fixed",
                      mlp_ratio=3.5), (2, 4))  # fmt: skip
    other.load_state_dict(vit.state_dict())  # weights do not depend on the length
    x = spectrogram(frames=32)
    torch.testing.assert_close(other(x), vit(x))


# --- visible patches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"class_token_at": 2}, {"norm": "pre", "positions": "learned"}])
def test_all_patches_visible_in_order_is_the_plain_pass(settings):
    vit, x = asda(**settings), spectrogram()
    every = torch.arange(PATCHES).expand(6, -1)
    tokens = vit.inspect(x, visible=every, clones=3).tokens
    torch.testing.assert_close(tokens, vit(x).repeat_interleave(3, 0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vit.inspect(x, clones=3).tokens, tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"class_token_at": 2}, {"norm": "pre", "attention": "learned"}])
def test_order_of_visible_patches_is_that_of_the_tokens(settings):
    vit, x = asda(**settings), spectrogram()
    visible = torch.stack([torch.randperm(PATCHES)[:7] for _ in range(4)])
    order = torch.randperm(7)
    one = vit.inspect(x, visible=visible, clones=2, mlp=[2])
    two = vit.inspect(x, visible=visible[:, order], clones=2, mlp=[2])
    assert one.tokens.shape == one.mlp[2].shape == (4, 8, 24)
    torch.testing.assert_close(two.tokens[:, 0], one.tokens[:, 0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(two.tokens[:, 1:], one.tokens[:, 1:][:, order], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(two.mlp[2][:, 1:], one.mlp[2][:, 1:][:, order], rtol=1e-3, atol=1e-4)


def test_visible_patches_see_nothing_of_the_others():
    """The same as hiding the others from attention in a pass over all; each row belongs to its clip."""
    vit, x = asda(attention="softmax"), spectrogram()
    visible = torch.stack([torch.randperm(PATCHES)[:7].sort().values for _ in range(4)])
    tokens = vit.inspect(x, visible=visible, clones=2).tokens
    for row, patches in enumerate(visible):
        keep = torch.zeros(1 + PATCHES, dtype=torch.bool)
        keep[0] = True
        keep[1 + patches] = True
        whole, _ = by_hand(vit, x[row // 2 : row // 2 + 1], keep)
        torch.testing.assert_close(tokens[row], whole[0, keep], rtol=1e-3, atol=1e-4)


def test_rows_of_clones_have_their_own_keys():
    vit, x = asda(), spectrogram()
    visible = torch.arange(7).expand(4, -1)
    keys = key(0, torch.arange(4))
    tokens = vit.inspect(x, keys, visible=visible, clones=2).tokens
    for row in range(4):
        alone = vit.inspect(x[row // 2 : row // 2 + 1], keys[row : row + 1], visible=visible[:1]).tokens
        torch.testing.assert_close(tokens[row : row + 1], alone, rtol=1e-4, atol=1e-4)


def test_visible_that_does_not_fit():
    vit, x = asda(), spectrogram()
    for visible in (torch.zeros(3, 5, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)):
        with pytest.raises(InputError, match=r"expected \[2 clips x 2, patches to see\]"):
            vit.inspect(x, visible=visible, clones=2)


# --- class token ----------------------------------------------------------------------------------------------------


def test_class_token_joins_at_its_block():
    first, x = asda(), spectrogram()
    outputs = [first(x)]
    for at in (1, 2):
        vit = asda(class_token_at=at)
        vit.load_state_dict(first.state_dict())
        seen = vit.inspect(x, hidden=range(3), mlp=range(3), maps=range(3))
        for i in range(3):
            rows = PATCHES + (i >= at)
            assert seen.hidden[i].shape == seen.mlp[i].shape == (2, rows, 24)
            assert seen.maps[i].first.shape == (2, 3, rows, rows)
        tokens = vit.norm(vit.patch_embed(x) + vit.positions(GRID)[:, 1:])
        for i, block in enumerate(vit.blocks):
            if i == at:
                tokens = torch.cat([vit.norm(vit.cls_token).expand(2, -1, -1), tokens], 1)
            tokens, *_ = block(tokens, None)
        torch.testing.assert_close(seen.tokens, tokens, rtol=1e-4, atol=1e-5)
        outputs.append(seen.tokens)
    for i, one in enumerate(outputs):
        for two in outputs[:i]:
            assert not torch.allclose(one[:, 0], two[:, 0], atol=1e-2)
            assert not torch.allclose(one[:, 1:], two[:, 1:], atol=1e-2)


def test_settings_that_do_not_fit():
    for override, message in [
        ("model.class_token_at=2", r"model\.class_token_at: 2 is not a block of model\.depth 2"),
        ("model.positions=fixed", r"model\.width: 30 is not a multiple of 4, which fixed positions need"),
    ]:
        with pytest.raises(InputError, match=message):
            load_config("smoke", ["model.depth=2", "model.width=30", "model.heads=3", override])


# --- decoder --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width_in", "width", "kernel"), [(24, 24, 3), (24, 16, 3), (16, 16, 5), (16, 16, 2)])
def test_convolutional_decoder_by_hand(width_in, width, kernel):
    decoder = ConvDecoder(width_in, width, layers=3, kernel=kernel, groups=4)
    tokens = torch.randn(2, PATCHES, width_in)
    image = tokens.transpose(1, 2).reshape(2, width_in, *GRID)
    for i, (conv,) in enumerate(decoder.blocks):
        before = (kernel // 2, (kernel - 1) // 2) * 2  # an even kernel looks further back than ahead
        out = F.conv2d(F.pad(image, before), conv.weight, conv.bias, groups=4)
        out = (out - out.mean(1, keepdim=True)) / (out.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        image = F.gelu(out) + (image if i or width_in == width else 0)
    wanted = F.linear(image.flatten(2).transpose(1, 2), decoder.proj.weight, decoder.proj.bias)
    torch.testing.assert_close(decoder(tokens, GRID), wanted, rtol=1e-4, atol=1e-5)


def test_groups_must_divide_the_decoder():
    with pytest.raises(InputError, match=r"16 groups do not divide its widths, 24 \(tokens\) and 32"):
        ConvDecoder(24, 32)
