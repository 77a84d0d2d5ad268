// Clips on a plane, drawn in the browser: zoom, pan, lasso to a table and CSV, filter by legend, search. No kernel is
// needed for these; choosing a clip tells it.

const PLANE_HELP =
  "Wheel: zoom. Drag: move. Click: choose and hear. Shift-drag: select for table and CSV. Double click: all. Legend: hide.";
const SIZE = 460; // pixels high
const NEAREST = 14; // pixels from a point that still mean it
const MOST_ROWS = 200; // in the table; the CSV has all

class Plane {
  constructor(model, el) {
    this.model = model;
    this.hidden = new Set(); // categories
    this.drag = null;
    this.picked = new Set(); // inside the lasso
    this.waiting = 0;
    this.canvas = make("canvas", { className: "asit-plot" });
    this.canvas.asitPicture = () => this.picture();
    this.frame = focusable("asit-points", [this.canvas]);
    this.legend = make("div", { className: "asit-legend" });
    this.search = make("input", { type: "text", placeholder: "search names", title: "search" });
    this.search.setAttribute("aria-label", "search");
    this.search.addEventListener("input", () => this.schedule());
    this.search.addEventListener("keydown", (event) => event.key === "Enter" && this.takeFirst());
    this.csv = button("CSV", "save the selected clips, or all that are shown", () => this.save());
    this.says = make("div", { className: "asit-plane-says" });
    this.says.setAttribute("aria-live", "polite");
    this.table = make("div", { className: "asit-chosen-rows" });
    const tools = make("div", { className: "asit-tools" }, [this.search, this.csv]);
    const body = make("div", { className: "asit-plane-body" }, [this.frame, this.legend]);
    el.append(make("div", { className: "asit-plane" }, [tools, this.says, body, this.table]));
    this.read();
    this.listen();
  }

  read() {
    const { model } = this;
    const view = model.get("points");
    const bytes = (name) => {
      const held = model.get(name);
      return held?.byteLength ? new DataView(held.buffer ?? held, held.byteOffset ?? 0, held.byteLength) : new DataView(new ArrayBuffer(0));
    };
    const floatsOf = (data) => Float32Array.from({ length: data.byteLength / 4 }, (_, i) => data.getFloat32(4 * i, true));
    const points = floatsOf(bytes("points"));
    this.count = points.length / 2;
    this.values = floatsOf(bytes("values"));
    const extent = (axis) => {
      const own = points.filter((_, i) => i % 2 === axis);
      return own.length ? [own.reduce((a, b) => Math.min(a, b)), own.reduce((a, b) => Math.max(a, b))] : [0, 1];
    };
    const [[left, right], [low, high]] = [extent(0), extent(1)];
    const side = 1.2 * Math.max(right - left, high - low, 1e-9);
    this.full = { x: (left + right) / 2, y: (low + high) / 2, side };
    if (!this.window || this.drawnPoints !== view) this.window = { ...this.full };
    this.drawnPoints = view;
    this.frame.setAttribute("aria-label", `clips on a plane: ${model.get("title")}. Arrow keys choose a clip.`);
    this.points = points;
    const others = this.named !== model.get("names"); // clips
    if (others) this.picked.clear();
    this.named = model.get("names");
    this.listPicked(); // what is predicted may be new
    if (others || this.listed !== model.get("categories")) this.hidden.clear(); // else another layer of the same clips
    this.listed = model.get("categories");
    this.fillLegend();
    this.schedule();
  }

  // --- Places ---------------------------------------------------------------------------------------------------------

  place(i) {
    const { x, y, side } = this.window;
    const scale = Math.min(this.width, SIZE) / side;
    return [this.width / 2 + (this.points[2 * i] - x) * scale, SIZE / 2 - (this.points[2 * i + 1] - y) * scale];
  }

  // Pixels, as of the last drawing: the page would be laid out for every point otherwise.
  get width() {
    return (this.measured ??= this.frame.clientWidth || 600);
  }

  // For each point whether legend and search leave it.
  visibility() {
    const text = this.search.value.trim().toLowerCase();
    const names = text ? this.model.get("names") : [];
    const all = this.numeric || !this.hidden.size;
    return Uint8Array.from(this.values, (value, i) => (all || !this.hidden.has(value)) && (!text || names[i].toLowerCase().includes(text)));
  }

