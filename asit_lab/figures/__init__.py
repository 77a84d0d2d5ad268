"""Figures: arrays with units in, matplotlib Figure out. Nothing here knows of training, configs or torch models.

Time is in seconds, frequency in Hz on the mel scale; `MelAxes` says how frames and bands map to them. Every figure
shows itself as a notebook cell's result, and `save` writes it.
"""

from .attention import attention_by_layer, attention_comparison, class_attention
from .axes import MelAxes
from .calibration import reliability_figure
from .data import dataset, silence, stats
from .evaluation import confusion_figure, embedding_map, per_class_figure
from .reconstructed import Reconstructed, reconstruction, reconstruction_baselines, reconstructions
from .scores import probe_table, scores_figure
from .spectrograms import clip, masks, spectrogram, waveform
from .style import save
from .timeline import class_bars, event_lanes, timeline_figure
from .training import compared_curves, curves

__all__ = [
    "MelAxes",
    "Reconstructed",
    "attention_by_layer",
    "attention_comparison",
    "class_attention",
    "class_bars",
    "clip",
    "compared_curves",
    "confusion_figure",
    "curves",
    "dataset",
    "embedding_map",
    "event_lanes",
    "masks",
    "per_class_figure",
    "probe_table",
    "reconstruction",
    "reconstruction_baselines",
    "reconstructions",
    "reliability_figure",
    "save",
    "scores_figure",
    "silence",
    "spectrogram",
    "stats",
    "timeline_figure",
    "waveform",
]
