"""Fits and saves a probe's classifier: a linear head on frozen features, fitted on all labelled clips."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..data.labels import indicators
from ..data.manifest import Manifest
from ..embedding.vectors import LayerVectors
from ..encoder import Encoder
from ..errors import InputError
from ..finetuning.classifier import Classifier, ProbeHead, classifier_metadata
from ..finetuning.result import SETUP
from ..storage.atomic import read_json, write_json, write_text
from .calibration import best_thresholds, calibration_error, fit_temperature
from .choice import candidates, fit_probe
from .classifiers import probabilities
from .probe_result import ProbeResult
from .splits import Split, check_labels, groups_of, strata_of


def check_probe_folder(folder: Path, enc: object, protocol: str) -> None:
    """Raise InputError, before anything is computed, where no classifier could be saved in `folder`."""
    if protocol == "knn":
        raise InputError("out: nearest neighbours give no classifier; use protocol linear or weighted")
    if not isinstance(enc, Encoder):
        raise InputError("out: a classifier needs an Encoder, this is an Embedder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file is in the way of the folder")
    stored = read_json(folder / "result.json")
    if (folder / "config.yaml").is_file() or (folder / SETUP).is_file() or (stored and "protocol" not in stored):
        raise InputError(f"{folder}: holds a run, a fine-tuning or an evaluation; choose another folder")


def fit_classifier(
    enc: Encoder,
    features: np.ndarray | LayerVectors,
    table: pd.DataFrame,
    manifest: Manifest,
    result: ProbeResult,
    pool: str = "auto",
    layer: str | int = "auto",
) -> Classifier:
    """Choose layer, pooling and C as a split of the probe does, but on all clips, and fit on them.

    features, table: as `probe_features` takes them. result: of the probe; temperature and thresholds are fitted on its
    predictions for test clips.
    """
    labels, multi = check_labels(table, manifest.multi), manifest.multi
    targets = indicators(labels, result.classes, multi)
    rows = np.arange(len(table))
    tried = candidates(enc.name, features, result.protocol, pool, layer)
    split = Split("all clips", rows, rows)
    fitted = fit_probe(
        features, targets, strata_of(labels, multi), groups_of(table), split, result.protocol, tried, multi
    )
    head, layers = fitted.head, list(fitted.candidate.layers)
    weights = np.ones(1) if head.layer_weights is None else head.layer_weights
    statistics = [values.reshape(len(layers), -1) for values in (head.mean, head.deviation)]  # [layers, P]
    parts = (*statistics, head.weights, head.intercepts, weights)
    temperature = fit_temperature(result.targets, _logits(result.outputs, multi), multi)
    calibrated = probabilities(_logits(result.outputs, multi) / temperature, multi)
    thresholds = best_thresholds(result.targets, calibrated) if multi else None
    name = f"{enc.name}, {result.protocol} probe on {manifest.name}"
    metadata = {"layers": layers, "pool": fitted.candidate.pool}
    network = Encoder(enc.config, enc.backbone, name=name)
    network.head = ProbeHead(*(torch.from_numpy(np.array(part, dtype=np.float64)) for part in parts)).to(enc.device)
    return Classifier(
        network,
        enc.config,
        classifier_metadata(name, enc.config, result.classes, multi, None, metadata, temperature, thresholds, "test"),
    )


def _logits(outputs: np.ndarray, multi: bool) -> np.ndarray:
    """Logits of these probabilities."""
    outputs = np.clip(outputs.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.log(outputs) - np.log1p(-outputs) if multi else np.log(outputs)


def write_probe(folder: Path, result: ProbeResult, classifier: Classifier) -> None:
    """Write model.safetensors, result.json, predictions.csv, per_class.csv and, for one class a clip, confusion.csv."""
    classifier.save(folder)
    content = result.to_dict() | {
        "temperature": classifier.temperature,
        "ece": calibration_error(result.targets, result.outputs, result.multi),
    }
    write_text(folder / "predictions.csv", result.predictions.to_csv(index=False))
    write_text(folder / "per_class.csv", result.per_class.to_csv(index=False))
    if not result.multi:
        write_text(folder / "confusion.csv", result.confusion.to_csv())
    write_json(folder / "result.json", content)
