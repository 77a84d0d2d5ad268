"""Draws batches of labelled clips and a stretch of each; a batch depends only on (seed, step) and the data."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .. import random
from ..data.crops import TRIES, WHOLE_SECONDS, AudioCache, epoch_order
from ..data.manifest import Manifest, read_row
from ..errors import InputError
from .augment import beta, mixed, rolled
from .recipe import Recipe

_AT_ONCE = 1 << 16  # rows of targets worked on at a time


@dataclass
class ClipBatch:
    """The training clips of a step."""

    waves: Tensor  # float32 [clips, samples], zero after `lengths`
    lengths: Tensor  # int64 [clips], samples of audio
    targets: Tensor  # float32 [clips, classes]
    step: int
    bad: list[tuple[str, str]] = field(default_factory=list)  # (path, reason) of files another clip stands in for


class Reader:
    """Reads clips of a manifest at one sample rate; caches decoded clips of ordinary length, up to a limit."""

    def __init__(self, manifest: Manifest, rate: int, cache_mb: float):
        table = manifest.table
        self.rows = list(zip(table["path"], table["start"].tolist(), table["seconds"].tolist(), strict=True))
        self.rate, self.cache = rate, AudioCache(cache_mb * 1e6)

    def clip(self, row: int) -> np.ndarray:
        """A complete clip, float32 [samples]. Raises InputError where it cannot be read."""
        wave = self.cache.get(row)
        if wave is None:
            wave = read_row(*self.rows[row], self.rate)
            self.cache.put(row, wave)
        return wave

    def stretch(self, row: int, samples: int, place: float = 0.0) -> np.ndarray:
        """At most `samples` of a clip; place, 0 to 1: where in the clip, when it is longer."""
        path, start, seconds = self.rows[row]
        if seconds > max(WHOLE_SECONDS, 2 * samples / self.rate):
            first = int(place * (int(seconds * self.rate) - samples))
            return read_row(path, start, seconds, self.rate, first / self.rate, samples / self.rate)
        wave = self.clip(row)
        first = int(place * max(0, len(wave) - samples + 1))
        return wave[first : first + samples]


class TrainingClips(Dataset):
    """Step number -> ClipBatch.

    rows: int64, rows of the manifest to train on. targets: bool [rows of the manifest, classes]. samples: length of the
    input.
    """

    def __init__(self, reader: Reader, rows: np.ndarray, targets: Tensor, recipe: Recipe, samples: int, seed: int):
        self.reader, self.rows, self.targets, self.recipe = reader, rows, targets, recipe
        self.samples, self.seed = samples, seed
        self.odds = np.cumsum(class_odds(targets[rows])) if recipe.balanced else None

    def __getitem__(self, step: int) -> ClipBatch | InputError:
        """The batch of a step, or the error: raised in a loader process it would come out wrapped in a traceback."""
        try:
            return self.batch(step)
        except InputError as error:
            return error

    def batch(self, step: int) -> ClipBatch:
        """The batch of a step. Raises InputError when `TRIES` clips drawn one after the other cannot be read."""
        chosen = self.chosen(step)
        keys = random.key(self.seed, step, torch.arange(len(chosen)), "clip")
        mixes = random.uniform(random.fold(keys, "mixes"), 1)[:, 0].numpy() < self.recipe.mixup
        mixes &= self.recipe.mixup_of == "waveform"
        waves = np.zeros((len(chosen), self.samples), np.float32)
        lengths, targets, bad = np.zeros(len(chosen), np.int64), self.targets[chosen].float(), {}
        for clip, row in enumerate(chosen.tolist()):
            row, wave = self._readable(row, keys[clip], bad)
            targets[clip] = self.targets[row].float()
            if mixes[clip]:
                partner = random.fold(keys[clip], "partner")
                partner_row = int(self.rows[int(random.integers(partner, 1, len(self.rows)))])
                partner_row, second = self._readable(partner_row, partner, bad)
                share = float(beta(random.fold(partner, "share").reshape(1), self.recipe.mixup_beta)[0])
                wave = mixed(wave, second, share)
                targets[clip] = share * targets[clip] + (1 - share) * self.targets[partner_row].float()
            waves[clip, : len(wave)], lengths[clip] = wave, len(wave)
        return ClipBatch(torch.from_numpy(waves), torch.from_numpy(lengths), targets, step, list(bad.items()))

    def chosen(self, step: int) -> np.ndarray:
        """Rows of the manifest of a step's batch, int64."""
        clips = self.recipe.epoch_clips or len(self.rows)
        epoch, place = divmod(step, self.recipe.steps_per_epoch(len(self.rows)))
        places = np.arange(place * self.recipe.batch_size, min((place + 1) * self.recipe.batch_size, clips))
        if self.odds is None:
            # Longer epochs than there are clips go through the order again.
            return self.rows[epoch_order(self.seed, epoch, len(self.rows)).numpy()[places % len(self.rows)]]
        keys = random.key(self.seed, epoch, torch.from_numpy(places), "balanced")
        fine, coarse = random.uniform(keys, 2).double().unbind(1)  # 24 bits each: few for two million clips
        picks = np.searchsorted(self.odds, (coarse + fine * 2.0**-24).numpy() * self.odds[-1], side="right")
        return self.rows[np.minimum(picks, len(self.rows) - 1)]

    def _readable(self, row: int, key: Tensor, bad: dict[str, str]) -> tuple[int, np.ndarray]:
        """(row, a stretch of it); an unreadable row is added to `bad` and replaced by another."""
        for attempt in range(TRIES):
            place = float(random.uniform(random.fold(key, "crop"), 1)) if self.recipe.crop == "random" else 0.0
            try:
                wave = self.reader.stretch(row, self.samples, place)
                return row, rolled(wave, key) if self.recipe.roll else wave
            except InputError as error:
                path = self.reader.rows[row][0]
                bad[path] = str(error).removeprefix(f"{path}: ")
            row = int(self.rows[int(random.integers(random.fold(key, "replace", attempt), 1, len(self.rows)))])
        listed = "; ".join(f"{path}: {reason}" for path, reason in list(bad.items())[:3])
        raise InputError(f"{TRIES} files drawn one after the other cannot be read: {listed}")


