"""Notebooks of notebooks/ablations, run by stock papermill at `smoke`, from different working directories.

All studies have the same notebook but for their name, so two of them are run.
"""

import json
import os
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from matplotlib.image import imread
from notebook_case import stock_papermill

from asit_lab import batch, load_run
from asit_lab.batch.execution.state import state_of

pytestmark = pytest.mark.notebook

PROJECT = Path(__file__).resolve().parent.parent
ABLATIONS = PROJECT / "notebooks/ablations"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A project folder with our notebooks in it: what is run lands there, and studies share their points."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "notebooks").symlink_to(PROJECT / "notebooks")
    return folder


def papermill(home: Path, notebook: str, folder: Path, *parameters: str):
    """`papermill` as from a shell that stands in `folder`; the executed notebook."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"ASIT_LAB_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = stock_papermill(ABLATIONS / f"{notebook}.ipynb", folder, *parameters, environment=environment)
    assert done.returncode == 0, done.stderr[-6000:]
    return nbformat.read(folder / "out.ipynb", as_version=4)


def pictures(notebook) -> int:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_study_notebooks_differ_in_the_name_alone():
    cells = set()
    for name in batch.study_names():
        notebook = nbformat.read(ABLATIONS / f"{name}.ipynb", as_version=4)
        cells.add("\n".join(c.source.replace(name, "STUDY") for c in notebook.cells if c.cell_type == "code"))
    assert len(cells) == 1 and len(batch.study_names()) == 10


@pytest.mark.parametrize("name", ["class_token", "pretraining_length"])
def test_a_study(home, name, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(home))
    found = batch.points(name, "smoke")
    executed = papermill(home, name, home / "here" / name, "workers", "2")
    assert {state_of(point.folder).state for point in found} == {"finished"} and pictures(executed) == 1
    report = home / "reports" / name / "smoke"
    table = pd.read_csv(report / "points.csv")
    assert sorted(table["point"]) == sorted(point.hash for point in found)
    assert table["probe.teacher.mean"].between(0, 1).all() and (table["point_seconds"] > 0).all()
    assert pd.read_parquet(report / "summary.parquet")["mean"].notna().all()
    assert imread(report / f"{name}.png").std() > 0.01
    for point in found:
        kept = nbformat.read(point.folder / "notebook.ipynb", as_version=4)
        assert pictures(kept) >= 1 and kept.metadata.papermill.parameters["seed"] == point.seed

    # From another folder: nothing is done again.
    before = {point.hash: (point.folder / "status.json").read_text() for point in found}
    papermill(home, name, home / "there" / name, "workers", "2")
    assert {point.hash: (point.folder / "status.json").read_text() for point in found} == before


def test_one_point_alone_and_without_its_notebook(home, tmp_path, monkeypatch):
    """Stock papermill and package calls leave the same result."""
    monkeypatch.setenv("ASIT_LAB_HOME", str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    overrides = ["overrides", "mask.ratio=0.5", "seed", "3"]
    papermill(home, "point", tmp_path / "here", *overrides, "out", str(tmp_path / "a"))
    batch.experiment("smoke", "synth:40", "mask.ratio=0.5", 3, tmp_path / "b")
    a, b = load_run(tmp_path / "a"), load_run(tmp_path / "b")
    assert json.dumps(a.result) == json.dumps(b.result)
    assert (tmp_path / "a/predictions.csv").read_text() == (tmp_path / "b/predictions.csv").read_text()
