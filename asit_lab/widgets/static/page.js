// What an explorer needs from its page: names for screen readers where ipywidgets leaves them out, one sound at a time,
// and its picture in the notebook that JupyterLab saves.

const VIEW = "application/vnd.jupyter.widget-view+json";
const DRAWN = ["src", "data-drawn"]; // attributes that change with a picture
const CAPTION = "Saved picture. Run the cell to explore.";

// A handle takes the name of its slider's label, a picture that of its tooltip.
function name(explorer) {
  for (const slider of explorer.querySelectorAll(".widget-inline-hbox")) {
    const label = slider.querySelector(".widget-label")?.textContent;
    for (const part of slider.querySelectorAll(".noUi-handle, .widget-readout")) {
      if (label && part.getAttribute("aria-label") !== label) part.setAttribute("aria-label", label);
    }
  }
  for (const image of explorer.querySelectorAll("img.asit-picture")) {
    if (image.alt !== image.title) image.alt = image.title;
  }
}

function silenceOthers(event) {
  for (const audio of document.querySelectorAll(".asit-explorer audio")) {
    if (audio !== event.target) audio.pause();
  }
}

function hidden(element, explorer) {
  for (let box = element; box && box !== explorer; box = box.parentElement) {
    if (box.style.display === "none") return true;
  }
  return false;
}

// The pictures of an explorer in one, as base64 of a PNG; null while there is none.
function picture(explorer) {
  const shown = [...explorer.querySelectorAll("img.asit-saved, .asit-saved img, .asit-saved canvas.asit-plot")];
  const loaded = shown
    .filter((part) => (part.asitPicture ? part.closest("[data-drawn]") : part.complete && part.naturalWidth))
    .filter((part) => !hidden(part, explorer))
    .map((part) => part.asitPicture?.() ?? part); // spectrograms draw themselves anew, on white
  if (!loaded.length) return null;
  const canvas = document.createElement("canvas");
  const line = 26;
  const width = (part) => part.naturalWidth ?? part.width;
  const height = (part) => part.naturalHeight ?? part.height;
  canvas.width = Math.max(...loaded.map(width));
  canvas.height = loaded.reduce((sum, part) => sum + height(part), line);
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  let top = 0;
  for (const part of loaded) {
    context.drawImage(part, 0, top);
    top += height(part);
  }
  context.fillStyle = "#555555";
  context.font = "14px sans-serif";
  context.fillText(CAPTION, 8, top + 17);
  return canvas.toDataURL("image/png").split(",")[1];
}

// An output as it is saved: without the live view, which a notebook without its kernel could not show.
function saved(output, explorers) {
  const explorer = explorers.get(output.data?.[VIEW]?.model_id);
  if (!explorer) return output;
  const { [VIEW]: _, ...data } = output.data;
  const png = picture(explorer);
  if (png) data["image/png"] = png;
  const message = explorer.querySelector(".asit-message")?.textContent?.trim();
  if (message) data["text/plain"] = message;
  return { ...output, data };
}

// Let the notebook's model leave out live views when it is written to a file. What is open in the page stays as it is.
function savePictures(notebook) {
  if (notebook.asitExplorers) return notebook.asitExplorers;
  const explorers = (notebook.asitExplorers = new Map());
  const toJSON = notebook.toJSON.bind(notebook);
  notebook.toJSON = () => {
    const content = toJSON();
    const cells = content.cells.map((cell) =>
      cell.outputs ? { ...cell, outputs: cell.outputs.map((output) => saved(output, explorers)) } : cell,
    );
    return { ...content, cells };
  };
  return explorers;
}

function render({ model, el }) {
  const notebook = model.widget_manager?.context?.model; // JupyterLab alone has one
  const explorers = notebook?.toJSON ? savePictures(notebook) : null;
  let explorer = null;
  const observer = new MutationObserver((changes) => {
    name(explorer);
    if (notebook && changes.some(({ attributeName }) => DRAWN.includes(attributeName))) notebook.dirty = true;
  });
  // The explorer is put on the page after its parts.
  const waiting = setInterval(() => {
    explorer = el.closest(".asit-explorer");
    if (!explorer) return;
    clearInterval(waiting);
    name(explorer);
    explorer.addEventListener("play", silenceOthers, true);
    observer.observe(explorer, { subtree: true, childList: true, attributeFilter: ["title", ...DRAWN] });
    explorers?.set(model.get("explorer"), explorer);
    if (explorers && !model.get("saves")) {
      model.set("saves", true);
      model.save_changes();
    }
  }, 100);
  return () => {
    clearInterval(waiting);
    observer.disconnect();
    explorer?.removeEventListener("play", silenceOthers, true);
    if (explorers?.get(model.get("explorer")) === explorer) explorers?.delete(model.get("explorer"));
  };
}

export default { render };
