"""Stamps of what a point's numbers follow from besides its settings: code, data, recipe, start weights.

They are part of its identity, so results of other code or other data are never taken for its own.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..config import flatten, resolve
from ..data.sources.clips import walk
from ..errors import InputError
from ..paths import data_folder
from ..runs.encoder_folder import path_of_weights
from ..storage.source_code import PACKAGE, code_hash, code_hashes

# Modules that change no number: what is drawn, printed, written or executed. All others count, new ones too.
_WITHOUT_NUMBERS = (
    "__init__.py",
    "_version.py",
    "batch",
    "cli",
    "errors.py",
    "figures",
    "paths.py",
    "report",
    "storage",
    "widgets",
)
_WITH_NUMBERS = ("batch/experiments.py",)
DATA = "data "
_MANY_FILES = 50_000
_FILE = re.compile(r"(?P<file>.+\.py):\w+")
# Folders that a data source without PATH is looked for in, where its name is not the first of them.
_FOLDERS = {
    "esc10": ("esc10", "esc50"),
    "audioset": ("audioset_20k", "audioset"),
    "audioset_20k": ("audioset_20k", "audioset"),
    "audioset_2m": ("audioset_2m", "audioset"),
}


def code_inputs(config: Mapping[str, Any]) -> dict[str, str]:
    """Module -> hash of its code, for all that a point with this configuration computes with, as it is now: modules of
    this package, and files of the user's own that the configuration names (path/to/file.py:Name)."""
    parts = sorted(path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file())
    package = code_hashes([*(part for part in parts if part not in _WITHOUT_NUMBERS), *_WITH_NUMBERS])
    named = (_FILE.fullmatch(value) for value in flatten(dict(config)).values() if isinstance(value, str))
    return package | {match["file"]: code_hash(resolve(match["file"])) for match in named if match}


def point_inputs(
    parameters: Mapping[str, Any], config: Mapping[str, Any] | None, stamps: dict[str, str]
) -> dict[str, str]:
    """Name -> stamp of what the numbers of a point with this configuration follow from, as it is now.

    A notebook without a configuration is not known to use this package's code: nothing then. stamps: data source ->
    stamp, filled in here, so that points of one data set look at it once. Raises InputError for an unknown recipe.
    """
    if config is None:
        return {}
    inputs = code_inputs(config)
    for source in dict.fromkeys([config["data"]["source"], parameters.get("evaluate") or config["data"]["source"]]):
        if source not in stamps:
            stamps[source] = data_stamp(source)
        if stamps[source]:
            inputs[DATA + source] = stamps[source]
    if recipe := parameters.get("recipe"):
        from .. import evaluation  # noqa: F401  # here, as it takes seconds; before finetuning, which it imports
        from ..finetuning import load_recipe

        inputs[f"recipe {recipe}"] = _hash(json.dumps(load_recipe(recipe).model_dump(mode="json"), sort_keys=True))
    if start := config["train"]["init_from"]:
        path = path_of_weights(start)
        snapshots = path / "snapshots"
        inputs[f"start weights {start}"] = _stamp(path, _files_below(snapshots if snapshots.is_dir() else path))
    return inputs


# --- Files ----------------------------------------------------------------------------------------------------------


def data_stamp(source: str) -> str:
    """A hash of names, sizes and times of change of a data set's files. Empty for sounds made on the spot, and for data
    that are not on this machine.

    Of a set of more than 50,000 files only the folders are looked at: files that are added, removed or replaced change
    them, a file that is rewritten in place does not.
    """
    kind, _, argument = source.strip().partition(":")
    if kind == "synth":
        return ""
    if kind.endswith(".py"):  # FILE.py:FUNCTION:PATH; its code has a stamp of its own
        _, _, argument = argument.partition(":")
    path = resolve(argument) if argument else _folder_of(kind)
    if path is None or not path.exists():
        return ""
    return _stamp(path, _files_listed(path) if path.is_file() else _files_below(path))


def _folder_of(kind: str) -> Path | None:
    data = data_folder()
    return next((data / name for name in _FOLDERS.get(kind, (kind,)) if (data / name).is_dir()), None)


def _files_listed(file: Path) -> Iterator[Path]:
    """A list, and the files that it names, in whatever form data are read from; any other file by itself."""
    from ..data.sources.folder import list_folder
    from ..data.sources.tables import is_list

    yield file
    if not is_list(file):
        return
    try:
        listing = list_folder(file, f"folder:{file}")
    except (InputError, OSError):
        return  # reading the data set says what is wrong
    yield from map(Path, dict.fromkeys(clip.path for clip in listing.clips))


def _files_below(folder: Path) -> Iterator[Path]:
    """A file itself; else all files in a folder and below it, hidden ones left out. Of very many: the folders."""
    if folder.is_file():
        yield folder
        return
    files: list[str] = []
    folders: list[Path] = []
    for inside, names in walk(folder):
        folders.append(Path(inside))
        if len(files) <= _MANY_FILES:
            files += [os.path.join(inside, name) for name in names]
    yield from folders if len(files) > _MANY_FILES else map(Path, files)


def _stamp(base: Path, files: Iterator[Path]) -> str:
    """A hash of names below `base`, sizes, and times of change in whole seconds, as some copies keep no more."""
    stamps = []
    for path in files:
        try:
            about = path.stat()
        except OSError:
            continue
        size = about.st_size if stat.S_ISREG(about.st_mode) else ""  # that of a folder means nothing
        stamps.append(f"{str(path).removeprefix(str(base))} {size} {int(about.st_mtime)}")
    return _hash("\n".join(stamps))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()
