"""Hashes the code of modules, to tell which version of the code computed a result."""

import ast
import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def code_hashes(parts: Iterable[str], package: Path = PACKAGE) -> dict[str, str]:
    """Path of each module below `package` -> a hash of its code. Docstrings, comments and blank lines do not count.

    parts: modules and folders of modules, such as "features.py" and "nn".
    """
    files: set[Path] = set()
    for part in parts:
        path = package / part
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such module")
        files |= {path} if path.is_file() else set(path.rglob("*.py"))
    return {file.relative_to(package).as_posix(): code_hash(file) for file in sorted(files)}


def code_hash(file: Path) -> str:
    """A hash of the code in one module, as in `code_hashes`; empty where there is no such file."""
    return _hash(file, file.stat().st_mtime_ns) if file.is_file() else ""


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The differences between two such dictionaries: "losses.py changed", "heads.py is new", "a.py is gone"."""
    changes = {
        name: "is new" if name not in before else "is gone" if name not in now else "changed"
        for name in [*before, *(name for name in now if name not in before)]
        if before.get(name) != now.get(name)
    }
    return [f"{name} {change}" for name, change in changes.items()]


@functools.cache
def _hash(file: Path, _changed: int) -> str:
    return hashlib.blake2b(_code(file.read_bytes()).encode(), digest_size=8).hexdigest()


def _code(source: bytes) -> str:
    """The lines of a module without docstrings, comments and blank lines."""
    lines = source.splitlines()
    texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr)]
    for text in texts:  # a bare string has no effect: a docstring, or the description of a field
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            first, last = text.lineno - 1, (text.end_lineno or text.lineno) - 1
            before, after = lines[first][: text.col_offset], lines[last][text.end_col_offset :]
            lines[first : last + 1] = [before + after, *[b""] * (last - first)]
    code_lines = (line.rstrip().decode() for line in lines)
    return "\n".join(line for line in code_lines if line and not line.lstrip().startswith("#"))
