"""Schedules as pure functions of the step: float64, nothing to save, nothing to get out of line on resume.

`cosine` and `linear` have the shapes of the released ASiT code, whose warm-up includes the peak, so that the peak is
reached twice; `warmup_cosine` that of ASDA's, which is fairseq's. Neither cosine quite reaches its end value.
"""

import math


def cosine(start: float, end: float, steps: int, step: int, warmup: int = 0) -> float:
    """Value at `step` (from 0): a linear warm-up from 0 to `start` over `warmup` steps, then half a cosine to `end`.

    steps: length of the whole schedule. Past it the value stays `end`.
    """
    if step < warmup:
        return start * step / (warmup - 1) if warmup > 1 else 0.0
    if step >= steps:
        return end
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def warmup_cosine(peak: float, low: float, steps: int, step: int, warmup: int) -> float:
    """Value at `step` (from 0): linear from `low`, reaching `peak` at step `warmup`, then half a cosine back to `low`.

    steps: length of the whole schedule. Past it the value stays `low`. A `low` above `peak` counts as `peak`.
    """
    low = min(low, peak)
    if step < warmup:
        return low + (peak - low) * step / warmup
    return cosine(peak, low, steps - warmup, step - warmup)


def linear(start: float, end: float, steps: int, step: int) -> float:
    """`steps` equally spaced values from `start` to `end`, both included, then `end` for ever."""
    if step >= steps:
        return end
    if steps == 1:
        return start
    return start + (end - start) * step / (steps - 1)


def layer_scales(decay: float, depth: int) -> list[float]:
    """Factors of the rate that fall towards the input: depth + 2 of them, of the embedding, of each block, and 1 of
    what follows the last (layer-wise rate decay; BEiT, arXiv 2106.08254)."""
    return [decay ** (depth + 1 - i) for i in range(depth + 2)]
