"""Probes: how well a simple classifier reads the classes off frozen embeddings.

linear: standardised features, logistic regression (multinomial; for multi-label data one against the rest).
knn: standardised features, votes of the nearest by cosine.
weighted: logistic regression on a sum of all layers whose weights are learned beside it.
Layer, pooling, and C or k are chosen inside the training clips (see `choice`); test clips choose nothing. Which clips
train and which test: `protocols.splits`.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.labels import indicators
from ..embedding.dataset import Embedder, Embeddings, embed_clips, encoder_embedder, log_mel_embedder
from ..errors import InputError
from . import leakage as guard
from . import metrics
from .choice import POOLS, candidates, fit, layers_of
from .classifiers import GRIDS
from .probe_result import ProbeResult
from .splits import Split, check_labels, classes_of, gaps, groups_of, splits, strata_of

log = logging.getLogger(__name__)


def probe(
    enc,
    data,
    protocol: str = "linear",
    pool: str = "auto",
    layer: str | int = "auto",
    seeds: Sequence[int] = (0,),
    batch_size: int = 32,
    cache: bool = True,
) -> ProbeResult:
    """Probe an encoder on a labelled data set.

    enc: an Encoder, an `Embedder`, or what `zoo.open_source` takes (run directory, snapshot, published checkpoint).
    data: a Manifest or a data source such as "esc50:PATH". pool: "class", "mean" or "mean+std" over the patches.
    layer: "last" is the final output, a number the output of that block (negative ones count from the last block).
    "auto": each split chooses on its training clips; "weighted" takes all layers, and mean+std.
    seeds: of the folds, for data sets without folds or splits of their own. cache: embeddings are kept on disk and
    found again (see `cache`).
    Raises InputError for an unknown protocol, pool or layer, no readable clip, and everything `protocols.splits`
    refuses, the latter before a clip is embedded.
    """
    manifest = _manifest(data)
    found = _prepared(manifest, protocol, pool, seeds)
    enc = enc if isinstance(enc, Embedder) else _encoder(enc)
    _check_layer(enc, layer)
    embedder = enc if isinstance(enc, Embedder) else encoder_embedder(enc)
    (findings,) = _findings(manifest, found, [enc])
    embedded = embed_clips(manifest, [embedder], batch_size, cache)
    return _probe_embedded(embedded, embedder.name, manifest, protocol, pool, layer, seeds, findings)


def compare(
    encoders,
    data,
    protocol: str = "linear",
    pool: str = "auto",
    layer: str | int = "auto",
    seeds: Sequence[int] = (0,),
    batch_size: int = 32,
    cache: bool = True,
) -> pd.DataFrame:
    """The probe table: one row an encoder and one for the statistics of the log-mel, clips decoded once for all.

    encoders: {name: Encoder or what `zoo.open_source` takes}; a single Encoder stands for {"teacher": it, "random
    init": the same architecture untrained, from the run's seed}. The log-mel has the first encoder's sample rate and
    bands; as it has no layers, its row is missing where protocol is "weighted". The rest as in `probe`.
    Columns as `ProbeResult.table`. The results themselves are in `.attrs["results"]`, as `ProbeResult.to_dict` gives.
    """
    results = compare_results(encoders, data, protocol, pool, layer, seeds, batch_size, cache)
    table = pd.concat([one.table for one in results], ignore_index=True)
    table.attrs["results"] = [one.to_dict() for one in results]
    return table


def compare_results(
    encoders,
    data,
    protocol: str = "linear",
    pool: str = "auto",
    layer: str | int = "auto",
    seeds: Sequence[int] = (0,),
    batch_size: int = 32,
    cache: bool = True,
) -> list[ProbeResult]:
    """`compare` with every fold, prediction, output and chosen setting."""
    manifest = _manifest(data)
    found = _prepared(manifest, protocol, pool, seeds)
    named = {name: _encoder(one) for name, one in _named(encoders).items()}
    for one in named.values():
        _check_layer(one, layer)
    embedders = [encoder_embedder(one, name) for name, one in named.items()]
    if protocol != "weighted":
        features = next(iter(named.values())).config.features
        embedders.append(log_mel_embedder(features.mel_bins, features.sample_rate))
    findings = _findings(manifest, found, [named.get(one.name) for one in embedders])
    embedded = embed_clips(manifest, embedders, batch_size, cache)
    return [
        _probe_embedded(embedded, one.name, manifest, protocol, pool, layer, seeds, told)
        for one, told in zip(embedders, findings, strict=True)
    ]


def probe_features(
    features: np.ndarray,
    table: pd.DataFrame,
    name: str,
    protocol: str = "linear",
    pool: str = "auto",
    layer: str | int = "auto",
    seeds: Sequence[int] = (0,),
    multi: bool = False,
    classes: Sequence[str] | None = None,
    skipped: Sequence[tuple[str, str]] = (),
    findings: Sequence[guard.Finding] = (),
) -> ProbeResult:
    """Probe embeddings that exist already.

    features: float [clips, dim], or [clips, layers, 3, D] as `Encoder.pooled` gives. table: the manifest's rows of
    these clips, in the same order. multi: labels are several joined by ";". classes: in the order of the outputs;
    None: the labels in alphabetical order.
    Raises InputError where features and table do not fit, a feature is not a number, or `protocols.splits` refuses.
    """
    _check_protocol(protocol)
    features = np.asarray(features, dtype=np.float32)
    if features.ndim not in (2, 4) or len(features) != len(table) or features.shape[2:3] not in ((), (3,)):
        raise InputError(
            f"{name}: features of shape {features.shape} for {len(table)} clips, expected [clips, dim] or "
            "[clips, layers, 3, width]"
        )
    labels, groups = check_labels(table, multi), groups_of(table)
    classes = sorted(classes_of(labels, multi)) if classes is None else list(classes)
    targets, strata = indicators(labels, classes, multi), strata_of(labels, multi)
    among = candidates(name, features, protocol, pool, layer)
    _check_finite(name, [one.of(features) for one in among], table)
    metric = "mAP" if multi else "accuracy"
    scores, chosen, outputs, parts = {}, {}, [], []
    for split in splits(table, seeds, multi=multi):
        answer, chosen[split.name] = fit(features, targets, strata, groups, split, protocol, among, multi)
        scores[split.name] = metrics.scores(targets[split.test], answer, multi)[metric]
        outputs.append(answer.astype(np.float32))
        part = {
            "split": split.name,
            "path": table["path"].to_numpy()[split.test],
            "path_row": split.test,
            "label": labels[split.test],
            "predicted": np.array(classes, dtype=object)[answer.argmax(1)],
        }
        parts.append(pd.DataFrame(part))
    tested = targets[np.concatenate([part["path_row"] for part in parts])].mean(0)  # share of each class
    return ProbeResult(
        name,
        protocol,
        scores,
        chosen,
        float(tested[tested > 0].mean() if multi else tested.max()),
        pd.concat(parts, ignore_index=True),
        np.concatenate(outputs),
        classes,
        multi,
        max(one.of(features[:1]).shape[-1] for one in among),
        list(skipped),
        list(findings),
    )


def _check_finite(name: str, vectors: Sequence[np.ndarray], table: pd.DataFrame) -> None:
    for one in vectors:
        finite = np.isfinite(one).reshape(len(one), -1).all(axis=1)
        if not finite.all():
            raise InputError(f"{name}: the embedding of {table['path'].iloc[int(np.argmin(finite))]} is not finite")


# --- What the caller may pass ---------------------------------------------------------------------------------------


def _check_protocol(protocol: str) -> None:
    if protocol not in GRIDS:
        raise InputError(f"protocol {protocol!r}: expected one of {', '.join(GRIDS)}")


def _prepared(manifest, protocol: str, pool: str, seeds: Sequence[int]) -> list[Split]:
    """The splits; what is wrong with choices or labels shows here, before clips are embedded."""
    _check_protocol(protocol)
    if pool not in ("auto", *POOLS):
        raise InputError(f"pool: {pool!r} is not one of auto, {', '.join(POOLS)}")
    found = splits(manifest.table, seeds, multi=manifest.multi)
    for sentence in gaps(manifest.table, found, manifest.multi):
        log.warning("%s", sentence)
    return found


def _check_layer(enc, layer: str | int) -> None:
    if not isinstance(enc, Embedder):
        layers_of(layer, enc.config.model.depth)


def _findings(manifest, found: Sequence[Split], encoders: Sequence) -> list[list[guard.Finding]]:
    """What the guard has to say, for each encoder (None: of the data alone); warned of once."""
    known: dict[tuple | None, list[guard.Finding]] = {}
    each = []
    for enc in encoders:
        config = None if enc is None or isinstance(enc, Embedder) or not enc.pretrained else enc.config
        seen = None if config is None else (config.data.source, config.data.holdout, config.data.segment_seconds)
        if seen not in known:
            known[seen] = guard.findings(manifest, found, config)
        each.append(known[seen])
    for one in dict.fromkeys(one for several in known.values() for one in several):
        log.log(logging.INFO if one.severity == "note" else logging.WARNING, "%s: %s", one.kind, one.message)
    return each


def _manifest(data):
    from ..data.manifest import load_manifest

    return load_manifest(str(data) if isinstance(data, Path) else data)


def _encoder(enc):
    if isinstance(enc, (str, os.PathLike)):
        from ..zoo import open_source

        return open_source(enc)
    return enc


def _named(encoders) -> dict:
    if isinstance(encoders, Mapping):
        if not encoders:
            raise InputError("compare: no encoders given")
        return dict(encoders)
    from ..encoder import Encoder

    trained = _encoder(encoders)
    return {"teacher": trained, "random init": Encoder.random(trained.config, seed=trained.config.train.seed)}


def _probe_embedded(embedded: Embeddings, name: str, manifest, protocol, pool, layer, seeds, findings) -> ProbeResult:
    table = manifest.table.iloc[embedded.rows].reset_index(drop=True)
    _check_still_there(manifest.table, table, manifest.multi, embedded.skipped)
    classes = manifest.classes
    features, skipped = embedded.features[name], embedded.skipped
    return probe_features(
        features, table, name, protocol, pool, layer, seeds, manifest.multi, classes, skipped, findings
    )


def _check_still_there(before: pd.DataFrame, after: pd.DataFrame, multi: bool, skipped: list[tuple[str, str]]) -> None:
    """A fold, split or class whose every clip was unreadable would silently change the protocol."""
    for column in ("fold", "split", "label"):
        there = [set(table[column].dropna()) if column in table else set() for table in (before, after)]
        gone = classes_of(there[0], multi and column == "label") - classes_of(there[1], multi and column == "label")
        if gone:
            raise InputError(f"{column} {sorted(gone)[0]}: none of its clips can be read, for example: {skipped[0][1]}")
