// A view of log-mels of one clip, drawn from their values: zoom, cursor, sound and files need no kernel. This file and
// spectrogram_*.js are joined into one module.

const FEWEST = [8, 4]; // frames and bands that stay in view

class SpectrogramView {
  constructor(model, el) {
    this.model = model;
    this.axes = null; // until the kernel sends a scene
    this.range = null; // what is in view: frames t0 to t1, bands b0 to b1
    this.waiting = 0;
    this.sounds = new Sounds(
      () => this.axes?.start ?? 0,
      () => this.schedule(false),
      () => [this.masks.pixels, this.axes],
    );
    this.plot = make("canvas", { className: "asit-plot" });
    this.plot.setAttribute("role", "img");
    this.plot.asitPicture = () => this.picture();
    this.over = make("canvas", { className: "asit-over" });
    this.readout = make("div", { className: "asit-readout", textContent: HELP });
    this.frame = focusable("asit-spectrogram", [this.plot, this.over]);
    this.outlined = true; // masks are outlined
    this.brush = new Brush(this);
    this.read();
    this.toolbar = new Toolbar(this);
    this.gestures = new Gestures(this);
    el.append(make("div", { className: "asit-view" }, [this.toolbar.element, this.readout, this.frame, this.sounds.part]));
    this.listen(el);
    this.schedule();
  }

  // --- State from the kernel -----------------------------------------------------------------------------------------

  // Take over scene, values and colours. The window stays where the axes do.
  read() {
    const { model } = this;
    const scene = model.get("scene");
    if (!scene.shape) return;
    const axes = new MelAxes(scene);
    const same = this.axes && ["frames", "bands", "hop", "start"].every((name) => this.axes[name] === axes[name]);
    Object.assign(this, { scene, axes, unit: new Unit(scene, model.get("unit")) });
    if (!same) {
      this.range = { t0: 0, t1: axes.frames, b0: 0, b1: axes.bands };
      this.sounds.selection = null;
    }
    this.values = model.get("values").map(floats);
    this.masks = { pixels: bytesOf(model.get("mask")), tokens: bytesOf(model.get("tokens")) };
    const lines = (mask, shape) => (mask.length ? borders(mask, ...shape) : []);
    this.outlines = {
      pixels: lines(this.masks.pixels, scene.shape),
      kept: lines(bytesOf(model.get("kept")), scene.shape),
      tokens: lines(this.masks.tokens, scene.grid),
      shaded: this.masks.tokens,
    };
    const errors = scene.panels.map((panel, i) => [panel, this.values[i]]).filter(([{ kind }]) => kind === "error");
    this.profiles = errors.map(([, values]) => ({ curves: profiles(values, axes) }));
    this.plot.setAttribute("aria-label", model.get("alt"));
    this.frame.setAttribute("aria-label", `${model.get("alt")} Space plays, plus and minus zoom, arrow keys move.`);
    this.rasters = new Map(); // theme -> pictures of the panels
    this.sounds.refresh();
  }

  // NaN where a panel has nothing.
  valueAt(i, frame, band) {
    const { cell, grid } = this.scene.panels[i];
    const [column, row] = [Math.floor(frame / cell[0]), Math.floor(band / cell[1])];
    return column < grid[0] && row < grid[1] ? this.values[i][column * grid[1] + row] : NaN;
  }

  // A mask that is being drawn by hand.
  showMask(pixels) {
    this.masks.pixels = pixels;
    this.outlines.pixels = borders(pixels, ...this.scene.shape);
    this.schedule();
  }

  get limits() {
    const [low, high, most, peak] = ["low", "high", "most", "peak"].map((name) => this.model.get(name));
    const level = [low, high > low ? high : low + 0.05];
    return { level, error: [0, most > 0 ? most : 1e-6], weight: [0, peak], difference: [-peak, peak] };
  }

  get maps() {
    const maps = this.model.get("maps");
    const { error_map, weight_map, difference_map } = this.scene;
    const colours = { level: this.model.get("colours"), error: error_map, weight: weight_map, difference: difference_map };
    return Object.fromEntries(Object.entries(colours).map(([kind, name]) => [kind, bytesOf(maps[name])]));
  }

