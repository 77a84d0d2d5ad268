"""Which way imports point, and that the core needs nothing beyond what a bare GPU node has."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "asit_lab"

# From the bottom up; a module may import its own layer and those before it.
LAYERS = (
    ("_version", "errors", "checks", "random", "schedules", "paths", "mel", "arithmetic"),
    ("storage", "overrides"),
    ("registry",),
    ("settings", "config"),
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
    statements = []
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            statements.append(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            statements += _at_import(node.orelse)
        else:
            bodies = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
            bodies += [handler.body for handler in getattr(node, "handlers", [])]
            statements += [statement for body in bodies for statement in _at_import(body)]
    return statements


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


# --- No import upwards inside functions either, and no circles ------------------------------------------------------

# (file, part it imports upwards in a function): why.
ALLOWED = {
    ("training/recorder.py", "figures"): "pictures with the snapshots, where matplotlib is installed",
}


def _in_functions(source: str) -> list[ast.Import | ast.ImportFrom]:
    """Import statements that run later than the module's own import; not those for type checkers."""
    tree = ast.parse(source)
    checked = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    others = {id(inner) for node in checked for inner in ast.walk(node)} | {id(node) for node in _at_import(tree.body)}
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in others]


def test_functions_do_not_import_upwards_either():
    upwards = set()
    for file in sorted(PACKAGE.rglob("*.py")):
        if file == PACKAGE / "__init__.py":
            continue
        source = "\n".join(ast.unparse(node) for node in _in_functions(file.read_text(encoding="utf-8")))
        wrong = violations(source, file)
        upwards |= {(str(file.relative_to(PACKAGE)), text.rpartition(" ")[2]) for text in wrong}
    assert upwards == set(ALLOWED)


def _module(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def import_graph(files: dict[str, str]) -> dict[str, set[str]]:
    """Module -> modules whose code runs, as far as it is not running already, when it is imported.

    files: {"asit_lab/nn/vit.py": source}. Importing a.b.c runs the packages a and a.b too, but for those it is in.
    """
    modules = {_module(PACKAGE.parent / name): name for name in files}
    graph: dict[str, set[str]] = {}
    for module, name in modules.items():
        package = module.split(".") if name.endswith("__init__.py") else module.split(".")[:-1]
        targets = set()
        for node in _at_import(ast.parse(files[name]).body):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
                continue
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            targets |= {".".join([*base, alias.name]) for alias in node.names}
        reached = {
            ".".join(parts[:i]) for parts in (target.split(".") for target in targets) for i in range(1, len(parts) + 1)
        }
        ancestors = {".".join(package[:i]) for i in range(1, len(package) + 1)}
        direct = {target.rpartition(".")[0] for target in targets} & ancestors  # names taken from an own package
        taken = {target for target in targets if target in modules}
        direct -= {target.rpartition(".")[0] for target in taken}
        graph[module] = (reached & set(modules)) - (ancestors - direct) - {module}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Some modules that import each other in a circle; empty where there is none."""
    done: set[str] = set()

    def search(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(graph[module]):
            if found := search(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := search(module, []))), [])


def test_no_modules_import_each_other_in_a_circle():
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if file != PACKAGE / "__init__.py"]
    sources = {file.relative_to(PACKAGE.parent).as_posix(): file.read_text(encoding="utf-8") for file in files}
    assert circle(import_graph(sources)) == []


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"a": "from .b import x", "b": "from . import a"}, ["asit_lab.a", "asit_lab.b", "asit_lab.a"]),
        ({"a": "from .b import x", "b": "def f():\n    from . import a"}, []),
        (
            {
                "p/__init__": "from .x import f",
                "p/x": "from ..q.y import g",
                "q/__init__": "",
                "q/y": "from ..p import f",
            },
            ["p", "x", "y"],
        ),
        ({"p/__init__": "from .x import f", "p/x": "from .z import g", "p/z": ""}, []),
        ({"p/__init__": "from .x import f", "p/x": "from . import f"}, ["p", "x"]),
    ],
)
def test_the_search_for_circles_itself(files, found):
    met = circle(import_graph({f"asit_lab/{name}.py": source for name, source in files.items()}))
    assert bool(met) == bool(found) and {name.split(".")[-1] for name in found} <= {name.split(".")[-1] for name in met}


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
        installed = getattr(self.finder, "find_distributions", lambda *_, **__: [])(*arguments, **options)
        # By the name of its folder, "scipy-1.17.0.dist-info": its metadata take long to parse.
        return (package for package in installed if not blocked(package._path.name.partition("-")[0]))

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

names = [module.name for module in pkgutil.iter_modules(asit_lab.__path__, "asit_lab.")]
core = [name for name in names if name.split(".")[1] not in sys.argv[1:]]
for name in core:
    module = importlib.import_module(name)
    for inner in pkgutil.walk_packages(getattr(module, "__path__", []), name + ".", onerror=fail):
        if inner.name != "asit_lab.encoder.hub":  # the door to the Hugging Face Hub, opened when first used
            importlib.import_module(inner.name)
print(*sorted(name for name in sys.modules if name.startswith("asit_lab.")))
"""


@pytest.mark.slow
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
