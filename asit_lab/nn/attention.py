"""Self-attention behind one factory; maps are an output of the same code, not a hook.

Softmax attention (ViT, arXiv 2010.11929) and two forms of differential attention, the difference of two softmaxes:
with fixed factors (ASDA, arXiv 2507.02666, as released) and with a learned one (Differential Transformer, 2410.05258).

Shapes: B clips, N tokens (class token first), D width, H heads, d = D / H, e channels of a query or key.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import registry
from ..errors import InputError
from .attention_blocks import in_blocks

# Which path is the fastest on a CPU (benchmarks/attention.py). fp32: torch's kernel, but for two softmaxes whose maps,
# of all clips and heads, take no more than so many bytes. bf16: the whole map up to SHORT tokens however many the
# clips, beyond that up to so many bytes, then blocks. Above LONGEST_MAP tokens (1,024 patches and the class token) no
# map is whole, however few the clips: memory then grows linearly.
MAPS_FP32, MAPS = 15e6, 40e6
SHORT, LONGEST_MAP = 600, 1025

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

    def __init__(self, dim: int, heads: int, path: str = "auto", layer: int = 1):
        super().__init__()
        self.heads, self.path = heads, path
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, maps: bool = False, audio: Tensor | None = None
    ) -> tuple[Tensor, AttentionMaps | None]:
        """[B, N, D] -> [B, N, D] and, when `maps`, the attention [B, H, N, N].

        audio: bool [B, N], tokens that are attended to, at least one a clip; None: all."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # [B, N, 3, H, d]
        attention_maps, path = None, "explicit" if maps else choose_path(self.path, qkv, masked=audio is not None)
        if path == "blocks":
            return self.proj(in_blocks([qkv], self.scale).flatten(2)), None
        q, k, v = heads_first(qkv)  # each [B, H, N, d]
        if path == "fused":
            mixed = fused(q, k, v, self.scale, audio)
        else:
            attention = softmax_map(q, k, self.scale, audio)  # [B, H, N, N]
            mixed = attention.to(v.dtype) @ v
            attention_maps = AttentionMaps(attention) if maps else None
        return self.proj(mixed.transpose(1, 2).flatten(2)), attention_maps  # mixed [B, H, N, d]

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

    def forward(
        self, x: Tensor, maps: bool = False, audio: Tensor | None = None
    ) -> tuple[Tensor, AttentionMaps | None]:
        """[B, N, D] -> [B, N, D] and, when `maps`, both softmaxes, lam and their difference. audio: as for softmax."""
        qk = self.qk(x).unflatten(-1, (4, self.heads, -1))  # [B, N, 4, H, e]
        v = self.v(x).unflatten(-1, (1, self.heads, -1))  # [B, N, 1, H, d]
        lam, attention_maps = self.lam(), None
        path = "explicit" if maps else choose_path(self.path, v, softmaxes=2, masked=audio is not None)
        if path == "blocks":
            return self.proj(self.normalise(in_blocks([qk, v], self.scale, lam))), None
        q1, q2, k1, k2, v = *heads_first(qk), *heads_first(v)  # each [B, H, N, e or d]
        if path == "fused":
            mixed = fused(q1, k1, v, self.scale, audio) - lam * fused(q2, k2, v, self.scale, audio)
        else:
            # both [B, H, N, N]
            first, second = softmax_map(q1, k1, self.scale, audio), softmax_map(q2, k2, self.scale, audio)
            attention = first - lam * second
            mixed = attention.to(v.dtype) @ v
            if maps:
                attention_maps = AttentionMaps(
                    attention, first, second, torch.as_tensor(lam).to(first).view(1, 1, 1, 1)
                )
        return self.proj(self.normalise(mixed.transpose(1, 2))), attention_maps  # mixed [B, H, N, d]

    def extra_repr(self) -> str:
        return f"heads={self.heads}, path={self.path}"


class AsdaAttention(DifferentialAttention):
    """ASDA's released form: queries and keys twice as many, at full size (e = d); factors that are not learned; one
    LayerNorm over the concatenated heads."""

    LAM, OUTPUT_SCALE = 0.1, 0.95

    def __init__(self, dim: int, heads: int, path: str = "auto", layer: int = 1):
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

    kind: "softmax", "asda", "learned", or one of your own (docs/extending.md), which is called with the same
    arguments. path: "explicit" (the whole map), "fused" (torch's kernel, without a map),
    "blocks" (the map of some queries at a time) or "auto", the fastest at that size, dtype and device. layer: which
    one of the network, from 1 (only "learned" depends on it).
    """
    if path not in PATHS:
        raise InputError(f"model.attention_path: {path!r} is not one of {', '.join(PATHS)}")
    if dim % heads:
        raise InputError(f"model.heads: {heads} does not divide model.width {dim}")
    return registry.load_part("attention", kind, "model.attention")(dim, heads, path, layer)


# --- what the kinds share -------------------------------------------------------------------------------------------


def heads_first(packed: Tensor) -> tuple[Tensor, ...]:
    """[B, N, parts, H, e] -> parts of [B, H, N, e]."""
    return tuple(part.transpose(1, 2) for part in packed.unbind(2))


def softmax_map(q: Tensor, k: Tensor, scale: float, audio: Tensor | None = None) -> Tensor:
    """Queries and keys [B, H, N, e] -> attention [B, H, N, N]. audio: bool [B, N], tokens attended to; None: all."""
    logits = (q * scale) @ k.transpose(-2, -1)
    return (logits if audio is None else logits.masked_fill(~audio[:, None, None], -torch.inf)).softmax(-1)


def fused(q: Tensor, k: Tensor, v: Tensor, scale: float, audio: Tensor | None = None) -> Tensor:
    """Attention without its map. q, k: [B, H, N, e]; v: [B, H, N, d], e <= d -> [B, H, N, d]. audio: as above.

    Kernels that need no map want q and k as wide as v; zeros beyond their own channels change no product.
    """
    missing = v.shape[-1] - q.shape[-1]
    if missing:
        q, k = F.pad(q, (0, missing)), F.pad(k, (0, missing))
    mask = None if audio is None else audio[:, None, None].expand(-1, -1, q.shape[2], -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def choose_path(path: str, packed: Tensor, softmaxes: int = 1, masked: bool = False) -> str:
    """The path that "auto" means for a projection [B, N, parts, H, d]; any other is taken as it is.

    masked: some tokens are not attended to, which "blocks" cannot do and "fused" does instead.
    """
    path = _fastest_path(packed, softmaxes) if path == "auto" else path
    return "fused" if masked and path == "blocks" else path


def _fastest_path(packed: Tensor, softmaxes: int) -> str:
    if packed.device.type != "cpu":
        return "fused"
    clips, tokens, _, heads, _ = packed.shape
    maps = clips * heads * tokens**2 * packed.itemsize
    if packed.itemsize >= 4:
        explicit = softmaxes == 2 and tokens <= LONGEST_MAP and maps <= MAPS_FP32
        return "explicit" if explicit else "fused"
    explicit = tokens <= SHORT or (tokens <= LONGEST_MAP and maps <= MAPS)
    return "explicit" if explicit else "blocks"
