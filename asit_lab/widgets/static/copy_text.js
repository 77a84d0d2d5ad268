// A button that copies a line of settings, shown below it.

function render({ model, el }) {
  const button = document.createElement("button");
  button.className = "lm-Widget jupyter-widgets jupyter-button widget-button";
  button.style.width = "100%";
  const line = document.createElement("code");
  line.style.cssText = "display: block; overflow-wrap: anywhere; user-select: all; font-size: 11px; line-height: 1.4";
  el.append(button, line);

  function update() {
    button.textContent = "copy as overrides";
    button.title = "copy these settings for the notebooks' parameter overrides";
    line.textContent = model.get("text");
  }

  // The older way works in pages that are not served securely, too.
  function copy() {
    getSelection().selectAllChildren(line);
    button.textContent = document.execCommand("copy") ? "copied" : "marked: copy with Ctrl-C";
  }

  button.addEventListener("click", copy);
  model.on("change:text", update);
  update();
  return () => model.off("change:text", update);
}

export default { render };
