"""Renew asit_lab/zoo/shipped from a run of preset `micro`: weights in half precision, configuration, and the
card README.md with what they are worth.

.venv/bin/papermill notebooks/pretrain.ipynb out.ipynb -p preset micro -p data esc10:PATH -p out runs/esc10
.venv/bin/python reports/shipped/make.py runs/esc10 esc10

The second argument is the data set's public name, which the configuration is published with: a path says nothing on
another machine. Measured are the run's own weights and what this folder then holds, on the run's held-out recordings
and on made-up sounds. Half a minute on two cores.
"""

import sys
from pathlib import Path

import torch

from asit_lab import Encoder, load_encoder, load_run, zoo
from asit_lab.data import Manifest, load_manifest
from asit_lab.encoder.folder import WEIGHTS, SavedEncoder, write_encoder_folder
from asit_lab.storage.atomic import write_text

HERE = Path(__file__).resolve().parents[2] / "asit_lab/zoo/shipped"
CLIPS = 40  # whose embeddings are compared, of each data set


CARD = """# The encoder that comes with asit_lab

ASiT (arXiv 2211.13189), preset `{preset}`, pretrained on {clips} clips of {source} without their labels:
{steps} steps, seed {seed}. It is there so that notebooks have something to show at once: embeddings, attention,
reconstructions. It is small and heard little; for results pretrain on more, or load published weights.

```python
encoder = asit_lab.zoo.shipped()  # in a shell or a notebook's parameters: shipped
encoder.embed(wave, sample_rate)  # [batch, 192], audio of any length and rate
encoder.reconstruct(wave, sample_rate)  # clean, corrupted, reconstructed log-mel and mask
```

## What made it

    .venv/bin/papermill notebooks/pretrain.ipynb out.ipynb -p preset {preset} -p data {source}:PATH -p out runs/{source}
    .venv/bin/python reports/shipped/make.py runs/{source} {source}

The first takes about a quarter of an hour on two cores. The second keeps the teacher's backbone and the decoder in half
precision ({megabytes:.1f} MB), measures, and writes this text.

## What it is worth

Reconstruction: mean absolute error in natural-log units over corrupted pixels above silence, 70 % of the area
zeroed in blocks (`asit_lab.evaluation.reconstruction_errors`). The run itself reconstructs by its student in
single precision. Moved: how far the embedding of a clip went from the run's own, at most, relative to its
distance from the mean of all. Synth was never heard, and its sounds are mostly steady tones, on which a straight
line in time is hard to beat.

| data | clips | embeddings moved | error: run | this encoder | straight line in time | mean of the band |
|---|---|---|---|---|---|---|
{table}

Linear probe on {source} with official folds, as recorded by the run (teacher in single precision):

| features | accuracy |
|---|---|
{scores}

## Data and licence

ESC-10: 400 recordings of five seconds by contributors of freesound.org, put together by Karol J. Piczak ("ESC:
Dataset for Environmental Sound Classification", ACM Multimedia 2015) and published under CC BY 3.0; the authors
of the single clips are named in the data set's own licence file (github.com/karolpiczak/ESC-50). The weights
hold none of the recordings and are under the licence of asit_lab.
"""


def main() -> None:
    run, source = load_run(sys.argv[1]), sys.argv[2]
    own = load_encoder(run.dir)
    step = run.progress["step"]
    config = own.config.with_overrides([f"data.source={source}"])
    name = f"{config.name} on {source}, step {step} (shipped)"
    write_encoder_folder(HERE, SavedEncoder(weights(own), config, name, pretrained=True))
    (HERE / WEIGHTS).chmod(0o644)  # safetensors writes files that only their owner can read
    small = zoo.shipped()
    heard = load_manifest(run.config.data.source).holdout(config.data.holdout)
    made_up = load_manifest("synth").holdout(config.data.holdout)
    rows = []
    for name, (train, held) in {f"{source}, held out": heard, "synth": made_up}.items():
        rows.append(measured(name, own, small, train, held))
    size = (HERE / WEIGHTS).stat().st_size
    write_text(HERE / "README.md", card(config.name, source, run.result, size, rows))
    print((HERE / "README.md").read_text(encoding="utf-8"))


def weights(own: Encoder) -> dict[str, torch.Tensor]:
    """The teacher's backbone and the decoder, float16, under the names of `Encoder.state_dict`.

    The student's backbone, as large again, is left out: the teacher is its running mean, which the decoder understands.
    """
    tensors = Encoder(own.config, own.backbone, own.backbone, own.decoder).state_dict()
    return {name: tensor.half() for name, tensor in tensors.items() if not name.startswith("student.")}


def measured(name: str, own: Encoder, small: Encoder, train: Manifest, held: Manifest) -> dict[str, str | float]:
    """A row of the card: how far embeddings moved, and errors of reconstruction (natural log) beside the baselines'."""
    from asit_lab.evaluation import reconstruction_errors

    rate = own.config.features.sample_rate
    waves = [held.read(row, rate) for row in range(min(CLIPS, len(held)))]
    before, after = (encoder.embed(waves, rate) for encoder in (own, small))
    moved = (after - before).norm(dim=1) / (before - before.mean(0)).norm(dim=1)
    of = {encoder: reconstruction_errors(encoder, train, held).set_index("method") for encoder in (own, small)}
    errors = of[small]["l1_log"]
    return {
        "data": name,
        "clips": int(of[small]["clips"].iloc[0]),
        "moved": float(moved.max()),
        "run": float(of[own]["l1_log"]["reconstruction"]),
        "shipped": float(errors["reconstruction"]),
        "line": float(errors["linear interpolation in time"]),
        "mean": float(errors["per-band training mean"]),
    }


def card(preset: str, source: str, result: dict, size: int, rows: list[dict]) -> str:
    """README.md."""
    table = "\n".join(
        f"| {row['data']} | {row['clips']} | {100 * row['moved']:.2f} % | {row['run']:.3f} | {row['shipped']:.3f} | "
        f"{row['line']:.3f} | {row['mean']:.3f} |"
        for row in rows
    )
    probes = {row["encoder"]: row for row in result.get("probe", []) if row["protocol"] == "linear"}
    scores = "\n".join(
        f"| {name} | {100 * row['mean']:.1f} ± {100 * row['spread']:.1f} % |" for name, row in probes.items()
    )
    return CARD.format(
        preset=preset,
        source=source,
        clips=result["training_clips"],
        steps=result["steps"],
        seed=result["seed"],
        megabytes=size / 1e6,
        table=table,
        scores=scores,
    )


if __name__ == "__main__":
    main()
