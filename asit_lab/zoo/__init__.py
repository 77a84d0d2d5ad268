"""Loads published checkpoints as encoders, `zoo.load("asit", path_or_state_dict)`, and the shipped one,
`zoo.shipped()`.

Nothing in a foreign file is executed; see unpickle.py.
"""

from pathlib import Path

from torch import Tensor

from ..encoder import Encoder, load_encoder, open_encoder
from ..encoder.loading import SHIPPED
from ..errors import InputError
from .asda import load_asda
from .asit import load_asit
from .imagenet import load_imagenet

_LOADERS = {"asit": load_asit, "asda": load_asda, "imagenet": load_imagenet}


def shipped() -> Encoder:
    """The small encoder that comes with the package: ASiT, preset `small`, pretrained on hours of mixed recordings.

    It embeds, shows attention and reconstructs. Its card, shipped/README.md, says how it was trained and how it scores.
    """
    return load_encoder(SHIPPED)


def load(kind: str, source: str | Path | dict[str, Tensor], **settings) -> Encoder:
    """Load published weights.

    kind: "asit" or "asda" (what their released code saves), or "imagenet" (timm's vision transformers). source: a .pt
    or .safetensors file, or a state dict; of "imagenet" a .safetensors file.
    settings: what cannot be read from the weights, such as heads=6 or mel_bins=128 of "asit" and config="asit-vit-s" of
    "imagenet"; see `load_asit`, `load_asda` and `load_imagenet`.
    Raises InputError naming the file and what does not fit.
    """
    if kind not in _LOADERS:
        raise InputError(f"zoo: {kind!r} is not one of {', '.join(_LOADERS)}")
    return _LOADERS[kind](source, **settings)


def open_source(source: str | Path, seed: int = 0) -> Encoder:
    """The encoder that a string names: what `open_encoder` takes, or asit:FILE, asda:FILE, imagenet:FILE or
    imagenet:FILE@PRESET.

    seed: of the start weights where the source is a preset. Raises InputError as the loaders do.
    """
    kind, _, file = str(source).partition(":")
    if kind not in _LOADERS or not file:
        return open_encoder(source, seed)
    if kind == "imagenet" and "@" in file:
        file, _, preset = file.rpartition("@")
        return load_imagenet(file, preset)
    return load(kind, file)
