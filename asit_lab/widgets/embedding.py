"""The embedding explorer: clips of a data set on a plane, with their log-mel, sound and neighbours."""

import html
import importlib.util
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import torch

from .. import audio
from ..data import DataSource, load_manifest
from ..data.lists import as_source
from ..embedding.projection import PROJECTIONS
from ..embedding.space import EmbeddingSpace
from ..embedding.vectors import POOLED
from ..encoder import Encoder
from ..errors import InputError
from ..figures import MelAxes
from ..zoo import open_source
from .base import Explorer, FigureImage, Sound, labelled
from .clip_colours import COLUMNS, HINT, OF_CLIPS, SCALES, SLOW, of_clips, of_encoder
from .embedding_panels import short_label, thumbnail
from .encoder_plane import NEIGHBOURS, EncoderPlane
from .upload import FileUpload
from .work import LongWork, ReportProgress

_LONGEST = 10.0  # s of a clip that are read, shown and played
_KEPT = 64  # clips whose log-mel is kept


@dataclass(frozen=True)
class Query:
    """A sound that is not among the clips."""

    name: str
    wave: np.ndarray
    """float32 [samples], at the first encoder's rate"""
    pooled: list[np.ndarray]
    """of each encoder, float [depth + 1, 3, D]"""
    seconds: float
    """length of the file, of which `wave` has the start"""


