"""What fp16, bf16 and int8 cost and gain: size, difference of the embeddings and speed, beside fp32 in the same run.

    .venv/bin/python benchmarks/precision.py [ENCODER] [--threads 2] > benchmarks/precision.md

Each model embeds the same synthesised clips, cut to the length of its crops. All are timed in turn, A B C A B C, after
a warm-up; the table has medians.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from asit_lab import zoo
from asit_lab.data.sources.synth import render_clip
from asit_lab.encoder import Encoder
from asit_lab.finetuning import export_model

ROUNDS, CLIPS, AT_ONCE = 15, 48, 8
Embed = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", nargs="?", default="shipped")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    encoder = zoo.open_source(options.encoder)
    with tempfile.TemporaryDirectory() as folder:
        models, samples = models_of(encoder, Path(folder), options.threads)
        rate = encoder.front_end.sample_rate
        waves = np.stack([render_clip(0, index, rate)[:samples] for index in range(CLIPS)])
        vectors = {name: embedded(embed, waves) for name, (embed, _) in models.items()}
        seconds = timed({name: embed for name, (embed, _) in models.items()}, waves[:AT_ONCE])
    machine = f"{platform.machine()} CPU, {options.threads} threads"
    print(f"{encoder.name}, torch {torch.__version__}, {machine}; {CLIPS} clips, {samples / rate:.2f} s each")
    print("\n| model | MB | cosine (centred), mean | least | same nearest clip (%) | clips/s | fp32 time / time |")
    print("|---|---|---|---|---|---|---|")
    for name, (_, size) in models.items():
        mean = vectors["torch fp32"].mean(0)  # common to all clips, so it would hide differences
        cosines = (unit(vectors[name] - mean) * unit(vectors["torch fp32"] - mean)).sum(1)
        same = 100 * np.mean(nearest(vectors[name]) == nearest(vectors["torch fp32"]))
        speed = AT_ONCE / seconds[name]
        base = seconds["onnx fp32" if name.startswith("onnx") else "torch fp32"]
        print(
            f"| {name} | {size / 1e6:.1f} | {cosines.mean():.5f} | {cosines.min():.5f} | {same:.0f} | {speed:.1f} "
            f"| {base / seconds[name]:.2f} |"
        )


def models_of(encoder: Encoder, folder: Path, threads: int) -> tuple[dict[str, tuple[Embed, int]], int]:
    """Name -> (waves [B, S] to embeddings [B, D], size in bytes); and S."""
    import onnxruntime

    rate = encoder.front_end.sample_rate
    models: dict[str, tuple[Embed, int]] = {}
    for name, change in {"fp32": Encoder.float, "bf16": Encoder.bfloat16, "fp16": Encoder.half}.items():
        model = change(Encoder.from_saved(encoder.to_saved(), encoder.name))
        size = sum(weight.numel() * weight.element_size() for weight in model.backbone.parameters())
        models[f"torch {name}"] = (lambda waves, model=model: model.embed(waves, rate).float().numpy(), size)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    samples = 0
    for precision in ("fp32", "fp16", "int8"):
        done = export_model(encoder, folder / f"{precision}.onnx", precision=precision)
        session = onnxruntime.InferenceSession(str(done.path), options, providers=["CPUExecutionProvider"])
        run = lambda waves, session=session: session.run(None, {"wave": waves})[0]  # noqa: E731
        models[f"onnx {precision}"], samples = (run, done.path.stat().st_size), done.samples
    return models, samples


def embedded(embed: Embed, waves: np.ndarray) -> np.ndarray:
    return np.concatenate([embed(waves[first : first + AT_ONCE]) for first in range(0, len(waves), AT_ONCE)])


def timed(models: dict[str, Embed], waves: np.ndarray) -> dict[str, float]:
    """Median seconds of a batch."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for round_ in range(ROUNDS + 1):
        for name, embed in models.items():
            began = time.perf_counter()
            embed(waves)
            if round_:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nearest(vectors: np.ndarray) -> np.ndarray:
    """Each clip's nearest other one, by cosine of centred vectors."""
    centred = unit(vectors - vectors.mean(0))
    return (centred @ centred.T - 2 * np.eye(len(vectors))).argmax(1)


if __name__ == "__main__":
    main()
