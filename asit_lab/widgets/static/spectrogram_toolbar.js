// The buttons and entries above a spectrogram view, and the files they save.

const HELP =
  "Wheel: zoom in time (Shift: in frequency). Drag: move. Click: play from here. Shift-drag: select. Double click: all.";
const ONLY =
  "play only what the mask covers: its patches in time and frequency, silence elsewhere, of any sound that is chosen (H)";

function choice(name, change) {
  const node = make("select", { title: name });
  node.setAttribute("aria-label", name);
  node.addEventListener("change", () => change(node.value));
  return node;
}

function offer(select, names, chosen) {
  if ([...select.options].map(({ value }) => value).join("\n") !== names.join("\n")) {
    select.replaceChildren(...names.map((name) => new Option(name, name)));
  }
  select.value = chosen;
}

function entry(name, change) {
  const node = make("input", { type: "number", title: name });
  node.setAttribute("aria-label", name);
  const take = () => Number.isFinite(node.valueAsNumber) && change(node.valueAsNumber);
  node.addEventListener("change", take);
  node.addEventListener("keydown", (event) => event.key === "Enter" && take()); // JupyterLab swallows Enter's change event
  return node;
}

// view: what `render` of spectrogram.js makes.
class Toolbar {
  constructor(view) {
    const { model, sounds } = view;
    this.view = view;
    this.play = button("▶ Play", "play the selection, or the whole clip (Space)", () => sounds.toggle());
    this.loop = button("Loop", "repeat the selection, or the whole clip (L)", () => view.toggleLoop());
    this.only = button("Masked only", ONLY, () => sounds.toggleMasked());
    this.sound = choice("sound", (name) => sounds.choose(name));
    this.all = button("Show all", "the whole time and frequency range (Home)", () => view.reset());
    this.colours = choice("colour map", (name) => view.set({ colours: name }));
    this.unit = choice("unit", (unit) => view.set({ unit }));
    this.low = entry("lowest level", (value) => view.setLimit("low", value));
    this.high = entry("highest level", (value) => view.setLimit("high", value));
    this.most = entry("largest error", (value) => view.setLimit("most", value));
    this.fit = button("Fit", "the colour range that suits the clip", () => view.fitColours());
    this.outline = button("Outline", "outline the mask (O)", () => view.toggleOutline());
    const { brush } = view;
    this.tools = choice("mouse", (tool) => brush.choose(tool));
    this.tools.title = "what a drag of the mouse does (D, E, M); Shift-drag selects as ever";
    this.brushes = choice("brush", (size) => ((brush.size = size), view.schedule(false)));
    this.clear = button("Clear", "an empty mask", () => brush.clear());
    this.errors = make("label", {}, ["error to ", this.most]);
    this.peak = entry("largest weight, %", (value) => value > 0 && view.set({ peak: value }));
    this.weights = make("label", {}, ["weights to ", this.peak]);
    this.saves = [
      button("PNG", "save what is shown as a picture", () => view.savePicture()),
      button("PDF", "save what is shown as a figure for print", () => model.send({ kind: "pdf", view: { ...view.range } })),
      button("CSV", "save the values that are shown", () => view.saveValues()),
      button("WAV", "save the selection, or the whole clip, of the chosen sound as it is played", () => view.saveSound()),
    ];
    const group = (...parts) => make("span", {}, parts);
    this.element = make("div", { className: "asit-tools" }, [
      (this.players = group(this.play, this.loop, this.only, this.sound)),
      (this.levels = group(this.colours, this.unit, "from ", this.low, " to ", this.high, this.fit)),
      group(this.errors, this.weights, this.all),
      (this.mask = group("mask ", this.outline, this.tools, this.brushes, this.clear)),
      group("save ", ...this.saves),
    ]);
  }

  update() {
    const { model, sounds, scene, unit, masks } = this.view;
    const players = sounds.available();
    this.play.textContent = sounds.playing ? "❚❚ Pause" : "▶ Play";
    this.play.disabled = this.loop.disabled = this.sound.disabled = this.saves[3].disabled = !players.size;
    this.loop.classList.toggle("mod-active", sounds.loop);
    this.loop.setAttribute("aria-pressed", sounds.loop);
    this.only.disabled = !players.size || !masks.pixels.some(Boolean);
    this.only.classList.toggle("mod-active", sounds.masked);
    this.only.setAttribute("aria-pressed", sounds.masked);
    offer(this.sound, [...players.keys()], sounds.audio ? sounds.chosen : "");
    this.sound.hidden = players.size < 2;
    offer(this.colours, scene.level_maps, model.get("colours"));
    offer(this.unit, ["normalised", "dB"], model.get("unit"));
    this.unit.options[0].textContent = scene.level_unit.includes("natural log") ? "natural log" : "normalised";
    this.only.hidden = this.mask.hidden = !scene.panels.some(({ outline }) => outline);
    this.outline.classList.toggle("mod-active", this.view.outlined);
    this.outline.setAttribute("aria-pressed", this.view.outlined);
    for (const part of [this.tools, this.brushes, this.clear]) part.hidden = !this.view.brush.offered;
    offer(this.tools, TOOLS, this.view.brush.tool);
    offer(this.brushes, Object.keys(BRUSHES), this.view.brush.size);
    this.players.hidden = scene.small;
    this.levels.hidden = !scene.panels.some(({ kind }) => kind === "level");
    this.saves[3].hidden = scene.small;
    this.errors.hidden = !scene.panels.some(({ kind }) => kind === "error");
    this.weights.hidden = !scene.panels.some(({ kind }) => kind === "weight" || kind === "difference");
    for (const [name, kind] of [["low", "level"], ["high", "level"], ["most", "error"], ["peak", "weight"]]) {
      const value = unit.displayed(model.get(name), kind);
      this[name].step = unit.applies(kind) ? 1 : Math.abs(value) < 0.1 ? 0.005 : 0.05;
      this[name].value = Number(value.toFixed(unit.applies(kind) ? 1 : 3));
    }
  }
}

// The values inside the window of a view: a row for each frame and band, a column for each panel.
function csvOf(view) {
  const { scene, axes, unit, masks, range } = view;
  const panels = scene.panels.map((panel, place) => ({ ...panel, place }));
  const columns = panels.filter(({ tokens }) => !tokens); // which shows the levels of another panel
  const names = columns.map(({ name, kind }) => (unit.applies(kind) ? `${name} (dB)` : name));
  const rows = [["time_s", "frequency_hz", ...(masks.pixels.length ? ["masked"] : []), ...names]];
  for (let frame = Math.floor(range.t0); frame < Math.ceil(range.t1); frame++) {
    for (let band = Math.floor(range.b0); band < Math.ceil(range.b1); band++) {
      const index = frame * axes.bands + band;
      const cells = columns.map((panel) => {
        const level = view.valueAt(panel.place, frame, band);
        return Number.isNaN(level) ? "" : unit.displayed(level, panel.kind).toPrecision(4);
      });
      const masked = masks.pixels.length ? [masks.pixels[index]] : [];
      rows.push([axes.time(frame).toFixed(4), axes.hz(band + 0.5).toFixed(1), ...masked, ...cells]);
    }
  }
  return csvText(rows);
}
