"""Cuts batches of random crops (views) from clips, reproducibly in any number of loader processes.

A batch depends only on (seed, step) and the data: not on where the run was resumed, the number of loader processes or
devices, or the state of the cache.
"""

import functools
from collections import OrderedDict
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .. import random
from ..config import RunConfig
from ..errors import InputError
from ..settings import MASK_KINDS
from .loader import load_batches
from .manifest import Manifest, read_row
from .silence import sounding, sounding_stretch
from .sources import synth

WHOLE_SECONDS = 30.0  # rows up to this length are decoded whole and cached; of longer ones only what a crop needs
PADDING_NOTED = 1 / 3  # share of padding in the crops of a data set above which the user is warned
TRIES = 20  # rows drawn in place of an unreadable one before giving up


@dataclass
class Batch:
    """Views of the clips of one step (this process's part of it)."""

    waves: Tensor  # float32 [clips, views, samples], zero after `lengths`
    lengths: Tensor  # int64 [clips, views], samples of audio
    index: Tensor  # int64 [clips], row of the manifest
    position: Tensor  # int64 [clips], place in the step's global batch
    step: int
    bad: list[tuple[str, str]] = field(default_factory=list)  # (path, reason) of files another row stands in for
    recording: Tensor | None = None  # int64 [clips], the same for clips of one recording; None: no two are of one
    source: "Batch | None" = None  # the batch that this part was cut from, and the place of its first clip in it
    start: int = 0

    def to(self, device: torch.device | str) -> "Batch":
        """A copy with its tensors on `device`."""
        names = ("waves", "lengths", "index", "position", "recording")
        return replace(
            self, **{name: getattr(self, name).to(device) for name in names if getattr(self, name) is not None}
        )

    def split(self, parts: int) -> list["Batch"]:
        """Cut into `parts` batches of equally many clips, for gradient accumulation."""
        clips = len(self.waves) // parts  # the batch size is a multiple of parts
        return [
            replace(
                self,
                waves=self.waves[start : start + clips],
                lengths=self.lengths[start : start + clips],
                index=self.index[start : start + clips],
                position=self.position[start : start + clips],
                recording=None if self.recording is None else self.recording[start : start + clips],
                source=self,
                start=start,
            )
            for start in range(0, clips * parts, clips)
        ]


# --- Which clips ----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, n: int) -> Tensor:
    """int64 [n]: the order of the clips in an epoch. Shared between calls: do not write into it."""
    return random.permutation(random.key(seed, epoch, "order"), n)


