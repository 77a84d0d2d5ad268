// What several page scripts need. This file is joined with them: each is one module in the page.

function make(name, properties = {}, children = []) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function button(text, title, press) {
  const node = make("button", { className: "jupyter-button widget-button", textContent: text, title });
  node.addEventListener("click", press);
  return node;
}

// A part that takes focus and keys. role: what a screen reader is told it is.
function focusable(className, children, role = "application") {
  const node = make("div", { className, tabIndex: 0 }, children);
  node.setAttribute("role", role);
  node.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes the keys
  return node;
}

// Calls handlers, named by their events, of a model until the function that is returned is called.
function follow(model, handlers) {
  for (const [name, handler] of Object.entries(handlers)) model.on(name, handler);
  return () => {
    for (const [name, handler] of Object.entries(handlers)) model.off(name, handler);
  };
}

const THEME_LOADS = [0, 100, 400, 1500]; // ms

// Calls `resized` when a part gets another size and `themed` when the page gets another theme, until the function that is
// returned is called. The colours of a theme arrive some time after its name, which no event tells.
function watchLook(part, resized, themed = resized) {
  const sizes = new ResizeObserver(() => resized());
  sizes.observe(part);
  let waiting = [];
  const stop = () => waiting.forEach(clearTimeout);
  const themes = new MutationObserver(() => {
    stop();
    waiting = THEME_LOADS.map((wait) => setTimeout(themed, wait));
  });
  themes.observe(document.body, { attributeFilter: ["data-jp-theme-light", "class"] });
  return () => {
    sizes.disconnect();
    themes.disconnect();
    stop();
  };
}

// Whether the page was scrolled and the mouse has not moved `since`: then the wheel goes on scrolling.
class Scroll {
  constructor() {
    this.since = true;
    this.last = ""; // where the mouse was on the screen
    this.listeners = [["scroll", () => (this.since = true)], ["pointermove", (event) => this.onMove(event)]];
    for (const [name, handler] of this.listeners) document.addEventListener(name, handler, true);
  }

  // After a scroll, browsers report a move although the mouse has not moved.
  onMove(event) {
    const place = `${event.screenX} ${event.screenY}`;
    if (place !== this.last) this.since = false;
    this.last = place;
  }

  stop() {
    for (const [name, handler] of this.listeners) document.removeEventListener(name, handler, true);
  }
}

function download(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function csvText(rows) {
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return `${rows.map((cells) => cells.map((cell) => quoted(`${cell}`)).join(",")).join("\n")}\n`;
}

// Of what the kernel sends.
function bytesOf(view) {
  if (!view) return new Uint8Array(0);
  return new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength);
}
