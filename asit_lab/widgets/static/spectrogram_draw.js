// Draws a spectrogram view: panels on common time and frequency axes, colour bars, means of the error.

const LEFT = 52;
const RIGHT = 86;
const TITLE = 19;
const TICKS = 18; // below a panel with times
const GAP = 14; // between columns
const FONT = "12px system-ui, sans-serif";
const SMALL = "11px system-ui, sans-serif";
// ratio: pixels of the canvas to one of the page. nothing: the colour of NaN.
const LIGHT = { background: "white", text: "#222222", line: "#555555", nothing: [200, 200, 200], ratio: 2 };
LIGHT.curves = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"];
const DARK = { background: null, text: "#e0e0e0", line: "#9a9a9a", nothing: [84, 84, 84] };
DARK.curves = ["#56B4E9", "#E69F00", "#2FC79B", "#E39BC4", "#F0E442"];
const DASHES = [[], [5, 3], [8, 3, 2, 3], [2, 3]];

// Positions in pixels: one cell per panel, cells of the two error profiles and of the colour bars.
function layoutOf(scene, width) {
  const columns = scene.columns;
  const rows = scene.panels.at(-1).place[0] + 1;
  const errors = scene.panels.filter(({ kind }) => kind === "error").length;
  const height = scene.small ? 34 : rows > 5 ? 84 : rows > 3 ? 98 : 128;
  const kinds = new Set(scene.panels.map(({ kind }) => kind));
  const across = (width - LEFT - RIGHT - GAP * (columns - 1)) / columns;
  const cells = [];
  let top = 0;
  for (let row = 0; row < rows; row++) {
    top += TITLE;
    for (const { place: [, column] } of scene.panels.filter(({ place }) => place[0] === row)) {
      cells.push({ x: LEFT + column * (across + GAP), y: top, w: across, h: height, first: column === 0 });
    }
    top += height + 5;
  }
  const last = cells.slice(-columns);
  const times = errors === 1 ? [] : [...last]; // cells with times below them
  if (times.length) top += TICKS;
  const layout = { width, cells, times, byTime: null, byBand: null, strip: null, bars: [] };
  const right = LEFT + columns * across + (columns - 1) * GAP;
  const levelCells = cells.filter((_, i) => scene.panels[i].kind !== "error");
  const bars = ["level", "weight", "difference"].filter((kind) => kinds.has(kind));
  bars.forEach((kind, n) => {
    const last = levelCells.at(-1).y + height; // of several bars each has its part of the height
    const [from, to] = [n, n + 1].map((part) => levelCells[0].y + ((last - levelCells[0].y + 14) * part) / bars.length);
    layout.bars.push({ kind, x: right + 14, y: from, w: 10, h: to - from - 14 });
  });
  if (errors) {
    top += TITLE;
    const below = { y: top, h: 62, w: across };
    layout.byTime = { x: LEFT, ...below };
    times.push(layout.byTime);
    if (errors > 1) layout.byBand = { x: LEFT + across + GAP, ...below };
    else layout.strip = { x: right + 8, y: last[0].y, w: RIGHT - 18, h: height };
    const { y, h } = errors > 1 ? last[0] : below;
    layout.bars.push({ kind: "error", x: right + 14, y, w: 10, h });
    top += below.h + TICKS;
  }
  layout.height = top + 18; // the name of the time axis
  return layout;
}

class Drawing {
  // state: scene, axes, unit, range {t0, t1, b0, b1}, limits {level, error}, rasters, outlines, profiles, maps, theme
  constructor(context, layout, state) {
    Object.assign(this, state, { context, layout });
  }

  x(cell, frame) {
    return cell.x + ((frame - this.range.t0) / (this.range.t1 - this.range.t0)) * cell.w;
  }

  y(cell, band) {
    return cell.y + cell.h - ((band - this.range.b0) / (this.range.b1 - this.range.b0)) * cell.h;
  }

