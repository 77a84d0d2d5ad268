"""Schedules as pure functions of the step: float64, nothing to save, nothing to get out of line on resume.

The shapes are the released ASiT code's, whose warm-up includes the peak, so that the peak is reached twice, and whose
cosine never quite reaches its end value.
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


def linear(start: float, end: float, steps: int, step: int) -> float:
    """`steps` equally spaced values from `start` to `end`, both included, then `end` for ever."""
    if steps <= 1 or step >= steps:
        return end
    return start + (end - start) * step / (steps - 1)
