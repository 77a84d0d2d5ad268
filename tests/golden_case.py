"""Reading numbers made by published code, and comparing with them."""

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open

FOLDER = Path(os.environ.get("ASIT_LAB_GOLDEN") or Path(__file__).parent / "golden")


def golden(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and settings of a file."""
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["settings"])  # noqa: SIM118


def under(tensors: dict, prefix: str) -> dict:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-4) -> None:
    """Equal to within `tolerance` of the largest reference value."""
    assert ours.shape == theirs.shape
    worst = (ours.double() - theirs.double()).abs().max() / theirs.double().abs().max().clamp(min=1e-12)
    assert worst <= tolerance, f"differs by {worst:.2e} of the largest value"
