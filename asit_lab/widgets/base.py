"""The base of all explorers: layout, error messages, pictures, sounds, and a static picture for exports.

Pictures are PNG bytes in an Image widget, never an Output: a notebook keeps one state a widget however often a slider
moves, and the same bytes go into the cell's output bundle, where they outlive the kernel. JupyterLab saves the last
picture in place of the live view (static/page.js); elsewhere the bundle is brought up to date after each cell.
"""

import base64
import html
import io
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager, suppress

import ipywidgets
import numpy as np
import soundfile
import traitlets
from IPython import get_ipython
from IPython.display import DisplayHandle, display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import InputError
from ..figures.style import suit_any_theme
from .page import PageSide

CONTROLS_WIDTH = "272px"
_NAME_WIDTH = "92px"  # of a control's description
_ALERT = (
    '<div role="alert" style="white-space: pre-wrap; line-height: 1.4; padding: 6px 10px; color: #7a2400;'
    ' background: #fdf0e7; border-left: 4px solid #D55E00">{}</div>'
)


def labelled(control: ipywidgets.Widget, text: str, hint: str = "") -> ipywidgets.Widget:
    """`control`, as wide as its column, with the description `text` at its left and the tooltip `hint` (or `text`)."""
    control.description = text
    control.tooltip = hint or text
    if hasattr(control.style, "description_width"):  # a button's text is inside it
        control.style.description_width = _NAME_WIDTH
    control.layout.width = "auto"
    return control


def render_png(figure: Figure, dpi: float = 100, any_theme: bool = False) -> bytes:
    """The figure as PNG bytes, inches times `dpi` pixels large. any_theme: without a background, in a grey that is read
    on bright and on dark pages."""
    from PIL import Image

    figure.set_dpi(dpi)
    if any_theme:
        suit_any_theme(figure)
    canvas = figure.canvas if isinstance(figure.canvas, FigureCanvasAgg) else FigureCanvasAgg(figure)
    canvas.draw()  # once, where savefig draws twice
    buffer = io.BytesIO()
    # Packed quickly rather than tightly.
    image = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    (image if any_theme else image.convert("RGB")).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def stacked(pngs: Iterable[bytes], any_theme: bool = False) -> bytes:
    """Pictures one under the other, as PNG bytes, on white or as in `render_png`; empty ones are left out. Raises
    InputError when none is left."""
    from PIL import Image

    images = [Image.open(io.BytesIO(png)).convert("RGBA") for png in pngs if png]
    if not images:
        raise InputError("there is no picture yet")
    size = max(image.width for image in images), sum(image.height for image in images)
    stack = Image.new("RGBA", size, "#00000000" if any_theme else "white")
    top = 0
    for image in images:
        stack.alpha_composite(image, (0, top))
        top += image.height
    buffer = io.BytesIO()
    (stack if any_theme else stack.convert("RGB")).save(buffer, format="png")
    return buffer.getvalue()


class CurrentFigure:
    """Clears a figure when the next one takes its place: figures are cycles that the collector finds late."""

    figure: Figure | None = None

    def replace(self, figure: Figure) -> None:
        if self.figure is not None and self.figure is not figure:
            self.figure.clear()
        self.figure = figure


class FigureImage(ipywidgets.Image):
    """A figure as wide as its column, hidden while there is none.

    Draw the same Figure again after changing its artists, which is quickest, or another one: the one before is then
    cleared.
    """

    description = traitlets.Unicode("").tag(sync=True)  # the front end shows no tooltip of widgets without one

    def __init__(self):
        super().__init__(format="png", layout=ipywidgets.Layout(width="100%", height="auto", margin="0"))
        self.add_class("asit-picture")
        self.layout.display = "none"
        self._current = CurrentFigure()

    def draw(self, figure: Figure, dpi: float = 100, alt: str = "") -> None:
        """Show `figure`, inches times `dpi` pixels large. alt: text for screen readers."""
        self.show(render_png(figure, dpi, any_theme=True), alt)
        self._current.replace(figure)

    def show(self, png: bytes, alt: str = "") -> None:
        """Show PNG bytes made elsewhere."""
        with self.hold_sync():
            self.value, self.tooltip = png, alt
        self.layout.display = None if png else "none"  # an image without bytes shows as a broken one


class _Player(ipywidgets.Audio):
    description = traitlets.Unicode("").tag(sync=True)  # as for FigureImage


