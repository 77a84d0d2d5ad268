"""Reconstruction head: patch tokens back to pixels (ASiT, arXiv 2211.13189, section III-A)."""

from torch import Tensor, nn
from torch.nn import functional as F

from .heads import init_linear


class ReconstructionHead(nn.Module):
    """Linear, GELU, Linear, GELU, Linear to a bottleneck, then a transposed convolution of one patch a token.

    last_gelu: one more GELU after the bottleneck, as the released code has it.
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, patch: tuple[int, int], last_gelu: bool = False):
        super().__init__()
        self.patch, self.last_gelu = tuple(patch), last_gelu
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        init_linear(self)
        self.convTrans = nn.ConvTranspose2d(bottleneck, 1, kernel_size=self.patch, stride=self.patch)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patch tokens without the class token [B, N, D] on `grid` (time, mel) -> [B, T, M] normalised log-mel."""
        (p, q), (time, mel) = self.patch, grid
        x = self.mlp(tokens)
        if self.last_gelu:
            x = F.gelu(x)
        # Stride equals kernel, so no two patches overlap and the transposed convolution is one linear map a token.
        pixels = x @ self.convTrans.weight.flatten(1) + self.convTrans.bias  # [B, N, pq]
        return pixels.view(-1, time, mel, p, q).transpose(2, 3).reshape(-1, time * p, mel * q)
