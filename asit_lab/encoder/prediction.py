"""ASDA's prediction errors of one window of a clip (arXiv 2507.02666): see `Encoder.prediction_error`.

Shapes: B clips, T frames, M mel bands, grid of patches (time, freq), N its product, R rows of masks, K visible patches.
"""

import math

import torch
from torch import Tensor

from ..config import RunConfig
from ..masking import inverse_blocks
from ..nn import ConvDecoder, ViT
from ..objectives import asda
from ..objectives.losses import squared_error
from ..random import fold


def window_errors(
    backbone: ViT,
    student: ViT,
    decoder: ConvDecoder,
    config: RunConfig,
    log_mel: Tensor,
    mask: Tensor | None,
    keys: Tensor,
) -> tuple[Tensor, Tensor]:
    """Sum of the errors of each patch over the masks that hide it, and their number, both [B, time, freq].

    backbone: the teacher's. log_mel: the window, [B, T, M]. mask: bool [time, freq], or None to draw masks as in
    pretraining. keys: int64 [B].
    """
    grid = (log_mel.shape[1] // config.model.patch[0], config.grid[1])
    if mask is None:
        visible, hidden = covering_masks(config, grid, keys)
    else:
        hidden = mask.flatten().expand(len(keys), -1)
        visible = (~mask.flatten()).nonzero().T.expand(len(keys), -1)
    clones = len(hidden) // len(keys)
    rows = fold(keys[:, None], torch.arange(clones, device=keys.device)).flatten()  # those of a clip stand together
    noise = asda.decoder_noise(rows, math.prod(grid), config.model.width, config.asda.noise)
    target = asda.targets(backbone, log_mel, config.asda)[0].patches  # [B, N, D]
    predicted = asda.predict_targets(student, decoder, log_mel, visible, noise)[1]  # [R, N, D]
    error = squared_error(predicted, target.repeat_interleave(clones, dim=0)) * hidden  # [R, N]
    error, times = (rows.unflatten(0, (-1, clones)).sum(1).unflatten(1, grid) for rows in (error, hidden))
    return error, times


def covering_masks(config: RunConfig, grid: tuple[int, int], keys: Tensor) -> tuple[Tensor, Tensor]:
    """Masks as in pretraining, `asda.clones` of each clip and as many again until every patch is hidden in one.

    keys: int64 [B]. Returns what is visible, int64 [R, K], and what is hidden, bool [R, N].
    """
    share = max(config.asda.visible, 1 / math.prod(grid))  # on small grids at least one patch
    visible: list[Tensor] = []  # each [B, clones, K]
    hidden: list[Tensor] = []
    while not hidden or not torch.cat(hidden, 1).any(1).all():
        clones = torch.arange(config.asda.clones, device=keys.device)
        rows = fold(keys[:, None], "masks", len(hidden), clones)
        drawn = inverse_blocks(rows.flatten(), grid, share, config.asda.block)
        visible.append(drawn[0].unflatten(0, rows.shape))
        hidden.append(drawn[1].unflatten(0, rows.shape))
    return torch.cat(visible, 1).flatten(0, 1), torch.cat(hidden, 1).flatten(0, 1)
