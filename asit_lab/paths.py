"""Where relative paths count from."""

import os
import sys
from pathlib import Path

from .errors import InputError


def home() -> Path:
    """The folder that relative paths count from: $ASIT_LAB_HOME; else the working directory, or in a notebook, whose
    kernel starts in the notebook's folder, the project's."""
    if os.environ.get("ASIT_LAB_HOME"):
        return Path(os.environ["ASIT_LAB_HOME"]).expanduser().resolve()
    return project_root() if in_notebook() else Path.cwd()


def project_root() -> Path:
    """The checkout that the package is imported from; the working directory where it was installed from a wheel."""
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def in_notebook() -> bool:
    """Whether this is a notebook's process. IPython may be missing; in a notebook it is imported already."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return "IPKernelApp" in getattr(shell, "config", {})


def resolve(path: str | os.PathLike | int | float) -> Path:
    """An absolute path; relative ones count from `home()`.

    A number is taken for a name: papermill turns `-p out 2026` into one. Raises InputError for what is no path.
    """
    if isinstance(path, int | float) and not isinstance(path, bool):
        path = str(path)
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"expected a path, got {path!r} (a {type(path).__name__})")
    path = Path(path).expanduser()
    return path if path.is_absolute() else (home() / path).resolve()
