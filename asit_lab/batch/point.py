"""A point of a study: typed parameters for a notebook. Its hash names the folder that everything of it is in, so a
point that several studies share is done once."""

import hashlib
import json
from dataclasses import dataclass
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
    """what the setting is, as the study has it"""
    published: float | None
    parameters: dict[str, Any]
    """what the notebook is given, without `out`"""
    config: dict[str, Any] | None
    """the whole configuration that follows from them; None for a notebook that has none"""
    notebook: str
    """path of the notebook"""
    code: str
    """hash of the notebook's code"""
    version: str
    """of asit_lab"""

    @property
    def hash(self) -> str:
        """What the point is: parameters with their types, notebook, version of the package.

        The configuration counts as a whole, so that a preset that was changed makes new points, and two ways to write
        the same settings make one.
        """
        parameters = {
            name: value for name, value in self.parameters.items() if self.config is None or name not in _IN_CONFIG
        }
        what = {"parameters": parameters, "config": self.config, "code": self.code, "version": self.version}
        return hashlib.blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def folder(self) -> Path:
        """Where everything of the point is."""
        return resolve(POINTS) / self.hash

    @property
    def label(self) -> str:
        """Setting and seed in words."""
        return f"{self.setting}, seed {self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `from_dict` takes them."""
        return {**self.__dict__, "hash": self.hash}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Point":
        return cls(**{name: value for name, value in content.items() if name != "hash"})
