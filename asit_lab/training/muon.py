"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), all matrices of one shape at a time.

It does what torch.optim.Muon does with adjust_lr_fn="match_rms_adamw", and takes up its state. That one multiplies in
bf16 everywhere, which takes seconds a step on processors without units for it, and takes one small matrix after the
other; the products of a stack keep all cores busy.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from ..arithmetic import has_bf16

MOMENTUM = 0.95  # its author's, and the following
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
_SMALLEST = 1e-7  # norm that a matrix is divided by


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal, as the update of matrices.

    groups: {"params": matrices, "lr": rate, "weight_decay": decoupled decay}. Updates are scaled to the size of AdamW's
    (Moonlight, arXiv 2502.16982), so that both take one rate.
    """

    def __init__(self, groups: Iterable[dict]):
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Move the matrices that have a gradient."""
        for group in self.param_groups:
            matrices = [matrix for matrix in group["params"] if matrix.grad is not None]
            if not matrices:
                continue
            gradients = [matrix.grad for matrix in matrices]
            momenta = [self._momentum(matrix) for matrix in matrices]
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            updates = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov's
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            by_shape = defaultdict(list)
            for matrix, update in zip(matrices, updates, strict=True):
                by_shape[matrix.shape].append((matrix, update))
            for shape, pairs in by_shape.items():
                alike, of_each = zip(*pairs, strict=True)
                directions = orthogonal(torch.stack(of_each)).to(alike[0].dtype)
                torch._foreach_add_(alike, directions.unbind(), alpha=-0.2 * max(shape) ** 0.5 * group["lr"])

    def _momentum(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        return state["momentum_buffer"]


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices [n, A, B] with their singular values moved near 1, by Newton-Schulz iterations in bf16 where the device
    has units for it, else in fp32."""
    upright = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if upright else matrices
    x = x.to(torch.bfloat16 if has_bf16(matrices.device.type) else torch.float32)
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=_SMALLEST)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if upright else x
