"""Measures mean and standard deviation of a data set's log-mel."""

import math
from pathlib import Path

import numpy as np
import torch

from ..config import RunConfig, load_config
from ..errors import InputError
from ..features import LogMel
from ..settings import Features
from .manifest import Manifest, load_manifest

_CLIPS = 200  # that features.mean=auto is measured on


def measure(
    manifest: Manifest, features: Features, clips: int | None = None
) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Mean and standard deviation of a data set's raw log-mel, to put into `features.mean` and `features.std`.

    clips: measure this many, evenly spread (None: all).
    Returns mean, std, mean per band [M], std per band [M]; unreadable clips are left out.
    Raises InputError when no clip can be read.
    """
    front_end = LogMel.from_config(
        features.model_copy(update={"mean": 0.0, "std": 1.0})
    )  # raw: they have no part in it
    rows = range(len(manifest))
    if clips is not None and clips < len(manifest):
        rows = np.linspace(0, len(manifest) - 1, clips).round().astype(int)
    count, total, squares = 0, np.zeros(features.mel_bins), np.zeros(features.mel_bins)
    for row in rows:
        try:
            wave = manifest.read(int(row), features.sample_rate)
            raw = front_end(torch.from_numpy(wave)[None])[0].double().numpy()
        except InputError:  # unreadable, or shorter than a frame
            continue
        count, total, squares = count + len(raw), total + raw.sum(0), squares + (raw**2).sum(0)
    if count == 0:
        raise InputError(f"{manifest.source}: no clip could be read, so there is nothing to measure")
    band_mean = total / count
    band_std = np.sqrt(np.maximum(squares / count - band_mean**2, 0.0))
    mean = band_mean.mean()
    std = math.sqrt(max((squares / count).mean() - mean**2, 0.0))
    return float(mean), std, band_mean, band_std


def with_measured_features(cfg: RunConfig, run: Path | None = None) -> RunConfig:
    """The configuration with numbers where features.mean or features.std is auto: those of the run in the directory
    `run` if there is one, else of some of the clips that are trained on.

    Raises InputError where the data set cannot be listed or read.
    """
    unknown = [name for name in ("mean", "std") if getattr(cfg.features, name) == "auto"]
    if not unknown:
        return cfg
    if run and (run / "config.yaml").is_file():
        stored = load_config(run).features
        numbers = {"mean": stored.mean, "std": stored.std}
    else:
        manifest = load_manifest(cfg.data.source, segment_seconds=cfg.data.segment_seconds)
        train, _ = manifest.holdout(cfg.data.holdout)
        mean, std, _, _ = measure(train, cfg.features, clips=_CLIPS)
        numbers = {"mean": round(mean, 6), "std": round(std, 6)}
    return cfg.with_overrides([f"features.{name}={numbers[name]}" for name in unknown])