  set(changes) {
    for (const [name, value] of Object.entries(changes)) this.model.set(name, value);
    this.model.save_changes();
  }

  setLimit(name, value) {
    this.set({ [name]: this.unit.stored(value, name === "most" ? "error" : "level") });
  }

  fitColours() {
    const [low, high, most] = this.model.get("fitted");
    this.set({ low, high, most });
  }

  // --- Drawing ------------------------------------------------------------------------------------------------------

  theme() {
    const [red, green, blue] = getComputedStyle(this.frame).color.match(/[\d.]+/g).map(Number);
    const dark = red + green + blue > 380; // bright text
    const theme = dark ? DARK : { ...LIGHT, background: null };
    return { ...theme, name: dark ? "dark" : "light", ratio: devicePixelRatio || 1 };
  }

  drawOn(canvas, layout, theme) {
    canvas.width = Math.round(layout.width * theme.ratio);
    canvas.height = Math.round(layout.height * theme.ratio);
    const context = canvas.getContext("2d");
    context.scale(theme.ratio, theme.ratio);
    const { scene, axes, unit, range, profiles, limits, maps } = this;
    const outlines = this.outlined ? this.outlines : { ...this.outlines, pixels: [], kept: [] };
    if (!this.rasters.has(theme.name)) {
      const look = ({ kind, grid }) => [grid, kind, limits[kind], maps[kind], theme.nothing];
      const draw = (i, fade) => raster(this.values[i], ...look(scene.panels[i]), fade);
      const rasters = scene.panels.map((_, i) => draw(i, false));
      rasters.over = scene.panels.map(({ over }) => (over < 0 ? null : draw(over, true)));
      this.rasters.set(theme.name, rasters);
    }
    const rasters = this.rasters.get(theme.name);
    const marked = this.model.get("marked");
    new Drawing(context, layout, { scene, axes, unit, range, outlines, profiles, limits, maps, rasters, theme, marked }).all();
  }

  // Draw in the next frame of the page. whole: redraw the panels too, not just the overlay.
  schedule(whole = true) {
    this.whole ||= whole;
    this.waiting ||= requestAnimationFrame(() => {
      this.waiting = 0;
      this.paint();
    });
  }

  paint() {
    const width = this.frame.clientWidth;
    if (!this.axes || width < 200) return; // nothing to draw yet, or no room
    if (this.whole || width !== this.layout?.width) {
      this.whole = false;
      this.layout = layoutOf(this.scene, width);
      this.frame.style.height = `${this.layout.height}px`;
      this.drawOn(this.plot, this.layout, this.theme());
      this.placeValues();
      this.toolbar.update();
      this.frame.dataset.drawn = Number(this.frame.dataset.drawn ?? 0) + 1;
      this.frame.dispatchEvent(new Event("asit-drawn", { bubbles: true }));
    }
    this.paintOver();
  }

  // The same picture in light colours, at twice the resolution of the page.
  picture() {
    const canvas = document.createElement("canvas");
    this.drawOn(canvas, this.layout ?? layoutOf(this.scene, 800), { ...LIGHT, name: "saved" });
    return canvas;
  }

  placeValues() {
    const { cells, width } = this.layout;
    if (this.tags?.length !== cells.length) {
      this.tags?.forEach((tag) => tag.remove());
      this.tags = cells.map(() => make("span", { className: "asit-value" }));
      this.frame.append(...this.tags);
    }
    cells.forEach(({ x, y, w }, i) => {
      Object.assign(this.tags[i].style, { top: `${y - 18}px`, right: `${width - x - w}px` });
    });
  }

