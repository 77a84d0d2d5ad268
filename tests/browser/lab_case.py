"""JupyterLab as `asit-lab lab` starts it, and a notebook open in it in a browser."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import psutil

PROJECT = Path(__file__).resolve().parents[2]
TOKEN = "browser-tests"
PATIENCE = 300  # s, for what takes seconds on a machine that has nothing else to do
NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser", "chrome")
MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
# A browser that calls nobody but the server under test.
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str:
    """Path of the Chromium or Chrome of this machine."""
    found = next(filter(None, map(shutil.which, [*NAMES, MAC])), None)
    assert found, f"the browser tests need Chromium or Chrome: none of {', '.join(NAMES)} is on PATH; try make browser"
    return found


class Lab:
    """A JupyterLab server of its own: settings, workspaces and runs under `home`, nothing of the user's."""

    def __init__(self, home: Path):
        self.home, self.began, self.seconds_to_start = home, time.monotonic(), 0.0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [Path(sys.executable).parent / "asit-lab", "lab", f"--port={port}", "--", "--no-browser"]
        command += [
            "--allow-root",
            f"--IdentityProvider.token={TOKEN}",
            "--ServerApp.ip=127.0.0.1",
            "--ServerApp.port_retries=0",
        ]
        command += ["--LabApp.expose_app_in_browser=True"]  # the tests ask it which cells have run
        self.log = home / "lab.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, env=environment(home), stdout=log, stderr=log, start_new_session=True
            )

    def wait_until_up(self) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/api/status?token={TOKEN}", timeout=5).close()
                self.seconds_to_start = time.monotonic() - self.began
                return
            except (urllib.error.URLError, OSError):
                assert self.process.poll() is None, f"JupyterLab ended: {self.log.read_text()[-3000:]}"
                assert time.monotonic() < end, f"JupyterLab did not come up: {self.log.read_text()[-3000:]}"
                time.sleep(0.1)

    def kernel(self) -> psutil.Process:
        """The process of the one kernel that runs."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        (found,) = [child for child in children if "ipykernel_launcher" in " ".join(child.cmdline())]
        return found

    def stop(self) -> None:
        """Ask it to end, so that it ends its kernels; then end what is left of it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def environment(home: Path) -> dict[str, str]:
    """What the server and the kernels see of a user whose project is `home` and who has set up nothing else."""
    settings = home / "jupyter/settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    # Otherwise the first start asks whether to fetch Jupyter's news, on top of the pictures.
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    mine = {
        "ASIT_LAB_HOME": home,
        "JUPYTER_CONFIG_DIR": home / "jupyter/config",
        "JUPYTER_DATA_DIR": home / "jupyter/data",
        "JUPYTER_RUNTIME_DIR": home / "jupyter/runtime",
        "JUPYTERLAB_SETTINGS_DIR": home / "jupyter/settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "jupyter/workspaces",
        "JUPYTER_PATH": Path(sys.prefix) / "share/jupyter",
        "JUPYTER_PREFER_ENV_PATH": 1,
        "IPYTHONDIR": home / "ipython",
    }
    # The tests' own choice of matplotlib's backend is not what a user's kernel has.
    others = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return others | {name: str(value) for name, value in mine.items()}


def with_parameters(home: Path, name: str, new: str, **values) -> str:
    """notebooks/NEW.ipynb: the notebook `name` with other parameters in its first code cell. Returns `new`."""
    notebook = nbformat.read(home / "notebooks" / f"{name}.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for parameter, value in values.items():
        cell.source, count = re.subn(rf"(?m)^{parameter} = .*$", f"{parameter} = {value!r}", cell.source)
        assert count == 1, f"{name}: no parameter {parameter}"
    nbformat.write(notebook, home / "notebooks" / f"{new}.ipynb")
    return new


def of_cells(home: Path, name: str, *cells: str) -> str:
    """notebooks/NAME.ipynb: a notebook of these code cells. Returns `name`."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, home / "notebooks" / f"{name}.ipynb")
    return name


class OpenNotebook:
    """A notebook of `lab.home/notebooks` in a page of the browser."""

    def __init__(self, page, lab: Lab, name: str):
        self.page, self.lab = page, lab
        self.path = lab.home / "notebooks" / f"{name}.ipynb"
        page.goto(f"{lab.url}/lab/tree/notebooks/{name}.ipynb?reset&token={TOKEN}")
        page.wait_for_function("() => window.jupyterapp && asit.kernel() === 'idle'", timeout=PATIENCE * 1000)

    def run_all(self) -> None:
        """Run every cell, as the menu does. No cell may fail."""
        self.page.evaluate("() => void window.jupyterapp.commands.execute('notebook:run-all-cells')")
        self.page.wait_for_function(
            "() => { const {done, error} = asit.cells(); return done || error; }", timeout=PATIENCE * 1000, polling=100
        )
        error = self.page.evaluate("() => asit.cells().error")
        assert error is None, f"{self.path.name}: {error}"

    def save(self) -> int:
        """Save as Ctrl-S does; size of the file, bytes."""
        before = self.path.stat().st_mtime_ns
        self.page.evaluate("async () => { await asit.panel().context.save(); }")
        assert self.path.stat().st_mtime_ns > before
        return self.path.stat().st_size

    def shut_down(self) -> None:
        """End the kernel; another notebook has the machine to itself."""
        self.page.evaluate("async () => { await asit.panel().sessionContext.shutdown(); }")
