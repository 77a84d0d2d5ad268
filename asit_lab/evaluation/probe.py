"""Probes: how well a simple classifier reads the classes off frozen embeddings.

linear: standardised features, multinomial logistic regression, its strength C chosen inside the training clips.
knn: standardised features, majority of the k nearest by cosine, k chosen the same way.
Test clips choose nothing. Which clips train and which test: `protocols.splits`.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import InputError
from .embeddings import Embedder, Embeddings, embed_clips, encoder_embedder, log_mel_embedder
from .protocols import Split, check_labels, groups_of, inner_splits, splits

GRIDS = {"linear": (0.001, 0.01, 0.1, 1.0), "knn": (1, 3, 5, 10, 20)}  # C; k
_ITERATIONS = 1000
_CHOICE_TOLERANCE = 1e-3  # of the fits that only choose C; the final fit has scikit-learn's default


@dataclass(frozen=True)
class ProbeResult:
    """Scores of one set of embeddings under one protocol."""

    name: str
    """encoder"""
    protocol: str
    """linear or knn"""
    pool: str
    """how tokens became a clip embedding; empty where that does not apply"""
    scores: dict[str, float]
    """accuracy (0 to 1) on the test clips of each fold, split, or seed and fold"""
    chosen: dict[str, float]
    """C or k of each"""
    chance: float
    """accuracy of the best constant answer: share of the commonest class among the tested clips"""
    predictions: pd.DataFrame
    """one row a tested clip: split, path, label, predicted"""
    dim: int
    """length of an embedding"""
    skipped: list[tuple[str, str]]
    """(path, reason) of clips left out"""

    @property
    def mean(self) -> float:
        """Mean accuracy over folds (and seeds)."""
        return float(np.mean(list(self.scores.values())))

    @property
    def spread(self) -> float:
        """Sample standard deviation of the accuracy over folds (and seeds); NaN for a single one."""
        return float(np.std(list(self.scores.values()), ddof=1)) if len(self.scores) > 1 else float("nan")

    @property
    def per_class(self) -> pd.DataFrame:
        """One row a class: label, clips tested, recall, precision, confused_with (commonest wrong answer, or "")."""
        rows = []
        for label in sorted(self.predictions["label"].unique()):
            of_class = self.predictions[self.predictions["label"] == label]
            answered = self.predictions[self.predictions["predicted"] == label]
            wrong = of_class["predicted"][of_class["predicted"] != label]
            rows.append(
                {
                    "label": label,
                    "clips": len(of_class),
                    "recall": float((of_class["predicted"] == label).mean()),
                    "precision": float((answered["label"] == label).mean()) if len(answered) else 0.0,
                    "confused_with": wrong.value_counts().sort_index(kind="stable").idxmax() if len(wrong) else "",
                }
            )
        return pd.DataFrame(rows)

    @property
    def table(self) -> pd.DataFrame:
        """One row: encoder, protocol, pool, mean, spread, folds, clips, chance."""
        return pd.DataFrame(
            [
                {
                    "encoder": self.name,
                    "protocol": self.protocol,
                    "pool": self.pool,
                    "mean": self.mean,
                    "spread": self.spread,
                    "folds": len(self.scores),
                    "clips": self.predictions["path_row"].nunique(),
                    "chance": self.chance,
                }
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for result.json; a spread that is not a number becomes None."""
        row = self.table.iloc[0].to_dict()
        row = {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
        return {
            **row,
            "spread": None if np.isnan(self.spread) else self.spread,
            "dim": self.dim,
            "scores": dict(self.scores),
            "chosen": dict(self.chosen),
            "per_class": self.per_class.to_dict("records"),
            "skipped": [list(one) for one in self.skipped],
        }


def probe(
    enc,
    data,
    protocol: str = "linear",
    pool: str = "mean+std",
    seeds: Sequence[int] = (0,),
    batch_size: int = 32,
) -> ProbeResult:
    """Probe an encoder on a labelled data set.

    enc: an Encoder, an `Embedder`, or whatever `load_encoder` takes (run directory, snapshot, published checkpoint).
    data: a Manifest or a data source such as "esc50:PATH". pool: "mean", "class" or "mean+std" over the tokens.
    seeds: of the folds, for data sets without folds or splits of their own.
    Raises InputError for an unknown protocol, no readable clip, and everything `protocols.splits` refuses.
    """
    _grid(protocol)
    manifest, embedder = _manifest(data), _embedder(enc, pool)
    splits(manifest.table, seeds)  # what is wrong with the labels shows before the clips are embedded
    embedded = embed_clips(manifest, [embedder], batch_size)
    return _probe_embedded(embedded, embedder.name, manifest, protocol, _pool_of(enc, pool), seeds)


def compare(
    encoders,
    data,
    protocol: str = "linear",
    pool: str = "mean+std",
    seeds: Sequence[int] = (0,),
    batch_size: int = 32,
) -> pd.DataFrame:
    """The probe table: one row an encoder and one for the statistics of the log-mel, clips decoded once for all.

    encoders: {name: Encoder or what `load_encoder` takes}; a single Encoder stands for {"teacher": it, "random init":
    the same architecture untrained, from the run's seed}. The log-mel has the first encoder's sample rate and bands.
    Columns as `ProbeResult.table`. The results themselves are in `.attrs["results"]`, as `ProbeResult.to_dict` gives.
    """
    results = compare_results(encoders, data, protocol, pool, seeds, batch_size)
    table = pd.concat([one.table for one in results], ignore_index=True)
    table.attrs["results"] = [one.to_dict() for one in results]
    return table


def compare_results(
    encoders,
    data,
    protocol: str = "linear",
    pool: str = "mean+std",
    seeds: Sequence[int] = (0,),
    batch_size: int = 32,
) -> list[ProbeResult]:
    """`compare` with every fold, prediction and chosen setting."""
    _grid(protocol)
    manifest = _manifest(data)
    splits(manifest.table, seeds)
    named = {name: _encoder(one) for name, one in _named(encoders).items()}
    embedders = [encoder_embedder(one, pool, name) for name, one in named.items()]
    features = next(iter(named.values())).config.features
    embedders.append(log_mel_embedder(features.mel_bins, features.sample_rate))
    embedded = embed_clips(manifest, embedders, batch_size)
    pools = [pool] * len(named) + [""]
    return [
        _probe_embedded(embedded, one.name, manifest, protocol, how, seeds)
        for one, how in zip(embedders, pools, strict=True)
    ]


def probe_features(
    features: np.ndarray,
    table: pd.DataFrame,
    name: str,
    protocol: str = "linear",
    pool: str = "",
    seeds: Sequence[int] = (0,),
    skipped: Sequence[tuple[str, str]] = (),
) -> ProbeResult:
    """Probe embeddings that exist already.

    features: float [clips, dim]. table: the manifest's rows of these clips, in the same order.
    Raises InputError where the two do not fit, a feature is not a number, or `protocols.splits` refuses the table.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) != len(table):
        raise InputError(f"{name}: features of shape {features.shape} for {len(table)} clips, expected [clips, dim]")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise InputError(f"{name}: the embedding of {table['path'].iloc[int(np.argmin(finite))]} is not finite")
    labels, groups = check_labels(table), groups_of(table)
    scores, chosen, parts = {}, {}, []
    for split in splits(table, seeds):
        predicted, chosen[split.name] = _fit_and_predict(features, labels, groups, split, protocol)
        truth = labels[split.test]
        scores[split.name] = float((predicted == truth).mean())
        paths = table["path"].to_numpy()[split.test]
        part = {"split": split.name, "path": paths, "path_row": split.test, "label": truth, "predicted": predicted}
        parts.append(pd.DataFrame(part))
    predictions = pd.concat(parts, ignore_index=True)
    chance = float(predictions["label"].value_counts(normalize=True).max())
    return ProbeResult(name, protocol, pool, scores, chosen, chance, predictions, features.shape[1], list(skipped))


# --- One split ------------------------------------------------------------------------------------------------------


def _fit_and_predict(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, split: Split, protocol: str
) -> tuple[np.ndarray, float]:
    """Answers for the test clips of a split, and the setting they were made with."""
    if len(split.valid):
        inner = [(split.train, split.valid)]
    else:
        divided = inner_splits(labels[split.train], groups[split.train])
        inner = [(split.train[fit], split.train[check]) for fit, check in divided]
    grid = _grid(protocol)
    rates = np.zeros(len(grid))
    for fit, check in inner:
        answers = _answers(features[fit], labels[fit], features[check], protocol, grid, _CHOICE_TOLERANCE)
        rates += [(one == labels[check]).mean() for one in answers]
    # Of equals the first: stronger regularisation, fewer neighbours. Without recordings to choose by: the middle.
    best = grid[int(rates.argmax())] if inner else grid[len(grid) // 2]
    train, test = features[split.train], features[split.test]
    return _answers(train, labels[split.train], test, protocol, (best,))[0], float(best)


def _answers(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, protocol: str, settings: Sequence, tolerance: float = 1e-4
) -> list[np.ndarray]:
    """Predicted labels of `test` for every setting of the classifier; everything is fitted on `train`."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    if protocol == "knn":
        return _nearest(train, labels, test, settings)
    if train.shape[1] > len(train):
        # With an L2 penalty the weights lie in the span of the training clips, so rotating into that span changes
        # no answer and makes the fit quicker.
        basis = np.linalg.qr(train.T)[0]  # [dim, clips]
        train, test = train @ basis, test @ basis
    return _logistic(train, labels, test, settings, tolerance)


def _logistic(train, labels, test, strengths: Sequence[float], tolerance: float) -> list[np.ndarray]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    model = LogisticRegression(max_iter=_ITERATIONS, tol=tolerance, warm_start=True)
    answers = []
    for strength in strengths:  # from strong to weak regularisation, each fit starting from the one before
        # The matrices are small: more threads only wait for each other, and for torch's.
        with warnings.catch_warnings(), threadpool_limits(limits=1):
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=strength).fit(train, labels)
        answers.append(model.predict(test))
    return answers


