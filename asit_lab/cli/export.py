"""`asit-lab export`: a notebook as a page for a browser."""

from typing import Annotated

import typer


def export(
    notebook: Annotated[str, typer.Argument(metavar="NOTEBOOK", help="Executed notebook, .ipynb.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="File to write (beside the notebook, .html).")
    ] = None,
) -> None:
    """Write an executed notebook as one HTML file that shows its pictures without a network."""
    from ..report.export import export_html

    print(export_html(notebook, out))
