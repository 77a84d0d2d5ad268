"""The shell command `asit-lab`: every command is one call into the package.

Results go to stdout, as a table or with --json as JSON; progress and errors go to stderr. Exit status: 0 only on
success, 1 for a run that did not finish, 2 for bad input, 130 when interrupted, 143 when terminated. The package is
imported inside the commands, so that --help is quick.
"""

import json
import os
import sys
from contextlib import redirect_stdout
from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ._version import __version__
from .errors import InputError
from .printing import as_json_text, cell, print_facts, print_rows

app = typer.Typer(
    name="asit-lab",
    help="Pretrain, look into and evaluate self-supervised audio transformers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the help has square brackets that are no markup
)
config_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Presets: list them, show one, compare two.")
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Data sets: what is in one, its mean and std.")
app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")


class _ListByDefault(TyperGroup):
    """Puts `list` before arguments that do not begin with a command."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        given = args and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if given else ["list", *args])


runs_app = typer.Typer(cls=_ListByDefault, rich_markup_mode=None, help="Runs: list a folder's, compare some.")
app.add_typer(runs_app, name="runs")

SPECS = "synth[:CLIPS], folder:PATH, esc50[:PATH], esc10[:PATH], speech_commands[:PATH]"
INTERRUPTED = 130  # as a shell reports a command that Ctrl-C ended
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting; may be repeated.")
]
Preset = Annotated[str, typer.Option("--preset", "-p", help="Preset, YAML file or run directory.")]
Spec = Annotated[str, typer.Option("--data", "-d", help=f"Data set: {SPECS}.")]


class Resume(StrEnum):
    auto = "auto"
    never = "never"
    must = "must"


class Protocol(StrEnum):
    linear = "linear"
    knn = "knn"


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        print(f"asit-lab {__version__}")
        raise typer.Exit


# --- config ---------------------------------------------------------------------------------------------------------


@config_app.command("list")
def config_list(as_json: Json = False) -> None:
    """List the presets."""
    from .config import PRESETS, load_config, preset_names

    rows = []
    for name in preset_names():
        cfg = load_config(name)
        rows.append(
            {
                "preset": name,
                "about": (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0].lstrip("# "),
                "width": cfg.model.width,
                "depth": cfg.model.depth,
                "heads": cfg.model.heads,
                "rate_hz": cfg.features.sample_rate,
                "crop_s": cfg.data.crop_seconds,
                "length": f"{cfg.train.steps} steps" if cfg.train.steps else f"{cfg.train.epochs:g} epochs",
            }
        )
    if as_json:
        print(as_json_text(rows))
    else:
        print_rows(rows, wrap="about")


@config_app.command("show")
def config_show(
    preset: Annotated[str, typer.Argument(help="Preset, YAML file or run directory.")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Print a whole configuration as YAML, with overrides applied."""
    from .config import load_config

    cfg = load_config(preset, overrides)
    print(as_json_text(cfg.to_dict()) if as_json else cfg.to_yaml().rstrip())


