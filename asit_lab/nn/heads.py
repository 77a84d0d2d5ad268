"""Projection heads of the two distillation objectives (ASiT, arXiv 2211.13189, section III-B; DINO, 2104.14294).

Shapes: D width of a token, K outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..settings import Heads


class WeightNormLinear(nn.Module):
    """Linear without bias whose rows are normalised: weight = g v / |v| per row; the gains g are 1 and frozen.

    The same function as torch's weight_norm, with g a plain frozen parameter under the name published weights use.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(outputs, 1), requires_grad=False)
        self.weight_v = nn.Parameter(nn.Linear(inputs, outputs, bias=False).weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=1, keepdim=True))
        return F.linear(x, weight)


class Projection(nn.Sequential):
    """Linear, GELU, Linear, GELU, Linear to a bottleneck, L2-normalised: [..., D] -> [..., bottleneck]."""

    def __init__(self, width: int, hidden: int, bottleneck: int):
        super().__init__(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        init_linear(self)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(super().forward(x), dim=-1)


class DistillationHeads(nn.Module):
    """Local head (patch tokens) and global head (class token): one shared projection (released code) or one each.

    Only the heads of losses that are on are built. prototypes: whether the global head ends in logits, or in the
    normalised bottleneck, whose products a contrastive loss compares.
    """

    def __init__(self, width: int, heads: Heads, local: bool, global_: bool, prototypes: bool = True):
        super().__init__()
        self.mlp = self.local_mlp = self.global_mlp = None
        if heads.shared and (local or global_):
            self.mlp = Projection(width, heads.hidden, heads.bottleneck)
        elif local:
            self.local_mlp = Projection(width, heads.hidden, heads.bottleneck)
        if global_ and not heads.shared:
            self.global_mlp = Projection(width, heads.hidden, heads.bottleneck)
        self.cls_layer = WeightNormLinear(heads.bottleneck, heads.global_out) if global_ and prototypes else None
        self.data_layer = WeightNormLinear(heads.bottleneck, heads.local_out) if local else None

    def local(self, tokens: Tensor) -> Tensor:
        """Patch tokens [..., D] -> logits [..., local_out]."""
        return self.data_layer((self.mlp or self.local_mlp)(tokens))

    def global_(self, tokens: Tensor) -> Tensor:
        """Class tokens [..., D] -> logits [..., global_out], or without prototypes [..., bottleneck]."""
        projected = (self.mlp or self.global_mlp)(tokens)
        return projected if self.cls_layer is None else self.cls_layer(projected)


def init_linear(module: nn.Module) -> None:
    """Truncated normal, std 0.02, and zero biases, as the backbone."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
