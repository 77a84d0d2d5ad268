// The next of some points in a direction, for arrow keys. This file is joined with the scripts that use it.

// Number of the point that comes after `from` towards (dx, dy), in pixels; what lies aside counts twice. First those on
// the way, then any that lie further on, so that every point can be reached. place: number -> [x, y].
function nextTarget(count, place, from, dx, dy) {
  if (from < 0 || from >= count) return count ? 0 : -1;
  const [x0, y0] = place(from);
  const best = { same: -1, ahead: -1, beyond: -1 };
  const least = { ahead: Infinity, beyond: Infinity };
  for (let i = 0; i < count; i++) {
    const [x1, y1] = place(i);
    const [x, y] = [x1 - x0, y1 - y0];
    const along = x * dx + y * dy;
    const aside = Math.abs(x * dy) + Math.abs(y * dx);
    if (along + aside < 0.5 && (i - from) * (dx + dy) > 0 && best.same < 0) best.same = i; // points on each other
    if (along <= 0.5) continue;
    const kind = aside <= 2 * along ? "ahead" : "beyond";
    if (along + 2 * aside < least[kind]) [best[kind], least[kind]] = [i, along + 2 * aside];
  }
  return [best.same, best.ahead, best.beyond, from].find((i) => i >= 0);
}
