"""Files a second of listing, checking and embedding, beside a plain loop of soundfile and model in the same run.

    python benchmarks/reading.py > benchmarks/reading.md

The files are short WAVs and FLACs of noise, made in a temporary folder. A plain loop reads one file after the other
with soundfile and puts it through the encoder alone. `cores x loop` is what decoding on all cores could give at most;
the model's own rate is that of batches that are in memory already.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

import asit_lab
from asit_lab import Encoder, load_config
from asit_lab.data import load_manifest
from asit_lab.data.check import check
from asit_lab.embedding.files import embed_files

PRESETS = ("micro", "asit-vit-s", "asit-vit-b")
RATE = 16000
BATCH = 32
GAP = """
A check costs more than decoding: lengths in headers are verified, then levels, spectrum and fingerprint are computed,
about as much work as decoding a short file; and threads share Python's lock between short files."""


def write_files(folder: Path, count: int, seconds: float) -> list[Path]:
    """Noise, every other file a FLAC."""
    generator = np.random.default_rng(0)
    for number in range(count):
        wave = 0.1 * generator.standard_normal(round(seconds * RATE))
        soundfile.write(folder / f"{number:05d}.{'wav' if number % 2 else 'flac'}", wave, RATE)
    return sorted(folder.iterdir())


def rate_of(function: Callable[[], object], files: int) -> float:
    """Files a second of one call."""
    began = time.perf_counter()
    function()
    return files / (time.perf_counter() - began)


def decode_all(files: list[Path]) -> None:
    for file in files:
        soundfile.read(file, dtype="float32")


def embed_alone(enc: Encoder, files: list[Path], precision: torch.dtype) -> None:
    """The plain loop."""
    for file in files:
        wave, rate = soundfile.read(file, dtype="float32")
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            enc.embed(wave, rate)


def embed_batches(enc: Encoder, waves: list[np.ndarray], precision: torch.dtype) -> None:
    """The model's own rate."""
    for start in range(0, len(waves), BATCH):
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            enc.embed(waves[start : start + BATCH], RATE)


def embed_ours(enc: Encoder, files: list[Path], out: Path, precision: torch.dtype) -> None:
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        embed_files(enc, files, out)


def row(name: str, ours: float, plain: float, ceiling: float) -> str:
    return f"| {name} | {ours:,.1f} | {plain:,.1f} | {ceiling:,.1f} | {ours / ceiling:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=3000, help="files to list and check")
    parser.add_argument("--embedded", type=int, default=128, help="files to embed with each model")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a file")
    chosen = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    print(f"{platform.processor() or platform.machine()}, {cores} cores, torch {torch.__version__}, ", end="")
    print(f"asit_lab {asit_lab.__version__}; files of {chosen.seconds:g} s, files a second\n")
    print("| | ours | plain loop | ceiling | ours / ceiling |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["ASIT_LAB_HOME"] = temporary  # nothing is remembered from an earlier run
        folder = Path(temporary) / "set"
        folder.mkdir()
        files = write_files(folder, chosen.files, chosen.seconds)
        decode_all(files)  # the disk's cache is warm for all
        headers = rate_of(lambda: [soundfile.info(file) for file in files], len(files))
        listed = rate_of(lambda: load_manifest(f"folder:{folder}"), len(files))
        print(
            row("listing (plain: soundfile.info; ceiling: cores x loop)", listed, headers, cores * headers), flush=True
        )
        manifest = load_manifest(f"folder:{folder}")
        decoded = rate_of(lambda: decode_all(files), len(files))
        checked = rate_of(lambda: check(manifest), len(files))
        print(
            row("checking (plain: soundfile.read; ceiling: cores x loop)", checked, decoded, cores * decoded),
            flush=True,
        )
        few = files[: chosen.embedded]
        for preset in PRESETS:
            enc = Encoder.random(load_config(preset, [f"features.sample_rate={RATE}"]))
            waves = [soundfile.read(file, dtype="float32")[0] for file in few]
            for precision, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
                embed_batches(enc, waves[:BATCH], precision)  # warm
                own = rate_of(lambda: embed_batches(enc, waves, precision), len(few))  # noqa: B023
                plain = rate_of(lambda: embed_alone(enc, few, precision), len(few))  # noqa: B023
                out = Path(temporary) / "vectors.csv"
                ours = rate_of(lambda: embed_ours(enc, few, out, precision), len(few))  # noqa: B023
                print(row(f"embedding, {preset}, {name} (ceiling: batches in memory)", ours, plain, own), flush=True)
    print(GAP)


if __name__ == "__main__":
    main()
