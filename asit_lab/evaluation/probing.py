"""Probes encoders: how well a simple classifier on frozen embeddings separates the classes.

linear: standardised features, logistic regression (multinomial; for multi-label data one against the rest).
knn: standardised features, votes of the nearest by cosine.
weighted: logistic regression on a weighted sum of all layers, with learned weights.
Layer, pooling, and C or k are chosen inside the training clips (see `choice`); test clips choose nothing. Which clips
train and which test: `splits.manifest_splits`.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from ..config import resolve
from ..data.labels import indicators
from ..data.manifest import DataSource, Manifest, load_manifest
from ..embedding.dataset import Embedder, Embeddings, embed_clips, encoder_embedder, log_mel_embedder, on_device
from ..embedding.vectors import LayerVectors
from ..encoder import Encoder
from ..errors import InputError
from ..storage.progress import passing_bar_style
from ..zoo import open_source
from . import metrics
from .choice import POOL_PREFERENCE, Fit, candidates, fit_probe, layers_of
from .classifiers import GRIDS, one_thread_a_product
from .leakage import Finding, findings, prints_of
from .probe_model import check_probe_folder, fit_classifier, write_probe
from .probe_result import ProbeResult
from .splits import (
    Split,
    check_labels,
    classes_of,
    gaps,
    groups_of,
    independent_unit,
    is_official,
    manifest_splits,
    splits,
    strata_of,
    with_few_labels,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Options:
    """The choices of a probe, as in `probe`."""

    protocol: str = "linear"
    pool: str = "auto"
    layer: str | int = "auto"
    seeds: Sequence[int] = (0,)
    batch_size: int = 32
    cache: bool = True
    allow_leaks: bool = False
    labels_per_class: int | None = None


def probe(
    enc: Encoder | Embedder | str | Path,
    data: DataSource,
    protocol: str = "linear",
    pool: str = "auto",
    layer: str | int = "auto",
    seeds: Sequence[int] = (0,),
    batch_size: int = 32,
    cache: bool = True,
    device: str | None = None,
    allow_leaks: bool = False,
    out: str | Path | None = None,
    labels_per_class: int | None = None,
) -> ProbeResult:
    """Probe an encoder on a labelled data set.

    enc: an Encoder, an `Embedder`, or what `zoo.open_source` takes (run directory, snapshot, published checkpoint).
    data: a Manifest or a data source such as "esc50:PATH". pool: "class", "mean" or "mean+std" over the patches.
    layer: "last" is the final output, a number the output of that block (negative ones count from the last block).
    "auto": each split chooses on its training clips; "weighted" takes all layers, and mean+std.
    seeds: of the folds, for data sets without folds or splits of their own. cache: embeddings are cached on
    disk (see `cache`). device: such as "cuda" (default: where the encoder is). allow_leaks: take the user's own
    folds or splits also where they share recordings; official ones are always taken as published, see `notes` of the
    result. out: a folder to save the classifier in, fitted on all clips (see `load_classifier`), with the result's
    tables; linear and weighted only. labels_per_class: train on so many clips of each class, drawn from the training
    clips once for every seed (a few-shot probe).
    Raises InputError for an unknown protocol, pool or layer, no readable clip, and everything `splits.splits` refuses,
    the latter before a clip is embedded.
    """
    if not isinstance(enc, Embedder):
        enc = on_device(_opened(enc), device)
    if out is not None:
        if labels_per_class is not None:
            raise InputError(f"out: {out} is for a classifier fitted on all clips; leave it out or labels_per_class")
        check_probe_folder(resolve(out), enc, protocol)
    manifest = load_manifest(data)
    options = _Options(protocol, pool, layer, seeds, batch_size, cache, allow_leaks, labels_per_class)
    embedded, leaks = _embedded({enc.name: enc}, manifest, options, beside_log_mel=False)
    (result,) = _results(embedded, leaks, manifest, options)
    if out is not None:
        table = manifest.table.iloc[embedded.rows].reset_index(drop=True)
        features = embedded.features[enc.name]
        write_probe(resolve(out), result, fit_classifier(enc, features, table, manifest, result, pool, layer))
    return result


def compare(
    encoders: Any,
    data: DataSource,
    protocol: str = "linear",
    pool: str = "auto",
    layer: str | int = "auto",
    seeds: Sequence[int] = (0,),
    batch_size: int = 32,
    cache: bool = True,
) -> pd.DataFrame:
    """The probe table: a row per encoder and one for the statistics of the log-mel; clips are decoded once for all.

    encoders: {name: Encoder or what `zoo.open_source` takes}; a single Encoder stands for {"teacher": it, "random
    init": the same architecture untrained, from the run's seed}. The log-mel has the first encoder's sample rate and
    bands; as it has no layers, its row is missing where protocol is "weighted". The rest as in `probe`.
    Columns as `ProbeResult.table`. The results themselves are in `.attrs["results"]`, as `ProbeResult.to_dict` gives.
    """
    options = {"pool": pool, "layer": layer, "seeds": seeds, "batch_size": batch_size, "cache": cache}
    results = compare_results(encoders, data, protocol, **options)
    table = pd.concat([result.table for result in results], ignore_index=True)
    table.attrs["results"] = [result.to_dict() for result in results]
    return table


def compare_results(encoders: Any, data: DataSource, protocol: str = "linear", **options: Any) -> list[ProbeResult]:
    """`compare` with every fold, prediction, output and chosen setting. options: those of `compare`, and allow_leaks
    and labels_per_class as in `probe`."""
    named = {name: _opened(source) for name, source in _named(encoders).items()}
    manifest = load_manifest(data)
    chosen = _Options(protocol, **options)
    embedded, leaks = _embedded(named, manifest, chosen, beside_log_mel=protocol != "weighted")
    return _results(embedded, leaks, manifest, chosen)


def probe_features(
    features: np.ndarray | LayerVectors,
    table: pd.DataFrame,
    name: str,
    protocol: str = "linear",
    pool: str = "auto",
    layer: str | int = "auto",
    seeds: Sequence[int] = (0,),
    multi: bool = False,
    classes: Sequence[str] | None = None,
    skipped: Sequence[tuple[str, str]] = (),
    findings: Sequence[Finding] = (),
    unit: str = "clip",
    allow_leaks: bool = False,
    labels_per_class: int | None = None,
) -> ProbeResult:
    """Probe existing embeddings.

    features: float [clips, dim], or [clips, layers, 3, D] as `Encoder.pooled` gives. table: the manifest's rows of
    these clips, in the same order. multi: labels are several joined by ";". classes: in the order of the outputs;
    None: the labels in alphabetical order. unit: the kind of the table's groups, such as recording. The rest as in
    `probe`.
    Raises InputError where features and table do not fit, a feature is not a number, or `splits.splits` refuses.
    """
    _check_protocol(protocol)
    features = features if isinstance(features, LayerVectors) else np.asarray(features, dtype=np.float32)
    if features.ndim not in (2, 4) or len(features) != len(table) or features.shape[2:3] not in ((), (3,)):
        raise InputError(
            f"{name}: features of shape {features.shape} for {len(table)} clips, expected [clips, dim] or "
            "[clips, layers, 3, width]"
        )
    labels, groups = check_labels(table, multi), groups_of(table)
    classes = sorted(classes_of(labels, multi)) if classes is None else list(classes)
    targets, strata = indicators(labels, classes, multi), strata_of(labels, multi)
    tried = candidates(name, features, protocol, pool, layer)
    for candidate in tried:
        _check_finite(name, candidate.pooled(features), table)
    metric = metrics.MAIN[multi]
    if labels_per_class is None:
        divisions = splits(table, seeds, multi=multi, allow_leaks=allow_leaks)
    else:
        divisions = splits(table, seeds[:1], multi=multi, allow_leaks=allow_leaks)
        divisions = with_few_labels(divisions, strata, labels_per_class, seeds)
    fits = _fits(
        divisions,
        lambda split: fit_probe(features, targets, strata, groups, split, protocol, tried, multi),
        f"{protocol} {name}",
    )
    parts = [_predictions(split, fits[split.name].outputs, table, labels, groups, classes) for split in divisions]
    shares = targets[np.concatenate([split.test for split in divisions])].mean(0)  # of each class
    return ProbeResult(
        name,
        protocol,
        {s.name: metrics.scores(targets[s.test], fits[s.name].outputs, multi)[metric] for s in divisions},
        {split: fitted.chosen for split, fitted in fits.items()},
        float(shares[shares > 0].mean() if multi else shares.max()),
        pd.concat(parts, ignore_index=True),
        np.concatenate([fitted.outputs.astype(np.float32) for fitted in fits.values()]),
        classes,
        multi,
        max(candidate.dim(features) for candidate in tried),
        list(skipped),
        list(findings),
        unit,
        labels_per_class=labels_per_class,
    )


def _fits(divisions: Sequence[Split], fit: Callable[[Split], Fit], words: str) -> dict[str, Fit]:
    """The fit of every split, with a bar; as many at once as torch has threads."""
    bar = {"desc": words, "unit": "split", "total": len(divisions), **passing_bar_style()}
    with one_thread_a_product(), ThreadPoolExecutor(torch.get_num_threads()) as workers:
        fitted = tqdm(workers.map(fit, divisions), **bar)
        return dict(zip([split.name for split in divisions], fitted, strict=True))


def _predictions(
    split: Split, outputs: np.ndarray, table: pd.DataFrame, labels: np.ndarray, groups: np.ndarray, classes: list[str]
) -> pd.DataFrame:
    columns = {
        "split": split.name,
        "path": table["path"].to_numpy()[split.test],
        "path_row": split.test,
        "group": groups[split.test],
        "label": labels[split.test],
        "predicted": np.array(classes, dtype=object)[outputs.argmax(1)],
    }
    return pd.DataFrame(columns)


def _check_finite(name: str, vectors: np.ndarray, table: pd.DataFrame) -> None:
    finite = np.isfinite(vectors).reshape(len(vectors), -1).all(axis=1)
    if not finite.all():
        raise InputError(f"{name}: the embedding of {table['path'].iloc[int(np.argmin(finite))]} is not finite")


# --- From audio -----------------------------------------------------------------------------------------------------


def _embedded(
    named: Mapping[str, Encoder | Embedder],
    manifest: Manifest,
    options: _Options,
    beside_log_mel: bool,
) -> tuple[Embeddings, list[list[Finding]]]:
    """Embeddings by each encoder, and of the log-mel where requested, and the findings of the leakage check for each.
    Wrong options or labels are reported before clips are embedded."""
    _check_protocol(options.protocol)
    if options.pool not in ("auto", *POOL_PREFERENCE):
        raise InputError(f"pool: {options.pool!r} is not one of auto, {', '.join(POOL_PREFERENCE)}")
    divisions = manifest_splits(manifest, options.seeds, options.allow_leaks)
    for sentence in gaps(manifest.table, divisions, manifest.multi):
        log.warning("%s", sentence)
    embedders = [_embedder(name, source, options.protocol, options.layer) for name, source in named.items()]
    if beside_log_mel:
        features = next(iter(named.values())).config.features
        embedders.append(log_mel_embedder(features.mel_bins, features.sample_rate))
    leaks = _findings(manifest, divisions, [named.get(embedder.name) for embedder in embedders])
    return embed_clips(manifest, embedders, options.batch_size, options.cache), leaks


def _results(
    embedded: Embeddings, leaks: list[list[Finding]], manifest: Manifest, options: _Options
) -> list[ProbeResult]:
    """A result for each embedder."""
    table = manifest.table.iloc[embedded.rows].reset_index(drop=True)
    _check_still_there(manifest.table, table, manifest.multi, embedded.skipped)
    official = is_official(manifest)
    results = [
        probe_features(
            features,
            table,
            name,
            options.protocol,
            options.pool,
            options.layer,
            options.seeds,
            manifest.multi,
            manifest.classes,
            embedded.skipped,
            _renumbered(of_embedder, embedded),
            independent_unit(manifest),
            options.allow_leaks or official,
            options.labels_per_class,
        )
        for (name, features), of_embedder in zip(embedded.features.items(), leaks, strict=True)
    ]
    return [replace(result, leaks_allowed=options.allow_leaks and not official) for result in results]


def _check_protocol(protocol: str) -> None:
    if protocol not in list(GRIDS):
        raise InputError(f"protocol {protocol!r}: expected one of {', '.join(GRIDS)}")


def _embedder(name: str, source: Encoder | Embedder, protocol: str, layer: str | int) -> Embedder:
    """Embeds with the layers that may be read, no others. Raises InputError for a layer that does not exist."""
    if isinstance(source, Embedder):
        return source
    depth = source.config.model.depth
    layers = layers_of(layer, depth)
    return encoder_embedder(source, name, range(depth + 1) if protocol == "weighted" else layers)


def _findings(
    manifest: Manifest, divisions: Sequence[Split], encoders: Sequence[Encoder | Embedder | None]
) -> list[list[Finding]]:
    """What the leakage check finds for each encoder (None: for the data alone); logged once."""
    by_pretraining: dict[tuple | None, list[Finding]] = {}
    leaks, official, prints = [], is_official(manifest), prints_of(manifest, divisions)
    for enc in encoders:
        config = enc.config if isinstance(enc, Encoder) and enc.pretrained else None
        data = None if config is None else (config.data.source, config.data.holdout, config.data.segment_seconds)
        if data not in by_pretraining:
            by_pretraining[data] = findings(manifest, divisions, config, official, prints)
        leaks.append(by_pretraining[data])
    for finding in dict.fromkeys(finding for leaks_of_data in by_pretraining.values() for finding in leaks_of_data):
        level = logging.INFO if finding.severity == "note" else logging.WARNING
        log.log(level, "%s: %s", finding.kind, finding.message)
    return leaks


def _renumbered(leaks: Sequence[Finding], embedded: Embeddings) -> list[Finding]:
    """Findings with row numbers among the clips that were embedded."""
    position = {row: i for i, row in enumerate(embedded.rows.tolist())}
    return [replace(f, tested=tuple(position[row] for row in f.tested if row in position)) for f in leaks]


def _opened(enc: Encoder | str | os.PathLike) -> Encoder:
    return open_source(enc) if isinstance(enc, str | os.PathLike) else enc


def _named(encoders: Any) -> dict:
    if isinstance(encoders, Mapping):
        if not encoders:
            raise InputError("compare: no encoders given")
        return dict(encoders)
    trained = _opened(encoders)
    return {"teacher": trained, "random init": Encoder.random(trained.config, seed=trained.config.train.seed)}


def _check_still_there(before: pd.DataFrame, after: pd.DataFrame, multi: bool, skipped: list[tuple[str, str]]) -> None:
    """A fold, split or class whose every clip was unreadable would silently change the protocol."""
    for column in ("fold", "split", "label"):
        values = [set(table[column].dropna()) if column in table else set() for table in (before, after)]
        lost = classes_of(values[0], multi and column == "label") - classes_of(values[1], multi and column == "label")
        if lost:
            raise InputError(f"{column} {sorted(lost)[0]}: none of its clips can be read, for example: {skipped[0][1]}")
