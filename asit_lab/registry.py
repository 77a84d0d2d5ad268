"""Finds the parts that a configuration names: built in, from an installed package, or from a file of the user's own.

Three kinds of parts: objectives (`objective.name`), attention (`model.attention`) and sources of data (`data.source`).
An installed package adds some by an entry point in the group asit_lab.objectives, asit_lab.attention or
asit_lab.sources. A file adds its own without being installed: `path/to/file.py:Name`. Such a file is executed when the
part is used, not when a configuration is read.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import InputError
from .paths import resolve
from .storage.words import nearest

BUILT_IN: dict[str, dict[str, str]] = {
    "objectives": {"asit": "asit_lab.objectives.asit:ASiT", "asda": "asit_lab.objectives.asda:ASDA"},
    "attention": {
        "softmax": "asit_lab.nn.attention:SoftmaxAttention",
        "asda": "asit_lab.nn.attention:AsdaAttention",
        "learned": "asit_lab.nn.attention:LearnedAttention",
    },
    "sources": {},  # those of asit_lab.data are listed there, with what they take
}


def names(kind: str) -> list[str]:
    """Names of a kind of parts: those built in, then those of installed packages."""
    return list(dict.fromkeys([*BUILT_IN[kind], *_entry_points(kind)]))


def in_file(name: str) -> bool:
    """Whether a name is that of a part in a file of the user's own, path/to/file.py:Name."""
    path, colon, part = name.rpartition(":")
    return bool(colon) and path.endswith(".py") and part.isidentifier()


def built_in(kind: str, name: str) -> bool:
    """Whether a name is one of this package's own."""
    return name in BUILT_IN[kind]


def check_name(kind: str, name: str) -> str:
    """`name`, with the path of a file made absolute, so that it means the same from every folder. Nothing is imported.

    Raises InputError for a name that is neither known nor that of a part in a file.
    """
    if in_file(name):
        path, _, part = name.rpartition(":")
        return f"{resolve(path)}:{part}"
    if built_in(kind, name) or name in _entry_points(kind):  # in this order: installed packages take long to search
        return name
    if ".py" in name:
        raise InputError("expected path/to/file.py:Name, the name of a class or function in the file")
    raise InputError(f"{nearest(name, names(kind))} Or one of your own: path/to/file.py:Name")


def load_part(kind: str, name: str, setting: str) -> Any:
    """The class or function behind a name; imports its package or executes its file.

    setting: the setting that names it, for messages.
    Raises InputError when there is no such part, or importing it fails.
    """
    if in_file(name):
        return _from_file(name, setting)
    if built_in(kind, name):
        module, _, attribute = BUILT_IN[kind][name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    try:
        return _entry_points(kind)[check_name(kind, name)].load()
    except InputError as error:
        raise InputError(f"{setting}: {name!r} is unknown; {error}") from None
    except (ImportError, AttributeError) as error:
        raise InputError(f"{setting}: {name!r} of an installed package cannot be imported: {error}") from error


def require(part: Any, methods: Iterable[str], setting: str, name: str) -> None:
    """Raise InputError naming the methods that a user's class lacks."""
    missing = [method for method in methods if not hasattr(part, method)]
    if missing:
        raise InputError(f"{setting}: {name!r} has no {', '.join(missing)}")


def _entry_points(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"asit_lab.{kind}")}


def _from_file(name: str, setting: str) -> Any:
    path, _, part = name.rpartition(":")
    file = resolve(path)
    if not file.is_file():
        raise InputError(f"{setting}: {name!r}: there is no file {file}")
    module = _module(file, setting)
    if not hasattr(module, part):
        defined = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise InputError(f"{setting}: {name!r}: {file} does not define {part}; {nearest(part, defined)}")
    return getattr(module, part)


def _module(file: Path, setting: str) -> ModuleType:
    """The file as a module, executed once and again after it was changed; it may import files beside it."""
    stamp = f"{file}:{file.stat().st_mtime_ns}"
    name = f"asit_lab_user_{file.stem}_{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec and spec.loader  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look here
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"{setting}: {file} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(file.parent))
    return module
