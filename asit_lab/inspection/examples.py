"""Reconstructs single clips, as pictures and as sound."""

from typing import NamedTuple

import numpy as np
import torch

from ..errors import InputError
from ..random import key, permutation
from .reconstruction_error import above_silence, crops


class Example(NamedTuple):
    """One reconstructed crop: normalised log-mels float [frames, mels], mask bool, and a title.

    The fields are those asit_lab.figures.reconstructions takes.
    """

    clean: np.ndarray
    corrupted: np.ndarray
    reconstructed: np.ndarray
    mask: np.ndarray
    title: str


def example_crops(enc, manifest, clips: int = 4, seed: int = 0) -> dict[int, torch.Tensor]:
    """Crops to draw, {row of the manifest: float32 [samples]}, rows in order, chosen by `seed`.

    Of twice as many clips as requested, those that are not mostly silent are preferred. Raises InputError when no clip
    can be read.
    """
    candidates = permutation(key(seed, "examples"), len(manifest))[: 2 * clips].tolist()
    crops_by_row = {
        row: wave
        for rows, waves in crops(enc, manifest, candidates, seed)
        for row, wave in zip(rows, waves, strict=True)
    }
    if not crops_by_row:
        raise InputError(f"{manifest.source}: none of {len(candidates)} clips could be read")
    raw = {row: enc.front_end(wave[None].to(enc.device)).cpu() for row, wave in crops_by_row.items()}
    silent = {row: not above_silence(image).mean() > 0.5 for row, image in raw.items()}
    chosen = sorted(crops_by_row, key=lambda row: (silent[row], candidates.index(row)))[:clips]
    return {row: crops_by_row[row] for row in sorted(chosen)}


def reconstruct_clips(enc, manifest, clips: int = 4, seed: int = 0) -> list[Example]:
    """Corrupt and reconstruct a crop of each of `clips` clips (see `example_crops`), masked by `seed`.

    Raises InputError when the encoder has no decoder or no clip can be read.
    """
    examples = []
    for row, wave in example_crops(enc, manifest, clips, seed).items():
        result = enc.reconstruct(wave, enc.config.features.sample_rate, seed=seed + row)
        images = (result.clean, result.corrupted, result.reconstructed)
        label = manifest.table["label"].iloc[row] or "no label"
        arrays = (image[0].float().cpu().numpy() for image in images)
        examples.append(Example(*arrays, result.mask[0].cpu().numpy(), f"{label}, clip {row}"))
    return examples


def sounds(enc, example: Example) -> dict[str, np.ndarray]:
    """Clean, corrupted and reconstructed log-mel of an example as audio: name -> float32 [samples].

    The reconstruction replaces the clip where it was corrupted.
    """
    pasted = np.where(example.mask, example.reconstructed, example.clean)
    images = {"clean": example.clean, "corrupted": example.corrupted, "reconstructed": pasted}
    return {
        name: enc.front_end.invert(enc.front_end.denormalise(torch.from_numpy(image))) for name, image in images.items()
    }
