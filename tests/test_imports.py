"""Which way imports point, and that the core needs nothing beyond what a bare GPU node has."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "asit_lab"

# From the bottom up; a module may import its own layer and those before it.
LAYERS = (
    ("_version", "errors", "random", "schedules"),
    ("settings", "config"),
    ("storage",),
    ("audio", "features", "augment", "masking"),
    ("data",),
    ("nn",),
    ("objectives",),
    ("runs",),
    ("training",),
    ("encoder", "zoo"),
    ("embedding",),
    ("inspection",),
    ("evaluation", "finetuning"),
    ("widgets", "batch", "report"),
    ("cli",),
)
# Arrays in, Figure out: they know no other part, and the core imports them only inside functions.
FIGURES = "figures"
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
CORE_RANK = RANK["encoder"]


def _part(file: Path) -> str:
    """The part of the package a file belongs to: "training" for asit_lab/training/ema.py."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _at_import(nodes: list[ast.stmt]) -> list[ast.Import | ast.ImportFrom]:
    """Import statements that run when the module is imported: not those in functions or for type checkers only."""
    found = []
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found += _at_import(node.orelse)
        else:
            bodies = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
            bodies += [handler.body for handler in getattr(node, "handlers", [])]
            found += [statement for body in bodies for statement in _at_import(body)]
    return found


def imported_parts(source: str, file: Path) -> set[str]:
    """Parts of the package that `source`, as the contents of `file`, imports when it is imported."""
    package = ("asit_lab", *file.relative_to(PACKAGE).parts[:-1])
    names = set()
    for node in _at_import(ast.parse(source).body):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            # `from . import x` imports the module x; `from .x import y` imports x and perhaps x.y.
            names |= {f"{base}{node.module + '.' if node.module else ''}{alias.name}" for alias in node.names}
    inside = [name.split(".") for name in names if name.startswith("asit_lab.")]
    return {parts[1] for parts in inside if parts[1] in RANK or parts[1] == FIGURES}


def violations(source: str, file: Path) -> list[str]:
    part = _part(file)
    imported = imported_parts(source, file) - {part}
    if part == FIGURES:
        wrong = {name for name in imported if RANK[name] > RANK["config"]}
    else:
        wrong = {name for name in imported if name != FIGURES and RANK[name] > RANK[part]}
        wrong |= imported & {FIGURES} if RANK[part] <= CORE_RANK else set()
    return [f"{file.relative_to(PACKAGE.parent)} imports {name}" for name in sorted(wrong)]


def test_imports_point_one_way():
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if file.parent != PACKAGE or file.name != "__init__.py"]
    unplaced = {_part(file) for file in files} - {*RANK, FIGURES}
    assert not unplaced, f"give these a place in LAYERS: {sorted(unplaced)}"
    assert [text for file in files for text in violations(file.read_text(encoding="utf-8"), file)] == []


@pytest.mark.parametrize(
    ("file", "source", "found"),
    [
        ("training/loop.py", "from ..evaluation.probe import probe", ["evaluation"]),
        ("training/loop.py", "import asit_lab.evaluation", ["evaluation"]),
        ("training/loop.py", "try:\n    from .. import encoder\nexcept ImportError:\n    pass", ["encoder"]),
        ("training/loop.py", "def f():\n    from ..evaluation.probe import probe", []),
        ("training/loop.py", "from ..objectives import asit\nfrom .ema import Ema", []),
        ("training/loop.py", "from ..figures import mask", ["figures"]),
        ("evaluation/probe.py", "from ..figures import mask\nfrom ..encoder import Encoder", []),
        ("figures/mask.py", "from ..training import run\nfrom ..errors import InputError", ["training"]),
        ("config.py", "from .data import sources", ["data"]),
    ],
)
def test_the_check_itself(file, source, found):
    path = PACKAGE / file
    assert violations(source, path) == [f"asit_lab/{file} imports {name}" for name in found]


# Runs in a fresh interpreter in which the optional packages are not to be found, neither as modules nor as
# distributions: as on a node where only the core's requirements are installed.
WITHOUT = """
import importlib, pkgutil, sys

BLOCKED = ("huggingface_hub pyarrow "
           "matplotlib IPython ipywidgets ipykernel jupyter notebook nbformat nbclient nbconvert papermill traitlets "
           "librosa sklearn scikit_learn scipy pooch dask distributed tensorboard numba").split()

def blocked(name):
    root = name.split(".")[0].replace("-", "_")
    return root in BLOCKED or root.startswith("jupyter")

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if blocked(name) else self.finder.find_spec(name, path, target)

    def find_distributions(self, *arguments, **options):
        found = getattr(self.finder, "find_distributions", lambda *_, **__: [])(*arguments, **options)
        return (each for each in found if not blocked(each.metadata["Name"] or ""))

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
for name in BLOCKED:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} was not blocked")

import asit_lab

def fail(name):
    raise

names = [found.name for found in pkgutil.iter_modules(asit_lab.__path__, "asit_lab.")]
core = [name for name in names if name.split(".")[1] not in sys.argv[1:]]
for name in core:
    module = importlib.import_module(name)
    for inner in pkgutil.walk_packages(getattr(module, "__path__", []), name + ".", onerror=fail):
        if inner.name != "asit_lab.encoder.hub":  # the door to the Hugging Face Hub, opened when first used
            importlib.import_module(inner.name)
print(*sorted(name for name in sys.modules if name.startswith("asit_lab.")))
"""


def test_core_imports_with_everything_optional_missing():
    above = [name for name, rank in RANK.items() if rank > CORE_RANK]
    done = subprocess.run([sys.executable, "-c", WITHOUT, FIGURES, *above], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = {name.split(".")[1] for name in done.stdout.split()}
    assert imported == {name for name, rank in RANK.items() if rank <= CORE_RANK}


def test_package_import_is_light():
    """`import asit_lab` alone loads neither torch nor pandas; `--help` and error messages come at once."""
    code = "import asit_lab, asit_lab.cli, sys; print({'torch', 'pandas', 'lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
