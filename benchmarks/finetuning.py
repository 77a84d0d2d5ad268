"""Fine-tuning beside a linear probe and training from scratch, over several data sets and seeds, as a Markdown table.

    .venv/bin/python benchmarks/finetuning.py --runs runs/table esc10=esc10:PATH emotions=folder:PATH@6
    .venv/bin/python benchmarks/finetuning.py --runs runs/few --labels 10 esc10=esc10:PATH@5 emotions=folder:PATH@6

A data set is NAME=SOURCE, or NAME=SOURCE@FOLD where one fold is tested and the others are trained on; without one, all
folds or the split "test". Data sets go in the order given, seed by seed. What is finished stays in the folder of
--runs, so the same command resumes; --print prints what there is. The table has accuracy in % (mean and standard
deviation over seeds); "scratch" is the same recipe from random weights; log-mel and probe are fitted once, settings
chosen inside the training clips. With --labels all of these are trained on so many clips a class, drawn for each seed.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from asit_lab import Encoder, zoo
from asit_lab.data.manifest import Manifest, load_manifest
from asit_lab.evaluation import compare
from asit_lab.finetuning import finetune
from asit_lab.storage.atomic import read_json, write_json

COLUMNS = ("log-mel", "probe", "fine-tuned", "scratch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", help="NAME=SOURCE or NAME=SOURCE@FOLD")
    parser.add_argument("--runs", required=True, type=Path)
    parser.add_argument("--encoder", default="shipped")
    parser.add_argument("--recipe", default="micro")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--labels", type=int, help="clips a class to train on (default: all)")
    parser.add_argument("--print", action="store_true", help="print the table of what is finished")
    options = parser.parse_args()
    sources = dict(entry.split("=", 1) for entry in options.data)
    if not options.print:
        encoder = zoo.open_source(options.encoder)
        for name, source in sources.items():
            manifest, folder = held_out(source), options.runs / name
            for seed in options.seeds:
                drawn = few_labels(manifest, options.labels, seed) if options.labels else manifest
                probed(encoder, drawn, folder / (f"probe-{seed}.json" if options.labels else "probe.json"))
                tuned(encoder, drawn, folder, options.recipe, seed)
                print_table(sources, options.runs, options.seeds)
    print_table(sources, options.runs, options.seeds)


def held_out(source: str) -> Manifest:
    """The data set; with @FOLD, that fold is the split "test" and the others are "train"."""
    source, _, fold = source.partition("@")
    manifest = load_manifest(source)
    if not fold:
        return manifest
    tested = manifest.table["fold"] == int(fold)
    table = manifest.table.assign(split=np.where(tested, "test", "train"), fold=pd.NA)
    return replace(manifest, table=table)


def few_labels(manifest: Manifest, labels: int, seed: int) -> Manifest:
    """With `labels` training clips of each class, drawn by the seed, and all others."""
    trains = manifest.table["split"] == "train"
    drawn = manifest.table[trains].sample(frac=1, random_state=seed).groupby("label").head(labels)
    return manifest.subset((~trains | manifest.table.index.isin(drawn.index)).to_numpy())


def probed(encoder: Encoder, manifest: Manifest, path: Path) -> None:
    """Scores of a linear probe of the encoder and of the log-mel's statistics, once."""
    if not path.is_file():
        table = compare({"probe": encoder}, manifest)
        scores = dict(zip(table["encoder"], table["mean"], strict=True))
        folds = int(table["folds"].iloc[0])
        about = {"clips": int(table["clips"].iloc[0]), "splits": f"{folds} folds" if folds > 1 else "test"}
        write_json(path, about | scores)


def tuned(encoder: Encoder, manifest: Manifest, folder: Path, recipe: str, seed: int) -> None:
    """Fine-tuning from the encoder and from random weights with one seed."""
    starts = {"fine-tuned": encoder, "scratch": Encoder.random(encoder.config, seed)}
    for name, start in starts.items():
        out = folder / f"{name}-{seed}"
        result = finetune(start, manifest, recipe, out, seeds=(seed,))
        if result.status != "finished":
            raise SystemExit(f"{out}: {result.status}; the same command resumes")


def print_table(sources: dict[str, str], runs: Path, seeds: list[int]) -> None:
    """A row for each data set; - where nothing is finished."""
    print(f"\n| data set | tested on | clips | {' | '.join(COLUMNS)} |\n|---|---|---|{'---|' * len(COLUMNS)}")
    for name, source in sources.items():
        folder, fold = runs / name, source.partition("@")[2]
        probes = [read_json(path) for path in sorted(folder.glob("probe*.json"))]
        endings = ("log-mel", "probe")  # the log-mel's row begins with its pooling
        cells = [percent([next(p[key] for key in p if key.endswith(end)) for p in probes]) for end in endings]
        probe = probes[0] if probes else {}
        cells += [percent([score(folder / f"{start}-{seed}") for seed in seeds]) for start in COLUMNS[2:]]
        tested = f"fold {fold}" if fold else probe.get("splits", "-")
        print(f"| {name} | {tested} | {probe.get('clips', '-')} | {' | '.join(cells)} |", flush=True)


def score(folder: Path) -> float | None:
    """Mean score of a finished fine-tuning; None where it is not finished."""
    result = json.loads((folder / "result.json").read_text()) if (folder / "result.json").is_file() else {}
    return result["mean"] if result.get("status") == "finished" else None


def percent(scores: list[float | None]) -> str:
    """Mean and standard deviation over those that are there, with their number where it is more than one."""
    finished = [100 * value for value in scores if value is not None]
    if not finished:
        return "-"
    if len(finished) == 1:
        return f"{finished[0]:.1f}" + (f" (1 of {len(scores)})" if len(scores) > 1 else "")
    count = "" if len(finished) == len(scores) else f" ({len(finished)} of {len(scores)})"
    return f"{np.mean(finished):.1f} ± {np.std(finished, ddof=1):.1f}{count}"


if __name__ == "__main__":
    main()
