"""Scores encoders: probes of their embeddings, fine-tuning and reconstruction errors, each with baselines.

Modules of this package are imported when first used: fine-tuning, which `evaluate` calls, uses its splits and scores.
"""

import lazy_loader

from ..embedding.files import embed_files
from ..embedding.projection import embedding_table, project
from ..inspection.attention_statistics import attention_statistics, clip_and_silence, compare_attention
from ..inspection.examples import example_crops, reconstruct_clips, sounds
from ..inspection.reconstruction_error import reconstruction_errors

__getattr__, _, _LAZY = lazy_loader.attach(
    __name__,
    submod_attrs={
        "comparison": ["Evaluation", "evaluate"],
        "leakage": ["Finding", "findings"],
        "probing": ["compare", "probe"],
        "start_weights_study": ["initialisation_study"],
    },
)

__all__ = [
    "attention_statistics",
    "clip_and_silence",
    "compare_attention",
    "embed_files",
    "embedding_table",
    "example_crops",
    "project",
    "reconstruct_clips",
    "reconstruction_errors",
    "sounds",
    *_LAZY,
]


def __dir__() -> list[str]:
    return sorted(__all__)
