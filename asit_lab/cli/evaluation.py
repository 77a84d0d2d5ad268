"""`asit-lab probe`, `finetune`, `evaluate`, `starts`, `predict` and `embed`: scores, predictions and embeddings."""

import os
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..storage.jsonable import as_json_text
from ..storage.words import counted, print_rows
from .options import INTERRUPTED, DataOption, JsonOption, OverridesOption, PresetOption, SeedOption, choice

if TYPE_CHECKING:
    import pandas as pd

EncoderArgument = Annotated[
    str,
    typer.Argument(
        metavar="ENCODER",
        help="Run, snapshot, saved folder, hf://OWNER/NAME, shipped, preset (untrained), "
        "asit:FILE, asda:FILE or imagenet:FILE.",
    ),
]
ProtocolOption = Annotated[
    str,
    choice("linear", "knn", "weighted", help="Linear classifier, nearest neighbours, or linear on a sum of layers."),
]
PoolOption = Annotated[str, choice("mean", "class", "mean+std", help="How a clip's tokens become one vector.")]
RecipeOption = Annotated[
    str, typer.Option("--recipe", "-r", help="Fine-tuning recipe, a YAML file, or auto: by the size of the data set.")
]
SeedsOption = Annotated[list[int] | None, typer.Option("--seed", help="Random seed; repeatable (default: 0).")]
DeviceOption = Annotated[str | None, typer.Option(help="Device of the encoder, such as cuda (default: cpu).")]
AllowLeaksOption = Annotated[
    bool,
    typer.Option("--allow-leaks", help="Use your own splits even if they share recordings; the result notes it."),
]


