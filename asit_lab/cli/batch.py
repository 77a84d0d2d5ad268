"""`asit-lab batch`: run studies unattended, watch and collect them."""

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..storage.jsonable import as_json_text, records
from ..storage.words import print_facts, print_rows
from .options import FAILED, INTERRUPTED, SPECS, TERMINATED, JsonOption, group

if TYPE_CHECKING:
    import pandas as pd

batch_app = group("Studies: run one unattended, watch it, collect its results.")

StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Name in notebooks/ablations, or a YAML file.")]
ScaleOption = Annotated[str, typer.Option("--scale", help="smoke, micro, full, or another scale of the study.")]
StudyDataOption = Annotated[str | None, typer.Option("--data", "-d", help=f"Data set (default: the scale's): {SPECS}.")]
SeedCountOption = Annotated[int | None, typer.Option(min=1, help="Number of seeds (default: the scale's).")]
LastDataOption = Annotated[
    str | None, typer.Option("--data", "-d", help="Data set (default: the points of the last run).")
]
LastSeedsOption = Annotated[
    int | None, typer.Option("--seeds", min=1, help="Number of seeds (default: the points of the last run).")
]
WorkersOption = Annotated[int, typer.Option(min=1, help="Points to run at once on this machine.")]
SchedulerOption = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler whose workers run the points, tcp://HOST:8786.")
]
NoNotebookOption = Annotated[
    bool, typer.Option("--no-notebook", help="Run points as plain Python, without a Jupyter kernel.")
]
HoursOption = Annotated[
    float | None, typer.Option(min=0.001, help="Time limit for a point, hours (default: the scale's).")
]
MemoryOption = Annotated[
    float | None, typer.Option(min=0.1, help="Memory limit for a point, GB (default: the scale's).")
]


@batch_app.command("list")
def batch_list(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="List the points of this study.")] = None,
    scale: ScaleOption = "smoke",
    data: StudyDataOption = None,
    seeds: SeedCountOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the studies, or the points of a study."""
    from .. import batch

    if study is None:
        studies = [batch.read_study(name) for name in batch.study_names()]
        rows = [{"study": listed.name, "title": listed.title, "scales": ", ".join(listed.scales)} for listed in studies]
    else:
        rows = batch.listing(study, scale, data, seeds).to_dict("records")
    if as_json:
        print(as_json_text(rows))
    else:
        print_rows(rows, wrap="title" if study is None else "overrides")


@batch_app.command("run")
def batch_run(
    study: StudyArgument,
    scale: ScaleOption = "smoke",
    data: StudyDataOption = None,
    seeds: SeedCountOption = None,
    workers: WorkersOption = 1,
    scheduler: SchedulerOption = None,
    no_notebook: NoNotebookOption = False,
    hours: HoursOption = None,
    memory_gb: MemoryOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure a few steps and estimate the study's time; write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the unfinished points of a study.

    The same command resumes it.
    """
    if dry_run:
        _print_estimate(study, scale, data, seeds, workers, as_json)
    else:
        _run_batch(as_json, study, scale, data, seeds, workers, scheduler, not no_notebook, False, hours, memory_gb)


@batch_app.command("retry")
def batch_retry(
    study: StudyArgument,
    scale: ScaleOption = "smoke",
    data: StudyDataOption = None,
    seeds: SeedCountOption = None,
    workers: WorkersOption = 1,
    scheduler: SchedulerOption = None,
    no_notebook: NoNotebookOption = False,
    hours: HoursOption = None,
    memory_gb: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the unfinished points of a study and repeat the failed ones.

    Files of the failed attempts are kept.
    """
    _run_batch(as_json, study, scale, data, seeds, workers, scheduler, not no_notebook, True, hours, memory_gb)


def _run_batch(as_json: bool, *options: Any) -> None:
    """options: those of `batch.run`, in its order."""
    from .. import batch

    with redirect_stdout(sys.stderr):
        table = batch.run(*options)
    _print_points(table, as_json)
    stopped = table.attrs["stopped"]
    if stopped or set(table["state"]) != {"finished"}:
        raise typer.Exit({"interrupted": INTERRUPTED, "terminated": TERMINATED}.get(stopped, FAILED))


@batch_app.command("status")
def batch_status(
    study: StudyArgument,
    scale: ScaleOption = "smoke",
    data: LastDataOption = None,
    seeds: LastSeedsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the state of each point of a study."""
    from .. import batch

    _print_points(batch.status(study, scale, data, seeds), as_json)


@batch_app.command("collect")
def batch_collect(
    study: StudyArgument,
    scale: ScaleOption = "smoke",
    data: LastDataOption = None,
    seeds: LastSeedsOption = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="Folder (default: reports/STUDY/SCALE).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a study's results as CSV, Parquet and a figure."""
    from .. import batch

    results = batch.collect(study, scale, data, seeds)
    rows = records(results.summary)
    if as_json:
        print(as_json_text(rows))
    else:
        print_rows(rows, wrap="setting")
        print(f"\n{results.words}")
    for path in results.save(out):
        print(path, file=sys.stderr)


@batch_app.command("stop")
def batch_stop(study: StudyArgument, scale: ScaleOption = "smoke", as_json: JsonOption = False) -> None:
    """Stop a study on all machines after its current steps.

    Their state is saved; run resumes it.
    """
    from .. import batch

    stopped = batch.stop(study, scale)
    if as_json:
        print(as_json_text(stopped))
    else:
        print("\n".join(f"stopped: {name}" for name in stopped) or "no runner is at work on it")


def _print_points(table: "pd.DataFrame", as_json: bool) -> None:
    rows = records(table)
    if as_json:
        print(as_json_text(rows))
        return
    printed = []
    for row in rows:
        place = {"folder, process or reason": row["reason"] or row["held_by"] or row["folder"]}
        done = {"done": f"{100 * row['share']:.0f} %", "minutes": round(row["seconds"] / 60, 1)}
        printed.append({name: row[name] for name in ("setting", "seed", "state")} | done | place)
    print_rows(printed, wrap="folder, process or reason")


def _print_estimate(study: str, scale: str, data: str | None, seeds: int | None, workers: int, as_json: bool) -> None:
    from .. import batch
    from ..storage.words import duration

    estimate = batch.forecast(study, scale, data, seeds, workers)
    rows = records(estimate.table)
    if as_json:
        print(as_json_text({"settings": rows, "hours": estimate.hours, "notes": list(estimate.notes)}))
        return
    for row in rows:
        hours = row.pop("hours")
        row["time"] = None if hours is None else duration(3600 * hours)
    print_rows(rows, wrap="setting")
    print()
    print_facts(estimate.facts)
    for note in estimate.notes:
        print(f"note: {note}")
