"""Fine-tune the shipped encoder and the same network from random weights, on labelled data sets, with three seeds.

    .venv/bin/python reports/reference/finetuned.py --runs runs/all esc10=esc10:PATH@5 words=folder:PATH
    .venv/bin/python reports/reference/finetuned.py --runs runs/ten --labels 10 esc10=esc10:PATH@5

A data set is NAME=SOURCE, which has a split "test", or NAME=SOURCE@FOLD: that fold is tested, the others train.
Beside them, once, log-mel statistics and the linear probe, settings chosen inside the training clips. With --labels
all of these are trained on so many clips a class, drawn for each seed. Writes results/finetuned/NAME[-LABELS].json;
existing results stay, and what is finished of one stays in --runs, so the same command resumes it. `make.py` then
writes README.md.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from intervals import gain_of

from asit_lab import Encoder, load_encoder
from asit_lab.data import Manifest, load_manifest
from asit_lab.evaluation.probing import compare_results
from asit_lab.finetuning import finetune
from asit_lab.storage.atomic import write_json

RESULTS = Path(__file__).parent / "results/finetuned"
RECIPE = "micro"
SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", help="NAME=SOURCE or NAME=SOURCE@FOLD")
    parser.add_argument("--runs", required=True, type=Path)
    parser.add_argument("--labels", type=int, help="clips a class to train on (default: all)")
    options = parser.parse_args()
    for name, _, source in (argument.partition("=") for argument in options.data):
        path = RESULTS / f"{name}{f'-{options.labels}' if options.labels else ''}.json"
        if path.is_file():
            continue
        result = measured(held_out(source), options.labels, options.runs / name)
        about = {"data": name, "tested": tested_of(source), "labels_per_class": options.labels}
        path.parent.mkdir(exist_ok=True)
        write_json(path, about | result)
        print(path.name, *(f"{row} {scores}" for row, scores in result["scores"].items()), sep="  ", flush=True)


def tested_of(source: str) -> str:
    fold = source.partition("@")[2]
    return f"fold {fold}" if fold else "test"


def held_out(source: str) -> Manifest:
    """The data set; with @FOLD, that fold is the split "test" and the others are "train"."""
    source, _, fold = source.partition("@")
    manifest = load_manifest(source)
    if not fold:
        return manifest
    tested = manifest.table["fold"] == int(fold)
    table = manifest.table.assign(split=np.where(tested, "test", "train"), fold=pd.NA)
    return replace(manifest, table=table)


def measured(manifest: Manifest, labels: int | None, runs: Path) -> dict:
    """Accuracy of each row for each seed, and how much more accurate fine-tuning is than training from scratch."""
    encoder = load_encoder("shipped")
    scores: dict[str, list[float]] = {"log-mel": [], "linear probe": [], "fine-tuned": [], "scratch": []}
    differences = []
    for seed in SEEDS:
        drawn = few_labels(manifest, labels, seed) if labels else manifest
        if labels or seed == SEEDS[0]:  # with all labels, these do not depend on the seed
            probe, log_mel = compare_results({"shipped": encoder}, drawn)
            scores["linear probe"].append(probe.mean)
            scores["log-mel"].append(log_mel.mean)
        right = {}
        for name, start in {"fine-tuned": encoder, "scratch": Encoder.random(encoder.config, seed)}.items():
            out = runs / f"{name}-{seed}"
            result = finetune(start, drawn, RECIPE, out, seeds=(seed,))
            if result.status != "finished":
                raise SystemExit(f"{out}: {result.status}; the same command resumes")
            scores[name].append(result.mean)
            clips = result.predictions.sort_values("path_row")
            right[name] = (clips["label"] == clips["predicted"]).to_numpy(float)
        differences.append(right["fine-tuned"] - right["scratch"])
    groups = clips["group"].to_numpy()
    return {
        "clips": len(groups),
        "unit": probe.unit,
        "scores": scores,
        "over_scratch": gain_of(np.mean(differences, axis=0), groups),
    }


def few_labels(manifest: Manifest, labels: int, seed: int) -> Manifest:
    """With `labels` training clips of each class, drawn by the seed, and all others."""
    trains = manifest.table["split"] == "train"
    drawn = manifest.table[trains].sample(frac=1, random_state=seed).groupby("label").head(labels)
    return manifest.subset((~trains | manifest.table.index.isin(drawn.index)).to_numpy())


if __name__ == "__main__":
    main()