@config_app.command("diff")
def config_diff(
    a: Annotated[str, typer.Argument(help="Preset, YAML file or run directory.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    as_json: Json = False,
) -> None:
    """List what two configurations disagree on, such as the paper's and the released code's."""
    from .config import diff, load_config

    rows = diff(load_config(a), load_config(b))
    if as_json or not rows:
        print(as_json_text(rows) if as_json else f"{a} and {b} agree in every setting")
        return
    left, right = (a, b) if len({a, b, "about", "key"}) == 4 else ("A", "B")
    table = [{"about": row["about"], "key": row["key"], left: row["a"], right: row["b"]} for row in rows]
    print_rows(table, wrap="about")


# --- data -----------------------------------------------------------------------------------------------------------


@data_app.command("info")
def data_info(spec: Annotated[str, typer.Argument(help=f"Data set: {SPECS}.")], as_json: Json = False) -> None:
    """Say what a data set holds: clips, hours, rates, classes, folds, files that cannot be used."""
    from .data import load_manifest

    manifest = load_manifest(spec)
    facts = _facts(manifest)
    classes = [{"class": label, **of_class} for label, of_class in facts.pop("classes").items()]
    bad = manifest.bad.to_dict("records")
    if as_json:
        print(as_json_text({**facts, "classes": classes, "bad": bad, "notes": manifest.notes}))
        return
    print_facts(facts | {"classes": len(classes), "bad files": len(bad)})
    print_rows(classes, before="\n")
    print_rows(bad, before="\n")
    for note in manifest.notes:
        print(f"\nnote: {note}")


def _facts(manifest) -> dict[str, Any]:
    """Counts and ranges of a manifest; classes: {label: {clips, hours}}."""
    table = manifest.table
    by_class = table[table["label"] != ""].groupby("label")["seconds"].agg(["size", "sum"])
    counted = {
        name: {str(key): int(count) for key, count in table[name].dropna().value_counts().sort_index().items()}
        for name in ("sample_rate", "channels", "fold", "split")
    }
    return {
        "source": manifest.source,
        "clips": len(table),
        "files": int(table["path"].nunique()),
        "recordings": int(table["group"].nunique()),
        "hours": round(float(table["seconds"].sum()) / 3600, 4),
        "shortest_s": float(table["seconds"].min()),
        "median_s": float(table["seconds"].median()),
        "longest_s": float(table["seconds"].max()),
        **counted,
        "classes": {
            label: {"clips": int(size), "hours": round(seconds / 3600, 4)}
            for label, size, seconds in by_class.itertuples()
        },
    }


@data_app.command("stats")
def data_stats(
    spec: Annotated[str, typer.Argument(help=f"Data set: {SPECS}.")],
    preset: Preset,
    overrides: Overrides = None,
    clips: Annotated[int | None, typer.Option(min=1, help="Measure this many clips, evenly spread.")] = None,
    as_json: Json = False,
) -> None:
    """Measure mean and standard deviation of a data set's log-mel, to put into a configuration."""
    from .config import load_config
    from .data import load_manifest
    from .features import measure

    cfg = load_config(preset, overrides)
    manifest = load_manifest(spec, segment_seconds=cfg.data.segment_seconds)
    mean, std, band_mean, band_std = measure(manifest, cfg.features, clips=clips)
    measured = {"mean": mean, "std": std}
    flags = [f"features.{name}={value:.6f}" for name, value in measured.items()]
    if as_json:
        print(as_json_text({**measured, "overrides": flags, "band_mean": band_mean, "band_std": band_std}))
        return
    print_facts({"source": manifest.source, "clips": min(clips or len(manifest), len(manifest)), **measured})
    print("\nTo use them:")
    print("\n".join(f"  -s {flag}" for flag in flags))


# --- Runs -----------------------------------------------------------------------------------------------------------


@app.command()
def pretrain(
    out: Annotated[str, typer.Option("--out", "-o", help="Run directory.")],
    preset: Preset = "micro",
    data: Annotated[str | None, typer.Option("--data", "-d", help=f"Data set (else the preset's): {SPECS}.")] = None,
    overrides: Overrides = None,
    resume: Annotated[Resume, typer.Option(help="Go on from a state in --out: if there is one, never, or must.")] = (
        Resume.auto
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure a few steps, say what the run would take, write nothing.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random (else the preset's).")] = None,
    as_json: Json = False,
) -> None:
    """Pretrain a model on a data set."""
    import asit_lab

    chosen = {"data.source": data, "train.seed": seed}
    flags = [f"{key}={json.dumps(value)}" for key, value in chosen.items() if value is not None]
    cfg = asit_lab.load_config(preset, [*(overrides or []), *flags])
    if dry_run:
        _print_plan(cfg, out, resume.value, as_json)
        return
    with redirect_stdout(sys.stderr):  # notes on the way are no result
        run = asit_lab.pretrain(cfg, out=out, resume=resume.value)
    last = next(iter(run.metrics.tail(1).to_dict("records")), {})
    if os.environ.get("RANK", "0") != "0":
        pass  # under torchrun the first process speaks for all
    elif as_json:
        print(as_json_text({"dir": str(run.dir), "status": run.status, "last": last}))
    else:
        print_facts(last)
        print(f"{run.status}: {run.dir}")
    if run.status != "finished":
        raise typer.Exit(INTERRUPTED if run.status == "interrupted" else 1)


def _print_plan(cfg, out: str, resume: str, as_json: bool) -> None:
    from .training.plan import plan

    with redirect_stdout(sys.stderr):
        planned = plan(cfg, out, resume)
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
    folder: Annotated[str, typer.Argument(help="Folder that holds the runs, at any depth.")] = "runs",
    status: Annotated[str | None, typer.Option(help="Only runs that are running, finished, failed, ...")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", "-w", metavar="KEY=VALUE", help="Only runs with this setting or result; repeatable."),
    ] = None,
    sort: Annotated[str, typer.Option(help="Column, setting or result; with a - before it the highest first.")] = (
        "name"
    ),
    as_json: Json = False,
) -> None:
    """List the runs of a folder (`asit-lab runs FOLDER` for short)."""
    from .training.runs import list_runs

    table = list_runs(folder, status, where or (), sort)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
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
    shown = {}
    for name, value in row.items():
        if name == "step":
            shown["step"] = f"{cell(value)}/{cell(row['steps'])}"
        elif name == "updated":
            shown[name] = str(value)[:16].replace("T", " ") if value else None
        elif name not in ("steps", "health") and any(other[name] is not None for other in rows):
            number = isinstance(value, float)
            shown[name.removeprefix("loss_")] = float(f"{value:.4g}") if number else value
    return shown


@runs_app.command("compare")
def runs_compare(
    runs: Annotated[list[str], typer.Argument(help="Run directories, two or more.")],
    figure: Annotated[
        str | None, typer.Option(metavar="PATH", help="Draw the losses of all into this .png, .pdf or .svg.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what the settings of runs differ in, and their results side by side."""
    from .training.runs import compare_runs, open_runs

    differences, results = compare_runs(runs)
    if as_json:
        print(as_json_text({"differences": differences.T.to_dict(), "results": results.T.to_dict()}))
    else:
        print_rows([{"setting": key, **row} for key, row in differences.T.to_dict().items()])
        print("" if len(differences) else "the runs agree in every setting\n")
        print_rows([{"result": key, **row} for key, row in results.T.to_dict().items()])
    if figure:
        from . import figures
        from .config import resolve

        curves = figures.compared_curves({name: run.metrics for name, run in open_runs(runs).items()})
        print(f"curves: {figures.save(curves, resolve(figure))}", file=sys.stderr)


@app.command()
def probe(
    model: Annotated[str, typer.Argument(metavar="RUN_OR_FILE", help="Run directory, snapshot or checkpoint.")],
    data: Spec,
    protocol: Annotated[Protocol, typer.Option(help="Linear classifier or nearest neighbours.")] = Protocol.linear,
    as_json: Json = False,
) -> None:
    """Classify a labelled data set from a frozen model's embeddings."""
    import asit_lab

    with redirect_stdout(sys.stderr):
        result = asit_lab.probe(asit_lab.load_encoder(model), data, protocol=protocol.value)
    if as_json:
        print(as_json_text(result.to_dict()))
    else:
        print_rows(result.table.to_dict("records"))


@app.command()
def lab(
    port: Annotated[int, typer.Option(help="Port on this machine (the next free one if taken).")] = 8888,
    arguments: Annotated[list[str] | None, typer.Argument(help="Passed on to JupyterLab, after --.")] = None,
) -> None:
    """Start JupyterLab in notebooks/; runs and reports are one folder up."""
    from .config import home

    if not (home() / "notebooks").is_dir():
        raise InputError(f"{home()}: no folder notebooks/ in it; go to the project's folder or set ASIT_LAB_HOME to it")
    command = [sys.executable, "-m", "jupyterlab", f"--port={port}", f"--ServerApp.root_dir={home()}"]
    command += ["--LabApp.default_url=/lab/tree/notebooks", *(arguments or [])]
    os.execv(sys.executable, command)  # in our place: Ctrl-C is JupyterLab's own matter


def main() -> None:
    """Entry point: bad input is one message and exit status 2, not a traceback."""
    try:
        app(prog_name="asit-lab")
    except InputError as error:
        print(f"asit-lab: {error}", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:  # a loss that is no longer finite: the message says where
        print(f"asit-lab: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
