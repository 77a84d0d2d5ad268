// Draws and erases the mask by hand. What is painted is on the page at once; the kernel gets the mask when the mouse is
// released.

const TOOLS = ["move", "draw", "erase"];
const BRUSHES = { "one patch": 1, "a quarter of a patch": 0.5, "three patches": 3 }; // sides, in those of a patch

class Brush {
  constructor(view) {
    this.view = view;
    this.tool = "move";
    this.size = "one patch";
    this.last = null; // place of the last dab while the mouse is down
  }

  get offered() {
    return this.view.model.get("drawable");
  }

  get active() {
    return this.offered && this.tool !== "move";
  }

  choose(tool) {
    this.tool = tool;
    this.view.schedule();
  }

  // Paint from the last place to this one, without gaps however quick the mouse is.
  paint(place) {
    const { axes, masks } = this.view;
    if (!this.last) this.pixels = masks.pixels.length ? masks.pixels.slice() : new Uint8Array(axes.frames * axes.bands);
    const from = this.last ?? place;
    const steps = Math.ceil(Math.max(Math.abs(place.frame - from.frame), Math.abs(place.band - from.band))) || 1;
    for (let step = 1; step <= steps; step++) {
      const between = (name) => from[name] + ((place[name] - from[name]) * step) / steps;
      this.dab(between("frame"), between("band"));
    }
    this.last = place;
    this.view.showMask(this.pixels);
  }

  // Frames and bands that a dab at a place covers: first and last + 1 of each.
  covers(frame, band) {
    const { axes, scene } = this.view;
    const times = BRUSHES[this.size];
    const [wide, high] = scene.patch.map((side) => Math.max(1, Math.round(side * times)));
    const along = (at, side, most) => {
      const start = times === 1 ? Math.floor(at / side) * side : Math.round(at - side / 2); // single patches as they lie
      return [Math.max(0, start), Math.min(most, start + side)];
    };
    return [...along(frame, wide, axes.frames), ...along(band, high, axes.bands)];
  }

  dab(frame, band) {
    const [t0, t1, b0, b1] = this.covers(frame, band);
    const bands = this.view.axes.bands;
    for (let t = t0; t < t1; t++) this.pixels.fill(this.tool === "draw" ? 1 : 0, t * bands + b0, t * bands + b1);
  }

  release() {
    this.last = null;
    this.send(this.pixels);
  }

  clear() {
    const { axes } = this.view;
    this.send(new Uint8Array(axes.frames * axes.bands));
  }

  send(pixels) {
    this.view.showMask(pixels);
    this.view.model.send({ kind: "mask" }, undefined, [pixels.buffer]);
  }
}
