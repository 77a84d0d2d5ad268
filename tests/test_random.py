"""Counted randomness: right distributions, no memory, no dependence between streams, and values that never change."""

import math

import pytest
import torch

from asit_lab import random

N = 100_000


def _splitmix64(state: int, n: int) -> list[int]:
    """`n` outputs of the published SplitMix64 generator, in Python's unbounded integers."""
    mask, outputs = (1 << 64) - 1, []
    for _ in range(n):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        outputs.append(z ^ (z >> 31))
    return outputs


def _correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1].item()


# --- The numbers themselves -----------------------------------------------------------------------------------------


def test_mixing_is_splitmix64():
    """One round over a counter is the published generator; its first outputs from state 1234567 are well known."""
    state = 1234567
    expected = _splitmix64(state, 5)
    assert expected[:2] == [6457827717110365317, 3203168211198807973]
    counter = state + torch.arange(1, 6, dtype=torch.int64) * random._GAMMA
    assert [value & ((1 << 64) - 1) for value in random._mix(counter).tolist()] == expected


def test_frozen_values():
    """Runs of older versions repeat only while these stay."""
    keys = random.key(42, 7, torch.arange(2), "crop")
    assert random.key(42, 7, "crop").item() == -6923007063578174850
    assert keys.tolist() == [1671033906721958329, -3874623113514247757]
    assert random.bits(keys, 2).tolist() == [
        [4171272124826297434, 4996408087615327582],
        [-8099041947112984122, -3382930920574933623],
    ]
    assert random.uniform(keys, 2).tolist() == [
        [0.2261250615119934, 0.27085578441619873],
        [0.5609500408172607, 0.8166109323501587],
    ]
    assert random.integers(keys, 4, 100).tolist() == [[22, 27, 11, 81], [56, 81, 31, 89]]
    assert random.permutation(random.key(0, "order"), 8).tolist() == [6, 0, 3, 7, 4, 1, 5, 2]
    # The logarithm and cosine of Box-Muller may differ in the last bits between processors.
    expected = torch.tensor([[0.5407880, 0.3374418], [-0.5406371, 1.4858896]])
    torch.testing.assert_close(random.normal(keys, 2), expected, atol=1e-6, rtol=0)


def test_same_key_same_numbers():
    first = random.uniform(random.key(3, 17, torch.arange(8), "crop"), 5)
    random.normal(random.key(9), 1000)  # draws in between leave no trace
    torch.manual_seed(0)
    again = random.uniform(random.key(3, 17, torch.arange(8), "crop"), 5)
    assert torch.equal(first, again)
    assert first.shape == (8, 5)


def test_a_sample_does_not_depend_on_its_batch():
    whole = random.uniform(random.key(0, 4, torch.arange(32), "mask"), 7)
    part = random.uniform(random.key(0, 4, torch.tensor([30, 5]), "mask"), 7)
    assert torch.equal(whole[[30, 5]], part)
    assert torch.equal(random.uniform(random.key(0, 4, 30, "mask"), 7), whole[30])


def test_more_numbers_begin_with_the_same_ones():
    key = random.key(1, "x")
    assert torch.equal(random.uniform(key, 100)[:10], random.uniform(key, 10))
    assert torch.equal(random.integers(key, 100, 50)[:10], random.integers(key, 10, 50))


def test_fold_is_key_continued():
    assert torch.equal(random.fold(random.key(5, 1), 2, "b"), random.key(5, 1, 2, "b"))


def test_fold_broadcasts():
    keys = random.fold(random.key(0, torch.arange(3))[:, None], torch.arange(4))
    assert keys.shape == (3, 4)
    assert keys.unique().numel() == 12
    assert torch.equal(keys[2, 1], random.key(0, 2, 1))


def test_large_and_negative_seeds():
    keys = [random.key(seed).item() for seed in (0, 1, -1, 2**63 - 1, 2**40)]
    assert len(set(keys)) == 5


# --- Distributions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [random.key(0), random.key(1, 2, 3, "crop")])
def test_uniform_is_uniform(key):
    u = random.uniform(key, N)
    assert u.dtype == torch.float32
    assert u.min() >= 0 and u.max() < 1
    counts = torch.histc(u.double(), 100, 0, 1)
    chi2 = ((counts - N / 100) ** 2 / (N / 100)).sum().item()
    assert 50 < chi2 < 160, "99 degrees of freedom: mean 99, standard deviation 14"


