"""Collects free recordings from Debian packages for a corpus: speech, music, effects, instruments.

debian.yaml lists the packages, their licences and which files are of which kind. A package is fetched with
`apt-get download` and unpacked with `dpkg-deb`; nothing is installed. Needs Debian or Ubuntu, but no root.
"""

import io
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from ...errors import InputError
from ...storage.words import nearest
from ..sources.clips import is_audio
from .build import Collection

ARCHIVES = (".pk3", ".wz", ".zip")  # zip files of games


def packages() -> list[dict]:
    """The listed packages: package, licence, kinds {pattern: kind}."""
    return yaml.safe_load(Path(__file__).with_name("debian.yaml").read_text(encoding="utf-8"))


def collections(cache: Path, names: list[str] | None = None) -> tuple[list[Collection], list[str]]:
    """(a collection for each package and kind, notes on packages that apt does not have).

    cache: folder that keeps the downloads (*.deb) and the unpacked sounds; what is already there is used.
    names: these packages only; None: all of them. Raises InputError for an unknown name, or without apt and dpkg.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise InputError(f"{tool} is not installed: packages can only be read on Debian and Ubuntu")
    by_name = {entry["package"]: entry for entry in packages()}
    unknown = [name for name in names or () if name not in by_name]
    if unknown:
        raise InputError(f"package {unknown[0]!r}: {nearest(unknown[0], by_name)}")
    collections, notes = [], []
    for name in names or by_name:
        entry, folder = by_name[name], cache / "sounds" / name
        if not folder.exists():
            deb = _download(name, cache)
            if isinstance(deb, str):
                notes.append(f"{name}: {deb}")
                continue
            _unpack(deb, folder, entry["kinds"])
        for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
            text = folder / "copyright"
            collections.append(Collection(kind.name, name, f"folder:{kind}", entry["licence"], text))
    return collections, notes


def _download(name: str, cache: Path) -> Path | str:
    """The package's file, or why there is none."""
    cache.mkdir(parents=True, exist_ok=True)
    if not any(cache.glob(f"{name}_*.deb")):
        process = subprocess.run(["apt-get", "download", "-qq", name], cwd=cache, capture_output=True, text=True)
        if process.returncode:
            reason = (process.stderr.strip().splitlines() or [f"status {process.returncode}"])[-1]
            return f"apt-get download failed ({reason}); does `apt-get update` help?"
    return sorted(cache.glob(f"{name}_*.deb"))[-1]


def _unpack(deb: Path, folder: Path, kinds: dict[str, str]) -> None:
    """Write the package's sounds to folder/KIND/PATH and its licence to folder/copyright; written atomically."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for path, content in _members(deb):
            if path.endswith("/copyright"):
                target = temporary / "copyright"
            else:
                kind = next((kind for pattern, kind in kinds.items() if re.search(pattern, path)), "none")
                if kind == "none":
                    continue
                target = temporary / kind / path.removeprefix("/usr/share/").lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _members(deb: Path) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the licence text and of every sound in a package, those in zip files too."""
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as tar,
    ):
        for member in tar:
            path = member.name.removeprefix(".")
            if not member.isfile() or ".." in path.split("/"):
                continue
            if is_audio(Path(path)) or re.fullmatch(r"/usr/share/doc/[^/]+/copyright", path):
                yield path, tar.extractfile(member).read()
            elif path.lower().endswith(ARCHIVES):
                yield from _zipped(path, tar.extractfile(member).read())
    if process.returncode:
        raise InputError(f"{deb}: dpkg-deb cannot read it (status {process.returncode}); delete it and try again")


def _zipped(path: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            if is_audio(Path(name)) and ".." not in name.split("/"):
                yield f"{path}/{name}", archive.read(name)
