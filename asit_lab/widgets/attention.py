"""The attention explorer: where a patch attends to, and which patches attend to it."""

from pathlib import Path

import ipywidgets
import numpy as np

from ..data import DataSource
from ..encoder import Encoder
from ..errors import InputError
from ..figures import MelAxes
from ..inspection.clip_attention import MEASURES, ClipAttention, last_window, window
from ..zoo import open_source
from .attention_panels import AttentionPanels, attention_picker, head_map, percent
from .base import Explorer, FigureImage, Sound, labelled
from .clickable import ClickableImage
from .clips import ClipChooser

_DPI = 125
_MEAN = -1  # in the list of heads; None would be "nothing chosen"
_ONE, _ROLLOUT = "one layer", "rollout"
_FACTS = '<div aria-live="polite" style="line-height: 1.5">{}</div>'
_NAMES = {"first": "first softmax", "second": "second softmax", "map": "difference"}


class AttentionExplorer(Explorer):
    """Click a patch of a clip, or the box of the class token, to see where its attention goes and where it comes from.

    One layer (a head, or the mean over heads) or rollout through the layers up to it; for differential attention both
    softmaxes and their difference. A map of all heads, by entropy and distance, chooses layer and head. Where a clip is
    longer than the crops of pretraining, one window of that length is shown, with a slider for its place.
    """

    def __init__(
        self,
        encoder_or_run: Encoder | str | Path,
        data: DataSource = "synth:examples",
        clip: int = 0,
        layer: int = -1,
        head: int | None = None,
        seed: int = 0,
    ):
        """encoder_or_run: an Encoder, or what `zoo.open_source` takes, such as a run or a preset (`seed`: of its
        untrained weights). data, clip: a data set and its row. layer: negative ones count from the last. head: None is
        the mean over heads.
        """
        super().__init__()
        self.attention: ClipAttention | None = None
        self._panels: AttentionPanels | None = None
        self._first = 0.0  # s, where the window starts
        self._panels_key: tuple | None = None  # view, grid and start (s) they are for
        self.picker, self.heads, self.maps = ClickableImage(), ClickableImage(), FigureImage()
        self.saved = (self.picker, self.maps, self.heads)
        with self.errors_in_words():
            enc = encoder_or_run if isinstance(encoder_or_run, Encoder) else open_source(encoder_or_run, seed)
            self.encoder = enc
            self._make_controls(data, clip, layer, head)
            self.look()

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
        self.view = ipywidgets.ToggleButtons(options=(_ONE, _ROLLOUT))
        labelled(self.view, "attention", "of one layer, or rolled out through the layers up to it")
        self.view.style.button_width = "84px"
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
        self.picker.layout.max_width = self.maps.layout.max_width = "1250px"
        chosen = [self.view, self.layer, self.head, self.class_token, self.measured]
        self.arrange([self.chooser, self.start, self.sound, *chosen, self.heads], [self.picker, self.maps, self.facts])
        self.chooser.observe(lambda _: self._answer(self._new_clip), names="changed")
        self.on(self.start, self._new_window)
        self.on([self.view, self.layer, self.head], self._new_view)
        self.on(self.measured, lambda: self._draw_heads() if self.attention else self.look())
        self.on_click(self.class_token, self._choose_class_token)
        self.picker.observe(lambda _: self._answer(self._new_view), names="selected")
        self.heads.observe(lambda _: self._answer(self._new_head), names="selected")

    # --- answers to the controls ------------------------------------------------------------------------------------

    def _new_clip(self) -> None:
        with self._one_redraw():
            self.start.value = 0.0
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
        with self._one_redraw():
            self.layer.value, self.head.value = layer, _MEAN if head == columns - 1 else head
            self.view.value = _ONE
        self.redraw()

    def _choose_class_token(self) -> None:
        self.picker.selected = 0

    def _cell(self) -> int:
        """The cell of the map of the heads that is shown, in the panel it was last chosen in."""
        columns = self.attention.heads + 1
        panel = max(self.heads.selected, 0) // (self.attention.layers * columns)
        head = columns - 1 if self.head.value == _MEAN or self.view.value == _ROLLOUT else self.head.value
        return (panel * self.attention.layers + self.layer.value) * columns + head

    # --- computing and drawing --------------------------------------------------------------------------------------

    def look(self) -> None:
        """Compute attention in the window that is chosen, all layers at once, and draw everything."""
        enc, wave = self.encoder, self.chooser.wave
        last = last_window(enc, len(wave))
        patches = min(round(self.start.value / self.start.step), last)
        audible = window(enc, wave, patches)
        self._first = patches * self.start.step  # s
        rate, patch = enc.config.features.sample_rate, enc.config.model.patch
        attention = ClipAttention(enc, audible, rate, self._first)
        self.attention = attention
        title = f"{self.chooser.name}: choose a patch or the class token"
        figure, targets = attention_picker(attention.log_mel, self._axes, patch, title)
        labels = [attention.place(token) for token in range(1 + attention.grid[0] * attention.grid[1])]
        with self._one_redraw():
            self.start.layout.display = None if last else "none"
            self.start.max = max(last, 1) * self.start.step
            self.picker.draw(figure, targets, labels, dpi=_DPI, alt=f"Log-mel of {self.chooser.name}, patch by patch.")
            if self.picker.selected < 0:
                self.picker.selected = attention.loudest
        self.sound.load(audible, rate)
        self._draw_heads()
        self.redraw()

    @property
    def _axes(self) -> MelAxes:
        return MelAxes.of(self.encoder.config.features, normalised=True, start=self._first)

    def _panels_for(self, view: str) -> AttentionPanels:
        """The panels of a view of this window; existing ones are reused if they fit."""
        key = (view, self.attention.grid, self._first)
        if self._panels is None or self._panels_key != key:
            kinds = self.attention.kinds
            names = {kind: _NAMES[kind] for kind in kinds} if len(kinds) > 1 else {"map": "attention"}
            columns = {"map": "rollout"} if view == _ROLLOUT else names
            patch = self.encoder.config.model.patch
            self._panels, self._panels_key = AttentionPanels(columns, self.attention.grid, patch, self._axes), key
        return self._panels

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
        attention, layer, token = self.attention, self.layer.value, self.picker.selected
        rolled = self.view.value == _ROLLOUT
        self.head.disabled = rolled
        if rolled:
            weights = {"map": attention.rollout("map", layer)}
            description = f"rollout through layers 0 to {layer}"
            description += ", by magnitude" if attention.lam is not None else ""
        else:
            head = None if self.head.value == _MEAN else self.head.value
            weights = {kind: attention.weights(kind, layer, head) for kind in attention.kinds}
            description = f"layer {layer}, {'mean over heads' if head is None else f'head {head}'}"
            description += f", \u03bb = {attention.lam[layer]:.2g}" if attention.lam is not None else ""
        heading = f"{attention.place(token)}; {description}"
        figure = self._panels_for(self.view.value).show(weights, token, heading)
        self.maps.draw(figure, _DPI, alt=f"Attention of {heading}.")
        self.facts.value = self._facts(weights["map"], token)

    def _facts(self, weights: np.ndarray, token: int) -> str:
        """The strongest weights in words, for those who read rather than look."""
        lines = []
        for verb, values in (("attends most to", weights[token]), ("is attended to most by", weights[:, token])):
            if np.isnan(values).all():
                lines.append(f"The class token joins at block {self.encoder.config.model.class_token_at}.")
                continue
            best = np.argsort(-np.nan_to_num(np.abs(values)), kind="stable")[:3]
            named = (f"{self.attention.place(int(place))} ({percent(values[place])})" for place in best)
            lines.append(f"It {verb}: {'; '.join(named)}.")
        return _FACTS.format(f"{'<br>'.join(lines)}<br>Even attention would be {percent(1 / len(weights))}.")
