"""Stock papermill runs every notebook there is, from two different folders, in a checkout of its own.

What the notebooks show and leave behind is judged in test_notebooks.py and test_batch_notebooks.py.
"""

import json
import shutil
from pathlib import Path

import pytest
from test_notebooks import NOTEBOOKS, PROJECT, executed

from asit_lab import batch
from asit_lab.batch.notebook import read_notebook

pytestmark = pytest.mark.notebook

ALL = sorted(path for path in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
# What makes a notebook small, by its name; one that is not here is small as it is. Studies come first in ALL, and
# report.ipynb and monitor_runs.ipynb show what is there then.
SMALL = {
    "pretrain": {"preset": "smoke", "data": "synth:40"},
    "inspect_data": {"data": "synth:10", "examples": 1},
    "compare_attention": {"run_a": "smoke", "data": "synth:10"},
    "evaluate": {"encoder": "smoke", "data": "synth:40", "protocols": "knn"},
    "predict": {"encoder": "smoke", "data": "synth:40"},
    "explore_predictions": {"encoder": "smoke", "data": "synth:40"},
    **{study: {"workers": 2} for study in batch.study_names()},
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the project: what notebooks leave in runs/ and reports/ by default is left there, and studies share
    their points."""
    folder = tmp_path_factory.mktemp("checkout")
    for part in ("asit_lab", "notebooks"):
        shutil.copytree(PROJECT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_*"))
    shutil.copy(PROJECT / "pyproject.toml", folder)
    return folder


def states(checkout: Path) -> dict[Path, dict]:
    """What every run and every point in the checkout says of itself."""
    return {path: json.loads(path.read_text()) for path in checkout.glob("runs/**/status.json")}


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_from_two_folders(checkout, tmp_path, monkeypatch, path):
    monkeypatch.setenv("PYTHONPATH", str(checkout))  # before the project itself, in kernels and in points' processes
    notebook = checkout / path.relative_to(PROJECT)
    small, known = SMALL.get(path.stem, {}), read_notebook(notebook).parameters
    assert set(small) <= set(known)  # papermill only warns of others
    given = [text for name, value in small.items() for text in (name, str(value))]

    executed(notebook, tmp_path / "here", *given)
    left = states(checkout)
    assert {said.get("state", said.get("status")) for said in left.values()} <= {"finished"}
    assert not known.get("out") or (checkout / known["out"]).exists()

    executed(notebook, tmp_path / "over/there", *given)
    assert states(checkout) == left  # what is finished is not done again
    for folder in ("here", "over/there"):
        assert [file.name for file in (tmp_path / folder).iterdir()] == ["out.ipynb"]


def test_small_parameters_are_of_notebooks_that_exist():
    assert set(SMALL) <= {path.stem for path in ALL}
