"""Pooled embeddings of many clips, in shards: arrays in memory, or files that are read one layer at a time.

Shapes: N clips, L layers (blocks and the final output), 3 statistics (class token, mean and deviation of the patches),
D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

POOLED = {"mean+std": (1, 2), "mean": (1,), "class": (0,)}
"""ways of pooling, and which of the 3 statistics they are"""


@dataclass(frozen=True)
class Shard:
    """Vectors of some clips."""

    rows: np.ndarray
    """int64 [n], rows of the manifest"""
    vectors: np.ndarray | Path
    """float32 [n, layers held, 3, D] or [n, dim], or the file that holds them"""
    layers: tuple[int, ...] | None = None
    """numbers of the layers held; None: all of them"""

    def read(self, layer: int | None = None) -> np.ndarray:
        """[n, 3, D] of a layer; None: everything."""
        place = layer if layer is None or self.layers is None else self.layers.index(layer)
        if isinstance(self.vectors, np.ndarray):
            return self.vectors if place is None else self.vectors[:, place]
        with safe_open(self.vectors, "np") as file:
            if place is None:
                return file.get_tensor("vectors")
            return file.get_slice("vectors")[:, place : place + 1][:, 0]


class LayerVectors:
    """Vectors [N, L, 3, D] of which only the layers that are indexed are read into memory.

    Indexed like an array: `vectors[:, layer]`, `vectors[:, (0, 4)]`, `vectors[:, -1, 1:]`. Of an encoder embedded with
    fewer layers than it has, the others raise KeyError.
    """

    ndim = 4
    dtype = np.dtype(np.float32)

    def __init__(self, shards: Sequence[Shard], rows: Sequence[int], depth: int, width: int):
        """rows: rows of the manifest, in the order of the vectors. depth: L."""
        self.shape = (len(rows), depth, 3, width)
        self._shards = shards
        position = {row: (n, i) for n, shard in enumerate(shards) for i, row in enumerate(shard.rows.tolist())}
        self._places = np.array([position[row] for row in rows], dtype=np.int64).reshape(-1, 2)  # shard, row in it

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def __getitem__(self, index: Any) -> np.ndarray:
        clips, layers, *rest = index if isinstance(index, tuple) and len(index) > 1 else (index, slice(None))
        if isinstance(layers, int | np.integer):
            return self._layer(int(layers))[(clips, *rest)]
        numbers = range(self.shape[1])[layers] if isinstance(layers, slice) else layers
        stacked = np.stack([self._layer(layer) for layer in numbers], axis=1)  # [N, layers, 3, D]
        return stacked[(clips, slice(None), *rest)]

    def _layer(self, layer: int) -> np.ndarray:
        """float32 [N, 3, D]."""
        depth = self.shape[1]
        layer = layer + depth if layer < 0 else layer
        vectors = np.empty((self.shape[0], *self.shape[2:]), np.float32)
        for number, shard in enumerate(self._shards):
            own = self._places[:, 0] == number
            if not own.any():
                continue
            if shard.layers is not None and layer not in shard.layers:
                raise KeyError(f"layer {layer} was not embedded; these were: {', '.join(map(str, shard.layers))}")
            vectors[own] = shard.read(layer)[self._places[own, 1]]
        return vectors