def _nearest(train, labels, test, counts: Sequence[int]) -> list[np.ndarray]:
    """Majority label of the k nearest by cosine; a tie goes to the class with the larger summed similarity."""
    classes, codes = np.unique(labels.astype(str), return_inverse=True)
    similarity = _unit(test) @ _unit(train).T  # [tests, trains]
    order = np.argsort(-similarity, axis=1, kind="stable")
    answers = []
    for count in counts:
        near = order[:, : min(count, len(train))]  # [tests, k]
        votes = np.zeros((len(test), len(classes)))
        weight = 1.0 + 1e-6 * np.take_along_axis(similarity, near, axis=1)
        np.add.at(votes, (np.arange(len(test))[:, None], codes[near]), weight)
        answers.append(classes[votes.argmax(axis=1)].astype(object))
    return answers


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


# --- What the caller may pass ---------------------------------------------------------------------------------------


def _grid(protocol: str) -> tuple:
    if protocol not in GRIDS:
        raise InputError(f"protocol {protocol!r}: expected one of {', '.join(GRIDS)}")
    return GRIDS[protocol]


def _manifest(data):
    if isinstance(data, (str, Path)):
        from ..data.manifest import load_manifest

        return load_manifest(str(data))
    return data


def _encoder(enc):
    if isinstance(enc, (str, Path)):
        from ..encoder import load_encoder

        return load_encoder(enc)
    return enc