  all() {
    const { context, layout } = this;
    context.clearRect(0, 0, layout.width, layout.height);
    if (this.theme.background) {
      context.fillStyle = this.theme.background;
      context.fillRect(0, 0, layout.width, layout.height);
    }
    layout.cells.forEach((cell, i) => this.panel(cell, i));
    layout.times.forEach((cell) => this.timeTicks(cell));
    for (const cell of layout.times.filter(({ y }) => y === Math.max(...layout.times.map((time) => time.y)))) {
      this.text("time (s)", cell.x + cell.w / 2, cell.y + cell.h + TICKS + 13, { align: "center" });
    }
    layout.bars.forEach((bar) => this.bar(bar));
    if (layout.byTime) this.curves();
  }

  text(text, x, y, { align = "left", font = SMALL, most = Infinity } = {}) {
    const { context } = this;
    context.font = font;
    context.fillStyle = this.theme.text;
    context.textAlign = align;
    let label = text;
    if (context.measureText(label).width > most) {
      while (label && context.measureText(`${label}…`).width > most) label = label.slice(0, -1);
      label += "…";
    }
    context.fillText(label, x, y);
  }

  frame(cell) {
    this.context.strokeStyle = this.theme.line;
    this.context.lineWidth = 1;
    this.context.strokeRect(cell.x - 0.5, cell.y - 0.5, cell.w + 1, cell.h + 1);
  }

  inside(cell, paint) {
    this.context.save();
    this.context.beginPath();
    this.context.rect(cell.x, cell.y, cell.w, cell.h);
    this.context.clip();
    paint();
    this.context.restore();
  }

  panel(cell, i) {
    const { context, range, axes, scene } = this;
    const panel = scene.panels[i];
    this.inside(cell, () => {
      const ratio = this.theme.ratio;
      const [wide, high] = [range.t1 - range.t0, range.b1 - range.b0];
      const paint = (picture, { cell: [frames, bands], grid }) => {
        const [across, up] = [wide / frames, high / bands];
        context.imageSmoothingEnabled = across > cell.w * ratio || up > cell.h * ratio; // fewer pixels than values
        const top = grid[1] - range.b1 / bands;
        context.drawImage(picture, range.t0 / frames, top, across, up, cell.x, cell.y, cell.w, cell.h);
      };
      paint(this.rasters[i], panel);
      if (panel.over >= 0) paint(this.rasters.over[i], scene.panels[panel.over]);
      if (panel.kind === "difference") this.hatch(cell, i);
      for (const place of this.marked) this.box(cell, place);
      if (panel.tokens) this.tokens(cell);
      if (panel.outline) this.lines(cell, this.outlines[panel.kept ? "kept" : "pixels"], [1, 1]);
    });
    this.frame(cell);
    context.font = FONT;
    const font = context.measureText(panel.title).width > cell.w ? SMALL : FONT;
    this.text(panel.title, cell.x, cell.y - 6, { font, most: cell.w }); // the value under the cursor covers its end
    if (cell.first && !scene.small) this.hzTicks(cell);
  }

  // Diagonals over what is negative, which colours alone do not tell in grey.
  hatch(cell, i) {
    const { cell: [frames, bands], grid } = this.scene.panels[i];
    const { context } = this;
    context.beginPath();
    this.values[i].forEach((value, place) => {
      if (!(value < 0)) return;
      const [column, row] = [Math.floor(place / grid[1]), place % grid[1]];
      context.moveTo(this.x(cell, column * frames), this.y(cell, row * bands));
      context.lineTo(this.x(cell, (column + 1) * frames), this.y(cell, (row + 1) * bands));
    });
    context.strokeStyle = "rgb(85 85 85 / 70%)";
    context.lineWidth = 0.8;
    context.stroke();
  }

