"""Small studies for the tests of asit_lab.batch: notebooks that count, fail, hang or eat memory instead of training."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PATIENCE = 240  # s, for what takes seconds on a machine that has nothing else to do

PARAMETERS = 'steps = 3\nwhat = "count"\nseed = 0\nout = "out"'
# Counts to `steps` and goes on where it was, as a training does; words.txt has a line for each start and end.
WORK = """
import json, os, time
from pathlib import Path
folder = Path(out)
folder.mkdir(parents=True, exist_ok=True)
count = int((folder / "count.txt").read_text()) if (folder / "count.txt").exists() else 0
(folder / "pid.txt").write_text(str(os.getpid()))
with (folder / "words.txt").open("a") as file:
    file.write(f"begun at {count}\\n")
if what == "fail":
    raise ValueError("this point is no good")
kept = []
while count < steps or what in ("hang", "eat"):
    time.sleep(0.1)
    if what == "eat":
        kept.append(bytearray(b"x") * 30_000_000)
    count += 1
    (folder / "count.new").write_text(str(count))
    os.replace(folder / "count.new", folder / "count.txt")
if what != "nothing":
    (folder / "result.json").write_text(json.dumps({"score": steps / 10 + seed}))
with (folder / "words.txt").open("a") as file:
    file.write("ended\\n")
"""


def write_notebook(path: Path, *cells: str, kernel: str = "python3", tagged: bool = True) -> Path:
    """A notebook of code cells, the first of them tagged `parameters`."""
    content = {
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "metadata": {"tags": ["parameters"]} if tagged and number == 0 else {},
                "source": source,
                "outputs": [],
                "execution_count": None,
            }
            for number, source in enumerate(cells)
        ],
        "metadata": {
            "kernelspec": {"name": kernel, "display_name": kernel, "language": "python"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_study(home: Path, text: str, name: str = "small") -> Path:
    """A study over the counting notebook: its YAML without title, notebook and plot."""
    notebook = write_notebook(home / "count.ipynb", PARAMETERS, WORK)
    path = home / f"{name}.yaml"
    plot = "plot: {metric: score, factor: 1, label: score}\n"
    path.write_text(f"title: Small\nnotebook: {notebook}\n{plot}{text}\n")
    return path


def start_runner(home: Path, study: Path, **options) -> subprocess.Popen:
    """`batch.run` in a process of its own; it ends with status 3 when it was told to stop."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background ignores it
        "import sys; from asit_lab import batch; "
        f"done = batch.run({str(study)!r}, **{options!r}); sys.exit(3 if done.attrs['stopped'] else 0)"
    )
    environment = {**os.environ, "ASIT_LAB_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )


def wait_until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited too long for {what}"
        time.sleep(0.05)


def words(folder: Path) -> list[str]:
    """What the starts and ends of the notebook in a point's folder were."""
    path = folder / "run/words.txt"
    return path.read_text().splitlines() if path.is_file() else []


def kernel_of(folder: Path) -> int | None:
    """The process of a point's kernel, once it has said so."""
    path = folder / "run/pid.txt"
    text = path.read_text() if path.is_file() else ""
    return int(text) if text else None


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
