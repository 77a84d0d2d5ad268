"""Weights into modules with an error that says what does not fit, and encoders as folders that can be published.

Such a folder has the configuration, config.json (RunConfig as JSON, which `load_config` reads too), and the weights,
model.safetensors, under the names of `Encoder.state_dict`.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import RunConfig, validate
from ..errors import InputError
from ..storage.atomic import whole, write_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_SHOWN = 4  # names in a message, of each kind of misfit


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
    problems = [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds.items() if names]
    if problems:
        raise InputError(f"{source}: weights of another architecture than the configuration's; " + "; ".join(problems))
    module.load_state_dict(tensors)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def is_encoder_folder(folder: Path) -> bool:
    """Whether a folder has one of the two files at least, so was meant to be such a folder."""
    return any((folder / name).is_file() for name in (CONFIG, WEIGHTS))


def write_encoder_folder(folder: Path, tensors: dict[str, Tensor], config: RunConfig, name: str) -> None:
    """Write config.json and model.safetensors, each whole or not at all. name: what the encoder calls itself."""
    write_json(folder / CONFIG, config.to_dict())
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with whole(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary, metadata={"asit_lab": json.dumps({"name": name})})


def read_encoder_folder(folder: Path) -> tuple[dict[str, Tensor], RunConfig, str]:
    """Weights, configuration and name. Raises InputError naming the file that is missing or wrong."""
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
    return tensors, config, header.get("name", config.name)
