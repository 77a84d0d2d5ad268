"""`asit-lab report`: the results of studies as a page, and as figures and tables for a paper."""

import sys
from typing import Annotated

import typer

from ..storage.jsonable import as_json_text, records
from ..storage.words import print_rows
from .batch import LastDataOption, LastSeedsOption, ScaleOption
from .options import FAILED, JsonOption

StudiesArgument = Annotated[
    list[str], typer.Argument(metavar="STUDY...", help="Names in notebooks/ablations, or YAML files.")
]


def report(
    studies: StudiesArgument,
    scale: ScaleOption = "smoke",
    data: LastDataOption = None,
    seeds: LastSeedsOption = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="Folder (default: reports/report/SCALE).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write figures, tables and a page with the results of studies, beside the published numbers."""
    from ..report import report as make

    written = make(studies, scale, data, seeds, out)
    tables = {name: records(table) for name, table in written.tables.items()}
    if as_json:
        files = [str(path) for path in written.files]
        print(as_json_text({"html": written.html, "files": files, "studies": tables, "missing": written.missing}))
    else:
        for name, rows in tables.items():
            print_rows(rows, wrap="setting", before=f"{name}\n")
            print()
        print(written.html)
    for why in written.missing.values():
        print(f"asit-lab: left out: {why}", file=sys.stderr)
    if written.missing:
        raise typer.Exit(FAILED)
