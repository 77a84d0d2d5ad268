"""Defines a point of a study: a setting with a seed, as typed parameters for a notebook.

Its hash names the folder of all its files, so a point that several studies share is done once.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import resolve

POINTS = Path("runs/points")
_IN_CONFIG = ("preset", "data", "overrides", "seed")  # parameters that the whole configuration stands for


@dataclass(frozen=True)
class Point:
    """One setting with one seed."""

    setting: str
    """name of the setting in its study"""
    seed: int
    settings: dict[str, Any]
    """key -> value of the setting, as in the study"""
    published: float | None
    parameters: dict[str, Any]
    """of the notebook, without `out`"""
    config: dict[str, Any] | None
    """the whole configuration that follows from them; None for a notebook that has none"""
    notebook: str
    """path of the notebook"""
    code: str
    """hash of the notebook's code"""
    version: str
    """of asit_lab"""
    inputs: dict[str, str] = field(default_factory=dict)
    """name -> stamp of what its numbers follow from besides: code, data, recipe (inputs.py)"""

    @property
    def hash(self) -> str:
        """The identity of the point: parameters with their types, notebook, version of the package, inputs.

        The configuration counts as a whole, so that a changed preset makes new points, and two ways to write the same
        settings make the same point.
        """
        parameters = {
            name: value for name, value in self.parameters.items() if self.config is None or name not in _IN_CONFIG
        }
        ingredients = {"parameters": parameters, "config": self.config, "code": self.code, "version": self.version}
        ingredients |= {"inputs": self.inputs} if self.inputs else {}
        return hashlib.blake2b(json.dumps(ingredients, sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def folder(self) -> Path:
        """The folder of all files of the point."""
        return resolve(POINTS) / self.hash

    @property
    def label(self) -> str:
        """Setting and seed, for messages."""
        return f"{self.setting}, seed {self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as `from_dict` takes them."""
        return {**self.__dict__, "hash": self.hash}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Point":
        return cls(**{name: value for name, value in content.items() if name != "hash"})
