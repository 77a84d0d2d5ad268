"""Evaluates several encoders on one data set under several protocols, into one folder with one table.

Every encoder is compared with its untrained architecture and with statistics of the log-mel: a score means little
without such baselines.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from ..config import resolve
from ..data.manifest import DataSource, Manifest, load_manifest
from ..embedding.dataset import LOG_MEL, on_device
from ..encoder import Encoder
from ..errors import InputError
from ..finetuning import FinetuneResult, finetune, load_recipe
from ..finetuning.recipe import AUTO
from ..finetuning.result import SETUP
from ..storage.atomic import read_json, write_json, write_text
from ..storage.progress import passing_bar_style
from ..zoo import open_source
from .classifiers import GRIDS
from .probe_result import ProbeResult
from .probing import compare_results
from .provenance import PROBE, changed, computed_with

FINETUNE = "finetune"
PROTOCOLS = (*GRIDS, FINETUNE)
UNTRAINED = ", untrained"
RUNNING, FINISHED = "running", "finished"
log = logging.getLogger(__name__)

_TABLES = ("table", "per_class", "predictions")


@dataclass(frozen=True)
class Evaluation:
    """Results by (encoder, protocol), in the order of the table. Those of fine-tuning know their folder."""

    dir: Path
    results: dict[tuple[str, str], ProbeResult | FinetuneResult]
    status: str = FINISHED
    """finished, running (what is written meanwhile), or interrupted or terminated (the same call resumes)"""

    @property
    def table(self) -> pd.DataFrame:
        """One row per result, in the columns of `ProbeResult.table`: scores of 0 to 1, spread over folds (and seeds),
        ends of the 95 % interval over independent units (`unit`), and notes on leaks."""
        rows = [result.table.assign(encoder=name) for (name, _), result in self.results.items()]
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame({"encoder": [], "note": []})

    @property
    def per_class(self) -> pd.DataFrame:
        """One row per result and class: encoder, protocol, and the columns of `metrics.per_class`."""
        return self._joined({key: result.per_class for key, result in self.results.items()})

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per result and tested clip: encoder, protocol, split, path, path_row, group, label, predicted."""
        return self._joined({key: result.predictions for key, result in self.results.items()})

    @staticmethod
    def _joined(tables: dict[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
        if not tables:  # stopped before the first result
            return pd.DataFrame({"encoder": [], "protocol": []})
        joined = pd.concat(tables, names=["encoder", "protocol"])
        return joined.droplevel(-1).reset_index()


def evaluate(
    encoders: Mapping[str, Encoder | str | Path] | Encoder,
    data: DataSource,
    protocols: Sequence[str] | str = ("linear", "knn"),
    out: str | Path = "runs/evaluation",
    recipe: str = "micro",
    overrides: list[str] | str | None = None,
    seeds: Sequence[int] = (0,),
    untrained: bool = True,
    device: str | None = None,
    allow_leaks: bool = False,
) -> Evaluation:
    """Evaluate encoders on a labelled data set and write result.json, table.csv, per_class.csv and predictions.csv
    into `out`.

    encoders: {name: an Encoder, or what `zoo.open_source` takes}, or one Encoder. protocols: linear, knn, weighted (see
    `probe`), finetune (see `finetune`, which gets `recipe` and `overrides`). seeds: of folds that are drawn, of
    fine-tuning and of the untrained. untrained: whether each architecture is evaluated untrained too. device,
    allow_leaks: as in `probe`.
    The files are rewritten after every protocol and every fine-tuned encoder; rows of an earlier call stay until they
    are recomputed. Fine-tuning resumes where it was stopped, so the same call completes an earlier one.
    Raises InputError for an unknown protocol, two encoders that would share a folder, a folder with other results in
    it, and all that `probe` and `finetune` refuse.
    """
    encoders = {encoders.name: encoders} if isinstance(encoders, Encoder) else encoders
    protocols = (protocols,) if isinstance(protocols, str) else protocols
    unknown = [protocol for protocol in protocols if protocol not in PROTOCOLS]
    if unknown or not protocols:
        raise InputError(f"protocols: {', '.join(unknown) or 'none'}; expected some of {', '.join(PROTOCOLS)}")
    if not encoders:
        raise InputError("encoders: there are none")
    if FINETUNE in protocols and recipe != AUTO:
        load_recipe(recipe, overrides)  # so that a mistake in it is reported before the probes run
    manifest = load_manifest(data)
    opened = {name: enc if isinstance(enc, Encoder) else open_source(enc) for name, enc in encoders.items()}
    if untrained:
        opened |= _untrained(opened, seeds[0])
    opened = {name: on_device(enc, device) for name, enc in opened.items()}
    folder = resolve(out)
    check_same_evaluation(folder, opened, protocols, manifest.source)
    folders = {name: folder / FINETUNE / _file_name(name) for name in opened}
    if FINETUNE in protocols and len(set(folders.values())) < len(folders):
        raise InputError(f"encoders: {', '.join(opened)}: names must differ in letters and digits")
    files = _Files(folder, manifest)
    results: dict[tuple[str, str], ProbeResult | FinetuneResult] = {}
    bar = tqdm(total=len(protocols) * len(opened), desc="evaluating", unit="encoder", **passing_bar_style())
    for protocol in protocols:
        bar.set_postfix_str(protocol)
        if protocol != FINETUNE:
            probed = compare_results(opened, manifest, protocol, seeds=seeds, allow_leaks=allow_leaks)
            results |= {(result.name, protocol): result for result in probed}
            bar.update(len(opened))
            files.write(Evaluation(folder, results, RUNNING))
            continue
        for name, encoder in opened.items():
            tuned = finetune(encoder, manifest, recipe, folders[name], overrides, seeds, allow_leaks=allow_leaks)
            if tuned.split_results:
                results[name, protocol] = tuned
                files.write(Evaluation(folder, results, RUNNING if tuned.status == FINISHED else tuned.status))
            bar.update()
            if tuned.status != FINISHED:
                bar.close()
                return Evaluation(folder, results, tuned.status)
    bar.close()
    evaluation = Evaluation(folder, results)
    files.write(evaluation)
    return evaluation


class _Files:
    """The files of an evaluation: rows of this call, and rows of an earlier call until they are recomputed."""

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder, self.manifest = folder, manifest
        stored = read_json(folder / "result.json")
        self.earlier, self.computed_with = stored.get("results", []), computed_with(PROBE, manifest)
        if self.earlier and (differing := changed(stored.get("computed_with"), self.computed_with)):
            log.warning(
                "%s: earlier rows are by other code or of other files (%s): they are computed again",
                folder,
                ", ".join(differing),
            )
        # Texts stay what they are: a class called "None" or "NA" too.
        self.tables = {
            name: pd.read_csv(path, dtype=str, keep_default_na=False)
            for name in _TABLES
            if (path := folder / f"{name}.csv").is_file()
        }

    def write(self, evaluation: Evaluation) -> None:
        """Write result.json and the tables."""
        entries = {name_and_protocol(row := _entry(*item)): row for item in evaluation.results.items()}
        earlier_rows = [row for row in self.earlier if name_and_protocol(row) not in entries]
        for name in _TABLES:
            new, old = getattr(evaluation, name), self.tables.get(name, pd.DataFrame())
            if len(old):
                keys = zip(old["encoder"], old["protocol"].str.split().str[0], strict=True)
                new = pd.concat([new, old[[key not in entries for key in keys]]], ignore_index=True)
            write_text(self.folder / f"{name}.csv", new.to_csv(index=False))
        content = {
            "data": self.manifest.source,
            "clips": len(self.manifest),
            "status": evaluation.status,
            "computed_with": self.computed_with,
            "results": [*entries.values(), *earlier_rows],
        }
        write_json(self.folder / "result.json", content)


def name_and_protocol(row: Mapping[str, Any]) -> tuple[str, str]:
    """The key of a row of result.json; the protocol without its recipe."""
    return row["encoder"], row["protocol"].split()[0]


def _entry(key: tuple[str, str], result: ProbeResult | FinetuneResult) -> dict[str, Any]:
    return result.to_dict() | {"encoder": key[0]}


def check_same_evaluation(folder: Path, names: Iterable[str], protocols: Iterable[str], source: str) -> None:
    """Raise InputError where other files would be overwritten: a run, a fine-tuning, or results of other encoders,
    protocols or data than those requested."""
    if (folder / "config.yaml").is_file() or (folder / SETUP).is_file():
        kind = "pretraining run" if (folder / "config.yaml").is_file() else "fine-tuning"
        raise InputError(f"{folder}: holds a {kind}; choose another folder")
    try:
        earlier = read_json(folder / "result.json")
        rows = {name_and_protocol(row) for row in earlier["results"]} if earlier else set()
        earlier_source = earlier.get("data")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{folder / 'result.json'}: no result of an evaluation; choose another folder") from None
    requested = {LOG_MEL, *(name.removesuffix(UNTRAINED) for name in names)}
    lost = [row for row in rows if row[0].removesuffix(UNTRAINED) not in requested or row[1] not in set(protocols)]
    if rows and (lost or earlier_source != source):
        listed = ", ".join(sorted({f"{name} ({protocol})" for name, protocol in rows}))
        raise InputError(
            f"{folder}: holds results of {listed} on {earlier_source}; choose another folder, or "
            "request these too, on those data"
        )


def _untrained(encoders: dict[str, Encoder], seed: int) -> dict[str, Encoder]:
    """Untrained encoders, one for each architecture; none for encoders that are these already."""
    added: dict[str, Encoder] = {}
    shapes = []
    for name, encoder in encoders.items():
        shape = (encoder.config.features, encoder.config.model, encoder.config.data.crop_seconds)
        random_init = Encoder.random(encoder.config, seed)
        if shape in shapes or _same(encoder, random_init):
            shapes.append(shape)
            continue
        shapes.append(shape)
        added[f"{name}{UNTRAINED}"] = random_init
    return added


def _same(first: Encoder, second: Encoder) -> bool:
    weights = second.backbone.state_dict()
    return all(tensor.cpu().equal(weights[name]) for name, tensor in first.backbone.state_dict().items())


def _file_name(name: str) -> str:
    return re.sub(r"[\W_]+", "-", name).strip("-").lower() or "encoder"
