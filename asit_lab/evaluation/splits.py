"""Divides clips into train and test: the data set's folds or splits, else grouped folds by recording.

- a `fold` column (ESC-50): leave one fold out, as its authors prescribe; every fold is the test set once;
- a `split` column (Speech Commands): train against test, settings chosen on valid where there is one;
- neither: stratified folds by source recording (`group`), drawn once for every seed.

A random split of ESC-50's clips would put pieces of one recording on both sides and inflate the score. A data set's
official folds or splits are used as published, even where they do so (four recordings of ESC-50): results are compared
with published ones, and the leakage check reports the clips beside the score. A user's own that do so are refused.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..data.labels import split as split_label
from ..data.manifest import Manifest
from ..errors import InputError
from ..random import key, permutation

DEFAULT_FOLDS = 5  # where the data set has none of its own
INNER_FOLDS = 3  # for choosing a setting inside the training clips

# Data sources whose folds or splits are their authors'; those of the others are the user's own.
OFFICIAL = (
    "esc50",
    "esc10",
    "speech_commands",
    "speech_commands_v1",
    "audioset",
    "audioset_20k",
    "audioset_2m",
    "voxceleb1",
)
# The kind of the groups of a data source; of a user's CSV it is unknown.
UNITS = {"esc50": "recording", "esc10": "recording", "speech_commands": "speaker", "speech_commands_v1": "speaker"}
UNITS |= {"audioset": "video", "audioset_20k": "video", "audioset_2m": "video", "voxceleb1": "video"}

_NOTHING = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Split:
    """One division of a data set. The arrays hold row positions of the table, int64."""

    name: str
    train: np.ndarray
    test: np.ndarray
    valid: np.ndarray = field(default_factory=lambda: _NOTHING)
    """where settings are chosen; empty: by cross-validation inside `train`"""


def is_official(manifest: Manifest) -> bool:
    """Whether folds and splits are those published by the data set's authors."""
    return manifest.source.partition(":")[0] in OFFICIAL


def independent_unit(manifest: Manifest) -> str:
    """The unit by which clips are independent: clip, recording, speaker, video or group."""
    groups = groups_of(manifest.table)
    if len(np.unique(groups)) == len(groups):
        return "clip"
    if (groups == manifest.table["path"].astype(str)).all():  # segments of long files
        return "recording"
    return UNITS.get(manifest.source.partition(":")[0], "group")


def manifest_splits(manifest: Manifest, seeds: Sequence[int] = (0,), allow_leaks: bool = False) -> list[Split]:
    """See `splits`; official folds and splits are used as published."""
    return splits(manifest.table, seeds, multi=manifest.multi, allow_leaks=allow_leaks or is_official(manifest))


def splits(
    table: pd.DataFrame,
    seeds: Sequence[int] = (0,),
    folds: int = DEFAULT_FOLDS,
    multi: bool = False,
    allow_leaks: bool = False,
) -> list[Split]:
    """The divisions a data set is evaluated on, in order.

    table: a manifest's table (columns path, label, fold, split, group). seeds, folds: for data sets with neither
    folds nor splits of their own; ignored otherwise. multi: clips may have several labels, or none. allow_leaks: take
    folds or splits as they are, also where a source recording is on both sides.
    Raises InputError for missing labels, a single class, a fold or split without clips, a class that training would
    not see (for multi-label data `gaps` reports it), and, unless allowed, a source recording on both sides, naming it.
    """
    if isinstance(seeds, int):
        raise InputError(f"seeds: {seeds} is one number; expected several, such as (0, 1, 2), or ({seeds},)")
    if folds < 2:
        raise InputError(f"folds: {folds}; expected at least 2")
    labels, groups = check_labels(table, multi), groups_of(table)
    fold, split = _column(table, "fold"), _column(table, "split")
    if fold is not None:
        divisions = _official_folds(fold)
    elif split is not None:
        divisions = _official_splits(split)
    else:
        divisions = [division for seed in seeds for division in _grouped_folds(labels, groups, seed, folds, multi)]
    for division in divisions:
        _check(division, labels, groups, table, multi, allow_leaks)
    return divisions