class Sound(ipywidgets.HBox):
    """A label and a player; hidden while there is nothing to hear."""

    def __init__(self, label: str):
        self.player = _Player(value=b"", format="wav", autoplay=False, loop=False, controls=True)
        self.player.tooltip = f"play: {label}"
        self.player.layout = ipywidgets.Layout(flex="1 1 150px", height="36px", min_width="120px")
        name = ipywidgets.Label(label, layout=ipywidgets.Layout(width="84px"))  # the player needs the room
        super().__init__([name, self.player], layout=ipywidgets.Layout(align_items="center"))
        self.add_class("asit-sound")
        self.load(None, 0)

    def load(self, wave: np.ndarray | None, sample_rate: int, play: bool = False) -> None:
        """Offer `wave`, float [samples] in [-1, 1] at `sample_rate` Hz, as 16-bit WAV; None: nothing. play: at once."""
        self.player.autoplay = play
        if wave is None or play:  # the page plays a sound when it changes: the same one is to be played again, too
            self.player.value = b""
        if wave is not None:
            buffer = io.BytesIO()
            soundfile.write(buffer, np.clip(wave, -1.0, 1.0), sample_rate, format="WAV", subtype="PCM_16")
            self.player.value = buffer.getvalue()
        self.layout.display = "none" if wave is None else "flex"


def whole_number(entry: ipywidgets.BoundedFloatText) -> int:
    """The number in an entry; the page's own entry of whole numbers makes 15 of 1.5. Raises InputError for 1.5."""
    if not float(entry.value).is_integer():
        raise InputError(f"{entry.description}: {entry.value:g} is not a whole number")
    return int(entry.value)


def seed_entry(seed: int) -> ipywidgets.BoundedFloatText:
    """An entry for the seed of a mask."""
    entry = ipywidgets.BoundedFloatText(seed, min=0, max=2**31 - 1, step=1)
    return labelled(entry, "seed", "another seed, another mask")


class Message(ipywidgets.HTML):
    """An error message, hidden when there is none."""

    def __init__(self):
        super().__init__(layout=ipywidgets.Layout(display="none"))
        self.add_class("asit-message")
        self.text = ""
        self._depth = 0
        self._failed, self._clears = False, True
        self._passing = False  # the text is of a block that clears none

    def say(self, text: str) -> None:
        """Show `text`; nothing is shown for an empty one."""
        self.text = text
        self.value = _ALERT.format(html.escape(text)) if text else ""
        self.layout.display = "block" if text else "none"

    @contextmanager
    def in_words(self, clear: bool = True):
        """Inside, a wrong input or an unreadable file ends in a text here; anything else does too, and is raised.

        The text is cleared when the outermost of nested blocks ends and none of them failed. Unless `clear`, as for the
        mouse that only passes over, it stays, but for a text of such a block.
        """
        if not self._depth:
            self._failed, self._clears = False, clear
        self._depth += 1
        try:
            yield
        except InputError as error:
            self._fail(str(error))
        except OSError as error:
            self._fail(_without_network(error) or str(error))
        except KeyboardInterrupt:
            self._fail("interrupted; what is shown is unchanged")
            raise
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}".splitlines()[0] + " (details are in the log)")
            raise
        finally:
            self._depth -= 1
            if not self._depth and not self._failed and (clear or self._passing):
                self.say("")

    def _fail(self, text: str) -> None:
        self._failed, self._passing = True, not self._clears
        self.say(text)


def _without_network(error: OSError) -> str:
    """What to do where `error` is one of requests' connection errors, which speak of pools and retries; else ""."""
    if not type(error).__module__.startswith(("requests", "urllib", "httpx", "huggingface_hub")):
        return ""
    url = getattr(getattr(error, "request", None), "url", None)
    return (
        f"no connection{f' to {url}' if url else ''}: check the network and the proxy (HTTPS_PROXY), or give the path "
        "of a local copy"
    )


_displayed: "weakref.WeakSet[Explorer]" = weakref.WeakSet()


def _update_displays(*_) -> None:
    """After a cell, update outputs that no page updates, such as those of papermill."""
    for explorer in list(_displayed):
        explorer.update_output()


