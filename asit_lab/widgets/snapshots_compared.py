"""Encoders of the reconstruction explorer: a run's snapshots, and their reconstructions for one mask.

Shapes: T frames, M mel bands, grid of patches (time, freq).
"""

import math
import warnings
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import diff, preset_names, resolve
from ..encoder import Encoder
from ..errors import InputError
from ..figures import Reconstructed
from ..figures.axes import spread_tokens
from ..inspection.reconstruction_error import interpolate_in_time
from ..masking import inverse_blocks
from ..nn import ConvDecoder
from ..runs.directory import load_run
from ..zoo import open_source
from .corruption import mask_key

KEPT = 3  # encoders of one source in memory: those of ViT-B take 0.7 GB each


class Snapshots:
    """A run's snapshots, oldest first, opened on demand; the last few stay open. Of other sources, one encoder."""

    def __init__(self, source: Encoder | str | Path, seed: int = 0):
        """source: an Encoder, a run, or what `zoo.open_source` takes (`seed`: of a preset's untrained weights).

        Raises InputError for a run without snapshots.
        """
        self.source, self.seed = source, seed
        folder = None if isinstance(source, Encoder) or str(source) in preset_names() else resolve(source)
        self.run = folder if folder is not None and (folder / "config.yaml").is_file() else None
        self.paths = load_run(self.run).snapshots if self.run else []
        if self.run and not self.paths:
            raise InputError(f"{self.run}: the run has no snapshot yet")
        self.steps = [int(path.stem.removeprefix("step-")) for path in self.paths]
        self.encoder = lru_cache(KEPT)(self._open)

    def __len__(self) -> int:
        return len(self.paths) or 1

    def _open(self, place: int) -> Encoder:
        if isinstance(self.source, Encoder):
            return self.source
        return open_source(self.paths[place] if self.paths else self.source, self.seed)

    def place_at(self, step: int) -> int:
        """The last snapshot that is not after a step; before all of them, the first."""
        return max(0, bisect_right(self.steps, step) - 1)

    def title(self, place: int) -> str:
        """What to call the encoder at `place`; runs by their folder, as several may be of one preset."""
        return f"{self.run.name}, step {self.steps[place]}" if self.run else self.encoder(place).name


# --- What an encoder can show ---------------------------------------------------------------------------------------


def predicts_pixels(enc: Encoder) -> bool:
    """True where it reconstructs log-mels (ASiT), False where it predicts features of patches (ASDA).

    Raises InputError, saying what is missing, where it does neither.
    """
    if enc.reconstructs:
        return True
    if isinstance(enc.decoder, ConvDecoder) and enc.student is not None:
        return False
    raise InputError(
        f"{enc.name}: has neither ASiT's decoder (a run with the reconstruction loss keeps it) nor ASDA's (the frame "
        "loss), so there is nothing it fills in. Published teachers come without one; runs and presets of this project "
        "have what their losses need"
    )


def check_pair(first: Encoder, second: Encoder) -> None:
    """Raise InputError unless two encoders can fill in one mask: what they predict, and on which log-mel or patches."""
    if predicts_pixels(first) != predicts_pixels(second):
        raise InputError(
            f"{first.name} and {second.name}: one reconstructs log-mels (ASiT), the other predicts features (ASDA), so "
            "their errors have nothing in common; choose two of one kind"
        )
    differ = [row for row in diff(first.config, second.config) if row["key"].startswith("features.")]
    if differ:
        named = ", ".join(f"{row['key']} {row['a']} and {row['b']}" for row in differ)
        raise InputError(
            f"{first.name} and {second.name}: two runs can be compared on one mask where their features are the same; "
            f"these differ: {named}"
        )
    patches = first.config.model.patch, second.config.model.patch
    if not predicts_pixels(first) and patches[0] != patches[1]:
        raise InputError(
            f"{first.name} and {second.name}: hidden patches of model.patch {list(patches[0])} and {list(patches[1])} "
            "are not the same; choose two of one size"
        )


