"""Studies over night: batches of parameterised notebooks, each point once, whatever happens on the way.

    batch.run("loss_combinations", scale="micro", data="esc50:PATH", workers=2)
    batch.collect("loss_combinations", scale="micro").save()

The names below are imported when first used: the process of a point needs little of this.
"""

from importlib import import_module

_LAZY = {
    "Study": "study",
    "read_study": "study",
    "study_names": "study",
    "points": "check",
    "run": "runner",
    "forecast": "dry_run",
    "listing": "overview",
    "status": "overview",
    "stop": "overview",
    "collect": "results",
    "experiment": "pretrain_and_probe",
}

__all__ = list(_LAZY)


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'asit_lab.batch' has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__():
    return sorted(__all__)
