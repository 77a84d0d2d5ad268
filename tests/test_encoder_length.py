"""Clips of any length, alone and mixed: windows, what a clip gets in company, layers."""

import math

import numpy as np
import pytest
import torch

from asit_lab import Encoder, InputError, load_config
from asit_lab.data.sources.synth import render_clip
from asit_lab.encoder.windows import AT_ONCE, window_starts

RATE, WIDTH, PATCH, CROP = 16000, 48, 16, 6  # Hz, channels, frames, patches of time in a crop of the smoke preset
SECONDS = (5.0, 0.3, 1.0, 2.345, 0.03, 1.0, 1.3)


@pytest.fixture(scope="module")
def enc():
    """An untrained encoder whose outputs are not all alike: crops of 1 s, 6 x 4 patches, two blocks."""
    made = Encoder.random(load_config("smoke"), 1)
    with torch.no_grad():
        for block in made.backbone.blocks:
            block.attn.qkv.weight.mul_(5)
            block.mlp.fc2.weight.mul_(5)
    return made


@pytest.fixture(scope="module")
def waves():
    """Clips of several lengths, float32 [S_i]."""
    return [torch.from_numpy(render_clip(0, i, RATE)[: round(s * RATE)]) for i, s in enumerate(SECONDS)]


# --- Windows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 6, 37, 64])
@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_windows_cover_evenly(width, overlap):
    shared = min(width - 1, math.ceil(round(overlap * width, 9)))
    for length in [*range(1, 2 * width + 20), 2000]:
        starts = window_starts(length, width, overlap)
        if length <= width:
            assert starts == [0]
            continue
        assert len(starts) == math.ceil((length - shared) / (width - shared))
        steps = np.diff(starts)
        assert starts[0] == 0 and starts[-1] == length - width
        assert steps.max() <= width - shared and steps.max() - steps.min() <= 1


def test_paper_s_crop_and_a_minute():
    """37 patches are 5.92 s: 375 patches of a minute need ceil((375 - 10) / 27) windows."""
    assert len(window_starts(375, 37, 0.25)) == 14
    assert window_starts(38, 37, 0.25) == [0, 1]


def test_tokens_in_several_windows_are_averaged(enc, waves):
    """Against a loop over patches and windows."""
    log_mel = enc.log_mel(waves[0], RATE)
    time = log_mel.shape[1] // PATCH
    starts = window_starts(time, CROP, 0.5)
    outputs = [enc.backbone(log_mel[:, PATCH * at : PATCH * (at + CROP)])[0] for at in starts]
    wanted = torch.zeros(time, 4, WIDTH)
    for t in range(time):
        seen = [
            out[1:].view(CROP, 4, WIDTH)[t - at] for out, at in zip(outputs, starts, strict=True) if 0 <= t - at < 6
        ]
        assert len(seen) >= 1
        wanted[t] = sum(seen) / len(seen)
    torch.testing.assert_close(enc.tokens(waves[0], RATE, overlap=0.5)[0], wanted, rtol=1e-5, atol=1e-5)
    patches = wanted.flatten(0, 1)
    both = torch.cat([patches.mean(0), patches.sub(patches.mean(0)).square().mean(0).sqrt()])
    torch.testing.assert_close(enc.embed(waves[0], RATE, "mean+std", overlap=0.5)[0], both, rtol=1e-4, atol=1e-5)
    class_token = torch.stack([out[0] for out in outputs]).mean(0)
    torch.testing.assert_close(enc.embed(waves[0], RATE, "class", overlap=0.5)[0], class_token, rtol=1e-4, atol=1e-5)


def test_without_overlap_windows_stand_side_by_side(enc, waves):
    wave = waves[0][: 3 * CROP * PATCH * 160 + 240]  # 18 patches of time
    log_mel = enc.log_mel(wave, RATE)
    parts = [enc.backbone(log_mel[:, at : at + 96])[:, 1:].unflatten(1, (6, 4)) for at in (0, 96, 192)]
    torch.testing.assert_close(enc.tokens(wave, RATE, overlap=0.0), torch.cat(parts, 1), rtol=1e-5, atol=1e-5)


def test_windows_of_all_clips_go_through_together(enc, waves):
    """Full windows of every clip in few passes of bounded size, one more for each shorter length."""
    passes = []
    handle = enc.backbone.blocks[0].register_forward_hook(lambda _, inputs, __: passes.append(inputs[0].shape[:2]))
    enc.embed([waves[0]] * 6 + waves[1:], RATE)
    handle.remove()
    full = 6 * 8 + 1 + 1 + 3 + 2  # of 5 s; 1 s, 1 s; 14 patches; 8 patches
    assert sorted(tokens for _, tokens in passes) == [5, 25, 25]  # 0.03 and 0.3 s are one patch of time each
    assert [n for n, tokens in passes if tokens == 25] == [AT_ONCE, full - AT_ONCE]


