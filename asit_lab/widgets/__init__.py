"""What moves in a notebook, on top of asit_lab.figures.

    MaskExplorer(data="esc50:PATH", preset="asit-vit-s")
    AttentionExplorer("runs/a", data="esc50:PATH")

The names below are imported when first used: curves of a run need neither anywidget nor the explorers.
"""

from importlib import import_module

_LAZY = {
    "LiveCurves": "live",
    "MaskExplorer": "mask",
    "ReconstructionExplorer": "reconstruction",
    "AttentionExplorer": "attention",
    "EmbeddingExplorer": "embedding",
    "RunMonitor": "monitor",
}

__all__ = list(_LAZY)


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'asit_lab.widgets' has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__():
    return sorted(__all__)
