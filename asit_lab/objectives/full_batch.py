"""What the losses of a part of a batch need of its other parts, in this process and in others.

The gradients of parts are averaged, by accumulation and between processes; with these the average is the gradient of
the whole batch's loss, also where a loss is a mean over unequal numbers or compares clips with each other.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..masking import Masks
from . import processes


@dataclass(frozen=True)
class FullBatch:
    """What the losses of a part of a batch need to know of the whole batch, over all parts and processes."""

    audio: Tensor | None = None
    """bool [V*B, T], frames of the part's views that are audio and not padding; None: all"""
    copies: int = 1
    """parts times processes: this many losses are averaged"""
    pixels: Tensor | None = None
    """scalar, pixels in the reconstruction loss of the whole batch; None: this part is all"""
    tokens: Tensor | None = None
    """scalar, tokens in the local loss of the whole batch"""
    recording: Tensor | None = None
    """int64 [clips of the whole batch], the same for clips of one recording"""
    student: Tensor | None = None
    """[V, clips of this process, D], clip tokens of the student, for the contrastive loss of a part; None: no parts"""
    teacher: Tensor | None = None
    """the same of the teacher"""
    start: int = 0
    """place of the part's first clip among those of this process"""

    def mean_count(self, total: Tensor | None) -> Tensor | None:
        """What to divide a part's sum by, so that the parts' losses average to the mean over `total` entries."""
        return None if total is None else total.clamp(min=1) / self.copies


@dataclass(frozen=True)
class Views:
    """The views of all clips of this process in a step, before and after corruption."""

    clean: Tensor
    """[V, B, T, M]"""
    corrupted: Tensor
    """[V, B, T, M]"""
    masks: Masks
    """of V * B views"""
    full_batch: FullBatch
    """of all of them"""

    def part(self, start: int, clips: int) -> "Views":
        """Those of some clips."""
        chosen = slice(start, start + clips)
        views = len(self.clean)

        def cut(rows: Tensor) -> Tensor:  # [V * B, ...]
            return rows.unflatten(0, (views, -1))[:, chosen].flatten(0, 1)

        masks = Masks(cut(self.masks.pixels), cut(self.masks.kind), cut(self.masks.blocks))
        audio = None if self.full_batch.audio is None else cut(self.full_batch.audio)
        full_batch = replace(self.full_batch, audio=audio, start=start)
        return Views(self.clean[:, chosen], self.corrupted[:, chosen], masks, full_batch)


def rows_of_all(rows: Tensor, process: Tensor | None, full_batch: FullBatch) -> Tensor:
    """Clip tokens of all clips of the batch, [V, B, D] -> [V, clips of all parts and processes, D].

    process: those of all clips of this process, without gradient; None: `rows` are all.
    Rows of other parts and processes carry no gradient; they do in the passes of their own. As the gradients of all
    passes are averaged, a pass's own rows count `copies` times; what follows has its gradient in each of the passes.
    """
    own = rows * full_batch.copies - rows.detach() * (full_batch.copies - 1)
    if full_batch.copies == 1:
        return own
    process = rows.detach() if process is None else process.to(rows.dtype)
    everything = processes.gather(process.transpose(0, 1)).transpose(0, 1)
    start = processes.process_rank() * process.shape[1] + full_batch.start
    return torch.cat([everything[:, :start], own, everything[:, start + rows.shape[1] :]], dim=1)


def standardised(rows: Tensor) -> Tensor:
    """[V, B, D], each channel to mean 0 and variance 1 over all views.

    At first the tokens of all clips are nearly the same. Standardised they can be told apart from the first step on, as
    by the batch norms of SimCLR's and MoCo's heads; distillation has its centre.
    """
    full = rows.to(torch.promote_types(rows.dtype, torch.float32)).flatten(0, 1)
    return F.batch_norm(full, None, None, training=True).unflatten(0, rows.shape[:2])
