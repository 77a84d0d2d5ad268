"""`asit-lab report`: studies as a page, and as figures and tables for a paper."""

import sys
from typing import Annotated

import typer

from ..storage.jsonable import as_json_text, records
from ..storage.words import print_rows
from .batch import Scale, Seeds, StudyData
from .options import FAILED, Json

Studies = Annotated[list[str], typer.Argument(metavar="STUDY...", help="Names in notebooks/ablations, or YAML files.")]


def report(
    studies: Studies,
    scale: Scale = "smoke",
    data: StudyData = None,
    seeds: Seeds = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="Folder (default: reports/report/SCALE).")] = None,
    as_json: Json = False,
) -> None:
    """Write figures, tables and a page of studies' results.

    The published numbers stand beside them.
    """
    from ..report import report as make

    made = make(studies, scale, data, seeds, out)
    tables = {name: records(table) for name, table in made.tables.items()}
    if as_json:
        files = [str(path) for path in made.files]
        print(as_json_text({"html": made.html, "files": files, "studies": tables, "missing": made.missing}))
    else:
        for name, rows in tables.items():
            print_rows(rows, wrap="setting", before=f"{name}\n")
            print()
        print(made.html)
    for why in made.missing.values():
        print(f"asit-lab: left out: {why}", file=sys.stderr)
    if made.missing:
        raise typer.Exit(FAILED)
