"""The attention explorer: where a patch attends to, and which patches attend to it."""

import html
from pathlib import Path

import ipywidgets
import numpy as np
import traitlets

from ..config import diff
from ..data import DataSource
from ..encoder import Encoder
from ..errors import InputError
from ..figures import MelAxes
from ..inspection.clip_attention import MEASURES, ClipAttention, last_window, mean_attention, window
from ..zoo import open_source
from .attention_panels import head_map, percent
from .attention_scenes import Look, heads_scene, peak, token_of, token_place, weights_scene
from .base import Explorer, Sound, labelled
from .clickable import ClickableImage
from .clips import ClipChooser, loudest
from .head_search import ClipsOfHead
from .overview import Overview
from .spectrogram_view import SpectrogramView
from .work import LongWork

_AVERAGED = 16  # clips of a class
_MEAN = -1  # in the list of heads; None would be "nothing chosen"
_ONE, _ROLLOUT, _CLASS = "one layer", "rollout", "class mean"
_FACTS = '<div aria-live="polite" style="line-height: 1.5">{}</div>'
_NAMES = {"first": "first softmax", "second": "second softmax", "map": "difference"}


class AttentionExplorer(Explorer):
    """Click a patch of a clip, or choose the class token, to see where its attention goes and where it comes from.

    One layer (a head, or the mean over heads), rollout through the layers up to it, or the mean over clips of a class;
    for differential attention both softmaxes and their difference; a second model beside the first. Below, all layers
    and heads in small. A map of all heads, by entropy and distance, chooses layer and head, and so does a click on a
    small picture. Where a clip is longer than the crops of pretraining, one window of that length is shown, with a
    slider for its place.
    """

    token = traitlets.Int(-1)
    """the chosen one, 0: class token; it stays from clip to clip"""

    def __init__(
        self,
        encoder_or_run: Encoder | str | Path,
        data: DataSource = "synth:examples",
        clip: int = 0,
        layer: int = -1,
        head: int | None = None,
        seed: int = 0,
        other: Encoder | str | Path | None = None,
    ):
        """encoder_or_run, other: an Encoder, or what `zoo.open_source` takes, such as a run or a preset (`seed`: of its
        untrained weights). data, clip: a data set and its row. layer: negative ones count from the last. head: None is
        the mean over heads.
        """
        super().__init__()
        self._peaks: dict[SpectrogramView, float] = {}  # ends of the colour scales, as they were set here
        self.attention: ClipAttention | None = None
        self.other_attention: ClipAttention | None = None
        self._first = 0.0  # s, where the window starts
        self._class_means: dict[tuple, ClipAttention] = {}  # of the data set and label that were averaged last
        self.maps, self.multiples = SpectrogramView(), SpectrogramView()
        self.heads = ClickableImage()
        self.saved = (self.maps, self.multiples, self.heads)
        with self.errors_in_words():
            self.encoder, *others = [
                source if isinstance(source, Encoder) else open_source(source, seed)
                for source in (encoder_or_run, other)
                if source is not None
            ]
            self.other = others[0] if others else None
            if self.other is not None:
                check_features(self.encoder, self.other)
            self._make_controls(data, clip, layer, head)
            self._new_clip()

    def _make_controls(self, data: DataSource, clip: int, layer: int, head: int | None) -> None:
        config = self.encoder.config
        depth, heads = config.model.depth, config.model.heads
        if not -depth <= layer < depth:
            raise InputError(f"layer: {layer} is not one of {depth} (0 to {depth - 1}, or -1 for the last and so on)")
        if head is not None and not 0 <= head < heads:
            raise InputError(f"head: {head} is not one of {heads} (0 to {heads - 1}, or None for their mean)")
        self.chooser = ClipChooser(data, clip, config.features.sample_rate)
        step = config.model.patch[0] * config.features.hop_ms / 1000
        self.start = ipywidgets.FloatSlider(min=0, max=step, step=step, readout_format=".2f", continuous_update=False)
        labelled(self.start, "start (s)", "where in the clip the window of the model's length starts, seconds")
        self.view = ipywidgets.Dropdown(options=(_ONE, _ROLLOUT, _CLASS))
        labelled(self.view, "attention", "of one layer, rolled out through the layers up to it, or the mean of a class")
        self.layer = labelled(ipywidgets.IntSlider(value=layer % depth, max=depth - 1), "layer", "0 is the first")
        choices = [("mean over heads", _MEAN), *((f"head {number}", number) for number in range(heads))]
        self.head = ipywidgets.Dropdown(options=choices, value=_MEAN if head is None else head)
        labelled(self.head, "head", "rollout is of the mean over heads")
        self.measured = ipywidgets.Dropdown(options=[(_NAMES[kind], kind) for kind in ("map", "first", "second")])
        labelled(self.measured, "heads by", "which weights the map of the heads measures")
        self.measured.layout.display = None if config.model.attention != "softmax" else "none"
        self.class_token = ipywidgets.Button(description="class token", icon="dot-circle-o")
        labelled(self.class_token, "show the class token", "what the class token attends to, and what attends to it")
        self.facts = ipywidgets.HTML()
        self.sound = Sound("window")
        self.search = ClipsOfHead(self.encoder, self.chooser, self._answer)
        self.work = LongWork()
        chosen = [self.view, self.work, self.layer, self.head, self.class_token, self.measured]
        column = [self.chooser, self.start, self.sound, *chosen, self.heads, self.search]
        self.overview = Overview(self.start)
        self.arrange(column, [self.overview, self.maps, self.facts, self.multiples])
        self._connect()

    def _connect(self) -> None:
        self.maps.choosable = self.multiples.choosable = True
        self.maps.on_place = lambda _panel, frame, band: self._choose(self._token_at(frame, band))
        self.maps.on_step = self.multiples.on_step = self._step
        self.multiples.on_place = lambda panel, _frame, _band: self._answer(lambda: self._choose_head(panel))
        self.chooser.observe(lambda _: self._answer(self._new_clip), names="changed")
        self.on(self.start, self._new_window)
        self.on([self.view, self.layer, self.head], self._new_view)
        self.on(self.measured, lambda: self._draw_heads() if self.attention else self.look())
        self.on_click(self.class_token, lambda: self._choose(0))
        self.observe(lambda _: self._answer(self._new_view), names="token")
        self.heads.observe(lambda _: self._answer(self._new_head), names="selected")
        self.heads.on_again = lambda: self._answer(self._new_head)  # after another view was chosen

    # --- answers to the controls ------------------------------------------------------------------------------------

    def _choose(self, token: int) -> None:
        self.token = token

    def _token_at(self, frame: int, band: int) -> int:
        return token_of(frame, band, self.attention.grid, self.encoder.config.model.patch)

    def _step(self, right: int, up: int) -> None:
        """Choose the next patch in a direction; from the class token the first."""
        if self.attention is None:
            return
        time, freq = divmod(max(self.token, 1) - 1, self.attention.grid[1])
        if self.token:
            time, freq = (
                min(max(place + by, 0), size - 1)
                for place, by, size in zip((time, freq), (right, up), self.attention.grid, strict=True)
            )
        self._choose(1 + time * self.attention.grid[1] + freq)

    def _new_clip(self) -> None:
        """Look at the loudest window of another clip."""
        wave, rate = self.chooser.wave, self.chooser.sample_rate
        seconds = len(window(self.encoder, wave)) / rate
        with self._one_redraw():
            self.start.max = max(last_window(self.encoder, len(wave)), 1) * self.start.step
            self.start.value = round(loudest(wave, rate, seconds) / self.start.step) * self.start.step
        self.look()

    def _new_window(self) -> None:
        if not self._steady:
            self.look()

    def _new_view(self) -> None:
        if self._steady:
            return
        if self.attention is None:  # no clip yet, which `look` says
            self.look()
        with self._one_redraw():
            self.heads.selected = self._cell()
        self.redraw()

    def _new_head(self) -> None:
        """A cell of the map of the heads was chosen."""
        if self._steady or self.heads.selected < 0:
            return
        columns = self.attention.heads + 1
        layer, head = divmod(self.heads.selected % (self.attention.layers * columns), columns)
        self._show_head(layer, _MEAN if head == columns - 1 else head)

    def _choose_head(self, panel: int) -> None:
        """One of the small pictures was clicked."""
        self._show_head(*divmod(panel, self.attention.heads))

    def _show_head(self, layer: int, head: int) -> None:
        with self._one_redraw():
            self.layer.value, self.head.value = layer, head
            self.view.value = _ONE
        self._new_view()

    def _cell(self) -> int:
        """The cell of the map of the heads that is shown, in the panel it was last chosen in."""
        columns = self.attention.heads + 1
        panel = max(self.heads.selected, 0) // (self.attention.layers * columns)
        head = columns - 1 if self.head.value == _MEAN or self.view.value == _ROLLOUT else self.head.value
        return (panel * self.attention.layers + self.layer.value) * columns + head

    # --- computing --------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Compute attention in the window that is chosen, all layers at once, and draw everything."""
        enc, wave, rate = self.encoder, self.chooser.wave, self.chooser.sample_rate
        last = last_window(enc, len(wave))
        patches = min(round(self.start.value / self.start.step), last)
        audible = window(enc, wave, patches)
        if self.other is not None:
            audible = audible[: len(window(self.other, audible))]
        self._first = patches * self.start.step  # s
        self.attention = ClipAttention(enc, audible, rate, self._first)
        self.other_attention = self.other and ClipAttention(self.other, audible, rate, self._first)
        with self._one_redraw():
            self.start.layout.display = None if last else "none"
            self.overview.show(wave, rate, len(audible) / rate)
            if not 0 <= self.token <= self.attention.grid[0] * self.attention.grid[1]:
                self.token = self.attention.loudest
        self.maps.fit(self.attention.log_mel)
        self.sound.load(audible, rate)
        self._draw_heads()
        self.redraw()

    def _class_mean(self) -> ClipAttention | None:
        """The clip with the mean of the weights over clips of its class; None while that is computed, after which
        `redraw` is called."""
        labels = self.chooser.manifest.table["label"]
        key = (self.chooser.manifest.source, labels.iloc[self.chooser.row], self.attention.grid)
        if key not in self._class_means and not self.work.busy:
            self._average(key)  # where no event loop runs, the mean is there afterwards
        mean = self._class_means.get(key)
        return mean and self.attention.with_weights_of(mean)

    def _average(self, key: tuple) -> None:
        """Compute the mean of the weights over clips of the chosen clip's class."""
        manifest, row, enc, like = self.chooser.manifest, self.chooser.row, self.encoder, self.attention
        labels = manifest.table["label"]
        rows = np.flatnonzero(labels == labels.iloc[row])[:_AVERAGED].tolist()
        rate = enc.config.features.sample_rate

        def compute(report):
            waves = (window(enc, manifest.read(other, rate)) for other in rows)
            return mean_attention(enc, waves, rate, like, lambda done: report(done, len(rows)))

        def show(result) -> None:
            if isinstance(result, Exception):
                if self.view.value == _CLASS:  # else another view was chosen meanwhile
                    with self._one_redraw():
                        self.view.value = _ONE
                    self.redraw()
                raise result
            self._class_means = {key: result}
            self.redraw()

        self.work.run("averaging", compute, lambda result: self._answer(lambda: show(result)), background=True)

    # --- drawing ----------------------------------------------------------------------------------------------------

    @property
    def _axes(self) -> MelAxes:
        return MelAxes.of(self.encoder.config.features, normalised=True, start=self._first)

    @property
    def _scale(self) -> tuple[float, float]:
        features = self.encoder.config.features
        return float(features.std), float(features.mean)

    def _draw_heads(self) -> None:
        """The map of all heads. Distance in frequency is left out where a patch has all bands."""
        measures = self.attention.measures(self.measured.value)
        measures = {name: values for name, values in measures.items() if name != "freq" or self.attention.grid[1] > 1}
        figure, targets = head_map({MEASURES[name]: values for name, values in measures.items()})
        labels = []
        for name, values in measures.items():
            for (layer, head), value in np.ndenumerate(values):
                heads = "mean over heads" if head == self.attention.heads else f"head {head}"
                labels.append(f"layer {layer}, {heads}\n{MEASURES[name]}: {value:.3g}")
        with self._one_redraw():
            self.heads.draw(figure, targets, labels, alt="Entropy and distance of attention by layer and head.")
            self.heads.selected = self._cell()

    def redraw(self) -> None:
        """Draw the chosen token's attention from the computed maps."""
        token, shown, of = self.token, self.attention, ""
        self.head.disabled = self.view.value == _ROLLOUT
        if self.view.value == _CLASS and self.chooser.row is None:
            with self._one_redraw():
                self.view.value = _ONE
            self.redraw()
            raise InputError("class mean: choose a clip of a data set, which has a class; one layer is shown")
        if self.view.value == _CLASS:
            mean = self._class_mean()
            shown, of = mean or shown, "mean of the class, " if mean else "this clip until its class is averaged, "
        looks = [Look(shown, self._weights(shown, self.encoder.name), token)]
        place = token_place(token, shown.grid, looks[0].patch)
        if self.other_attention is not None:
            there = self.other_attention
            patch = there.config.model.patch
            same = token_of(place[0] + place[2] // 2, place[1] + place[3] // 2, there.grid, patch) if token else 0
            looks.append(Look(there, self._weights(there, self.other.name), same))
        heading = f"{shown.place(token)}; {of}{self._description()}"
        scene = weights_scene(looks, self.chooser.name, self._axes, self._scale, heading)
        heads = heads_scene(shown, token, self._axes, self._scale)
        for view, drawn in ((self.maps, scene), (self.multiples, heads)):
            with view.hold_sync():
                if view.peak == self._peaks.get(view, view.peak):  # else the user has chosen another
                    view.peak = self._peaks[view] = peak(drawn)
                view.marked = [list(place)] if token else []
                view.show(drawn, f"Attention of {heading}." if drawn is scene else f"Every head: {shown.place(token)}.")
        self.facts.value = self._facts(next(reversed(looks[0].weights.values())), token, heading)
        self.search.follow(self.layer.value, shown.heads if self.head.value == _MEAN else self.head.value)

    def _weights(self, attention: ClipAttention, name: str) -> dict[str, np.ndarray]:
        """The weights the controls choose, by what they are; the difference last."""
        prefix = f"{name}: " if self.other is not None else ""
        layer = min(self.layer.value, attention.layers - 1)
        if self.view.value == _ROLLOUT:
            return {f"{prefix}rollout": attention.rollout("map", layer)}
        head = None if not 0 <= self.head.value < attention.heads else self.head.value
        if len(attention.kinds) == 1:
            return {name if prefix else "softmax": attention.weights("map", layer, head)}
        return {f"{prefix}{_NAMES[kind]}": attention.weights(kind, layer, head) for kind in attention.kinds}

    def _description(self) -> str:
        """Layer and head in words."""
        layer, lam = self.layer.value, self.attention.lam
        if self.view.value == _ROLLOUT:
            return f"rollout through layers 0 to {layer}" + (", by magnitude" if lam is not None else "")
        heads = "mean over heads" if self.head.value == _MEAN else f"head {self.head.value}"
        return f"layer {layer}, {heads}" + (f", \u03bb = {lam[layer]:.2g}" if lam is not None else "")

    def _facts(self, weights: np.ndarray, token: int, heading: str) -> str:
        """The strongest weights in words, for those who read rather than look."""
        lines = [f"<b>{html.escape(heading)}</b>"]
        for verb, values in (("attends most to", weights[token]), ("is attended to most by", weights[:, token])):
            if np.isnan(values).all():
                lines.append(f"The class token joins at block {self.encoder.config.model.class_token_at}.")
                continue
            best = np.argsort(-np.nan_to_num(np.abs(values)), kind="stable")[:3]
            named = (f"{self.attention.place(int(place))} ({percent(values[place])})" for place in best)
            lines.append(f"It {verb}: {'; '.join(named)}.")
        return _FACTS.format(f"{'<br>'.join(lines)}<br>Even attention would be {percent(1 / len(weights))}.")


def check_features(first: Encoder, second: Encoder) -> None:
    """Raise InputError unless two encoders see the same log-mel."""
    differ = [row["key"] for row in diff(first.config, second.config) if row["key"].startswith("features.")]
    if differ:
        raise InputError(
            f"{first.name} and {second.name}: two models stand beside each other where their features are the same; "
            f"these differ: {', '.join(differ)} (compare_attention.ipynb compares any two)"
        )
