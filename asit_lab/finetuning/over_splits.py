"""Fine-tuning over the splits of a data set: one folder each, in one folder that belongs to one encoder and recipe."""

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml
from torch import nn
from tqdm import tqdm

from ..config import flatten, resolve
from ..data.manifest import Manifest, load_manifest
from ..encoder import Encoder
from ..errors import InputError
from ..evaluation import leakage as guard
from ..evaluation.splits import Split, gaps, splits
from ..storage.atomic import FULL, clear_leftovers, write_json, write_text
from ..storage.lock import only_writer
from ..training.interrupt import Signals, Terminated
from ..zoo import open_source
from .batches import targets_of
from .loop import Job, fit
from .recipe import NO_EFFECT, Recipe, load_recipe
from .result import SETUP, FinetuneResult, collect


class Point(NamedTuple):
    """A split to fine-tune on, with a seed."""

    folder: str
    name: str
    seed: int
    fold: str
    split: Split


def finetune(
    enc: Encoder | str | Path,
    data: Manifest | str,
    recipe: str | Path | Recipe = "ast-esc50",
    out: str | Path = "runs/ft",
    overrides: list[str] | str | None = None,
    seeds: Sequence[int] = (0,),
    folds: Sequence[int | str] | None = None,
    resume: str = "auto",
) -> FinetuneResult:
    """Train an encoder with a head on a labelled data set, split by split, and test it.

    enc: an Encoder (`Encoder.random` for one from scratch), or what `zoo.open_source` takes: a run directory, a
    snapshot, a preset, which is then untrained. data: a Manifest, or a data source such as "esc50:PATH". recipe: a name
    (see `recipe_names`), a YAML file or a Recipe; overrides: such as "rate=1e-4". seeds: of everything random; each
    goes through all splits.
    folds: some splits only, by number or name. resume: "auto" continues what is in `out`, "never" wants a new folder,
    "must" an existing one.
    One process on the best device. Splits that are finished stay as they are; one that was stopped, however it was,
    goes on from its last state and ends as if nothing had happened: to the bit with the same device, threads, versions.
    Ctrl-C finishes the step under way, saves, and returns what is finished (status "interrupted"); SIGTERM does the
    same and ends the process.
    Raises InputError for labels that do not fit the recipe, all that `protocols.splits` refuses, weights that do not
    fit the encoder's configuration, a folder of another encoder, recipe or data, one that another process writes to,
    and a full disk; FloatingPointError when the loss is not finite; SystemExit with status 143 after SIGTERM.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise InputError("fine-tuning runs in one process; start it without torchrun")
    if resume not in ("auto", "never", "must"):
        raise InputError(f"resume: {resume!r} is not one of auto, never, must")
    recipe = load_recipe(recipe, overrides)
    encoder = enc if isinstance(enc, Encoder) else open_source(enc)
    manifest = load_manifest(str(data) if isinstance(data, Path) else data)
    check_task(manifest, recipe)
    points = _points(manifest, seeds, folds)
    folder = _open(resolve(out), _setup(encoder, recipe, manifest), resume)
    names = {point.folder: point.name for point in points}
    found = [point.split for point in points]
    heard = encoder.config if encoder.pretrained else None
    findings = [vars(one) for one in guard.findings(manifest, found, heard)]
    notes = [*manifest.notes, *gaps(manifest.table, found, manifest.multi)]
    for text in [*(f"{one['severity']}: {one['message']}" for one in findings), *(f"note: {note}" for note in notes)]:
        tqdm.write(text, file=sys.stderr)
    with only_writer(folder):
        clear_leftovers(folder)
        missing = [point for point in points if not (folder / point.folder / "result.json").is_file()]
        stopped = _fit_all(encoder, recipe, manifest, missing, folder) if missing else None
        result = collect(folder, names, findings=findings, notes=notes)
        if stopped and len(result.points) < len(points):
            result.status = stopped
        write_json(folder / "result.json", result.to_dict())
    if stopped == "terminated":
        raise Terminated
    return result


def _fit_all(encoder: Encoder, recipe: Recipe, manifest: Manifest, points: list[Point], folder: Path) -> str | None:
    """Fine-tune on each split in turn. Returns why that was stopped, if it was."""
    targets = targets_of(manifest)
    with Signals() as signals:
        try:
            for point in points:
                inner = folder / point.folder
                fit(Job(encoder, recipe, manifest, targets, point.split, point.seed, inner), signals)
                if signals.requested:
                    return signals.requested
        except KeyboardInterrupt:
            return "interrupted"
        except Terminated:
            return "terminated"
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise InputError(
                f"{error.filename or folder}: cannot be written: {error.strerror}. What was written before is intact: "
                "once there is room, the same call goes on from there"
            ) from None
    return None


def check_task(manifest: Manifest, recipe: Recipe) -> None:
    """Raises InputError where the labels of a data set do not fit a recipe: several a clip, or one."""
    if manifest.multi and recipe.task == "single":
        raise InputError(
            f"{manifest.source}: its clips may have several labels, but recipe {recipe.name} is for one class a clip "
            "(task=single); use a recipe such as ast-audioset-20k, or task=multi with loss=bce"
        )
    if not manifest.multi and recipe.task == "multi":
        raise InputError(
            f"{manifest.source}: its clips have one label each, but recipe {recipe.name} is for several (task=multi); "
            "use a recipe such as ast-esc50, or task=single"
        )


def _points(manifest: Manifest, seeds: Sequence[int], folds: Sequence[int | str] | None) -> list[Point]:
    """Everything to fine-tune on."""
    if isinstance(seeds, int) or not seeds:
        raise InputError(f"seeds: {seeds}; expected some, such as (0,) or (0, 1, 2)")
    folds = (folds,) if isinstance(folds, int | str) else folds
    points = []
    for seed in seeds:
        for split in splits(manifest.table, (seed,), multi=manifest.multi):
            fold = split.name.removeprefix(f"seed {seed} ")  # folds that are drawn have it in their names
            name = fold if len(seeds) == 1 else f"seed {seed} {fold}"
            points.append(Point(f"seed-{seed}-{fold.replace(' ', '-')}", name, seed, fold, split))
    known = list(dict.fromkeys(point.fold for point in points))
    wanted = known if folds is None else [str(one) if str(one) in known else f"fold {one}" for one in folds]
    wrong = [fold for fold in wanted if fold not in known]
    if wrong or not wanted:
        raise InputError(f"folds: {', '.join(wrong) or 'none'}: {manifest.source} has {', '.join(known)}")
    return [point for point in points if point.fold in wanted]


# --- The folder -----------------------------------------------------------------------------------------------------


def _setup(encoder: Encoder, recipe: Recipe, manifest: Manifest) -> dict:
    """What a folder's results depend on besides splits and seeds, as setup.yaml has it."""
    start = encoder.student if recipe.backbone == "student" else encoder.backbone
    table = manifest.table[["label", "fold", "split", "seconds"]].assign(file=manifest.table["path"].map(_stem))
    rows = pd.util.hash_pandas_object(table.astype(str), index=False).to_numpy().tobytes()
    return {
        "recipe": recipe.to_dict(),
        "encoder": {"name": encoder.name, "weights": _digest(start), "features": encoder.config.features.model_dump()},
        "data": {
            "source": manifest.source,
            "clips": len(manifest),
            "table": hashlib.sha256(rows).hexdigest()[:16],
            "classes": manifest.classes,
        },
    }


