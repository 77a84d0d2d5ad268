"""A view of log-mels of one clip that the browser draws from their values.

Zoom, cursor, colours, sound and files are handled by the page (static/spectrogram.js) and need no kernel. The kernel
draws the same panels with matplotlib only for static pictures: in a cell's output, and as PDF.
"""

import io
from collections.abc import Callable, Sequence

import anywidget
import matplotlib
import numpy as np
import traitlets
from matplotlib.figure import Figure

from ..errors import InputError
from ..figures.attention import SIGNED_MAP
from ..figures.axes import colour_limits
from ..figures.style import ATTENTION_MAP, ERROR_MAP, LOG_MEL_MAP
from .base import render_png
from .scene import DECIBELS, Scene
from .scripts import joined
from .spectrogram_figure import spectrogram_figure

_PARTS = (
    "_scales",
    "_draw",
    "_sound",
    "_masked",
    "_brush",
    "_toolbar",
    "_gestures",
    "",
)
COLOUR_MAPS = (LOG_MEL_MAP, "cividis", "gray", "gray_r")  # of levels
_OTHER_MAPS = dict.fromkeys((ERROR_MAP, ATTENTION_MAP, SIGNED_MAP))
_NARROWEST = 0.05  # colour scale of levels
_DPI = 110


class SpectrogramView(anywidget.AnyWidget):
    """Shows a `Scene`; hidden before the first. See static/spectrogram.js for what the page does with it."""

    _esm = joined("parts.js", *(f"spectrogram{part}.js" for part in _PARTS))
    _css = joined("spectrogram.css")

    scene = traitlets.Dict().tag(sync=True)
    values = traitlets.List(traitlets.Bytes()).tag(sync=True)
    """a panel's float16 [frames, mels], little-endian"""
    mask = traitlets.Bytes().tag(sync=True)
    """uint8 [frames, mels], or empty"""
    kept = traitlets.Bytes().tag(sync=True)
    """a second mask, as `mask`"""
    drawable = traitlets.Bool(False).tag(sync=True)
    """whether the mask can be drawn by hand, which calls `on_drawn` with it, bool [frames, mels]"""
    tokens = traitlets.Bytes().tag(sync=True)
    """uint8 [time, freq], or empty"""
    low = traitlets.Float(-1.0).tag(sync=True)
    high = traitlets.Float(1.0).tag(sync=True)
    """ends of the levels' colour scale, normalised"""
    most = traitlets.Float(1.0).tag(sync=True)
    """end of the errors' colour scale"""
    peak = traitlets.Float(1.0).tag(sync=True)
    """end of the weights' colour scale, percent"""
    choosable = traitlets.Bool(False).tag(sync=True)
    """whether a click chooses a place, which calls `on_place` with panel, frame and band, and Shift with an arrow key
    the next one, which calls `on_step` with the direction (right, up)"""
    marked = traitlets.List().tag(sync=True)
    """places framed in every panel: [first frame, first band, frames, bands]"""
    fitted = traitlets.List(traitlets.Float(), [-1.0, 1.0, 1.0]).tag(sync=True)
    """low, high and most as the clip has them"""
    unit = traitlets.Enum(("normalised", "dB"), "normalised").tag(sync=True)
    colours = traitlets.Enum(COLOUR_MAPS, LOG_MEL_MAP).tag(sync=True)
    maps = traitlets.Dict().tag(sync=True)
    """name -> 256 colours as bytes"""
    alt = traitlets.Unicode().tag(sync=True)

    def __init__(self):
        super().__init__(maps={name: _colours(name) for name in (*COLOUR_MAPS, *_OTHER_MAPS)})
        self.drawn_scene: Scene | None = None
        self.on_drawn: Callable[[np.ndarray], None] | None = None
        self.on_place: Callable[[int, int, int], None] | None = None
        self.on_step: Callable[[int, int], None] | None = None
        self._drawn: tuple | None = None  # state that the static picture was drawn from
        self._png = b""
        self.layout.width, self.layout.display = "100%", "none"
        self.add_class("asit-picture")
        self.on_msg(self._receive)

    def show(self, scene: Scene, alt: str = "") -> None:
        """Show `scene`. alt: text for screen readers."""
        self.drawn_scene = scene
        with self.hold_sync():
            self.scene = _described(scene)
            self.values = [np.ascontiguousarray(panel.values, "<f2").tobytes() for panel in scene.panels]
            self.mask, self.kept, self.tokens = map(_packed, (scene.mask, scene.kept_mask, scene.tokens))
            self.alt = alt
        self.layout.display = None

    def fit(self, clean: np.ndarray, errors: Sequence[np.ndarray] = ()) -> None:
        """Colour scales for another clip, log-mel [frames, mels]; the errors' from `errors`, or as wide as half the
        levels' where none are given."""
        low, high = (round(float(value), 2) for value in colour_limits(clean))
        high = max(high, low + _NARROWEST)
        most = 1.25 * float(np.nanpercentile(np.stack(errors), 99)) if len(errors) else (high - low) / 2
        step = 10.0 ** np.floor(np.log10(max(most, 1e-6)) - 1)  # two digits
        most = float(np.ceil(most / step) * step)
        with self.hold_sync():
            self.fitted = [low, high, most]
            self.low, self.high, self.most = self.fitted

    def figure(self) -> Figure:
        """The full scene as a figure. Raises InputError while there is none."""
        if self.drawn_scene is None:
            raise InputError("there is no picture yet")
        scene, limits = (
            self.drawn_scene,
            np.array([self.low, max(self.high, self.low + _NARROWEST), max(self.most, 1e-6)]),
        )
        if self.unit == "dB":
            slope, offset = 2 * scene.scale[0] * DECIBELS, scene.scale[1] * DECIBELS
            limits = limits * (slope, slope, slope if scene.error_in_decibels else 1) + (offset, offset, 0)
            scene = scene.in_decibels()
        look = {"colours": self.colours, "decibels": self.unit == "dB", "peak": self.peak, "marked": self.marked}
        return spectrogram_figure(scene, *limits.tolist(), **look)

    @property
    def png(self) -> bytes:
        """`figure` as PNG, drawn on demand; empty while there is nothing to draw."""
        limits = (self.low, self.high, self.most, self.peak)
        state = (id(self.drawn_scene), *limits, self.unit, self.colours, str(self.marked))
        if self.drawn_scene is not None and self._drawn != state:
            figure = self.figure()
            self._png, self._drawn = render_png(figure, _DPI), state
            figure.clear()  # a figure is full of cycles, which the collector finds late
        return self._png

    def _receive(self, _widget, content: dict, buffers: list) -> None:
        """Handle a message from the page: pdf (of the frames t0 to t1 and bands b0 to b1), mask (drawn by hand), place
        (chosen by a click) or step (by a key)."""
        if self.drawn_scene is None:
            return
        if content.get("kind") == "pdf":
            self._send_pdf(content)
        elif content.get("kind") == "place" and self.on_place is not None:
            self.on_place(content["panel"], content["frame"], content["band"])
        elif content.get("kind") == "step" and self.on_step is not None:
            self.on_step(*content["by"])
        elif content.get("kind") == "mask" and self.on_drawn is not None:
            mask = np.frombuffer(buffers[0], np.uint8).astype(bool)
            if mask.size == np.prod(self.drawn_scene.shape):  # else drawn on a clip that has just been replaced
                self.on_drawn(mask.reshape(self.drawn_scene.shape))

    def _send_pdf(self, content: dict) -> None:
        figure, window, axes = self.figure(), content["view"], self.drawn_scene.axes
        for ax in figure.axes:
            if ax.get_label() in ("panel", "time"):
                ax.set_xlim(axes.time(window["t0"]), axes.time(window["t1"]))
            if ax.get_label() in ("panel", "band"):
                ax.set_ylim(window["b0"], window["b1"])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
        self.send({"kind": "pdf"}, [buffer.getvalue()])


