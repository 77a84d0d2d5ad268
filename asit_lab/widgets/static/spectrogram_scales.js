// Seconds, Hz and levels of a log-mel, and its colours. Places on the axes are frames and bands, from 0 at the left and
// at the bottom; band i reaches from i to i + 1.

const DECIBELS = 10 / Math.LN10; // of one unit of natural log of power
const LABELLED_HZ = [1000, 4000, 8000, 2000, 500, 16000, 100, 200, 32000]; // the most important first
const mel = (hz) => 1127 * Math.log1p(hz / 700);

class MelAxes {
  constructor({ shape, hop, start, low_hz, top_hz }) {
    [this.frames, this.bands] = shape;
    Object.assign(this, { hop, start, low: mel(low_hz), step: (mel(top_hz) - mel(low_hz)) / (shape[1] + 1) });
    this.edges = [low_hz, top_hz];
  }

  time(frame) {
    return this.start + frame * this.hop;
  }

  frame(time) {
    return (time - this.start) / this.hop;
  }

  hz(place) {
    const hz = 700 * Math.expm1((this.low + (place + 0.5) * this.step) / 1127);
    return Math.min(Math.max(hz, this.edges[0]), this.edges[1]);
  }

  place(hz) {
    return Math.min(Math.max((mel(hz) - this.low) / this.step - 0.5, 0), this.bands);
  }

  // [place, label] of the frequencies from band `low` to `high` for which there is room; `room`: bands between two.
  hzTicks(low, high, room) {
    const ticks = [];
    const between = niceSteps(this.hz(low), this.hz(high), 5);
    for (const hz of [...LABELLED_HZ, ...between]) {
      const place = this.place(hz);
      if (hz < this.edges[0] || hz > this.edges[1] || place < low || place > high) continue;
      if (ticks.every(([other]) => Math.abs(other - place) >= room)) ticks.push([place, shortHz(hz)]);
    }
    return ticks;
  }
}

function shortHz(hz) {
  return hz < 1000 ? `${Math.round(hz)}` : `${Number((hz / 1000).toFixed(2))}k`;
}

// Some `count` round numbers from low to high.
function niceSteps(low, high, count) {
  const raw = (high - low) / count;
  if (!(raw > 0)) return [];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  const steps = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) steps.push(i * step);
  return steps;
}

// Round numbers with as many decimals as tell them apart.
function labels(values) {
  const step = values.length > 1 ? values[1] - values[0] : 1;
  const decimals = Math.max(0, Math.min(4, -Math.floor(Math.log10(step) + 1e-9)));
  return values.map((value) => value.toFixed(decimals).replace(/^-(0\.?0*)$/, "$1"));
}

// Converts levels and errors between stored values (as the model sees them) and displayed ones (the same, or dB).
class Unit {
  constructor(scene, unit) {
    this.decibels = unit === "dB";
    this.scene = scene;
  }

  applies(kind) {
    return this.decibels && (kind === "level" || (kind === "error" && this.scene.error_decibels));
  }

  displayed(value, kind) {
    if (!this.applies(kind)) return value;
    return DECIBELS * (this.scene.slope * value + (kind === "level" ? this.scene.offset : 0));
  }

  stored(value, kind) {
    if (!this.applies(kind)) return value;
    return (value / DECIBELS - (kind === "level" ? this.scene.offset : 0)) / this.scene.slope;
  }

  text(value, kind) {
    if (Number.isNaN(value)) return "–";
    if (kind === "weight" || kind === "difference") return `${Number(value.toPrecision(2))} %`;
    const displayed = this.displayed(value, kind);
    return this.applies(kind) ? `${displayed.toFixed(1)} dB` : displayed.toFixed(Math.abs(displayed) < 0.1 && kind === "error" ? 4 : 2);
  }

  name(kind) {
    if (kind === "weight") return "attention (%)";
    if (kind === "difference") return "weight (%)";
    if (kind === "level") return this.decibels ? "level (dB)" : this.scene.level_unit;
    return this.applies(kind) ? `${this.scene.error_unit} (dB)` : this.scene.error_unit;
  }
}

