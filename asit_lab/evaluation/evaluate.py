"""What several encoders are worth on one data set, under several protocols: one folder, one table.

Beside every encoder stands its architecture untrained, and beside those the statistics of the log-mel: what a score
says shows only next to what costs nothing.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..config import resolve
from ..data.manifest import Manifest, load_manifest
from ..embedding.dataset import LOG_MEL
from ..encoder import Encoder
from ..errors import InputError
from ..storage.atomic import read_json, write_json, write_text
from ..zoo import open_source
from .classifiers import GRIDS
from .probe import compare_results
from .probe_result import ProbeResult

if TYPE_CHECKING:
    from ..finetuning import FinetuneResult  # finetuning is built on this package, so functions import it

FINETUNE = "finetune"
PROTOCOLS = (*GRIDS, FINETUNE)
UNTRAINED = ", untrained"


@dataclass(frozen=True)
class Evaluation:
    """Results by (encoder, protocol), in the order of the table. Those of fine-tuning know their folder."""

    dir: Path
    results: "dict[tuple[str, str], ProbeResult | FinetuneResult]"
    status: str = "finished"
    """finished, or interrupted (the same call goes on)"""

    @property
    def table(self) -> pd.DataFrame:
        """One row a result, in the columns of `ProbeResult.table`: scores of 0 to 1, spread over folds (and seeds), low
        and high ends of the 95 % interval over clips."""
        rows = [one.table.assign(encoder=name) for (name, _), one in self.results.items()]
        return pd.concat(rows, ignore_index=True)

    @property
    def per_class(self) -> pd.DataFrame:
        """One row a result and class: encoder, protocol, and the columns of `metrics.per_class`."""
        return self._joined({key: one.per_class for key, one in self.results.items()})

    @property
    def predictions(self) -> pd.DataFrame:
        """One row a result and tested clip: encoder, protocol, split, path, path_row, label, predicted."""
        return self._joined({key: one.predictions for key, one in self.results.items()})

    @staticmethod
    def _joined(tables: dict[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
        joined = pd.concat(tables, names=["encoder", "protocol"])
        return joined.droplevel(-1).reset_index()


def evaluate(
    encoders: Mapping[str, Encoder | str | Path] | Encoder,
    data: Manifest | str,
    protocols: Sequence[str] | str = ("linear", "knn"),
    out: str | Path = "runs/evaluation",
    recipe: str = "micro",
    overrides: list[str] | str | None = None,
    seeds: Sequence[int] = (0,),
    untrained: bool = True,
) -> Evaluation:
    """Evaluate encoders on a labelled data set and write result.json, table.csv, per_class.csv and predictions.csv
    into `out`.

    encoders: {name: an Encoder, or what `zoo.open_source` takes}, or one Encoder. protocols: linear, knn, weighted (see
    `probe`), finetune (see `finetune`, which gets `recipe` and `overrides`). seeds: of folds that are drawn, of
    fine-tuning and of the untrained. untrained: whether each architecture is evaluated untrained too.
    The files are written anew after every protocol and every fine-tuned encoder, and fine-tuning goes on where it was
    stopped, so the same call completes what an earlier one began.
    Raises InputError for an unknown protocol, two encoders that would share a folder, a folder with other results in
    it, and all that `probe` and `finetune` refuse.
    """
    encoders = {encoders.name: encoders} if isinstance(encoders, Encoder) else encoders
    from ..finetuning import finetune, load_recipe

    protocols = (protocols,) if isinstance(protocols, str) else protocols
    wrong = [one for one in protocols if one not in PROTOCOLS]
    if wrong or not protocols:
        raise InputError(f"protocols: {', '.join(wrong) or 'none'}; expected some of {', '.join(PROTOCOLS)}")
    if not encoders:
        raise InputError("encoders: there are none")
    if FINETUNE in protocols:
        load_recipe(recipe, overrides)  # a mistake in it shows before the probes
    manifest = load_manifest(str(data) if isinstance(data, Path) else data)
    named = {name: one if isinstance(one, Encoder) else open_source(one) for name, one in encoders.items()}
    if untrained:
        named |= _untrained(named, seeds[0])
    folder = resolve(out)
    check_folder(folder, named, protocols, manifest.source)
    folders = {name: folder / FINETUNE / _file_name(name) for name in named}
    if FINETUNE in protocols and len(set(folders.values())) < len(folders):
        raise InputError(f"encoders: {', '.join(named)}: names must differ in letters and digits")
    results: dict[tuple[str, str], ProbeResult | FinetuneResult] = {}
    for protocol in protocols:
        if protocol != FINETUNE:
            found = compare_results(named, manifest, protocol, seeds=seeds)
            results |= {(one.name, protocol): one for one in found}
            _write(Evaluation(folder, results), manifest)
            continue
        for name, encoder in named.items():
            tuned = finetune(encoder, manifest, recipe, folders[name], overrides, seeds)
            if tuned.points:
                results[name, protocol] = tuned
                _write(Evaluation(folder, results, tuned.status), manifest)
            if tuned.status != "finished":
                return Evaluation(folder, results, tuned.status)
    return Evaluation(folder, results)


def check_folder(folder: Path, names: Iterable[str], protocols: Iterable[str], source: str) -> None:
    """Raise InputError where files of something else would be written over: a run, a fine-tuning, or results of other
    encoders, protocols or data than are asked for."""
    from ..finetuning.result import SETUP

    if (folder / "config.yaml").is_file() or (folder / SETUP).is_file():
        what = "pretraining run" if (folder / "config.yaml").is_file() else "fine-tuning"
        raise InputError(f"{folder}: holds a {what}; choose another folder")
    try:
        there = read_json(folder / "result.json")
        rows = {(one["encoder"], one["protocol"].split()[0]) for one in there["results"]} if there else set()
        known = there.get("data")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{folder / 'result.json'}: no result of an evaluation; choose another folder") from None
    asked = {LOG_MEL, *(name.removesuffix(UNTRAINED) for name in names)}
    lost = [row for row in rows if row[0].removesuffix(UNTRAINED) not in asked or row[1] not in set(protocols)]
    if rows and (lost or known != source):
        found = ", ".join(sorted({f"{name} ({protocol})" for name, protocol in rows}))
        raise InputError(
            f"{folder}: holds results of {found} on {known}; choose another folder, or ask for these too, on those data"
        )


def _untrained(named: dict[str, Encoder], seed: int) -> dict[str, Encoder]:
    """The architecture of each encoder untrained, each architecture once; none of what is untrained already."""
    added: dict[str, Encoder] = {}
    seen = []
    for name, encoder in named.items():
        shape = (encoder.config.features, encoder.config.model, encoder.config.data.crop_seconds)
        fresh = Encoder.random(encoder.config, seed)
        if shape in seen or _same(encoder, fresh):
            seen.append(shape)
            continue
        seen.append(shape)
        added[f"{name}{UNTRAINED}"] = fresh
    return added


def _same(one: Encoder, other: Encoder) -> bool:
    theirs = other.backbone.state_dict()
    return all(tensor.equal(theirs[name]) for name, tensor in one.backbone.state_dict().items())


def _file_name(name: str) -> str:
    return re.sub(r"[\W_]+", "-", name).strip("-").lower() or "encoder"


def _write(found: Evaluation, manifest: Manifest) -> None:
    result = {
        "data": manifest.source,
        "clips": len(manifest),
        "status": found.status,
        "results": [one.to_dict() | {"encoder": name} for (name, _), one in found.results.items()],
    }
    write_json(found.dir / "result.json", result)
    for name in ("table", "per_class", "predictions"):
        write_text(found.dir / f"{name}.csv", getattr(found, name).to_csv(index=False))
