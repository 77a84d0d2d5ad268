"""Encoders from runs, snapshots, saved folders, the Hugging Face Hub and presets."""

from pathlib import Path

from ..config import load_config, preset_names, resolve
from ..errors import InputError
from ..nn import ViT
from ..objectives import build_network
from ..runs.directory import load_run
from ..runs.snapshot import read_snapshot, section
from .folder import WEIGHTS, is_encoder_folder, load_weights, read_encoder_folder
from .model import Encoder

HUB = "hf://"


def hub():
    """The module that needs huggingface_hub."""
    try:
        from . import hub as module
    except ImportError as error:
        raise InputError(f"the Hugging Face Hub needs huggingface_hub: pip install huggingface-hub ({error})") from None
    return module


def open_encoder(source: str | Path, seed: int = 0) -> Encoder:
    """The encoder of whatever `load_encoder` takes; or of a preset, untrained as its name then says, with start weights
    of `seed`.

    Raises InputError when there is none of these.
    """
    if str(source) in preset_names():
        encoder = Encoder.random(load_config(source), seed)
        encoder.name = f"{source}, untrained"
        return encoder
    if not str(source).startswith(HUB) and not resolve(source).exists():
        raise InputError(f"{source}: no such run, snapshot or preset. Presets: {', '.join(preset_names())}")
    return load_encoder(source)


def load_encoder(source: str | Path) -> Encoder:
    """The encoder of a run directory (its last snapshot), of one snapshot (.safetensors), of a folder that
    `Encoder.save_pretrained` wrote, or of "hf://owner/name" or "hf://owner/name@revision".

    Raises InputError naming the file and what is wrong with it.
    """
    if str(source).startswith(HUB):
        repo_id, _, revision = str(source).removeprefix(HUB).partition("@")
        return hub().fetch(repo_id, revision=revision or None)
    path = resolve(source)
    if path.is_dir() and is_encoder_folder(path):
        return from_folder(path)
    if path.is_dir():
        snapshots = load_run(path).snapshots
        if not snapshots:
            raise InputError(f"{path}: the run has no snapshot yet")
        path = snapshots[-1]
    if not path.is_file():
        raise InputError(f"{path}: no such run directory or snapshot")
    tensors, cfg, step = read_snapshot(path)
    teacher, student = ViT(cfg.model, cfg.grid), build_network(cfg)
    parts = {"teacher.backbone": teacher, "student.backbone": student.backbone, "student.decoder": student.decoder}
    for role, module in parts.items():
        if module is not None:
            load_weights(module, section(tensors, role), f"{path}, {role}")
    return Encoder(cfg, teacher, student.backbone, student.decoder, f"{cfg.name}, step {step}", True)


def from_folder(folder: Path) -> Encoder:
    """The encoder that `Encoder.save_pretrained` wrote."""
    tensors, cfg, name = read_encoder_folder(folder)
    backbone, network = ViT(cfg.model, cfg.grid), build_network(cfg)
    has_student, has_decoder = bool(section(tensors, "student")), bool(section(tensors, "decoder"))
    student = network.backbone if has_student else backbone if has_decoder else None
    encoder = Encoder(cfg, backbone, student, network.decoder if has_decoder else None, name, True)
    if student is backbone:  # written once
        tensors |= {f"student.{key}": tensor for key, tensor in section(tensors, "backbone").items()}
    load_weights(encoder, tensors, folder / WEIGHTS)
    return encoder
