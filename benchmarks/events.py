"""How many of the sounds placed in a long recording a fine-tuned classifier finds, of clips it was not trained on.

    .venv/bin/asit-lab finetune shipped --data esc10:PATH --recipe micro --fold 5 --out runs/esc10
    .venv/bin/python benchmarks/events.py runs/esc10 --data esc10:PATH --out runs/esc10-events

For each split of the folder, its test clips are joined in random order to a recording of --minutes; where they are
shorter, they follow once more in another order. A placed sound is found if events of its class cover half or more of
it; an event is right if half or more of it is in sounds of its class. Writes the recording, the figure, the Audacity
labels and the other files of `asit-lab predict --events` for each split.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from asit_lab.data.manifest import Manifest, load_manifest
from asit_lab.finetuning import covered, join_clips, load_classifier, load_result, write_timeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="of a fine-tuning")
    parser.add_argument("--data", required=True, help="the data set it was fine-tuned on")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--window", type=float, help="s; default: what the classifier was made for")
    parser.add_argument("--hop", type=float, help="s; default: a quarter of a window")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.5])
    options = parser.parse_args()
    manifest, result = load_manifest(options.data), load_result(options.folder)
    print("| split | clips | minutes | threshold | placed | found | covered | events | right |")
    print("|---|---|---|---|---|---|---|---|---|")
    for split_result in result.split_results:
        classifier = load_classifier(options.folder, split_result["name"])
        folder = options.out / Path(split_result["folder"]).name
        rows = shuffled(manifest, result.outputs(split_result).rows, options.minutes, options.seed)
        placed = join_clips(manifest, rows, folder / "recording.wav", classifier.sample_rate)
        timeline = classifier.timeline(folder / "recording.wav", None, options.window, options.hop)
        for threshold in options.thresholds:
            events = timeline.events(threshold)
            start = f"| {split_result['name']} | {len(set(rows))} | {timeline.seconds / 60:.1f} | {threshold:g} "
            print(start + f"| {' | '.join(scores(events, placed))} |", flush=True)
        events = timeline.events(options.thresholds[0])
        write_timeline(timeline, events, folder / "recording")
        placed.to_csv(folder / "placed.csv", index=False)


def shuffled(manifest: Manifest, rows: np.ndarray, minutes: float, seed: int) -> list[int]:
    """Rows in random order, again and again, until they fill the time."""
    generator, seconds = np.random.default_rng(seed), manifest.table["seconds"].to_numpy()
    order: list[int] = []
    while seconds[order].sum() < 60 * minutes:
        order += generator.permutation(rows).tolist()
    filled = int(np.searchsorted(np.cumsum(seconds[order]), 60 * minutes)) + 1
    return order[:filled]


def scores(events: pd.DataFrame, placed: pd.DataFrame) -> list[str]:
    """Placed sounds, those found, the share of their time that is covered, events, and those that are right."""
    shares, lengths = covered(events, placed), placed["end"] - placed["start"]
    right = covered(placed, events) >= 0.5 if len(events) else np.zeros(1)
    time = 100 * np.average(shares, weights=lengths)
    found, correct = 100 * np.mean(shares >= 0.5), 100 * np.mean(right)
    return [f"{len(placed)}", f"{found:.1f} %", f"{time:.1f} %", f"{len(events)}", f"{correct:.1f} %"]


if __name__ == "__main__":
    main()
