// A button that sends a file to the kernel piece by piece: one message of a large file would end the connection.

const PIECE = 1 << 20; // bytes
const PATIENCE = 60000; // ms that the kernel may take for a piece

function render({ model, el }) {
  const button = document.createElement("button");
  button.className = "lm-Widget jupyter-widgets jupyter-button widget-button asit-upload";
  const input = document.createElement("input");
  input.type = "file";
  input.hidden = true;
  el.append(button, input);
  let waiting = null; // resolves when the kernel has the last piece

  function label(text) {
    button.textContent = text;
    button.title = model.get("hint");
  }

  function ready() {
    label(model.get("name") ? `upload audio (1)` : "upload audio");
    button.disabled = input.disabled = false;
  }

  async function send(file) {
    const number = Date.now();
    model.send({ kind: "begin", number, name: file.name, size: file.size });
    for (let start = 0; start < file.size; start += PIECE) {
      const piece = await file.slice(start, start + PIECE).arrayBuffer();
      const stored = new Promise((resolve, reject) => {
        waiting = resolve;
        setTimeout(() => reject(new Error("the kernel is busy, or gone")), PATIENCE);
      });
      model.send({ kind: "piece", number }, undefined, [piece]);
      if (!(await stored)) break;
      label(`${Math.round((100 * Math.min(start + PIECE, file.size)) / file.size)} % uploaded`);
    }
    model.send({ kind: "end", number });
  }

  function onMessage(message) {
    waiting?.(message.stored);
  }

  async function onChange() {
    const [file] = input.files;
    if (!file) return;
    button.disabled = input.disabled = true;
    try {
      await send(file);
      ready();
    } catch (error) {
      ready();
      label(`upload failed: ${error.message}`);
    }
    input.value = ""; // the same file can be chosen again
  }

  const open = () => input.click();
  button.addEventListener("click", open);
  input.addEventListener("change", onChange);
  model.on("msg:custom", onMessage);
  model.on("change:name", ready);
  ready();
  return () => {
    waiting?.(false);
    button.removeEventListener("click", open);
    input.removeEventListener("change", onChange);
    model.off("msg:custom", onMessage);
    model.off("change:name", ready);
  };
}

export default { render };
