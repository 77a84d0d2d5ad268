"""What `micro` learns, over three seeds: pretrain, probe beside the same architecture untrained, and print the table.

.venv/bin/python reports/gallery/seeds.py esc10:PATH runs/seeds

A run that is there already is used, one that was stopped goes on. Three seeds take some forty minutes on two cores.
Two readings: layer and pooling chosen inside the training folds, and the mean of the last layer's patches, which is
what the global loss trains.
"""

import json
import statistics
import sys
from pathlib import Path

from asit_lab import Encoder, load_config, load_encoder, pretrain
from asit_lab.config import resolve
from asit_lab.data import load_manifest
from asit_lab.evaluation import compare, reconstruction_errors

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
READINGS = {"chosen": {}, "mean": {"layer": "last", "pool": "mean"}}
COLUMNS = {
    "teacher": ("chosen", "teacher"),
    "untrained": ("chosen", "untrained"),
    "teacher, mean of patches": ("mean", "teacher"),
    "untrained, mean of patches": ("mean", "untrained"),
}


def main() -> None:
    data, folder = sys.argv[1], resolve(sys.argv[2])
    manifest = load_manifest(data)
    encoders, seeds = {}, []
    for seed in SEEDS:
        cfg = load_config("micro", [f"data.source={data}", f"train.seed={seed}"])
        run = pretrain(cfg, folder / f"seed-{seed}")
        if run.status != "finished":
            sys.exit(f"{run.dir}: {run.status}; the same command goes on")
        encoders[f"teacher {seed}"], encoders[f"untrained {seed}"] = load_encoder(run.dir), Encoder.random(cfg, seed)
        errors = reconstruction_errors(encoders[f"teacher {seed}"], *manifest.holdout(cfg.data.holdout), seed=seed)
        row = {"seed": seed, "collapsed": run.progress.get("health")}
        seeds.append(row | {"l1_log": dict(zip(errors["method"], errors["l1_log"], strict=True))})
    log_mel = None
    for reading, how in READINGS.items():
        table = compare(encoders, manifest, **how)
        scores = dict(zip(table["encoder"], table["mean"], strict=True))
        for row in seeds:
            row[reading] = {who: scores[f"{who} {row['seed']}"] for who in ("teacher", "untrained")}
        log_mel = next(score for name, score in scores.items() if "log-mel" in name)
    numbers = {"log_mel": log_mel, "seeds": seeds}
    (HERE / "seeds.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table_of(numbers)))


def table_of(numbers: dict) -> list[str]:
    """The table of docs/results.md."""
    head = ("seed", *COLUMNS, "reconstruction", "straight line in time")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in numbers["seeds"]:
        errors = row["l1_log"]
        cells = [f"{row['seed']}"]
        cells += [f"{100 * row[reading][who]:.1f} %" for reading, who in COLUMNS.values()]
        cells += [f"{errors[name]:.2f}" for name in ("reconstruction", "linear interpolation in time")]
        lines.append(f"| {' | '.join(cells)} |")
    means = [_mean([100 * row[reading][who] for row in numbers["seeds"]]) for reading, who in COLUMNS.values()]
    lines.append(f"| mean ± deviation | {' | '.join(means)} | | |")
    return lines


def _mean(scores: list[float]) -> str:
    return f"{statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f} %"


if __name__ == "__main__":
    main()