def targets_of(manifest: Manifest) -> Tensor:
    """bool [rows, classes], which classes each clip has; two million clips of AudioSet's 527 are 1 GB."""
    parts = np.array_split(np.arange(len(manifest)), 1 + len(manifest) // _AT_ONCE)
    return torch.cat([torch.from_numpy(manifest.targets(rows) > 0) for rows in parts])


def class_odds(targets: Tensor) -> np.ndarray:
    """Odds of each clip, float64 [clips], that balance the classes: the sum over its labels of 1 / clips with that
    label (AST's released code). targets: bool [clips, classes]."""
    rarity = 1.0 / targets.sum(0).clamp(min=1).double()
    return torch.cat([part.double() @ rarity for part in targets.split(_AT_ONCE)]).numpy()


class ClipsToTest(Dataset):
    """Number of a batch -> the windows of its clips, in the order of `rows`.

    An item is a list of (row, windows [n, samples], samples of audio in each), or (row, reason) for an unreadable one.
    """

    def __init__(self, reader: Reader, rows: np.ndarray, recipe: Recipe, samples: int):
        self.reader, self.rows, self.recipe, self.samples = reader, rows, recipe, samples
        self.batches = -(-len(rows) // recipe.batch_size)

    def __getitem__(self, number: int) -> list[tuple]:
        size, clips = self.recipe.batch_size, []
        for row in self.rows[number * size : (number + 1) * size].tolist():
            try:
                start = self.recipe.crop == "start"
                wave = self.reader.stretch(row, self.samples) if start else self.reader.clip(row)
                clips.append((row, *windows(wave, self.samples)))
            except InputError as error:
                clips.append((row, str(error)))
        return clips


def windows(wave: np.ndarray, samples: int) -> tuple[np.ndarray, int]:
    """Consecutive stretches [n, samples] that cover a clip, and the samples of audio in each; the last one overlaps the
    one before, and a clip shorter than one is padded."""
    if len(wave) <= samples:
        return np.pad(wave, (0, samples - len(wave)))[None], len(wave)
    starts = dict.fromkeys(min(start, len(wave) - samples) for start in range(0, len(wave), samples))
    return np.stack([wave[start : start + samples] for start in starts]), samples
