"""asit_lab: pretrain, look into and evaluate self-supervised audio transformers.

The names below are imported when first used, so that `import asit_lab` is quick and needs no plotting library.
"""

from importlib import import_module

from ._version import __version__
from .errors import InputError

_LAZY = {
    "RunConfig": "config",
    "load_config": "config",
    "pretrain": "training.pretrain",
    "Run": "training.run",
    "load_run": "training.run",
    "plan": "training.plan",
    "list_runs": "training.runs",
    "compare_runs": "training.runs",
    "Encoder": "encoder",
    "load_encoder": "encoder",
    "open_encoder": "encoder",
    "evaluation": "evaluation",
    "finetune": "evaluation.finetune",
    "probe": "evaluation.probe",
    "zoo": "zoo",
}

__all__ = ["InputError", "__version__", *_LAZY]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'asit_lab' has no attribute {name!r}")
    module = import_module(f".{_LAZY[name]}", __name__)
    return module if _LAZY[name] == name else getattr(module, name)


def __dir__():
    return sorted(__all__)
