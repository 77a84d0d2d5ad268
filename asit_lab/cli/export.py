"""`asit-lab export`: a notebook as a page for a browser."""

from typing import Annotated

import typer


def export(
    notebook: Annotated[str, typer.Argument(metavar="NOTEBOOK", help="Executed notebook, .ipynb.")],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="File to write (default: beside the notebook, .html)."),
    ] = None,
) -> None:
    """Write an executed notebook as one HTML file.

    The file needs no network and no kernel.
    """
    from ..report.export import export_html

    print(export_html(notebook, out))
