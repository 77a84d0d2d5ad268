"""Where relative paths count from."""

import contextlib
import datetime
import errno
import numbers
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


def resolve(path: str | bytes | os.PathLike | float | datetime.date) -> Path:
    """An absolute path; relative ones count from `home()`.

    A number or date is taken for a name: papermill and YAML turn `-p out 2026` into one. Raises InputError for what is
    no path, or none that this system can have.
    """
    path = Path(path_text(path))
    with contextlib.suppress(RuntimeError):  # "~name" without such a user
        path = path.expanduser()
    try:
        path = path if path.is_absolute() else (home() / path).resolve()
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{str(path)[:80]}...: the name is too long for this system") from None
    return path


def path_text(path: object) -> str:
    """A path, or what YAML and papermill made of one, as text. Raises InputError."""
    if isinstance(path, numbers.Real) and not isinstance(path, bool) or isinstance(path, datetime.date):
        path = str(path)
    if not isinstance(path, str | bytes | os.PathLike):
        raise InputError(f"expected a path, got {path!r} (a {type(path).__name__})")
    text = os.fsdecode(path)
    if "\0" in text:
        raise InputError(f"{text!r}: a path cannot have a NUL character in it")
    return text


def data_folder() -> Path:
    """Where data sets are searched for and downloaded to: $ASIT_LAB_DATA, by default data/."""
    return resolve(os.environ.get("ASIT_LAB_DATA") or "data")
