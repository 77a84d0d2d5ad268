"""`asit-lab export` and `export-model`: a notebook as a page for a browser, a model for other programs."""

import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from .options import Json, choice


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


def export_model(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A classifier's folder, as for predict, or an encoder, as for probe.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="File to write: .onnx, .pt or .pt2.")],
    to: Annotated[str, choice("onnx", "torchscript", "torch-export", help="Format.")] = "onnx",
    seconds: Annotated[
        float | None, typer.Option(help="Length of the input (default, and at most: what the model was made for).")
    ] = None,
    pool: Annotated[str, choice("mean", "class", "mean+std", help="Of an encoder: how tokens become one vector.")] = (
        "mean"
    ),
    split: Annotated[str | None, typer.Option(help="Of fine-tuning over several folds, the one to use.")] = None,
    as_json: Json = False,
) -> None:
    """Write a model for programs without this package: waveform in, scores or embedding out.

    The front end is inside. What is written is checked against the original on random audio.
    """
    from ..finetuning.export import export_model as write
    from ..finetuning.export import open_model
    from ..storage.jsonable import as_json_text
    from ..storage.words import print_facts

    with redirect_stdout(sys.stderr):
        done = write(open_model(model, split), out, to, seconds, pool)
    facts = {
        "path": str(done.path),
        "input": f"wave, float32 [batch, {done.samples}] ({done.seconds:.4g} s at {done.sample_rate} Hz)",
        "output": f"{done.output}, float32 [batch, {len(done.names)}]",
        "difference": done.difference,
    }
    if as_json:
        print(as_json_text({**facts, "names": done.names}))
    else:
        print_facts(facts)