  get numeric() {
    return this.model.get("range").length === 2;
  }

  nearest(event) {
    const box = this.frame.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [best, least] = [-1, NEAREST ** 2];
    const visible = this.visibility();
    for (let i = 0; i < this.count; i++) {
      const [px, py] = this.place(i);
      const far = (px - x) ** 2 + (py - y) ** 2;
      if (far < least && visible[i]) [best, least] = [i, far];
    }
    return best;
  }

  zoom(factor, event) {
    const box = this.frame.getBoundingClientRect();
    const scale = this.window.side / Math.min(this.width, SIZE);
    const [dx, dy] = [event.clientX - box.left - this.width / 2, SIZE / 2 - (event.clientY - box.top)].map((d) => d * scale);
    const side = Math.min(this.window.side * factor, this.full.side);
    const kept = 1 - side / this.window.side;
    this.window = { x: this.window.x + dx * kept, y: this.window.y + dy * kept, side };
    if (side === this.full.side) this.window = { ...this.full };
    this.schedule();
  }

  // --- Drawing --------------------------------------------------------------------------------------------------------

  // changed: whether the picture that a saved notebook has is another one, too.
  schedule(changed = true) {
    this.changed ||= changed;
    this.waiting ||= requestAnimationFrame(() => {
      this.waiting = 0;
      this.measured = undefined;
      const ratio = devicePixelRatio || 1;
      [this.canvas.width, this.canvas.height] = [this.width * ratio, SIZE * ratio];
      this.canvas.style.height = `${SIZE}px`;
      this.draw(this.canvas.getContext("2d"), ratio, getComputedStyle(this.frame).color, null);
      if (this.changed) this.canvas.dataset.drawn = Number(this.canvas.dataset.drawn ?? 0) + 1;
      this.changed = false;
      this.frame.dispatchEvent(new Event("asit-drawn", { bubbles: true }));
      this.say();
    });
  }

  picture() {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [2 * this.width, 2 * SIZE];
    this.draw(canvas.getContext("2d"), 2, "#222222", "white");
    return canvas;
  }

  colour(value) {
    const { model } = this;
    if (!this.numeric) return model.get("palette")[Math.max(0, value) % model.get("palette").length];
    const bytes = bytesOf(model.get("colours"));
    const level = this.level(value);
    return Number.isNaN(value) ? "#999999" : `rgb(${bytes[3 * level]} ${bytes[3 * level + 1]} ${bytes[3 * level + 2]})`;
  }

  // 0 to 255, NaN for NaN.
  level(value) {
    const [low, high] = this.model.get("range");
    return Math.min(255, Math.max(0, Math.floor((256 * (value - low)) / (high - low || 1))));
  }

  mark(context, value, x, y, size, text) {
    context.save();
    context.translate(x, y);
    context.beginPath();
    // With each turn through the palette, colours get other shapes: 72 pairs.
    const turn = Math.floor(Math.max(0, value) / this.model.get("palette").length);
    SHAPES[this.numeric ? 0 : (Math.max(0, value) + turn) % SHAPES.length](context, size);
    context.fillStyle = this.colour(value);
    if (context.fillStyle === "#000000") context.fillStyle = text; // black is not seen on a dark page
    context.fill();
    context.restore();
  }