def steps_of_epoch(batch_size: int, n: int) -> int:
    """Steps in which every clip is used at most once; 1 where a batch holds more than all of them."""
    return max(1, n // batch_size)


def batch_indices(seed: int, step: int, batch_size: int, n: int) -> Tensor:
    """int64 [batch_size]: the rows of a step's global batch.

    Clips left over at the end of an epoch are skipped. With fewer clips than a batch holds, the order is repeated.
    """
    epoch, place = divmod(step, steps_of_epoch(batch_size, n))
    return epoch_order(seed, epoch, n)[(place * batch_size + torch.arange(batch_size)) % n]


def path_in_epoch(path: str, seed: int, epoch: int) -> str:
    """The path of a row's sound in an epoch: its file; for a synthesised sound, another one of its class."""
    return synth.anew(path, seed, epoch) if path.startswith(synth.PREFIX) else path


# --- Which stretch of a clip ----------------------------------------------------------------------------------------


def crop_starts(draws: np.ndarray, room: int, gap: int) -> list[int]:
    """First samples of the views of one clip.

    draws: uniform [1 + views]; room: samples by which the clip exceeds a crop; gap: the most two starts may differ.
    All starts lie in one random window of `gap` samples, which makes every pair of views alike.
    """
    width = min(room, gap)
    window = int(draws[0] * (room - width + 1))
    return [window + int(draw * (width + 1)) for draw in draws[1:]]


class AudioCache:
    """Caches decoded clips up to a limit in bytes; evicts the least recently used first."""

    def __init__(self, limit: float):
        self.limit, self.size = limit, 0
        self.waves: OrderedDict[int, np.ndarray] = OrderedDict()

    def get(self, row: int) -> np.ndarray | None:
        if row in self.waves:
            self.waves.move_to_end(row)
        return self.waves.get(row)

    def put(self, row: int, wave: np.ndarray) -> None:
        self.waves[row] = wave
        self.size += wave.nbytes
        while self.size > self.limit:
            self.size -= self.waves.popitem(last=False)[1].nbytes


class ViewDataset(Dataset):
    """Step number -> Batch: this process's contiguous slice of the step's global batch."""

    def __init__(self, cfg: RunConfig, manifest: Manifest, views: int = 2, rank: int = 0, world: int = 1):
        if len(manifest) == 0:
            raise InputError(f"data source {manifest.source!r}: no clips to train on")
        if cfg.train.batch_size % world:
            raise InputError(f"train.batch_size: {cfg.train.batch_size} is not a multiple of the {world} processes")
        self.seed, self.views, self.batch_size = cfg.train.seed, views, cfg.train.batch_size
        self.rate, self.samples = cfg.features.sample_rate, cfg.crop_samples
        self.gap = round(cfg.data.max_gap_seconds * self.rate)
        self.shift, self.trim = cfg.data.circular_shift, cfg.data.trim
        share = self.batch_size // world
        self.positions = torch.arange(rank * share, (rank + 1) * share)
        table = manifest.table  # as plain lists: a pandas row costs more than a cached crop
        self.rows = list(zip(table["path"], table["start"].tolist(), table["seconds"].tolist(), strict=True))
        self.recordings = torch.from_numpy(pd.factorize(table["group"])[0])
        self.cache = AudioCache(cfg.data.cache_mb * 1e6)
        self.unreadable: dict[int, str] = {}
        self.stretches: dict[int, tuple[float, float]] = {}  # of long rows, without the silence at their ends

    def __getitem__(self, step: int) -> Batch | InputError:
        """The batch of a step, or the error: raised in a loader process it would come out wrapped in a traceback."""
        try:
            return self.batch(step)
        except InputError as error:
            return error

    def batch(self, step: int) -> Batch:
        """The batch of a step. Raises InputError when `TRIES` rows drawn one after the other cannot be read."""
        chosen = batch_indices(self.seed, step, self.batch_size, len(self.rows))[self.positions].tolist()
        sample = random.key(self.seed, step, self.positions)  # [clips]
        crops = random.uniform(random.fold(sample, "crop"), 1 + self.views).double().numpy()
        shifts = random.uniform(random.fold(sample, "shift"), 2 * self.views).double().numpy()
        waves = np.zeros((len(chosen), self.views, self.samples), np.float32)
        lengths = np.zeros((len(chosen), self.views), np.int64)
        bad: dict[str, str] = {}
        epoch = step // steps_of_epoch(self.batch_size, len(self.rows))
        for clip, row in enumerate(chosen):
            chosen[clip], views = self._readable_views(row, epoch, sample[clip], crops[clip], bad)
            for view, wave in enumerate(views):
                moves, shift = shifts[clip, 2 * view : 2 * view + 2]
                if moves < self.shift:
                    wave = np.roll(wave, int(shift * len(wave)))
                waves[clip, view, : len(wave)] = wave
                lengths[clip, view] = len(wave)
        return Batch(
            torch.from_numpy(waves),
            torch.from_numpy(lengths),
            torch.tensor(chosen),
            self.positions.clone(),
            step,
            list(bad.items()),
            self.recordings[chosen],
        )

    def _readable_views(
        self, row: int, epoch: int, sample: Tensor, draws: np.ndarray, bad: dict[str, str]
    ) -> tuple[int, list[np.ndarray]]:
        """(row, its views); an unreadable row is added to `bad` and replaced by another, randomly chosen."""
        for attempt in range(TRIES):
            try:
                return row, self._views(row, epoch, draws)
            except InputError as error:
                path = self.rows[row][0]
                bad[path] = str(error).removeprefix(f"{path}: ")
            row = int(random.integers(random.fold(sample, "replace", attempt), 1, len(self.rows)))
        listed = "; ".join(f"{path}: {reason}" for path, reason in list(bad.items())[:3])
        raise InputError(f"{TRIES} files drawn one after the other cannot be read: {listed}")

    def _views(self, row: int, epoch: int, draws: np.ndarray) -> list[np.ndarray]:
        """Crops of one row, each at most `samples` long."""
        path, start, seconds = self.rows[row]
        if seconds > max(WHOLE_SECONDS, 2 * self.samples / self.rate):
            crop = self.samples / self.rate
            if self.trim:
                start, seconds = self._sounding_stretch(row, crop)
            room = int(seconds * self.rate) - self.samples
            return [
                read_row(path, start, seconds, self.rate, first / self.rate, crop)
                for first in crop_starts(draws, room, self.gap)
            ]
        wave = self._decoded_row(row, epoch)
        room = max(0, len(wave) - self.samples)
        return [wave[first : first + self.samples] for first in crop_starts(draws, room, self.gap)]

    def _sounding_stretch(self, row: int, crop: float) -> tuple[float, float]:
        """(start, length) in s of the stretch between a long row's first and last sound."""
        if row not in self.stretches:
            path, start, seconds = self.rows[row]

            def read(offset: float, length: float) -> np.ndarray:
                return read_row(path, start, seconds, self.rate, offset, length)

            offset, length = sounding_stretch(read, seconds, self.rate, crop)
            self.stretches[row] = (start + offset, length)
        return self.stretches[row]

    def _decoded_row(self, row: int, epoch: int) -> np.ndarray:
        """The audio of a complete row, from the cache if possible. A row that failed once is not tried again."""
        if row in self.unreadable:
            raise InputError(self.unreadable[row])
        path, start, seconds = self.rows[row]
        made_up = path.startswith(synth.PREFIX)  # used once, so not worth keeping
        wave = None if made_up else self.cache.get(row)
        if wave is None:
            try:
                wave = read_row(path_in_epoch(path, self.seed, epoch), start, seconds, self.rate)
                wave = sounding(wave, self.samples) if self.trim else wave
            except InputError as error:
                self.unreadable[row] = str(error)
                raise
            if not made_up:
                self.cache.put(row, wave)
        return wave


def make_loader(
    cfg: RunConfig, manifest: Manifest, views: int = 2, start: int = 0, *, stop: int, rank: int = 0, world: int = 1
) -> DataLoader:
    """A DataLoader over the steps start..stop-1 that gives one Batch a step.

    rank, world: this process's number and the number of processes, each of which gets an equal, contiguous part of
    the global batch of cfg.train.batch_size clips.
    Raises InputError for a manifest without clips or a batch size that is not a multiple of `world`; while going
    through it, when nothing but unreadable files is drawn.
    """
    return load_batches(ViewDataset(cfg, manifest, views, rank, world), start, stop, cfg.data.workers)


def crop_notes(cfg: RunConfig, manifest: Manifest, views: int) -> list[str]:
    """Warnings about crops that hold little to learn from, and what of their corruption may surprise."""
    notes = (
        overlap_note(cfg, manifest, views),
        padding_note(cfg, manifest),
        rate_note(cfg, manifest),
        few_note(cfg, manifest),
        ratio_note(cfg),
    )
    return [note for note in notes if note]


def few_note(cfg: RunConfig, manifest: Manifest) -> str | None:
    """A warning when there are fewer training clips than a batch has, or only one recording; None otherwise."""
    clips, batch, objective = len(manifest), cfg.train.batch_size, cfg.objective
    words = []
    if clips < batch:
        words.append(f"{clips} training clips are fewer than a batch of {batch}, so some come more than once in a step")
    if manifest.table["group"].nunique() == 1:
        contrast = objective.global_kind == "contrastive" and "global" in objective.active
        nothing = "; so the contrastive global loss has nothing to tell apart" if contrast else ""
        words.append(f"all training clips are of one recording{nothing}")
    return "; ".join(words) or None


def ratio_note(cfg: RunConfig) -> str | None:
    """A word where the corruption ratio is drawn from a range; None for a fixed one."""
    mask = cfg.mask
    drawn = sum(mask.odds[kind] for kind in MASK_KINDS if kind not in ("alien", "none"))
    if cfg.objective.name == "asda" or not drawn or mask.ratio_min >= mask.ratio:
        return None
    return (
        f"the corruption ratio of a view is drawn between mask.ratio_min={mask.ratio_min:g} and "
        f"mask.ratio={mask.ratio:g}; set both for a fixed one"
    )


def rate_note(cfg: RunConfig, manifest: Manifest) -> str | None:
    """A warning when files have a lower sample rate than the features; None otherwise."""
    rates = manifest.table["sample_rate"][~manifest.table["path"].str.startswith(synth.PREFIX)]  # synth has any rate
    lower = rates[rates < cfg.features.sample_rate]
    if lower.empty:
        return None
    return (
        f"{len(lower):,} of {len(manifest):,} clips have a sample rate below features.sample_rate "
        f"{cfg.features.sample_rate} Hz (down to {lower.min()} Hz): their mel bands above half of it are empty"
    )


def padding_note(cfg: RunConfig, manifest: Manifest) -> str | None:
    """A warning when clips are so short that much of their crops is padding; None otherwise."""
    seconds = manifest.table["seconds"].clip(upper=cfg.data.crop_seconds)
    share = 1 - float(seconds.mean()) / cfg.data.crop_seconds
    if share <= PADDING_NOTED:
        return None
    effect = "ignored" if cfg.data.padding == "ignore" else "learned from like audio (data.padding)"
    return (
        f"{share:.0%} of the crops is padding, which is {effect}: crops have {cfg.data.crop_seconds:g} s, the median "
        f"clip {float(manifest.table['seconds'].median()):.3g} s; a shorter data.crop_seconds saves time"
    )


def overlap_note(cfg: RunConfig, manifest: Manifest, views: int) -> str | None:
    """A warning when the two views of a clip are nearly the same audio; None otherwise.

    That is so when a crop covers more than 0.7 of the median clip: matching two views then teaches little.
    """
    if views < 2:
        return None
    crop, median = cfg.data.crop_seconds, float(manifest.table["seconds"].median())
    if crop <= 0.7 * median:
        return None
    half = median / 2
    grain = 1.0 if half >= 10 else 0.5 if half >= 2 else 0.1 if half >= 0.2 else 0.01
    covers = "all" if crop >= median else f"{crop / median:.0%}"
    return (
        f"a crop of {crop:g} s covers {covers} of the median clip ({median:.3g} s), so the two views of a clip are "
        f"nearly the same audio; try data.crop_seconds={max(grain, round(half / grain) * grain):.3g}"
    )
