// Mouse and keyboard control of a spectrogram view.

const NEAR = 4; // pixels that a click may move
const limit = (value, low, high) => Math.min(Math.max(value, low), high);

class Gestures {
  constructor(view) {
    this.view = view;
    this.pointer = null; // frame and band under the mouse
    this.drag = null;
    this.scroll = new Scroll();
    const { frame } = view;
    this.listeners = [
      [frame, "wheel", (event) => this.onWheel(event), { passive: false }],
      [frame, "pointerdown", (event) => this.onDown(event)],
      [frame, "pointermove", (event) => this.onMove(event)],
      [frame, "pointerup", () => this.onUp()],
      [frame, "pointerleave", () => this.onLeave()],
      [frame, "dblclick", () => view.brush.active || view.reset()],
      [frame, "keydown", (event) => this.onKey(event)],
      [frame, "lostpointercapture", () => this.onLost()],
    ];
    for (const [target, ...rest] of this.listeners) target.addEventListener(...rest);
  }

  stop() {
    this.scroll.stop();
    for (const [target, ...rest] of this.listeners) target.removeEventListener(...rest);
  }

  // Panel, frame and band under the mouse; null outside the panels.
  place(event) {
    const { frame, layout } = this.view;
    const box = frame.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const cell = layout?.cells.find((panel) => x >= panel.x && x < panel.x + panel.w && y >= panel.y && y < panel.y + panel.h);
    return cell ? this.within(cell, event) : null;
  }

  // The same for a given panel; positions beyond its edges count as its edges.
  within(cell, event) {
    const box = this.view.frame.getBoundingClientRect();
    const { t0, t1, b0, b1 } = this.view.range;
    const across = limit((event.clientX - box.left - cell.x) / cell.w, 0, 1 - 1e-9);
    const up = limit(1 - (event.clientY - box.top - cell.y) / cell.h, 0, 1 - 1e-9);
    return { cell, frame: t0 + across * (t1 - t0), band: b0 + up * (b1 - b0) };
  }

  onWheel(event) {
    const target = this.place(event);
    if (!target || this.scroll.since) return; // the page scrolls
    const { view } = this;
    const { t0, t1, b0, b1 } = view.range;
    const turned = event.deltaY || event.deltaX; // with Shift, some browsers turn the wheel sideways
    const factor = Math.exp(limit(turned, -100, 100) / 400);
    const { frames, bands } = view.axes;
    if (factor > 1 && (event.shiftKey ? b1 - b0 >= bands : t1 - t0 >= frames)) return; // everything is in view
    event.preventDefault();
    event.stopPropagation();
    view.zoom(factor, target.frame, target.band, [!event.shiftKey, event.shiftKey]);
  }

  onDown(event) {
    const start = this.place(event);
    if (!start || event.button) return;
    const { frame, range } = this.view;
    frame.focus({ preventScroll: true });
    frame.setPointerCapture(event.pointerId);
    const paint = this.view.brush.active && !event.shiftKey;
    this.drag = { x: event.clientX, y: event.clientY, start, range, select: event.shiftKey, paint, moved: false };
    if (paint) this.view.brush.paint(start);
    event.preventDefault();
  }

  onMove(event) {
    const { drag, view } = this;
    if (drag) {
      const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
      drag.moved ||= Math.hypot(dx, dy) > NEAR;
      const { cell } = drag.start;
      if (drag.paint) {
        view.brush.paint(this.within(cell, event));
      } else if (drag.moved && drag.select) {
        view.select(view.axes.time(drag.start.frame), view.axes.time(this.within(cell, event).frame));
      } else if (drag.moved) {
        const { t0, t1, b0, b1 } = drag.range;
        const [across, up] = [(-dx / cell.w) * (t1 - t0), (dy / cell.h) * (b1 - b0)];
        view.show(t0 + across, t1 + across, b0 + up, b1 + up);
      }
    }
    this.pointer = drag ? this.within(drag.start.cell, event) : this.place(event);
    view.schedule(false);
  }

  onUp() {
    const { drag, view } = this;
    this.drag = null;
    if (drag?.paint) return view.brush.release();
    if (!drag || drag.moved) return;
    if (drag.select) return view.select(0, 0);
    const panel = view.layout.cells.indexOf(drag.start.cell);
    if (view.model.get("choosable")) view.model.send({ kind: "place", panel, ...this.rounded(drag.start) });
    const { sound } = view.scene.panels[panel];
    if (sound) view.sounds.choose(sound);
    view.sounds.seek(view.axes.time(drag.start.frame));
  }

  // A drag that ends without the button being released, as where a touch becomes a scroll: no click.
  onLost() {
    const { drag } = this;
    this.drag = null;
    if (drag?.paint) this.view.brush.release();
  }

  // Frame and band as the kernel counts them.
  rounded({ frame, band }) {
    return { frame: Math.floor(frame), band: Math.floor(band) };
  }

  onLeave() {
    this.pointer = null;
    this.view.schedule(false);
  }

  onKey(event) {
    const { view } = this;
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== view.frame || !view.axes) return;
    const { axes, sounds } = view;
    const { t0, t1, b0, b1 } = view.range;
    const [across, up] = [(t1 - t0) / 8, (b1 - b0) / 8];
    const zoom = (factor) => view.zoom(factor, (t0 + t1) / 2, (b0 + b1) / 2, [true, true]);
    const head = sounds.head ?? axes.start;
    const [from, to] = sounds.selection ?? [axes.start, axes.time(axes.frames)];
    const keys = {
      " ": () => sounds.toggle(),
      "+": () => zoom(0.7),
      "=": () => zoom(0.7),
      "-": () => zoom(1 / 0.7),
      Home: () => view.reset(),
      ArrowLeft: () => view.show(t0 - across, t1 - across, b0, b1),
      ArrowRight: () => view.show(t0 + across, t1 + across, b0, b1),
      ArrowUp: () => view.show(t0, t1, b0 + up, b1 + up),
      ArrowDown: () => view.show(t0, t1, b0 - up, b1 - up),
      "[": () => view.select(head, Math.max(to, head)),
      "]": () => view.select(Math.min(from, head), head),
      Escape: () => view.select(0, 0),
      l: () => view.toggleLoop(),
      o: () => view.toggleOutline(),
      h: () => sounds.toggleMasked(),
      ...(view.brush.offered && {
        d: () => view.brush.choose("draw"),
        e: () => view.brush.choose("erase"),
        m: () => view.brush.choose("move"),
      }),
    };
    const sound = [...sounds.available().keys()][Number(event.key) - 1];
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.shiftKey && view.model.get("choosable") && event.key in steps) {
      keys[event.key] = () => view.model.send({ kind: "step", by: steps[event.key] });
    }
    const act = keys[event.key] ?? (sound && (() => sounds.choose(sound)));
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }
}