  // Cursor, selection, playhead, and the values under the cursor.
  paintOver() {
    const { over, layout, sounds, axes } = this;
    const { pointer } = this.gestures;
    const { ratio, text } = this.theme();
    [over.width, over.height] = [Math.round(layout.width * ratio), Math.round(layout.height * ratio)];
    const context = over.getContext("2d");
    context.scale(ratio, ratio);
    const drawing = new Drawing(context, layout, this);
    const rows = [...layout.cells, ...(layout.byTime ? [layout.byTime] : [])];
    for (const cell of rows) {
      drawing.inside(cell, () => {
        const xOf = (time) => drawing.x(cell, axes.frame(time));
        if (sounds.selection) {
          const [left, right] = sounds.selection.map(xOf);
          context.fillStyle = "rgb(90 160 255 / 25%)";
          context.fillRect(left, cell.y, right - left, cell.h);
          stroke(context, [left, cell.y, left, cell.y + cell.h], "#5aa0ff");
          stroke(context, [right, cell.y, right, cell.y + cell.h], "#5aa0ff");
        }
        const head = sounds.audio && (sounds.playing || sounds.head > axes.start) ? xOf(sounds.head) : null;
        if (head !== null) stroke(context, [head, cell.y, head, cell.y + cell.h], "#2ee66b", 2);
        if (!pointer) return;
        if (this.brush.active && cell !== layout.byTime) {
          const [t0, t1, b0, b1] = this.brush.covers(pointer.frame, pointer.band);
          const [x0, x1, y0, y1] = [drawing.x(cell, t0), drawing.x(cell, t1), drawing.y(cell, b0), drawing.y(cell, b1)];
          stroke(context, [x0, y0, x1, y0, x1, y1, x0, y1, x0, y0], "white");
        }
        const x = drawing.x(cell, pointer.frame);
        const colour = cell === layout.byTime ? text : "white";
        stroke(context, [x, cell.y, x, cell.y + cell.h], colour);
        if (cell === layout.byTime) return;
        const y = drawing.y(cell, pointer.band);
        stroke(context, [cell.x, y, cell.x + cell.w, y], colour);
      });
    }
    this.updateReadout();
  }

  updateReadout() {
    const { axes, unit, scene, sounds } = this;
    const { pointer } = this.gestures;
    const selected = sounds.selection;
    const [from, to] = selected ?? [];
    const words = selected ? `selected ${from.toFixed(3)} to ${to.toFixed(3)} s (${(to - from).toFixed(3)} s)` : "";
    if (!pointer) {
      this.readout.textContent = words || HELP;
      this.tags?.forEach((tag) => (tag.textContent = ""));
    } else {
      const [frame, band] = [Math.floor(pointer.frame), Math.floor(pointer.band)];
      const place = `${axes.time(pointer.frame).toFixed(3)} s, ${Math.round(axes.hz(pointer.band))} Hz (band ${band})`;
      this.readout.textContent = words ? `${place}; ${words}` : place;
      this.tags?.forEach((tag, i) => {
        tag.textContent = unit.text(this.valueAt(i, frame, band), scene.panels[i].kind);
      });
    }
    const soundState = [...sounds.available().keys(), sounds.chosen, sounds.playing, sounds.loop, sounds.masked].join("\n");
    if (soundState !== this.soundState) this.toolbar.update();
    this.soundState = soundState;
  }

  // --- The window ---------------------------------------------------------------------------------------------------

  show(t0, t1, b0, b1) {
    const { frames, bands } = this.axes;
    const fit = (low, high, most, fewest) => {
      const size = limit(high - low, fewest, most);
      const start = limit((low + high - size) / 2, 0, most - size);
      return [start, start + size];
    };
    const [left, right] = fit(t0, t1, frames, Math.min(frames, FEWEST[0]));
    const [low, high] = fit(b0, b1, bands, Math.min(bands, FEWEST[1]));
    this.range = { t0: left, t1: right, b0: low, b1: high };
    this.schedule();
  }

  reset() {
    this.show(0, this.axes.frames, 0, this.axes.bands);
  }

