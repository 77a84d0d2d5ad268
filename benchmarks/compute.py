"""Compute of pretraining: floating-point operations of a training step, and the steps that equal compute allows.

    .venv/bin/python benchmarks/compute.py asit-vit-b asda-vit-b --clips 1800000
    .venv/bin/python benchmarks/compute.py --study asit_vs_asda --scale micro --clips 320

A step is a real one on noise: log-mel, student, teacher, heads and decoder, forward and backward. Torch's
FlopCounterMode counts the matrix products and convolutions in it, a multiplication and an addition as two operations.
What is no product (norms, activations, softmax, the FFT) is not counted, nor are the drawing of masks, the optimiser
and the moving average.

Attention is counted with its whole map, whichever path a run takes. The counter does not know all that the others do
(torch's fused kernel on CPUs, products that are added in place), and what they make anew in the backward pass saves
memory and is no part of the method.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from asit_lab import InputError, batch
from asit_lab.config import RunConfig, load_config, validate
from asit_lab.data import Batch
from asit_lab.masking import Masks
from asit_lab.objectives import Objective, build_objective
from asit_lab.storage.words import print_rows

CLIPS = {"asit": 2, "asda": 1}  # in the step that is counted: ASiT mixes and compares clips, so it needs another
DRAWS = 100  # steps whose masks are looked at for a usual one


@dataclass(frozen=True)
class Compute:
    """What a run takes, in floating-point operations."""

    clip: float
    """of one clip, all its views and masks"""
    batch: int
    """clips a step"""
    steps: int
    """of the run"""
    epoch_steps: int

    @property
    def step(self) -> float:
        return self.batch * self.clip

    @property
    def total(self) -> float:
        return self.steps * self.step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", metavar="PRESET", help="presets, YAML files or run directories")
    parser.add_argument("-s", "--set", action="append", metavar="KEY=VALUE", help="change a setting of all of them")
    parser.add_argument("--study", help="count the settings of a study instead")
    parser.add_argument("--scale", default="smoke", help="of the study")
    parser.add_argument("--clips", type=int, default=320, help="training clips, which an epoch goes through (320)")
    options = parser.parse_args()
    if bool(options.presets) == bool(options.study):
        parser.error("name presets, or a study by --study")
    try:
        if options.study:
            configurations = of_study(options.study, options.scale)
        else:
            configurations = {preset: load_config(preset, options.set) for preset in options.presets}
    except InputError as error:
        parser.error(str(error))
    print_rows(table({name: compute(cfg, options.clips) for name, cfg in configurations.items()}))


def of_study(study: str, scale: str) -> dict[str, RunConfig]:
    """The configuration of each setting of a study."""
    return {point.setting: validate(point.config) for point in batch.points(study, scale, seeds=1)}


def table(runs: dict[str, Compute]) -> list[dict]:
    """A row a run; the last two columns say how long it may be to take as much as the first."""
    first = next(iter(runs.values()))
    rows = []
    for name, run in runs.items():
        equal = round(first.total / run.step)
        row = {"setting": name, "GFLOP a clip": run.clip / 1e9, "clips a step": run.batch}
        row |= {"TFLOP a step": run.step / 1e12, "TFLOP an epoch": run.epoch_steps * run.step / 1e12}
        row |= {"steps": run.steps, "PFLOP in all": run.total / 1e15, "of the first's": run.total / first.total}
        rows.append({**row, "steps for as much": equal, "epochs for as much": equal / run.epoch_steps})
    return rows


def compute(cfg: RunConfig, clips: int) -> Compute:
    """What a run on `clips` training clips takes."""
    return Compute(flops_of_a_clip(cfg), cfg.train.batch_size, cfg.total_steps(clips), cfg.steps_per_epoch(clips))


def flops_of_a_clip(cfg: RunConfig, clips: int | None = None) -> float:
    """Operations of a training step on a few clips (default: CLIPS), divided by their number."""
    clips = clips or CLIPS[cfg.objective.name]
    few = [f"train.batch_size={clips}", "train.accumulate=1", "model.attention_path=explicit"]
    cfg = cfg.with_overrides(few)
    objective = build_objective(cfg, clips)
    step = usual_step(objective, cfg)
    places = torch.arange(clips)
    lengths = torch.full((clips, objective.views), cfg.crop_samples)
    waves = 0.1 * torch.randn(clips, objective.views, cfg.crop_samples)
    drawn = Batch(waves, lengths, places, places, step)
    whole = counted(lambda: objective(drawn, step).total.backward())
    return (whole - counted(lambda: masks_of(objective, cfg, step))) / clips


def counted(work: Callable) -> int:
    """Operations in some work, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def usual_step(objective: Objective, cfg: RunConfig) -> int:
    """The step whose masks cover about as many tokens as masks do on average: ASiT's local heads see only those."""
    if cfg.objective.name != "asit":
        return 0
    masks = (masks_of(objective, cfg, step) for step in range(DRAWS))
    shares = torch.stack([each.tokens(cfg.model.patch).float().mean() for each in masks])
    return int((shares - shares.mean()).abs().argmin())


def masks_of(objective: Objective, cfg: RunConfig, step: int) -> Masks | None:
    """The masks that ASiT draws at a step; ASDA's are made without any product."""
    if cfg.objective.name != "asit":
        return None
    clean = torch.zeros(objective.views, cfg.train.batch_size, cfg.input_frames, cfg.features.mel_bins)
    return objective.corrupt(clean, torch.arange(cfg.train.batch_size), step)[1]


if __name__ == "__main__":
    main()
