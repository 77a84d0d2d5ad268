"""Vision transformer on log-mels, as ASiT has it (pre-norm, learned positions; ViT, arXiv 2010.11929) and as ASDA has
it (post-norm, fixed positions, some patches only; arXiv 2507.02666, released code); each of these is a setting.

Names of parameters are those of timm's and ASiT's vision transformers, so that weights travel by name. Patches are
ordered time-major, mel fastest. LayerNorm's epsilon is 1e-6 and GELU is exact, as in the released code of both.

Shapes: B views, T frames, M mel bands, patch (p, q), grid (T / p, M / q), N its product or, where only some patches
are visible, their number K, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..random import fold, uniform
from ..settings import Model
from .attention import AttentionMaps, build_attention


@dataclass
class Inspection:
    """What `ViT.inspect` keeps of a forward pass."""

    tokens: Tensor
    """[B, 1+N, D], what the network puts out, class token first"""
    grid: tuple[int, int]
    """patches along time, along mel"""
    hidden: dict[int, Tensor] = field(default_factory=dict)
    """block -> [B, 1+N, D], what the block put out"""
    maps: dict[int, AttentionMaps] = field(default_factory=dict)
    """block -> attention [B, H, 1+N, 1+N]"""
    mlp: dict[int, Tensor] = field(default_factory=dict)
    """block -> [B, 1+N, D], what the block's MLP put out, before it is added to its input"""
    # Blocks before model.class_token_at have no class token: N rows, of the patches alone.


