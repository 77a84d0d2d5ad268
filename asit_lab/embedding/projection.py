"""Embeddings projected onto a plane for plotting; distances between points far apart in it mean nothing."""

import numpy as np
import pandas as pd

from ..data.labels import split
from ..errors import InputError
from ..random import key, normal
from .dataset import embed_clips, encoder_embedder

_PERPLEXITY = 30.0  # neighbours that count, scikit-learn's default
_COMPONENTS = 50  # of PCA, before t-SNE (30 in van der Maaten and Hinton 2008, section 4.2)
_FEWEST = 10  # different clips; of fewer, neighbours say nothing


PROJECTIONS = ("t-SNE", "PCA", "UMAP")


def project(features, seed: int = 0, method: str = "t-SNE") -> np.ndarray:
    """Points float32 [clips, 2] of embeddings [clips, dim]: standardised, PCA, then scikit-learn's t-SNE.

    method: "PCA" ends after the first two components; "UMAP" is umap-learn's, where that is installed.
    t-SNE starts from the first two principal components and a little noise that `seed` draws: structure that two
    seeds agree on is in the embeddings. The same input and seed give the same points. Fewer than ten different
    embeddings (a collapsed encoder's, say) stay where the principal components put them.
    A thousand clips take a few seconds, 20,000 some minutes.
    Raises InputError for another shape or method, fewer than two clips, or values that are not finite.
    """
    if method not in PROJECTIONS:
        raise InputError(f"method: {method!r} is not one of {', '.join(PROJECTIONS)}")
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2 or not features.shape[1]:
        raise InputError(f"features: expected [clips, dim], at least two clips, got shape {list(features.shape)}")
    finite = np.isfinite(features).all(1)
    if not finite.all():
        raise InputError(f"features: NaN or infinite for {(~finite).sum()} clips, the first is clip {finite.argmin()}")
    clips, different = len(features), len(np.unique(features, axis=0))
    points = np.zeros((clips, 2))  # of a single feature, nothing lies along the second axis
    with threadpool_limits(limits=1):  # sums over threads may differ in their last bits
        scaled = StandardScaler().fit_transform(features)
        if different > 1:  # else there is no direction to find
            main = PCA(min(_COMPONENTS, *scaled.shape), svd_solver="full").fit_transform(scaled)
            points[:, : main.shape[1]] = main[:, :2]
        if different >= _FEWEST and method == "UMAP":
            return _umap(main, seed)
        if different >= _FEWEST and method == "t-SNE":
            noise = normal(key(seed, "projection"), 2 * clips).reshape(clips, 2).numpy()
            start = 1e-4 * (points / points.std(0).max() + 0.1 * noise)  # as small as scikit-learn's own start
            perplexity = min(_PERPLEXITY, (clips - 1) / 3)
            points = TSNE(2, perplexity=perplexity, init=start.astype(np.float32), random_state=0).fit_transform(main)
    return points.astype(np.float32)


def _umap(main: np.ndarray, seed: int) -> np.ndarray:
    try:
        from umap import UMAP
    except ImportError:
        raise InputError("UMAP needs the package umap-learn; t-SNE and PCA need nothing more") from None
    return UMAP(random_state=seed, n_jobs=1).fit_transform(main).astype(np.float32)


def align(points: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The same points [clips, 2], turned or mirrored so that they lie as near as they can to `like`: maps of several
    layers then keep their orientation."""
    centred, target = points - points.mean(0), like - like.mean(0)
    left, _, right = np.linalg.svd(centred.T @ target)
    return (centred @ (left @ right)).astype(np.float32)


def embedding_table(enc, manifest, seed: int = 0) -> pd.DataFrame:
    """The clips of a data set on a plane: columns x, y, label (of several the first), path, row (of the manifest).

    enc: an Encoder; mean and deviation of its last layer's patches are projected. Clips that cannot be read are left
    out. Raises InputError as `embed_clips` and `project` do.
    """
    embedder = encoder_embedder(enc, layers=(enc.config.model.depth,))
    embedded = embed_clips(manifest, [embedder])
    vectors = embedded.features[embedder.name][:, -1, 1:]  # [clips, 2, D]
    points = project(vectors.reshape(len(vectors), -1), seed)
    clips = manifest.table.iloc[embedded.rows]
    first = [split(label)[0] if manifest.multi and label else label for label in clips["label"]]
    return pd.DataFrame(
        {"x": points[:, 0], "y": points[:, 1], "label": first, "path": list(clips["path"]), "row": embedded.rows}
    )
