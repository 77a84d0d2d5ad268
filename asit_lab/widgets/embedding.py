"""The embedding explorer: clips of a data set on a plane, with their log-mel, sound and neighbours."""

import html
from functools import lru_cache
from pathlib import Path

import ipywidgets
import numpy as np

from ..data import DataSource, load_manifest
from ..data.lists import as_source
from ..embedding.space import EmbeddingSpace
from ..embedding.vectors import POOLED
from ..encoder import Encoder
from ..errors import InputError
from ..figures import MelAxes
from ..figures.style import short_name
from ..zoo import open_source
from .base import Explorer, FigureImage, Sound, labelled
from .clickable import ClickableImage
from .embedding_panels import MAP_DPI, NeighbourMap, neighbour_strip, short_label, thumbnail
from .work import LongWork, ReportProgress

NEIGHBOURS = 8
_LONGEST = 10.0  # s of a clip that are read, shown and played
_MOST_LETTERS = 60  # of the title over the plane, which a legend follows
_KEPT = 64  # clips whose log-mel is kept


class EmbeddingExplorer(Explorer):
    """Clips of a data set on a plane, by label: hover to see one, click to hear it and to see its nearest neighbours.

    Neighbours are those in the space of the embeddings, by cosine of standardised vectors, not those on the plane. A
    click on a neighbour's log-mel plays it; a button makes it the chosen clip. Any layer and pooling, from one pass
    that is kept on disk.
    """

    def __init__(
        self,
        encoder_or_run: Encoder | str | Path,
        data: DataSource = "synth:40",
        layer: int | None = None,
        pool: str = "mean+std",
        clips: int = 1000,
        seed: int = 0,
    ):
        """encoder_or_run: an Encoder, or what `zoo.open_source` takes, such as a run or a preset (`seed`: of its
        untrained weights). layer: None is the final output; negative ones count from the last block. pool: mean+std,
        mean or class. clips: of a larger data set as many are drawn by `seed`.
        """
        super().__init__()
        self.clips, self.seed = clips, seed
        self.space: EmbeddingSpace | None = None
        self.chosen, self.near = -1, np.empty(0, dtype=int)
        self.map, self.strip, self.thumbnail = ClickableImage(), ClickableImage(), FigureImage()
        self.saved = (self.map, self.strip)
        self._log_mel = lru_cache(_KEPT)(self._read_log_mel)
        with self.errors_in_words():
            enc = encoder_or_run if isinstance(encoder_or_run, Encoder) else open_source(encoder_or_run, seed)
            self.encoder = enc
            self._axes = MelAxes.of(enc.config.features, normalised=True)
            self._make_controls(data, layer, pool)
            self.embed()

    def _make_controls(self, data: DataSource, layer: int | None, pool: str) -> None:
        depth = self.encoder.config.model.depth
        if layer is not None and not -depth <= layer <= depth:
            raise InputError(f"layer: {layer} is not one of {depth} (0 to {depth - 1}), or None for the final output")
        if pool not in POOLED:
            raise InputError(f"pool: {pool!r} is not one of {', '.join(POOLED)}")
        self.data = ipywidgets.Text(value=as_source(data), continuous_update=False)
        labelled(self.data, "data set", "synth:CLIPS, esc50:PATH, speech_commands:PATH, folder:PATH, ...")
        blocks = [(f"block {number}", number) for number in range(depth)]
        chosen = depth if layer is None else layer % depth if layer < 0 else layer
        self.layer = ipywidgets.Dropdown(options=[*blocks, ("final output", depth)], value=chosen)
        labelled(self.layer, "layer", "whose output is pooled")
        self.pool = labelled(ipywidgets.Dropdown(options=list(POOLED), value=pool), "pooling", "of a clip's tokens")
        self.work = LongWork()
        self.sound, self.near_sound = Sound("chosen clip"), Sound("neighbour")
        self.go = ipywidgets.Button(icon="crosshairs", disabled=True)
        labelled(self.go, "choose this neighbour", "make the last played neighbour the chosen clip")
        self.facts = ipywidgets.HTML()
        self.map.layout.max_width, self.strip.layout.max_width = "900px", "720px"
        self.map.layout.flex, self.strip.layout.flex = "3 1 520px", "2 1 380px"
        side_by_side = ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start", width="100%")
        self.arrange(
            [
                self.data,
                self.work,
                self.layer,
                self.pool,
                self.thumbnail,
                self.sound,
                self.near_sound,
                self.go,
                self.facts,
            ],
            [ipywidgets.HBox([self.map, self.strip], layout=side_by_side)],
        )
        self.on(self.data, lambda: self.embed(background=True))
        self.on([self.layer, self.pool], self._new_vectors)
        self.on_click(self.go, self._choose_neighbour)
        for picture, name, handler in (
            (self.map, "selected", self._choose),
            (self.map, "hovered", self._show_hovered),
            (self.strip, "selected", self._hear_neighbour),
        ):
            picture.observe(lambda _, handler=handler: self._answer(handler), names=name)

    # --- answers to the controls ------------------------------------------------------------------------------------

    def embed(self, background: bool = False) -> None:
        """Embed the named data set and draw it. background: while the page stays responsive."""
        manifest = load_manifest(self.data.value)

        def compute(report: ReportProgress) -> EmbeddingSpace:
            space = EmbeddingSpace(self.encoder, manifest, self.clips, self.seed, report)
            space.points(self.layer.value, self.pool.value)
            return space

        try:
            self.work.run("embedding", compute, lambda result: self._answer(lambda: self._show(result)), background)
        finally:
            self.data.disabled = self.work.busy  # one at a time

    def _show(self, result: EmbeddingSpace | Exception) -> None:
        """Draw the embedded clips, the first one chosen; without new ones the previous map stays."""
        self.data.disabled = False
        if isinstance(result, Exception):
            if isinstance(result, InputError) and self.space is not None:
                raise InputError(f"{result}; the map still shows {self.space.manifest.source}") from result
            raise result
        self.space, self.chosen, self.map.selected = result, -1, -1
        self._log_mel.cache_clear()
        self._draw_map()
        self._take(0, play=False)

    def _new_vectors(self) -> None:
        """Another layer or pooling: other points and neighbours of the same clip."""
        if self.space is None:
            self.embed()
        else:
            self._draw_map()
            self.redraw()

    def _choose(self) -> None:
        if self.map.selected not in (-1, self.chosen):
            self._take(self.map.selected, play=True)

    def _choose_neighbour(self) -> None:
        if self.strip.selected >= 0:
            self._take(int(self.near[self.strip.selected]), play=True)

    def _take(self, clip: int, play: bool) -> None:
        """Make `clip` the chosen one: play it and show its neighbours."""
        self.chosen = clip
        self.map.selected = clip
        self._show_thumbnail(clip)
        self.redraw()
        self._play(self.sound, clip, play)

    def _hear_neighbour(self) -> None:
        self.go.disabled = self.strip.selected < 0
        if self.strip.selected >= 0:
            self._play(self.near_sound, int(self.near[self.strip.selected]), play=True)

    def _play(self, output, clip: int, play: bool) -> None:
        rate = self.encoder.config.features.sample_rate
        output.player.autoplay = play
        output.load(self.space.manifest.read(clip, rate, seconds=_LONGEST), rate)

    def _show_hovered(self) -> None:
        if self.space is not None:
            self._show_thumbnail(self.chosen if self.map.hovered < 0 else self.map.hovered)

    # --- drawing ----------------------------------------------------------------------------------------------------

    def _draw_map(self) -> None:
        """Points for the chosen layer and pooling; `redraw` shows them."""
        space, choice = self.space, (self.layer.value, self.pool.value)
        points = space.points(*choice)
        title = f"{self.encoder.name}; {len(space.rows)} clips of {space.manifest.source}"
        method = f"t-SNE of {self.layer.label}, {self.pool.value}"
        self._drawn = NeighbourMap(points, space.labels, short_name(title, _MOST_LETTERS), method)
        self._choice = choice
        self._clip_names = [self._name(clip) for clip in range(len(space.rows))]

    def redraw(self) -> None:
        """Mark the chosen clip and its neighbours on the plane, and draw their log-mels."""
        space, clip = self.space, self.chosen
        self.near, similarity = space.nearest(clip, NEIGHBOURS, *self._choice)
        figure = self._drawn.mark(clip, self.near)
        alt = f"Clips on a plane by label, with the neighbours of {self._clip_names[clip]}."
        self.map.draw(figure, [(self._drawn.ax, self._drawn.points)], self._clip_names, MAP_DPI, alt)
        labels = [space.labels[near] for near in self.near]
        titles = [f"{value:.2f} {short_label(label)}" for value, label in zip(similarity, labels, strict=True)]
        log_mels = [self._log_mel(int(near)) for near in (clip, *self.near)]
        figure, targets = neighbour_strip(log_mels, [short_label(space.labels[clip]), *titles], self._axes)
        named = [
            f"similarity {value:.2f}, {self._clip_names[near]}"
            for value, near in zip(similarity, self.near, strict=True)
        ]
        self.strip.selected = -1
        self.strip.draw(
            figure, targets, named, alt=f"Nearest neighbours of {self._clip_names[clip]}; choose one to hear it."
        )
        self.near_sound.load(None, 0)
        same = sum(label == space.labels[clip] for label in labels)
        lines = [self._clip_names[clip], f"{same} of {len(labels)} nearest neighbours have its label."]
        if space.skipped:
            lines.append(
                f"Left out, as they cannot be embedded: {len(space.skipped)}; the first: {space.skipped[0][1]}"
            )
        self.facts.value = (
            f'<div style="line-height: 1.5; overflow-wrap: anywhere">{"<br>".join(map(html.escape, lines))}</div>'
        )

    def _show_thumbnail(self, clip: int) -> None:
        """Show a clip's thumbnail over the players."""
        figure = thumbnail(self._log_mel(clip), self._axes, short_label(self.space.labels[clip]))
        self.thumbnail.draw(figure, alt=f"Log-mel of {self._clip_names[clip]}.")

    def _name(self, clip: int) -> str:
        row = self.space.manifest.table.iloc[clip]
        return f"{row['label'] or 'no label'}, clip {self.space.rows[clip]}, {Path(row['path']).name}"

    def _read_log_mel(self, clip: int) -> np.ndarray:
        """float [frames, mels], normalised, of the first seconds."""
        rate = self.encoder.config.features.sample_rate
        log_mel = self.encoder.log_mel(self.space.manifest.read(clip, rate, seconds=_LONGEST), rate)
        return log_mel[0].float().cpu().numpy()
