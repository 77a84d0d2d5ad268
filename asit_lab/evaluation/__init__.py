"""How good an encoder is: probes of its embeddings, errors of its reconstructions, and the baselines beside them."""

from .examples import reconstruct_clips, sounds
from .probe import compare, probe
from .reconstruction import reconstruction_errors

__all__ = ["compare", "probe", "reconstruct_clips", "reconstruction_errors", "sounds"]
