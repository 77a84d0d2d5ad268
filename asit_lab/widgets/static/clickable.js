// A picture whose parts can be chosen by mouse and keyboard. Positions are fractions of the picture, so marks are placed
// in percent and stay in place at any size on the page.
function render({ model, el }) {
  const image = make("img", { draggable: false });
  const [near, ring, tip] = ["near", "ring", "tip"].map((name) => make("div", { className: `asit-${name}`, hidden: true }));
  const frame = focusable("asit-clickable", [image, near, ring, tip]);
  frame.setAttribute("aria-roledescription", "picture with parts to choose");
  const spoken = make("div", { className: "asit-spoken" });
  spoken.setAttribute("aria-live", "polite");
  el.append(frame, spoken);

  let places = new Float32Array(0);
  let url = null; // URL of the picture on the page
  let latest = 0; // number of the last picture requested
  let pointer = null;
  let waiting = 0;

  function count() {
    return places.length >> 1;
  }

  function label(i) {
    return model.get("labels")[i] ?? `${i + 1} of ${count()}`;
  }

  function put(node, i) {
    node.hidden = !(i >= 0 && i < count());
    if (node.hidden) return;
    node.style.left = `${100 * places[2 * i]}%`;
    node.style.top = `${100 * places[2 * i + 1]}%`;
  }

  async function paint() {
    const turn = ++latest;
    const bytes = model.get("png");
    if (!bytes || !bytes.byteLength) return;
    const next = new Image();
    const nextUrl = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    next.src = nextUrl;
    try {
      await next.decode(); // the previous picture stays until this one can be shown
    } catch {
      URL.revokeObjectURL(nextUrl);
      return;
    }
    if (turn !== latest) return URL.revokeObjectURL(nextUrl);
    image.src = nextUrl;
    if (url) URL.revokeObjectURL(url);
    url = nextUrl;
  }

  function readPlaces() {
    const bytes = model.get("targets");
    const length = bytes ? bytes.byteLength >> 2 : 0;
    places = new Float32Array(length);
    const view = bytes && new DataView(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength);
    for (let i = 0; i < length; i++) places[i] = view.getFloat32(4 * i, true);
    marks();
  }

  function marks() {
    const selected = model.get("selected");
    const hovered = model.get("hovered");
    put(ring, selected);
    put(near, hovered === selected ? -1 : hovered);
    const tipped = hovered >= 0 ? hovered : document.activeElement === frame ? selected : -1;
    put(tip, tipped);
    if (!tip.hidden) {
      tip.textContent = label(tipped);
      tip.dataset.side = places[2 * tipped] > 0.6 ? "left" : "right";
    }
  }

  function speak() {
    const selected = model.get("selected");
    spoken.textContent = selected >= 0 && selected < count() ? `selected: ${label(selected)}` : "";
  }

  function describe() {
    const alt = model.get("alt");
    image.alt = alt;
    frame.setAttribute("aria-label", `${alt} Arrow keys choose a part of the picture.`.trim());
  }

  // The target nearest to the mouse; -1 beside the panels, such as on a legend.
  function nearest(event) {
    const box = image.getBoundingClientRect();
    const [left, top] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const inside = ([x0, y0, x1, y1]) => left >= x0 && left <= x1 && top >= y0 && top <= y1;
    if (!model.get("areas").some(inside)) return -1;
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < count(); i++) {
      const x = places[2 * i] * box.width - (event.clientX - box.left);
      const y = places[2 * i + 1] * box.height - (event.clientY - box.top);
      if (x * x + y * y < least) [best, least] = [i, x * x + y * y];
    }
    return best;
  }

  function towards(dx, dy) {
    const box = image.getBoundingClientRect();
    const place = (i) => [places[2 * i] * box.width, places[2 * i + 1] * box.height];
    return nextTarget(count(), place, model.get("selected"), dx, dy);
  }

  function set(name, i) {
    if (model.get(name) === i) return;
    model.set(name, i);
    model.save_changes();
  }

  // The selected part again counts, too: its sound is played once more.
  function take(i) {
    if (i >= 0 && model.get("selected") === i) model.send({ kind: "again" });
    else set("selected", i);
  }

  const keys = {
    ArrowLeft: () => towards(-1, 0),
    ArrowRight: () => towards(1, 0),
    ArrowUp: () => towards(0, -1),
    ArrowDown: () => towards(0, 1),
    Home: () => (count() ? 0 : -1),
    End: () => count() - 1,
    Enter: choose,
    " ": choose,
  };

  // Keys do not depend on where the mouse happens to be.
  function choose() {
    const selected = model.get("selected");
    return selected >= 0 ? selected : count() ? 0 : -1;
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    event.stopPropagation();
    const target = keys[event.key]();
    if (keys[event.key] !== choose) set("selected", target);
    else if (!event.repeat) take(target);
  }

  function onMove(event) {
    pointer = event;
    waiting ||= requestAnimationFrame(() => {
      waiting = 0;
      if (pointer) set("hovered", nearest(pointer));
    });
  }

  function onLeave() {
    pointer = null;
    set("hovered", -1);
  }

  function onClick(event) {
    frame.focus({ preventScroll: true });
    const target = nearest(event);
    if (target >= 0) take(target);
  }

  const listeners = [
    ["keydown", onKey],
    ["pointermove", onMove],
    ["pointerleave", onLeave],
    ["click", onClick],
    ["focus", marks],
    ["blur", marks],
  ];
  for (const [name, handler] of listeners) frame.addEventListener(name, handler);
  const end = follow(model, {
    "change:png": paint,
    "change:targets": readPlaces,
    "change:labels": marks,
    "change:selected": () => (marks(), speak()),
    "change:hovered": marks,
    "change:alt": describe,
  });
  describe();
  readPlaces();
  speak();
  paint();

  return () => {
    latest++;
    if (waiting) cancelAnimationFrame(waiting);
    for (const [name, handler] of listeners) frame.removeEventListener(name, handler);
    end();
    if (url) URL.revokeObjectURL(url);
  };
}

export default { render };
