// Runs in JupyterLab's page, before it: what the tests ask about the notebook in front and the explorers in it.
(() => {
  // What can be moved, by what it looks like in the page; the first kind that fits is it.
  const KINDS = {
    slider: ".noUi-handle",
    toggles: ".widget-toggle-buttons",
    radios: ".widget-radio",
    upload: "button.asit-upload",
    button: "button.jupyter-button:not(.widget-toggle-buttons *)",
    choice: "select:not([multiple])",
    several: "select[multiple]",
    check: "input[type=checkbox]",
    number: "input[type=number]",
    text: "input[type=text], textarea",
    sound: "audio[controls]",
    clickable: ".asit-clickable[tabindex]",
    spectrogram: ".asit-spectrogram[tabindex]",
    overview: ".asit-overview[tabindex]",
    plane: ".asit-points[tabindex]",
    curves: ".asit-curves-frame[tabindex]",
    rows: ".asit-rows-table[tabindex]",
  };
  // Parts of a control that have their own place in the order of focus.
  const PARTS = ".widget-readout, .widget-toggle-buttons *, .widget-radio *, .asit-legend *, .asit-rows-table *";
  const FOCUSABLE =
    "a[href], button, input, select, textarea, audio[controls], video[controls], [contenteditable=true], " +
    "[tabindex]:not([tabindex='-1'])";

  const panel = () => window.jupyterapp.shell.currentWidget;
  const kernel = () => panel()?.sessionContext?.session?.kernel?.status ?? "none";
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  const text = (element) => (element?.innerText ?? "").replace(/[\s\u200b]+/g, " ").trim();
  const visible = (element) => element.checkVisibility({ visibilityProperty: true });
  const pictures = (root) => [...root.querySelectorAll("img, canvas:not(.asit-over)")].filter(visible);

  function enabled(element) {
    const slider = element.closest(".noUi-target");
    if (slider) return !slider.hasAttribute("disabled");
    if (element.matches("select")) return !element.disabled && element.options.length > 1;
    const inside = element.matches("button, input, textarea") ? element : element.querySelector("button, input");
    return !inside?.disabled;
  }

  function nameOf(element) {
    const widget = element.closest(".widget-inline-hbox, .widget-inline-vbox, .asit-sound") ?? element;
    const own = element.getAttribute("aria-label") ?? "";
    const labels = [...widget.querySelectorAll(".widget-label-basic, .widget-label, .widget-html")].map(text);
    const buttons = [...element.querySelectorAll("button")].map(text).join(" | ");
    return labels.find((label) => label) || own || buttons || text(element) || element.title;
  }

  function kindOf(element) {
    return Object.keys(KINDS).find((kind) => element.matches(KINDS[kind]));
  }

  // Every control that is there, or that can be moved now, stamped with a number that it keeps.
  let stamps = 0;
  function controls(root, every = false) {
    return [...root.querySelectorAll(Object.values(KINDS).join(", "))]
      .filter((element) => visible(element) && !element.closest(PARTS) && (every || enabled(element)))
      .map((element) => {
        element.dataset.control ??= `${stamps++}`;
        const options = { choice: "option", several: "option", toggles: "button", radios: "input" }[kindOf(element)];
        return {
          id: element.dataset.control,
          kind: kindOf(element),
          name: nameOf(element),
          options: options ? element.querySelectorAll(options).length : 0,
        };
      });
  }

  // What takes the focus but is none of the kinds above: a test that knew only those would forget it.
  function unknown(root) {
    return [...root.querySelectorAll(FOCUSABLE)]
      .filter((element) => visible(element) && !kindOf(element) && !element.closest(PARTS))
      .map((element) => element.outerHTML.slice(0, 200));
  }

  async function digest(bytes) {
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-1", bytes));
    return [...hash.slice(0, 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  async function pixels(element) {
    if (element instanceof HTMLImageElement) await element.decode().catch(() => {});
    const [width, height] = [element.naturalWidth ?? element.width, element.naturalHeight ?? element.height];
    if (!width || !height) return "nothing";
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(element, 0, 0);
    return digest(context.getImageData(0, 0, width, height).data);
  }

  // What the user sees and hears of an explorer, as texts that differ when it does.
  async function state(root) {
    const seen = await Promise.all(pictures(root).map(pixels));
    const marks = [...root.querySelectorAll(".asit-clickable > div")].map((mark) => mark.style.cssText + text(mark));
    const heard = [...root.querySelectorAll("audio")].filter(visible).map((audio) => audio.src);
    const words = [...root.querySelectorAll(".widget-html, .widget-label")].filter(visible).map(text);
    const offered = controls(root).map(({ kind, name, options }) => `${kind} ${name} ${options}`);
    const all = { picture: seen, marks, sound: heard, words, controls: offered };
    return Object.fromEntries(Object.entries(all).map(([name, values]) => [name, values.join("\n")]));
  }

  // Messages to the kernel that it is not through with. Its status alone comes late on a busy machine.
  const open = new Set();
  const followed = new WeakSet();
  function follow() {
    const connection = panel()?.sessionContext?.session?.kernel;
    if (!connection || followed.has(connection)) return;
    followed.add(connection);
    connection.anyMessage.connect((_, { msg, direction }) => {
      if (direction === "send" && msg.header.msg_type === "comm_msg") open.add(msg.header.msg_id);
      const idle = msg.header.msg_type === "status" && msg.content.execution_state === "idle";
      if (direction === "recv" && idle) open.delete(msg.parent_header.msg_id);
    });
  }

  // Waits until the kernel has nothing to do and the explorer has not changed for `quiet` ms.
  async function settled(root, quiet, timeout) {
    follow();
    let last = performance.now();
    const observer = new MutationObserver(() => (last = performance.now()));
    observer.observe(root, { subtree: true, childList: true, characterData: true, attributes: true });
    const end = last + timeout;
    while (performance.now() < end && performance.now() - last < quiet) {
      await sleep(25);
      const working = [...root.querySelectorAll(".asit-work, .asit-playing")].some(visible);
      if (open.size || working || kernel() !== "idle") last = performance.now();
    }
    observer.disconnect();
    return performance.now() < end;
  }

  // From a key on a slider to the new picture, decoded and in the page, ms; null if none came.
  async function answer(root, slider, key, timeout) {
    const began = performance.now();
    let shown = null;
    const loaded = (event) => {
      if (event.target.closest(".asit-picture")) shown ??= performance.now();
    };
    root.addEventListener("load", loaded, true); // load does not bubble, but it can be captured
    root.addEventListener("asit-drawn", loaded);
    const options = { key, code: key, bubbles: true, cancelable: true };
    slider.dispatchEvent(new KeyboardEvent("keydown", options));
    slider.dispatchEvent(new KeyboardEvent("keyup", options));
    while (shown === null && performance.now() - began < timeout) await sleep(1);
    root.removeEventListener("load", loaded, true);
    root.removeEventListener("asit-drawn", loaded);
    return shown === null ? null : shown - began;
  }

  // One key after the other, each when the picture of the one before is there; stops at the first without.
  async function answers(root, id, keys, timeout) {
    const slider = root.querySelector(`[data-control="${id}"]`);
    const times = [];
    for (const key of keys) {
      times.push(await answer(root, slider, key, timeout));
      if (times.at(-1) === null) break;
    }
    return times;
  }

  // Whether all cells have run, and the error that stopped them if one did.
  function cells() {
    const model = panel()?.content?.model?.sharedModel?.toJSON();
    const code = (model?.cells ?? []).filter((cell) => cell.cell_type === "code" && `${cell.source}`.trim());
    const error = code.flatMap((cell) => cell.outputs).find((output) => output.output_type === "error");
    const done = code.length > 0 && code.every((cell) => cell.execution_count) && kernel() === "idle";
    return { done, error: error ? `${error.ename}: ${error.evalue}` : null };
  }

  // Whether a box around the element ends before it does, and hides the rest.
  function hidden(element, root) {
    const right = element.getBoundingClientRect().right;
    for (let box = element.parentElement; box && box !== root; box = box.parentElement) {
      const end = box.getBoundingClientRect().left + box.clientLeft + box.clientWidth;
      if (getComputedStyle(box).overflowX !== "visible" && right > end + 3) return true; // a margin is not missed
    }
    return false;
  }

  // What is chosen in a list, or all of one that stands open, where it is longer than its place.
  function cutOptions(select) {
    const context = new OffscreenCanvas(1, 1).getContext("2d");
    context.font = getComputedStyle(select).font;
    const room = select.clientWidth - (select.multiple ? 6 : 30); // without padding and arrow
    const options = [...(select.multiple ? select.options : select.selectedOptions)].map((option) => option.text);
    return options.filter((option) => context.measureText(option).width > room);
  }

  // Controls and texts that do not fit into their place, and an explorer that is wider than its cell.
  function clipped(root) {
    const labels = [...root.querySelectorAll(".widget-label, .widget-label-basic, button, .widget-readout")];
    const cut = labels.filter((element) => visible(element) && element.scrollWidth > element.clientWidth + 1).map(text);
    const boxed = [...root.querySelectorAll(`${Object.values(KINDS).join(", ")}, img`)];
    const out = boxed.filter((element) => visible(element) && hidden(element, root));
    const room = root.closest(".jp-OutputArea-output, .jp-OutputArea-child") ?? root;
    const wide = room.scrollWidth > room.clientWidth + 1 ? [`${room.scrollWidth} px in ${room.clientWidth}`] : [];
    cut.push(...[...root.querySelectorAll("select")].filter(visible).flatMap(cutOptions));
    return [...cut, ...out.map((element) => `${kindOf(element) ?? "picture"} ${nameOf(element)}`), ...wide];
  }

  // Texts of every canvas as last drawn, where each begins and ends, and the canvas's width, in the canvas's pixels.
  const written = new WeakMap();
  const { fillText, clearRect } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.clearRect = function (...box) {
    if (box[2] >= this.canvas.clientWidth) written.set(this.canvas, []);
    return clearRect.apply(this, box);
  };
  CanvasRenderingContext2D.prototype.fillText = function (...given) {
    const [words, x, y, most] = given;
    const width = Math.min(this.measureText(words).width, most ?? Infinity);
    const from = { left: 0, start: 0, center: 0.5, right: 1, end: 1 }[this.textAlign] * width;
    const [start, end] = [x - from, x - from + width].map((at) => new DOMPoint(at, y).matrixTransform(this.getTransform()));
    if (!written.has(this.canvas)) written.set(this.canvas, []);
    written.get(this.canvas).push({ words, start: start.x, end: end.x, y: end.y, colour: this.fillStyle });
    return fillText.apply(this, given);
  };

  function texts(root) {
    const canvases = [...root.querySelectorAll("canvas")].filter(visible);
    return canvases.flatMap((canvas) => (written.get(canvas) ?? []).map((text) => ({ ...text, width: canvas.width })));
  }

  // Red, green and blue of a CSS colour and its alpha, each 0 to 1.
  function rgba(colour) {
    const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data].map((value) => value / 255);
  }

  const luminance = (colour) =>
    rgba(colour).slice(0, 3).reduce((sum, value, i) => {
      const light = value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
      return sum + [0.2126, 0.7152, 0.0722][i] * light;
    }, 0);

  // The nearest background behind an element.
  function behind(element) {
    for (let box = element; box; box = box.parentElement) {
      const { backgroundColor } = getComputedStyle(box);
      if (rgba(backgroundColor)[3] > 0.9) return backgroundColor;
    }
    return "white";
  }

  // Texts of the page and of its canvases that are hard to read on what is behind them: contrast by WCAG below `least`.
  function faint(root, least) {
    const contrast = (one, other) => {
      const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
      return (high + 0.05) / (low + 0.05);
    };
    const own = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const spoken = [...root.querySelectorAll("*")].filter((element) => visible(element) && own(element) && enabled(element));
    const weak = spoken.filter((element) => contrast(getComputedStyle(element).color, behind(element)) < least);
    const page = behind(root);
    const beside = texts(root).filter(({ colour }) => contrast(colour, page) < least);
    return [...weak.map(text), ...beside.map(({ words }) => words)];
  }

  // Pictures with an opaque white corner: slabs on a dark page.
  async function slabs(root) {
    const found = [];
    for (const element of pictures(root)) {
      if (element instanceof HTMLImageElement) await element.decode();
      const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
      context.drawImage(element, 0, 0, 1, 1, 0, 0, 1, 1);
      const corner = context.getImageData(0, 0, 1, 1).data;
      if (corner.every((value) => value > 240)) found.push(element.className);
    }
    return found;
  }

  window.asit = { panel, kernel, controls, unknown, state, settled, answers, clipped, cells, texts, faint, slabs };
})();
