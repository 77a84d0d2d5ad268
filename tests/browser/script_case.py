"""A bare page for the explorers' scripts, with a stand-in for the kernel."""

from pathlib import Path

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
