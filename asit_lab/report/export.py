"""Exports an executed notebook as one HTML file that needs no network: images inside, no scripts, no live widgets.

nbconvert's own page fetches require.js, MathJax, Mermaid and the widgets' manager from the internet, and shows the view
of a widget, which needs them, where an output also holds a picture. Here the picture is what is shown.
"""

from pathlib import Path

from ..config import resolve
from ..errors import InputError
from ..storage.atomic import write_text

# nbconvert's order of preference without the two kinds of output that need a script, and a picture before a text.
MIME_TYPES = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex", "text/plain")
# Its page with the blocks emptied that fetch scripts: `exclude_*` options leave out cells, not these.
TEMPLATE = "{% extends 'lab/index.html.j2' %}" + "".join(
    f"{{% block {name} %}}{{% endblock %}}"
    for name in ("html_head_js", "html_head_js_mathjax", "html_head_js_mermaidjs")
)


def export_html(notebook: str | Path, out: str | Path | None = None) -> Path:
    """Write an executed notebook as HTML and return the file's path. The notebook itself is not run, nor changed.

    out: the file to write; default: beside the notebook, .html instead of .ipynb. It is written atomically.
    Formulas stay as they are written, as nothing typesets them. Local images in Markdown are embedded.
    Raises InputError when there is no such notebook, or the file is not one.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    path = resolve(notebook)
    if not path.is_file():
        raise InputError(f"{path}: no such notebook")
    target = path.with_suffix(".html") if out is None else resolve(out)
    if target.resolve() == path.resolve():
        raise InputError(f"{target}: is the notebook itself; give another name for the page")
    try:
        content = nbformat.read(path, as_version=4)
    except (ValueError, AttributeError, nbformat.ValidationError) as error:  # no text, no JSON, no object, no notebook
        raise InputError(f"{path}: not a notebook: {str(error).splitlines()[0]}") from None
    content.metadata.pop("widgets", None)  # the state of live widgets, for which a page has their scripts fetched
    config = Config({"NbConvertBase": {"display_data_priority": list(MIME_TYPES)}})
    exporter = HTMLExporter(config=config, raw_template=TEMPLATE, embed_images=True)
    resources = {"metadata": {"name": path.stem, "path": str(path.parent)}}
    html, _ = exporter.from_notebook_node(content, resources)
    write_text(target, html)
    return target
