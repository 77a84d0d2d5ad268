"""One name, one thing: a public name stands for the same thing wherever it is defined."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "asit_lab"

# Public names that several modules define, since they are the same thing there.
SHARED = {
    "HOW_TO_GET": "what to do about a data set that is not downloaded, in each source",
    "log": "the logger of each module",
    "main": "what a process runs",
    "evaluate": "the function, and its command",
    "export_model": "the function, and its command",
    "finetune": "the function, and its command",
    "pretrain": "the function, and its command",
    "probe": "the function, and its command",
    "report": "the function, and its command",
}


def defined_names(source: str) -> set[str]:
    """Public functions, classes and constants at the top of a module."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_no_two_public_names_mean_different_things():
    modules = defaultdict(list)
    for file in sorted(PACKAGE.rglob("*.py")):
        for name in defined_names(file.read_text(encoding="utf-8")):
            modules[name].append(file.relative_to(PACKAGE).as_posix())
    assert {name: found for name, found in modules.items() if len(found) > 1 and name not in SHARED} == {}
    assert {name for name in SHARED if len(modules[name]) > 1} == set(SHARED), "no longer shared"


def test_the_search_itself():
    source = "A: int = 1\nB, (C, _d) = 1, (2, 3)\ndef e(): f = 1\nclass G:\n    H = 1\nfrom x import Y\n"
    assert defined_names(source) == {"A", "B", "C", "e", "G"}
