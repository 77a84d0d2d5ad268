"""Block corruption: areas, places, fillings and donors, and the batched drawing against drawing blocks one by one."""

import itertools

import numpy as np
import pytest
import torch

from asit_lab import masking
from asit_lab.config import load_config
from asit_lab.errors import InputError
from asit_lab.masking import (
    Masks,
    corrupt,
    donor_group,
    draw_donors,
    gmml,
    inverse_blocks,
    token_mask,
    visible_neighbours,
)
from asit_lab.random import fold, integers, key
from asit_lab.settings import MASK_KINDS, Mask

FRAMES, MELS, PATCH = 96, 64, (16, 16)


def mask_of(kind: str = "zeros", ratio: float = 0.7, **settings) -> Mask:
    """One kind of corruption with a fixed share."""
    return Mask(**{"kinds": {kind: 1.0}, "ratio": ratio, "ratio_min": ratio, "alien_ratio": ratio} | settings)


def keys_of(count: int, seed: int = 0) -> torch.Tensor:
    return key(seed, torch.arange(count), "test")


def draw(mask: Mask, count: int = 16, frames: int = FRAMES, mels: int = MELS, seed: int = 0) -> Masks:
    return gmml(keys_of(count, seed), frames, mels, mask, PATCH)


# --- one by one -----------------------------------------------------------------------------------------------------


def one_by_one(sample_key, kind: str, target: float, frames: int, mels: int, mask: Mask):
    """The plain procedure: draw a block, paste it, stop when the area is reached -> mask, blocks, area before the last.

    Only the random integers are shared with the package; geometry and stopping rule are written out.
    """
    covered = np.zeros((frames, mels), bool)
    blocks, before = 0, 0
    align = PATCH if mask.align else (1, 1)
    while covered.sum() < target and blocks < 64 * 60:
        before = covered.sum()
        round_, place = divmod(blocks, 60)
        sides = []
        for name, size, unit in (("frames", frames, align[0]), ("mels", mels, align[1])):
            side_key = fold(sample_key, "blocks", round_, name)
            longest = max(int(mask.block * size), unit + 1)
            single = int(np.round((longest - 1) / unit)) == 1
            # Blocks of one unit may start in the last one where the rest, 3 of 4 rows of patches, does not suffice.
            starts = size if single and mask.ratio > 0.75 else max(1, size - unit)
            start = int(integers(fold(side_key, "start"), 60, starts)[place]) // unit * unit
            length = min(unit + int(integers(fold(side_key, "length"), 60, longest - unit)[place]), size - start)
            sides.append((start, start + int(np.round(length / unit)) * unit))
        (top, bottom), (left, right) = sides
        if kind == "time":
            left, right = 0, mels
        if kind == "frequency":
            top, bottom = 0, frames
        covered[top:bottom, left:right] = True
        blocks += 1
    return covered, blocks, before


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(
    ("kind", "ratio"),
    [("zeros", 0.7), ("alien", 0.3), ("noise", 0.74), ("zeros", 0.8), ("time", 0.5), ("frequency", 0.5), ("none", 1)],
)
def test_equal_to_drawing_blocks_one_by_one(kind, ratio, align):
    mask = mask_of(kind, ratio, align=align)
    masks = draw(mask, 6)
    target = np.float32(ratio) * np.float32(FRAMES * MELS) if kind != "none" else 0.0
    for i, sample_key in enumerate(keys_of(6)):
        wanted, blocks, before = one_by_one(sample_key, kind, target, FRAMES, MELS, mask)
        np.testing.assert_array_equal(masks.pixels[i].numpy(), wanted)
        assert masks.blocks[i] == blocks
        assert before < max(target, 1)


