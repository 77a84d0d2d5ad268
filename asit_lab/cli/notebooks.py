"""`asit-lab lab`: JupyterLab on copies of the notebooks, so that exploring changes no file that git tracks."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..storage.atomic import read_json, write_json

COPIES = "my_notebooks"
_ORIGINALS = ".originals.json"


def lab(
    port: Annotated[int, typer.Option(help="Port on this machine (if taken, the next free one).")] = 8888,
    arguments: Annotated[list[str] | None, typer.Argument(help="Arguments for JupyterLab, after --.")] = None,
) -> None:
    """Open JupyterLab with start.ipynb in my_notebooks/, which holds your own copies of the notebooks."""
    from ..paths import home, project_root

    folder = home() if "ASIT_LAB_HOME" in os.environ or (home() / "notebooks").is_dir() else project_root()
    if not (folder / "notebooks").is_dir():
        raise InputError(f"{folder}: no folder notebooks/ in it; go to the project's folder or set ASIT_LAB_HOME to it")
    for name in copy_notebooks(folder / "notebooks", folder / COPIES):
        print(f"{COPIES}/{name} is kept as you changed it; notebooks/{name} is newer", file=sys.stderr)
    command = [sys.executable, "-m", "jupyterlab", f"--port={port}", f"--ServerApp.root_dir={folder}"]
    command += [f"--LabApp.default_url=/lab/tree/{COPIES}/start.ipynb", *(arguments or [])]
    os.execv(sys.executable, command)  # in our place: Ctrl-C is JupyterLab's own matter


def copy_notebooks(originals: Path, copies: Path) -> list[str]:
    """Copy every notebook that has no copy yet, and renew the copies of which the original is newer.

    A copy whose cells the user changed is never written over; those with a newer original are returned. Outputs do not
    count as changes: a renewed copy has none.
    """
    copied, edited = read_json(copies / _ORIGINALS), []
    for original in sorted(originals.rglob("*.ipynb")):
        if ".ipynb_checkpoints" in original.parts:
            continue
        name = original.relative_to(originals).as_posix()
        copy, now = copies / name, _cells(original)
        if copy.is_file() and copied.get(name) == now:
            continue
        if copy.is_file() and _cells(copy) not in (copied.get(name), now):
            edited.append(name)
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original, copy)
        copied[name] = now
    write_json(copies / _ORIGINALS, copied)
    return edited


def _cells(notebook: Path) -> str:
    """Hash of the sources of a notebook's cells."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        sources = [[cell["cell_type"], "".join(cell["source"])] for cell in cells]
    except (ValueError, KeyError, TypeError):  # not a notebook, so it is the user's own
        return "unreadable"
    return hashlib.blake2b(json.dumps(sources).encode(), digest_size=16).hexdigest()