def test_uniform_over_keys_is_uniform():
    """The masking draws a few numbers from each of many keys: those must be spread as evenly."""
    u = random.uniform(random.key(0, torch.arange(N), "mask"), 1)[:, 0]
    chi2 = ((torch.histc(u.double(), 100, 0, 1) - N / 100) ** 2 / (N / 100)).sum().item()
    assert 50 < chi2 < 160


def test_normal_has_the_moments_and_tails_of_a_normal():
    x = random.normal(random.key(7, "noise"), N).double()
    assert abs(x.mean()) < 4 / math.sqrt(N)
    assert abs(x.var() - 1) < 4 * math.sqrt(2 / N)
    assert abs((x**3).mean()) < 4 * math.sqrt(15 / N)
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / N)
    beyond = (x.abs() > 3).double().mean().item()
    assert abs(beyond - 0.0027) < 4 * math.sqrt(0.0027 / N)
    assert torch.isfinite(x).all()


def test_integers_cover_their_range_evenly():
    x = random.integers(random.key(2, "donor"), N, 7)
    counts = torch.bincount(x, minlength=7)
    assert x.dtype == torch.int64 and counts.numel() == 7
    chi2 = ((counts - N / 7) ** 2 / (N / 7)).sum().item()
    assert chi2 < 22.5, "6 degrees of freedom: 22.5 is exceeded once in a thousand"


def test_integers_of_one_choice_and_of_a_large_range():
    assert random.integers(random.key(0), 50, 1).unique().tolist() == [0]
    x = random.integers(random.key(0), N, 2**31 - 1)
    assert x.min() >= 0 and x.max() < 2**31 - 1
    assert abs(x.double().mean() / 2**31 - 0.5) < 4 * math.sqrt(1 / 12 / N)


def test_integers_with_a_bound_for_each():
    high = torch.arange(1, 9)
    x = random.integers(random.key(0, torch.arange(2000)), 8, high)
    assert (x >= 0).all() and (x < high).all()
    assert torch.equal(x.amax(0), high - 1), "every upper end is reached"


@pytest.mark.parametrize("n", [1, 2, 17, 4096])
def test_permutation_is_one(n):
    order = random.permutation(random.key(0, 3, "order"), n)
    assert torch.equal(order.sort().values, torch.arange(n))


def test_every_order_is_as_likely():
    orders = torch.stack([random.permutation(random.key(0, epoch, "order"), 3) for epoch in range(3000)])
    counts = (orders * torch.tensor([9, 3, 1])).sum(1).unique(return_counts=True)[1]
    assert counts.numel() == 6
    assert ((counts - 500) ** 2 / 500).sum() < 20.5, "5 degrees of freedom: 20.5 is exceeded once in a thousand"


# --- Independence ---------------------------------------------------------------------------------------------------

PAIRS = {
    "purpose": (random.key(0, 5, "crop"), random.key(0, 5, "mask")),
    "step": (random.key(0, 5, "crop"), random.key(0, 6, "crop")),
    "seed": (random.key(0, 5, "crop"), random.key(1, 5, "crop")),
    "order of parts": (random.key(0, 5, 6), random.key(0, 6, 5)),
    "seed and step swapped": (random.key(3, 4), random.key(4, 3)),
    "one part more": (random.key(0, 5), random.key(0, 5, 0)),
}


@pytest.mark.parametrize("what", PAIRS)
def test_streams_are_independent(what):
    a, b = (random.uniform(key, N) for key in PAIRS[what])
    for shift in (0, 1, 2):
        assert abs(_correlation(a[shift:], b[: N - shift])) < 4.5 / math.sqrt(N)
    assert (a == b).double().mean() < 1e-3


def test_neighbours_within_a_stream_and_across_samples_are_independent():
    u = random.uniform(random.key(0, torch.arange(1000), "mask"), 100)
    assert abs(_correlation(u[:, :-1].flatten(), u[:, 1:].flatten())) < 4.5 / math.sqrt(99_000)
    assert abs(_correlation(u[:-1].flatten(), u[1:].flatten())) < 4.5 / math.sqrt(99_900)


def test_no_two_of_many_keys_collide():
    keys = random.fold(random.key(0, torch.arange(300))[:, None], torch.arange(1000), "crop")
    assert keys.unique().numel() == 300_000


def test_one_flipped_input_bit_flips_half_of_the_output():
    base = random.bits(random.key(0, 1000), 64)
    shares = []
    for bit in range(63):
        flipped = base ^ random.bits(random.key(0, 1000 ^ (1 << bit)), 64)
        shares.append(sum(bin(value & ((1 << 64) - 1)).count("1") for value in flipped.tolist()) / 64**2)
    assert min(shares) > 0.45 and max(shares) < 0.55
