"""Snapshots (weights to use, safetensors) and the state to resume from; each is written whole or not at all."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import RunConfig, validate
from ..errors import InputError
from ..objectives import Objective
from ..storage.atomic import atomic_write

FORMAT = "asit_lab 1"
PICTURES = 1_000_000  # bytes with each snapshot: a picture of reconstructions, and again in TensorBoard's events
TABLES = 10_000_000  # bytes of rows in tables and TensorBoard's events, and what a .pt file adds to its tensors


def save_snapshot(
    path: Path,
    student: nn.Module,
    teacher: nn.Module,
    cfg: RunConfig,
    step: int,
    learned: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the backbones of teacher and student and the student's decoder, with the configuration in the header.

    learned: what the objective has learned besides, such as centres; kept as "objective.<name>".
    """
    tensors = _weights(student, teacher) | {f"objective.{name}": tensor for name, tensor in (learned or {}).items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"format": FORMAT, "step": step, "config": cfg.to_dict()}
    with atomic_write(path) as temporary:  # one entry of metadata: safetensors shuffles several
        save_file(tensors, temporary, metadata={"asit_lab": json.dumps(header)})


def _weights(student: nn.Module, teacher: nn.Module) -> dict[str, Tensor]:
    roles = {
        "teacher.backbone": teacher.backbone,
        "student.backbone": student.backbone,
        "student.decoder": student.decoder,
    }
    return {
        f"{role}.{name}": tensor
        for role, module in roles.items()
        if module is not None
        for name, tensor in module.state_dict().items()
    }


def besides(objective: Objective) -> dict[str, Tensor]:
    """What an objective has learned besides student and teacher: centres, weights of its losses."""
    roles = ("student.", "teacher.")
    return {name: tensor for name, tensor in objective.state_dict().items() if not name.startswith(roles)}


def read_snapshot(path: Path) -> tuple[dict[str, Tensor], RunConfig, int]:
    """Tensors, configuration and step of a snapshot. Raises InputError when the file is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("asit_lab", "{}"))
            if header.get("format") != FORMAT:
                raise InputError(f"{path}: not a snapshot of {FORMAT} (its header says {header.get('format')!r})")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, validate(header["config"]), header["step"]
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable .safetensors file: {error}") from None
    except KeyError as error:
        raise InputError(f"{path}: its header lacks {error}") from None
    except ValueError as error:  # InputError, too
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: its header: {text}") from None


def section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under "prefix.", without it."""
    return {name[len(prefix) + 1 :]: t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def save_state(path: Path, content: dict) -> None:
    """Write the state of a run: nested dicts of tensors and numbers."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def read_state(path: Path, device: torch.device) -> dict:
    """Read what `save_state` wrote; nothing in the file is executed. Raises InputError when it is damaged."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise InputError(f"{path}: cannot be read as a saved state: {error}") from None


def disk_needed(cfg: RunConfig, objective: Objective, total: int) -> int:
    """Bytes a whole run of `total` steps takes at its fullest: all snapshots, and the state twice, as the old one stays
    until the new one is whole. Pictures and tables are a guess."""
    learned = [p for p in objective.parameters() if p.requires_grad]
    state = _size(objective.state_dict().values()) + 2 * _size(learned)  # AdamW keeps two moments of each
    weights = _size([*_weights(objective.student, objective.teacher).values(), *besides(objective).values()])
    return 2 * state + (min(cfg.train.snapshots, total) + 1) * (weights + PICTURES) + TABLES


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
