"""Renew this folder from a run of notebooks/pretrain.ipynb: pictures, numbers, and the rows that docs/results.md shows.

.venv/bin/python reports/gallery/make.py runs/esc10
"""

import json
import shutil
import sys
from pathlib import Path

from asit_lab import load_run

HERE = Path(__file__).parent
PICTURES = ("reconstructions", "attention", "probe")


def main() -> None:
    run = load_run(sys.argv[1])
    for name in PICTURES:
        shutil.copyfile(run.dir / "figures" / f"{name}.png", HERE / f"{name}.png")
    kept = ("name", "training_clips", "steps", "epochs", "seed", "backbone_parameters", "reconstruction")
    numbers = {name: run.result[name] for name in kept}
    numbers["probe"] = [{name: row[name] for name in ("encoder", "mean", "spread")} for row in run.result["probe"]]
    (HERE / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    print("\n".join(rows(numbers)))


def rows(numbers: dict) -> list[str]:
    """The rows of docs/results.md's table that hold numbers of the run."""
    errors = {row["method"]: row["l1_log"] for row in numbers["reconstruction"]}
    scores = {row["encoder"]: f"{100 * row['mean']:.1f} ± {100 * row['spread']:.1f} %" for row in numbers["probe"]}
    random = [score for name, score in scores.items() if name.startswith("random init")]
    (log_mel,) = (score for name, score in scores.items() if "log-mel" in name)
    parameters = f"{numbers['backbone_parameters'] / 1e6:.1f} M"
    length = f"{numbers['epochs']:.0f} epochs, minutes on two cores"
    return [
        f"| model, length | ViT-B, 85 M parameters, 40 epochs | `{numbers['name']}`, {parameters}, {length} |",
        "| error of the reconstruction (natural log, held-out recordings) | not given | "
        f"{errors['reconstruction']:.2f}; straight line in time {errors['linear interpolation in time']:.2f}; "
        f"mean of the band {errors['per-band training mean']:.2f} |",
        "| ESC | ESC-50, fine-tuned: 92.0 % | ESC-10, linear probe on frozen features: teacher "
        f"{scores['teacher']}; untrained {', '.join(random)}; mean and std of the log-mel {log_mel} |",
    ]


if __name__ == "__main__":
    main()
