// The waveform of a full recording: a drag moves the window, a click centres it there, arrow keys move it by its half.

function render({ model, el }) {
  const canvas = make("canvas");
  const shown = make("div", { className: "asit-window" });
  const frame = focusable("asit-overview", [canvas, shown], "slider");
  frame.setAttribute("aria-label", "part of the recording that is shown");
  el.append(frame);
  let grab = null; // s between the mouse and the start of the window
  let start = model.get("start"); // while the mouse drags, ahead of the kernel

  function paint() {
    if (!frame.clientWidth) return; // while a theme is loaded the page may have no layout
    const peaks = new Int8Array(bytesOf(model.get("peaks")).slice().buffer);
    [canvas.width, canvas.height] = [frame.clientWidth * devicePixelRatio, 46 * devicePixelRatio];
    const context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(frame).color;
    const [columns, half] = [peaks.length / 2, canvas.height / 2];
    for (let i = 0; i < columns; i++) {
      const top = half * (1 - peaks[2 * i + 1] / 127);
      const height = Math.max(1, (half * (peaks[2 * i + 1] - peaks[2 * i])) / 127);
      context.fillRect((i * canvas.width) / columns, top, Math.max(1, canvas.width / columns), height);
    }
    place();
  }

  function place() {
    const [total, seconds] = [model.get("total") || 1, model.get("seconds")];
    shown.style.left = `${(100 * start) / total}%`;
    shown.style.width = `${(100 * seconds) / total}%`;
    const words = `${start.toFixed(1)} to ${(start + seconds).toFixed(1)} s of ${total.toFixed(1)} s`;
    frame.title = words;
    for (const [name, value] of Object.entries({ valuemin: 0, valuemax: total, valuenow: start, valuetext: words })) {
      frame.setAttribute(`aria-${name}`, value);
    }
  }

  function moveTo(time) {
    start = Math.min(Math.max(time, 0), model.get("total") - model.get("seconds"));
    place();
    model.set("start", start);
    model.save_changes();
  }

  const timeOf = (event) => {
    const box = frame.getBoundingClientRect();
    return ((event.clientX - box.left) / box.width) * model.get("total");
  };

  function onDown(event) {
    if (event.button) return;
    const time = timeOf(event);
    const inside = time >= start && time <= start + model.get("seconds");
    grab = inside ? time - start : model.get("seconds") / 2;
    frame.setPointerCapture(event.pointerId);
    if (!inside) moveTo(time - grab);
  }

  const onMove = (event) => grab !== null && moveTo(timeOf(event) - grab);
  const onUp = () => (grab = null);

  function onKey(event) {
    const by = { ArrowLeft: -0.5, ArrowRight: 0.5 }[event.key];
    if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    moveTo(start + by * model.get("seconds"));
  }

  function moved() {
    if (grab === null) start = model.get("start");
    place();
  }

  const listeners = { pointerdown: onDown, pointermove: onMove, pointerup: onUp, lostpointercapture: onUp, keydown: onKey };
  for (const [name, handler] of Object.entries(listeners)) frame.addEventListener(name, handler);
  const handlers = { "change:peaks": paint, "change:total": paint, "change:seconds": paint, "change:start": moved };
  paint();
  const ends = [follow(model, handlers), watchLook(frame, paint)];
  return () => ends.forEach((end) => end());
}

export default { render };
