"""Encoders from runs, snapshots, saved folders, the Hugging Face Hub and presets."""

from pathlib import Path

from ..config import load_config, preset_names, resolve
from ..errors import InputError
from ..nn import ViT
from ..objectives import build_network
from ..runs.directory import load_run
from ..runs.encoder_folder import SHIPPED, is_encoder_folder, load_weights, path_of_weights
from ..runs.snapshot import read_snapshot, section
from .model import Encoder

HUB = "hf://"


def open_encoder(source: str | Path, seed: int = 0) -> Encoder:
    """The encoder of whatever `load_encoder` takes, or an untrained one of a preset with start weights of `seed`.

    Raises InputError when `source` is neither.
    """
    if str(source) in preset_names():
        encoder = Encoder.random(load_config(source), seed)
        encoder.name = f"{source}, untrained"
        return encoder
    named = str(source) == SHIPPED or str(source).startswith(HUB)
    if not named and not resolve(source).exists():
        raise InputError(f"{source}: no such run, snapshot or preset. Presets: {', '.join(preset_names())}")
    return load_encoder(source)


def load_encoder(source: str | Path) -> Encoder:
    """The encoder of a run directory (its last snapshot), of one snapshot (.safetensors), of a folder that
    `Encoder.save_pretrained` wrote, of "hf://owner/name" or "hf://owner/name@revision"; or "shipped", the small encoder
    that comes with the package.

    Raises InputError naming the file and what is wrong with it.
    """
    if str(source).startswith(HUB):
        repo_id, _, revision = str(source).removeprefix(HUB).partition("@")
        return Encoder.from_hub(repo_id, revision=revision or None)
    path = path_of_weights(source)
    if path.is_dir() and is_encoder_folder(path):
        return Encoder.from_pretrained(path)
    if path.is_dir():
        snapshots = load_run(path).snapshots
        if not snapshots:
            raise InputError(f"{path}: the run has no snapshot yet")
        path = snapshots[-1]
    if not path.is_file():
        raise InputError(f"{path}: no such run directory or snapshot")
    tensors, cfg, step = read_snapshot(path)
    teacher, student = ViT(cfg.model, cfg.grid), build_network(cfg, decoder=section(tensors, "student.decoder"))
    parts = {"teacher.backbone": teacher, "student.backbone": student.backbone, "student.decoder": student.decoder}
    for role, module in parts.items():
        if module is not None:
            load_weights(module, section(tensors, role), f"{path}, {role}")
    return Encoder(cfg, teacher, student.backbone, student.decoder, f"{cfg.name}, step {step}", pretrained=True)
