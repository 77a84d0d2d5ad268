// Markers of points on a plane.

// One marker at (x, y): shape and colour tell classes apart in grey, too.
const SHAPES = [
  (c, r) => c.arc(0, 0, r, 0, 7),
  (c, r) => c.rect(-r, -r, 2 * r, 2 * r),
  (c, r) => polygon(c, [[0, -r], [r, r], [-r, r]]),
  (c, r) => polygon(c, [[0, -1.3 * r], [1.3 * r, 0], [0, 1.3 * r], [-1.3 * r, 0]]),
  (c, r) => polygon(c, [[0, r], [r, -r], [-r, -r]]),
  (c, r) => polygon(c, [[-r, -r / 3], [-r / 3, -r / 3], [-r / 3, -r], [r / 3, -r], [r / 3, -r / 3], [r, -r / 3], [r, r / 3],
    [r / 3, r / 3], [r / 3, r], [-r / 3, r], [-r / 3, r / 3], [-r, r / 3]]),
];

function polygon(context, corners) {
  corners.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.closePath();
}

// Whether a point is inside a polygon, by the even-odd rule.
function inside([x, y], corners) {
  let within = false;
  corners.forEach(([x1, y1], i) => {
    const [x0, y0] = corners[(i + corners.length - 1) % corners.length];
    if (y1 > y !== y0 > y && x < ((x0 - x1) * (y - y1)) / (y0 - y1) + x1) within = !within;
  });
  return within;
}

// Copies of markers that were drawn once: ten thousand paths would take too long.
class Markers {
  constructor(ratio) {
    this.ratio = ratio;
    this.drawn = new Map();
  }

  // The marker `key` at (x, y); draw(context, half) makes it, in the middle of a square of 2 half.
  stamp(context, key, x, y, size, draw) {
    const half = Math.ceil(1.5 * size);
    if (!this.drawn.has(key)) {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = Math.ceil(2 * half * this.ratio);
      const own = canvas.getContext("2d");
      own.scale(this.ratio, this.ratio);
      draw(own, half);
      this.drawn.set(key, canvas);
    }
    const onPixel = (place) => Math.round((place - half) * this.ratio) / this.ratio;
    context.drawImage(this.drawn.get(key), onPixel(x), onPixel(y), 2 * half, 2 * half);
  }
}
