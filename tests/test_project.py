"""The front door: requirements, lock, notebooks and texts agree with each other and hold nothing of a machine."""

import ast
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

import asit_lab

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
LOCKED = dict(re.findall(r"^([\w.-]+)==([\w.+]+)", LOCK, re.MULTILINE))
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def _requirement(text: str) -> tuple[str, str]:
    """("torch", "==2.11.*") of "torch==2.11.*" or "torch ==2.11.*"."""
    name, specifier = re.fullmatch(r"([\w.-]+)\s*(.*)", text).groups()
    return name.lower().replace("_", "-"), specifier.replace(" ", "")


REQUIRED = dict(
    _requirement(text)
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for text in group
)


# --- Requirements ---------------------------------------------------------------------------------------------------


def test_torch_is_pinned_with_the_torchaudio_built_for_it():
    assert REQUIRED["torch"] == REQUIRED["torchaudio"] == "==2.11.0"
    assert LOCKED["torch"] == LOCKED["torchaudio"] == "2.11.0"


def test_supported_pythons_are_the_same_everywhere():
    """pyproject.toml, `make env` and CI's choice of interpreters."""
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    bounds = "(3, 11) <= sys.version_info < (3, 14)"
    assert bounds in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert bounds in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_commit_hooks_fetch_nothing():
    """All hooks are the tools of .venv, as `make lint` runs them."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert {hook["entry"].split()[0] for hook in hooks} == {".venv/bin/ruff", ".venv/bin/mypy"}


def test_nothing_pulls_torchvision_in():
    assert "torchvision" not in LOCK and "timm" not in LOCKED


def test_lock_holds_every_requirement_with_hashes_and_no_address():
    assert set(REQUIRED) <= {name.lower() for name in LOCKED}
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)
    assert [entry.splitlines()[0] for entry in entries if entry.strip() and "--hash=sha256:" not in entry] == []
    assert not re.search(r"://|--index|--find-links|@ ", LOCK)


def test_conda_environment_has_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    plain = dict(_requirement(entry) for entry in environment["dependencies"] if isinstance(entry, str))
    assert plain.pop("python") == PROJECT["requires-python"]
    assert plain.pop("pip") == ""
    assert {name: REQUIRED.get(name) for name in plain} == plain
    (by_pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", by_pip[0]).group(1).split(",")
    assert len(by_pip) == 1 and set(extras) == set(PROJECT["optional-dependencies"])


# --- Texts ----------------------------------------------------------------------------------------------------------


def test_versions_agree():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## .*?(\d+\.\d+\.\d+)", changelog, re.MULTILINE).group(1)
    assert newest == citation["version"] == asit_lab.__version__
    assert citation["license"] == PROJECT["license"] == "MIT"


def test_readme_names_the_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [command for command in ("make demo", "make test", "make lab") if command not in readme] == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_the_reference_study_shows_the_numbers_of_its_results(monkeypatch):
    """reports/reference/make.py writes the page from results/*.json."""
    import runpy

    monkeypatch.syspath_prepend(str(ROOT / "reports/reference"))
    study = runpy.run_path(str(ROOT / "reports/reference/make.py"))
    results = study["results_here"]()
    assert (ROOT / "reports/reference/README.md").read_text(encoding="utf-8") == study["page"](results)
    assert study["tables"].summary(results) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_results_show_the_table_of_the_seeds():
    """reports/gallery/seeds.py prints it; here it is made again from the numbers it kept."""
    import runpy

    table = runpy.run_path(str(ROOT / "reports/gallery/seeds.py"))["table_of"]
    numbers = json.loads((ROOT / "reports/gallery/seeds.json").read_text(encoding="utf-8"))
    assert "\n".join(table(numbers)) in (ROOT / "docs/results.md").read_text(encoding="utf-8")


def test_links_in_the_texts_lead_somewhere():
    broken = []
    folders = ("data", "docs", "benchmarks", "notebooks/ablations", "reports/reference")
    for text in [*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#\s]+)", text.read_text(encoding="utf-8")):
            if "://" not in target and not (text.parent / target).exists():
                broken.append(f"{text.name}: {target}")
    assert broken == []


def test_make_help_lists_the_targets():
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = {line.split()[0] for line in shown.splitlines() if line.startswith("  ")}
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE).group(1)
    assert listed == set(phony.split()) >= {"env", "demo", "test", "test-all", "lab", "lint", "lock", "docs", "clean"}


def test_make_clean_leaves_the_environments_alone(tmp_path):
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    environments = [f"{name}/lib/__pycache__" for name in (".venv", ".venv-hear", ".venv-newest")]
    kept = [tmp_path / name for name in (*environments, "runs/mine", "data/x")]
    gone = [tmp_path / name for name in ("asit_lab/nn/__pycache__", "notebooks/.ipynb_checkpoints", "runs/demo")]
    for folder in kept + gone:
        folder.mkdir(parents=True)
    subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, check=True)
    assert all(folder.is_dir() for folder in kept) and not any(folder.exists() for folder in gone)


def _texts():
    """Every text file that belongs to the project: not data, runs, environments or caches."""
    folders = ("asit_lab", "tests", "notebooks", "benchmarks", "reports/gallery", "reports/reference", ".ci", "docs")
    files = [path for path in [*ROOT.iterdir(), *(ROOT / "data").glob("*.md")] if path.is_file()]
    files += [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in files:
        if "__pycache__" in path.parts or ".ipynb_checkpoints" in path.parts:
            continue
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or weights


# In two parts each, so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w./~}])/" + r"(?:work|root|home|Users|opt|mnt)/")
REGISTRY = re.compile("|".join(["pypi" r"\.org", "python" r"hosted\.org", "npm" r"js\.org", "deb" r"\.debian\.org"]))


def test_no_file_names_a_machine_or_a_package_registry():
    found = []
    for path, text in _texts():
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line) or REGISTRY.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_the_check_itself():
    assert MACHINE_PATH.search("'/" + "home/me/audio'") and MACHINE_PATH.search("PATH=/" + "opt/x")
    assert not MACHINE_PATH.search("runs/" + "home/x") and not MACHINE_PATH.search("~/" + "work/x")
    assert len(list(_texts())) > 20


# --- Notebooks ------------------------------------------------------------------------------------------------------


def test_the_notebooks_of_the_first_steps_are_there():
    assert {"pretrain.ipynb", "inspect_data.ipynb"} <= {path.name for path in NOTEBOOKS}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    content = nbformat.read(request.param, as_version=4)
    nbformat.validate(content)
    return content


def _parameters(notebook) -> dict:
    """Names and values of the cell tagged `parameters`; fails unless there is one and it holds plain literals."""
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    values = {}
    for statement in ast.parse(cell.source).body:
        (name,) = statement.targets
        values[name.id] = ast.literal_eval(statement.value)
    return values


def test_notebook_has_no_outputs(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.id for cell in code if cell.outputs or cell.execution_count is not None] == []
    assert "widgets" not in notebook.metadata


def test_notebook_parameters_are_plain_literals(notebook):
    assert _parameters(notebook)


def test_notebook_cells_are_short(notebook):
    long = {}
    for cell in notebook.cells:
        lines = [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]
        if cell.cell_type == "code" and len(lines) >= 10:
            long[cell.id] = len(lines)
    assert long == {}, "cells of ten lines of code or more: move logic into the package"


def test_notebook_cells_have_lasting_ids(notebook):
    """Ids that are names stay the same when a notebook is made anew, so that its differences can be read."""
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert [id for id in ids if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", id)] == [], "give these cells a name as id"


def test_notebook_runs_in_the_kernel_named_python3(notebook):
    assert notebook.metadata.kernelspec.name == "python3"


def test_the_demo_sets_parameters_that_exist():
    """papermill only warns of an unknown parameter and then runs without it."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    given = re.findall(r"-p (\w+) ", makefile)
    assert given == ["preset", "data", "out"]
    known = _parameters(nbformat.read(ROOT / "notebooks" / "pretrain.ipynb", as_version=4))
    assert set(given) <= set(known)