class Explorer(ipywidgets.VBox):
    """Controls at the left, pictures at the right, a message above both.

    A subclass makes its controls, calls `arrange` and `on`, and draws by `redraw`, all inside `errors_in_words`, so
    that a wrong argument is a text in the notebook and not a traceback. `saved` are its pictures that a saved notebook
    keeps, one under the other.
    """

    saved: Sequence[ipywidgets.Widget] = ()

    def __init__(self):
        self.message = Message()
        super().__init__([self.message], layout=ipywidgets.Layout(width="100%"))
        self._steady = False  # inside `_one_redraw`
        self._page = PageSide(self.model_id)
        self._outputs: list[DisplayHandle] = []
        self._displayed: tuple[str | bytes, ...] = ()  # what those outputs show
        self.children = [self.message, self._page]
        self.add_class("asit-explorer")
        self.add_class(f"asit-{type(self).__name__.removesuffix('Explorer').removeprefix('Run').lower()}")

    def arrange(
        self,
        controls: list[ipywidgets.Widget],
        pictures: list[ipywidgets.Widget],
        below: Sequence[ipywidgets.Widget] = (),
        narrowest: int = 520,
    ) -> None:
        """Controls in a column, pictures beside it; under it where less than `narrowest` pixels are left for them.

        JupyterLab leaves some 800 pixels to both when its window is 1280 wide and its file browser open. What is in
        `below` comes under both and has the whole width.
        """
        column = ipywidgets.Layout(width=CONTROLS_WIDTH, flex="0 0 auto", padding="0 12px 0 0", overflow="hidden")
        stretch = ipywidgets.Layout(flex=f"1 1 {narrowest}px", min_width="320px", overflow="hidden")
        body = ipywidgets.HBox(
            [ipywidgets.VBox(controls, layout=column), ipywidgets.VBox(pictures, layout=stretch)],
            layout=ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start", width="100%"),
        )
        self.children = [self.message, body, *below, self._page]
        for picture in self.saved:
            picture.add_class("asit-saved")

    def errors_in_words(self, clear: bool = True):
        """Context: see `Message.in_words`."""
        return self.message.in_words(clear)

    def on(self, controls, handler: Callable[[], None]) -> None:
        """Call `handler` inside `errors_in_words` when the value of a control, or of one of a list, changes."""
        for control in controls if isinstance(controls, list | tuple) else [controls]:
            control.observe(lambda _change: self._answer(handler), names="value")

    def on_click(self, button: ipywidgets.Button, handler: Callable[[], None]) -> None:
        """Call `handler` inside `errors_in_words` when `button` is pressed."""
        button.on_click(lambda _button: self._answer(handler))

    def _answer(self, handler: Callable[[], None], clear: bool = True) -> None:
        with (
            suppress(KeyboardInterrupt),
            self.errors_in_words(clear),
        ):  # Interrupt ends the answer, not the kernel's loop
            handler()

    @contextmanager
    def _one_redraw(self):
        """Context in which controls can be set without a redraw for each."""
        before, self._steady = self._steady, True
        try:
            yield
        finally:
            self._steady = before

    def redraw(self) -> None:
        """Update the pictures from the controls."""
        raise NotImplementedError

    def png(self) -> bytes:
        """The pictures as they are now, as one PNG; empty while there is none."""
        pngs = self._pngs()
        return stacked(pngs) if any(pngs) else b""

    def _pngs(self) -> list[bytes]:
        return [bytes(picture.value if isinstance(picture, FigureImage) else picture.png) for picture in self.saved]

    def _repr_mimebundle_(self, **kwargs) -> dict:
        """Widget view, static picture and text in one bundle."""
        bundle = super()._repr_mimebundle_(**kwargs)
        bundle["text/plain"] = f"{type(self).__name__}: {self.message.text}" if self.message.text else repr(self)
        picture = self.png()
        if picture:
            bundle["image/png"] = base64.b64encode(picture).decode("ascii")
        return bundle

    def _ipython_display_(self) -> None:
        """Show the explorer in an output that can be updated."""
        self._displayed = self._state()
        self._outputs.append(display(self._repr_mimebundle_(), raw=True, display_id=True))
        shell = get_ipython()
        if shell is not None:
            shell.events.register("post_run_cell", _update_displays)
        _displayed.add(self)

    def update_output(self) -> None:
        """Update the static picture where the page does not do that when it saves."""
        if self._page.saves or not self._outputs:
            return
        if self._state() != self._displayed:
            self._displayed, bundle = self._state(), self._repr_mimebundle_()
            for output in self._outputs:
                output.update(bundle, raw=True)

    def _state(self) -> tuple[str | bytes, ...]:
        """The contents of the static output."""
        return self.message.text, *self._pngs()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
