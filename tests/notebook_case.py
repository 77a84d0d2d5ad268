"""Notebooks run by stock papermill, as from a shell."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def stock_papermill(
    notebook: Path, folder: Path, *parameters: str, environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess:
    """`papermill notebook out.ipynb -p NAME VALUE ...` by a shell that stands in `folder`."""
    command = [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", "-k", "python3"]
    for name, value in zip(parameters[::2], parameters[1::2], strict=True):
        command += ["-p", name, value]
    # Kernels of this environment come before any that are installed for the user.
    environment = {**environment, "JUPYTER_PREFER_ENV_PATH": "1"}
    for _ in range(3):
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        # Jupyter looks for free ports before its kernel takes them; a kernel of a test beside may be quicker.
        if done.returncode == 0 or "Address already in use" not in done.stderr:
            break
    return done