// Little-endian float16 to float32.
function floats(view) {
  const bytes = bytesOf(view);
  const values = new Float32Array(bytes.length >> 1);
  for (let i = 0; i < values.length; i++) {
    const bits = bytes[2 * i] | (bytes[2 * i + 1] << 8);
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const size =
      exponent === 31
        ? fraction ? NaN : Infinity
        : exponent ? 2 ** (exponent - 25) * (1024 + fraction) : fraction * 2 ** -24;
    values[i] = bits & 0x8000 ? -size : size;
  }
  return values;
}

// Where a value is on the colours of its kind, 0 to 1. Weights of attention have a square-root scale, of both signs
// where they are differences.
function fraction(value, kind, [low, high]) {
  if (kind === "weight") return Math.sqrt(Math.max(0, value) / high);
  if (kind === "difference") return 0.5 + 0.5 * Math.sign(value) * Math.sqrt(Math.abs(value) / high);
  return (value - low) / (high - low);
}

// Values [columns, rows] as a picture, columns to the right and rows upwards; NaN has the colour `nothing`. fade: the
// weaker, the more transparent, to lie over another picture.
function raster(values, [columns, rows], kind, limits, colours, nothing, fade = false) {
  const canvas = new OffscreenCanvas(columns, rows);
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const table = new Uint32Array(257);
  for (let i = 0; i < 256; i++) {
    table[i] = (255 << 24) | (colours[3 * i + 2] << 16) | (colours[3 * i + 1] << 8) | colours[3 * i];
  }
  table[256] = (255 << 24) | (nothing[2] << 16) | (nothing[1] << 8) | nothing[0];
  if (fade) {
    const strength = (i) => (kind === "difference" ? Math.abs(2 * i - 255) : i) / 255;
    table.forEach((colour, i) => (table[i] = (colour & 0xffffff) | (Math.round(230 * (i < 256 ? strength(i) : 0)) << 24)));
  }
  for (let column = 0, i = 0; column < columns; column++) {
    for (let row = 0; row < rows; row++, i++) {
      const value = values[i];
      const place = Math.floor(256 * fraction(value, kind, limits));
      pixels[(rows - 1 - row) * columns + column] = table[Number.isNaN(value) ? 256 : Math.min(255, Math.max(0, place))];
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// Straight lines around the marked cells of mask [columns, rows]: x0, y0, x1, y1 of each, in units of the mask.
function borders(mask, columns, rows) {
  const lines = [];
  const marked = (x, y) => x >= 0 && y >= 0 && x < columns && y < rows && mask[x * rows + y] > 0;
  for (let x = 0; x <= columns; x++) {
    for (let y = 0, start = -1; y <= rows; y++) {
      const edge = y < rows && marked(x - 1, y) !== marked(x, y);
      if (edge && start < 0) start = y;
      if (!edge && start >= 0) [start] = [-1, lines.push([x, start, x, y])];
    }
  }
  for (let y = 0; y <= rows; y++) {
    for (let x = 0, start = -1; x <= columns; x++) {
      const edge = x < columns && marked(x, y - 1) !== marked(x, y);
      if (edge && start < 0) start = x;
      if (!edge && start >= 0) [start] = [-1, lines.push([start, y, x, y])];
    }
  }
  return lines;
}

// Means of an error [frames, bands], without NaN, by frame and by band.
function profiles(values, axes) {
  const sums = [new Float64Array(axes.frames), new Float64Array(axes.bands)];
  const counts = [new Uint32Array(axes.frames), new Uint32Array(axes.bands)];
  for (let frame = 0, i = 0; frame < axes.frames; frame++) {
    for (let band = 0; band < axes.bands; band++, i++) {
      if (Number.isNaN(values[i])) continue;
      sums[0][frame] += values[i];
      sums[1][band] += values[i];
      counts[0][frame]++;
      counts[1][band]++;
    }
  }
  return sums.map((sum, axis) => Array.from(sum, (value, place) => value / counts[axis][place]));
}
