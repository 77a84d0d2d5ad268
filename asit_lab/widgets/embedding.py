"""The embedding explorer: clips of a data set on a plane, with their log-mel, sound and neighbours."""

import html
import importlib.util
from functools import lru_cache
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd

from ..data import DataSource, load_manifest
from ..data.lists import as_source
from ..embedding.projection import PROJECTIONS, align
from ..embedding.space import EmbeddingSpace
from ..embedding.vectors import POOLED
from ..encoder import Encoder
from ..errors import InputError
from ..figures import MelAxes
from ..figures.style import short_name
from ..zoo import open_source
from .base import Explorer, FigureImage, Sound, labelled
from .clickable import ClickableImage
from .embedding_panels import neighbour_strip, short_label, thumbnail
from .plane import Plane
from .work import LongWork, ReportProgress

NEIGHBOURS = 8
_LONGEST = 10.0  # s of a clip that are read, shown and played
_MOST_LETTERS = 60  # of the title over the plane, which a legend follows
_COLOURS = ("label", "prediction", "error", "fold", "group", "length", "level")
_COLOUR_HINT = "prediction: the label of most nearest neighbours; error: whether that is right; length, level: a scale"
_KEPT = 64  # clips whose log-mel is kept


class EmbeddingExplorer(Explorer):
    """Clips of a data set on a plane: hover to see one, click to hear it and to see its nearest neighbours; zoom,
    search, select by a lasso, colour by label, fold, length, level, or by what the neighbours predict.

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
        self.map, self.strip, self.thumbnail = Plane(), ClickableImage(), FigureImage()
        self._levels: dict[int, np.ndarray] = {}  # of a space, by its id
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
        installed = [method for method in PROJECTIONS if method != "UMAP" or importlib.util.find_spec("umap")]
        self.method = labelled(ipywidgets.Dropdown(options=installed), "plane", "how vectors become points")
        self.colour = labelled(ipywidgets.Dropdown(options=list(_COLOURS)), "colour by", _COLOUR_HINT)
        self.work = LongWork()
        self.sound, self.near_sound = Sound("chosen clip"), Sound("neighbour")
        self.go = ipywidgets.Button(icon="crosshairs", disabled=True)
        labelled(self.go, "choose this neighbour", "make the last played neighbour the chosen clip")
        self.facts = ipywidgets.HTML()
        self.map.layout.max_width, self.strip.layout.max_width = "900px", "720px"
        self.map.layout.min_width = "420px"
        self.map.layout.flex, self.strip.layout.flex = "3 1 520px", "2 1 380px"
        side_by_side = ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start", width="100%")
        self.arrange(
            [
                self.data,
                self.work,
                self.layer,
                self.pool,
                self.method,
                self.colour,
                self.thumbnail,
                self.sound,
                self.near_sound,
                self.go,
                self.facts,
            ],
            [ipywidgets.HBox([self.map, self.strip], layout=side_by_side)],
        )
        self.on(self.data, lambda: self.embed(background=True))
        self.on([self.layer, self.pool, self.method], self._new_vectors)
        self.on(self.colour, self._new_colour)
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
            space.points(self.layer.value, self.pool.value, self.method.value)
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
        self.chosen, self.map.selected, self.map.hovered = -1, -1, -1
        self.space = result
        self._log_mel.cache_clear()
        self._drawn_points = None
        self._draw_map()
        self._take(0, play=False)

    def _new_vectors(self) -> None:
        """Another layer or pooling: other points and neighbours of the same clip."""
        if self.space is None:
            self.embed()
            return
        space, choice = self.space, (self.layer.value, self.pool.value, self.method.value)

        def show(result) -> None:
            if isinstance(result, Exception):
                raise result
            if choice == (self.layer.value, self.pool.value, self.method.value) and space is self.space:
                self._draw_map()
                self.redraw()

        self.work.run("projecting", lambda _: space.points(*choice), lambda r: self._answer(lambda: show(r)), True)

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
        points = space.points(*choice, self.method.value)
        if self._drawn_points is not None:
            points = align(points, self._drawn_points)
        title = f"{self.encoder.name}; {len(space.rows)} clips of {space.manifest.source}"
        method = f"{self.method.value} of {self.layer.label}, {self.pool.value}"
        self._drawn_points, self._choice = points, choice
        self._clip_names = [self._name(clip) for clip in range(len(space.rows))]
        self.map.show(points, self._table(), self._clip_names, short_name(title, _MOST_LETTERS), method)
        self._new_colour()

    def _table(self) -> pd.DataFrame:
        """A row a clip, for what is selected on the plane and for CSV."""
        space = self.space
        clips = space.manifest.table
        table = pd.DataFrame(
            {"clip": space.rows, "label": space.labels, "seconds": clips["seconds"].round(3).to_numpy()}
        )
        for name in ("fold", "split", "group"):
            if clips[name].notna().any():
                table[name] = clips[name].astype("string").fillna("").to_numpy()
        return table.assign(predicted=space.predicted(NEIGHBOURS, *self._choice), path=clips["path"].to_numpy())

    def _new_colour(self) -> None:
        """Colour the points by what is chosen."""
        space, column = self.space, self.colour.value
        if space is None:
            self.embed()
            return
        if column == "level":
            self._colour_by_level()
        elif column == "length":
            self.map.colour_by(space.manifest.table["seconds"], "s")
        elif column in ("prediction", "error"):
            predicted = pd.Series(space.predicted(NEIGHBOURS, *self._choice))
            right = (predicted == pd.Series(space.labels)).map({True: "right", False: "wrong"})
            self.map.colour_by(predicted if column == "prediction" else right)
        elif column == "label":
            self.map.colour_by(pd.Series(space.labels))
        else:
            self.map.colour_by(space.manifest.table[column].astype("string").fillna("none"))

    def _colour_by_level(self) -> None:
        """Levels are measured the first time."""
        space, rate = self.space, self.encoder.config.features.sample_rate

        def measure(report: ReportProgress) -> np.ndarray:
            levels = np.empty(len(space.rows))
            for clip in range(len(levels)):
                report(clip, len(levels))
                power = np.mean(np.square(space.manifest.read(clip, rate, seconds=_LONGEST), dtype=np.float64))
                levels[clip] = 10 * np.log10(max(power, 1e-10))
            return levels

        def show(result) -> None:
            if isinstance(result, Exception):
                raise result
            self._levels = {id(space): result}
            if self.space is space and self.colour.value == "level":
                self.map.colour_by(pd.Series(result), "dB")

        if id(space) in self._levels:
            show(self._levels[id(space)])
        else:
            self.work.run("measuring", measure, lambda result: self._answer(lambda: show(result)), background=True)

    def redraw(self) -> None:
        """Mark the chosen clip and its neighbours on the plane, and draw their log-mels."""
        space, clip = self.space, self.chosen
        self.near, similarity = space.nearest(clip, NEIGHBOURS, *self._choice)
        self.map.near = self.near.tolist()
        labels = [space.labels[near] for near in self.near]
        groups = space.manifest.table["group"].to_numpy()
        marks = ["= " if pd.notna(groups[clip]) and groups[near] == groups[clip] else "" for near in self.near]
        titles = [
            f"{mark}{value:.2f} {short_label(label)}"
            for mark, value, label in zip(marks, similarity, labels, strict=True)
        ]
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
        if any(marks):
            lines.append(f"{sum(map(bool, marks))} of them are of the same recording (marked =).")
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
