"""A picture whose parts can be chosen, by mouse and by keyboard."""

import anywidget
import numpy as np
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import InputError
from .base import Shown, render

# Positions are fractions of the picture, so marks are placed in percent and stay put at any size on the page.
_ESM = """
function render({ model, el }) {
  const frame = document.createElement("div");
  frame.className = "asit-clickable";
  frame.tabIndex = 0;
  frame.setAttribute("role", "application");
  frame.setAttribute("aria-roledescription", "picture with parts to choose");
  frame.dataset.lmSuppressShortcuts = "true"; // else JupyterLab moves to another cell at an arrow key
  const image = document.createElement("img");
  image.draggable = false;
  const near = mark("asit-near");
  const ring = mark("asit-ring");
  const tip = mark("asit-tip");
  const spoken = document.createElement("div");
  spoken.className = "asit-spoken";
  spoken.setAttribute("aria-live", "polite");
  frame.append(image, near, ring, tip);
  el.append(frame, spoken);

  let places = new Float32Array(0);
  let shown = null; // URL of the picture on the page
  let asked = 0; // which picture was asked for last
  let pointer = null;
  let waiting = 0;

  function mark(name) {
    const node = document.createElement("div");
    node.className = name;
    node.hidden = true;
    return node;
  }

  function count() {
    return places.length >> 1;
  }

  function label(i) {
    return model.get("labels")[i] ?? `${i + 1} of ${count()}`;
  }

  function put(node, i) {
    node.hidden = !(i >= 0 && i < count());
    if (node.hidden) return;
    node.style.left = `${100 * places[2 * i]}%`;
    node.style.top = `${100 * places[2 * i + 1]}%`;
  }

  async function paint() {
    const turn = ++asked;
    const bytes = model.get("png");
    if (!bytes || !bytes.byteLength) return;
    const url = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    const next = new Image();
    next.src = url;
    try {
      await next.decode(); // the picture before stays until this one can be shown
    } catch {
      URL.revokeObjectURL(url);
      return;
    }
    if (turn !== asked) return URL.revokeObjectURL(url);
    image.src = url;
    if (shown) URL.revokeObjectURL(shown);
    shown = url;
  }

  function readPlaces() {
    const bytes = model.get("targets");
    const length = bytes ? bytes.byteLength >> 2 : 0;
    places = new Float32Array(length);
    const view = bytes && new DataView(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength);
    for (let i = 0; i < length; i++) places[i] = view.getFloat32(4 * i, true);
    marks();
  }

  function marks() {
    const selected = model.get("selected");
    const hovered = model.get("hovered");
    put(ring, selected);
    put(near, hovered === selected ? -1 : hovered);
    const tipped = hovered >= 0 ? hovered : document.activeElement === frame ? selected : -1;
    put(tip, tipped);
    if (!tip.hidden) {
      tip.textContent = label(tipped);
      tip.dataset.side = places[2 * tipped] > 0.6 ? "left" : "right";
    }
  }

  function speak() {
    const selected = model.get("selected");
    spoken.textContent = selected >= 0 && selected < count() ? `selected: ${label(selected)}` : "";
  }

  function describe() {
    const alt = model.get("alt");
    image.alt = alt;
    frame.setAttribute("aria-label", `${alt} Arrow keys choose a part of the picture.`.trim());
  }

  function nearest(event) {
    const box = image.getBoundingClientRect();
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < count(); i++) {
      const x = places[2 * i] * box.width - (event.clientX - box.left);
      const y = places[2 * i + 1] * box.height - (event.clientY - box.top);
      if (x * x + y * y < least) [best, least] = [i, x * x + y * y];
    }
    return best;
  }

  // The nearest target in a direction, in pixels; what lies aside counts twice.
  function towards(dx, dy) {
    const from = model.get("selected");
    if (from < 0 || from >= count()) return count() ? 0 : -1;
    const box = image.getBoundingClientRect();
    let best = from;
    let least = Infinity;
    for (let i = 0; i < count(); i++) {
      const x = (places[2 * i] - places[2 * from]) * box.width;
      const y = (places[2 * i + 1] - places[2 * from + 1]) * box.height;
      const along = x * dx + y * dy;
      const aside = Math.abs(x * dy) + Math.abs(y * dx);
      if (along > 0.5 && aside <= 2 * along && along + 2 * aside < least) [best, least] = [i, along + 2 * aside];
    }
    return best;
  }

  function set(name, i) {
    if (model.get(name) === i) return;
    model.set(name, i);
    model.save_changes();
  }

  const keys = {
    ArrowLeft: () => towards(-1, 0),
    ArrowRight: () => towards(1, 0),
    ArrowUp: () => towards(0, -1),
    ArrowDown: () => towards(0, 1),
    Home: () => (count() ? 0 : -1),
    End: () => count() - 1,
    Enter: choose,
    " ": choose,
  };

  // The target under the mouse, else the selected one, else the first.
  function choose() {
    const [hovered, selected] = [model.get("hovered"), model.get("selected")];
    return hovered >= 0 ? hovered : selected >= 0 ? selected : count() ? 0 : -1;
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    event.stopPropagation();
    set("selected", keys[event.key]());
  }

  function onMove(event) {
    pointer = event;
    waiting ||= requestAnimationFrame(() => {
      waiting = 0;
      if (pointer) set("hovered", nearest(pointer));
    });
  }

  function onLeave() {
    pointer = null;
    set("hovered", -1);
  }

  function onClick(event) {
    frame.focus({ preventScroll: true });
    set("selected", nearest(event));
  }

  const heard = [
    ["keydown", onKey],
    ["pointermove", onMove],
    ["pointerleave", onLeave],
    ["click", onClick],
    ["focus", marks],
    ["blur", marks],
  ];
  for (const [name, handler] of heard) frame.addEventListener(name, handler);
  const watched = [
    ["change:png", paint],
    ["change:targets", readPlaces],
    ["change:labels", marks],
    ["change:selected", marks],
    ["change:hovered", marks],
    ["change:selected", speak],
    ["change:alt", describe],
  ];
  for (const [name, handler] of watched) model.on(name, handler);
  describe();
  readPlaces();
  speak();
  paint();

  return () => {
    asked++;
    if (waiting) cancelAnimationFrame(waiting);
    for (const [name, handler] of heard) frame.removeEventListener(name, handler);
    for (const [name, handler] of watched) model.off(name, handler);
    if (shown) URL.revokeObjectURL(shown);
  };
}

export default { render };
"""

