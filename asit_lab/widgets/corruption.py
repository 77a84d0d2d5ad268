"""How explorers corrupt a clip: masks drawn by a seed or by hand, and what stands in them."""

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..features import LogMel
from ..masking import Masks, corrupt
from ..random import key
from ..settings import MASK_KINDS
from .base import labelled
from .clips import ClipChooser, clip_name

_NEXT = -1  # in the list of donors


def mask_key(seed: int) -> Tensor:
    """int64 [1], the key by which `Encoder.draw_mask` draws the mask of one clip."""
    return key(seed, 0, torch.arange(1), "reconstruct")


def drawn_masks(pixels: np.ndarray, kind: str) -> Masks:
    """The mask of one clip, bool [T, M], drawn by hand, with what is to stand in it."""
    return Masks(torch.from_numpy(pixels)[None], torch.tensor([MASK_KINDS.index(kind)]), torch.zeros(1).long())


def fill(clean: Tensor, masks: Masks, seed: int, donor: Tensor | None = None) -> Tensor:
    """The log-mel [1, T, M], corrupted where `masks` say so.

    donor: log-mel [1, T, M] that alien blocks come from; needed for that kind alone.
    """
    return corrupt(clean, masks, mask_key(seed)) if donor is None else torch.where(masks.pixels, donor, clean)


class Donor:
    """The clip that alien blocks come from: the next one of the data set, or one that `control` chooses."""

    def __init__(self, chooser: ClipChooser, seconds: float):
        """seconds: how much of it is read."""
        self.chooser, self.seconds = chooser, seconds
        self.control = labelled(ipywidgets.Dropdown(), "blocks from", "the clip that alien blocks are taken from")
        self._read: tuple[str, int, Tensor] | None = None  # data set, row, wave [1, samples]
        self.offer()

    def offer(self) -> None:
        """List the clips of the chooser's data set; a choice among the same ones stays."""
        options = [("the next clip", _NEXT), *self.chooser.clip.options]
        if list(self.control.options) != options:
            self.control.options = options
            self.control.value = _NEXT

    @property
    def row(self) -> int:
        """For the clip that is shown; see `row_for`."""
        return self.row_for(self.chooser.row)

    def row_for(self, row: int | None) -> int:
        """The donor's row for a clip's, None: a file. Raises InputError where no other clip exists."""
        manifest = self.chooser.manifest
        if manifest is None or (row is not None and len(manifest) < 2):
            raise InputError("kind alien: blocks of another clip need a data set of at least two clips")
        if self.control.value != _NEXT:
            return self.control.value
        return 0 if row is None else (row + 1) % len(manifest)

    @property
    def name(self) -> str:
        return clip_name(self.chooser.manifest, self.row)

    def log_mel(self, front_end: LogMel, frames: int, device: str | torch.device = "cpu") -> Tensor:
        """Normalised [1, frames, mels] on the CPU, from the start of the clip."""
        manifest, row = self.chooser.manifest, self.row
        if self._read is None or self._read[:2] != (manifest.source, row):
            wave = manifest.read(row, self.chooser.wanted_rate, 0.0, self.seconds)
            self._read = (manifest.source, row, torch.from_numpy(wave)[None])
        return log_mel_of(self._read[2], front_end, frames, device)


def log_mel_of(wave: Tensor, front_end: LogMel, frames: int, device: str | torch.device = "cpu") -> Tensor:
    """Normalised [1, frames, mels] on the CPU, from the start of a wave [1, samples], cut or padded."""
    raw = front_end(wave.to(device))
    return front_end.normalise(front_end.fit(raw, frames)).cpu()