@pytest.mark.slow
def test_equal_to_one_by_one_over_several_rounds():
    mask = mask_of(ratio=0.95, block=0.15)
    masks = draw(mask, 2)
    assert masks.blocks.min() > 120  # three rounds of 60 and more
    for i, sample_key in enumerate(keys_of(2)):
        wanted, blocks, _ = one_by_one(sample_key, "zeros", 0.95 * FRAMES * MELS, FRAMES, MELS, mask)
        np.testing.assert_array_equal(masks.pixels[i].numpy(), wanted)
        assert masks.blocks[i] == blocks


def test_first_cover_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(3, 60, 20, generator=generator) < torch.tensor([0.02, 0.3, 0.9])[:, None, None]
    cols = torch.rand(3, 60, 12, generator=generator) < torch.tensor([0.1, 0.3, 0.9])[:, None, None]
    first = masking._first_cover(rows, cols)
    over = rows[:, :, :, None] & cols[:, :, None, :]  # [B, K, T, M]
    wanted = torch.where(over.any(1), over.int().argmax(1), 60)
    assert torch.equal(first.clamp(max=60).long(), wanted)
    assert (wanted == 60).any()
    assert (wanted < 60).any()


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_first_cover_is_exact_under_sixty_overlapping_blocks(precision):
    """Pixel t lies under the blocks t, t+1, ..., 59: the nearest that weights come to the next power; and alone."""
    block, pixel = torch.arange(60)[:, None], torch.arange(61)[None]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        stacked = masking._first_cover((block >= pixel)[None], torch.ones(1, 60, 2, dtype=torch.bool))
        alone = masking._first_cover((block == pixel)[None], torch.ones(1, 60, 2, dtype=torch.bool))
    finally:
        torch.set_float32_matmul_precision(before)
    assert stacked[0, :60, 0].tolist() == alone[0, :60, 1].tolist() == list(range(60))
    assert (stacked[0, 60] >= 60).all()


# --- areas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(("frames", "mels"), [(96, 128), (592, 128), (128, 80), (16, 16)])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.8])
def test_share_is_reached_and_exceeded_by_less_than_a_block(ratio, frames, mels, align):
    masks = draw(mask_of(ratio=ratio, align=align), 6, frames, mels)
    area = masks.pixels.sum((1, 2))
    unit = PATCH if align else (1, 1)
    longest = [max(int(0.3 * size) - 1, u) for size, u in zip((frames, mels), unit, strict=True)]
    largest = np.prod([round(length / u) * u for length, u in zip(longest, unit, strict=True)])
    target = float(np.float32(ratio) * np.float32(frames * mels))
    assert (area >= target).all()
    assert (area < target + int(largest)).all()


@pytest.mark.parametrize("align", [False, True])
def test_every_patch_can_be_corrupted(align):
    share = draw(mask_of(ratio=0.5, align=align), 200, 96, 128).tokens(PATCH).float().mean(0)
    assert share.min() > 0.02


def test_the_last_patch_is_reached_where_the_share_needs_it():
    """With 64 mel bands, 30 % of a side is one patch, and as released no block starts in the last one: 3 of 4 rows."""
    share = draw(mask_of(ratio=0.7, align=True), 100).tokens(PATCH).float().mean(dim=(0, 1))
    assert (share[:-1] > 0.9).all() and share[-1] == 0
    share = draw(mask_of(ratio=0.76, align=True), 100).tokens(PATCH).float().mean(dim=(0, 1))
    assert (share > 0.6).all()
    assert (draw(mask_of(ratio=0.7, align=True), 100, 64, 64).tokens(PATCH).float().mean((1, 2)) >= 0.7).all()
    assert draw(mask_of(ratio=1.0, align=True), 2).pixels.all()
    assert draw(mask_of(ratio=1.0, align=True), 2, 16, 16).pixels.all()


def test_ratio_nought_and_one():
    nought = draw(mask_of(ratio=0.0))
    assert not nought.pixels.any()
    assert (nought.blocks == 0).all()
    assert draw(mask_of(ratio=1.0, align=True), 2, 96, 128).pixels.all()
    nearly = draw(mask_of(ratio=1.0), 2)  # corners are hardly ever hit; it ends all the same
    assert (nearly.pixels.float().mean((1, 2)) > 0.98).all()
    assert (nearly.blocks <= 64 * 60).all()


