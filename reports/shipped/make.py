"""Renew asit_lab/zoo/shipped from a run that trained a decoder on a frozen backbone: weights in half precision,
configuration, and the card README.md with what they are worth.

.venv/bin/python reports/shipped/make.py runs/decoder mixed data/corpus/list.csv

The card has the commands that made the run. The second argument is the name that the configuration is published with: a
path says nothing on another machine. The third lists each recording of the corpus once: its held-out clips are those of
the run. Measured are the run's own weights and what this folder then holds, on these clips and on made-up sounds. Four
minutes on two cores.
"""

import sys
from pathlib import Path

import torch

from asit_lab import Encoder, figures, load_encoder, load_run, zoo
from asit_lab.config import RunConfig
from asit_lab.data import Manifest, load_manifest
from asit_lab.inspection.examples import reconstruct_clips
from asit_lab.runs.encoder_folder import WEIGHTS, SavedEncoder, write_encoder_folder
from asit_lab.storage.atomic import write_text

HERE = Path(__file__).resolve().parents[2] / "asit_lab/zoo/shipped"
PICTURE = Path(__file__).resolve().parents[1] / "gallery/shipped.png"
PICTURED = 6
CLIPS = 40  # whose embeddings are compared, of each data set
SECONDS_A_STEP = 1.08  # of the first two trainings, on two cores with bf16 units
FIRST, SECOND = 3000, 4000  # their steps


CARD = """# The encoder that comes with asit_lab

ASiT (arXiv 2211.13189), preset `{preset}`, pretrained on {clips:,} clips without their labels: {first:,} steps on the
corpus as it is, then {second:,} in which effects and instruments come five times as often and music twice (seed
{seed}). Then the decoder alone was trained for {steps:,} steps, with a part that copies what stands beside a gap.
It is there so that notebooks have something to show at once: embeddings, attention, reconstructions. It is small and
was trained for {hours:.1f} hours; for results pretrain for longer, or load published weights.

```python
encoder = asit_lab.zoo.shipped()  # in a shell or a notebook's parameters: shipped
encoder.embed(wave, sample_rate)  # [batch, 192], audio of any length and rate
encoder.reconstruct(wave, sample_rate)  # clean, corrupted, reconstructed log-mel and mask
```

## What made it

    asit-lab data corpus data/corpus --debian --collection-hours 4 --kind-hours 12
    asit-lab pretrain --preset {preset} --data folder:data/corpus/list.csv --out runs/first \\
        -s heads.decoder_copies=false
    .venv/bin/python reports/shipped/balance.py data/corpus/list.csv data/corpus/balanced.csv
    asit-lab pretrain --preset {preset} --data folder:data/corpus/balanced.csv --out runs/second \\
        -s train.init_from=runs/first -s heads.decoder_copies=false -s optim.rate=0.002 -s train.steps={second}
    asit-lab pretrain --preset {preset} --data folder:data/corpus/balanced.csv --out runs/decoder \\
        -s train.init_from=runs/second -s train.freeze_backbone=true -s train.steps={steps} \\
        -s 'objective.weights={{reconstruction: 1}}' -s 'mask.kinds={{zeros: 1}}' -s mask.ratio_min=0.3 \\
        -s data.mix=0 -s data.filter_db=0
    .venv/bin/python reports/shipped/make.py runs/decoder {source} data/corpus/list.csv

The first two trainings take some {minutes} minutes on two cores with bf16 units, the third a quarter of an hour. The
last command keeps the teacher's backbone and the decoder in half precision ({megabytes:.1f} MB), measures, and writes
this text. To train on from these weights: `-s train.init_from=shipped`.

## What it is worth

Reconstruction: mean absolute error in natural-log units over corrupted pixels above silence, 70 % of the area
zeroed in blocks (`asit_lab.evaluation.reconstruction_errors`). The run itself reconstructs by its student in
single precision. Moved: how far the embedding of a clip went from the run's own, at most, relative to its
distance from the mean of all. Line in time: linear interpolation. Events: pixels more than 10 dB above the median
of their band over the crop. No clip of synth was in pretraining.

| data | clips | embeddings moved | error: run | this encoder | line in time | band mean | at events | line at events |
|---|---|---|---|---|---|---|---|---|
{table}

Reconstructions have loudness, onsets, pauses and the broad spectrum where they belong. Steady tones go on through a
gap as they are; harmonics that move, single formants and sweeps are smeared or lost. What its features are worth on
labelled recordings, beside the same network untrained: reports/reference/README.md.

## Data and licence

25.6 hours (speech 11.4, music 11.9, effects 1.6, instruments 0.6), made by `asit-lab data corpus` from packages of
Debian 12, of which each package's licence file names the authors: asterisk-core-sounds (en, es, fr, it, ru) and
asterisk-prompt-it-menardi (CC BY-SA 3.0), festvox-ru (BSD-like, GPL-3), fillets-ng-data, -cs and -nl, klettres-data,
ktuberling-data, tuxpaint-stamps-default, freedroidrpg-data, wesnoth-1.16-music, wesnoth-1.16-data, supertux-data,
widelands-data (GPL-2 or later), gcin-voice, hedgewars-data, warzone2100-music, ufoai-music, ufoai-sound, naev-data,
hyperrogue-music, colobot-common-sounds, megaglest-data, singularity-music, asterisk-moh-opsound-wav, lomiri-sounds,
hydrogen-drumkits, hydrogen-drumkits-effects, sonic-pi-samples, lmms-common (CC0, CC BY, CC BY-SA, GPL, by file). The
weights hold none of the recordings and are under the licence of asit_lab.
"""


