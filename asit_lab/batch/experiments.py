"""Does one point: pretrains, measures, writes the numbers to result.json.

notebooks/ablations/point.ipynb and `--no-notebook` both call it, so their results are the same.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from ..config import RunConfig, load_config, resolve
from ..data import load_manifest
from ..encoder import Encoder, load_encoder
from ..errors import InputError
from ..evaluation import reconstruction_errors
from ..evaluation.probing import compare_results
from ..evaluation.splits import manifest_splits
from ..finetuning import check_task, finetune, load_recipe
from ..runs.directory import Run
from ..storage.atomic import UNPRINTABLE, atomic_write
from ..training.pretrain import pretrain

PARAMETERS = ("preset", "data", "evaluate", "recipe", "overrides", "seed", "out")
PROBED, FINETUNED = "predictions.csv", "finetuned.csv"  # predictions of the probe, and of the fine-tuned encoder


def experiment(
    preset: str,
    data: str,
    overrides: list[str] | str,
    seed: int,
    out: str | Path,
    evaluate: str = "",
    recipe: str = "",
    on_log: Callable[[Run, dict], None] | None = None,
) -> Run:
    """Pretrain into the run directory `out` and measure the encoder; a run already in `out` is resumed.

    evaluate: labelled data set to measure on; empty: the one it was pretrained on (not probed if that has no labels).
    recipe: fine-tune by this recipe as well, in `out`/finetuned; empty: only the probe.
    result.json gets `reconstruction` (errors on recordings held out, and baselines), `probe` (linear: the teacher,
    the same architecture untrained, statistics of the log-mel) and `finetune`; predictions.csv and finetuned.csv
    have the prediction for each clip, where a clip has one label.
    Raises what `pretrain` and `finetune` raise, and before any training for labels that cannot be measured on;
    KeyboardInterrupt for an interrupt, RuntimeError for a run that was stopped because it collapsed.
    """
    check_packages()
    cfg = load_config(preset, overrides).with_overrides({"data.source": data, "train.seed": seed})
    if not (resolve(out) / "result.json").is_file():
        _check_labels(evaluate or data, bool(evaluate), recipe)
    run = pretrain(cfg, out, on_log=on_log)
    if run.status == "interrupted":
        raise KeyboardInterrupt
    if run.status != "finished":
        raise RuntimeError(f"{run.dir}: {run.progress.get('reason', run.status)}")
    if "probe" not in run.result:
        _measure(run, run.config, evaluate)  # its own, where features.mean and features.std are measured
    if recipe:
        _finetune(run, evaluate or data, recipe, seed)
    return run


def check_packages() -> None:
    """Raises InputError where the probe could not be done, before the hours of training that come first."""
    if find_spec("sklearn") is None:
        raise InputError("scikit-learn is not installed, and every point ends with a probe: pip install scikit-learn")


def _check_labels(data: str, required: bool, recipe: str) -> None:
    """Raises InputError for labels that could not be measured on, before the hours of training that come first."""
    manifest = load_manifest(data)
    if required or recipe or len(manifest.classes) > 1:
        manifest_splits(manifest)
    if recipe:
        check_task(manifest, load_recipe(recipe))


def _measure(run: Run, cfg: RunConfig, evaluate: str) -> None:
    """Add reconstruction errors and probe scores to result.json, in one write."""
    encoder = load_encoder(run.dir)
    manifest = load_manifest(cfg.data.source, segment_seconds=cfg.data.segment_seconds)
    train, held_out = manifest.holdout(cfg.data.holdout)
    errors = None
    if encoder.reconstructs and len(held_out):
        errors = reconstruction_errors(encoder, train, held_out, seed=cfg.train.seed).to_dict("records")
    labelled = load_manifest(evaluate) if evaluate else manifest
    probes = None
    if evaluate or len(labelled.classes) > 1:
        untrained = Encoder.random(cfg, cfg.train.seed)
        results = compare_results({"teacher": encoder, "random init": untrained}, labelled)
        if not labelled.multi:
            _keep(run, PROBED, results[0].predictions, labelled.table)
        probes = [result.to_dict() for result in results]
    run.record(reconstruction=errors, probe=probes, evaluated_on=evaluate or cfg.data.source)


def _finetune(run: Run, data: str, recipe: str, seed: int) -> None:
    """Fine-tune the run's encoder, or resume that, and add its scores to result.json."""
    manifest = load_manifest(data)
    result = finetune(load_encoder(run.dir), manifest, recipe, out=run.dir / "finetuned", seeds=(seed,))
    if result.status != "finished":
        raise KeyboardInterrupt
    if not manifest.multi:
        _keep(run, FINETUNED, result.predictions, manifest.table)
    numbers = result.to_dict()
    columns = ("protocol", "metric", "mean", "spread", "low", "high", "folds", "clips", "chance")
    run.record(finetune={name: numbers[name] for name in columns})


def _keep(run: Run, name: str, predictions: pd.DataFrame, table: pd.DataFrame) -> None:
    """Write split, path, group, label, predicted of every tested clip."""
    groups = table.drop_duplicates("path").set_index("path")["group"]
    answers = predictions[["split", "path", "label", "predicted"]].copy()
    answers.insert(2, "group", answers["path"].map(groups))
    with atomic_write(run.dir / name) as temporary:
        answers.to_csv(temporary, index=False, errors=UNPRINTABLE)
