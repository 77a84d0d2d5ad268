"""Self-attention behind one factory; maps are an output of the same code, not a hook.

Shapes: B clips, N tokens (class token first), D width, H heads, d = D / H.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError

# Tokens from which the fused kernel is faster on a CPU (forward and backward, two cores, fp32 and bf16: at 297 tokens
# 43 -> 51 ms and 24 -> 61 ms, at 2,049 tokens 1,158 -> 561 ms and 565 -> 485 ms). On GPUs it always is.
FUSED_FROM_ON_CPU = 1000


@dataclass
class AttentionMaps:
    """Attention of one or more layers, [..., H, query N, key N]; rows of `map` sum to what the kind says.

    map: what multiplies the values. first, second, lam: for differential attention the two softmaxes and the factor
    of the second, else None.
    """

    map: Tensor
    first: Tensor | None = None
    second: Tensor | None = None
    lam: Tensor | None = None


class SoftmaxAttention(nn.Module):
    """Multi-head softmax attention, fused qkv projection ordered [q | k | v], then heads (ViT, arXiv 2010.11929)."""

    def __init__(self, dim: int, heads: int, path: str = "auto"):
        super().__init__()
        if dim % heads:
            raise InputError(f"model.heads: {heads} does not divide model.width {dim}")
        self.heads, self.path = heads, path
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, maps: bool = False) -> tuple[Tensor, AttentionMaps | None]:
        """[B, N, D] -> [B, N, D] and, when `maps`, the attention [B, H, N, N]."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads)  # [B, N, 3, H, d]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, H, N, d]
        attention = None
        if maps or not self._fused(x):
            attention = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1)  # [B, H, N, N]
            mixed = attention.to(v.dtype) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        out = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))  # [B, H, N, d] -> [B, N, D]
        return out, AttentionMaps(attention) if maps else None

    def _fused(self, x: Tensor) -> bool:
        if self.path == "auto":
            return x.device.type != "cpu" or x.shape[1] >= FUSED_FROM_ON_CPU
        return self.path == "fused"

    def extra_repr(self) -> str:
        return f"heads={self.heads}, path={self.path}"


_KINDS = {"softmax": SoftmaxAttention}


def build_attention(kind: str, dim: int, heads: int, path: str = "auto") -> nn.Module:
    """An attention module `(x, maps) -> (out, AttentionMaps | None)`.

    kind: "softmax". path: "explicit", "fused" (torch's scaled_dot_product_attention) or "auto", the faster of the two.
    """
    if kind not in _KINDS:
        raise InputError(f"model.attention: {kind!r} is not one of {', '.join(_KINDS)}")
    if path not in ("auto", "explicit", "fused"):
        raise InputError(f"model.attention_path: {path!r} is not one of auto, explicit, fused")
    return _KINDS[kind](dim, heads, path)
