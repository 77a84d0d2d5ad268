"""A small ASiT for the tests: its configuration, batches of noise, and one whole step."""

from dataclasses import replace

import torch

from asit_lab.config import load_config
from asit_lab.data import Batch
from asit_lab.objectives import ASiT

CLIPS = 40


def config(*overrides: str):
    """A model of a few thousand weights on 64 frames x 32 mel bands: 4 x 2 tokens."""
    sizes = [
        "features.sample_rate=8000",
        "features.mel_bins=32",
        "data.crop_seconds=0.67",
        "model.width=24",
        "heads.hidden=32",
        "heads.bottleneck=16",
        "heads.local_out=12",
        "heads.global_out=20",
        "heads.decoder_hidden=32",
        "heads.decoder_bottleneck=16",
        "mask.block=0.5",
        "train.batch_size=8",
    ]
    return load_config("smoke", [*sizes, *overrides])


def batch_of(clips: int = 8, first: int = 0, step: int = 0, samples: int = 5360) -> Batch:
    """Clips first.. of a set of noises of different colour; the odd ones are short."""
    waves = torch.zeros(clips, 2, samples)
    lengths = torch.full((clips, 2), samples)
    for i in range(clips):
        generator = torch.Generator().manual_seed(first + i)
        waves[i] = torch.randn(2, samples, generator=generator).cumsum(-1).sin() * (0.1 + 0.05 * i)
        if (first + i) % 2:
            lengths[i] = samples - 2000
            waves[i, :, -2000:] = 0
    place = torch.arange(first, first + clips)
    return Batch(waves, lengths, place, place.clone(), step)


def part_of(batch: Batch, places: slice) -> Batch:
    names = ("waves", "lengths", "index", "position")
    return replace(batch, **{name: getattr(batch, name)[places] for name in names})


def gradients(objective: ASiT) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in objective.student.named_parameters() if p.grad is not None}


def step_of(objective: ASiT, step: int = 0, batch: Batch | None = None, rate: float = 0.05):
    """One whole step with plain gradient descent."""
    losses = objective(batch or batch_of(step=step), step)
    objective.zero_grad()
    losses.total.backward()
    with torch.no_grad():
        for group in objective.param_groups():
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= rate * parameter.grad
    objective.after_step(step)
    return losses
