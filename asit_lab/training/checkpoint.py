"""Snapshots (weights to use, safetensors) and the state to resume from; each is written whole or not at all."""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import RunConfig, validate
from ..errors import InputError

FORMAT = "asit_lab 1"


def save_snapshot(path: Path, student: nn.Module, teacher: nn.Module, cfg: RunConfig, step: int) -> None:
    """Write the backbones of teacher and student and the student's decoder, with the configuration in the header."""
    tensors: dict[str, Tensor] = {}
    for role, module in (
        ("teacher.backbone", teacher.backbone),
        ("student.backbone", student.backbone),
        ("student.decoder", student.decoder),
    ):
        if module is not None:
            tensors |= {f"{role}.{name}": t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    header = {"format": FORMAT, "step": step, "config": cfg.to_dict()}
    save_file(tensors, temporary, metadata={"asit_lab": json.dumps(header)})  # one entry: safetensors shuffles several
    os.replace(temporary, path)


def read_snapshot(path: Path) -> tuple[dict[str, Tensor], RunConfig, int]:
    """Tensors, configuration and step of a snapshot. Raises InputError when the file is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("asit_lab", "{}"))
            if header.get("format") != FORMAT:
                raise InputError(f"{path}: not a snapshot of {FORMAT} (its header says {header.get('format')!r})")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable .safetensors file: {error}") from None
    return tensors, validate(header["config"]), header["step"]


def section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under "prefix.", without it."""
    return {name[len(prefix) + 1 :]: t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def save_state(path: Path, content: dict) -> None:
    """Write the state of a run: nested dicts of tensors and numbers."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_state(path: Path, device: torch.device) -> dict:
    """Read what `save_state` wrote; nothing in the file is executed. Raises InputError when it is damaged."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise InputError(f"{path}: cannot be read as a saved state: {error}") from None
