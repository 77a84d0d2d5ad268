"""`asit-lab pretrain` and `asit-lab runs`."""

import os
import sys
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import InputError
from ..storage.jsonable import as_json_text, records
from ..storage.words import cell, print_facts, print_rows
from .options import FAILED, INTERRUPTED, SPECS, JsonOption, OverridesOption, choice, group


class _ListByDefault(TyperGroup):
    """Puts `list` before arguments that do not begin with a command."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        has_command = args and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if has_command else ["list", *args])


runs_app = group("Runs: list those in a folder, or compare some.", cls=_ListByDefault)


def pretrain(
    out: Annotated[str, typer.Option("--out", "-o", help="Run directory.")],
    preset: Annotated[
        str | None, typer.Option("--preset", "-p", help="Preset, YAML file or run directory (default: micro).")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help=f"Data set (default: the preset's): {SPECS}.")
    ] = None,
    overrides: OverridesOption = None,
    resume: Annotated[
        str,
        choice(
            "auto",
            "never",
            "must",
            help="Resume the run in --out: if there is one (auto), never, or fail if there is none (must).",
        ),
    ] = "auto",
    resume_from: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Train this run longer, in the new directory --out: with its settings, heads and optimiser, and "
            "schedules stretched to the length that -s train.steps=... gives.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure a few steps and estimate time, memory and disk; write nothing.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Random seed (default: the preset's).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Pretrain a model on a data set."""
    import asit_lab

    chosen = {"data.source": data, "train.seed": seed}
    flags = {key: value for key, value in chosen.items() if value is not None}
    if resume_from and preset:
        raise InputError("--resume-from: cannot be combined with --preset")
    cfg = asit_lab.load_config(resume_from or preset or "micro", [*(overrides or []), flags])
    if dry_run:
        _print_plan(cfg, out, resume, resume_from, as_json)
        return
    with redirect_stdout(sys.stderr):  # notes are not part of the result
        run = asit_lab.pretrain(cfg, out=out, resume=resume, resume_from=resume_from)
    last = next(iter(run.metrics.tail(1).to_dict("records")), {})
    if os.environ.get("RANK", "0") != "0":
        pass  # under torchrun the first process speaks for all
    elif as_json:
        print(as_json_text({"dir": str(run.dir), "status": run.status, "last": last}))
    else:
        print_facts(last)
        print(f"{run.status}: {run.dir}")
    if run.status != "finished":
        raise typer.Exit(INTERRUPTED if run.status == "interrupted" else FAILED)


def _print_plan(cfg, out: str, resume: str, resume_from: str | None, as_json: bool) -> None:
    from ..training.estimate import plan

    with redirect_stdout(sys.stderr):
        planned = plan(cfg, out, resume, resume_from=resume_from)
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        print(as_json_text(planned.to_dict()))
        return
    print_facts(planned.facts)
    for note in planned.notes:
        print(f"note: {note}")


@runs_app.command("list")
def runs_list(
    folder: Annotated[str, typer.Argument(help="Folder to search for runs, at any depth.")] = "runs",
    status: Annotated[
        str | None, typer.Option(help="Only runs with this status: running, finished, failed, ...")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", "-w", metavar="KEY=VALUE", help="Only runs with this setting or result; repeatable."),
    ] = None,
    sort: Annotated[str, typer.Option(help="Column, setting or result to sort by; -NAME: descending.")] = ("name"),
    as_json: JsonOption = False,
) -> None:
    """List the runs in a folder (short: asit-lab runs FOLDER)."""
    from ..runs.listing import list_runs

    table = list_runs(folder, status, where or (), sort)
    rows = records(table)
    for name, reason in table.attrs["skipped"]:
        print(f"note: {name} is left out: {reason}", file=sys.stderr)
    if as_json:
        print(as_json_text(rows))
    elif not rows:
        print("no runs")
    else:
        print_rows([_short(row, rows) for row in rows], wrap="data")
        for row in rows:
            if row["health"]:
                print(f"{row['name']}: {row['health']}")


def _short(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of the listing as narrow as can be read: without columns that are empty in all `rows`."""
    short = {}
    for name, value in row.items():
        if name == "step":
            short["step"] = f"{cell(value)}/{cell(row['steps'])}"
        elif name == "updated":
            short[name] = str(value)[:16].replace("T", " ") if value else None
        elif name not in ("steps", "health") and any(row_[name] is not None for row_ in rows):
            number = isinstance(value, float)
            short[name.removeprefix("loss_")] = float(f"{value:.4g}") if number else value
    return short


@runs_app.command("compare")
def runs_compare(
    runs: Annotated[list[str], typer.Argument(help="Run directories, two or more.")],
    figure: Annotated[
        str | None, typer.Option(metavar="PATH", help="Draw the loss curves to this .png, .pdf or .svg.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare settings and results of runs."""
    from ..runs.listing import compare_runs, open_runs

    differences, results = compare_runs(runs)
    if as_json:
        print(as_json_text({"differences": differences.T.to_dict(), "results": results.T.to_dict()}))
    else:
        print_rows([{"setting": key, **row} for key, row in differences.T.to_dict().items()])
        print("" if len(differences) else "the runs agree in every setting\n")
        print_rows([{"result": key, **row} for key, row in results.T.to_dict().items()])
    if figure:
        from .. import figures
        from ..config import resolve

        curves = figures.compared_curves({name: run.metrics for name, run in open_runs(runs).items()})
        print(f"curves: {figures.save(curves, resolve(figure))}", file=sys.stderr)
