"""Inverse-block masks: how many patches stay visible, and which, against the plain procedure mask by mask."""

import pytest
import torch

from asit_lab.errors import InputError
from asit_lab.masking import inverse_blocks
from asit_lab.random import bits, fold, integers, key

GRIDS = [(64, 8), (24, 4), (12, 4), (4, 2), (4, 8), (2, 3), (5, 1)]


def keys_of(count: int, seed: int = 0) -> torch.Tensor:
    return key(seed, torch.arange(count), "test")


def one_by_one(mask_key: torch.Tensor, grid: tuple[int, int], visible: float, block: int) -> list[int]:
    """The plain procedure, patch by patch; only the random integers are shared with the package."""
    time, mel = grid
    keep = int(time * mel * visible)
    under = set()
    blocks = max(1, int(time * mel * (visible + 0.07) / block**2))
    for centre in integers(fold(mask_key, "centres"), blocks, time * mel):
        row, column = divmod(int(centre), mel)
        for t in range(row - block // 2, row - block // 2 + block):
            for m in range(column - block // 2, column - block // 2 + block):
                if 0 <= t < time and 0 <= m < mel:
                    under.add(t * mel + m)
    lots = [(int(lot) >> 2) % (1 << 61) for lot in bits(fold(mask_key, "lots"), time * mel)]
    first_blocks = sorted(range(time * mel), key=lambda patch: (patch not in under, -lots[patch]))
    return sorted(first_blocks[:keep])


@pytest.mark.parametrize(("grid", "visible", "block"), [((64, 8), 0.2, 5), ((12, 4), 0.26, 3), ((4, 8), 0.4, 2)])
def test_equal_to_placing_blocks_one_by_one(grid, visible, block):
    found, _ = inverse_blocks(keys_of(8), grid, visible, block)
    for mask_key, mine in zip(keys_of(8), found.tolist(), strict=True):
        assert mine == one_by_one(mask_key, grid, visible, block)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("block", [1, 2, 3, 5])
def test_exactly_a_fifth_is_visible_on_any_grid(grid, block):
    patches = grid[0] * grid[1]
    visible, hidden = inverse_blocks(keys_of(50), grid, 0.2, block)
    assert visible.shape == (50, patches // 5) and visible.dtype == torch.int64
    assert hidden.shape == (50, patches) and hidden.dtype == torch.bool
    assert (hidden.sum(1) == patches - patches // 5).all()
    assert not hidden.gather(1, visible).any()
    assert (visible.diff(dim=1) > 0).all()  # ascending, none twice
    assert len({tuple(row) for row in visible.tolist()}) > 1


@pytest.mark.parametrize("share", [0.1, 0.29, 0.5, 0.8])
def test_the_share_is_rounded_down(share):
    visible, _ = inverse_blocks(keys_of(3), (10, 10), share)
    assert visible.shape[1] == round(100 * share)


@pytest.mark.parametrize(("grid", "block"), [((64, 8), 5), ((24, 4), 3), ((12, 4), 3), ((6, 4), 5)])
def test_what_is_visible_hangs_together(grid, block):
    """A visible patch has far more visible neighbours than among as many drawn one by one (block 1)."""

    def pairs(side: int) -> float:
        open_ = ~inverse_blocks(keys_of(300), grid, 0.2, side)[1].view(-1, *grid)
        beside = (open_[:, 1:] & open_[:, :-1]).sum() + (open_[:, :, 1:] & open_[:, :, :-1]).sum()
        return beside.item() / 300

    assert pairs(block) > 1.5 * pairs(1)


def test_every_patch_is_sometimes_visible_and_mostly_hidden():
    seen = (~inverse_blocks(keys_of(2000), (12, 4), 0.2, 3)[1]).float().mean(0)
    assert seen.min() > 0.05 and seen.max() < 0.4
    assert seen.mean().item() == pytest.approx(9 / 48)


def test_a_mask_depends_on_its_key_alone():
    visible, hidden = inverse_blocks(keys_of(6), (24, 4))
    some, some_hidden = inverse_blocks(keys_of(6)[2:4], (24, 4))
    assert torch.equal(some, visible[2:4]) and torch.equal(some_hidden, hidden[2:4])
    assert not torch.equal(inverse_blocks(keys_of(6, seed=1), (24, 4))[0], visible)


@pytest.mark.parametrize(("grid", "share"), [((2, 2), 0.2), ((4, 4), 1.0), ((4, 4), 0.0)])
def test_something_must_be_visible_and_something_hidden(grid, share):
    with pytest.raises(InputError, match=rf"visible: {share:g} of {grid[0] * grid[1]} patches leaves none"):
        inverse_blocks(keys_of(2), grid, share)
