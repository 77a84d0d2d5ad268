"""Rollout, distance and entropy of attention against weights whose answer is known, and what a clip's attention gives
against the encoder's."""

import math

import numpy as np
import pytest
import torch

from asit_lab import Encoder, InputError, load_config
from asit_lab.data.sources.synth import render_clip
from asit_lab.inspection.attention_statistics import patch_at
from asit_lab.inspection.clip_attention import (
    ClipAttention,
    attention_distance,
    last_window,
    patch_entropy,
    rollout,
    window,
)

RATE = 16000
GRID = (5, 3)
TOKENS = 1 + 15


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def encoders():
    """Softmax and differential attention, sharp enough to differ from even."""
    made = [Encoder.random(load_config("smoke", [f"model.attention={kind}"]), 0) for kind in ("softmax", "learned")]
    with torch.no_grad():
        for block in [*made[0].backbone.blocks, *made[1].backbone.blocks]:
            (block.attn.qkv if hasattr(block.attn, "qkv") else block.attn.qk).weight.mul_(8)
    return made


@pytest.fixture(scope="module")
def wave():
    return render_clip(0, 1, RATE)[: 3 * RATE]


# --- Rollout --------------------------------------------------------------------------------------------------------


def test_rollout_of_layers_by_hand():
    """Token 1 attends to 2 alone in layer 0, token 0 to 1 alone in layer 1; the others to themselves."""
    first, second = torch.eye(3), torch.eye(3)
    first[1], second[0] = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])
    found = rollout(torch.stack([first, second])[:, None])
    torch.testing.assert_close(found[0][1], torch.tensor([0.0, 0.5, 0.5]))
    torch.testing.assert_close(found[1][0], torch.tensor([0.5, 0.25, 0.25]))  # half stays, a quarter each of 1 and 2
    torch.testing.assert_close(found[1][2], torch.tensor([0.0, 0.0, 1.0]))


def test_rollout_of_equal_layers_is_a_power(random):
    attention = torch.rand(2, 6, 6, generator=random).softmax(-1)
    found = rollout(attention.expand(4, 2, 6, 6))
    step = (attention.mean(0) + torch.eye(6)) / 2
    for layers in range(1, 5):
        torch.testing.assert_close(found[layers - 1], torch.linalg.matrix_power(step, layers))


def test_rows_of_rollout_sum_to_one(random):
    signed = torch.randn(6, 3, TOKENS, TOKENS, generator=random)  # of differential attention
    signed[:2, :, 0] = math.nan  # before the class token joins
    found = rollout(signed)
    assert found.shape == (6, TOKENS, TOKENS) and (found >= 0).all()
    torch.testing.assert_close(found.sum(-1), torch.ones(6, TOKENS))
    torch.testing.assert_close(found[1][0], torch.eye(TOKENS)[0])
    assert (found[2][0] > 0).all()


def test_rollout_counts_magnitudes_head_by_head():
    """+0.9 and -0.9 of two heads do not cancel, and a row's sum does not weigh it."""
    heads = torch.tensor([[[0.1, 0.9], [0.0, 1.0]], [[0.1, -0.9], [0.0, 1.0]]])
    found = rollout(heads[None])
    torch.testing.assert_close(found[0], torch.tensor([[0.55, 0.45], [0.0, 1.0]]))
    torch.testing.assert_close(rollout(0.2 * heads[None]), found)


# --- Distance and entropy -------------------------------------------------------------------------------------------


def test_distance_of_the_identity_is_zero():
    time, freq = attention_distance(torch.eye(TOKENS).expand(2, 4, -1, -1), GRID)
    assert time.shape == freq.shape == (2, 4) and (time == 0).all() and (freq == 0).all()


def test_distance_of_even_attention_is_the_mean_of_all_pairs():
    places = [(t, f) for t in range(GRID[0]) for f in range(GRID[1])]
    time = np.mean([abs(one[0] - other[0]) for one in places for other in places])
    freq = np.mean([abs(one[1] - other[1]) for one in places for other in places])
    found = attention_distance(torch.full((TOKENS, TOKENS), 1 / TOKENS), GRID)
    assert [value.item() for value in found] == pytest.approx([time, freq])


def test_distance_of_one_place_each():
    """Every patch looks at the one two steps later (the last ones at themselves) in the next band, with a minus."""
    weights, expected = torch.zeros(TOKENS, TOKENS), []
    for t in range(GRID[0]):
        for f in range(GRID[1]):
            far = t + 2 < GRID[0]
            other = (t + 2, (f + 1) % 3) if far else (t, f)
            weights[1 + 3 * t + f, 1 + 3 * other[0] + other[1]] = -0.3
            weights[1 + 3 * t + f, 0] = 0.7  # the class token has no place
            expected.append((2 * far, abs(other[1] - f)))
    found = attention_distance(weights, GRID)
    assert [value.item() for value in found] == pytest.approx(np.mean(expected, axis=0).tolist())
    weights[1] = torch.eye(TOKENS)[0]  # a query that looks at the class token alone does not count
    found = attention_distance(weights, GRID)
    assert [value.item() for value in found] == pytest.approx(np.mean(expected[1:], axis=0).tolist())