@pytest.mark.slow
def test_ratio_range_is_uniform():
    masks = draw(mask_of(ratio=0.6, ratio_min=0.2, block=0.05), 600, 64, 64)  # blocks of at most 2 x 2 pixels
    share = masks.pixels.float().mean((1, 2))
    assert share.min() >= 0.2
    assert share.max() < 0.6 + 4 / 64**2
    assert share.mean().item() == pytest.approx(0.4, abs=4 * 0.4 / 12**0.5 / 600**0.5)
    assert share.std().item() == pytest.approx(0.4 / 12**0.5, rel=0.1)


def test_lower_end_above_the_ratio_counts_as_the_ratio():
    wide, narrow = mask_of(ratio=0.3, ratio_min=0.7), mask_of(ratio=0.3)
    assert torch.equal(draw(wide).pixels, draw(narrow).pixels)


@pytest.mark.parametrize(("size", "block", "longest"), [(592, 0.3, 176), (128, 0.3, 37), (64, 1.0, 63), (64, 0.01, 1)])
def test_block_sides_have_an_exclusive_upper_bound(size, block, longest):
    sides = masking._sides(keys_of(400), size, block, 1, torch.zeros(400, dtype=torch.bool))
    lengths = sides.sum(-1)
    assert lengths.max() == longest
    assert lengths.min() == 1
    edges = sides.int().diff(dim=-1).abs().sum(-1)
    assert (edges <= 2).all()  # one stretch each


# --- kinds ----------------------------------------------------------------------------------------------------------


