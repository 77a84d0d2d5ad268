"""asit_lab: pretrain, look into and evaluate self-supervised audio transformers.

The names below are imported when first used, so that `import asit_lab` is quick and needs no plotting library.
"""

import os

import lazy_loader

from ._version import __version__
from .errors import InputError

# How long OpenMP's threads spin between two pieces of work before they sleep; torch reads it as it loads. libgomp's own
# 300,000 rounds keep cores from other processes, none at all slows one that is alone (benchmarks/waiting.py).
_SPIN_ROUNDS = "20000"
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = _SPIN_ROUNDS

__getattr__, _, _LAZY = lazy_loader.attach(
    __name__,
    submodules=[
        "audio",
        "batch",
        "config",
        "data",
        "embedding",
        "evaluation",
        "features",
        "figures",
        "finetuning",
        "inspection",
        "masking",
        "nn",
        "objectives",
        "registry",
        "report",
        "runs",
        "settings",
        "widgets",
        "zoo",
    ],
    submod_attrs={
        "config": ["RunConfig", "load_config"],
        "training.pretrain": ["pretrain"],
        "runs.directory": ["Run", "load_run"],
        "training.estimate": ["plan"],
        "runs.listing": ["list_runs", "compare_runs"],
        "encoder": ["Encoder", "load_encoder", "open_encoder"],
        "finetuning": ["finetune", "load_classifier"],
        "evaluation.probing": ["probe"],
    },
)
__all__ = ["InputError", "__version__", *_LAZY]


def __dir__():
    return sorted(__all__)
