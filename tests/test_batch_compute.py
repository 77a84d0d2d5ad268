"""Compute of a training step as benchmarks/compute.py counts it, and the study that is made equal by it."""

import runpy
from pathlib import Path

import pytest

from asit_lab import load_config

ROOT = Path(__file__).resolve().parent.parent
COMPUTE = runpy.run_path(str(ROOT / "benchmarks/compute.py"))
flops_of_a_clip = COMPUTE["flops_of_a_clip"]


# Clips: 40 of synth and 400 of ESC-10, a fifth of them held out; ESC-50 has five times as many; AudioSet less a tenth.
@pytest.mark.parametrize(
    ("scale", "numbers"),
    [
        ("smoke", [32]),
        pytest.param("micro", [320, 1600], marks=pytest.mark.slow),
        pytest.param("full", [1_800_000], marks=pytest.mark.slow),
    ],
)
def test_asit_and_asda_take_the_same_compute(scale, numbers):
    configurations = list(COMPUTE["of_study"]("asit_vs_asda", scale).values())
    assert [cfg.objective.name for cfg in configurations] == ["asit", "asda"]
    a_clip = [flops_of_a_clip(cfg) for cfg in configurations]
    for clips in numbers:
        seen = [cfg.train.batch_size * cfg.total_steps(clips) for cfg in configurations]
        assert seen[1] * a_clip[1] == pytest.approx(seen[0] * a_clip[0], rel=0.02)


def backbone(cfg) -> tuple[int, int]:
    """Operations of one view's forward pass: projection of its patches, blocks. A product [a, b] [b, c] takes 2abc."""
    rows, width = cfg.grid[0] * cfg.grid[1], cfg.model.width
    linear = 2 * (rows + 1) * (4 + 2 * cfg.model.mlp_ratio) * width**2  # queries, keys, values, projection; MLP
    attention = 2 * 2 * (rows + 1) ** 2 * width  # map, and map times values
    return 2 * rows * cfg.model.patch[0] * cfg.model.patch[1] * width, cfg.model.depth * (linear + attention)


def test_every_product_of_a_reconstruction_step_is_counted():
    """Forward and backward of `smoke` without a teacher, by hand."""
    cfg = load_config("smoke", ["objective.weights={reconstruction: 1}"])
    patches, blocks = backbone(cfg)
    hidden, bottleneck = cfg.heads.decoder_hidden, cfg.heads.decoder_bottleneck
    pixels = cfg.model.patch[0] * cfg.model.patch[1]
    layers = cfg.model.width * hidden + hidden**2 + hidden * bottleneck + bottleneck * pixels
    decoder = 2 * cfg.grid[0] * cfg.grid[1] * layers
    frames, bins = 98, 257  # of a second at 16 kHz: whole frames of 25 ms every 10 ms; half of an FFT of 512, and one
    log_mel = 2 * frames * bins * cfg.features.mel_bins
    # Backward, each product is made for its weight and for its input; patches and log-mel want no gradient of theirs.
    assert flops_of_a_clip(cfg) == 2 * (3 * (blocks + decoder) + 2 * patches + log_mel)


@pytest.mark.slow
def test_the_teacher_is_counted_and_all_masks_are():
    alone = load_config("smoke", ["objective.weights={reconstruction: 1}"])
    both = load_config("smoke", ["objective.weights={reconstruction: 1, global: 1}"])
    heads = both.heads
    layers = both.model.width * heads.hidden + heads.hidden**2 + heads.hidden * heads.bottleneck
    head = 2 * (layers + heads.bottleneck * heads.global_out)  # of a class token
    teacher = sum(backbone(both)) + head
    assert flops_of_a_clip(both) - flops_of_a_clip(alone) == 2 * (teacher + 3 * head)

    asda = COMPUTE["of_study"]("asit_vs_asda", "smoke")["ASDA"]
    one, two, three = (flops_of_a_clip(asda.with_overrides([f"asda.clones={clones}"])) for clones in (1, 2, 3))
    assert three - two == two - one > 0 and one > two - one  # what does not grow with the masks is the teacher


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["smoke", "micro"])
def test_a_step_grows_with_its_clips(preset):
    """So a few clips stand for a whole batch; only the contrastive loss of `micro` compares each with each."""
    cfg = load_config(preset, ["objective.local_tokens=all"])
    assert flops_of_a_clip(cfg, 8) == pytest.approx(flops_of_a_clip(cfg, 2), rel=1e-3 if preset == "micro" else 1e-9)


@pytest.mark.slow
def test_the_path_of_attention_makes_no_difference():
    counts = {
        flops_of_a_clip(load_config("smoke", [f"model.attention_path={p}"])) for p in ("explicit", "fused", "blocks")
    }
    assert len(counts) == 1
