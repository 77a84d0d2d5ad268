"""An encoder's clips on a plane, with the log-mels of the chosen one's nearest neighbours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..data import Manifest
from ..embedding.projection import align
from ..embedding.space import EmbeddingSpace
from ..encoder import Encoder
from ..figures import MelAxes
from ..figures.style import short_name
from .clickable import ClickableImage
from .embedding_panels import neighbour_strip, short_label
from .plane import Plane
from .work import ReportProgress

NEIGHBOURS = 8
_MOST_LETTERS = 60  # of the title over the plane, which a legend follows


class EncoderPlane:
    """encoder: whose embeddings are drawn. plane, strip: the widgets. near: int64, the chosen clip's neighbours."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder
        self.plane, self.strip = Plane(), ClickableImage()
        self.plane.layout.max_width, self.strip.layout.max_width = "900px", "720px"
        self.plane.layout.min_width = "420px"
        self.space: EmbeddingSpace | None = None
        self.near = np.empty(0, dtype=int)
        self.choice = (0, "mean+std")
        self._points: np.ndarray | None = None

    def embed(self, manifest: Manifest, clips: int, seed: int, report: ReportProgress) -> EmbeddingSpace:
        """Embeddings of a data set; `take` shows them. Raises InputError as `EmbeddingSpace` does."""
        return EmbeddingSpace(self.encoder, manifest, clips, seed, report)

    def take(self, space: EmbeddingSpace) -> None:
        """Show other clips from the next `draw` on."""
        self.space, self._points = space, None
        self.plane.selected, self.plane.hovered = -1, -1

    def layer(self, number: int, depth: int) -> int:
        """This encoder's layer for block `number` of another that has `depth`: its own final output for the final one,
        the last block where it has fewer."""
        own = self.encoder.config.model.depth
        return own if number == depth else min(number, own - 1)

    def draw(self, layer: int, pool: str, method: str, words: str, like: np.ndarray | None = None) -> np.ndarray:
        """Points of a layer, turned as the last ones, or as `like`, were: float32 [clips, 2]. words: says the layer."""
        space, self.choice = self.space, (layer, pool)
        points = space.points(layer, pool, method)
        before = self._points if self._points is not None else like
        self._points = points if before is None else align(points, before)
        title = f"{self.encoder.name}; {len(space.rows)} clips of {space.manifest.source}"
        method = f"{method} of {words}, {pool}{self._agreement()}"
        names = [self.name(clip) for clip in range(len(space.rows))]
        self.plane.show(self._points, self._table(), names, short_name(title, _MOST_LETTERS), method)
        return self._points

    def telling_clip(self) -> int:
        """The first clip that most of its neighbours share the label of, which shows what they are for; else the
        first."""
        predicted = np.array(self.space.predicted(NEIGHBOURS, *self.choice))
        return int((predicted == np.array(self.space.labels)).argmax())

    def _agreement(self) -> str:
        """How many clips share the label of their nearest neighbour, in words; empty where labels do not differ."""
        labels = np.array(self.space.labels)
        if len(set(self.space.labels)) < 2:
            return ""
        same = labels[self.space.neighbours(NEIGHBOURS, *self.choice)[:, 0]] == labels
        return f"; the nearest neighbour has a clip's label for {100 * same.mean():.0f} %"

    def _table(self) -> pd.DataFrame:
        """A row a clip, for what is selected on the plane and for CSV."""
        space = self.space
        clips = space.manifest.table
        table = pd.DataFrame(
            {"clip": space.rows, "label": space.labels, "seconds": clips["seconds"].round(3).to_numpy()}
        )
        for name in ("fold", "split", "group"):
            if clips[name].notna().any() and not clips[name].astype("string").equals(clips["path"].astype("string")):
                table[name] = clips[name].astype("string").fillna("").to_numpy()
        return table.assign(predicted=space.predicted(NEIGHBOURS, *self.choice), path=clips["path"].to_numpy())

    def mark(
        self, near: np.ndarray, similarity: np.ndarray, of: str, log_mels: Sequence[np.ndarray], axes: MelAxes
    ) -> None:
        """Ring the neighbours and draw their log-mels. of: label or name of the sound that they are neighbours of.
        log_mels: float [frames, mels] each, that sound's first."""
        self.near = near
        self.plane.near = near.tolist()
        labels = [short_label(self.space.labels[clip]) for clip in near]
        marks = ["= " if same else "" for same in self.same_recording()]
        titles = [
            f"{mark}cos {value:.2f} {label}" for mark, value, label in zip(marks, similarity, labels, strict=True)
        ]
        figure, targets = neighbour_strip(log_mels, [short_label(of), *titles], axes)
        names = [
            f"similarity {value:.2f}, {self.name(clip)}" for value, clip in zip(similarity, near.tolist(), strict=True)
        ]
        self.strip.selected = -1
        alt = f"Nearest neighbours of {of} by {self.encoder.name}; choose one to hear it."
        self.strip.draw(figure, targets, names, alt=alt)

    def same_recording(self) -> list[bool]:
        """Whether each neighbour is of the same recording as the selected clip."""
        groups, clip = self.space.manifest.table["group"].to_numpy(), self.plane.selected
        return [clip >= 0 and pd.notna(groups[clip]) and groups[near] == groups[clip] for near in self.near]

    def name(self, clip: int) -> str:
        """A clip in words."""
        row = self.space.manifest.table.iloc[clip]
        return f"{row['label'] or 'no label'}, clip {self.space.rows[clip]}, {Path(row['path']).name}"