def _embedder(enc, pool: str) -> Embedder:
    return enc if isinstance(enc, Embedder) else encoder_embedder(_encoder(enc), pool)


def _pool_of(enc, pool: str) -> str:
    return "" if isinstance(enc, Embedder) else pool


def _named(encoders) -> dict:
    if isinstance(encoders, Mapping):
        if not encoders:
            raise InputError("compare: no encoders given")
        return dict(encoders)
    from ..encoder import Encoder

    trained = _encoder(encoders)
    return {"teacher": trained, "random init": Encoder.random(trained.config, seed=trained.config.train.seed)}


def _probe_embedded(embedded: Embeddings, name: str, manifest, protocol, pool, seeds) -> ProbeResult:
    table = manifest.table.iloc[embedded.rows].reset_index(drop=True)
    _check_still_there(manifest.table, table, embedded.skipped)
    return probe_features(embedded.features[name], table, name, protocol, pool, seeds, embedded.skipped)


def _check_still_there(before: pd.DataFrame, after: pd.DataFrame, skipped: list[tuple[str, str]]) -> None:
    """A fold, split or class whose every clip was unreadable would silently change the protocol."""
    for column in ("fold", "split", "label"):
        gone = set(before[column].dropna()) - set(after[column].dropna()) if column in before else set()
        if gone:
            raise InputError(f"{column} {sorted(gone)[0]}: none of its clips can be read, for example: {skipped[0][1]}")