def _colours(name: str) -> bytes:
    return (matplotlib.colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8).tobytes()


def _packed(mask: np.ndarray | None) -> bytes:
    return b"" if mask is None else np.ascontiguousarray(mask, np.uint8).tobytes()


def _described(scene: Scene) -> dict:
    """The scene for the page, without the values."""
    axes = scene.axes
    fields = ("name", "title", "kind", "outline", "kept", "tokens", "sound", "over")
    return {
        "shape": list(map(int, scene.shape)),
        "hop": axes.hop_seconds,
        "start": axes.start,
        "low_hz": axes.low_hz,
        "top_hz": axes.top_hz,
        "columns": scene.columns,
        "panels": [
            {name: getattr(panel, name) for name in fields}
            | {"grid": list(np.shape(panel.values)), "cell": list(panel.cell), "place": list(place)}
            for panel, place in zip(scene.panels, scene.places, strict=True)
        ],
        "small": scene.small,
        "patch": list(map(int, scene.patch)),
        "grid": [0, 0] if scene.tokens is None else list(map(int, scene.tokens.shape)),
        "names": list(scene.names),
        "slope": 2 * scene.scale[0],
        "offset": scene.scale[1],
        "level_unit": axes.unit,
        "error_unit": scene.error_unit,
        "error_decibels": scene.error_in_decibels,
        "level_maps": list(COLOUR_MAPS),
        "error_map": ERROR_MAP,
        "weight_map": ATTENTION_MAP,
        "difference_map": SIGNED_MAP,
        "file": scene.file,
    }
