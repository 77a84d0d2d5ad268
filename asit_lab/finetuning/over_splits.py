"""Fine-tunes over the splits of a data set: one folder per encoder and recipe, with a subfolder per split."""

import hashlib
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml
from torch import nn
from tqdm import tqdm

from ..arithmetic import bf16_notes
from ..config import flatten, resolve
from ..data.manifest import DataSource, Manifest, load_manifest
from ..encoder import Encoder
from ..errors import InputError
from ..evaluation.leakage import findings
from ..evaluation.provenance import FINETUNING_CODE, changed, computed_with
from ..evaluation.splits import Split, gaps, independent_unit, is_official, manifest_splits
from ..overrides import parse_overrides
from ..storage.atomic import FULL, UNPRINTABLE, clear_leftovers, read_json, write_json, write_text
from ..storage.lock import only_writer
from ..training.interrupt import Signals, Terminated
from ..zoo import open_source
from .batches import targets_of
from .loop import fit_task
from .recipe import AUTO, KEYS_WITHOUT_EFFECT, Recipe, load_recipe, recommended_recipe
from .result import SETUP, FinetuneResult, collect_splits, write_tables
from .task import FinetuneTask
from .team import Team


class SeededSplit(NamedTuple):
    """A split to fine-tune on, with a seed."""

    folder: str
    name: str
    seed: int
    fold: str
    split: Split


def finetune(
    enc: Encoder | str | Path,
    data: DataSource,
    recipe: str | Path | Recipe = "ast-esc50",
    out: str | Path = "runs/ft",
    overrides: list[str] | str | None = None,
    seeds: Sequence[int] = (0,),
    folds: Sequence[int | str] | None = None,
    resume: str = "auto",
    allow_leaks: bool = False,
) -> FinetuneResult:
    """Train an encoder with a head on a labelled data set, split by split, and test it.

    enc: an Encoder (`Encoder.random` for one from scratch), or what `zoo.open_source` takes: a run directory, a
    snapshot, a preset, which is then untrained. data: a Manifest, or a data source such as "esc50:PATH". recipe: a name
    (see `recipe_names`), a YAML file, a Recipe, or "auto" (see `recommended_recipe`); overrides: such as "rate=1e-4".
    seeds: of everything random; each goes through all splits.
    folds: some splits only, by number or name. resume: "auto" continues what is in `out`, "never" wants a new folder,
    "must" an existing one. allow_leaks: as in `evaluation.probe`.
    On the best device; under torchrun in several processes, which share the clips of each batch. Splits that are
    finished stay as they are; one that was stopped resumes from its last state and ends as if it had not been: to the
    bit with the same device, threads, versions and number of processes. Ctrl-C finishes the current step, saves, and
    returns the splits that are finished (status "interrupted"); SIGTERM does the same and ends the process.
    Raises InputError for labels that do not fit the recipe, all that `splits.splits` refuses, weights that do not
    fit the encoder's configuration, a folder of another encoder, recipe or data, one that another process writes to,
    and a full disk; FloatingPointError when the loss is not finite; SystemExit with status 143 after SIGTERM.
    """
    if resume not in ("auto", "never", "must"):
        raise InputError(f"resume: {resume!r} is not one of auto, never, must")
    if recipe != AUTO:
        recipe = load_recipe(recipe, overrides)  # so that a mistake in it is reported before anything is opened
    encoder = enc if isinstance(enc, Encoder) else open_source(enc)
    manifest, team = load_manifest(data), Team()
    if recipe == AUTO:
        recipe = recommended(manifest, overrides)
        if team.leads:
            words = f"note: recipe {recipe.name}, for {len(manifest)} clips; --recipe chooses another"
            tqdm.write(words, file=sys.stderr)
    check_task(manifest, recipe)
    recipe = with_length(recipe, encoder, manifest)
    every = _seeded_splits(manifest, seeds, allow_leaks)
    tasks = _of_folds(every, folds, manifest)
    setup = _setup(encoder, recipe, manifest, allow_leaks)
    folder = team.from_first(lambda: _open(resolve(out), setup, resume))

    def look_at(tasks: list[SeededSplit]) -> dict[str, Any]:
        """What is to be known of their splits; this may decode every clip."""
        divisions = [task.split for task in tasks]
        trained_on = encoder.config if encoder.pretrained else None
        leaks = [vars(finding) for finding in findings(manifest, divisions, trained_on, is_official(manifest))]
        notes = [*manifest.notes, *gaps(manifest.table, divisions, manifest.multi)]
        notes += bf16_notes(recipe.precision, team.device.type)
        return {"findings": leaks, "notes": notes, "unit": independent_unit(manifest)}

    facts = look_at(tasks)
    if team.leads:
        found = [f"{finding['severity']}: {finding['message']}" for finding in facts["findings"]]
        for text in [*found, *(f"note: {note}" for note in facts["notes"])]:
            tqdm.write(text, file=sys.stderr)
    with ExitStack() as hold:
        team.from_first(lambda: _hold(folder, hold))
        missing = [task for task in tasks if not (folder / task.folder / "result.json").is_file()]
        team.wait()  # until every process has looked
        stopped = _fit_all(encoder, recipe, manifest, missing, folder, team) if missing else None
        result = collect_splits(folder, {task.folder: task.name for task in tasks}, **facts)
        if stopped and len(result.split_results) < len(tasks):
            result.status = stopped
        if team.leads:
            kept = {*read_json(folder / "result.json").get("folders", {}), *(task.folder for task in tasks)}
            listed = [task for task in every if task.folder in kept]  # with folds of earlier calls
            facts = facts if len(listed) == len(tasks) else look_at(listed)
            names = {task.folder: task.name for task in listed}
            written = collect_splits(folder, names, **facts, status=result.status)
            write_json(folder / "result.json", written.to_dict())
            if written.split_results:
                write_tables(written)
        team.wait()
    if stopped == "terminated":
        raise Terminated
    return result


