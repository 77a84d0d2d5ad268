"""Loads ImageNet vision transformers in timm's safetensors layout as start weights for audio, as AST does
(arXiv 2104.01778, section 2.2)."""

from pathlib import Path

from ..config import RunConfig, load_config, resolve
from ..encoder import Encoder
from ..errors import InputError
from ..training.start_weights import is_timm, load_timm


def load_imagenet(source: str | Path, config: str | RunConfig = "asit-vit-b") -> Encoder:
    """An encoder with ImageNet's weights in the architecture and with the features of `config`.

    source: .safetensors file. config: a preset, YAML file, run directory or RunConfig of the same width, depth and
    heads. Raises InputError naming the file and the tensors that do not fit.
    """
    if isinstance(source, dict):
        raise InputError("imagenet: expected the path of a .safetensors file, got tensors")
    path = resolve(source)
    if not path.is_file() or not is_timm(path):
        raise InputError(f"{path}: expected a .safetensors file of a vision transformer under timm's names")
    encoder = Encoder.random(config if isinstance(config, RunConfig) else load_config(config))
    load_timm(encoder.backbone, path)
    return Encoder(encoder.config, encoder.backbone, name=f"ImageNet ({path.name})")
