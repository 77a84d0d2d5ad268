"""`asit-lab probe`, `finetune`, `evaluate`, `starts` and `embed`: what an encoder is worth, and its vectors."""

import os
import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from ..errors import InputError
from ..storage.jsonable import as_json_text
from ..storage.words import print_rows
from .options import INTERRUPTED, Json, Overrides, Preset, Seed, Spec, choice

Source = Annotated[
    str,
    typer.Argument(
        metavar="ENCODER",
        help="Run, snapshot, saved folder, hf://OWNER/NAME, shipped, preset (untrained), "
        "asit:FILE, asda:FILE or imagenet:FILE.",
    ),
]
Protocol = Annotated[
    str,
    choice("linear", "knn", "weighted", help="Linear classifier, nearest neighbours, or linear on a sum of layers."),
]
Pool = Annotated[str, choice("mean", "class", "mean+std", help="What of a clip's tokens becomes its vector.")]
Recipe = Annotated[str, typer.Option("--recipe", "-r", help="Recipe of fine-tuning, or a YAML file.")]
Seeds = Annotated[list[int] | None, typer.Option("--seed", help="Seed; may be repeated (default 0).")]


def probe(
    encoder: Source,
    data: Spec,
    protocol: Protocol = "linear",
    pool: Annotated[
        str, typer.Option(help="class, mean or mean+std; auto: chosen inside the training clips.")
    ] = "auto",
    layer: Annotated[str, typer.Option(help="last, or a block's number; auto: chosen likewise.")] = "auto",
    as_json: Json = False,
) -> None:
    """Classify a labelled data set from a frozen model's embeddings."""
    import asit_lab

    with redirect_stdout(sys.stderr):
        result = asit_lab.probe(asit_lab.zoo.open_source(encoder), data, protocol, pool, _layer(layer))
    if as_json:
        print(as_json_text(result.to_dict()))
    else:
        print_rows(result.table.to_dict("records"))


def finetune(
    encoder: Source,
    data: Spec,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the fine-tuning.")],
    recipe: Recipe = "ast-esc50",
    overrides: Overrides = None,
    seed: Seeds = None,
    fold: Annotated[list[str] | None, typer.Option(help="Only this fold or split; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Train a model with a classifier on every split of a labelled data set; goes on where it was stopped."""
    import asit_lab

    with redirect_stdout(sys.stderr):
        opened = asit_lab.zoo.open_source(encoder)
        result = asit_lab.finetune(opened, data, recipe, out, overrides, seed or (0,), fold)
    if as_json:
        print(as_json_text(result.to_dict()))
    else:
        print_rows(result.folds.to_dict("records"))
        print_rows(result.table.to_dict("records"), before="\n")
        print(f"\n{result.status}: {result.dir}")
    _leave(result.status)


def evaluate(
    encoders: Annotated[list[str], typer.Argument(metavar="[NAME=]ENCODER...", help="As for probe, perhaps named.")],
    data: Spec,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the tables.")] = "runs/evaluation",
    protocol: Annotated[
        list[str] | None,
        typer.Option(help="linear, knn, weighted or finetune; may be repeated (default: linear and knn)."),
    ] = None,
    recipe: Recipe = "micro",
    overrides: Overrides = None,
    seed: Seeds = None,
    as_json: Json = False,
) -> None:
    """Compare models, each beside its architecture untrained, and log-mel statistics on a labelled data set."""
    import asit_lab

    named = dict(_named(one) for one in encoders)
    if len(named) < len(encoders):
        raise InputError(f"encoders: two of {', '.join(encoders)} have one name; give them as NAME=ENCODER")
    with redirect_stdout(sys.stderr):
        protocols = tuple(protocol or ("linear", "knn"))
        found = asit_lab.evaluation.evaluate(named, data, protocols, out, recipe, overrides, seed or (0,))
    _print(found, as_json)


def starts(
    data: Spec,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the runs and tables.")],
    preset: Preset = "micro",
    pretrain_on: Annotated[str | None, typer.Option(help="Data set to pretrain on (default: --data).")] = None,
    published: Annotated[str | None, typer.Option(help="Published weights: asit:FILE or asda:FILE.")] = None,
    imagenet: Annotated[str | None, typer.Option(help="ImageNet's weights, .safetensors in timm's layout.")] = None,
    recipe: Recipe = "micro",
    overrides: Overrides = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fine-tune from scratch and from pretrained, published and ImageNet's weights, as ASiT's Table III."""
    import json

    import asit_lab

    flags = [f"data.source={json.dumps(pretrain_on or data)}", f"train.seed={seed}"]
    cfg = asit_lab.load_config(preset, [*(overrides or []), *flags])
    with redirect_stdout(sys.stderr):
        study = asit_lab.evaluation.initialisation_study
        found = study(cfg, data, out, published, imagenet, recipe, seed=seed)
    _print(found, as_json)


def embed(
    files: Annotated[list[str], typer.Argument(help="Audio files, folders or patterns such as 'clips/**/*.wav'.")],
    encoder: Annotated[str, typer.Option("--encoder", "-e", help="As for probe.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Table to write: .parquet or .csv.")],
    pool: Pool = "mean",
    layer: Annotated[
        int | None, typer.Option(help="Block to read, negative ones from the last (default: the final output).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one vector for each file: columns path, seconds, d0, d1, ..."""
    import asit_lab

    # A shell expands patterns from its working directory, also where $ASIT_LAB_HOME is set.
    here = [os.path.abspath(name) if os.path.exists(name) else name for name in files]
    with redirect_stdout(sys.stderr):
        found = asit_lab.evaluation.embed_files(asit_lab.zoo.open_source(encoder), here, out, pool, layer)
    skipped = [{"skipped": path, "reason": reason} for path, reason in found.skipped]
    if as_json:
        print(as_json_text({"out": str(found.out), "files": len(found.table), "skipped": skipped}))
        return
    print_rows(skipped)
    print(f"{len(found.table)} files, {found.table.shape[1] - 2} numbers each: {found.out}")


def _layer(text: str) -> str | int:
    return int(text) if text.lstrip("-").isdecimal() else text


def _named(text: str) -> tuple[str, str]:
    """Name and source: what stands before "=", else the source's last part."""
    name, equals, source = text.partition("=")
    return (name, source) if equals and name and os.sep not in name else (os.path.basename(text.rstrip("/")), text)


def _print(found, as_json: bool) -> None:
    rows = found.table.to_dict("records")
    if as_json:
        print(as_json_text({"dir": str(found.dir), "status": found.status, "table": rows}))
    else:
        print_rows(rows)
        print(f"\n{found.status}: {found.dir}")
    _leave(found.status)


def _leave(status: str) -> None:
    if status != "finished":
        raise typer.Exit(INTERRUPTED)
