"""Names for screen readers, where ipywidgets leaves them out: handles of sliders, and pictures."""

import anywidget

# The handle takes the name of the slider's label, a picture that of its tooltip; again whenever the page changes.
_ESM = """
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

function render({ el }) {
  let explorer = null;
  const observer = new MutationObserver(() => name(explorer));
  // The explorer is put on the page after its parts.
  const waiting = setInterval(() => {
    explorer = el.closest(".asit-explorer");
    if (!explorer) return;
    clearInterval(waiting);
    name(explorer);
    observer.observe(explorer, { subtree: true, childList: true, attributeFilter: ["title"] });
  }, 100);
  return () => {
    clearInterval(waiting);
    observer.disconnect();
  };
}

export default { render };
"""


class Names(anywidget.AnyWidget):
    """Nothing to see: a child of an explorer that keeps its sliders and pictures named."""

    _esm = _ESM

    def __init__(self):
        super().__init__()
        self.layout.height = self.layout.width = "0px"
        self.layout.margin = self.layout.padding = "0"
