"""Measure how much attention falls on digital silence, by clips of a labelled data set that has some.

.venv/bin/python reports/reference/silence.py --data esc50:PATH --asda runs/asda

Writes results/silence.json: of the shipped encoder (softmax), of an ASDA run (difference of two softmaxes), and of each
network untrained; `make.py` then writes README.md. Share: of all attention of sounding patches, mean over layers, heads
and queries, what falls on silent patches, over what even attention would give them; 1 is even.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from intervals import mean_and_interval

from asit_lab import Encoder, load_encoder
from asit_lab.data import Manifest, load_manifest
from asit_lab.evaluation import attention_statistics
from asit_lab.storage.atomic import write_json

CLIPS = 100
SILENT = (0.1, 0.9)  # share of a clip that is digital silence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--asda", required=True, help="run of ASDA")
    options = parser.parse_args()
    trained = {"shipped": load_encoder("shipped"), "ASDA": load_encoder(options.asda)}
    encoders = trained | {f"{name}, untrained": Encoder.random(enc.config, seed=0) for name, enc in trained.items()}
    manifest = load_manifest(options.data)
    rate = trained["shipped"].config.features.sample_rate
    measured = pd.DataFrame(measurements(encoders, manifest, rate))
    recordings = measured.pop("recording").to_numpy()
    shares = {name: share_of(measured[name].to_numpy(), recordings) for name in measured}
    about = {"clips": len(measured), "recordings": len(set(recordings))}
    write_json(Path(__file__).parent / "results/silence.json", about | {"shares": shares})
    print(*shares.items(), sep="\n")


def measurements(encoders: dict[str, Encoder], manifest: Manifest, rate: int) -> Iterator[dict]:
    """For each of the first clips with silence: its recording, and the share of each encoder."""
    clips = (manifest.read(row, rate) for row in range(len(manifest)))
    silent = ((row, wave) for row, wave in enumerate(clips) if SILENT[0] <= (wave == 0).mean() <= SILENT[1])
    for row, wave in islice(silent, CLIPS):
        shares = {name: share_on_silence(encoder, wave, rate) for name, encoder in encoders.items()}
        yield {"recording": manifest.table["group"].iloc[row], **shares}


def share_on_silence(encoder: Encoder, wave: np.ndarray, rate: int) -> float:
    """Over even attention, mean of all layers."""
    found = attention_statistics(encoder, wave, rate)
    found = found[(found["kind"] == "map") & (found["query"] == "sounding patches")]
    return float((found["share_on_silent"] / found["even_share"]).mean())


def share_of(values: np.ndarray, recordings: np.ndarray) -> dict[str, float]:
    """Mean over clips with its 95 % interval over recordings."""
    return dict(zip(("share", "low", "high"), mean_and_interval(values, recordings), strict=True))


if __name__ == "__main__":
    main()