# Every mark is white with a dark edge, or the reverse, and so is seen on dark and on bright pixels.
_CSS = """
.asit-clickable { position: relative; width: 100%; line-height: 0; cursor: crosshair; outline: none; }
.asit-clickable:focus-visible { box-shadow: 0 0 0 3px #0072B2; }
.asit-clickable img { width: 100%; height: auto; object-fit: contain; user-select: none; }
.asit-clickable > div { position: absolute; pointer-events: none; box-sizing: border-box; }
.asit-clickable > div[hidden] { display: none; }
.asit-ring, .asit-near { border-radius: 50%; transform: translate(-50%, -50%); }
.asit-ring { width: 18px; height: 18px; border: 3px solid white; box-shadow: 0 0 0 2px black, inset 0 0 0 1px black; }
.asit-near { width: 14px; height: 14px; border: 2px solid white; box-shadow: 0 0 0 1px black; }
.asit-tip { max-width: 60%; padding: 4px 8px; border-radius: 3px; font: 12px/1.4 system-ui, sans-serif;
  color: white; background: rgb(0 0 0 / 85%); white-space: pre-line; z-index: 1; }
.asit-tip[data-side="right"] { transform: translate(14px, 10px); }
.asit-tip[data-side="left"] { transform: translate(calc(-100% - 14px), 10px); }
.asit-spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
"""


class ClickableImage(anywidget.AnyWidget):
    """A picture with targets: a click selects the nearest one, and so do the arrow keys while it has the focus.

    Observe `selected` and `hovered`, numbers of targets, -1 for none. The selected target carries a ring.
    """

    _esm = _ESM
    _css = _CSS

    png = traitlets.Bytes().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    targets = traitlets.Bytes().tag(sync=True)
    """float32, little endian, [n, 2]: x and y as fractions of the picture, from its top left"""
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    selected = traitlets.Int(-1).tag(sync=True)
    hovered = traitlets.Int(-1).tag(sync=True)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layout.width = "100%"
        self.add_class("asit-picture")
        self._shown = Shown()

    @property
    def fractions(self) -> np.ndarray:
        """The targets as float32 [n, 2]."""
        return np.frombuffer(self.targets, "<f4").reshape(-1, 2)

    def draw(
        self,
        figure: Figure,
        ax_targets: list[tuple[Axes, np.ndarray]],
        labels: list[str] | None = None,
        dpi: float = 100,
        alt: str = "",
    ) -> None:
        """Show `figure` with its targets: for each panel their places [n, 2] in the panel's data coordinates.

        Targets are numbered through all panels in order. labels: one a target, or none. As with Picture.draw, the same
        Figure can be drawn again, and another one takes its place. Raises InputError when labels and targets differ.
        """
        labels = list(labels or [])
        count = sum(len(places) for _, places in ax_targets)
        if labels and len(labels) != count:
            raise InputError(f"labels: {len(labels)} for {count} targets")
        png = render(figure, dpi)  # first: it is the drawing that gives every panel its place
        found = [_fractions(figure, ax, places) for ax, places in ax_targets]
        targets = np.concatenate([np.empty((0, 2)), *found]).astype("<f4").tobytes()
        with self.hold_sync():
            if self.selected >= count:
                self.selected = -1
            if self.hovered >= count:
                self.hovered = -1
            self.png, self.targets, self.labels, self.alt = png, targets, labels, alt
        self._shown.replace(figure)


def _fractions(figure: Figure, ax: Axes, places) -> np.ndarray:
    """Data coordinates of a drawn panel -> fractions of the figure, y downwards: [n, 2]."""
    places = np.asarray(places, dtype=float).reshape(-1, 2)
    x, y = figure.transFigure.inverted().transform(ax.transData.transform(places)).T
    return np.stack([x, 1.0 - y], axis=-1)
