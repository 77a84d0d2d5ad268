// Curves of runs: a crosshair in all panels at once with the values of every run, zoom along x, files.

const CURVES_HELP = "Move over a panel for values. Click: pin the cross. Wheel: zoom. Drag: move. Double click: all.";
const PANEL = { height: 190, left: 58, right: 12, top: 22, bottom: 30 };
const DASH = [[], [6, 3], [2, 2], [8, 3, 2, 3]];

function steps(low, high, count) {
  const raw = (high - low) / count;
  if (!(raw > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  const all = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) all.push(i * step);
  return all;
}

const short = (value) => `${Number(value.toPrecision(4))}`;
const finite = (values) => values.filter((value) => value !== null);

class Curves {
  constructor(model, el) {
    this.model = model;
    this.window = null; // of x: low, high; null: all
    this.cross = null; // x under the mouse, and its panel
    this.pinned = false;
    this.waiting = 0;
    this.canvas = make("canvas", { className: "asit-plot" });
    this.canvas.asitPicture = () => this.picture();
    this.frame = focusable("asit-curves-frame", [this.canvas]);
    this.says = make("div", { className: "asit-curves-says" });
    const tools = make("div", { className: "asit-tools" }, [
      "save ",
      button("PNG", "save the curves as a picture", () => this.picture().toBlob((blob) => download("curves.png", blob, "image/png"))),
      button("PDF", "save the curves as a figure for print", () => model.send({ kind: "pdf" })),
      button("CSV", "save the values that are shown", () => download("curves.csv", this.csv(), "text/csv")),
    ]);
    el.append(make("div", { className: "asit-curves" }, [tools, this.says, this.frame]));
    this.listen();
    this.schedule();
  }

  // --- Places ---------------------------------------------------------------------------------------------------------

  get panels() {
    return this.model.get("panels");
  }

  layout() {
    const width = this.frame.clientWidth || 700;
    const most = Math.min(this.panels.length || 1, width > 1100 ? 3 : width > 560 ? 2 : 1);
    const columns = most === 3 && this.panels.length % 3 === 1 ? 2 : most; // none by itself in the last row
    const across = width / columns;
    const cells = this.panels.map((_, i) => ({
      x: (i % columns) * across + PANEL.left,
      y: Math.floor(i / columns) * PANEL.height + PANEL.top,
      w: across - PANEL.left - PANEL.right,
      h: PANEL.height - PANEL.top - PANEL.bottom,
    }));
    const lines = this.names();
    const legend = Math.ceil(this.panels.length / columns) * PANEL.height;
    return { width, cells, legend, height: legend + 16 * lines.length + 4 };
  }

  names() {
    return [...new Map(this.panels.flatMap(({ lines }) => lines).map((line) => [line.name, line])).values()];
  }

  full() {
    const all = this.panels.flatMap(({ lines }) => lines.flatMap(({ x }) => finite(x)));
    const [low, high] = [all.reduce((a, b) => Math.min(a, b), Infinity), all.reduce((a, b) => Math.max(a, b), -Infinity)];
    if (!all.length) return [0, 1];
    return low === high ? [low - 1, high + 1] : [low, high];
  }

  // Lowest and highest value of a panel in view, and whether its axis is logarithmic.
  scale({ lines, references }, [from, to]) {
    const inside = lines.flatMap((line) =>
      [line.smooth, line.raw, line.low, line.high].flatMap((values) =>
        values.filter((value, i) => value !== null && line.x[i] >= from && line.x[i] <= to),
      ),
    );
    const values = [...inside, ...references.map(([value]) => value)];
    let [low, high] = [values.reduce((a, b) => Math.min(a, b), Infinity), values.reduce((a, b) => Math.max(a, b), -Infinity)];
    if (!values.length) [low, high] = [0, 1];
    const log = low > 0 && (this.model.get("log") === "logarithmic" || (this.model.get("log") === "automatic" && high > 50 * low));
    if (low === high) [low, high] = [low - Math.abs(low || 1) / 10, high + Math.abs(high || 1) / 10];
    const room = log ? 0 : 0.05 * (high - low);
    return { low: low - room, high: high + room, log };
  }

  // --- Drawing --------------------------------------------------------------------------------------------------------

  // changed: whether the picture that a saved notebook has is another one, too.
  schedule(changed = true) {
    this.changed ||= changed;
    this.waiting ||= requestAnimationFrame(() => {
      this.waiting = 0;
      const layout = this.layout();
      const ratio = devicePixelRatio || 1;
      [this.canvas.width, this.canvas.height] = [layout.width * ratio, layout.height * ratio];
      this.canvas.style.height = `${layout.height}px`;
      this.draw(this.canvas.getContext("2d"), ratio, layout, getComputedStyle(this.frame).color, null);
      this.frame.setAttribute("aria-label", `curves: ${this.panels.map(({ title }) => title).join(", ")}`);
      if (this.changed) this.canvas.dataset.drawn = Number(this.canvas.dataset.drawn ?? 0) + 1;
      this.changed = false;
      this.frame.dispatchEvent(new Event("asit-drawn", { bubbles: true }));
      this.say();
    });
  }

  picture() {
    const layout = this.layout();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [2 * layout.width, 2 * layout.height];
    this.draw(canvas.getContext("2d"), 2, layout, "#222222", "white");
    return canvas;
  }

  colour({ colour }, text) {
    const palette = this.model.get("palette");
    const found = palette[colour % palette.length];
    return found === "#000000" ? text : found;
  }

  draw(context, ratio, layout, text, background) {
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, layout.width, layout.height);
    if (background) {
      context.fillStyle = background;
      context.fillRect(0, 0, layout.width, layout.height);
    }
    context.font = "11px system-ui, sans-serif";
    const window = this.window ?? this.full();
    this.panels.forEach((panel, i) => this.panel(context, panel, layout.cells[i], window, text));
    this.names().forEach((line, i) => {
      const y = layout.legend + 16 * i + 10;
      this.stroke(context, line, [[PANEL.left, y - 4], [PANEL.left + 28, y - 4]], text, 2);
      context.fillStyle = text;
      context.textAlign = "left";
      context.fillText(line.name, PANEL.left + 36, y, layout.width - PANEL.left - 44);
    });
  }

  // Words that end at (x, y), read over curves, too.
  label(context, words, x, y, text) {
    const [red, green, blue] = text.startsWith("#") ? [0, 0, 0] : text.match(/[\d.]+/g).map(Number);
    context.textAlign = "right";
    context.lineWidth = 3;
    context.strokeStyle = red + green + blue > 380 ? "#111111" : "white"; // the page behind bright and dark text
    context.strokeText(words, x, y);
    context.fillStyle = text;
    context.fillText(words, x, y);
  }

  panel(context, panel, cell, window, text) {
    const { low, high, log } = this.scale(panel, window);
    const x = (value) => cell.x + ((value - window[0]) / (window[1] - window[0])) * cell.w;
    const share = log ? (value) => Math.log(value / low) / Math.log(high / low) : (value) => (value - low) / (high - low);
    const y = (value) => cell.y + cell.h - share(value) * cell.h;
    context.fillStyle = text;
    context.textAlign = "left";
    context.fillText(panel.title, cell.x, cell.y - 7, cell.w);
    const powers = log ? steps(Math.log10(low), Math.log10(high), 3).map((power) => 10 ** power) : steps(low, high, 4);
    context.textAlign = "right";
    for (const value of powers) {
      this.rule(context, [cell.x, y(value), cell.x + cell.w, y(value)], text, 0.12);
      context.fillText(short(value), cell.x - 5, y(value) + 4);
    }
    context.textAlign = "center";
    for (const value of steps(...window, cell.w / 90)) context.fillText(short(value), x(value), cell.y + cell.h + 14);
    context.fillText(this.model.get("axis"), cell.x + cell.w / 2, cell.y + cell.h + 26);
    this.rule(context, [cell.x, cell.y, cell.x, cell.y + cell.h, cell.x + cell.w, cell.y + cell.h], text, 0.6);
    context.save();
    context.beginPath();
    context.rect(cell.x, cell.y - 2, cell.w, cell.h + 4);
    context.clip();
    for (const [value] of panel.references) {
      context.setLineDash([4, 3]);
      this.rule(context, [cell.x, y(value), cell.x + cell.w, y(value)], text, 0.9);
      context.setLineDash([]);
    }
    for (const line of panel.lines) {
      const points = (values) => values.map((value, i) => (value === null ? null : [x(line.x[i]), y(value)]));
      if (line.low.length) this.band(context, line, points(line.low), points(line.high), text);
      context.globalAlpha = 0.35;
      this.stroke(context, line, points(line.raw), text, 0.8, true);
      context.globalAlpha = 1;
      this.stroke(context, line, points(line.smooth), text, 1.8);
    }
    for (const [value, label] of panel.references) this.label(context, label, cell.x + cell.w - 2, Math.max(y(value) - 3, cell.y + 9), text);
    if (this.cross) this.rule(context, [x(this.cross.x), cell.y, x(this.cross.x), cell.y + cell.h], text, this.pinned ? 1 : 0.6);
    context.restore();
  }

  rule(context, places, text, alpha) {
    context.globalAlpha = alpha;
    context.strokeStyle = text;
    context.lineWidth = 1;
    context.beginPath();
    for (let i = 0; i < places.length; i += 2) context.lineTo(places[i], places[i + 1]);
    context.stroke();
    context.globalAlpha = 1;
  }

  stroke(context, line, points, text, width, plain = false) {
    context.strokeStyle = this.colour(line, text);
    context.lineWidth = width;
    context.setLineDash(plain ? [] : DASH[Math.floor(line.colour / this.model.get("palette").length) % DASH.length]);
    context.beginPath();
    let pen = false;
    for (const point of points) {
      if (point) pen ? context.lineTo(...point) : context.moveTo(...point);
      pen = Boolean(point);
    }
    context.stroke();
    context.setLineDash([]);
  }

  band(context, line, low, high, text) {
    context.globalAlpha = 0.2;
    context.fillStyle = this.colour(line, text);
    context.beginPath();
    for (const [x, y] of [...low, ...high.toReversed()].filter(Boolean)) context.lineTo(x, y);
    context.fill();
    context.globalAlpha = 1;
  }

  // --- Values at the cross --------------------------------------------------------------------------------------------

  at({ x, smooth, low, high }, place) {
    let best = -1;
    x.forEach((value, i) => {
      if (value === null || smooth[i] === null) return;
      if (best < 0 || Math.abs(value - place) < Math.abs(x[best] - place)) best = i;
    });
    if (best < 0) return "–";
    return low.length ? `${short(smooth[best])} (${short(low[best])} to ${short(high[best])})` : short(smooth[best]);
  }

  say() {
    const panel = this.cross && this.panels[this.cross.panel];
    if (!panel) return (this.says.textContent = CURVES_HELP);
    const values = panel.lines.map((line) => `${line.name} ${this.at(line, this.cross.x)}`);
    const place = `${this.model.get("axis")} ${short(this.cross.x)}${this.pinned ? " (pinned)" : ""}`;
    this.says.textContent = `${place}; ${panel.title}: ${values.join(", ")}`;
  }

  csv() {
    const rows = [["curve", "run", this.model.get("axis"), "value", "smoothed", "low", "high"]];
    const [from, to] = this.window ?? this.full();
    const cell = (values, i) => values[i] ?? "";
    for (const { name, lines } of this.panels) {
      for (const line of lines) {
        line.x.forEach((x, i) => {
          if (x === null || x < from || x > to) return;
          const raw = line.raw.length ? line.raw : line.smooth;
          rows.push([name, line.name, x, cell(line.low.length ? [] : raw, i), ...[line.smooth, line.low, line.high].map((v) => cell(v, i))]);
        });
      }
    }
    return csvText(rows);
  }

  // --- Mouse ----------------------------------------------------------------------------------------------------------

  // x and panel under the mouse; null beside the panels.
  place(event) {
    const box = this.frame.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    const [from, to] = this.window ?? this.full();
    const panel = this.layout().cells.findIndex((c) => left >= c.x && left <= c.x + c.w && top >= c.y && top <= c.y + c.h);
    if (panel < 0) return null;
    const cell = this.layout().cells[panel];
    return { panel, x: from + ((left - cell.x) / cell.w) * (to - from) };
  }

  show(from, to) {
    const [low, high] = this.full();
    const size = Math.min(to - from, high - low);
    const start = Math.min(Math.max(from, low), high - size);
    this.window = size >= high - low ? null : [start, start + size];
    this.schedule();
  }

  listen() {
    const { frame, model } = this;
    let drag = null;
    const scroll = new Scroll();
    frame.addEventListener("wheel", (event) => {
      const place = this.place(event);
      if (!place || scroll.since || (event.deltaY > 0 && !this.window)) return; // the page scrolls
      event.preventDefault();
      const factor = Math.exp(Math.min(Math.max(event.deltaY, -100), 100) / 300);
      const [from, to] = this.window ?? this.full();
      this.show(place.x - (place.x - from) * factor, place.x + (to - place.x) * factor);
    }, { passive: false });
    frame.addEventListener("pointerdown", (event) => {
      const place = this.place(event);
      if (event.button || !place) return;
      frame.focus({ preventScroll: true });
      frame.setPointerCapture(event.pointerId);
      drag = { at: event.clientX, window: this.window ?? this.full(), width: this.layout().cells[0].w, place, moved: false };
      event.preventDefault();
    });
    frame.addEventListener("pointermove", (event) => {
      if (drag) {
        const by = ((event.clientX - drag.at) / drag.width) * (drag.window[1] - drag.window[0]);
        drag.moved ||= Math.abs(event.clientX - drag.at) > 4;
        if (drag.moved) this.show(drag.window[0] - by, drag.window[1] - by);
      } else if (!this.pinned) {
        this.cross = this.place(event);
        this.schedule(false);
      }
    });
    frame.addEventListener("pointerup", () => {
      if (drag && !drag.moved) {
        this.pinned = !this.pinned;
        this.cross = drag.place;
        this.schedule();
      }
      drag = null;
    });
    frame.addEventListener("pointerleave", () => {
      if (!this.pinned) this.cross = null;
      this.schedule(false);
    });
    frame.addEventListener("lostpointercapture", () => (drag = null)); // a touch became a scroll
    frame.addEventListener("dblclick", () => this.show(-Infinity, Infinity));
    frame.addEventListener("keydown", (event) => {
      const [from, to] = this.window ?? this.full();
      const size = to - from;
      const keys = {
        "+": () => this.show(from + size / 6, to - size / 6),
        "-": () => this.show(from - size / 4, to + size / 4),
        ArrowLeft: () => this.show(from - size / 8, to - size / 8),
        ArrowRight: () => this.show(from + size / 8, to + size / 8),
        Home: () => this.show(-Infinity, Infinity),
      };
      if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
      event.preventDefault();
      event.stopPropagation();
      keys[event.key]();
    });
    const draw = () => this.schedule();
    const all = () => ((this.window = null), this.schedule());
    const received = (message, buffers) => {
      if (message.kind === "pdf") download("curves.pdf", bytesOf(buffers[0]), "application/pdf");
    };
    const handlers = { "change:panels": draw, "change:log": draw, "change:axis": all, "msg:custom": received };
    const look = () => this.schedule(false);
    const ends = [follow(model, handlers), watchLook(frame, look), () => cancelAnimationFrame(this.waiting), () => scroll.stop()];
    this.stop = () => ends.forEach((end) => end());
  }
}

export default {
  render({ model, el }) {
    const curves = new Curves(model, el);
    return () => curves.stop();
  },
};
