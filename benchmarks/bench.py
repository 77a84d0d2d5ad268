"""Speed of our parts beside the plain way of doing the same, in one run on one machine.

    .venv/bin/python benchmarks/bench.py [--threads 2] [--out benchmarks/cpu.md]

Each pair is timed in turn, A B A B, after a warm-up; the table holds medians and the ratio of each pair's median.
Attention has a table of its own, see attention.py beside this file.
"""

import argparse
import platform
import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchaudio

from asit_lab.arithmetic import has_bf16
from asit_lab.config import load_config
from asit_lab.data import Batch
from asit_lab.data.sources.synth import SECONDS, render_clip
from asit_lab.features import LogMel
from asit_lab.masking import corrupt, draw_donors, gmml
from asit_lab.objectives import build_objective
from asit_lab.random import key
from asit_lab.training.muon import Muon
from asit_lab.training.optimizer import build_optimizer, clip_gradients, set_schedule

ROUNDS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    lines = [f"torch {torch.__version__}, {name}, {options.threads} threads; medians of {ROUNDS}", ""]
    lines += ["| what | plain | here | plain / here |", "|---|---|---|---|"]
    for what, unit, plain, ours in [*front_end(device), *corruption(device), *muon(device)]:
        a, b = pair(plain, ours, device)
        lines.append(f"| {what} | {a * 1e3:.2f} ms {unit} | {b * 1e3:.2f} ms {unit} | {a / b:.2f} |")
    lines += ["", "| training step | clips/s |", "|---|---|", *steps(device)]
    lines += ["", "| making sounds, one process | clips/s |", "|---|---|", made_up()]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


def pair(plain, ours, device) -> tuple[float, float]:
    """Median seconds of each of two callables, which return how many items they did, per item."""
    times: tuple[list, list] = ([], [])
    for round_ in range(ROUNDS + 1):
        for function, kept in zip((plain, ours), times, strict=True):
            seconds = timed(function, device)
            if round_:
                kept.append(seconds)
    return statistics.median(times[0]), statistics.median(times[1])


def timed(function, device) -> float:
    began = time.perf_counter()
    items = function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / items


def front_end(device):
    """Log-mel of 32 views of 6 s at 32 kHz: one clip at a time by torchaudio, or the batch at once."""
    waves = torch.randn(32, 192000) * 0.1
    ours, moved = LogMel().to(device), waves.to(device)

    def plain():
        for wave in waves:
            torchaudio.compliance.kaldi.fbank(
                (wave - wave.mean())[None],
                htk_compat=True,
                sample_frequency=32000,
                use_energy=False,
                window_type="hanning",
                num_mel_bins=128,
                dither=0.0,
            ).to(device)
        return len(waves)

    def batched():
        ours(moved)
        return len(waves)

    yield "log-mel, 6 s at 32 kHz", "a view", plain, batched


def corruption(device):
    """Masks and filled views, 592 x 128 pixels, 32 views: block after block with a sum each, or the batch at once."""
    mask = load_config("asit-official-vit-s").mask
    clean = torch.randn(32, 592, 128)
    moved = clean.to(device)
    generator = np.random.default_rng(0)

    def plain():
        for view, donor in zip(clean, clean.roll(1, 0), strict=True):
            alien = generator.random() < 0.5
            drop_blocks(
                view.clone(), donor if alien else None, 0.3 if alien else generator.uniform(0.5, 0.7), generator
            )
        return len(clean)

    def batched():
        keys = key(0, torch.arange(len(clean), device=device), "mask")
        masks = gmml(keys, 592, 128, mask, (16, 16))
        corrupt(moved, masks, keys, draw_donors(keys, 8))
        return len(clean)

    yield "block corruption, 592 x 128", "a view", plain, batched


def drop_blocks(view, donor, share, generator) -> torch.Tensor:
    """The plain way: paint a block, sum the mask, until the share is reached."""
    frames, mels = view.shape
    mask = torch.zeros_like(view)
    while mask.mean() < share:
        top, left = generator.integers(0, frames - 1), generator.integers(0, mels - 1)
        height, width = generator.integers(1, int(0.3 * frames)), generator.integers(1, int(0.3 * mels))
        place = (slice(top, top + height), slice(left, left + width))
        view[place] = 0.0 if donor is None else donor[place]
        mask[place] = 1
    return mask


def muon(device):
    """Muon's step for all matrices of `small`: torch's, one after the other in bf16, or those of a shape at once."""
    matrices = [p for p in build_objective(load_config("small"), 100).student.parameters() if p.ndim == 2]
    kinds = {"plain": partial(torch.optim.Muon, adjust_lr_fn="match_rms_adamw"), "here": Muon}
    steps = []
    for kind in kinds.values():
        copies = [torch.nn.Parameter(matrix.detach().to(device)) for matrix in matrices]
        for copy in copies:
            copy.grad = torch.randn_like(copy)
        optimizer = kind([{"params": copies, "lr": 1e-3, "weight_decay": 0.05}])
        steps.append(lambda optimizer=optimizer: optimizer.step() or 1)
    yield "Muon's step, matrices of `small`", "", *steps


def steps(device):
    """Whole optimiser steps on given audio: waveform to EMA; in bf16 where the device has units for it."""
    for preset, size in (("micro", 32), ("small", 32), ("demo", 16), ("asit-official-vit-s", 4), ("asit-vit-s", 4)):
        for precision in (torch.float32, *([torch.bfloat16] if has_bf16(device.type) else [])):
            cfg = load_config(preset, [f"train.batch_size={size}"])
            objective = build_objective(cfg, 100 * size).to(device)
            optimizer = build_optimizer(cfg, objective)
            waves = torch.randn(size, 2, cfg.crop_samples, device=device) * 0.1
            lengths = torch.full((size, 2), cfg.crop_samples, device=device)
            places = torch.arange(size, device=device)
            batch = Batch(waves, lengths, places, places, 0)

            def step(cfg=cfg, objective=objective, optimizer=optimizer, batch=batch, size=size, precision=precision):
                set_schedule(optimizer, cfg, 100 * size, 5)
                with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                    losses = objective(batch, 5)
                losses.total.backward()
                clip_gradients([p for g in optimizer.param_groups for p in g["params"]], cfg.optim.clip, "tensor")
                optimizer.step()
                optimizer.zero_grad()
                objective.after_step(5)
                return size

            timed(step, device)
            seconds = statistics.median(timed(step, device) for _ in range(3))
            kind = str(precision).removeprefix("torch.")
            yield f"| {preset}, batch {size}, {kind} | {1 / seconds:.2f} |"


def made_up() -> str:
    """Clips of `synth`, each class as often."""

    def clips():
        return len([render_clip(0, index, 16000) for index in range(100)])

    seconds = statistics.median(timed(clips, torch.device("cpu")) for _ in range(ROUNDS))
    return f"| synth, {SECONDS:g} s at 16 kHz | {1 / seconds:.0f} |"


if __name__ == "__main__":
    main()