def main() -> None:
    run, source, corpus = load_run(sys.argv[1]), sys.argv[2], sys.argv[3]
    if not run.config.train.freeze_backbone:
        raise SystemExit(
            f"{run.dir}: train.freeze_backbone is false; the card is of a run that trained the decoder alone"
        )
    own = load_encoder(run.dir)
    backbone = load_encoder(run.config.train.init_from).config  # says what the encoder was pretrained by
    changes = {"name": "small", "data.source": source, "train.init_from": None, "heads.decoder_copies": True}
    config = backbone.with_overrides(changes)
    name = f"{config.name} on {source}, {FIRST + SECOND} steps (shipped)"
    write_encoder_folder(HERE, SavedEncoder(weights(own), config, name, pretrained=True))
    (HERE / WEIGHTS).chmod(0o644)  # safetensors writes files that only their owner can read
    small = zoo.shipped()
    heard = load_manifest(f"folder:{corpus}").holdout(config.data.holdout)
    made_up = load_manifest("synth").holdout(0.2)
    rows = []
    for name, (train, held) in {f"{source}, held out": heard, "synth": made_up}.items():
        rows.append(measured(name, own, small, train, held))
    save_picture(small, heard[1])
    size = (HERE / WEIGHTS).stat().st_size
    write_text(HERE / "README.md", card(config, run.progress["step"], len(heard[0]), size, rows))
    print((HERE / "README.md").read_text(encoding="utf-8"))


def save_picture(small: Encoder, held: Manifest) -> None:
    """PICTURED held-out clips as drawn by seed 0, reconstructed, for the README of the project."""
    axes = figures.MelAxes.of(small.config.features, normalised=True)
    figure = figures.reconstructions(reconstruct_clips(small, held, PICTURED), axes)
    figures.save(figure, PICTURE)


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
        "events": float(of[small]["events_log"]["reconstruction"]),
        "line at events": float(of[small]["events_log"]["linear interpolation in time"]),
    }


def card(config: RunConfig, steps: int, clips: int, size: int, rows: list[dict]) -> str:
    """README.md. steps: of the decoder alone. clips: of the corpus, that are trained on."""
    table = "\n".join(
        f"| {row['data']} | {row['clips']} | {100 * row['moved']:.2f} % | {row['run']:.3f} | {row['shipped']:.3f} | "
        f"{row['line']:.3f} | {row['mean']:.3f} | {row['events']:.3f} | {row['line at events']:.3f} |"
        for row in rows
    )
    seconds = (FIRST + SECOND) * SECONDS_A_STEP
    return CARD.format(
        preset=config.name,
        source=config.data.source,
        clips=clips,
        first=FIRST,
        second=SECOND,
        steps=steps,
        seed=config.train.seed,
        megabytes=size / 1e6,
        minutes=round(seconds / 60),
        hours=seconds / 3600,
        table=table,
    )


if __name__ == "__main__":
    main()