def probe(
    encoder: EncoderArgument,
    data: DataOption,
    protocol: ProtocolOption = "linear",
    pool: Annotated[str, typer.Option(help="class, mean or mean+std; auto: chosen on the training clips.")] = "auto",
    layer: Annotated[str, typer.Option(help="last, or a block number; auto: chosen on the training clips.")] = "auto",
    labels_per_class: Annotated[
        int | None, typer.Option(min=1, help="Train on so many clips of each class, drawn by --seed.")
    ] = None,
    seed: SeedsOption = None,
    device: DeviceOption = None,
    allow_leaks: AllowLeaksOption = False,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Folder to save the classifier in, for predict.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Classify a labelled data set from a frozen model's embeddings."""
    import asit_lab

    with redirect_stdout(sys.stderr):
        result = asit_lab.probe(
            asit_lab.zoo.open_source(encoder),
            data,
            protocol,
            pool,
            _layer(layer),
            seed or (0,),
            device=device,
            allow_leaks=allow_leaks,
            out=out,
            labels_per_class=labels_per_class,
        )
    if as_json:
        print(as_json_text(result.to_dict()))
    else:
        _print_scores(result.table)
        if out:
            print(f"\nclassifier: {out}")


def finetune(
    encoder: EncoderArgument,
    data: DataOption,
    out: Annotated[str, typer.Option("--out", "-o", help="Output folder.")],
    recipe: RecipeOption = "ast-esc50",
    overrides: OverridesOption = None,
    seed: SeedsOption = None,
    fold: Annotated[list[str] | None, typer.Option(help="Only this fold or split; repeatable.")] = None,
    allow_leaks: AllowLeaksOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model with a classifier on every split of a labelled data set. Resumes if interrupted."""
    import asit_lab

    with redirect_stdout(sys.stderr):
        opened = asit_lab.zoo.open_source(encoder)
        result = asit_lab.finetune(opened, data, recipe, out, overrides, seed or (0,), fold, allow_leaks=allow_leaks)
    if os.environ.get("RANK", "0") != "0":
        pass  # under torchrun the first process speaks for all
    elif as_json:
        print(as_json_text(result.to_dict()))
    else:
        print_rows(result.folds.to_dict("records"))
        _print_scores(result.table, before="\n")
        print(f"\n{result.status}: {result.dir}")
    _leave(result.status)


def evaluate(
    encoders: Annotated[
        list[str], typer.Argument(metavar="[NAME=]ENCODER...", help="As for probe, optionally with a name.")
    ],
    data: DataOption,
    out: Annotated[str, typer.Option("--out", "-o", help="Output folder.")] = "runs/evaluation",
    protocol: Annotated[
        list[str] | None,
        typer.Option(help="linear, knn, weighted or finetune; repeatable (default: linear and knn)."),
    ] = None,
    recipe: RecipeOption = "micro",
    overrides: OverridesOption = None,
    seed: SeedsOption = None,
    device: DeviceOption = None,
    allow_leaks: AllowLeaksOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare models on a labelled data set with untrained ones and with log-mel statistics."""
    import asit_lab

    named = dict(_named(text) for text in encoders)
    if len(named) < len(encoders):
        raise InputError(f"encoders: two of {', '.join(encoders)} have one name; give them as NAME=ENCODER")
    with redirect_stdout(sys.stderr):
        protocols = tuple(protocol or ("linear", "knn"))
        options = {"device": device, "allow_leaks": allow_leaks}
        evaluation = asit_lab.evaluation.evaluate(
            named, data, protocols, out, recipe, overrides, seed or (0,), **options
        )
    _print(evaluation, as_json)


def starts(
    data: DataOption,
    out: Annotated[str, typer.Option("--out", "-o", help="Output folder, for runs and tables.")],
    preset: PresetOption = "micro",
    pretrain_on: Annotated[str | None, typer.Option(help="Data set to pretrain on (default: --data).")] = None,
    published: Annotated[str | None, typer.Option(help="Published weights: asit:FILE or asda:FILE.")] = None,
    imagenet: Annotated[str | None, typer.Option(help="ImageNet weights, .safetensors in timm's layout.")] = None,
    recipe: RecipeOption = "micro",
    overrides: OverridesOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare fine-tuning from scratch with pretrained, published and ImageNet weights, as in ASiT's Table III."""
    import asit_lab

    flags = {"data.source": pretrain_on or data, "train.seed": seed}
    cfg = asit_lab.load_config(preset, [*(overrides or []), flags])
    with redirect_stdout(sys.stderr):
        study = asit_lab.evaluation.initialisation_study
        evaluation = study(cfg, data, out, published, imagenet, recipe, seed=seed)
    _print(evaluation, as_json)


def predict(
    model: Annotated[str, typer.Argument(help="Folder written by finetune or by probe --out, or hf://OWNER/NAME.")],
    files: Annotated[list[str], typer.Argument(help="Audio files, folders or patterns such as 'clips/**/*.wav'.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Table to write: .parquet or .csv (default: print it).")
    ] = None,
    top: Annotated[int, typer.Option(help="Number of classes to list for each file or window.")] = 3,
    windows: Annotated[float | None, typer.Option(help="Classify windows of this length, s.")] = None,
    hop: Annotated[
        float | None,
        typer.Option(help="Step between windows, s (default: their length; a quarter of it with --events)."),
    ] = None,
    events: Annotated[
        bool,
        typer.Option("--events", help="Find events in long recordings, with overlapping windows."),
    ] = False,
    timelines: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="With --events: write a timeline, a picture and labels (Audacity, Raven).",
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Minimum probability of an event (default: the model's own, or 0.5).")
    ] = None,
    min_event: Annotated[float, typer.Option(help="Shortest event, s.")] = 0.5,
    max_gap: Annotated[float, typer.Option(help="Longest gap bridged within an event, s.")] = 0.5,
    split: Annotated[str | None, typer.Option(help="Fold to use, if the model was fine-tuned on several.")] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Classify audio files with a fine-tuned model or a probe, or find events in long recordings."""
    import asit_lab
    from asit_lab.embedding.dataset import on_device
    from asit_lab.finetuning import find_events, predict_files

    if timelines and not events:
        raise InputError("--timelines: needs --events")
    with redirect_stdout(sys.stderr):
        classifier = on_device(asit_lab.load_classifier(model, split), device)
        if events:
            options = {"threshold": threshold, "min_seconds": min_event, "max_gap_seconds": max_gap}
            predictions = find_events(classifier, _as_typed(files), out, timelines, windows, hop, **options)
        else:
            predictions = predict_files(classifier, _as_typed(files), out, top, windows, hop)
    rows = predictions.table.to_dict("records")
    skipped = [{"skipped": path, "reason": reason} for path, reason in predictions.skipped]
    if as_json:
        print(as_json_text({"model": classifier.name, "events" if events else "predictions": rows, "skipped": skipped}))
        return
    print_rows(skipped)
    if out and events:
        print(f"{counted(len(rows), 'event')}: {out}")
    elif out:
        print(f"{counted(predictions.table['path'].nunique(), 'file')}: {out}")
    elif events and not rows:
        print("no events")
    else:
        print_rows(rows)
    if timelines:
        print(f"timelines: {timelines}")


def embed(
    files: Annotated[list[str], typer.Argument(help="Audio files, folders or patterns such as 'clips/**/*.wav'.")],
    encoder: Annotated[str, typer.Option("--encoder", "-e", help="As for probe.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Table to write: .parquet or .csv.")],
    pool: PoolOption = "mean",
    layer: Annotated[
        int | None,
        typer.Option(help="Block to read; -1 is the last (default: the final output)."),
    ] = None,
    windows: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0.01, help="Write one row for each window of this length.")
    ] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one vector for each file or window: columns path, seconds (or start, end), d0, d1, ..."""
    import asit_lab
    from asit_lab.embedding.dataset import on_device

    with redirect_stdout(sys.stderr):
        vectors = asit_lab.evaluation.embed_files(
            on_device(asit_lab.zoo.open_source(encoder), device), _as_typed(files), out, pool, layer, windows=windows
        )
    skipped = [{"skipped": path, "reason": reason} for path, reason in vectors.skipped]
    if as_json:
        facts = {
            "out": str(vectors.out),
            "files": vectors.table["path"].nunique(),
            "rows": len(vectors.table),
            "skipped": skipped,
            "notes": vectors.notes,
        }
        print(as_json_text(facts))
        return
    print_rows(skipped)
    for note in vectors.notes:
        print(f"note: {note}")
    numbers = sum(name.startswith("d") for name in vectors.table.columns)
    rows = counted(len(vectors.table), "window" if windows else "file")
    print(f"{rows}, {numbers} numbers each: {vectors.out}")


def _as_typed(files: list[str]) -> list[str]:
    """A shell expands patterns from its working directory, also where $ASIT_LAB_HOME is set."""
    return [os.path.abspath(name) if os.path.exists(name) else name for name in files]


def _layer(text: str) -> str | int:
    return int(text) if text.lstrip("-").isdecimal() else text


def _named(text: str) -> tuple[str, str]:
    """Name and source; the name is the text before "=", else the last part of the source."""
    name, equals, source = text.partition("=")
    return (name, source) if equals and name and os.sep not in name else (os.path.basename(text.rstrip("/")), text)


def _print(evaluation, as_json: bool) -> None:
    rows = evaluation.table.to_dict("records")
    if as_json:
        print(as_json_text({"dir": str(evaluation.dir), "status": evaluation.status, "table": rows}))
    else:
        _print_scores(evaluation.table)
        print(f"\n{evaluation.status}: {evaluation.dir}")
    _leave(evaluation.status)


def _print_scores(table: "pd.DataFrame", before: str = "") -> None:
    """The table, and below it each note on its scores once, with the encoders it concerns."""
    print_rows(table.drop(columns="note").to_dict("records"), before=before)
    for note, rows in table[table["note"] != ""].groupby("note", sort=False):
        print(f"note ({', '.join(dict.fromkeys(rows['encoder']))}): {note}")


def _leave(status: str) -> None:
    if status != "finished":
        raise typer.Exit(INTERRUPTED)
