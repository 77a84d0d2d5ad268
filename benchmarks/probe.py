"""Logistic regression of the probe beside scikit-learn's, on real embeddings: same classifier, time of one core.

    python benchmarks/probe.py --data esc50:PATH

Embeds a data set with the shipped encoder, trains on all folds but the first for the probe's four strengths, at the
tolerance of its choices and of its answers, alternately, and prints the best of three for each as a Markdown table.
"""

import argparse
import time
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from threadpoolctl import threadpool_limits

from asit_lab.data import load_manifest
from asit_lab.embedding.dataset import embed_clips, encoder_embedder
from asit_lab.evaluation.classifiers import CHOOSING, FINAL, GRIDS, answers
from asit_lab.zoo import open_source


def scikit_learn(train, targets, test, multi: bool, tolerance: float) -> list[np.ndarray]:
    """Probabilities of the test clips for each strength; a tenth of the tolerance gives the same accuracy of fit."""
    mean, deviation = train.mean(0), train.std(0)
    model = LogisticRegression(tol=tolerance / 10, max_iter=1000, warm_start=True)
    model, labels = (OneVsRestClassifier(model), targets) if multi else (model, targets.argmax(1))
    outputs = []
    for strength in GRIDS["linear"]:
        model.set_params(**{"estimator__C" if multi else "C": strength})
        outputs.append(model.fit((train - mean) / deviation, labels).predict_proba((test - mean) / deviation))
    return outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a labelled data set with folds, such as esc50:PATH")
    manifest = load_manifest(parser.parse_args().data)
    enc = open_source("shipped")
    last = enc.config.model.depth
    embedded = embed_clips(manifest, [encoder_embedder(enc, "x", layers=(last,))])
    features = embedded.features["x"][:, last, 1].astype(np.float64)  # [clips, D]
    targets, test = manifest.targets(embedded.rows), (manifest.table["fold"].iloc[embedded.rows] == 1).to_numpy(bool)
    print(f"{(~test).sum()} clips to train on, {features.shape[1]} features, {targets.shape[1]} classes\n")
    print(
        "| labels | fit to | ours (s) | scikit-learn (s) | largest difference of a probability |\n|---|---|---|---|---|"
    )
    warnings.simplefilter("ignore")  # scikit-learn on its number of iterations
    for multi in (False, True):
        for tolerance in (CHOOSING, FINAL):
            times: dict[str, list[float]] = {"ours": [], "scikit-learn": []}
            with threadpool_limits(limits=1):
                for _ in range(3):
                    start = time.process_time()
                    fitted = answers(
                        "linear", features[~test], targets[~test], features[test], GRIDS["linear"], multi, tolerance
                    )
                    times["ours"].append(time.process_time() - start)
                    start = time.process_time()
                    theirs = scikit_learn(features[~test], targets[~test], features[test], multi, tolerance)
                    times["scikit-learn"].append(time.process_time() - start)
            apart = max(np.abs(a.outputs - b).max() for a, b in zip(fitted, theirs, strict=True))
            ours, other = min(times["ours"]), min(times["scikit-learn"])
            labels = "several a clip" if multi else "one a clip"
            print(f"| {labels} | gradient {tolerance:g} | {ours:.2f} | {other:.2f} | {apart:.1e} |", flush=True)


if __name__ == "__main__":
    main()