class PatchEmbed(nn.Module):
    """Cut a log-mel into patches and project each: [B, T, M] -> [B, N, D], time-major."""

    def __init__(self, patch: tuple[int, int], width: int):
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(1, width, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        # A convolution with stride = kernel is a product with the unfolded patches, which is faster on CPUs.
        return F.linear(unfold(x, self.patch).to(self.proj.weight.dtype), self.proj.weight.flatten(1), self.proj.bias)


def unfold(x: Tensor, patch: tuple[int, int]) -> Tensor:
    """Pixels [B, T, M] -> those of each patch in a row [B, N, p q], patches time-major."""
    (p, q), (batch, frames, mels) = patch, x.shape
    return x.view(batch, frames // p, p, mels // q, q).transpose(2, 3).reshape(batch, -1, p * q)


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def drop_path(x: Tensor, rate: float, keys: Tensor | None) -> Tensor:
    """Drop a residual branch [B, ...] for whole samples with probability `rate`, and scale the others up.

    keys: int64 [B] of asit_lab.random; None: keep all (evaluation, teacher). Deep networks with stochastic depth,
    arXiv 1603.09382.
    """
    if keys is None or rate == 0.0:
        return x
    keep = (uniform(keys, 1) >= rate).to(x.dtype) / (1.0 - rate)  # [B, 1]
    return x * keep.view(-1, *[1] * (x.ndim - 1))


class Block(nn.Module):
    """Attention, then an MLP, each added to its input.

    "pre": x + attention(norm1(x)), then x + mlp(norm2(x)). "post": norm1(x + attention(x)), then norm2(x + mlp(x)).
    layer: from 1.
    """

    def __init__(self, model: Model, drop: float, layer: int):
        super().__init__()
        self.drop, self.post = drop, model.norm == "post"
        self.norm1 = nn.LayerNorm(model.width, eps=1e-6)
        self.attn = build_attention(model.attention, model.width, model.heads, model.attention_path, layer)
        self.norm2 = nn.LayerNorm(model.width, eps=1e-6)
        self.mlp = Mlp(model.width, int(model.width * model.mlp_ratio + 1e-6))  # 61 / 56 * 56 falls short of 61

    def forward(
        self, x: Tensor, keys: Tensor | None, maps: bool = False, audio: Tensor | None = None
    ) -> tuple[Tensor, Tensor, AttentionMaps | None]:
        """[B, N, D] -> outputs of the block and of its MLP, both [B, N, D], and its attention.

        audio: bool [B, N], tokens that are attended to; None: all."""
        mixed, attention = self.attn(x if self.post else self.norm1(x), maps, audio)
        x = x + drop_path(mixed, self.drop, None if keys is None else fold(keys, "attention"))
        x = self.norm1(x) if self.post else x
        new = self.mlp(x if self.post else self.norm2(x))
        x = x + drop_path(new, self.drop, None if keys is None else fold(keys, "mlp"))
        return self.norm2(x) if self.post else x, new, attention


class ViT(nn.Module):
    """The backbone. `grid` is the one its positions are made for; other lengths work, see `positions`."""

    def __init__(self, model: Model, grid: tuple[int, int]):
        super().__init__()
        self.grid, self.patch, self.width = tuple(grid), tuple(model.patch), model.width
        self.class_token_at, self.post = model.class_token_at, model.norm == "post"
        self.patch_embed = PatchEmbed(self.patch, model.width)
        self.mask_embed = (
            nn.Linear(self.patch[0] * self.patch[1], model.width, bias=False) if model.mask_input else None
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, model.width))
        if model.positions == "fixed":  # not among the weights: they follow from the grid
            self.register_buffer("pos_embed", fixed_positions(self.grid, model.width), persistent=False)
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid[0] * grid[1], model.width))
        drops = [model.drop_path * i / max(1, model.depth - 1) for i in range(model.depth)]
        self.blocks = nn.ModuleList(Block(model, drop, i + 1) for i, drop in enumerate(drops))
        self.norm = nn.LayerNorm(model.width, eps=1e-6)  # of what comes out ("pre") or goes in ("post")
        self._init_weights(model)

    def _init_weights(self, model: Model) -> None:
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        if self.learns_positions:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
            if model.position_start == "sincos":
                self.pos_embed.data[0, 1:] = sincos_positions(self.grid, self.width)
        for module in self.modules():  # the patch projection keeps torch's default, as in the released code
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if model.attention_start == "mimetic" and model.attention == "softmax":  # other kinds start as drawn
            for block in self.blocks:
                mimetic_start(block.attn)

    @property
    def learns_positions(self) -> bool:
        """Whether positions are weights (else they follow from the grid)."""
        return isinstance(self.pos_embed, nn.Parameter)

    def forward(
        self, x: Tensor, keys: Tensor | None = None, audio: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Log-mel [B, T, M] -> tokens [B, 1+N, D], class token first.

        keys: int64 [B] of asit_lab.random for stochastic depth; None switches it off. audio, mask: as in `inspect`.
        Raises InputError when T or M is not a whole number of patches or M is not the one the model was made for.
        """
        return self.inspect(x, keys, audio=audio, mask=mask).tokens

    def inspect(
        self,
        x: Tensor,
        keys: Tensor | None = None,
        hidden: Sequence[int] = (),
        maps: Sequence[int] = (),
        mlp: Sequence[int] = (),
        visible: Tensor | None = None,
        clones: int = 1,
        audio: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Inspection:
        """The same pass, keeping the output of the blocks in `hidden`, the attention of those in `maps` and the output
        of the MLP of those in `mlp`.

        visible: int64 [B * clones, K], patches that go through the blocks, `clones` rows a clip, those of a clip one
        after the other; None: all. Tokens come back in their order, [B * clones, 1+K, D], and `keys` are that many.
        A clip's patches are embedded once for all its rows.
        audio: bool [B, N], patches that others attend to, not those of padding; None: all.
        mask: bool [B, T, M], True = corrupted, for a network that is told so (model.mask_input); None: nothing is.
        Raises InputError where `visible` has other rows.
        """
        inspection = Inspection(x, self._grid_of(x))
        cls, tokens = self._embed(x, visible, clones, mask)
        attended = None if audio is None else _attended(audio, visible, clones)
        for i, block in enumerate(self.blocks):
            if i == self.class_token_at:
                tokens = torch.cat([cls.expand(tokens.shape[0], -1, -1), tokens], dim=1)
                attended = None if attended is None else F.pad(attended, (1, 0), value=True)
            drop_keys = None if keys is None else fold(keys, "drop path", i)
            tokens, new, attention = block(tokens, drop_keys, i in maps, attended)
            if i in hidden:
                inspection.hidden[i] = tokens
            if i in mlp:
                inspection.mlp[i] = new
            if attention is not None:
                inspection.maps[i] = attention
        inspection.tokens = tokens if self.post else self.norm(tokens)
        return inspection

    def embed(self, x: Tensor, visible: Tensor | None = None, clones: int = 1) -> Tensor:
        """Log-mel [B, T, M] -> [B, 1+N, D]: class token and patches with positions (and, "post", normalised); what the
        first block sees, unless the class token joins later. visible, clones: as `inspect`."""
        cls, tokens = self._embed(x, visible, clones)
        return torch.cat([cls.expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def _embed(
        self, x: Tensor, visible: Tensor | None, clones: int, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Class token [1, 1, D] and patches [B * clones, K, D], as the blocks get them."""
        positions = self.positions(self._grid_of(x))
        cls, patches = self.cls_token + positions[:, :1], self.patch_embed(x) + positions[:, 1:]  # [B, N, D]
        if self.mask_embed is not None and mask is not None:
            patches = patches + self.mask_embed(unfold(mask, self.patch).to(self.mask_embed.weight.dtype))
        if self.post:
            cls, patches = self.norm(cls), self.norm(patches)
        if visible is None:
            return cls, patches.repeat_interleave(clones, dim=0) if clones > 1 else patches
        if visible.ndim != 2 or len(visible) != len(x) * clones:
            raise InputError(
                f"visible of shape {tuple(visible.shape)}: expected [{len(x)} clips x {clones}, patches to see]"
            )
        clip = torch.arange(len(x), device=x.device).repeat_interleave(clones)[:, None]  # [B * clones, 1]
        return cls, patches[clip, visible]

    def _grid_of(self, x: Tensor) -> tuple[int, int]:
        p, q = self.patch
        if x.ndim != 3 or x.shape[1] % p or x.shape[1] == 0 or x.shape[2] != self.grid[1] * q:
            raise InputError(
                f"log-mel of shape {tuple(x.shape)}: expected [batch, a multiple of {p} frames, {self.grid[1] * q} mel]"
            )
        return x.shape[1] // p, x.shape[2] // q

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Positions [1, 1+N, D] for a grid. Learned: the first ones for shorter clips, interpolated for longer ones.
        Fixed: sines and cosines of any length."""
        if self.learns_positions:
            return fit_positions(self.pos_embed, self.grid, grid)
        if tuple(grid) == self.grid:
            return self.pos_embed
        return fixed_positions(grid, self.width).to(self.pos_embed.device, self.pos_embed.dtype)


def _attended(audio: Tensor, visible: Tensor | None, clones: int) -> Tensor:
    """Which of the patches that go through the blocks are attended to: bool [B, N] -> bool [B * clones, K].

    Where none of a row's is audio all are: attention needs something to look at.
    """
    rows = audio.repeat_interleave(clones, dim=0) if clones > 1 else audio
    rows = rows if visible is None else rows.gather(1, visible)
    return rows | ~rows.any(1, keepdim=True)


@torch.no_grad()
def mimetic_start(attention: nn.Module) -> None:
    """Start weights of softmax attention with products as trained networks have them (mimetic initialisation, Trockman
    and Kolter, arXiv 2305.09828): of each head queries' times keys' near 0.7 (noise + identity), of values' and the
    last projection's near 0.4 (noise - identity). With sines and cosines as positions a patch attends to near ones."""
    width, heads = attention.proj.in_features, attention.heads
    d = width // heads
    q, k, v = attention.qkv.weight.data.view(3, width, width)
    for head in range(heads):
        rows = slice(head * d, (head + 1) * d)
        noise = torch.randn(width, width) / width**0.5
        u, s, vh = torch.linalg.svd(0.7 * noise + 0.7 * torch.eye(width))
        q[rows], k[rows] = (u[:, :d] * s[:d].sqrt()).T, vh[:d] * s[:d, None].sqrt()
    u, s, vh = torch.linalg.svd(0.4 * torch.randn(width, width) / width**0.5 - 0.4 * torch.eye(width))
    v.copy_(s.sqrt()[:, None] * vh)
    attention.proj.weight.data.copy_(u * s.sqrt())


def fixed_positions(grid: tuple[int, int], width: int) -> Tensor:
    """`sincos_positions` after a row of zeros for the class token: [1, 1+N, D]."""
    return F.pad(sincos_positions(grid, width), (0, 0, 1, 0))[None]


def sincos_positions(grid: tuple[int, int], width: int) -> Tensor:
    """2-D sines and cosines [N, D] for a grid (time, mel), time-major: the first half of the channels tells the mel
    column, the second the time row, each half sines then cosines (MAE, arXiv 2111.06377; ASDA's released code).

    Raises InputError when the width is not a multiple of 4.
    """
    if width % 4:
        raise InputError(f"model.width: {width} is not a multiple of 4, which sine-cosine positions need")
    rate = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    time, mel = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    halves = [place.reshape(-1, 1) * rate for place in (mel, time)]  # each [N, D/4]
    return torch.cat([f(half) for half in halves for f in (torch.sin, torch.cos)], dim=1).float()


def fit_positions(learned: Tensor, grid: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Class row and positions [1, 1+N, D] of `grid` for the grid `target`.

    A side that is shorter takes the first of the learned ones, a longer one is interpolated (bicubic), so that a clip
    shorter than the crops of pretraining sees the very positions its patches had there.
    """
    if tuple(grid) == tuple(target):
        return learned
    cls, patches = learned[:, :1], learned[:, 1:]
    patches = patches.view(1, *grid, -1)[:, : target[0], : target[1]]  # slice what is shorter
    if patches.shape[1:3] != tuple(target):
        image = patches.permute(0, 3, 1, 2).float()  # [1, D, time, mel]
        image = F.interpolate(image, size=tuple(target), mode="bicubic", align_corners=False)
        patches = image.permute(0, 2, 3, 1).to(learned.dtype)
    return torch.cat([cls, patches.reshape(1, target[0] * target[1], -1)], dim=1)