# --- Log-mels and what is hidden of them ----------------------------------------------------------------------------


def log_mel(encoders: list[Encoder], wave: np.ndarray) -> Tensor:
    """Normalised log-mel [1, T, M] of float [samples] at the encoders' rate, T whole patches of each of them."""
    enc = encoders[0]
    step = math.lcm(*(encoder.config.model.patch[0] for encoder in encoders))
    raw = enc.front_end(torch.from_numpy(wave)[None].to(enc.device))
    return enc.front_end.normalise(enc.front_end.fit(raw, max(step, raw.shape[1] // step * step))).cpu()


def hidden_patches(grid: tuple[int, int], share: float, block: int, seed: int) -> Tensor:
    """ASDA's mask of a grid: bool [time, freq], True = hidden; as near to `share` as leaves patches of both kinds."""
    patches = math.prod(grid)
    visible = min(max(1 - share, 1 / patches), 1 - 1 / patches)
    return inverse_blocks(mask_key(seed), grid, visible, block)[1].view(grid)


# --- What they fill in --------------------------------------------------------------------------------------------


def reconstruct_crop(enc: Encoder, clean: Tensor, corrupted: Tensor, mask: Tensor, title: str) -> Reconstructed:
    """Of log-mels and mask [1, T, M], as arrays [T, M]."""
    images = (clean, corrupted, enc.fill_in(corrupted.to(enc.device), mask.to(enc.device)).cpu(), mask)
    return Reconstructed(*(image[0].numpy() for image in images), title)


def pasted(clip: Reconstructed) -> np.ndarray:
    """The clip with its reconstruction where it was corrupted, [T, M]."""
    return np.where(clip.mask, clip.reconstructed, clip.clean)


def clip_baselines(clip: Reconstructed) -> list[tuple[str, np.ndarray, float]]:
    """What needs no model: (name, filled log-mel [T, M], L1 on corrupted pixels) of a straight line in time between
    what is visible, and of each band's mean over what is visible."""
    visible = np.where(clip.mask, np.nan, clip.clean)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a band that is hidden throughout has no mean
        means = np.nanmean(visible, axis=0)
    overall = np.nanmean(visible) if np.isfinite(visible).any() else 0.0
    means = np.where(np.isfinite(means), means, overall)
    line = interpolate_in_time(clip.clean[None], clip.mask[None], means)[0]
    flat = np.where(clip.mask, means, clip.clean)
    filled = {"straight line in time": line, "mean of each band": flat}
    return [(name, image, _l1(clip, image)) for name, image in filled.items()]


def relative_error(enc: Encoder, clean: Tensor, corrupted: Tensor, mask: Tensor) -> float:
    """L1 of what an encoder fills in, as a share of that of a straight line in time; NaN where that has no error.

    Log-mels and mask [1, T, M].
    """
    if not mask.any():
        return math.nan
    clip = reconstruct_crop(enc, clean, corrupted, mask, enc.name)
    _, _, line = clip_baselines(clip)[0]
    return _l1(clip, clip.reconstructed) / line if line > 0 else math.nan


def _l1(clip: Reconstructed, image: np.ndarray) -> float:
    return float(np.abs(clip.clean - image)[clip.mask].mean()) if clip.mask.any() else 0.0


def feature_error(enc: Encoder, wave: np.ndarray, hidden: Tensor, shape: tuple[int, int], seed: int) -> np.ndarray:
    """ASDA's error of the features it predicts for each hidden patch, spread over the patch's pixels: [T, M], NaN where
    the patch was visible.

    hidden: bool [time, freq]. shape: T, M. See `Encoder.prediction_error`.
    """
    error = enc.prediction_error(wave, enc.config.features.sample_rate, mask=hidden, seed=seed)[0]
    return spread_tokens(error.cpu().numpy(), enc.config.model.patch, shape, np.nan)
