"""Write a corpus as a list in which rare kinds of sound come more often: the second stage of the shipped encoder.

.venv/bin/python reports/shipped/balance.py data/corpus/list.csv data/corpus/balanced.csv

Most clips of `asit-lab data corpus` are short pieces of speech. Here effects and instruments come five times each,
music twice. No two rows of a list may be the same, so each copy of a clip starts 2 ms after the one before.
"""

import sys
from pathlib import Path

import pandas as pd

from asit_lab.data import load_manifest

COPIES = {"speech": 1, "music": 2, "effects": 5, "instruments": 5}
APART = 0.002  # seconds


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    clips = pd.read_csv(source).assign(seconds=load_manifest(f"folder:{source}").table["seconds"])
    others = sorted(set(clips["label"]) - set(COPIES))
    if others:
        raise SystemExit(f"{source}: kinds are {', '.join(COPIES)}; these are others: {', '.join(map(str, others))}")
    rows = clips.loc[clips.index.repeat(clips["label"].map(COPIES))]
    rows["start"] = APART * rows.groupby(level=0).cumcount()
    rows["seconds"] -= rows["start"]
    rows.to_csv(target, index=False)
    print(f"{target}: {len(rows):,} rows,", rows["label"].value_counts(normalize=True).round(3).to_dict())


if __name__ == "__main__":
    main()