def _hold(folder: Path, hold: ExitStack) -> None:
    """Lock the folder until `hold` ends, and clear what a killed process left."""
    hold.enter_context(only_writer(folder))
    if any(folder.glob("seed-*")):  # else it is new, and hidden files in it are the user's
        clear_leftovers(folder)


def _fit_all(
    encoder: Encoder, recipe: Recipe, manifest: Manifest, tasks: list[SeededSplit], folder: Path, team: Team
) -> str | None:
    """Fine-tune on each split in turn. Returns why that was stopped, if it was."""
    targets = targets_of(manifest)
    with Signals() as signals:
        try:
            for task in tasks:
                inner = folder / task.folder
                split = FinetuneTask(encoder, recipe, manifest, targets, task.split, task.seed, inner)
                if stopped := fit_task(split, signals, team) or team.stop(signals.requested):
                    return stopped
        except KeyboardInterrupt:
            return "interrupted"
        except Terminated:
            return "terminated"
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise InputError(
                f"{error.filename or folder}: cannot be written: {error.strerror}. Files written before are intact: "
                "once there is room, the same call resumes"
            ) from None
    return None


def recommended(manifest: Manifest, overrides: list[str] | str | None) -> Recipe:
    """The recipe that suits the size of a data set."""
    name, changes = recommended_recipe(len(manifest), float(manifest.table["seconds"].median()), manifest.multi)
    return load_recipe(name, changes | parse_overrides(overrides, "rate=1e-4"))


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


def with_length(recipe: Recipe, encoder: Encoder, manifest: Manifest) -> Recipe:
    """The recipe with frames=auto replaced by a number."""
    if recipe.frames != "auto":
        return recipe
    front_end = encoder.front_end
    longest = front_end.frames_of(round(manifest.table["seconds"].max() * front_end.sample_rate))
    frames = max(encoder.config.model.patch[0], min(encoder.config.input_frames, longest))
    return recipe.model_copy(update={"frames": frames})


def _seeded_splits(manifest: Manifest, seeds: Sequence[int], allow_leaks: bool) -> list[SeededSplit]:
    """Every split of the data set with every seed."""
    if isinstance(seeds, int) or not seeds:
        raise InputError(f"seeds: {seeds}; expected some, such as (0,) or (0, 1, 2)")
    tasks = []
    for seed in seeds:
        for split in manifest_splits(manifest, (seed,), allow_leaks):
            fold = split.name.removeprefix(f"seed {seed} ")  # folds that are drawn have it in their names
            name = fold if len(seeds) == 1 else f"seed {seed} {fold}"
            tasks.append(SeededSplit(f"seed-{seed}-{fold.replace(' ', '-')}", name, seed, fold, split))
    return tasks


def _of_folds(
    tasks: list[SeededSplit], folds: int | str | Sequence[int | str] | None, manifest: Manifest
) -> list[SeededSplit]:
    """Those of some folds, by number or name; None: of all."""
    folds = (folds,) if isinstance(folds, int | str) else folds
    fold_names = list(dict.fromkeys(task.fold for task in tasks))
    selected = (
        fold_names if folds is None else [str(fold) if str(fold) in fold_names else f"fold {fold}" for fold in folds]
    )
    unknown = [fold for fold in selected if fold not in fold_names]
    if unknown or not selected:
        raise InputError(f"folds: {', '.join(unknown) or 'none'}: {manifest.source} has {', '.join(fold_names)}")
    return [task for task in tasks if task.fold in selected]


# --- The folder -----------------------------------------------------------------------------------------------------


def _setup(encoder: Encoder, recipe: Recipe, manifest: Manifest, allow_leaks: bool) -> dict:
    """The settings that a folder's results depend on besides splits and seeds, as in setup.yaml."""
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
            **({"leaks_allowed": True} if allow_leaks and not is_official(manifest) else {}),
        },
        "computed_with": computed_with(FINETUNING_CODE, manifest),
    }


def _stem(path: str) -> str:
    return os.fsencode(Path(path).stem).decode("utf-8", UNPRINTABLE)


def _digest(module: nn.Module | None) -> str:
    """A short hash of a module's weights; of nothing where there is no module."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()) if module else ():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _open(folder: Path, setup: dict, resume: str) -> Path:
    """Create or reopen the folder. Raises InputError where it belongs to another encoder, recipe or data set."""
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
    free = {"encoder.name", "data.source", *(f"recipe.{name}" for name in KEYS_WITHOUT_EFFECT)}
    earlier = yaml.safe_load(path.read_text(encoding="utf-8"))
    computed_before, computed_now = earlier.pop("computed_with", None), setup.pop("computed_with")
    stored, requested = flatten(earlier), flatten(setup)
    keys = [
        key for key in dict.fromkeys([*stored, *requested]) if key not in free and stored.get(key) != requested.get(key)
    ]
    if keys:
        lines = [f"  {key}: {_short(stored.get(key))} there, {_short(requested.get(key))} requested" for key in keys]
        raise InputError(
            f"{folder}: holds a fine-tuning of another set-up; choose another folder or the same\n" + "\n".join(lines)
        )
    if differing := changed(computed_before, computed_now):
        raise InputError(
            f"{folder}: holds a fine-tuning by other code or of other files ({', '.join(differing)}); "
            "choose another folder, or remove it to start again"
        )
    return folder


def _short(value) -> str:
    return str(value) if len(str(value)) < 80 else f"{str(value)[:77]}..."
