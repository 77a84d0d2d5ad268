"""Embeddings of a data set by any layer and pooling, with their projection and the nearest neighbours of a clip."""

from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np

from ..data import Manifest
from ..data.labels import split
from ..encoder import Encoder
from ..errors import InputError
from ..random import key, permutation
from .dataset import embed_clips, encoder_embedder
from .projection import project
from .vectors import POOLED

_BLOCK = 512  # clips whose similarities are in memory at a time


class EmbeddingSpace:
    """Embeddings of a data set by every layer and way of pooling, all from one pass that is kept on disk.

    manifest: the clips that could be embedded, renumbered. rows: int64 [clips], their rows in the data set. labels: the
    first label of each. skipped: (path, reason) of the clips left out. depth: blocks of the encoder; layers count from
    0, and `depth` is the final output.
    """

    def __init__(
        self,
        enc: Encoder,
        manifest: Manifest,
        clips: int = 1000,
        seed: int = 0,
        on_batch: Callable[[int, int], None] | None = None,
    ):
        """clips: of a larger data set as many are drawn by `seed`, which also is that of the projection. on_batch: see
        `embed_clips`.

        Raises InputError when fewer than two clips can be embedded.
        """
        if clips < 2:
            raise InputError(f"clips: {clips} are too few for neighbours; at least 2")
        rows = np.sort(permutation(key(seed, "embedding space"), len(manifest))[:clips].numpy())
        embedder = encoder_embedder(enc)
        embedded = embed_clips(manifest.subset(rows), [embedder], on_batch=on_batch)
        self.rows, self.skipped, self.seed = rows[embedded.rows], embedded.skipped, seed
        if len(self.rows) < 2:
            raise InputError(f"{manifest.source}: only {len(self.rows)} clip can be embedded; neighbours need two")
        self.manifest = manifest.subset(self.rows)
        self.depth = len(enc.backbone.blocks)
        self._pooled = embedded.features[embedder.name]  # [clips, depth + 1, 3, D]
        self._joins = enc.backbone.class_token_at
        joined = self.manifest.table["label"]
        self.labels = [(split(label)[0] if manifest.multi and label else label) or "no label" for label in joined]
        self.vectors, self.points = lru_cache(4)(self._vectors), cache(self._points)
        self.neighbours = lru_cache(4)(self._neighbours)

    def _vectors(self, layer: int, pool: str) -> np.ndarray:
        """float64 [clips, dim]: mean 0 and deviation 1 in every feature, as for the projection and the kNN probe, as
        embeddings of a transformer share a large component that carries no information.

        Raises InputError for a layer or pooling that does not exist, such as the class token before it joins.
        """
        if pool not in POOLED or not 0 <= layer <= self.depth:
            raise InputError(
                f"layer {layer!r}, pool {pool!r}: expected 0 to {self.depth} (the final output) and {', '.join(POOLED)}"
            )
        if pool == "class" and layer < self._joins:
            raise InputError(
                f"layer {layer} has no class token, which joins at block {self._joins}; pool patches instead"
            )
        features = self._features(layer, pool)
        mean, deviation = _scale(features)
        return (features - mean) / deviation

    def _features(self, layer: int, pool: str) -> np.ndarray:
        """float64 [clips, dim], as they are."""
        return self._pooled[:, layer, POOLED[pool]].reshape(len(self.rows), -1).astype(np.float64)

    def _points(self, layer: int, pool: str, method: str = "t-SNE") -> np.ndarray:
        """float32 [clips, 2], see `project`."""
        return project(self.vectors(layer, pool), self.seed, method)

    def predicted(self, count: int, layer: int, pool: str) -> list[str]:
        """For each clip the label that most of its `count` nearest neighbours have; of equals the nearest's."""
        rows = self.neighbours(count, layer, pool)
        return [Counter(self.labels[clip] for clip in row).most_common(1)[0][0] for row in rows]

    def _neighbours(self, count: int, layer: int, pool: str) -> np.ndarray:
        """int64 [clips, count]: the clips nearest to each, see `nearest`; fewer where there are not as many."""
        vectors = self.vectors(layer, pool)
        directions = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        last, rows = min(count, len(vectors) - 1), []
        for start in range(0, len(vectors), _BLOCK):
            clips = np.arange(start, min(start + _BLOCK, len(vectors)))
            similarity = directions[clips] @ directions.T  # [block, clips]
            similarity[np.arange(len(clips)), clips] = -np.inf
            near = np.sort(np.argpartition(-similarity, last - 1, axis=1)[:, :last], axis=1)
            order = np.argsort(-np.take_along_axis(similarity, near, 1), axis=1, kind="stable")
            rows.append(np.take_along_axis(near, order, 1))
        return np.concatenate(rows)

    def nearest(self, clip: int, count: int, layer: int, pool: str) -> tuple[np.ndarray, np.ndarray]:
        """The `count` clips nearest to `clip` by cosine, see `nearest_vectors`, without itself: their numbers and
        similarities (-1 to 1)."""
        vectors = self.vectors(layer, pool)
        order, similarity = nearest_vectors(vectors, vectors[clip], count + 1)
        others = order != clip
        return order[others][:count], similarity[others][:count]

    def nearest_to(self, pooled: np.ndarray, count: int, layer: int, pool: str) -> tuple[np.ndarray, np.ndarray]:
        """The same for a sound that is not among the clips. pooled: float [depth + 1, 3, D], as `Encoder.pooled` gives
        it; it is standardised as the clips are."""
        vectors = self.vectors(layer, pool)  # first: raises the errors
        mean, deviation = _scale(self._features(layer, pool))
        vector = (pooled[layer, list(POOLED[pool])].reshape(-1).astype(np.float64) - mean) / deviation
        return nearest_vectors(vectors, vector, count)


def _scale(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation [dim] of features [clips, dim]; infinite where a feature is constant."""
    mean, deviation = features.mean(0), features.std(0)
    return mean, np.where(deviation > 1e-8 * np.abs(mean), deviation, np.inf)


def nearest_vectors(vectors: np.ndarray, vector: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` rows of `vectors` [clips, dim] nearest to `vector` [dim] by cosine, the nearest first: their numbers
    and similarities (-1 to 1). Ties keep their order."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
    similarity = vectors @ vector / (lengths * max(np.linalg.norm(vector), 1e-12))
    order = np.argsort(-similarity, kind="stable")[:count]
    return order, similarity[order]
