"""Interactive explorers for notebooks, on top of asit_lab.figures.

    MaskExplorer(data="esc50:PATH", preset="asit-vit-s")
    AttentionExplorer("runs/a", data="esc50:PATH")

The names below are imported when first used: curves of a run need neither anywidget nor the explorers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "live": ["LiveCurves"],
        "mask": ["MaskExplorer"],
        "reconstruction": ["ReconstructionExplorer"],
        "attention": ["AttentionExplorer"],
        "embedding": ["EmbeddingExplorer"],
        "classifier": ["ClassifierExplorer"],
        "data_rows": ["DataExplorer"],
        "monitor": ["RunMonitor"],
    },
)