def test_distance_wants_the_grid():
    with pytest.raises(InputError, match=r"weights: shape \[16, 16\] is not that of .* \(5, 4\) patches"):
        attention_distance(torch.eye(TOKENS), (5, 4))


def test_entropy_is_a_share_of_the_logarithm():
    even = torch.full((TOKENS, TOKENS), 1 / TOKENS)
    assert patch_entropy(even).item() == pytest.approx(1.0)
    assert patch_entropy(torch.eye(TOKENS)).item() == 0.0
    half = torch.zeros(TOKENS, TOKENS)
    half[:, :4] = 0.25
    half[0] = math.nan  # the class token's own row does not count
    assert patch_entropy(half).item() == pytest.approx(math.log(4) / math.log(TOKENS))


# --- A clip's attention ---------------------------------------------------------------------------------------------


def test_views_are_those_of_the_encoder(encoders, wave):
    for enc, kinds in zip(encoders, (("map",), ("first", "second", "map")), strict=True):
        found, maps = ClipAttention(enc, wave, RATE), enc.attention(wave, RATE, (0, 1))
        assert found.kinds == kinds and (found.layers, found.heads) == (2, 2) and found.grid == (18, 4)
        assert found.log_mel.shape == (288, 64)
        for kind in kinds:
            weights = getattr(maps, kind)[1, 0]
            np.testing.assert_allclose(found.weights(kind, 1, 0), weights[0])
            np.testing.assert_allclose(found.weights(kind, 1), (weights[0] + weights[1]) / 2, rtol=1e-5, atol=1e-8)
        rolled = found.rollout("map", 1)
        np.testing.assert_allclose(rolled.sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(rolled, rollout(maps.map[:, 0])[1], rtol=1e-5)
    assert found.lam.shape == (2,) and found.lam[0] == pytest.approx(maps.lam[0].item())


def test_measures_of_heads_and_of_their_mean(encoders, wave):
    found = ClipAttention(encoders[1], wave, RATE)
    for kind in found.kinds:
        measures = found.measures(kind)
        for layer in range(2):
            for column, head in enumerate((0, 1, None)):
                weights = torch.from_numpy(found.weights(kind, layer, head))
                time, freq = attention_distance(weights, found.grid)
                assert measures["time"][layer, column] == pytest.approx(0.16 * time.item(), rel=1e-4)  # s a patch
                assert measures["freq"][layer, column] == pytest.approx(16 * freq.item(), rel=1e-4)  # bands a patch
                assert measures["entropy"][layer, column] == pytest.approx(patch_entropy(weights).item(), rel=1e-4)
        assert all(values.shape == (2, 3) for values in measures.values())


def test_places_are_those_of_patch_at(encoders, wave):
    found = ClipAttention(encoders[0], wave, RATE)
    assert found.place(0) == "class token"
    for token in (1, 4, 5, 42, 72):
        start, _, end, _, low, _, high, _ = found.place(token).replace(",", "").split()
        middle = math.sqrt(max(float(low), 20) * float(high))  # Hz
        time, freq = patch_at(encoders[0], 288, (float(start) + float(end)) / 2, middle)
        assert 1 + 4 * time + freq == token


def test_a_window_is_a_stretch_of_the_clip_s_log_mel(encoders, wave):
    enc = encoders[0]  # 1 s: 6 patches of 16 frames
    whole = enc.log_mel(wave, RATE)[0]
    assert last_window(enc, len(wave)) == 18 - 6 and last_window(enc, RATE) == 0 and last_window(enc, 10) == 0
    for first in (0, 5, 12):
        seen = enc.log_mel(window(enc, wave, first), RATE)[0]
        assert seen.shape == (96, 64)
        torch.testing.assert_close(seen, whole[16 * first : 16 * first + 96], rtol=0, atol=2e-2)  # the mean differs
    short = wave[: RATE // 2]
    np.testing.assert_array_equal(window(enc, short), short)


def test_before_the_class_token_joins(wave):
    enc = Encoder.random(load_config("smoke", ["model.class_token_at=1"]), 0)
    found = ClipAttention(enc, wave, RATE)
    assert np.isnan(found.weights("map", 0)[0]).all() and (found.weights("map", 0)[1:, 0] == 0).all()
    assert np.isfinite(found.weights("map", 1)).all() and np.isfinite(found.rollout("map", 1)).all()
    assert all(np.isfinite(values).all() for values in found.measures("map").values())


def test_one_clip_at_a_time(encoders, wave):
    with pytest.raises(InputError, match="wave: 2 clips, expected one"):
        ClipAttention(encoders[0], np.stack([wave, wave]), RATE)
