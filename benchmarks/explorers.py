"""How long a slider of an explorer takes from its move to the new picture, without a browser.

    .venv/bin/python benchmarks/explorers.py [--threads 2] [--moves 40] [--only mask] [--out FILE]

Each row moves one control of one explorer to a new value `--moves` times, after three moves that do not count, and
times the assignment: it returns when the picture's bytes are there. The rows of `start` make an explorer of the shipped
encoder, hear its reconstruction of a whole crop, or embed clips that no earlier pass has embedded, three times each.
Limit: what the design asks of two cores. CPU: what the processor worked for it, which other programs on the machine
hardly change.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import torch

WARM_UP = 3


class Case(NamedTuple):
    """One control: what it is called, how it is set, the values it takes in turn, and the time it has, ms."""

    name: str
    set: Callable
    values: Iterable
    limit: float
    moves: int | None = None
    """None: as many as the command line says"""


def setter(control, trait: str = "value") -> Callable:
    """What moves a control, or another trait of a widget."""
    return lambda value: setattr(control, trait, value)


def mask() -> list[Case]:
    from asit_lab.widgets import MaskExplorer

    explorer = MaskExplorer(data="synth:40", preset="asit-vit-s")

    return [
        Case("mask: ratio, zeros", setter(explorer.ratio), range(5, 95, 2), 150),
        Case("mask: block", setter(explorer.block), range(10, 100, 2), 150),
        Case("mask: seed", setter(explorer.seed), range(1, 10**6), 150),
        Case("mask: kind", setter(explorer.kind), ["noise", "alien", "time", "frequency", "inverse", "zeros"], 150),
        Case("mask: another clip", setter(explorer.chooser.clip), range(1, 40), 400),
    ]


def reconstruction() -> list[Case]:
    """ViT-S, untrained, on crops of 5.5 s at 32 kHz."""
    from asit_lab.widgets import ReconstructionExplorer

    explorer = ReconstructionExplorer("asit-vit-s", data="synth:40")
    return [
        Case("reconstruction, ViT-S: ratio", setter(explorer.ratio), range(5, 95, 2), 400),
        Case("reconstruction, ViT-S: seed", setter(explorer.seed), range(1, 10**6), 400),
        Case("reconstruction, ViT-S: kind", setter(explorer.kind), ["noise", "alien", "time", "zeros"], 400),
    ]


def attention() -> list[Case]:
    """ViT-S, 297 tokens, softmax; and ASDA's small preset, 97 tokens, both softmaxes and their difference."""
    from asit_lab.widgets import AttentionExplorer

    cases = []
    for preset in ("asit-vit-s", "micro-asda"):
        explorer = AttentionExplorer(preset, data="synth:40")
        cases += [
            Case(f"attention, {preset}: click a patch", setter(explorer, "token"), range(1, 90, 7), 150),
            Case(f"attention, {preset}: layer", setter(explorer.layer), range(6), 150),
            Case(f"attention, {preset}: head", setter(explorer.head), range(-1, 3), 150),
            Case(f"attention, {preset}: a cell of the heads", setter(explorer.heads, "selected"), range(0, 24, 5), 150),
            Case(f"attention, {preset}: another clip", setter(explorer.chooser.clip), range(1, 40), 2000),
        ]
    return cases


def embedding() -> list[Case]:
    from asit_lab.widgets import EmbeddingExplorer

    explorer = EmbeddingExplorer("smoke", data="synth:400")
    return [
        Case("embedding, 400 clips: hover", setter(explorer.map, "hovered"), range(0, 400, 7), 150),
        Case("embedding, 400 clips: click", setter(explorer.map, "selected"), range(0, 400, 7), 400),
        Case("embedding, 400 clips: hear a neighbour", setter(explorer.strip, "selected"), range(8), 150),
    ]


def start() -> list[Case]:
    """What takes seconds: first pictures, sounds, embeddings."""
    from asit_lab import widgets
    from asit_lab.data import load_manifest
    from asit_lab.embedding.dataset import embed_clips, encoder_embedder
    from asit_lab.zoo import shipped

    encoder, manifest = shipped(), load_manifest("synth:400")
    reconstruction, mask = widgets.ReconstructionExplorer(encoder), widgets.MaskExplorer(preset="asit-vit-s")
    first = {
        "mask": widgets.MaskExplorer,
        "reconstruction": lambda: widgets.ReconstructionExplorer(encoder),
        "attention": lambda: widgets.AttentionExplorer(encoder),
    }
    return [
        *(Case(f"{name}: first picture", lambda _, make=make: make(), [0], 8000, 3) for name, make in first.items()),
        Case("reconstruction: hear, three sounds of 2 s", lambda _: reconstruction.listen.click(), [0], 2000, 3),
        Case("mask: hear, two sounds of 6 s", lambda _: mask.listen.click(), [0], 2000, 3),
        Case(
            "embedding: 400 clips of 5 s anew",
            lambda _: embed_clips(manifest, [encoder_embedder(encoder)], keep=False),
            [0],
            80000,
            3,
        ),
    ]


# One an explorer; called when its rows are wanted.
EXPLORERS = {
    "start": start,
    "mask": mask,
    "reconstruction": reconstruction,
    "attention": attention,
    "embedding": embedding,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--moves", type=int, default=40)
    parser.add_argument("--only", choices=list(EXPLORERS), help="one explorer")
    parser.add_argument("--out", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = [case for name, make in EXPLORERS.items() if options.only in (None, name) for case in make()]
    lines = table(cases, options.threads, options.moves)
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


def table(cases: list[Case], threads: int, moves: int) -> list[str]:
    """The lines of a Markdown table."""
    lines = [
        f"torch {torch.__version__}, {platform.machine()} CPU, {threads} threads; {moves} moves",
        "",
        "| control | median, ms | slowest of ten, ms | CPU, ms | limit, ms |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for case in cases:
        times, worked = answers(case, case.moves or moves)
        slow = sorted(times)[int(0.9 * len(times))]
        numbers = (statistics.median(times), slow, statistics.median(worked), case.limit)
        lines.append(f"| {case.name} | {' | '.join(f'{number:.0f}' for number in numbers)} |")
    return lines


def answers(case: Case, moves: int) -> tuple[list[float], list[float]]:
    """Milliseconds each of `moves` moves takes, and those the processor worked."""
    values, times, worked = cycle(case.values), [], []
    warm_up = min(WARM_UP, moves // 3)
    for move in range(warm_up + moves):
        value = next(values)
        began, work = time.perf_counter(), time.process_time()
        case.set(value)
        if move >= warm_up:
            times.append(1000 * (time.perf_counter() - began))
            worked.append(1000 * (time.process_time() - work))
    return times, worked


if __name__ == "__main__":
    main()