def _stem(path: str) -> str:
    return Path(path).stem


def _digest(module: nn.Module | None) -> str:
    """A short hash of a module's weights; that of nothing where there is none."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()) if module else ():
        found.update(name.encode())
        found.update(tensor.detach().cpu().float().numpy().tobytes())
    return found.hexdigest()[:16]


def _open(folder: Path, setup: dict, resume: str) -> Path:
    """Make the folder or come back to it. Raises InputError where it is of another encoder, recipe or data set."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file is in the way of the folder")
    path = folder / SETUP
    if resume == "must" and not path.is_file():
        raise InputError(f"{folder}: there is no fine-tuning to resume")
    if resume == "never" and path.is_file():
        raise InputError(f"{folder}: already holds a fine-tuning; choose another folder or resume='auto'")
    if (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: holds a pretraining run; choose another folder")
    if not path.is_file():
        try:
            write_text(path, yaml.safe_dump(setup, sort_keys=False, allow_unicode=True))
        except OSError as error:
            raise InputError(f"{folder}: cannot be made: {error.strerror or error}") from None
        return folder
    free = {"encoder.name", "data.source", *(f"recipe.{name}" for name in NO_EFFECT)}
    there, here = (flatten(one) for one in (yaml.safe_load(path.read_text(encoding="utf-8")), setup))
    keys = [key for key in dict.fromkeys([*there, *here]) if key not in free and there.get(key) != here.get(key)]
    if keys:
        lines = [f"  {key}: {_short(there.get(key))} there, {_short(here.get(key))} asked for" for key in keys]
        raise InputError(
            f"{folder}: holds a fine-tuning of another set-up; choose another folder or the same\n" + "\n".join(lines)
        )
    return folder


def _short(value) -> str:
    return str(value) if len(str(value)) < 80 else f"{str(value)[:77]}..."
