"""Computes all attention in a window of a clip: by layer and head, mean, rollout; entropy and distance of each head.

Rollout is Abnar and Zuidema's (arXiv 2005.00928, section 3): the attention of a layer, mean over heads, is averaged
with the identity, which stands for the residual connection, and the layers are multiplied. Two things differ for
differential attention. Its weights may be negative: they move a token as far as positive ones of the same size, so
magnitudes count. And its rows do not sum to 1, but what it puts out is normalised before it joins the residual, so the
sum does not measure its share: rows are divided by it before they are averaged with the identity.

Mean attention distance is that of the vision transformer's paper (arXiv 2010.11929, section 4.5, figure 7), along time
and along frequency apart, as seconds and mel bands have no common unit.

Shapes: L layers, H heads, N patches on a grid (time, freq), K = 1 + N tokens (class token first).
"""

import copy
import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from ..encoder import Encoder
from ..errors import InputError
from ..mel import band_hz
from .attention_statistics import weight_statistics

MEASURES = {
    "entropy": "entropy (1: even)",
    "time": "distance in time (s)",
    "freq": "distance in frequency (mel bands)",
}


class ClipAttention:
    """Attention of all layers in one window of a clip, computed once; views of it are quick.

    log_mel: float [frames, mels], normalised. grid: patches along time and mel. kinds: the weights there are: "map",
    what multiplies the values, and for differential attention "first" and "second" softmax before it. lam: the factor
    of the second softmax in each layer, else None. Token 0 is the class token, 1 + t * freq + f the patch at time t and
    band f.
    """

    def __init__(self, enc: Encoder, wave, sample_rate: int, start: float = 0.0):
        """wave: float [S] at `sample_rate` Hz, a window of `window` or a whole clip; start: where it begins in the
        recording, s. Raises InputError as `Encoder.log_mel` does, and for more than one clip."""
        self.start = start
        log_mel = enc.log_mel(wave, sample_rate)
        if len(log_mel) != 1:
            raise InputError(f"wave: {len(log_mel)} clips, expected one")
        self.config = enc.config
        self.log_mel = log_mel[0].float().cpu().numpy()
        self.grid = (len(self.log_mel) // enc.config.model.patch[0], enc.config.grid[1])
        maps = enc.attention(wave, sample_rate, tuple(range(len(enc.backbone.blocks))))
        self._weights = {  # each [L, H, K, K]
            kind: weights[:, 0].float().cpu()
            for kind in ("first", "second", "map")
            if (weights := getattr(maps, kind)) is not None
        }
        self.kinds = tuple(self._weights)
        self.lam = None if maps.lam is None else maps.lam.flatten().float().cpu().numpy()
        self.layers, self.heads = self._weights["map"].shape[:2]
        self._measures: dict[str, dict[str, np.ndarray]] = {}
        self._rollouts: dict[str, Tensor] = {}

    def weights(self, kind: str, layer: int, head: int | None = None) -> np.ndarray:
        """One layer's weights [query K, key K] of a head, or (None) their mean over heads. NaN where there are none:
        the class token's row before it joins."""
        of_heads = self._weights[kind][layer]
        return (of_heads.mean(0) if head is None else of_heads[head]).numpy()

    def rollout(self, kind: str, layer: int) -> np.ndarray:
        """Rollout through layers 0 to `layer`: [query K, key K], rows sum to 1."""
        if kind not in self._rollouts:
            self._rollouts[kind] = rollout(self._weights[kind])
        return self._rollouts[kind][layer].numpy()

    def measures(self, kind: str) -> dict[str, np.ndarray]:
        """Entropy and distances of every head and, as the last column, of the mean over heads: name of MEASURES ->
        [L, H + 1]. Distance in time is in seconds, in frequency in mel bands."""
        if kind not in self._measures:
            features, (p, q) = self.config.features, self.config.model.patch
            rows = [
                torch.cat([of_heads, of_heads.mean(0, keepdim=True)]) for of_heads in self._weights[kind]
            ]  # each [H + 1, K, K]
            # Layer by layer: what is computed on the way is several times as large as the weights.
            entropy = torch.stack([patch_entropy(row) for row in rows])
            time, freq = zip(*(attention_distance(row, self.grid) for row in rows), strict=True)
            seconds = p * features.hop_ms / 1000
            values_by_name = {"entropy": entropy, "time": torch.stack(time) * seconds, "freq": torch.stack(freq) * q}
            self._measures[kind] = {name: values.numpy() for name, values in values_by_name.items()}
        return self._measures[kind]

    def with_weights_of(self, other: "ClipAttention") -> "ClipAttention":
        """This clip, its log-mel and its place, with the weights of another one of equal grid, such as a mean."""
        shown = copy.copy(self)
        shown._weights, shown._measures, shown._rollouts = other._weights, other._measures, other._rollouts
        return shown

    @property
    def loudest(self) -> int:
        """The token of the patch with the highest mean log-mel, an eighth of the clip at each end left out: what
        a patch attends to is cut off there."""
        p, q = self.config.model.patch
        means = self.log_mel.reshape(self.grid[0], p, self.grid[1], q).mean((1, 3))  # [time, freq]
        end = self.grid[0] // 8
        return 1 + end * self.grid[1] + int(means[end : self.grid[0] - end].argmax())

    def place(self, token: int) -> str:
        """A description of a token: "class token", or the seconds and Hz of a patch."""
        if token == 0:
            return "class token"
        features, (p, q) = self.config.features, self.config.model.patch
        time, freq = divmod(token - 1, self.grid[1])
        seconds = [self.start + frames * features.hop_ms / 1000 for frames in (time * p, (time + 1) * p)]
        bands = np.array([freq * q, (freq + 1) * q]) - 0.5  # half-way between the centres of neighbouring bands
        edges = band_hz(bands, features.low_hz, features.top_hz, features.mel_bins)
        return f"{seconds[0]:.2f} to {seconds[1]:.2f} s, {edges[0]:.0f} to {edges[1]:.0f} Hz"


def mean_attention(
    enc: Encoder,
    waves: Iterable[np.ndarray],
    sample_rate: int,
    like: ClipAttention,
    on_clip: Callable[[int], None] = lambda done: None,
) -> ClipAttention:
    """Mean of the weights over clips, each as long as `like`, whose log-mel and place it has; others are left out.

    waves: windows, float [S] at `sample_rate` Hz. on_clip: is told how many are done. Raises InputError where none has
    the length.
    """
    sums: dict[str, Tensor] = {}
    clips = 0
    for number, wave in enumerate(waves):
        on_clip(number)
        clip = ClipAttention(enc, wave, sample_rate)
        if clip.grid == like.grid:
            clips += 1
            sums = {kind: sums.get(kind, 0) + weights for kind, weights in clip._weights.items()}
    if not clips:
        raise InputError("class mean: no clip of the class is as long as the window")
    mean = copy.copy(like)
    mean._weights = {kind: total / clips for kind, total in sums.items()}
    mean._measures, mean._rollouts = {}, {}
    return mean


# --- Windows --------------------------------------------------------------------------------------------------------


def last_window(enc: Encoder, samples: int) -> int:
    """Where the last window of a clip of `samples`, at the encoder's rate, begins, in patches; 0: one holds it."""
    frames = enc.front_end.frames_of(samples)
    return max(0, frames // enc.config.model.patch[0] - enc.config.grid[0])


def window(enc: Encoder, wave: np.ndarray, first: int = 0) -> np.ndarray:
    """The samples of `wave` [S], at the encoder's rate, in a window of pretraining's length from patch `first` on. A
    shorter clip gives a shorter window."""
    start = first * enc.config.model.patch[0] * enc.front_end.hop
    return wave[start : start + (enc.config.input_frames - 1) * enc.front_end.hop + enc.front_end.frame]


# --- Numbers --------------------------------------------------------------------------------------------------------


def patch_entropy(weights: Tensor) -> Tensor:
    """Entropy of weights [..., K, K], mean over the patches' rows, as a share of ln K: 1 is even attention -> [...].

    Of magnitudes, see asit_lab.inspection.attention_statistics.spread.
    """
    keys = weights.shape[-1]
    entropy, _, _ = weight_statistics(weights[..., 1:, :], torch.zeros(keys, dtype=torch.bool))
    return entropy.mean(-1) / math.log(keys)


def attention_distance(weights: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Mean attention distance: weights [..., K, K] -> distance along time and frequency, in patches, each [...].

    The distance between query and key, weighted by the magnitude of attention among patches (the class token has no
    place), mean over queries. Raises InputError when the weights are not those of 1 + time * freq tokens.
    """
    if weights.shape[-2:] != (1 + grid[0] * grid[1],) * 2:
        raise InputError(f"weights: shape {list(weights.shape)} is not that of a class token and {grid} patches")
    size = weights[..., 1:, 1:].abs()
    share = size / size.sum(
        -1, keepdim=True
    )  # NaN where all attention is on the class token: such queries do not count
    time, freq = torch.meshgrid(*(torch.arange(side, dtype=size.dtype) for side in grid), indexing="ij")
    apart = [(position.flatten()[:, None] - position.flatten()).abs() for position in (time, freq)]  # each [N, N]
    by_time, by_freq = ((share * distance).sum(-1).nanmean(-1) for distance in apart)
    return by_time, by_freq


def rollout(weights: Tensor) -> Tensor:
    """Rollout through the first, the first two, ... of the layers: [L, H, K, K] -> [L, K, K], rows sum to 1.

    Softmax or difference of two, see the head of this file. A row of NaN (the class token before it joins) is a token
    that nothing is added to.
    """
    identity = torch.eye(weights.shape[-1], dtype=weights.dtype)
    products = [identity]
    for layer in weights:
        size = layer.abs()
        mixed = (size / size.sum(-1, keepdim=True)).mean(0)  # [K, K], over heads
        mixed = torch.where(mixed.isnan(), identity, mixed)
        products.append(0.5 * (mixed + identity) @ products[-1])
    return torch.stack(products[1:])
