"""How good an encoder is: probes of its embeddings, fine-tuning, errors of its reconstructions, with baselines beside
them; and where its attention goes."""

from ..embedding.files import embed_files
from ..embedding.projection import embedding_table, project
from ..inspection.attention_statistics import attention_statistics, clip_and_silence, compare_attention
from ..inspection.examples import example_crops, reconstruct_clips, sounds
from ..inspection.reconstruction_error import reconstruction_errors
from .evaluate import Evaluation, evaluate
from .leakage import Finding, findings
from .probe import compare, probe
from .start_weights_study import initialisation_study

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
