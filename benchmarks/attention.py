"""Attention forward and backward: each path, which one `auto` takes, in time and in peak memory.

    .venv/bin/python benchmarks/attention.py [--threads 2] [--batch 2] [--rounds 7] [--out FILE]

A layer of ViT-S (384 wide, 6 heads), its projections included; bf16 by autocast, as in training. Since the projections
are the same on every path, explicit / chosen is given without them too: less what a layer takes that has no attention.
And it is given for the forward pass alone, projections included: what a teacher and an encoder at work do.

Time: the paths in turn, A B C A B C, after one round that does not count; medians, of more rounds where they are short.
Memory: on a CPU the most a process of its own ever held (resident set, as the kernel counts it) during one forward
and backward pass, less what it held before, so with weights' gradients and the allocator's rounding; on a GPU torch's
own count of the same.
"""

import argparse
import multiprocessing
import platform
import resource
import statistics
import time
from functools import partial
from pathlib import Path

import torch

from asit_lab.nn import build_attention
from asit_lab.nn.attention import choose_path

TOKENS = (297, 513, 1025, 2049)
PATHS = ("explicit", "fused", "blocks")
NONE = "no attention"
SOFTMAXES = {"softmax": 1, "asda": 2}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=2, help="clips")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = table(torch.device(options.device), options.threads, options.batch, options.rounds)
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


def table(device: torch.device, threads: int, batch: int, rounds: int) -> list[str]:
    """The lines of a Markdown table, and two that say whether the choice is a good one."""
    cases = [(kind, precision, tokens) for kind in SOFTMAXES for precision in PRECISIONS for tokens in TOKENS]
    memory = {  # before any timing: a process can only be forked while torch has no threads
        (*case, path): peak_memory(*case, path, batch, threads, device) for case in cases for path in PATHS
    }
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    lines = [
        f"torch {torch.__version__}, {name}, {threads} threads; {batch} clips, medians of {rounds} rounds and more",
        "",
        "| attention, tokens | explicit, ms | fused, ms | blocks, ms | chosen | best / chosen | explicit / chosen "
        "| without projections | forward alone | peak memory of each, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    shares, gains, cores, forwards = {}, {}, {}, {}
    for kind, precision, tokens in cases:
        seconds, ahead = times(kind, precision, tokens, batch, rounds * max(1, TOKENS[-1] // tokens), device)
        there = torch.empty(batch, tokens, 1, 6, 1, dtype=PRECISIONS[precision], device=device)
        path = choose_path("auto", there, SOFTMAXES[kind])
        case = f"{kind} {precision}, {tokens}"
        best, rest = min(seconds[each] for each in PATHS), seconds[NONE]
        shares[case], gains[case] = best / seconds[path], seconds["explicit"] / seconds[path]
        cores[case] = (seconds["explicit"] - rest) / (seconds[path] - rest)
        forwards[case] = ahead["explicit"] / ahead[path]
        held = " / ".join(f"{memory[kind, precision, tokens, each] / MIB:.0f}" for each in PATHS)
        cells = " | ".join(f"{1e3 * seconds[each]:.1f}" for each in PATHS)
        lines.append(
            f"| {case} | {cells} | {path} | {shares[case]:.2f} | {gains[case]:.2f} | {cores[case]:.2f} "
            f"| {forwards[case]:.2f} | {held} |"
        )
    slowest = min(shares, key=shares.get)
    longest = [case for case in gains if case.endswith(f"fp32, {TOKENS[-1]}")]
    return [
        *lines,
        "",
        f"Chosen beside the best: at worst {100 * (1 / shares[slowest] - 1):.0f} % slower ({slowest}).",
        "Explicit / chosen (without projections; forward alone): "
        + "; ".join(f"{case} tokens: {gains[case]:.2f} ({cores[case]:.2f}; {forwards[case]:.2f})" for case in longest)
        + ".",
    ]


def times(kind, precision, tokens, batch, rounds, device) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of each path, and without attention: forward and backward, forward alone."""
    names, passes = (*PATHS, NONE), (step, forward)
    layers = [layer(kind, tokens, name, batch, device) for name in names]
    seconds = {each: [[] for _ in names] for each in passes}
    for round_ in range(rounds + 1):
        for i, (module, x) in enumerate(layers):
            for each in passes:
                began = time.perf_counter()
                each(module, x, PRECISIONS[precision])
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if round_:
                    seconds[each][i].append(time.perf_counter() - began)
    both, ahead = [
        {name: statistics.median(kept) for name, kept in zip(names, seconds[each], strict=True)} for each in passes
    ]
    return both, ahead


def layer(kind, tokens, path, batch, device):
    if path == NONE:
        module = Projections(build_attention(kind, 384, 6)).to(device)
    else:
        module = build_attention(kind, 384, 6, path).to(device)
    return module, torch.randn(batch, tokens, 384, device=device, requires_grad=True)


class Projections(torch.nn.Module):
    """What a layer has beside attention: values are the mean of queries, keys and values."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x):
        layer = self.attention
        projections = [layer.qkv] if hasattr(layer, "qkv") else [layer.qk, layer.v]
        parts = [part for each in projections for part in each(x).split(layer.proj.in_features, -1)]
        mixed = torch.stack(parts).mean(0)
        if hasattr(layer, "normalise"):
            mixed = layer.normalise(mixed.unflatten(-1, (layer.heads, -1)))
        return layer.proj(mixed), None


def step(module, x, dtype) -> None:
    with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        out, _ = module(x)
    out.float().sum().backward()


@torch.no_grad()
def forward(module, x, dtype) -> None:
    with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        module(x)


def peak_memory(kind, precision, tokens, path, batch, threads, device) -> int:
    """Bytes of one pass, see the head of this file."""
    if device.type == "cuda":
        run = partial(step, *layer(kind, tokens, path, batch, device), PRECISIONS[precision])
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_held, args=(theirs, kind, precision, tokens, path, batch, threads))
    process.start()
    theirs.close()
    held = ours.recv()
    process.join()
    return held


def _held(pipe, kind, precision, tokens, path, batch, threads) -> None:
    torch.set_num_threads(threads)
    step(*layer(kind, 8, "explicit", 1, torch.device("cpu")), PRECISIONS[precision])  # loads what any pass loads
    run = partial(step, *layer(kind, tokens, path, batch, torch.device("cpu")), PRECISIONS[precision])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    pipe.send(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


if __name__ == "__main__":
    main()
