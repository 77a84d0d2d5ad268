"""How good an encoder is: probes of its embeddings, errors of its reconstructions, and the baselines beside them."""

from .examples import example_crops, reconstruct_clips, sounds
from .probe import compare, probe
from .reconstruction import reconstruction_errors

__all__ = ["compare", "example_crops", "probe", "reconstruct_clips", "reconstruction_errors", "sounds"]
