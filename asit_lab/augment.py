"""What makes two views of a clip differ beyond their time: level, colour, and another clip in the background.

All work on normalised log-mels [V, B, T, M], in the energies behind them, and are the same on every device.
"""

import math

import torch
from torch import Tensor

from .random import fold, uniform

_NAT = math.log(10) / 10  # natural logarithm of an energy per dB
_WAVES = 4  # of a filter's curve: half a period over all bands to two of them


def change_level(clean: Tensor, keys: Tensor, gain_db: float, scale: float) -> Tensor:
    """Make each view louder or softer by up to `gain_db`.

    clean: float [V, B, T, M]. keys: int64 [V*B] of asit_lab.random. scale: natural-log units in one of them (2 std).
    """
    gain = gain_db * _NAT * (2.0 * uniform(fold(keys, "gain"), 1) - 1.0)  # [V*B, 1]
    return clean + (gain / scale).view(*clean.shape[:2], 1, 1).to(clean.dtype)


def change_colour(clean: Tensor, keys: Tensor, filter_db: float, scale: float) -> Tensor:
    """Colour each view, as another microphone or room would: a smooth curve over the bands is added.

    The curve is a sum of cosines over the M bands, of k = 1 to 4 half periods and up to `filter_db` / k, so slow ones
    weigh more. The idea is FilterAugment's (arXiv 2110.03282), which draws steps or lines between random bands.
    clean, keys, scale: as for `change_level`.
    """
    halves = torch.arange(1, _WAVES + 1, device=keys.device)
    bands = (torch.arange(clean.shape[-1], device=keys.device) + 0.5) / clean.shape[-1]  # [M], 0 to 1
    waves = torch.cos(math.pi * halves[:, None] * bands) / halves[:, None]  # [4, M]
    heights = filter_db * _NAT * (2.0 * uniform(fold(keys, "filter"), _WAVES) - 1.0)  # [V*B, 4]
    curve = (heights[:, :, None] * waves).sum(1) / scale  # [V*B, M]
    return clean + curve.view(*clean.shape[:2], 1, -1).to(clean.dtype)


def mix(clean: Tensor, keys: Tensor, donors: Tensor, share: float, scale: float) -> Tensor:
    """Add another clip to each view, with up to `share` of the energy (as BYOL-A, arXiv 2103.06695, section III-A).

    clean: float [V, B, T, M]. keys, scale: as for `change_level`. donors: int64 [V*B], the view that is added, see
    `masking.draw_donors`.
    """
    flat = clean.flatten(0, 1)
    other = share * uniform(fold(keys, "mix"), 1).view(-1, 1, 1).clamp(min=1e-6).to(clean.dtype)  # of the energy
    energy = torch.logaddexp(flat * scale + torch.log1p(-other), flat[donors] * scale + other.log())
    return (energy / scale).view_as(clean)
