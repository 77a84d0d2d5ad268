"""What is hidden of a log-mel, for a whole batch and on its device: GMML's corruption and ASDA's inverse-block masks.

GMML: a view is corrupted by blocks: rectangles of random place and size, added one by one until the drawn share of the
pixels is covered (ASiT, arXiv 2211.13189, section III-A; SiT, arXiv 2104.03602). What stands in the blocks is its
kind: zeros (the mean level), noise, or the same place of another clip ("alien"); "time" and "frequency" are zeros in
full strips. Sizes and places follow the released code, whose random bounds are exclusive at the upper end.
Inverse-block masks: a few blocks of patches stay visible and nothing else does (`inverse_blocks`).

Shapes: B views, T frames, M mel bands; patch (p, q); tokens (T / p, M / q). Masks are True where corrupted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import InputError
from .random import bits, fold, integers, normal, uniform
from .settings import MASK_KINDS, Mask, visible_of

_ROUND = 60  # blocks looked at together; see _first_cover
_MAX_ROUNDS = 64  # a share so close to 1 that 3,840 blocks miss it is left at what they cover
_CPU_CHUNK = 1 << 19  # pixels a CPU works on at once, so that its cache holds them
_NEIGHBOURS_CHUNK = 100_000  # the same for whole numbers of 8 bytes in place of pixels: twice as fast as all at once
NOISE_STD = 0.5  # of a normalised log-mel: (x - mean) / (2 std)
TOKEN_SHARE = 0.5  # a token counts as corrupted when at least half of its pixels are
BLOCK_EXTRA = 0.07  # share of the patches by which ASDA's blocks together are larger than the share wanted visible


@dataclass(frozen=True)
class Masks:
    """What is corrupted in a batch of views."""

    pixels: Tensor
    """bool [B, T, M], True = corrupted"""
    kind: Tensor
    """int64 [B], place in settings.MASK_KINDS"""
    blocks: Tensor
    """int64 [B], blocks drawn"""

    def tokens(self, patch: tuple[int, int]) -> Tensor:
        """bool [B, T/p, M/q], see `token_mask`."""
        return token_mask(self.pixels, patch)


def token_mask(pixels: Tensor, patch: tuple[int, int]) -> Tensor:
    """Pixel mask bool [B, T, M] -> token mask bool [B, T/p, M/q]: True where at least half of a patch is corrupted.

    Raises InputError unless T and M are whole numbers of patches.
    """
    batch, frames, mels = pixels.shape
    if frames % patch[0] or mels % patch[1]:
        raise InputError(f"pixels: {frames} x {mels} are not a whole number of patches of {patch[0]} x {patch[1]}")
    patches = pixels.reshape(batch, frames // patch[0], patch[0], mels // patch[1], patch[1])
    return patches.float().mean(dim=(2, 4)) >= TOKEN_SHARE


def gmml(keys: Tensor, frames: int, mels: int, mask: Mask, patch: tuple[int, int]) -> Masks:
    """Draw the masks of a batch.

    keys: int64 [B], one key of asit_lab.random a view; the same key gives the same mask on every device.
    frames, mels: size of a view in pixels. patch: frames, mel bands of a patch (for `mask.align`).
    """
    odds = torch.tensor([mask.odds[kind] for kind in MASK_KINDS], device=keys.device)
    kind = torch.searchsorted(odds.cumsum(0), uniform(fold(keys, "kind"), 1), right=True).squeeze(-1)
    kind = kind.clamp(max=int(odds.nonzero().max()))  # odds may sum to a little less than 1
    low, high = min(mask.ratio_min, mask.ratio), mask.ratio
    share = low + (high - low) * uniform(fold(keys, "share"), 1).squeeze(-1)
    share = torch.where(kind == MASK_KINDS.index("alien"), mask.alien_ratio, share)
    share = torch.where(kind == MASK_KINDS.index("none"), 0.0, share)
    chunk = max(1, _CPU_CHUNK // (frames * mels)) if keys.device.type == "cpu" else len(keys)
    target = share * (frames * mels)
    parts = zip(keys.split(chunk), kind.split(chunk), target.split(chunk), strict=True)
    covers = [_cover(*part, frames, mels, mask, patch) for part in parts]
    return Masks(torch.cat([c[0] for c in covers]), kind, torch.cat([c[1] for c in covers]))


def corrupt(clean: Tensor, masks: Masks, keys: Tensor, donors: Tensor | None = None) -> Tensor:
    """Fill the masked pixels of normalised log-mels.

    clean: float [B, T, M]. keys: int64 [B], as for `gmml`. donors: int64 [B], for each view the view its alien blocks
    come from (see `draw_donors`); needed only where a kind is "alien".
    Raises InputError for shapes that differ, and for alien blocks without donors.
    """
    if clean.shape != masks.pixels.shape or keys.shape != clean.shape[:1]:
        shapes = f"{tuple(clean.shape)}, of keys {tuple(keys.shape)}, of masks {tuple(masks.pixels.shape)}"
        raise InputError(f"corrupt: shape of clean is {shapes}; expected [B, T, M], [B] and [B, T, M]")
    filled = torch.zeros_like(clean)
    is_noise = masks.kind == MASK_KINDS.index("noise")
    if is_noise.any():
        noise = NOISE_STD * normal(fold(keys[is_noise], "noise"), clean[0].numel())
        filled[is_noise] = noise.view(-1, *clean.shape[1:]).to(clean.dtype)
    is_alien = masks.kind == MASK_KINDS.index("alien")
    if is_alien.any():
        if donors is None:
            raise InputError('corrupt: masks of kind "alien" need donors, such as draw_donors(keys, len(keys))')
        filled[is_alien] = clean[donors[is_alien]]
    return torch.where(masks.pixels, filled, clean)


def visible_neighbours(log_mel: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What stands beside each corrupted pixel in its band: float [B, T, M] three times, the nearest uncorrupted pixel
    before it, the nearest after it, and the straight line between these two.

    log_mel: float [B, T, M]. mask: bool [B, T, M], True = corrupted. At an edge the neighbour of the other side stands
    in, and 0, the mean level, in a band that is corrupted throughout. An uncorrupted pixel is its own neighbour.
    """
    batch, frames, mels = log_mel.shape
    chunk = max(1, _NEIGHBOURS_CHUNK // (frames * mels)) if log_mel.device.type == "cpu" else max(1, batch)
    parts = [_neighbours(*part) for part in zip(log_mel.split(chunk), mask.split(chunk), strict=True)]
    before, after, line = (torch.cat(side) for side in zip(*parts, strict=True))
    return before, after, line


def _neighbours(log_mel: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`visible_neighbours` of a few views."""
    frames = log_mel.shape[1]
    time = torch.arange(frames, device=log_mel.device)[:, None].expand_as(log_mel)
    before = time.masked_fill(mask, -1).cummax(1).values  # frame of the neighbour, -1: none
    after = time.masked_fill(mask, frames).flip(1).cummin(1).values.flip(1)  # T: none
    left, right = log_mel.gather(1, before.clamp(min=0)), log_mel.gather(1, after.clamp(max=frames - 1))
    first, last = before < 0, after == frames
    left, right = torch.where(first, right, left), torch.where(last, left, right)
    left, right = (side.masked_fill(first & last, 0.0) for side in (left, right))
    share = (time - before).to(log_mel.dtype) / (after - before).clamp(min=1)  # 0 at `before`, 1 at `after`
    return left, right, left + share * (right - left)


def donor_group(batch_size: int) -> int:
    """Clips that lend each other blocks: a fixed part of the global batch, so that the donor of a clip does not
    depend on the number of processes the batch is spread over.

    The whole batch below 8, else 8, 4 or 2 where that divides the batch, or its smallest divisor.
    """
    if batch_size < 8:
        return batch_size
    return next(size for size in (8, 4, 2, *range(3, batch_size + 1, 2)) if batch_size % size == 0)


def draw_donors(keys: Tensor, group: int) -> Tensor:
    """int64 [B] in [0, B): another member of each clip's group of `group` neighbours.

    keys: int64 [B] in batch order. Raises InputError unless B is a multiple of `group` and `group` at least 2.
    """
    if group < 2 or len(keys) % group:
        raise InputError(f"group: {group} neighbours; expected at least 2 that divide the batch of {len(keys)}")
    place = torch.arange(len(keys), device=keys.device)
    step = 1 + integers(fold(keys, "donor"), 1, group - 1).squeeze(-1)  # never the clip itself
    return place // group * group + (place + step) % group


def inverse_blocks(
    keys: Tensor, grid: tuple[int, int], visible: float = 0.2, block: int = 5, extra: float = BLOCK_EXTRA
) -> tuple[Tensor, Tensor]:
    """Masks of which a few square blocks of patches are visible: int64 [B, K] and bool [B, N].

    The first is what is visible, numbers of patches (time-major) in ascending order, the second True where hidden.
    K, the share `visible` rounded down, is the same in all masks (ASDA, arXiv 2507.02666, released code; the inverse
    block masking of data2vec 2.0, 2212.07525): blocks around patches drawn with replacement, cut at the borders, so
    many that without overlap they would cover `visible` + `extra`; then single patches, drawn among the visible or the
    hidden ones, change sides. At least one block, also on grids that are smaller than the formula is made for.

    keys: int64 [B] of asit_lab.random. grid: patches along time, along mel. block: side of a block, patches.
    Raises InputError when the share leaves nothing visible or nothing hidden, and for a block without patches.
    """
    if block < 1:
        raise InputError(f"block: {block} patches; expected at least 1")
    patches = grid[0] * grid[1]
    keep = visible_of(patches, visible)
    if not 0 < keep < patches:
        raise InputError(f"visible: {visible:g} of {patches} patches leaves none visible, or none hidden")
    in_block = _in_blocks(keys, grid, max(1, int(patches * (visible + extra) / block**2)), block)
    lot = (bits(fold(keys, "lots"), patches) >> 2) & ((1 << 61) - 1)
    ranked = torch.where(in_block, lot + (1 << 61), lot).argsort(dim=1, descending=True, stable=True)
    chosen = ranked[:, :keep].sort(dim=1).values
    hidden = torch.ones_like(in_block).scatter_(1, chosen, False)
    return chosen, hidden


def _in_blocks(keys: Tensor, grid: tuple[int, int], blocks: int, block: int) -> Tensor:
    """Patches that lie in one of `blocks` squares of side `block`: bool [B, N]."""
    time, mel = grid
    centre = integers(fold(keys, "centres"), blocks, time * mel)  # [B, blocks]
    row_in = _around(centre // mel, time, block)  # [B, blocks, time]
    column_in = _around(centre % mel, mel, block)  # [B, blocks, mel]
    return (row_in[..., None] & column_in[..., None, :]).any(1).flatten(1)


def _around(centre: Tensor, size: int, block: int) -> Tensor:
    """Places of one side of the grid that a block around `centre` [B, k] takes: bool [B, k, size]."""
    start = centre[..., None] - block // 2
    place = torch.arange(size, device=centre.device)
    return (place >= start) & (place < start + block)


def _cover(keys: Tensor, kind: Tensor, target: Tensor, frames: int, mels: int, mask: Mask, patch: tuple[int, int]):
    """Add blocks until `target` pixels [B] are covered -> bool [B, T, M], blocks used int64 [B]."""
    batch = len(keys)
    covered = torch.zeros(batch, frames, mels, dtype=torch.bool, device=keys.device)
    used = torch.zeros(batch, dtype=torch.int64, device=keys.device)
    full_mels, full_frames = (kind == MASK_KINDS.index(name) for name in ("time", "frequency"))
    align = patch if mask.align else (1, 1)
    edge = _needs_the_edge(frames, mels, mask, align)
    for round_ in range(_MAX_ROUNDS):
        area = covered.sum(dim=(1, 2))
        if bool((area >= target).all()):
            break
        round_keys = fold(keys, "blocks", round_)
        rows = _sides(fold(round_keys, "frames"), frames, mask.block, align[0], full_frames, edge)  # [B, K, T]
        cols = _sides(fold(round_keys, "mels"), mels, mask.block, align[1], full_mels, edge)  # [B, K, M]
        first = _first_cover(rows, cols).masked_fill_(covered, _ROUND)  # [B, T, M]
        gain = _histogram(first)[:, :_ROUND]  # pixels each block adds
        reached = area[:, None] + gain.cumsum(1) >= target[:, None]
        needed = torch.where(area >= target, 0, (~reached).sum(1) + 1).clamp(max=_ROUND)
        covered |= first < needed[:, None, None]
        used += needed
    return covered, used


def _needs_the_edge(frames: int, mels: int, mask: Mask, align: tuple[int, int]) -> bool:
    """Whether blocks of a single unit must start in the last unit of a side for the share to be reached.

    As released, no block does; longer ones reach it. Where all are a single unit long (two patches do not fit into
    `block` of 64 mel bands) it is never corrupted, and with a share beyond the rest the released code would not end.
    """
    within = 1.0
    for size, unit in zip((frames, mels), align, strict=True):
        if size > unit and _is_single(size, mask.block, unit):
            within *= 1 - unit / size
    return within < max(mask.ratio, mask.alien_ratio)


def _longest(size: int, block: float, align: int) -> int:
    """Length that a block's side stays below, before it is aligned."""
    return max(int(block * size), align + 1)


def _is_single(size: int, block: float, align: int) -> bool:
    """Whether a side of all blocks is one unit long."""
    return round((_longest(size, block, align) - 1) / align) == 1


def _sides(keys: Tensor, size: int, block: float, align: int, full: Tensor, edge: bool = False) -> Tensor:
    """One side of `_ROUND` blocks: bool [B, K, size], True inside the block; everywhere where `full` [B].

    edge: see `_needs_the_edge`.
    """
    longest = _longest(size, block, align)
    starts = size if edge and _is_single(size, block, align) else max(1, size - align)
    start = integers(fold(keys, "start"), _ROUND, starts) // align * align
    length = align + integers(fold(keys, "length"), _ROUND, longest - align)
    length = torch.minimum(length, size - start)
    length = (length / align).round().long() * align  # half to even, as numpy does
    place = torch.arange(size, device=keys.device)
    inside = (place >= start[..., None]) & (place < (start + length)[..., None])
    return inside | full[:, None, None]


def _first_cover(rows: Tensor, cols: Tensor) -> Tensor:
    """Index of the first block over each pixel: [B, K, T] and [B, K, M] -> int64-like int32 [B, T, M], >= K where none.

    Block k weighs 4**-k. Whatever blocks lie over a pixel, their weights sum to at least the first one's and at most
    4/3 of it, so the exponent of that sum, one matrix product for all blocks, names the first block exactly.
    """
    weight = 4.0 ** -torch.arange(_ROUND, device=rows.device, dtype=torch.float32)
    with torch.autocast(rows.device.type, enabled=False):
        total = (rows.float() * weight[:, None]).transpose(1, 2) @ cols.float()
    return (127 - (total.view(torch.int32) >> 23)) >> 1  # biased exponent; a sum of 0 gives 63


def _histogram(first: Tensor) -> Tensor:
    """How often each of 0..63 occurs in each sample: int32 [B, T, M] -> int64 [B, 64]."""
    batch = first.shape[0]
    offset = 64 * torch.arange(batch, device=first.device, dtype=torch.int32)
    return torch.bincount((first + offset[:, None, None]).flatten(), minlength=64 * batch).view(batch, 64)
