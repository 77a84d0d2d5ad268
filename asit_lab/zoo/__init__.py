"""Published checkpoints as encoders: `zoo.load("asit", path_or_state_dict)`.

Nothing in a foreign file is executed; see unpickle.py.
"""

from pathlib import Path

from torch import Tensor

from ..encoder import Encoder
from ..errors import InputError
from .asda import load_asda
from .asit import load_asit

_LOADERS = {"asit": load_asit, "asda": load_asda}


def load(kind: str, source: str | Path | dict[str, Tensor], **settings) -> Encoder:
    """Load published weights.

    kind: "asit" or "asda" (what their released code saves). source: a .pt or .safetensors file, or a state dict.
    settings: what the weights do not say, such as heads=6 or mel_bins=128; see the loader of the kind.
    Raises InputError naming the file and what does not fit.
    """
    if kind not in _LOADERS:
        raise InputError(f"zoo: {kind!r} is not one of {', '.join(_LOADERS)}")
    return _LOADERS[kind](source, **settings)