  // Zoom about a place; factor below 1: nearer.
  zoom(factor, frame, band, [time, frequency]) {
    const { t0, t1, b0, b1 } = this.range;
    const about = (centre, low, high, on) =>
      on ? [centre - (centre - low) * factor, centre + (high - centre) * factor] : [low, high];
    const size = (low, high, most) => Math.min(high - low, most);
    const [left, right] = about(frame, t0, t1, time);
    const [low, high] = about(band, b0, b1, frequency);
    const width = size(left, right, this.axes.frames);
    const height = size(low, high, this.axes.bands);
    const start = limit(left, 0, this.axes.frames - width);
    const bottom = limit(low, 0, this.axes.bands - height);
    if (width < FEWEST[0] && time && factor < 1) return;
    this.show(start, start + width, bottom, bottom + height);
  }

  toggleOutline() {
    this.outlined = !this.outlined;
    this.schedule();
  }

  toggleLoop() {
    this.sounds.loop = !this.sounds.loop;
    this.schedule();
  }

  select(from, to) {
    const end = this.axes.time(this.axes.frames);
    const [low, high] = [Math.min(from, to), Math.max(from, to)].map((time) => limit(time, this.axes.start, end));
    this.sounds.selection = high - low > 0.005 ? [low, high] : null;
    this.schedule(false);
  }

  // --- Files --------------------------------------------------------------------------------------------------------

  fileName(suffix) {
    return `${this.scene.file.replace(/[^\w.-]+/g, "-").replace(/^-+|-+$/g, "") || "spectrogram"}.${suffix}`;
  }

  savePicture() {
    this.picture().toBlob((blob) => download(this.fileName("png"), blob, "image/png"));
  }

  saveValues() {
    download(this.fileName("csv"), csvOf(this), "text/csv");
  }

  async saveSound() {
    const { audio, selection, chosen, masked } = this.sounds;
    if (!audio) return;
    if (masked) await this.sounds.cut();
    const buffer = await (await fetch(audio.src)).arrayBuffer();
    const [from, to] = (selection ?? [this.axes.start, Infinity]).map((time) => time - this.axes.start);
    const wav = cutWav(buffer, from, Number.isFinite(to) ? to : 1e6);
    download(this.fileName(`${chosen}${masked ? ".masked" : ""}.wav`), wav, "audio/wav");
  }

  listen(el) {
    const { model } = this;
    const names = ["scene", "values", "mask", "kept", "tokens", "drawable", "marked", "low", "high", "most", "peak", "unit", "colours", "alt"];
    let reading = 0; // the kernel sends several changes at once
    const changed = () => {
      reading ||= requestAnimationFrame(() => {
        reading = 0;
        this.read();
        this.schedule();
      });
    };
    const received = (message, buffers) => {
      if (message.kind === "pdf") download(this.fileName("pdf"), bytesOf(buffers[0]), "application/pdf");
    };
    const changes = Object.fromEntries(names.map((name) => [`change:${name}`, changed]));
    const ends = [
      follow(model, { ...changes, "msg:custom": received }),
      watchLook(this.frame, () => this.schedule(false), () => this.schedule()),
    ];
    const sounding = new MutationObserver((changes) => {
      if (changes.some(({ target }) => target.closest?.(".asit-sound"))) this.schedule(false);
    });
    const joining = setInterval(() => {
      const explorer = el.closest(".asit-explorer"); // put on the page after its parts
      if (!explorer) return;
      clearInterval(joining);
      this.sounds.attach(explorer);
      sounding.observe(explorer, { subtree: true, attributeFilter: ["src", "style"] });
      this.schedule();
    }, 100);
    this.stop = () => {
      clearInterval(joining);
      cancelAnimationFrame(this.waiting);
      cancelAnimationFrame(reading);
      ends.forEach((end) => end());
      sounding.disconnect();
      this.gestures.stop();
      this.sounds.detach();
    };
  }
}

function stroke(context, [x0, y0, ...rest], colour, width = 1) {
  for (const [style, wide] of [["rgb(0 0 0 / 60%)", width + 1], [colour, width]]) {
    context.strokeStyle = style;
    context.lineWidth = wide;
    context.beginPath();
    context.moveTo(x0, y0);
    for (let i = 0; i < rest.length; i += 2) context.lineTo(rest[i], rest[i + 1]);
    context.stroke();
  }
}

export default {
  render({ model, el }) {
    const view = new SpectrogramView(model, el);
    return () => view.stop();
  },
};
