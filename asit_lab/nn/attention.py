"""Self-attention behind one factory; maps are an output of the same code, not a hook.

Softmax attention (ViT, arXiv 2010.11929) and two forms of differential attention, the difference of two softmaxes:
with fixed factors (ASDA, arXiv 2507.02666, as released) and with a learned one (Differential Transformer, 2410.05258).

Shapes: B clips, N tokens (class token first), D width, H heads, d = D / H, e channels of a query or key.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..errors import InputError

# Below this many tokens a CPU is fastest with the whole map (forward and backward, two cores: at 297 tokens 43 ms, 51
# fused in fp32, and 24 to 61 in bf16; at 513 tokens 59 to 75 and 34 to 84). From it on memory may not grow with the
# square of the tokens. In fp32 the fused kernel is then the faster one, too (2,049 tokens: 1,158 to 561 ms); in bf16
# torch's kernel for CPUs takes up to twice the time of the whole map, and blocks come close to that. On GPUs the fused
# kernel is always the fastest.
WHOLE_MAP_BELOW_ON_CPU = 1000
# Numbers in the map of one block of queries: with a third of it a pass takes 20 to 50 % longer, with twice it between
# 4 % less and 15 % more (ASDA, bf16, 1,025 and 2,049 tokens, one core).
BLOCK = 3_200_000

KINDS = ("softmax", "asda", "learned")
PATHS = ("auto", "explicit", "fused", "blocks")


@dataclass
class AttentionMaps:
    """Attention of one or more layers, [..., H, query N, key N].

    map: what multiplies the values; rows sum to 1, for differential attention to 1 - lam. first, second, lam: for
    differential attention the two softmaxes and the factor of the second, [..., 1, 1, 1], so that
    map = first - lam * second; else None.
    """

    map: Tensor
    first: Tensor | None = None
    second: Tensor | None = None
    lam: Tensor | None = None


class SoftmaxAttention(nn.Module):
    """Multi-head softmax attention, fused qkv projection ordered [q | k | v], then heads."""

    def __init__(self, dim: int, heads: int, path: str = "auto"):
        super().__init__()
        self.heads, self.path = heads, path
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, maps: bool = False) -> tuple[Tensor, AttentionMaps | None]:
        """[B, N, D] -> [B, N, D] and, when `maps`, the attention [B, H, N, N]."""
        q, k, v = split_heads(self.qkv(x), 3, self.heads)  # each [B, H, N, d]
        seen, path = None, "explicit" if maps else choose_path(self.path, v)
        if path == "fused":
            mixed = fused(q, k, v, self.scale)
        elif path == "blocks":
            mixed = in_blocks(self._map, (q,), (k,), v)
        else:
            attention = self._map(q, k)  # [B, H, N, N]
            mixed = attention.to(v.dtype) @ v
            seen = AttentionMaps(attention) if maps else None
        return self.proj(mixed.transpose(1, 2).flatten(2)), seen  # mixed [B, H, N, d]

    def _map(self, q: Tensor, k: Tensor) -> Tensor:
        return softmax_map(q, k, self.scale)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, path={self.path}"


class DifferentialAttention(nn.Module):
    """What both kinds share: (softmax(q1 k1) - lam * softmax(q2 k2)) v, normalised, scaled, projected.

    `qk` gives [q1 | q2 | k1 | k2], each [N, H, e]; `v` gives [N, H, d]. Subclasses say e, lam and how the result is
    normalised.
    """

    def __init__(self, dim: int, heads: int, channels: int, path: str):
        super().__init__()
        self.heads, self.path = heads, path
        self.scale = channels**-0.5
        self.qk = nn.Linear(dim, 4 * heads * channels)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def lam(self) -> float | Tensor:
        """Factor of the second softmax: a number, or a tensor without dimensions."""
        raise NotImplementedError

    def normalise(self, mixed: Tensor) -> Tensor:
        """[B, N, H, d] -> [B, N, D], normalised and scaled."""
        raise NotImplementedError

    def forward(self, x: Tensor, maps: bool = False) -> tuple[Tensor, AttentionMaps | None]:
        """[B, N, D] -> [B, N, D] and, when `maps`, both softmaxes, lam and their difference."""
        q1, q2, k1, k2 = split_heads(self.qk(x), 4, self.heads)  # each [B, H, N, e]
        (v,) = split_heads(self.v(x), 1, self.heads)  # [B, H, N, d]
        lam, seen, path = self.lam(), None, "explicit" if maps else choose_path(self.path, v)
        if path == "fused":
            mixed = fused(q1, k1, v, self.scale) - lam * fused(q2, k2, v, self.scale)
        elif path == "blocks":
            mixed = in_blocks(lambda *qk: self._maps(*qk, lam).map, (q1, q2), (k1, k2), v)
        else:
            seen = self._maps(q1, q2, k1, k2, lam)
            mixed = seen.map.to(v.dtype) @ v
            seen = seen if maps else None
        return self.proj(self.normalise(mixed.transpose(1, 2))), seen  # mixed [B, H, N, d]

    def _maps(self, q1: Tensor, q2: Tensor, k1: Tensor, k2: Tensor, lam: float | Tensor) -> AttentionMaps:
        first, second = softmax_map(q1, k1, self.scale), softmax_map(q2, k2, self.scale)
        return AttentionMaps(first - lam * second, first, second, torch.as_tensor(lam).to(first).view(1, 1, 1, 1))

    def extra_repr(self) -> str:
        return f"heads={self.heads}, path={self.path}"


class AsdaAttention(DifferentialAttention):
    """ASDA's released form: queries and keys twice as many, at full size (e = d); factors that are not learned; one
    LayerNorm over the concatenated heads."""

    LAM, OUTPUT_SCALE = 0.1, 0.95

    def __init__(self, dim: int, heads: int, path: str = "auto"):
        super().__init__(dim, heads, dim // heads, path)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def lam(self) -> float:
        return self.LAM

    def normalise(self, mixed: Tensor) -> Tensor:
        return self.OUTPUT_SCALE * self.norm(mixed.flatten(2))


class LearnedAttention(DifferentialAttention):
    """The Differential Transformer's form (section 2.1): lam = exp(lq1 . lk1) - exp(lq2 . lk2) + lam_start.

    A head's queries and keys are two of e = d / 2 channels (rounded up) with d channels of values, so that a layer has
    the weights of a softmax layer of the same width. The paper's counterpart of H' softmax heads of e channels is
    therefore H = H' / 2 heads here; with the same H, queries and keys are half as wide. lam is one number a layer and
    starts near lam_start = 0.8 - 0.6 exp(-0.3 (layer - 1)), layer counted from 1. Each head is normalised by its
    root mean square, and scaled by 1 - lam_start.
    """

    def __init__(self, dim: int, heads: int, path: str = "auto", layer: int = 1):
        head = dim // heads
        channels = (head + 1) // 2
        super().__init__(dim, heads, channels, path)
        self.lam_start = 0.8 - 0.6 * math.exp(-0.3 * (layer - 1))
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):  # released code: normal, std 0.1
            self.register_parameter(name, nn.Parameter(0.1 * torch.randn(channels)))
        self.norm = nn.RMSNorm(head, eps=1e-5)

    def lam(self) -> Tensor:
        first, second = (self.lambda_q1 * self.lambda_k1).sum(), (self.lambda_q2 * self.lambda_k2).sum()
        return first.exp() - second.exp() + self.lam_start

    def normalise(self, mixed: Tensor) -> Tensor:
        mixed = mixed.to(self.norm.weight.dtype)  # in full precision under autocast, as LayerNorm is
        return (1.0 - self.lam_start) * self.norm(mixed).flatten(2)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, lam_start={self.lam_start:.3f}"


def build_attention(kind: str, dim: int, heads: int, path: str = "auto", layer: int = 1) -> nn.Module:
    """An attention module `(x, maps) -> (out, AttentionMaps | None)`.

    kind: "softmax", "asda" or "learned". path: "explicit" (the whole map), "fused" (torch's kernel, without a map),
    "blocks" (the map of some queries at a time) or "auto", the fastest at that size, dtype and device. layer: which
    one of the network, from 1 (only "learned" depends on it).
    """
    if kind not in KINDS:
        raise InputError(f"model.attention: {kind!r} is not one of {', '.join(KINDS)}")
    if path not in PATHS:
        raise InputError(f"model.attention_path: {path!r} is not one of {', '.join(PATHS)}")
    if dim % heads:
        raise InputError(f"model.heads: {heads} does not divide model.width {dim}")
    if kind == "learned":
        return LearnedAttention(dim, heads, path, layer)
    return {"softmax": SoftmaxAttention, "asda": AsdaAttention}[kind](dim, heads, path)


# --- what the kinds share -------------------------------------------------------------------------------------------


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """[B, N, parts * H * e] -> parts of [B, H, N, e]."""
    return x.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def softmax_map(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Queries and keys [B, H, N, e] -> attention [B, H, N, N]."""
    return ((q * scale) @ k.transpose(-2, -1)).softmax(-1)


def fused(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attention without its map. q, k: [B, H, N, e]; v: [B, H, N, d], e <= d -> [B, H, N, d].

    Kernels that need no map want q and k as wide as v; zeros beyond their own channels change no product.
    """
    missing = v.shape[-1] - q.shape[-1]
    if missing:
        q, k = F.pad(q, (0, missing)), F.pad(k, (0, missing))
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


def in_blocks(map_of: Callable[..., Tensor], queries: Sequence[Tensor], keys: Sequence[Tensor], v: Tensor) -> Tensor:
    """Explicit attention over some queries of one clip at a time; the backward pass makes each map anew.

    map_of: (*queries, *keys) -> map. queries, keys: each [B, H, N, e]; v: [B, H, N, d] -> [B, H, N, d].
    """
    heads, tokens = v.shape[1:3]
    blocks = math.ceil(heads * tokens * tokens / BLOCK)
    rows = math.ceil(tokens / blocks)  # about as many in each: keys are laid out for matmuls once a block

    def block(v: Tensor, *qk: Tensor) -> Tensor:
        return map_of(*qk).to(v.dtype) @ v

    clips = []
    for clip in range(len(v)):
        k_and_v = [tensor[clip] for tensor in (v, *keys)]  # each [H, N, .]
        parts = zip(*(q[clip].split(rows, dim=1) for q in queries), strict=True)
        done = [
            checkpoint(block, k_and_v[0], *part, *k_and_v[1:], use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
        clips.append(torch.cat(done, dim=1))
    return torch.stack(clips)


def choose_path(path: str, v: Tensor) -> str:
    """The path that "auto" means for values v [B, H, N, d]; another one is what it says."""
    if path != "auto":
        return path
    if v.device.type != "cpu":
        return "fused"
    if v.shape[-2] < WHOLE_MAP_BELOW_ON_CPU:
        return "explicit"
    return "fused" if v.dtype == torch.float32 else "blocks"
