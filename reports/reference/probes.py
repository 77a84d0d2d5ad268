"""Probe an encoder, the same network untrained (three seeds) and log-mel statistics on labelled data sets.

.venv/bin/python reports/reference/probes.py esc10=esc10:PATH esc50=esc50:PATH words=folder:PATH emotions=folder:PATH
.venv/bin/python reports/reference/probes.py --asda runs/asda esc10=esc10:PATH ...

Writes results/NAME.PROTOCOL[-LABELS].json for each data set, of the shipped encoder, or asda.NAME....json of an ASDA
run: linear and nearest neighbours on all labels, linear on 1, 5 and 10 labels a class. Existing results stay,
so the same command resumes it; `make.py` then writes README.md.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from intervals import gain_of

from asit_lab import Encoder, __version__, load_encoder
from asit_lab.data import load_manifest
from asit_lab.evaluation.probe_result import ProbeResult
from asit_lab.evaluation.probing import compare_results
from asit_lab.storage.atomic import write_json
from asit_lab.storage.jsonable import jsonable

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
PROBES: tuple[tuple[str, int | None], ...] = (
    ("linear", None),
    ("knn", None),
    ("linear", 10),
    ("linear", 5),
    ("linear", 1),
)
KEPT = ("encoder", "layer", "pool", "mean", "low", "high", "scores", "folds", "clips", "chance", "unit", "note")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--asda", help="run to probe in place of the shipped encoder")
    parser.add_argument("sources", nargs="+", help="NAME=DATA")
    options = parser.parse_args()
    title, prefix = ("ASDA", "asda.") if options.asda else ("shipped", "")
    encoder = load_encoder(options.asda or "shipped")
    untrained = {f"untrained, seed {seed}": Encoder.random(encoder.config, seed=seed) for seed in SEEDS}
    for name, _, source in (argument.partition("=") for argument in options.sources):
        manifest = load_manifest(source)
        for protocol, labels in PROBES:
            path = RESULTS / f"{prefix}{name}.{protocol}{f'-{labels}' if labels else ''}.json"
            if path.is_file():
                continue
            seeds = SEEDS if labels else SEEDS[:1]
            compared = {title: encoder, **untrained}
            results = compare_results(compared, manifest, protocol, seeds=seeds, labels_per_class=labels)
            about = {"data": name, "protocol": protocol, "labels_per_class": labels, "asit_lab": __version__}
            rows = [{key: value for key, value in result.to_dict().items() if key in KEPT} for result in results]
            first, *others, log_mel = results
            about |= {"over_untrained": gain(first, others), "over_log_mel": gain(first, [log_mel])}
            RESULTS.mkdir(exist_ok=True)
            write_json(path, jsonable(about | {"results": rows}))
            print(path.name, *(f"{row['encoder']} {100 * row['mean']:.1f}" for row in rows), sep="  ", flush=True)


def gain(result: ProbeResult, others: Sequence[ProbeResult]) -> dict[str, float]:
    """How much more accurate a result is than the mean of others on the same clips: the difference, and the ends of its
    95 % interval by paired bootstrap over independent units (recordings, speakers)."""
    right = [np.asarray(r.predictions["label"] == r.predictions["predicted"], float) for r in (result, *others)]
    difference = right[0] - np.mean(right[1:], axis=0)
    return gain_of(difference, result.predictions["group"].to_numpy())


if __name__ == "__main__":
    main()
