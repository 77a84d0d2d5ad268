"""Level, colour and mixing of views: what they do to the energies, and what they do not depend on."""

import math

import pytest
import torch

from asit_lab.augment import change_colour, change_level, mix
from asit_lab.masking import draw_donors
from asit_lab.random import key

SCALE = 9.0  # natural-log units in a normalised one


@pytest.fixture
def clean() -> torch.Tensor:
    return torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(0))  # [V, B, T, M]


def keys(step: int = 0) -> torch.Tensor:
    return key(7, step, torch.arange(12), "augment")


def energy(normalised: torch.Tensor) -> torch.Tensor:
    return (normalised.double() * SCALE).exp()


def test_level_is_one_number_a_view_within_its_bounds(clean):
    decibels = 10 * torch.log10(energy(change_level(clean, keys(), 6.0, SCALE)) / energy(clean))
    torch.testing.assert_close(decibels, decibels[:, :, :1, :1].expand_as(decibels), atol=1e-3, rtol=0)
    levels = decibels[:, :, 0, 0].flatten()
    assert levels.abs().max() <= 6.0 and levels.unique().numel() == 12
    many = 10 * torch.log10(energy(change_level(torch.zeros(1, 4000, 1, 1), key(1, torch.arange(4000)), 6.0, SCALE)))
    assert many.min() < -5.9 and many.max() > 5.9 and abs(many.mean()) < 0.2


def test_colour_is_a_smooth_curve_over_the_bands_alike_in_every_frame():
    flat = torch.zeros(1, 4000, 2, 64)
    decibels = 10 * torch.log10(energy(change_colour(flat, key(1, torch.arange(4000)), 6.0, SCALE)))[0]  # [4000, T, M]
    torch.testing.assert_close(decibels[:, 0], decibels[:, 1])
    curves = decibels[:, 0]
    assert curves.mean(1).abs().max() < 1e-3  # the level is not changed
    steps = curves.diff(dim=1).abs()
    assert steps.max() < 6.0 * math.pi * 4 / 64  # of four waves that all are at their steepest
    angles = math.pi * (torch.arange(64) + 0.5) / 64
    heights = torch.stack([2 * (curves * torch.cos(k * angles)).mean(1) for k in (1, 2, 3, 4, 5)])
    most = heights.abs().amax(1)
    torch.testing.assert_close(most, torch.tensor([6.0, 3.0, 2.0, 1.5, 0.0], dtype=most.dtype), atol=0.02, rtol=0)


def test_mix_adds_energies_of_the_donor(clean):
    donors = draw_donors(keys(), 6)
    mixed = energy(mix(clean, keys(), donors, 0.4, SCALE)).flatten(0, 1)
    own, other = energy(clean).flatten(0, 1), energy(clean).flatten(0, 1)[donors]
    share = ((mixed - own) / (other - own)).flatten(1)  # mixed = (1 - share) own + share other
    torch.testing.assert_close(share, share[:, :1].expand_as(share), atol=1e-4, rtol=1e-3)
    assert share.min() > 0 and share.max() < 0.4 and share[:, 0].unique().numel() == 12


def test_a_view_depends_on_its_key_and_donor_alone(clean):
    donors = draw_donors(keys(), 6)
    whole = change_level(mix(clean, keys(), donors, 0.4, SCALE), keys(), 6.0, SCALE)
    part = change_level(mix(clean[:1], keys()[:6], donors[:6], 0.4, SCALE), keys()[:6], 6.0, SCALE)
    assert torch.equal(whole[:1], part)
    assert torch.equal(change_colour(whole, keys(), 6.0, SCALE)[:1], change_colour(part, keys()[:6], 6.0, SCALE))
    assert not torch.equal(whole, change_level(mix(clean, keys(1), donors, 0.4, SCALE), keys(1), 6.0, SCALE))


def test_nothing_asked_for_changes_nothing(clean):
    torch.testing.assert_close(change_level(clean, keys(), 0.0, SCALE), clean)
    torch.testing.assert_close(change_colour(clean, keys(), 0.0, SCALE), clean)
    silent = torch.full_like(clean, -math.inf)  # of a donor without any energy nothing can be added
    mixed = mix(torch.cat([clean, silent], dim=1), key(7, torch.arange(24)), torch.arange(24).roll(6), 0.3, SCALE)
    assert torch.isfinite(mixed[:, :6]).all()
