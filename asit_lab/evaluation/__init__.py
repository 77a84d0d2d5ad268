"""How good an encoder is: probes of its embeddings, errors of its reconstructions, and the baselines beside them; and
where its attention goes."""

from .attention import attention_statistics, clip_and_silence, compare_attention
from .examples import example_crops, reconstruct_clips, sounds
from .probe import compare, probe
from .reconstruction import reconstruction_errors

__all__ = [
    "attention_statistics",
    "clip_and_silence",
    "compare",
    "compare_attention",
    "example_crops",
    "probe",
    "reconstruct_clips",
    "reconstruction_errors",
    "sounds",
]
