"""Small promises of the explorers, each once broken, kept in JupyterLab: what is said, drawn and taken."""

import re

import numpy as np
import pytest
import soundfile
from explorer_case import Explorer
from lab_case import of_cells

pytestmark = pytest.mark.browser

NO_NETWORK = "import os\nos.environ['HTTPS_PROXY'] = os.environ['https_proxy'] = 'http://127.0.0.1:9'"
MASKS = "from asit_lab.widgets import MaskExplorer\nMaskExplorer('folder:{}', preset='micro')"
HEADS = "from asit_lab.widgets import AttentionExplorer\nAttentionExplorer('shipped')"
CLASSES = "from asit_lab.widgets import EmbeddingExplorer\nEmbeddingExplorer('shipped', 'folder:{}')"


def enter(explorer: Explorer, kind: str, name: str, value: str) -> None:
    entry = explorer.locate(explorer.control(name, kind))
    entry.fill(value)
    entry.press("Enter")
    explorer.settle()


def test_silence_seeds_ratios_and_connections_are_said_in_words(opened, home, tmp_path):
    for name, level in {"a.wav": 0.0, "b.wav": 0.3, "c.wav": 0.2}.items():
        soundfile.write(tmp_path / name, level * np.random.default_rng(0).uniform(-1, 1, 48000), 16000)
    notebook = opened(of_cells(home, "masks", NO_NETWORK, MASKS.format(tmp_path)))
    notebook.run_all()
    explorer = Explorer(notebook, "asit-mask")
    clip = explorer.locate(explorer.control("clip", "choice"))
    chosen = "list => list.selectedOptions[0].text"
    assert clip.evaluate(chosen).startswith("1")  # the first is silent
    clip.select_option(index=0)  # the user may look at it
    explorer.settle()
    assert clip.evaluate(chosen).startswith("0") and explorer.root.get_by_role("alert").count() == 0

    before = explorer.ask("state")
    enter(explorer, "number", "seed", "1.5")
    explorer.root.get_by_text("seed: 1.5 is not a whole number").wait_for()
    assert explorer.ask("state")["picture"] == before["picture"]
    enter(explorer, "number", "seed", "15")
    assert explorer.root.get_by_role("alert").count() == 0
    explorer.locate(explorer.control("ratio (%)")).press("End")
    explorer.settle()
    words = explorer.root.inner_text() + " ".join(text["words"] for text in explorer.ask("texts"))
    assert "100" in words and "e+0" not in words and "\\n" not in words

    enter(explorer, "text", "data set", "esc10")  # would be downloaded
    alert = explorer.root.get_by_role("alert").inner_text()
    assert "the download failed (the proxy " in alert and "NAME:PATH" in alert
    for raw in ("Pool", "Traceback", "urlopen", "Errno", "0x"):
        assert raw not in alert


def test_heads_are_counted_alike_everywhere(opened, home):
    notebook = opened(of_cells(home, "heads", HEADS))
    notebook.run_all()
    explorer = Explorer(notebook, "asit-attention")
    head, layer = explorer.locate(explorer.control("head", "choice")), explorer.locate(explorer.control("layer"))
    offered = head.evaluate("list => [...list.options].map(({ text }) => text.replaceAll('\\xa0', ' '))")
    drawn = explorer.ask("texts")
    small = {text["words"]: text for text in drawn if re.fullmatch(r"L\d+ H\d+", text["words"])}
    heads = {name.split("H")[1] for name in small}
    assert heads == {name.removeprefix("head ") for name in offered if name.startswith("head ")}
    for text in drawn:
        assert text["end"] <= text["width"] + 1, f"cut: {text['words']}"
    # A click on a small picture chooses what its title says.
    title = small["L2 H1"]
    multiples = explorer.root.locator("canvas.asit-plot").last
    multiples.scroll_into_view_if_needed()
    multiples.click(position={"x": title["start"] + 10, "y": title["y"] + 20})
    explorer.settle()
    assert head.evaluate("list => list.selectedIndex") == offered.index("head 1")
    assert layer.get_attribute("aria-valuenow") == "2.0"


def test_ten_classes_have_ten_colours_and_the_legend_chooses_no_clip(opened, home, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(10):
        for take in range(2):
            (tmp_path / f"class {number}").mkdir(exist_ok=True)
            path = tmp_path / f"class {number}/{take}.wav"
            soundfile.write(path, 0.1 * rng.normal(size=16000) * np.linspace(0, 1, 16000) ** number, 16000)
    notebook = opened(of_cells(home, "classes", CLASSES.format(tmp_path)))
    notebook.run_all()
    explorer = Explorer(notebook, "asit-embedding")
    middle = "canvas => [...canvas.getContext('2d').getImageData(14, 14, 1, 1).data].join()"
    swatches = explorer.root.locator(".asit-legend canvas")
    colours = {swatches.nth(i).evaluate(middle) for i in range(swatches.count())}
    assert swatches.count() == len(colours) == 10
    facts = explorer.ask("state")["words"]
    explorer.root.locator(".asit-legend button").nth(3).click()
    explorer.settle()
    assert explorer.ask("state")["words"] == facts
    assert "18 of 20 clips shown" in explorer.root.inner_text()
    # By the error of each clip's reconstruction: a scale in place of classes.
    before = explorer.ask("state")["picture"]
    explorer.locate(explorer.control("colour by", "choice")).select_option("reconstruction")
    explorer.settle()
    assert explorer.ask("state")["picture"] != before
    assert "of the line's" in explorer.root.locator(".asit-legend").inner_text()
