"""Executed notebooks as HTML: pictures inside, nothing that a browser would fetch."""

import base64
import io
import sys
from html.parser import HTMLParser

import nbformat
import numpy as np
import pytest
from matplotlib.image import imread, imsave
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from asit_lab import InputError, cli
from asit_lab.cli.export import export
from asit_lab.report.export import export_html
from asit_lab.widgets.base import Explorer

FETCHED = {"src", "srcset", "data", "poster", "xlink:href"}  # attributes whose address a browser fetches by itself


class Page(HTMLParser):
    """What a page fetches when it is opened, its pictures, its scripts, and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.fetched, self.images, self.scripts, self.text, self.within = [], [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.within.append(tag)
        for name, value in attrs:
            if (name in FETCHED or (tag == "link" and name == "href")) and not (value or "").startswith("data:"):
                self.fetched.append(f"{tag} {name}={value}")
            if tag == "img" and name == "src":
                self.images.append(value)
        if tag == "script":
            self.scripts.append(dict(attrs).get("type", ""))

    def handle_data(self, data):
        self.text.append(data)


def png(colour: int) -> bytes:
    buffer = io.BytesIO()
    imsave(buffer, np.full((20, 30, 3), colour, dtype=np.uint8), format="png")
    return buffer.getvalue()


class Grey(Explorer):
    def png(self) -> bytes:
        return png(70)


@pytest.fixture
def notebook(tmp_path):
    """As papermill leaves one: an explorer's bundle and the state of its widgets, a table, prints, a local picture."""
    bundle = Grey()._repr_mimebundle_()
    model = bundle["application/vnd.jupyter.widget-view+json"]["model_id"]
    bare = {"application/vnd.jupyter.widget-view+json": {"model_id": model}, "text/plain": "a bar: 40%"}
    table = {"text/html": "<table><tr><td>84.5</td></tr></table>", "text/plain": "84.5"}
    script = {"application/javascript": "fetch('https://example.org')", "text/plain": "instead of a script"}
    outputs = [new_output("display_data", data) for data in (bundle, bare, table, script)]
    outputs.append(new_output("stream", text="nine clips\n"))
    (tmp_path / "local.png").write_bytes(png(200))
    cells = [new_markdown_cell("# A title\n\n![local](local.png)"), new_code_cell("explorer", outputs=outputs)]
    state = {model: {"model_name": "VBoxModel", "model_module": "@jupyter-widgets/controls", "state": {}}}
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": state, "version_major": 2, "version_minor": 0}}
    content = new_notebook(cells=cells, metadata={"widgets": widgets})
    nbformat.write(content, tmp_path / "out.ipynb")
    return tmp_path / "out.ipynb"


def grey_of(source: str) -> float:
    return round(255 * float(imread(io.BytesIO(base64.b64decode(source.partition(",")[2])))[0, 0, 0]))


def test_pictures_are_inside_and_nothing_is_fetched(notebook):
    before = notebook.read_bytes()
    made = export_html(notebook)
    assert made == notebook.with_suffix(".html") and notebook.read_bytes() == before
    html = made.read_text(encoding="utf-8")
    page = Page(html)
    assert page.fetched == [] and page.scripts == []
    assert "@import" not in html and "import(" not in html and "unpkg" not in html and "cdnjs" not in html
    assert [grey_of(source) for source in page.images] == [200, 70]
    said = " ".join(page.text)
    for words in ("A title", "84.5", "a bar: 40%", "instead of a script", "nine clips"):
        assert words in said
    assert "example.org" not in html


def test_the_page_of_nbconvert_itself_would_fetch(notebook):
    """What the test above looks for is there to be found."""
    from nbconvert import HTMLExporter

    html, _ = HTMLExporter().from_filename(str(notebook))
    page = Page(html)
    assert any("require" in one for one in page.fetched) and page.scripts
    assert 70 not in [grey_of(source) for source in page.images if source.startswith("data:image/png")]


def test_where_it_is_written(notebook, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    export("out.ipynb", "pages/page.html")
    assert capsys.readouterr().out.strip() == str(tmp_path / "pages/page.html")
    assert (tmp_path / "pages/page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("text", "words"), [(None, "no such notebook"), ("{]", "not a notebook"), ("[]", "not a notebook")]
)
def test_what_is_no_notebook_is_named(tmp_path, text, words):
    path = tmp_path / "x.ipynb"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=f"x.ipynb: {words}"):
        export_html(path)
    assert not path.with_suffix(".html").exists()


def test_the_notebook_is_not_written_over(notebook):
    before = notebook.read_bytes()
    with pytest.raises(InputError, match="is the notebook itself"):
        export_html(notebook, notebook)
    assert notebook.read_bytes() == before
    page = notebook.rename(notebook.with_suffix(".html"))
    with pytest.raises(InputError, match="is the notebook itself"):
        export_html(page)
    assert page.read_bytes() == before


def test_the_command(notebook, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["asit-lab", "export", str(notebook), "--out", str(notebook.with_name("a.html"))])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code and capsys.readouterr().out.strip() == str(notebook.with_name("a.html"))
    assert Page(notebook.with_name("a.html").read_text(encoding="utf-8")).fetched == []
