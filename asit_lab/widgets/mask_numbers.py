"""What GMML's masks of one setting have in common: shares, blocks and gaps over many seeds."""

from collections.abc import Sequence

import numpy as np
import torch

from ..masking import gmml
from ..settings import Mask
from .corruption import mask_key

SEEDS = 50


def shares_over_seeds(settings: Mask, shape: tuple[int, int], patch: tuple[int, int], hop_ms: float) -> str:
    """HTML table of the masks of seeds 0 to SEEDS - 1: mean, least and most of each number.

    shape: frames, mels of a log-mel; patch: frames, mels of a token.
    """
    masks = gmml(torch.cat([mask_key(seed) for seed in range(SEEDS)]), *shape, settings, patch)
    hidden = [gap_lengths(mask) * hop_ms / 1000 for mask in masks.pixels.numpy()]
    numbers = {
        "pixels (%)": 100 * masks.pixels.float().mean((1, 2)).numpy(),
        "tokens (%)": 100 * masks.tokens(patch).float().mean((1, 2)).numpy(),
        "blocks": masks.blocks.numpy(),
        "mean gap (s)": np.array([seconds.mean() if len(seconds) else 0.0 for seconds in hidden]),
        "longest gap (s)": np.array([seconds.max(initial=0.0) for seconds in hidden]),
    }
    rows = [(name, f"{v.mean():.3g}", f"{v.min():.3g}", f"{v.max():.3g}") for name, v in numbers.items()]
    lines = [_row(cells) for cells in ((f"{SEEDS} seeds", "mean", "least", "most"), *rows)]
    return f'<table style="line-height: 1.4">{"".join(lines)}</table>'


def _row(cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f'<td style="padding: 0 14px 0 0">{cell}</td>' for cell in cells) + "</tr>"


def gap_lengths(mask: np.ndarray) -> np.ndarray:
    """Lengths in frames of everything hidden without a break in one band of mask [frames, mels]: int [gaps]."""
    edges = np.diff(np.pad(mask.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)  # [mels, frames + 1]
    return np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1]
