"""Reads a notebook's parameters, kernel and a hash of its code, without Jupyter."""

import ast
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class Notebook:
    """A parameterised notebook."""

    path: Path
    parameters: dict[str, Any]
    """name -> default, as in its cell tagged `parameters`"""
    kernel: str
    """name of its kernel"""
    code: str
    """hash of its code cells; text and outputs do not count"""


def read_notebook(path: Path) -> Notebook:
    """Read a notebook's parameters. Raises InputError naming the file and what is wrong with it."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such notebook")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
        sources = ["".join(cell["source"]) for cell in cells]
        tagged = [
            source
            for source, cell in zip(sources, cells, strict=True)
            if "parameters" in cell["metadata"].get("tags", [])
        ]
        kernel = content["metadata"].get("kernelspec", {}).get("name", "python3")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not a notebook (JSON with cells)") from None
    if len(tagged) != 1:
        number = f"{len(tagged)} cells" if tagged else "no cell"
        raise InputError(f"{path}: {number} tagged `parameters`; expected one, with a plain value for each parameter")
    code = hashlib.blake2b("\0".join(sources).encode(), digest_size=16).hexdigest()
    return Notebook(path, _literals(tagged[0], path), kernel, code)


def _literals(source: str, path: Path) -> dict[str, Any]:
    """Names and values of a cell of assignments of plain values."""
    values: dict[str, Any] = {}
    try:
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.Assign):
                (target,) = statement.targets
            elif isinstance(statement, ast.AnnAssign):
                target = statement.target
            else:
                raise TypeError
            values[target.id] = ast.literal_eval(statement.value)
    except (SyntaxError, ValueError, TypeError, AttributeError):
        raise InputError(
            f"{path}: its cell tagged `parameters` may hold nothing but plain values, such as seed = 0"
        ) from None
    return values