def test_alignment():
    aligned = draw(mask_of(align=True))
    patches = aligned.pixels.float().reshape(16, FRAMES // 16, 16, MELS // 16, 16).mean((2, 4))
    assert ((patches == 0) | (patches == 1)).all()
    loose = draw(mask_of(align=False))
    patches = loose.pixels.float().reshape(16, FRAMES // 16, 16, MELS // 16, 16).mean((2, 4))
    assert ((patches > 0) & (patches < 1)).any()


@pytest.mark.parametrize("align", [False, True])
def test_strips_are_full(align):
    time = draw(mask_of("time", 0.5, align=align)).pixels
    assert torch.equal(time.any(2), time.all(2))
    assert not time.any(2).all()
    frequency = draw(mask_of("frequency", 0.5, align=align)).pixels
    assert torch.equal(frequency.any(1), frequency.all(1))
    assert not frequency.any(1).all()


def test_odds():
    masks = draw(mask_of(ratio=0.0, kinds={"zeros": 1.0, "alien": 1.0}), 4000)
    counts = torch.bincount(masks.kind, minlength=6)
    assert counts[MASK_KINDS.index("zeros")] + counts[MASK_KINDS.index("alien")] == 4000
    assert abs(counts[0] - 2000) < 4 * (4000 * 0.25) ** 0.5
    masks = draw(mask_of(ratio=0.0, kinds={"noise": 3.0, "time": 0.0, "frequency": 2.0, "none": 5.0}), 4000)
    shares = torch.bincount(masks.kind, minlength=6) / 4000
    for name, wanted in {"zeros": 0.0, "noise": 0.3, "alien": 0.0, "time": 0.0, "frequency": 0.2, "none": 0.5}.items():
        assert abs(shares[MASK_KINDS.index(name)] - wanted) <= 4 * (wanted * (1 - wanted) / 4000) ** 0.5


@pytest.mark.parametrize(("drawn", "kind"), [(0.0, "noise"), (0.375, "time"), (1 - 2**-24, "frequency")])
def test_odds_at_their_edges(monkeypatch, drawn, kind):
    """The smallest, a middle and the largest number there is fall on kinds whose odds are not 0."""
    monkeypatch.setattr(masking, "uniform", lambda keys, n: torch.full((len(keys), n), drawn))
    mask = mask_of(ratio=0.0, kinds={"noise": 3.0, "time": 1.0, "frequency": 4.0, "none": 0.0})
    assert set(draw(mask, 3).kind.tolist()) == {MASK_KINDS.index(kind)}


def test_the_two_views_of_the_paper():
    masks = draw(load_config("asit-vit-s").mask, 60)
    share = masks.pixels.float().mean((1, 2))
    zeros, alien = (masks.kind == MASK_KINDS.index(name) for name in ("zeros", "alien"))
    assert ((share[zeros] >= 0.7) & (share[zeros] < 0.8)).all()
    assert ((share[alien] >= 0.3) & (share[alien] < 0.4)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fillings(dtype):
    count = 32
    clean = torch.randn(count, FRAMES, MELS, generator=torch.Generator().manual_seed(0), dtype=dtype)
    keys = keys_of(count)
    masks = draw(mask_of(ratio=0.5, kinds=dict.fromkeys(MASK_KINDS, 1.0)), count)
    assert set(masks.kind.tolist()) == set(range(6))
    donors = draw_donors(keys, 8)
    before = clean.clone()
    corrupted = corrupt(clean, masks, keys, donors)
    assert torch.equal(clean, before)
    assert corrupted.dtype == dtype
    assert torch.equal(corrupted[~masks.pixels], clean[~masks.pixels])
    for i, place in enumerate(masks.kind.tolist()):
        inside = corrupted[i][masks.pixels[i]]
        match MASK_KINDS[place]:
            case "zeros" | "time" | "frequency":
                assert inside.numel() > 0
                assert (inside == 0).all()
            case "alien":
                assert torch.equal(inside, clean[donors[i]][masks.pixels[i]])
                assert not torch.equal(inside, clean[i][masks.pixels[i]])
            case "none":
                assert inside.numel() == 0
            case "noise":
                assert abs(inside.mean()) < 4 * 0.5 / inside.numel() ** 0.5
                assert inside.std().item() == pytest.approx(0.5, rel=0.1)


def test_noise_depends_on_the_key_of_its_view_alone():
    clean, keys = torch.zeros(6, FRAMES, MELS), keys_of(6)
    masks = draw(mask_of("noise"), 6)
    whole = corrupt(clean, masks, keys)
    part = Masks(masks.pixels[4:], masks.kind[4:], masks.blocks[4:])
    assert torch.equal(corrupt(clean[4:], part, keys[4:]), whole[4:])
    assert not torch.equal(whole[0][masks.pixels[0] & masks.pixels[1]], whole[1][masks.pixels[0] & masks.pixels[1]])


# --- same keys, same masks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3 * FRAMES * MELS, 1 << 30])
def test_masks_do_not_depend_on_batch_or_chunk(monkeypatch, chunk):
    mask = mask_of(ratio_min=0.3, kinds=dict.fromkeys(MASK_KINDS, 1.0))
    keys = keys_of(12)
    whole = gmml(keys, FRAMES, MELS, mask, PATCH)
    monkeypatch.setattr(masking, "_CPU_CHUNK", chunk)
    for size in (1, 5, 12):
        parts = [gmml(part, FRAMES, MELS, mask, PATCH) for part in keys.split(size)]
        for name in ("pixels", "kind", "blocks"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    turned = gmml(keys.flip(0), FRAMES, MELS, mask, PATCH)
    assert torch.equal(turned.pixels.flip(0), whole.pixels)


def test_other_keys_other_masks():
    pixels = draw(mask_of(), 8).pixels
    assert len({tuple(p.flatten().tolist()) for p in pixels}) == 8


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_token_mask_counts_from_half_a_patch():
    pixels = torch.zeros(1, 8, 12, dtype=torch.bool)
    pixels[0, :4, 4:6] = True  # exactly half of the patch at (0, 1)
    pixels[0, 4:8, 8:10] = True
    pixels[0, 7, 8] = False  # one pixel less than half of (1, 2)
    wanted = torch.tensor([[[False, True, False], [False, False, False]]])
    assert torch.equal(token_mask(pixels, (4, 4)), wanted)
    masks = Masks(pixels, torch.zeros(1), torch.zeros(1))
    assert torch.equal(masks.tokens((4, 4)), wanted)
    assert masks.tokens((8, 2)).shape == (1, 1, 6)


# --- donors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [2, 3, 8])
def test_donor_is_another_clip_of_the_group(group):
    drawn = torch.stack([draw_donors(keys_of(24, seed), group) for seed in range(60)])  # [draws, 24]
    place = torch.arange(24)
    assert (drawn != place).all()
    assert torch.equal(drawn // group, (place // group).expand_as(drawn))
    for i in range(24):
        assert len(set(drawn[:, i].tolist())) == group - 1  # each of the others has its turn


@pytest.mark.parametrize("chunk", [1, 100_000])  # pixels: a view at a time, all views at once
def test_visible_neighbours_against_a_loop(monkeypatch, chunk):
    monkeypatch.setattr(masking, "_NEIGHBOURS_CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    log_mel, mask = torch.randn(3, 9, 5, generator=generator), torch.rand(3, 9, 5, generator=generator) < 0.6
    mask[0, :, 1], mask[1, :, 2], mask[2, 0], mask[2, -1] = True, False, True, True
    before, after, line = visible_neighbours(log_mel, mask)
    for clip, band in itertools.product(range(3), range(5)):
        visible = torch.nonzero(~mask[clip, :, band]).flatten().tolist()
        for frame in range(9):
            earlier, later = [v for v in visible if v <= frame], [v for v in visible if v >= frame]
            first = (earlier or later or [None])[-1 if earlier else 0]
            last = (later or earlier or [None])[0 if later else -1]
            wanted = [0.0 if place is None else log_mel[clip, place, band].item() for place in (first, last)]
            share = 0.0 if first == last else (frame - first) / (last - first)
            wanted.append(wanted[0] + share * (wanted[1] - wanted[0]))
            found = [part[clip, frame, band].item() for part in (before, after, line)]
            assert found == pytest.approx(wanted, abs=1e-6)


def test_what_would_broadcast_or_lack_is_refused():
    keys, clean = keys_of(8), torch.randn(8, 96, 64)
    masks = gmml(keys, 96, 64, Mask(kinds={"alien": 1.0}), (16, 16))
    with pytest.raises(InputError, match='kind "alien" need donors'):
        corrupt(clean, masks, keys)
    for wrong in (clean[:, None], clean[:1], clean[..., :32]):
        with pytest.raises(InputError, match=r"shape of clean is .* expected \[B, T, M\]"):
            corrupt(wrong, masks, keys, draw_donors(keys, 8))
    for group in (1, 3):
        with pytest.raises(InputError, match=f"group: {group} neighbours; expected at least 2 that divide"):
            draw_donors(keys, group)
    with pytest.raises(InputError, match="pixels: 96 x 64 are not a whole number of patches of 16 x 20"):
        token_mask(masks.pixels, (16, 20))
    with pytest.raises(InputError, match="block: 0 patches"):
        inverse_blocks(keys, (6, 4), block=0)


def test_donors_do_not_depend_on_how_the_batch_is_split():
    keys = keys_of(32)
    whole = draw_donors(keys, 8)
    parts = [draw_donors(part, 8) + 16 * i for i, part in enumerate(keys.split(16))]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("batch", range(2, 70))
def test_donor_group_divides_the_batch(batch):
    group = donor_group(batch)
    assert 2 <= group <= batch
    assert batch % group == 0
    if batch % 8 == 0:
        assert group == 8