  // A frame, white on black: first frame and band, frames and bands.
  box(cell, [frame, band, frames, bands]) {
    const [x0, x1, y0, y1] = [this.x(cell, frame), this.x(cell, frame + frames), this.y(cell, band + bands), this.y(cell, band)];
    for (const [colour, width] of [["black", 4], ["white", 2]]) {
      this.context.strokeStyle = colour;
      this.context.lineWidth = width;
      this.context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
  }

  // Corrupted tokens shaded, all patches ruled.
  tokens(cell) {
    const { context, range, scene } = this;
    const [frames, bands] = scene.patch;
    const [columns, rows] = scene.grid;
    context.fillStyle = "rgb(128 128 128 / 84%)";
    for (let column = 0; column < columns; column++) {
      for (let row = 0; row < rows; row++) {
        if (!this.outlines.shaded[column * rows + row]) continue;
        const [x, y] = [this.x(cell, column * frames), this.y(cell, (row + 1) * bands)];
        context.fillRect(x, y, this.x(cell, (column + 1) * frames) - x, this.y(cell, row * bands) - y);
      }
    }
    context.strokeStyle = "rgb(255 255 255 / 45%)";
    context.lineWidth = 0.5;
    context.beginPath();
    if ((frames / (range.t1 - range.t0)) * cell.w > 4) {
      for (let column = 1; column < columns; column++) this.rule(cell, column * frames, null);
    }
    for (let row = 1; row < rows; row++) this.rule(cell, null, row * bands);
    context.stroke();
    this.lines(cell, this.outlines.tokens, scene.patch);
  }

  rule(cell, frame, band) {
    const [x, y] = [frame === null ? cell.x : this.x(cell, frame), band === null ? cell.y : this.y(cell, band)];
    this.context.moveTo(x, y);
    this.context.lineTo(frame === null ? cell.x + cell.w : x, band === null ? cell.y + cell.h : y);
  }

  // White on black is visible on dark and on bright pixels.
  lines(cell, lines, [wide, high]) {
    const { context } = this;
    context.beginPath();
    for (const [x0, y0, x1, y1] of lines) {
      context.moveTo(this.x(cell, x0 * wide), this.y(cell, y0 * high));
      context.lineTo(this.x(cell, x1 * wide), this.y(cell, y1 * high));
    }
    for (const [colour, width] of [["black", 2.4], ["white", 1]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke();
    }
  }

  hzTicks(cell) {
    const { context, range } = this;
    context.strokeStyle = this.theme.line;
    for (const [place, label] of this.axes.hzTicks(range.b0, range.b1, (15 / cell.h) * (range.b1 - range.b0))) {
      const y = this.y(cell, place);
      context.beginPath();
      context.moveTo(cell.x - 4, y);
      context.lineTo(cell.x, y);
      context.stroke();
      this.text(label, cell.x - 7, Math.min(Math.max(y + 4, cell.y + 8), cell.y + cell.h), { align: "right" });
    }
    context.save();
    context.translate(11, cell.y + cell.h / 2);
    context.rotate(-Math.PI / 2);
    this.text("Hz", 0, 0, { align: "center" });
    context.restore();
  }

  timeTicks(cell) {
    const { context, axes, range } = this;
    const times = niceSteps(axes.time(range.t0), axes.time(range.t1), cell.w / 80);
    labels(times).forEach((label, i) => {
      const x = this.x(cell, axes.frame(times[i]));
      context.strokeStyle = this.theme.line;
      context.beginPath();
      context.moveTo(x, cell.y + cell.h);
      context.lineTo(x, cell.y + cell.h + 4);
      context.stroke();
      this.text(label, x, cell.y + cell.h + 15, { align: "center" });
    });
  }

  bar({ kind, x, y, w, h }) {
    const { context } = this;
    const colours = this.maps[kind];
    for (let i = 0; i < h; i++) {
      const level = 3 * Math.min(255, Math.floor(((h - 1 - i) / h) * 256));
      context.fillStyle = `rgb(${colours[level]} ${colours[level + 1]} ${colours[level + 2]})`;
      context.fillRect(x, y + i, w, 1.5);
    }
    this.frame({ x, y, w, h });
    const limits = this.limits[kind].map((value) => this.unit.displayed(value, kind));
    const ticks = niceSteps(...limits, Math.max(2, Math.min(6, h / 40)));
    labels(ticks).forEach((label, i) => {
      const level = y + h - fraction(ticks[i], kind, limits) * h;
      this.text(label, x + w + 4, Math.min(Math.max(level + 4, y + 8), y + h));
    });
    context.save();
    context.translate(this.layout.width - 6, y + h / 2);
    context.rotate(-Math.PI / 2);
    this.text(this.unit.name(kind), 0, 0, { align: "center", most: Math.max(h, 90) });
    context.restore();
  }

  // Means of the error by time and by band, each with its own scale from 0.
  curves() {
    const { layout, axes, range } = this;
    const errors = this.profiles.map(({ curves }) => curves);
    const reach = Math.max(this.limits.error[1], ...errors.flat(2).filter(Number.isFinite)) * 1.05;
    const up = (cell) => (value) => cell.y + cell.h - (value / reach) * cell.h;
    const middles = (values) => values.map((_, i) => i + 0.5);
    const { byTime } = layout;
    this.plot(byTime, "mean error by time", errors, 0, (i) => this.x(byTime, i), up(byTime));
    this.scaleOf(byTime, reach);
    if (layout.strip) {
      const cell = layout.strip;
      this.inside(cell, () =>
        this.line(errors[0][1].map((value, i) => [cell.x + (value / reach) * cell.w, this.y(cell, i + 0.5)]), 0),
      );
      this.frame(cell);
      this.text("by band", cell.x, cell.y - 6, { font: FONT });
    } else {
      const cell = layout.byBand;
      const along = (i) => cell.x + ((i - range.b0) / (range.b1 - range.b0)) * cell.w;
      this.plot(cell, "mean error by band", errors, 1, along, up(cell));
      for (const [place, label] of axes.hzTicks(range.b0, range.b1, (34 / cell.w) * (range.b1 - range.b0))) {
        this.text(label, along(place), cell.y + cell.h + 15, { align: "center" });
      }
      this.text("Hz", cell.x + cell.w / 2, cell.y + cell.h + TICKS + 13, { align: "center" });
      this.legend(errors.length > 2 ? { ...byTime, x: cell.x + cell.w + GAP } : byTime); // where there is room
    }
  }

  plot(cell, title, errors, axis, along, up) {
    this.inside(cell, () => {
      errors.forEach((curves, n) => this.line(curves[axis].map((value, i) => [along(i + 0.5), up(value)]), n));
    });
    this.frame(cell);
    this.text(title, cell.x, cell.y - 6, { font: FONT });
  }

  line(points, number) {
    const { context } = this;
    context.strokeStyle = this.theme.curves[number % this.theme.curves.length];
    context.lineWidth = 1.6;
    context.setLineDash(DASHES[number % DASHES.length]);
    context.beginPath();
    let pen = false;
    for (const [x, y] of points) {
      if (!Number.isFinite(x) || !Number.isFinite(y)) pen = false;
      else if (pen) context.lineTo(x, y);
      else pen = !context.moveTo(x, y);
    }
    context.stroke();
    context.setLineDash([]);
  }

  scaleOf(cell, reach) {
    const top = this.unit.displayed(reach, "error");
    for (const value of niceSteps(0, top, 2)) {
      const y = cell.y + cell.h - (value / top) * cell.h;
      this.text(`${Number(value.toPrecision(2))}`, cell.x - 7, Math.max(y + 4, cell.y + 8), { align: "right" });
    }
  }

  legend(cell) {
    this.scene.names.forEach((name, i) => {
      const wide = cell.w / Math.ceil(this.scene.names.length / 4); // of a column of names
      const [x, y] = [cell.x + Math.floor(i / 4) * wide, cell.y + 14 + 14 * (i % 4)];
      this.line([[x + 8, y - 4], [x + 30, y - 4]], i);
      this.text(name, x + 36, y, { most: wide - 40 });
    });
  }
}
