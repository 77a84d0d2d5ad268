"""Columns by which clips on a plane are coloured."""

import numpy as np
import pandas as pd

from ..data import Manifest
from ..embedding.space import EmbeddingSpace
from ..encoder import Encoder
from ..inspection.reconstruction_error import clip_errors
from .work import ReportProgress

OF_CLIPS = ("label", "fold", "group", "length", "level")
"""the same for every encoder"""
OF_ENCODER = ("prediction", "error", "reconstruction")
COLUMNS = ("label", "prediction", "error", "fold", "group", "length", "level", "reconstruction")
SLOW = ("level", "reconstruction")
"""measured on the audio"""
SCALES = {"length": "s", "level": "dB", "reconstruction": "of the line's"}
HINT = (
    "prediction: the label of most nearest neighbours; error: whether that is right; reconstruction: its error, as a "
    "share of a straight line's in time; length, level: a scale"
)


def of_clips(name: str, space: EmbeddingSpace, sample_rate: int, longest: float, report: ReportProgress) -> pd.Series:
    """A column of OF_CLIPS. longest: s of a clip whose level is measured."""
    if name == "label":
        return pd.Series(space.labels)
    if name == "length":
        return space.manifest.table["seconds"]
    if name == "level":
        return pd.Series(levels(space.manifest, sample_rate, longest, report))
    return space.manifest.table[name].astype("string").fillna("none")


def of_encoder(
    name: str, enc: Encoder, space: EmbeddingSpace, layer: int, pool: str, neighbours: int, report: ReportProgress
) -> pd.Series:
    """A column of OF_ENCODER. Raises InputError for reconstructions of an encoder without a decoder."""
    if name == "reconstruction":
        errors = clip_errors(enc, space.manifest, seed=space.seed, on_batch=report)
        return errors.set_index("row")["ratio"].reindex(range(len(space.rows)))
    labels, predicted = pd.Series(space.labels), pd.Series(space.predicted(neighbours, layer, pool))
    if name == "prediction":  # in the colours of the labels, whether or not each is predicted
        return predicted.astype(pd.CategoricalDtype(sorted(set(labels))))
    return (predicted == labels).map({True: "right", False: "wrong"})


def levels(manifest: Manifest, sample_rate: int, longest: float, report: ReportProgress) -> np.ndarray:
    """Mean power of each clip's first `longest` seconds, dB of full scale: float64 [clips]."""
    decibels = np.empty(len(manifest))
    for clip in range(len(manifest)):
        report(clip, len(manifest))
        power = np.mean(np.square(manifest.read(clip, sample_rate, seconds=longest), dtype=np.float64))
        decibels[clip] = 10 * np.log10(max(power, 1e-10))
    return decibels
