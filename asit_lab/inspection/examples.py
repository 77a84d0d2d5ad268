"""Reconstructions of single clips, to look at and to listen to."""

from typing import NamedTuple

import numpy as np
import torch

from ..errors import InputError
from ..random import key, permutation
from .reconstruction_error import above_silence, crops


class Example(NamedTuple):
    """One reconstructed crop: normalised log-mels float [frames, mels], mask bool, and what it is of.

    The fields are those asit_lab.figures.reconstructions takes.
    """

    clean: np.ndarray
    corrupted: np.ndarray
    reconstructed: np.ndarray
    mask: np.ndarray
    title: str


def example_crops(enc, manifest, clips: int = 4, seed: int = 0) -> dict[int, torch.Tensor]:
    """Crops worth a picture, {row of the manifest: float32 [samples]}, rows in order, chosen by `seed`.

    Of twice as many clips as asked for, those come first that are not mostly silent. Raises InputError when no clip can
    be read.
    """
    drawn = permutation(key(seed, "examples"), len(manifest))[: 2 * clips].tolist()
    found = {
        row: wave for which, waves in crops(enc, manifest, drawn, seed) for row, wave in zip(which, waves, strict=True)
    }
    if not found:
        raise InputError(f"{manifest.source}: none of {len(drawn)} clips could be read")
    raw = {row: enc.front_end(wave[None].to(enc.device)).cpu() for row, wave in found.items()}
    silent = {row: not above_silence(each).mean() > 0.5 for row, each in raw.items()}
    chosen = sorted(found, key=lambda row: (silent[row], drawn.index(row)))[:clips]
    return {row: found[row] for row in sorted(chosen)}


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
    """Clean, corrupted and reconstructed log-mel of an example made audible: name -> float32 [samples].

    The reconstruction is heard where the clip was corrupted, the clip itself elsewhere.
    """
    pasted = np.where(example.mask, example.reconstructed, example.clean)
    images = {"clean": example.clean, "corrupted": example.corrupted, "reconstructed": pasted}
    return {
        what: enc.front_end.invert(enc.front_end.denormalise(torch.from_numpy(image))) for what, image in images.items()
    }