# --- Company --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["mean", "class", "mean+std"])
def test_a_clip_gets_what_it_gets_alone(enc, waves, pool):
    together = enc.embed(waves, RATE, pool)
    alone = torch.cat([enc.embed(wave, RATE, pool) for wave in waves])
    assert together.shape == (len(SECONDS), WIDTH * (2 if pool == "mean+std" else 1))
    assert (together - alone).abs().max() <= 1e-5
    assert (alone[0] - alone[3]).abs().max() > 1e-2  # they do differ
    torch.testing.assert_close(enc.embed(waves[::-1], RATE, pool).flip(0), together, rtol=0, atol=1e-5)


def test_company_at_another_rate_and_in_other_containers(enc, waves):
    mixed = [waves[0].numpy(), waves[1].tolist(), waves[2][None], waves[3].double()]
    together = enc.embed(mixed, 22050)
    alone = torch.cat([enc.embed(wave, 22050) for wave in waves[:4]])
    assert (together - alone).abs().max() <= 1e-5
    assert torch.equal(enc.embed(tuple(mixed), 22050), together)


# --- Layers ---------------------------------------------------------------------------------------------------------


def test_every_layer_pooled_every_way(enc, waves):
    pooled = enc.pooled(waves, RATE)
    assert pooled.shape == (len(SECONDS), 3, 3, WIDTH) and pooled.dtype == torch.float32
    for layer, index in {0: 0, 1: 1, -1: 1, -2: 0, 2: 2, None: 2}.items():
        assert torch.equal(enc.embed(waves, RATE, "class", layer), pooled[:, index, 0])
        assert torch.equal(enc.embed(waves, RATE, "mean", layer), pooled[:, index, 1])
        assert torch.equal(enc.embed(waves, RATE, "mean+std", layer), pooled[:, index, 1:].flatten(1))
    assert torch.equal(enc.pooled(waves, RATE, (2, -2)), pooled[:, [2, 0]])
    tokens = enc.tokens(waves[0], RATE, layer=0)
    torch.testing.assert_close(tokens.flatten(0, 2).mean(0), pooled[0, 0, 1], rtol=1e-4, atol=1e-5)


def test_a_layer_is_what_its_block_puts_out(enc, waves):
    seen = []
    handle = enc.backbone.blocks[0].register_forward_hook(lambda _, __, output: seen.append(output[0]))
    found = enc.embed(waves[2], RATE, layer=0)
    handle.remove()
    torch.testing.assert_close(found, seen[0][:, 1:].mean(1))
    norm, last = enc.backbone.norm, enc.tokens(waves[2], RATE, layer=-1)
    torch.testing.assert_close(norm(last), enc.tokens(waves[2], RATE), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(last, enc.tokens(waves[2], RATE))


def test_layers_without_a_class_token(waves):
    late = Encoder.random(load_config("smoke", ["model.class_token_at=1"]), 0)
    pooled = late.pooled(waves, RATE)
    assert pooled[:, 0, 0].isnan().all() and not pooled[:, 0, 1:].isnan().any() and not pooled[:, 1:].isnan().any()
    tokens = late.tokens(waves[2], RATE, layer=0)
    torch.testing.assert_close(tokens.flatten(0, 2).mean(0), pooled[2, 0, 1], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="layer: 0 has no class token, which joins at block 1"):
        late.embed(waves, RATE, "class", layer=-2 + 2)
    assert torch.equal(late.embed(waves, RATE, "class", layer=1), pooled[:, 1, 0])


# --- Bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (torch.full((RATE,), math.nan), r"waves\[3\]: has samples that are NaN"),
        (torch.zeros(0), r"waves\[3\]: expected .* audio in it"),
        (torch.zeros(RATE, dtype=torch.int16), r"waves\[3\]: expected floating-point"),
        (torch.zeros(48), r"waves\[3\]: 48 samples are shorter than one frame of 400"),
        (torch.zeros(2, RATE), r"waves\[3\]: expected one clip, \[samples\], got \(2, 16000\)"),
    ],
)
def test_the_clip_that_is_wrong_is_named(enc, waves, broken, message):
    for method in (enc.embed, enc.pooled):
        with pytest.raises(InputError, match=message):
            method([*waves[:3], broken, waves[4]], RATE)


def test_choices_that_cannot_be(enc, waves):
    for layer in (3, -3):
        with pytest.raises(
            InputError, match=rf"layers: \[{layer}\] not among the model's 2 blocks .* final output \(2\)"
        ):
            enc.embed(waves, RATE, layer=layer)
        with pytest.raises(InputError, match="not among"):
            enc.tokens(waves[0], RATE, layer=layer)
    with pytest.raises(InputError, match=r"layers: \[\] not among"):
        enc.pooled(waves, RATE, ())
    for overlap in (1.0, -0.1, math.nan):
        with pytest.raises(InputError, match=f"overlap: {overlap} is not a share"):
            enc.embed(waves, RATE, overlap=overlap)
    for method in (enc.tokens, enc.attention, enc.reconstruct):
        with pytest.raises(InputError, match="wave: not one array of samples .*different lengths, as a list"):
            method([waves[0].numpy(), waves[1].numpy()], RATE)
