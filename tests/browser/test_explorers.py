"""Every explorer in JupyterLab: each of its controls is moved and changes what is seen or heard; sounds play."""

import re

import nbformat
import pytest
from explorer_case import Explorer
from lab_case import PROJECT

pytestmark = pytest.mark.browser

THEMES = {"dark": "JupyterLab Dark", "light": "JupyterLab Light"}
SIZES = {"1024": (1024, 768), "1440": (1440, 900), "1920": (1920, 1080)}
CONTRAST = 3.0  # the least of texts
# What a notebook of explorers holds, and which of its controls change something else than the picture.
EXPLORERS = {
    "explore_masks": "asit-mask",
    "explore_reconstructions": "asit-reconstruction",
    "explore_attention": "asit-attention",
    "explore_embeddings": "asit-embedding",
    "explore_predictions": "asit-classifier",
    "monitor_runs": "asit-monitor",
    "inspect_data": "asit-data",
}
TYPED = {"data set": "synth:12", "label": "wren", "search": "bell", "filter": "second", "filter rows": "bell"}
OTHER_EFFECTS = {
    "data set | file | upload": "controls",
    "Hear the log-mels": "sound",
    "clips that drive this head": "controls",
    "best and worst clips": "words",
    "shares over 50 seeds": "words",
    "copy as overrides": "controls",  # its own words
    "filter": "controls",
    "group seeds": None,  # no two runs differ in their seed alone
    "filter rows": None,  # test_rows.py
    "marked only": None,
    "save the rows kept": None,  # of files alone
    "mouse": None,  # test_drawing.py draws
    "brush": None,
    "label": None,  # until it is saved
    "save label": "words",
    "remove label": "words",
    "Watch": None,  # test_monitor.py presses it while there is something to watch
    # test_spectrogram.py tries what is in the view itself
    **dict.fromkeys(
        ("▶ Play", "❚❚ Pause", "Loop", "Masked only", "sound", "Show all", "Fit", "PNG", "PDF", "CSV", "WAV")
    ),
}


def test_every_notebook_with_an_explorer_is_here():
    widgets = re.compile(r"\b(\w+Explorer|RunMonitor)\(")
    with_one = {
        path.stem
        for path in (PROJECT / "notebooks").glob("*.ipynb")
        if any(widgets.search(cell.source) for cell in nbformat.read(path, as_version=4).cells)
    }
    assert with_one - {"start"} == set(EXPLORERS)


def keep_screenshots(explorer: Explorer, name: str, folder) -> dict[str, list[str]]:
    """The page as on a laptop and on a desk, and the whole explorer, however tall, in both themes. What is cut off, by
    width and theme; what is hard to read or a white slab, by theme."""
    page, cut = explorer.page, {}
    for theme in ("dark", "light"):
        page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", THEMES[theme])
        page.wait_for_function(
            "theme => document.body.dataset.jpThemeLight === theme", arg=str(theme == "light").lower()
        )
        for width, size in SIZES.items():
            for suffix, height in (("", size[1]), ("-whole", 2400)):
                page.set_viewport_size({"width": size[0], "height": height})
                explorer.root.evaluate("root => root.scrollIntoView({block: 'start'})")
                explorer.settle()
                page.screenshot(path=folder / f"{name}-{width}-{theme}{suffix}.png")
            cut[f"{width} {theme}"] = explorer.ask("clipped")
        cut[theme] = explorer.ask("faint", CONTRAST) + (explorer.ask("slabs") if theme == "dark" else [])
    return cut


@pytest.mark.parametrize("name", EXPLORERS)
def test_explorer(name, opened, screenshots, recordings):
    notebook = opened(name)
    notebook.run_all()
    explorer = Explorer(
        notebook,
        EXPLORERS[name],
        {"data set": "synth:12", "label": "wren", "search": "bell", "filter": "second", "filter rows": "bell"}
        | recordings,
    )
    cut = keep_screenshots(explorer, name, screenshots)
    assert explorer.ask("unknown") == []
    moved = explorer.move_all()
    print(f"\n{name}:", *moved, sep="\n  ")
    for control in moved:
        assert control.name, f"a {control.kind} has no name: a screen reader reads nothing"
        effect = OTHER_EFFECTS.get(control.name, "picture")
        assert effect is None or effect in control.changed, control
    for sound, seconds in explorer.play().items():
        print(f"  sound {sound!r}: {seconds:.2f} s")
    assert not any(cut.values()), f"cut off, or hard to see: {cut}"
