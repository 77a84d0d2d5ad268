"""How good an encoder is: probes of its embeddings, fine-tuning, errors of its reconstructions, with baselines beside
them; and where its attention goes."""

from .attention import attention_statistics, clip_and_silence, compare_attention
from .evaluate import Evaluation, evaluate
from .examples import example_crops, reconstruct_clips, sounds
from .guard import Finding, findings
from .initialisation import initialisation_study
from .probe import compare, probe
from .projection import embedding_table, project
from .reconstruction import reconstruction_errors
from .vectors import embed_files

__all__ = [
    "Evaluation",
    "Finding",
    "attention_statistics",
    "clip_and_silence",
    "compare",
    "compare_attention",
    "embed_files",
    "embedding_table",
    "evaluate",
    "example_crops",
    "findings",
    "initialisation_study",
    "probe",
    "project",
    "reconstruct_clips",
    "reconstruction_errors",
    "sounds",
]
