"""Loads weights into modules, naming what does not fit, and reads and writes encoders as folders to publish.

Such a folder has the configuration, config.json (RunConfig as JSON, which `load_config` reads too), and the weights,
model.safetensors, under the names of `Encoder.state_dict`, with the encoder's name and provenance in the header.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import RunConfig, resolve, validate
from ..errors import InputError
from ..storage.atomic import atomic_write, write_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SHIPPED = "shipped"  # the encoder that comes with the package
_SHIPPED_FOLDER = Path(__file__).parent.parent / "zoo" / SHIPPED
_NAMED = 4  # names in a message, for each kind of mismatch


@dataclass(frozen=True)
class SavedEncoder:
    """What an encoder folder holds."""

    tensors: dict[str, Tensor]
    config: RunConfig
    name: str
    """what the encoder calls itself"""
    pretrained: bool
    """whether the weights were pretrained on config.data"""


def path_of_weights(source: str | Path) -> Path:
    """The path of a source of weights: a run, a snapshot, an encoder folder, or "shipped"."""
    return _SHIPPED_FOLDER if str(source) == SHIPPED else resolve(source)


def load_weights(module: nn.Module, tensors: dict[str, Tensor], source: str | Path) -> None:
    """Load `tensors` into `module`. Raises InputError naming what is missing, unknown or of another shape."""
    needed = module.state_dict()
    missing = [f"{name} {list(tensor.shape)}" for name, tensor in needed.items() if name not in tensors]
    unknown = [f"{name} {list(tensor.shape)}" for name, tensor in tensors.items() if name not in needed]
    differing = [
        f"{name} {list(tensors[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in needed.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    kinds = {"missing": missing, "unknown": unknown, "of another shape": differing}
    problems = [f"{len(names)} {kind}: {_few(names)}" for kind, names in kinds.items() if names]
    if problems:
        raise InputError(f"{source}: weights of another architecture than the configuration's; " + "; ".join(problems))
    module.load_state_dict(tensors)


def _few(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def is_encoder_folder(folder: Path) -> bool:
    """Whether a folder has at least one of the two files, so was meant as an encoder folder."""
    return any((folder / name).is_file() for name in (CONFIG, WEIGHTS))


def write_encoder_folder(folder: Path, saved: SavedEncoder) -> None:
    """Write config.json and model.safetensors, each completely or not at all."""
    write_json(folder / CONFIG, saved.config.to_dict())
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in saved.tensors.items()}
    header = {"name": saved.name, "pretrained": saved.pretrained}
    with atomic_write(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary, metadata={"asit_lab": json.dumps(header)})


def read_encoder_folder(folder: Path) -> SavedEncoder:
    """The contents of a folder. Raises InputError naming the file that is missing or wrong."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: has no {name}; a saved encoder is a folder with {CONFIG} and {WEIGHTS}")
    try:
        config = validate(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except ValueError as error:  # InputError, and what JSON and UTF-8 raise
        raise InputError(f"{folder / CONFIG}: not a configuration of asit_lab: {error}") from None
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("asit_lab", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder / WEIGHTS}: not a readable .safetensors file: {error}") from None
    name = header.get("name", config.name)
    return SavedEncoder(tensors, config, name, header.get("pretrained", not _names_untrained(name)))


def _names_untrained(name: str) -> bool:
    """Whether a name is one that untrained encoders get: folders without the flag are told apart by it."""
    return name.startswith("random init") or name.endswith(", untrained")