  draw(context, ratio, text, background) {
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, SIZE);
    if (background) {
      context.fillStyle = background;
      context.fillRect(0, 0, this.width, SIZE);
    }
    const size = this.count > 1000 ? 2.5 : 4.5;
    const visible = this.visibility();
    const markers = new Markers(ratio);
    for (let i = 0; i < this.count; i++) {
      const [x, y] = this.place(i);
      if (x < -9 || y < -9 || x > this.width + 9 || y > SIZE + 9) continue;
      context.globalAlpha = visible[i] ? 1 : 0.08;
      const value = this.numeric ? this.level(this.values[i]) : this.values[i];
      const own = this.picked.has(i) ? size * 1.6 : size;
      markers.stamp(context, `${value} ${own}`, x, y, own, (c, half) => this.mark(c, this.values[i], half, half, own, text));
    }
    context.globalAlpha = 1;
    const { model } = this;
    const chosen = model.get("selected");
    context.strokeStyle = text;
    for (const near of model.get("near")) this.ring(context, ...this.place(near), 8, 1.2);
    if (chosen >= 0 && chosen < this.count) {
      const from = this.place(chosen);
      this.ring(context, ...from, 11, 2.4);
      context.lineWidth = 1.2;
      context.globalAlpha = 0.6;
      for (const near of model.get("near")) {
        context.beginPath();
        context.moveTo(...from);
        context.lineTo(...this.place(near));
        context.stroke();
      }
      context.globalAlpha = 1;
    }
    if (this.drag?.lasso) {
      context.strokeStyle = "#5aa0ff";
      context.lineWidth = 1.5;
      context.beginPath();
      polygon(context, this.drag.lasso);
      context.stroke();
    }
    context.fillStyle = text;
    context.font = "12px system-ui, sans-serif";
    context.fillText(model.get("title"), 8, 16, this.width - 16);
    context.fillText(model.get("method"), 8, SIZE - 8, this.width - 16);
  }

  ring(context, x, y, radius, width) {
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.stroke();
  }

  fillLegend() {
    const categories = this.model.get("categories");
    const entries = this.numeric ? this.scaleSteps() : categories.map((name, i) => [name, i]);
    this.legend.replaceChildren(
      ...entries.map(([name, value]) => {
        const swatch = make("canvas", { width: 28, height: 28 });
        const button = make("button", { title: this.numeric ? "" : "hide or show; with Shift alone" }, [swatch, name]);
        const context = swatch.getContext("2d");
        context.scale(2, 2);
        this.mark(context, value, 7, 7, 5, getComputedStyle(this.frame).color);
        if (!this.numeric) button.setAttribute("aria-pressed", !this.hidden.has(value));
        button.addEventListener("click", (event) => this.numeric || this.toggle(value, event.shiftKey));
        return button;
      }),
    );
  }

  scaleSteps() {
    const [low, high] = this.model.get("range");
    return [0, 0.25, 0.5, 0.75, 1].map((share) => {
      const value = low + share * (high - low);
      return [`${Number(value.toPrecision(3))} ${this.model.get("unit")}`, value];
    });
  }

  toggle(value, alone) {
    const { hidden } = this;
    const others = this.model.get("categories").map((_, i) => i).filter((i) => i !== value);
    if (alone) {
      const already = others.every((i) => hidden.has(i)) && !hidden.has(value);
      this.hidden = new Set(already ? [] : others);
    } else if (!hidden.delete(value)) hidden.add(value);
    [...this.legend.children].forEach((button, i) => button.setAttribute("aria-pressed", !this.hidden.has(i)));
    this.schedule();
  }

  // --- What is chosen -------------------------------------------------------------------------------------------------

  set(name, value) {
    if (this.model.get(name) === value) return;
    this.model.set(name, value);
    this.model.save_changes();
  }

  say() {
    const [hovered, selected] = [this.model.get("hovered"), this.model.get("selected")];
    const named = hovered >= 0 ? hovered : document.activeElement === this.frame ? selected : -1;
    const shown = this.visibility().reduce((sum, visible) => sum + visible, 0);
    const count = shown < this.count ? `${shown} of ${this.count} clips shown. ` : "";
    this.says.textContent = count + (named >= 0 && named < this.count ? this.model.get("names")[named] : PLANE_HELP);
  }

  // The selected clip again counts, too: it is played once more.
  take(i) {
    if (this.model.get("selected") === i) this.model.send({ kind: "again" });
    else this.set("selected", i);
  }

  takeFirst() {
    const first = this.visibility().indexOf(1);
    if (first >= 0) this.take(first);
  }

  shown() {
    const visible = this.visibility();
    return Array.from({ length: this.count }, (_, i) => i).filter((i) => visible[i]);
  }

  pick(corners) {
    this.picked = new Set(this.shown().filter((i) => inside(this.place(i), corners)));
    this.listPicked();
    this.schedule();
  }

  listPicked() {
    const picked = [...this.picked];
    const [columns, rows] = [this.model.get("columns"), this.model.get("rows")];
    const line = (kind, cells) => make("tr", {}, cells.map((cell) => make(kind, { textContent: cell })));
    const body = picked.slice(0, MOST_ROWS).map((i) => {
      const row = line("td", rows[i]);
      row.addEventListener("click", () => this.take(i));
      return row;
    });
    const more = picked.length > MOST_ROWS ? `, of which ${MOST_ROWS} are listed` : "";
    const heading = make("div", { textContent: `${picked.length} clips selected${more}` });
    const table = make("table", {}, [make("thead", {}, [line("th", columns)]), make("tbody", {}, body)]);
    this.table.replaceChildren(...(picked.length ? [heading, table] : []));
  }

  save() {
    const chosen = this.picked.size ? [...this.picked] : this.shown();
    const lines = [[...this.model.get("columns"), "x", "y"]];
    for (const i of chosen) lines.push([...this.model.get("rows")[i], this.points[2 * i].toPrecision(6), this.points[2 * i + 1].toPrecision(6)]);
    download("clips.csv", csvText(lines), "text/csv");
  }

  // --- Mouse and keys -------------------------------------------------------------------------------------------------

  listen() {
    const { frame, model } = this;
    const scroll = new Scroll();
    const here = (event) => {
      const box = frame.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    frame.addEventListener("wheel", (event) => {
      if (scroll.since || (event.deltaY > 0 && this.window.side >= this.full.side)) return; // the page scrolls
      event.preventDefault();
      this.zoom(Math.exp(Math.min(Math.max(event.deltaY, -100), 100) / 300), event);
    }, { passive: false });
    frame.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      frame.focus({ preventScroll: true });
      frame.setPointerCapture(event.pointerId);
      this.drag = { from: here(event), window: this.window, lasso: event.shiftKey ? [here(event)] : null, moved: false };
      event.preventDefault();
    });
    frame.addEventListener("pointermove", (event) => {
      const { drag } = this;
      if (!drag) return this.set("hovered", this.nearest(event));
      const [x, y] = here(event);
      drag.moved ||= Math.hypot(x - drag.from[0], y - drag.from[1]) > 4;
      if (drag.lasso) drag.lasso.push([x, y]);
      else if (drag.moved) {
        const scale = drag.window.side / Math.min(this.width, SIZE);
        this.window = { ...drag.window, x: drag.window.x - (x - drag.from[0]) * scale, y: drag.window.y + (y - drag.from[1]) * scale };
      }
      this.schedule();
    });
    frame.addEventListener("pointerup", (event) => {
      const { drag } = this;
      this.drag = null;
      if (drag?.lasso) return this.pick(drag.moved ? drag.lasso : []);
      const target = drag && !drag.moved ? this.nearest(event) : -1;
      if (target >= 0) this.take(target);
    });
    frame.addEventListener("lostpointercapture", () => (this.drag = null)); // a touch became a scroll
    frame.addEventListener("pointerleave", () => this.set("hovered", -1));
    frame.addEventListener("dblclick", () => {
      this.window = { ...this.full };
      this.schedule();
    });
    frame.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const ends = { Home: 0, End: this.count - 1, Enter: Math.max(0, model.get("selected")) };
      if (!(event.key in ways) && !(event.key in ends)) return;
      event.preventDefault();
      event.stopPropagation();
      const [dx, dy] = ways[event.key] ?? [];
      const next = dx === undefined ? ends[event.key] : nextTarget(this.count, (i) => this.place(i), model.get("selected"), dx, dy);
      if (next < 0) return;
      if (event.key !== "Enter") this.set("selected", next);
      else if (!event.repeat) this.take(next);
    });
    const read = () => this.read();
    const draw = () => this.schedule();
    const look = () => this.schedule(false);
    const drawn = ["selected", "near", "title", "method"].map((name) => [`change:${name}`, draw]);
    const handlers = { "change:points": read, "change:values": read, "change:hovered": look, ...Object.fromEntries(drawn) };
    const ends = [
      follow(model, handlers),
      watchLook(frame, look, () => (this.fillLegend(), look())),
      () => cancelAnimationFrame(this.waiting),
      () => scroll.stop(),
    ];
    this.stop = () => ends.forEach((end) => end());
  }
}

export default {
  render({ model, el }) {
    const plane = new Plane(model, el);
    return () => plane.stop();
  },
};
