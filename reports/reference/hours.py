"""Pretrain `micro-asda` for the same steps on 1, 3 and 10 hours and on all of a corpus: how much audio they can use.

    .venv/bin/python reports/reference/hours.py --corpus data/corpus/list.csv --data esc50:PATH --runs runs/hours

Source recordings are drawn at random (seed 0) within each kind, so every part has the kinds in the corpus's shares, and
the shorter parts are parts of the longer ones. Each run is probed: linear, layer, pooling and strength chosen inside
the training folds. What is finished stays in --runs, so the same command resumes it, and with --only two processes
share the work; the one that finds all of them finished writes results/hours.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from intervals import gain_of

import asit_lab
from asit_lab.data import load_manifest
from asit_lab.evaluation import probe
from asit_lab.storage.atomic import atomic_write, write_json

RESULT = Path(__file__).parent / "results/hours.json"
HOURS = {"1 hour": 1.0, "3 hours": 3.0, "10 hours": 10.0, "all": None}
STEPS = 600
SETTINGS = ["features.mean=-5.6", "features.std=5.2", "data.holdout=0.02", "data.trim=false", f"train.steps={STEPS}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", required=True, type=Path, help="list of `asit-lab data corpus`")
    parser.add_argument("--data", required=True, help="a labelled data set to probe on")
    parser.add_argument("--runs", required=True, type=Path)
    parser.add_argument("--only", nargs="+", default=list(HOURS), choices=list(HOURS))
    options = parser.parse_args()
    clips, manifest = pd.read_csv(options.corpus), load_manifest(f"folder:{options.corpus}")
    seconds = manifest.table["seconds"]
    places, probed = place_of(clips, seconds), {name: options.runs / f"{name}.csv" for name in HOURS}
    for name in options.only:
        if probed[name].is_file():
            continue
        hours = HOURS[name]
        part = manifest if hours is None else manifest.subset(np.flatnonzero(places * seconds.sum() <= 3600 * hours))
        print(f"{name}: {len(part):,} clips, {part.table['seconds'].sum() / 3600:.2f} hours", flush=True)
        run = asit_lab.pretrain(asit_lab.load_config("micro-asda", SETTINGS), options.runs / name, data=part)
        result = probe(asit_lab.load_encoder(run.dir), options.data)
        print(f"{name}: {100 * result.mean:.1f}", flush=True)
        right = result.predictions["label"] == result.predictions["predicted"]
        table = result.predictions[["path", "group"]].assign(
            right=right, hours=part.table["seconds"].sum() / 3600, unit=result.unit
        )
        with atomic_write(probed[name]) as temporary:
            table.to_csv(temporary, index=False)
    if all(file.is_file() for file in probed.values()):
        tables = {name: pd.read_csv(file).sort_values("path", ignore_index=True) for name, file in probed.items()}
        write_json(RESULT, [row_of(name, table, tables["all"]) for name, table in tables.items()])
        print(json.dumps(json.loads(RESULT.read_text(encoding="utf-8")), indent=1))


def place_of(clips: pd.DataFrame, seconds: pd.Series) -> pd.Series:
    """Where each clip stands in a random order of its kind's source recordings: the share of the kind's seconds up to
    the end of its recording, in (0, 1]."""
    random = np.random.default_rng(0)
    places = pd.Series(0.0, index=clips.index)
    for _, rows in clips.groupby("label"):
        total = seconds[rows.index].groupby(rows["group"]).sum()
        ends = total.iloc[random.permutation(len(total))].cumsum() / total.sum()
        places[rows.index] = rows["group"].map(ends).to_numpy()
    return places


def row_of(name: str, table: pd.DataFrame, whole: pd.DataFrame) -> dict:
    """Accuracy after training on a part, and how much higher it is than after training on all, on the same clips."""
    difference = table["right"].astype(float) - whole["right"]
    gain = {} if name == "all" else gain_of(difference.to_numpy(), table["group"].to_numpy())
    about = {"audio": name, "hours": float(table["hours"].iloc[0]), "steps": STEPS, "clips": len(table)}
    return about | {"unit": table["unit"].iloc[0], "probe": float(table["right"].mean())} | gain


if __name__ == "__main__":
    main()
