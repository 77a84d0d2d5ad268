"""Reconstructions of single clips, to look at and to listen to."""

from typing import NamedTuple

import numpy as np
import torch

from ..errors import InputError
from ..random import key, permutation
from .reconstruction import crops


class Example(NamedTuple):
    """One reconstructed crop: normalised log-mels float [frames, mels], mask bool, and what it is of.

    The fields are those asit_lab.figures.reconstructions takes.
    """

    clean: np.ndarray
    corrupted: np.ndarray
    reconstructed: np.ndarray
    mask: np.ndarray
    title: str


def reconstruct_clips(enc, manifest, clips: int = 4, seed: int = 0) -> list[Example]:
    """Corrupt and reconstruct a crop of each of `clips` clips, chosen and masked by `seed`; in the manifest's order.

    Raises InputError when the encoder has no decoder or no clip can be read.
    """
    rows = sorted(permutation(key(seed, "examples"), len(manifest))[:clips].tolist())
    examples: dict[int, Example] = {}
    for which, waves in crops(enc, manifest, rows, seed):
        result = enc.reconstruct(waves, enc.config.features.sample_rate, seed=seed)
        for i, row in enumerate(which):
            images = (result.clean[i], result.corrupted[i], result.reconstructed[i])
            label = manifest.table["label"].iloc[row] or "no label"
            arrays = (image.float().cpu().numpy() for image in images)
            examples[row] = Example(*arrays, result.mask[i].cpu().numpy(), f"{label}, clip {row}")
    if not examples:
        raise InputError(f"{manifest.source}: none of {len(rows)} clips could be read")
    return [examples[row] for row in sorted(examples)]


def sounds(enc, example: Example) -> dict[str, np.ndarray]:
    """Clean, corrupted and reconstructed log-mel of an example made audible: name -> float32 [samples].

    The reconstruction is heard where the clip was corrupted, the clip itself elsewhere.
    """
    pasted = np.where(example.mask, example.reconstructed, example.clean)
    images = {"clean": example.clean, "corrupted": example.corrupted, "reconstructed": pasted}
    return {
        what: enc.front_end.invert(enc.front_end.denormalise(torch.from_numpy(image))) for what, image in images.items()
    }
