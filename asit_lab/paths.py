"""Where relative paths count from."""

import os
from pathlib import Path

from .errors import InputError


def home() -> Path:
    """The folder relative paths count from: $ASIT_LAB_HOME, else the project's checkout, else the working directory."""
    if os.environ.get("ASIT_LAB_HOME"):
        return Path(os.environ["ASIT_LAB_HOME"]).expanduser().resolve()
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def resolve(path: str | os.PathLike | int | float) -> Path:
    """An absolute path; relative ones count from `home()`, in the shell, in Lab and under papermill alike.

    A number is taken for a name: papermill turns `-p out 2026` into one. Raises InputError for what is no path.
    """
    if isinstance(path, int | float) and not isinstance(path, bool):
        path = str(path)
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"expected a path, got {path!r} (a {type(path).__name__})")
    path = Path(path).expanduser()
    return path if path.is_absolute() else (home() / path).resolve()