def with_few_labels(
    divisions: Sequence[Split], strata: np.ndarray, labels_per_class: int, seeds: Sequence[int]
) -> list[Split]:
    """The divisions with at most `labels_per_class` training clips of each class, drawn anew for every seed.

    strata: the class of every row. Settings are chosen inside these clips: a `valid` part would be more labels. Raises
    InputError below one label.
    """
    if labels_per_class < 1:
        raise InputError(f"labels_per_class: {labels_per_class}; expected at least 1")
    few = []
    for seed in seeds:
        order = permutation(key(seed, "evaluation", "few labels"), len(strata)).numpy()
        for division in divisions:
            drawn = order[np.isin(order, division.train)]
            place = pd.Series(strata[drawn]).groupby(strata[drawn]).cumcount().to_numpy()  # within its class
            train = np.sort(drawn[place < labels_per_class])
            few.append(Split(f"{division.name}, draw {seed}", train, division.test))
    return few


def check_labels(table: pd.DataFrame, multi: bool = False) -> np.ndarray:
    """The class of every row, or its several joined; InputError when one is missing (several may be none at all) or
    there are fewer than two classes."""
    missing = table["label"].isna() | (table["label"].astype(str).str.strip() == "")
    if missing.any() and not multi:
        raise InputError(
            f"{int(missing.sum())} of {len(table)} clips have no label (first: {table['path'][missing].iloc[0]}); "
            "a probe needs a class for every clip"
        )
    labels = table["label"].where(~missing, "").astype(str).to_numpy(dtype=object)
    if len(names := classes_of(labels, multi)) < 2:
        raise InputError(f"classes found: {', '.join(names) or 'none'}; a probe needs at least two")
    return labels


def strata_of(labels: np.ndarray, multi: bool) -> np.ndarray:
    """The class of every clip that folds are balanced by: where it has several, its rarest."""
    if not multi:
        return labels
    count = Counter(name for label in labels for name in split_label(label))
    names = [min(split_label(label), key=lambda name: (count[name], name), default="") for label in labels]
    return np.array(names, dtype=object)


def gaps(table: pd.DataFrame, divisions: Sequence[Split], multi: bool = False) -> list[str]:
    """Warnings about classes that are never tested, or tested without being trained."""
    labels, sentences = check_labels(table, multi), []
    tested = classes_of(np.concatenate([labels[division.test] for division in divisions]), multi)
    untested = sorted(classes_of(labels, multi) - tested)
    if untested:
        sentences.append(f"no test clip of class {_listed(untested)}: the score says nothing about it")
    for division in divisions:
        unseen = sorted(classes_of(labels[division.test], multi) - classes_of(labels[division.train], multi))
        if unseen:
            sentences.append(f"{division.name}: training has no clip of class {_listed(unseen)}, which is tested")
    return sentences


def groups_of(table: pd.DataFrame) -> np.ndarray:
    """Source recording of every row; the path where the data set names none."""
    group = table["group"] if "group" in table else pd.Series(None, index=table.index, dtype=object)
    return group.where(group.notna() & (group.astype(str) != ""), table["path"]).astype(str).to_numpy(dtype=object)