class EmbeddingExplorer(Explorer):
    """Clips of a data set on a plane: hover to see one, click to hear it and to see its nearest neighbours; zoom,
    search, select by a lasso, colour by label, fold, length, level, or by what the neighbours predict. An uploaded
    sound has neighbours, too; a second encoder has a plane of its own beside the first.

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
        compare: Encoder | str | Path | None = None,
    ):
        """encoder_or_run: an Encoder, or what `zoo.open_source` takes, such as a run or a preset (`seed`: of its
        untrained weights). layer: None is the final output; negative ones count from the last block. pool: mean+std,
        mean or class. clips: of a larger data set as many are drawn by `seed`. compare: a second encoder.
        """
        super().__init__()
        self.clips, self.seed = clips, seed
        self.chosen = -1
        self.query: Query | None = None
        self.thumbnail = FigureImage()
        self._columns: dict[tuple, list[pd.Series]] = {}  # slow ones of the clips shown
        self._last_neighbour = -1
        self._log_mel = lru_cache(_KEPT)(self._read_log_mel)
        with self.errors_in_words():
            sources = [encoder_or_run, *([compare] if compare else [])]
            encoders = [source if isinstance(source, Encoder) else open_source(source, seed) for source in sources]
            self.encoder = encoders[0]
            self.views = [EncoderPlane(enc) for enc in encoders]
            self.map, self.strip = self.views[0].plane, self.views[0].strip
            self.saved = tuple(widget for view in self.views for widget in (view.plane, view.strip))
            self._axes = MelAxes.of(self.encoder.config.features, normalised=True)
            self._make_controls(data, layer, pool)
            self.embed()

    @property
    def space(self) -> EmbeddingSpace | None:
        """The first encoder's embeddings."""
        return self.views[0].space

    @property
    def near(self) -> np.ndarray:
        """int64: neighbours of the chosen clip by the first encoder."""
        return self.views[0].near

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
        self.colour = labelled(ipywidgets.Dropdown(options=list(COLUMNS)), "colour by", HINT)
        self.work = LongWork()
        self.sound, self.near_sound = Sound("chosen clip"), Sound("neighbour")
        self.go = ipywidgets.Button(icon="crosshairs", disabled=True)
        labelled(self.go, "choose this neighbour", "make the last played neighbour the chosen clip")
        self.upload = FileUpload()
        self.upload.hint = "a sound whose nearest neighbours are shown"
        self.facts = ipywidgets.HTML()
        choices = [self.data, self.work, self.layer, self.pool, self.method, self.colour]
        chosen = [self.thumbnail, self.sound, self.near_sound, self.go, self.upload, self.facts]
        self._arrange_views(choices, chosen)
        self.on(self.data, lambda: self.embed(background=True))
        self.on([self.layer, self.pool, self.method], self._new_vectors)
        self.on(self.colour, self._new_colour)
        self.on_click(self.go, self._choose_neighbour)
        self.upload.observe(lambda _: self._answer(self._take_upload), names="changed")
        for view in self.views:
            for picture, name, handler in (
                (view.plane, "selected", self._choose),
                (view.plane, "hovered", self._show_hovered),
                (view.strip, "selected", self._hear_neighbour),
            ):
                clear = name != "hovered"  # which leaves what is wrong on the page
                picture.observe(lambda _, do=handler, of=view, c=clear: self._answer(lambda: do(of), c), names=name)
            view.plane.on_again = lambda: self._answer(self._hear_again)
            view.strip.on_again = lambda view=view: self._answer(lambda: self._hear_neighbour(view))

    def _arrange_views(self, choices: list[ipywidgets.Widget], chosen: list[ipywidgets.Widget]) -> None:
        """One plane at the right of all controls, beside its neighbours; two planes under the controls."""
        layout = ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start", width="100%")
        if len(self.views) == 1:
            self.map.layout.flex, self.strip.layout.flex = "3 1 520px", "2 1 380px"
            self.arrange([*choices, *chosen], [ipywidgets.HBox([self.map, self.strip], layout=layout)])
            return
        column = ipywidgets.Layout(flex="1 1 440px", min_width="420px")
        planes = [ipywidgets.VBox([view.plane, view.strip], layout=column) for view in self.views]
        narrow = ipywidgets.VBox(chosen, layout=ipywidgets.Layout(max_width="360px"))
        self.arrange(choices, [narrow], below=[ipywidgets.HBox(planes, layout=layout)])

    # --- answers to the controls ------------------------------------------------------------------------------------

    def embed(self, background: bool = False) -> None:
        """Embed the named data set and draw it. background: while the page stays responsive."""
        manifest = load_manifest(self.data.value)

        def compute(report: ReportProgress) -> list[EmbeddingSpace]:
            first = self.views[0].embed(manifest, self.clips, self.seed, report)
            spaces = [first, *(view.embed(first.manifest, self.clips, self.seed, report) for view in self.views[1:])]
            for view, space in zip(self.views, spaces, strict=True):
                if len(space.rows) < len(first.rows):
                    raise InputError(f"{view.encoder.name} cannot embed {space.skipped[0][0]}: {space.skipped[0][1]}")
                space.rows = first.rows  # of the data set
                space.points(view.layer(*self._layer), self.pool.value, self.method.value)
            return spaces

        try:
            self.work.run("embedding", compute, lambda result: self._answer(lambda: self._show(result)), background)
        finally:
            self.data.disabled = self.work.busy  # one at a time

    @property
    def _layer(self) -> tuple[int, int]:
        """Number of the chosen block, and of the final output."""
        return self.layer.value, self.encoder.config.model.depth

    def _show(self, result: list[EmbeddingSpace] | Exception) -> None:
        """Draw the embedded clips, one of them chosen; without new ones the previous map stays."""
        self.data.disabled = False
        if isinstance(result, Exception):
            if isinstance(result, InputError) and self.space is not None:
                raise InputError(f"{result}; the map still shows {self.space.manifest.source}") from result
            raise result
        self.chosen, self.query = -1, None
        for view, space in zip(self.views, result, strict=True):
            view.take(space)
        self._columns.clear()
        self._log_mel.cache_clear()
        self._draw_maps()
        self._take(self.views[0].telling_clip(), play=False)

    def _new_vectors(self) -> None:
        """Another layer or pooling: other points and neighbours of the same clip."""
        if self.space is None:
            self.embed()
            return
        space, choice = self.space, (self.layer.value, self.pool.value, self.method.value)

        def compute(_report: ReportProgress) -> None:
            for view in self.views:
                view.space.points(view.layer(*self._layer), *choice[1:])

        def show(result) -> None:
            if isinstance(result, Exception):
                raise result
            if choice == (self.layer.value, self.pool.value, self.method.value) and space is self.space:
                self._draw_maps()
                self.redraw()

        self.work.run("projecting", compute, lambda result: self._answer(lambda: show(result)), True)

    def _choose(self, view: EncoderPlane) -> None:
        if view.plane.selected not in (-1, self.chosen):
            self._take(view.plane.selected, play=True)

    def _choose_neighbour(self) -> None:
        if self._last_neighbour >= 0:
            self._take(self._last_neighbour, play=True)

    def _take(self, clip: int, play: bool) -> None:
        """Make `clip` the chosen one: play it and show its neighbours."""
        self.chosen, self.query = clip, None
        for view in self.views:
            view.plane.selected = clip
        self._show_thumbnail(clip)
        self.redraw()
        self.sound.load(self._read(clip), self._rate, play)

    def _hear_again(self) -> None:
        """Play the chosen clip once more."""
        if self.chosen >= 0:  # else a sound has been uploaded meanwhile
            self.sound.load(self._read(self.chosen), self._rate, play=True)

    def _take_upload(self) -> None:
        """Show the neighbours of the uploaded sound."""
        if self.space is None:
            raise InputError("there are no clips to compare with: choose a data set first")
        path = self.upload.path
        pooled = [self._pooled(view.encoder, path) for view in self.views]
        wave = audio.read(path, self._rate, seconds=_LONGEST)
        self.query, self.chosen = Query(path.name, wave, pooled, audio.info(path).seconds), -1
        for view in self.views:
            view.plane.selected = -1
        self.redraw()
        self._show_thumbnail(-1)
        self.sound.load(wave, self._rate, play=True)

    def _pooled(self, encoder: Encoder, path: Path) -> np.ndarray:
        """float [depth + 1, 3, D] of the start of a file."""
        rate = encoder.config.features.sample_rate
        wave = torch.from_numpy(audio.read(path, rate, seconds=_LONGEST))
        return encoder.pooled([wave], rate)[0].float().cpu().numpy()

    def _hear_neighbour(self, view: EncoderPlane) -> None:
        self._last_neighbour = int(view.near[view.strip.selected]) if view.strip.selected >= 0 else -1
        self.go.disabled = self._last_neighbour < 0
        if self._last_neighbour >= 0:
            self.near_sound.load(self._read(self._last_neighbour), self._rate, play=True)

    def _show_hovered(self, view: EncoderPlane) -> None:
        clip = self.chosen if view.plane.hovered < 0 else view.plane.hovered
        if self.space is not None and (clip >= 0 or self.query):
            self._show_thumbnail(clip)
        for other in self.views:
            other.plane.hovered = view.plane.hovered

    # --- drawing ----------------------------------------------------------------------------------------------------

    def _draw_maps(self) -> None:
        """Points for the chosen layer and pooling; `redraw` shows them."""
        first = None
        for view in self.views:
            layer = view.layer(*self._layer)
            final = layer == view.encoder.config.model.depth
            words = "final output" if final else f"block {layer}"
            first = view.draw(layer, self.pool.value, self.method.value, words, first)
        self._new_colour()

    def _new_colour(self) -> None:
        """Colour the points by what is chosen."""
        if self.space is None:
            self.embed()
            return
        name, space = self.colour.value, self.space

        def compute(report: ReportProgress) -> list[pd.Series]:
            if name in OF_CLIPS:
                return [of_clips(name, space, self._rate, _LONGEST, report)] * len(self.views)
            return [of_encoder(name, v.encoder, v.space, *v.choice, NEIGHBOURS, report) for v in self.views]

        def show(result: list[pd.Series] | Exception) -> None:
            if isinstance(result, Exception):
                raise result
            if name in SLOW and space is self.space:
                self._columns[name] = result
            if space is self.space and self.colour.value == name:
                for view, column in zip(self.views, result, strict=True):
                    view.plane.colour_by(column, SCALES.get(name, ""))

        if name in self._columns or name not in SLOW:
            show(self._columns.get(name) or compute(lambda *_: None))
        else:
            for view in self.views:  # the colours before may be of other clips
                view.plane.colour_by(pd.Series("not measured", index=range(len(view.space.rows))))
            self.work.run("measuring", compute, lambda result: self._answer(lambda: show(result)), background=True)

    def redraw(self) -> None:
        """Mark the chosen sound and its neighbours on the planes, and draw their log-mels."""
        query, clip = self.query, self.chosen
        of = query.name if query else self.space.labels[clip]
        first = self._log_mel_of(query.wave) if query else self._log_mel(clip)
        for number, view in enumerate(self.views):
            if query:
                near, similarity = view.space.nearest_to(query.pooled[number], NEIGHBOURS, *view.choice)
            else:
                near, similarity = view.space.nearest(clip, NEIGHBOURS, *view.choice)
            view.mark(near, similarity, of, [first, *(self._log_mel(int(other)) for other in near)], self._axes)
        self.near_sound.load(None, 0)
        lines = "<br>".join(map(html.escape, self._facts()))
        self.facts.value = f'<div style="line-height: 1.5; overflow-wrap: anywhere">{lines}</div>'

    def _facts(self) -> list[str]:
        """What is chosen and what its neighbours are, in sentences."""
        view, clip = self.views[0], self.chosen
        labels = [self.space.labels[near] for near in self.near]
        if self.query:
            label, count = Counter(labels).most_common(1)[0]
            lines = [self.query.name, f"{count} of {len(labels)} nearest neighbours have the label {label}."]
            lines.append("It has no point of its own; its neighbours are ringed.")
            if self.query.seconds > _LONGEST + 0.01:
                lines.append(f"Only its first {_LONGEST:g} s of {self.query.seconds:.0f} s are embedded.")
        else:
            same = sum(label == self.space.labels[clip] for label in labels)
            lines = [view.name(clip), f"{same} of {len(labels)} nearest neighbours have its label."]
        if any(view.same_recording()):
            lines.append(f"{sum(view.same_recording())} of them are of the same recording (marked =).")
        for other in self.views[1:]:
            shared = len(set(self.near.tolist()) & set(other.near.tolist()))
            lines.append(f"{shared} of them are neighbours by {other.encoder.name}, too.")
        if self.space.skipped:
            skipped = self.space.skipped
            lines.append(f"Left out, as they cannot be embedded: {len(skipped)}; the first: {skipped[0][1]}")
        return lines

    def _show_thumbnail(self, clip: int) -> None:
        """Show a clip's thumbnail over the players; -1: the uploaded sound's."""
        log_mel = self._log_mel_of(self.query.wave) if clip < 0 else self._log_mel(clip)
        of, name = (self.query.name,) * 2 if clip < 0 else (self.space.labels[clip], self.views[0].name(clip))
        self.thumbnail.draw(thumbnail(log_mel, self._axes, short_label(of)), alt=f"Log-mel of {name}.")

    # --- audio ------------------------------------------------------------------------------------------------------

    @property
    def _rate(self) -> int:
        return self.encoder.config.features.sample_rate

    def _read(self, clip: int) -> np.ndarray:
        return self.space.manifest.read(clip, self._rate, seconds=_LONGEST)

    def _read_log_mel(self, clip: int) -> np.ndarray:
        return self._log_mel_of(self._read(clip))

    def _log_mel_of(self, wave: np.ndarray) -> np.ndarray:
        """float [frames, mels], normalised."""
        return self.encoder.log_mel(wave, self._rate)[0].float().cpu().numpy()
