"""Decoders: patch tokens back to pixels (ASiT), and to the teacher's tokens (ASDA)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..masking import visible_neighbours
from .heads import init_linear

_COPIED = 3  # pixels that a head may copy: those of `visible_neighbours`
_COPY_START = -2.0  # their scores at first, beside 0 of the prediction: together they weigh a quarter or so


class ReconstructionHead(nn.Module):
    """Linear, GELU, Linear, GELU, Linear to a bottleneck, then a transposed convolution of one patch a token (ASiT,
    arXiv 2211.13189, section III-A).

    last_gelu: one more GELU after the bottleneck, as the released code has it. copies: each pixel is a weighted mean of
    what is predicted and of what stands beside the gap: the nearest uncorrupted pixels of its band before and after it,
    and the straight line between them. The weights are predicted, too. A steady tone can then be continued as it is,
    where a prediction alone blurs it over its band's neighbours (not in the paper).
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        bottleneck: int,
        patch: tuple[int, int],
        last_gelu: bool = False,
        copies: bool = False,
    ):
        super().__init__()
        self.patch, self.last_gelu = tuple(patch), last_gelu
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        init_linear(self)
        self.convTrans = nn.ConvTranspose2d(bottleneck, 1, kernel_size=self.patch, stride=self.patch)
        self.copies = None
        if copies:
            self.copies = nn.Linear(bottleneck, _COPIED * self.patch[0] * self.patch[1])
            nn.init.zeros_(self.copies.weight)
            nn.init.constant_(self.copies.bias, _COPY_START)

    def forward(
        self, tokens: Tensor, grid: tuple[int, int], corrupted: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Patch tokens without the class token [B, N, D] on `grid` (time, mel) -> [B, T, M] normalised log-mel.

        corrupted: the log-mel that the tokens are of, [B, T, M]. mask: bool [B, T, M], True = corrupted; None: nothing
        is. Both are read with `copies` alone.
        """
        x = self.mlp(tokens)
        if self.last_gelu:
            x = F.gelu(x)
        # Stride equals kernel, so no two patches overlap and the transposed convolution is one linear map a token.
        predicted = self._image(x @ self.convTrans.weight.flatten(1) + self.convTrans.bias, grid)
        if self.copies is None:
            return predicted
        if corrupted is None:
            raise InputError("corrupted: a head that copies needs the log-mel that the tokens are of")
        copied = visible_neighbours(corrupted, torch.zeros_like(corrupted, dtype=torch.bool) if mask is None else mask)
        scores = self.copies(x).float().unflatten(-1, (_COPIED, -1))  # [B, N, 3, pq], that of the prediction is 0
        scores = [torch.zeros_like(corrupted), *(self._image(of_one, grid) for of_one in scores.unbind(2))]
        return (torch.stack(scores).softmax(0) * torch.stack([predicted.to(corrupted.dtype), *copied])).sum(0)

    def _image(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """The pixels of each token, [B, N, pq] -> [B, T, M]."""
        (p, q), (time, mel) = self.patch, grid
        return pixels.reshape(-1, time, mel, p, q).transpose(2, 3).reshape(-1, time * p, mel * q)


class ConvDecoder(nn.Module):
    """Layers of grouped convolution over the grid, LayerNorm over channels without weights, GELU, each added to its
    input where the widths agree; then one linear map back (ASDA's released code, arXiv 2507.02666; data2vec 2.0,
    2212.07525).

    width_in: of the tokens; width: of the layers. Raises InputError when `groups` does not divide both.
    """

    def __init__(self, width_in: int, width: int, layers: int = 6, kernel: int = 3, groups: int = 16):
        super().__init__()
        if width_in % groups or width % groups:
            raise InputError(f"decoder: {groups} groups do not divide its widths, {width_in} (tokens) and {width}")
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width if i else width_in, width, kernel, padding=kernel // 2, groups=groups))
            for i in range(layers)
        )  # each in a Sequential for the names of published weights, blocks.<i>.0
        self.proj = nn.Linear(width, width_in)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patch tokens without the class token [B, N, D] on `grid` (time, mel) -> [B, N, D]."""
        time, mel = grid
        x = tokens.to(self.proj.weight.dtype).unflatten(1, grid)  # [B, time, mel, D]
        for conv in self.blocks:
            y = conv(x.permute(0, 3, 1, 2))[:, :, :time, :mel]  # an even kernel puts out one row and column too many
            y = y.permute(0, 2, 3, 1)  # [B, time, mel, C]
            y = F.gelu(F.layer_norm(y, y.shape[-1:]))
            x = x + y if x.shape == y.shape else y
        return self.proj(x.flatten(1, 2))