def inner_splits(labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """(fit, check) positions for choosing a setting inside training clips, no group on both sides. labels: the strata.

    Empty when the clips come from too few recordings to be divided, or no class has two.
    """
    count = min(INNER_FOLDS, len(np.unique(groups)), np.unique(labels, return_counts=True)[1].max())
    if count < 2:
        return []
    divided = _stratified_group_folds(labels, groups, count, seed, "inner")
    return [(fit, check) for fit, check in divided if len(check) and len(np.unique(labels[fit])) > 1]


def _column(table: pd.DataFrame, name: str) -> pd.Series | None:
    """The column if the data set fills it; InputError when it fills it for some clips only."""
    if name not in table or table[name].isna().all():
        return None
    empty = table[name].isna()
    if empty.any():
        raise InputError(
            f"{int(empty.sum())} of {len(table)} clips have no {name} (first: {table['path'][empty].iloc[0]}); "
            f"give every clip a {name}, or none"
        )
    return table[name].reset_index(drop=True)


def _official_folds(fold: pd.Series) -> list[Split]:
    values = sorted(fold.unique())
    if len(values) < 2:
        raise InputError(f"every clip is in fold {values[0]}; leaving one fold out needs at least two")
    empty = sorted(set(range(int(values[0]), int(values[-1]) + 1)) - set(values))
    if empty:
        raise InputError(
            f"fold {empty[0]} has no clip, though there are folds {values[0]} to {values[-1]}: its audio may be "
            "missing; otherwise number the folds without gaps"
        )
    return [Split(f"fold {value}", np.flatnonzero(fold != value), np.flatnonzero(fold == value)) for value in values]


def _official_splits(split: pd.Series) -> list[Split]:
    parts = {name: np.flatnonzero(split == name) for name in ("train", "valid", "test")}
    for name in ("train", "test"):
        if not len(parts[name]):
            raise InputError(f"no clip has split {name!r}; a probe needs train and test (valid is optional)")
    return [Split("test", **parts)]


def _grouped_folds(labels: np.ndarray, groups: np.ndarray, seed: int, folds: int, multi: bool) -> list[Split]:
    strata = strata_of(labels, multi)
    recordings = pd.Series(groups).groupby(strata).nunique()
    if multi:  # classes of one recording are tested or trained, not both: `gaps` reports them
        recordings = recordings[recordings > 1] if (recordings > 1).any() else recordings
    if recordings.min() < 2:
        raise InputError(
            f"class {recordings.idxmin()!r} comes from one source recording only, so it cannot be in training and test "
            "both; add recordings of it or leave it out"
        )
    count = min(folds, int(recordings.min()))
    divided = _stratified_group_folds(strata, groups, count, seed, "folds")
    return [Split(f"seed {seed} fold {n}", train, test) for n, (train, test) in enumerate(divided, start=1)]


def _stratified_group_folds(
    labels: np.ndarray, groups: np.ndarray, count: int, seed: int, purpose: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """scikit-learn's StratifiedGroupKFold over groups in counted random order."""
    from sklearn.model_selection import StratifiedGroupKFold

    names, codes = np.unique(groups, return_inverse=True)
    order = permutation(key(seed, "evaluation", purpose), len(names)).numpy()
    with warnings.catch_warnings():  # a class rarer than the number of folds: it is in some of them
        warnings.simplefilter("ignore", UserWarning)
        return list(StratifiedGroupKFold(count).split(labels, labels, order[codes]))


def classes_of(labels: Iterable[str], multi: bool) -> set[str]:
    """The classes in some labels."""
    return {name for label in set(labels) for name in (split_label(label) if multi else [label])}


def _check(
    split: Split, labels: np.ndarray, groups: np.ndarray, table: pd.DataFrame, multi: bool, allow_leaks: bool
) -> None:
    for name in ("train", "test"):
        if not len(getattr(split, name)):
            raise InputError(f"{split.name}: no clips to {name} on")
    paths = table["path"].to_numpy()
    sides = {"train": split.train, "valid": split.valid, "test": split.test}
    for a, b in (("train", "test"), ("train", "valid"), ("valid", "test")):
        shared = np.intersect1d(groups[sides[a]], groups[sides[b]])
        if len(shared) and not allow_leaks:
            pair = [paths[sides[side][groups[sides[side]] == shared[0]][0]] for side in (a, b)]
            raise InputError(
                f"{split.name}: source recording {shared[0]!r} is on both sides, {a} ({pair[0]}) and {b} ({pair[1]})"
                f"{f'; so are {len(shared) - 1} more' if len(shared) > 1 else ''}; keep each in one fold or split, or "
                "allow leaks (--allow-leaks), which the result then says"
            )
    trained = classes_of(labels[split.train], multi)
    for name in ("test", "valid"):
        unseen = sorted(classes_of(labels[sides[name]], multi) - trained)
        if unseen and not multi:  # else `gaps` reports it: copies of AudioSet lack clips, and classes with them
            example = f"{name} ({paths[sides[name][labels[sides[name]] == unseen[0]][0]]})"
            raise InputError(
                f"{split.name}: training has no clip of class {_listed(unseen)}, which is in {example}; "
                "every class needs clips of other recordings to train on"
            )


def _listed(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
