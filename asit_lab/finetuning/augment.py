"""Augments training clips: mixing, rolling, SpecAugment, noise; all by keys of asit_lab.random.

Shapes: B clips, S samples, T frames, M mel bands, K classes.
"""

import numpy as np
import torch
import torchaudio
from torch import Tensor

from ..features import LogMel
from ..random import fold, integers, uniform
from .recipe import Recipe

_MASK64 = (1 << 64) - 1


def beta(keys: Tensor, a: float) -> np.ndarray:
    """float64 [n], a number from Beta(a, a) for each key, int64 [n]."""
    return np.array([np.random.default_rng(key & _MASK64).beta(a, a) for key in keys.tolist()])


def rolled(wave: np.ndarray, key: Tensor) -> np.ndarray:
    """A waveform [S] rolled by any amount, times 0.5 + Beta(10, 10) (ASDA's released code). key: a scalar."""
    samples = int(uniform(fold(key, "roll"), 1).double() * len(wave))
    gain = 0.5 + beta(fold(key, "gain").reshape(1), 10.0)[0]
    return (gain * np.roll(wave, samples)).astype(np.float32)


def mixed(wave: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """`share` of a waveform [S] and the rest of another one, cut or padded to its length; both without their mean
    (between-class examples, arXiv 1711.10282; AST, arXiv 2104.01778)."""
    padded = np.zeros_like(wave)
    length = min(len(wave), len(other))
    padded[:length] = (other - other.mean())[:length]
    return (share * (wave - wave.mean()) + (1 - share) * padded).astype(np.float32)


def augmented(raw: Tensor, targets: Tensor, recipe: Recipe, front_end: LogMel, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Raw log-mels [B, T, M] and targets [B, K] -> the same, normalised and augmented as the recipe says.

    keys: int64 [B], one per clip. In the order of the released code: AST's masks, normalising, noise, shift, mixing of
    log-mels, ASDA's masks.
    """
    step = keys[0]  # for what a batch has in common
    x = masked(raw, recipe.freq_mask, recipe.time_mask, fold(step, "SpecAugment"))
    x = front_end.normalise(x)
    if recipe.noise:
        height = 0.1 * uniform(fold(keys, "noise height"), 1)[..., None]
        x = x + height * uniform(fold(keys, "noise"), x[0].numel()).view_as(x)
    if recipe.shift_frames:
        x = shifted(x, fold(keys, "shift"), recipe.shift_frames)
    if recipe.mixup and recipe.mixup_of == "log-mel" and uniform(fold(step, "mixes"), 1) < recipe.mixup:
        share = float(beta(fold(step, "share").reshape(1), recipe.mixup_beta)[0])
        x, targets = (share * tensor + (1 - share) * tensor.flip(0) for tensor in (x, targets))
    bands, frames = recipe.masked * x.shape[2], recipe.masked * x.shape[1]
    return masked(x, bands, frames, fold(step, "masked")), targets


def masked(x: Tensor, bands: float, frames: float, key: Tensor) -> Tensor:
    """SpecAugment (arXiv 1904.08779): in each clip of [B, T, M] one stripe of less than `bands` bands and one of less
    than `frames` frames become 0, as torchaudio's FrequencyMasking and TimeMasking do. key: a scalar."""
    if bands < 1 and frames < 1:
        return x
    # torchaudio draws from torch's global generator: it is seeded here, and its state restored afterwards.
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(int(key))
        turned = x.transpose(1, 2)  # [B, M, T]
        turned = torchaudio.transforms.FrequencyMasking(min(bands, x.shape[2]), iid_masks=True)(turned)
        turned = torchaudio.transforms.TimeMasking(min(frames, x.shape[1]), iid_masks=True)(turned)
    return turned.transpose(1, 2)


def shifted(x: Tensor, keys: Tensor, largest: int) -> Tensor:
    """Each clip of [B, T, M] rolled in time by up to `largest` frames either way. keys: int64 [B]."""
    shift = integers(keys, 1, 2 * largest + 1).to(x.device) - largest  # [B, 1]
    place = (torch.arange(x.shape[1], device=x.device) - shift) % x.shape[1]  # [B, T]
    return x.gather(1, place[..., None].expand_as(x))
