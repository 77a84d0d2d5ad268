"""Clips of any length through a backbone that was pretrained on crops of one length.

A clip that is longer than the crop is covered by overlapping windows of the crop's length, so that every patch sees
positions that were trained, and patches near a window's edge are also seen from within another. A shorter clip is one
short window. Windows of equal length go through the backbone together, whichever clips they are of; nothing is padded
to a common length, so what a clip gets does not depend on the others.

Shapes: T frames, M mel bands, grid of patches (time, freq), D width.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..checks import number
from ..errors import InputError
from ..nn import ViT

AT_ONCE = 32  # windows in one pass: the explicit attention of 32 x 513 tokens and 12 heads takes 0.4 GB


def overlap_share(overlap: float) -> float:
    """`overlap`, if windows can overlap by that share of their length. Raises InputError."""
    share = number("overlap", overlap, "a share of a window from 0 to below 1")
    if not 0 <= share < 1:
        raise InputError(f"overlap: {overlap} is not a share of a window from 0 to below 1")
    return share


def window_starts(length: int, width: int, overlap: float) -> list[int]:
    """Where windows of `width` patches start that cover `length` patches, evenly spread, the last up to the end.

    Neighbours share at least `overlap` of a window's width, rounded up to o whole patches (and at most width - 1):
    ceil((length - o) / (width - o)) windows.
    """
    if length <= width:
        return [0]
    shared = min(width - 1, math.ceil(overlap * width - 1e-9))
    windows = math.ceil((length - shared) / (width - shared))
    return [round(i * (length - width) / (windows - 1)) for i in range(windows)]


def cover(
    backbone: ViT, log_mels: Sequence[Tensor], layers: Sequence[int], overlap: float
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Tokens of normalised log-mels [T, M] of any lengths, T whole patches each.

    layers: blocks whose output is wanted; the number of blocks stands for the backbone's final output.
    Yields (index of the clip, patches [layers, time, freq, D], class token [layers, D]), float32, as soon as a clip's
    last window is through, not always in the clips' order. Patches in several windows are averaged, and so is the class
    token over windows; it is NaN in layers before it joins (model.class_token_at).
    """
    patch, (width, bands) = backbone.patch[0], backbone.grid
    by_length: dict[int, list[tuple[int, int]]] = {}  # patches in a window -> (clip, first patch)
    spans = []
    for clip, log_mel in enumerate(log_mels):
        time = len(log_mel) // patch
        spans.append(window_starts(time, width, overlap))
        by_length.setdefault(min(time, width), []).extend((clip, start) for start in spans[clip])
    sums: dict[int, _Sum] = {}  # of the clips under way
    for length, windows in by_length.items():
        for batch in (windows[first : first + AT_ONCE] for first in range(0, len(windows), AT_ONCE)):
            x = torch.stack([log_mels[clip][patch * start : patch * (start + length)] for clip, start in batch])
            outputs = _outputs(backbone, x, layers)
            for i, (clip, start) in enumerate(batch):
                tokens = torch.stack([output[i] for output in outputs]).float()  # [layers, 1+N, D]
                patches, class_token = tokens[:, 1:].unflatten(1, (length, bands)), tokens[:, 0]
                if len(spans[clip]) == 1:
                    yield clip, patches, class_token
                    continue
                if clip not in sums:
                    sums[clip] = _Sum(len(log_mels[clip]) // patch, patches)
                sums[clip].add(start, patches, class_token)
                if start == spans[clip][-1]:
                    yield clip, *sums.pop(clip).mean()


def pool_long(backbone: ViT, pieces: Iterable[Tensor], time: int, layers: Sequence[int], overlap: float) -> Tensor:
    """What is pooled of one long clip, in memory that does not grow with its length: float32 [layers, 3, D], class
    token, mean and standard deviation of the patches, equal to those of `cover`.

    pieces: its normalised log-mel [T, M] in pieces of any length; time: its whole patches.
    """
    patch, (width, bands) = backbone.patch[0], backbone.grid
    starts, length = window_starts(time, width, overlap), min(time, width)
    source, frames, first = iter(pieces), torch.zeros(0), 0  # log-mel that is still needed, and its first frame
    place, sums = 0, None  # first patch of `sums`: those that a later window may cover, too
    pooled = _Pooled()
    for first_window in range(0, len(starts), AT_ONCE):
        batch = starts[first_window : first_window + AT_ONCE]
        buffered, fresh = len(frames), []
        while first + buffered < (batch[-1] + length) * patch:
            piece = next(source, None)
            if piece is None:
                raise InputError(f"blocks: fewer samples than announced, which were {time} patches of {patch} frames")
            fresh.append(piece)
            buffered += len(fresh[-1])
        frames = torch.cat([frames, *fresh] if len(frames) else fresh) if fresh else frames
        x = torch.stack([frames[start * patch - first :][: length * patch] for start in batch])
        outputs = torch.stack(_outputs(backbone, x, layers)).float()  # [layers, B, 1+N, D]
        for i, start in enumerate(batch):
            patches = outputs[:, i, 1:].unflatten(1, (length, bands))
            if sums is not None:
                pooled.add(sums.patches[:, : start - place] / sums.times[: start - place])
                shared = sums.patches.shape[1] - (start - place)
            following = _Sum(length, patches)
            if sums is not None:
                following.patches[:, :shared] = sums.patches[:, start - place :]
                following.times[:shared] = sums.times[start - place :]
                following.class_token, following.windows = sums.class_token, sums.windows
            following.add(0, patches, outputs[:, i, 0])
            sums, place = following, start
        following_start = starts[first_window + AT_ONCE] if first_window + AT_ONCE < len(starts) else time
        drop = min(len(frames), following_start * patch - first)
        frames, first = frames[drop:], first + drop
    pooled.add(sums.patches / sums.times)
    class_token = (sums.class_token / sums.windows).cpu()
    return torch.stack([class_token, *pooled.mean_and_deviation()], dim=1)


class _Pooled:
    """Mean and standard deviation of patches that come a few at a time, in float64."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def add(self, patches: Tensor) -> None:
        """patches: [layers, time, bands, D]"""
        patches = patches.flatten(1, 2).cpu().double()  # not every device has float64
        self.count += patches.shape[1]
        self.total, self.squares = self.total + patches.sum(1), self.squares + patches.square().sum(1)

    def mean_and_deviation(self) -> tuple[Tensor, Tensor]:
        """Each float32 [layers, D]; the deviation is divided by the number of patches."""
        mean = self.total / self.count
        return mean.float(), (self.squares / self.count - mean.square()).clamp(min=0).sqrt().float()


class _Sum:
    """Tokens of one clip's windows, added up in their places."""

    def __init__(self, time: int, like: Tensor):
        layers, _, bands, dim = like.shape
        self.patches = like.new_zeros(layers, time, bands, dim)
        self.times = like.new_zeros(time, 1, 1)  # how many windows a place is in
        self.class_token, self.windows = like.new_zeros(layers, dim), 0

    def add(self, start: int, patches: Tensor, class_token: Tensor) -> None:
        place = slice(start, start + patches.shape[1])
        self.patches[:, place] += patches
        self.times[place] += 1
        self.class_token += class_token
        self.windows += 1

    def mean(self) -> tuple[Tensor, Tensor]:
        return self.patches / self.times, self.class_token / self.windows


def _outputs(backbone: ViT, x: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """What the blocks in `layers` put out for windows [B, T, M], each [B, 1+N, D]."""
    final = len(backbone.blocks)
    inspection = backbone.inspect(x, hidden=[layer for layer in layers if layer < final])
    outputs = []
    for layer in layers:
        tokens = inspection.tokens if layer == final else inspection.hidden[layer]
        if layer < backbone.class_token_at:  # patches alone
            tokens = nn.functional.pad(tokens, (0, 0, 1, 0), value=math.nan)
        outputs.append(tokens)
    return outputs
