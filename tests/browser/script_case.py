"""A bare page for the explorers' scripts, with a stand-in for the kernel."""

import base64
from pathlib import Path
from typing import Any

from asit_lab import widgets

STATIC = Path(widgets.__file__).parent / "static"
# The model that anywidget gives to a script, without a kernel behind it.
MODEL = """
window.fakeModel = (state) => {
  const handlers = {};
  return {
    get: (name) => state[name],
    set: (name, value) => { state[name] = value; (handlers[`change:${name}`] ?? []).forEach((call) => call()); },
    save_changes: () => {},
    on: (name, call) => (handlers[name] ??= []).push(call),
    off: () => {},
    send: (content, _callbacks, buffers) => {
      (window.sent ??= []).push(content);
      window.sentBuffers = (buffers ?? []).map((buffer) => new Uint8Array(buffer));
    },
  };
};
window.load = async (source) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  return (await import(url)).default;
};
"""
SHOW = """async ([esm, css, state, packed, width]) => {
  const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
  for (const name of packed) state[name] = bytes(state[name]);
  window.model = fakeModel(state);
  const el = document.querySelector("#here");
  el.style.width = `${width}px`;
  (await load(esm)).render({ model: window.model, el });
}"""


def show(page, widget, state: dict[str, Any], width: int) -> None:
    """Render a widget's script in the `bare` page, that many pixels wide, with a model of that state."""
    packed = [name for name, value in state.items() if isinstance(value, bytes)]
    texts = {name: base64.b64encode(state[name]).decode() for name in packed}
    page.evaluate(SHOW, [str(widget._esm), str(widget._css), state | texts, packed, width])
