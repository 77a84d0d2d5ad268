"""`asit-lab export` and `export-model`: notebooks as HTML, models in the formats of other programs."""

import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from .options import JsonOption, choice


def export(
    notebook: Annotated[str, typer.Argument(metavar="NOTEBOOK", help="Executed notebook, .ipynb.")],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="File to write (default: beside the notebook, .html)."),
    ] = None,
) -> None:
    """Write an executed notebook as one HTML file that needs no network and no kernel."""
    from ..report.export import export_html

    print(export_html(notebook, out))


def export_model(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Classifier, as for predict, or encoder, as for probe.")
    ],
    out: Annotated[
        str,
        typer.Option("--out", "-o", help="File to write: .onnx, .pt or .pt2; a folder for transformers."),
    ],
    to: Annotated[str, choice("onnx", "torchscript", "torch-export", "transformers", help="Format.")] = "onnx",
    seconds: Annotated[
        float | None,
        typer.Option(help="Input length, s (default and maximum: what the model was built for)."),
    ] = None,
    pool: Annotated[str, choice("mean", "class", "mean+std", help="For encoders: how tokens become one vector.")] = (
        "mean"
    ),
    precision: Annotated[str, choice("fp32", "fp16", "int8", help="Of the network; int8 is for ONNX.")] = "fp32",
    split: Annotated[str | None, typer.Option(help="Fold to use, if the model was fine-tuned on several.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Export a model with its front end, for use without this package: waveform in, scores or embedding out.

    The exported model is checked against the original on random audio.
    """
    from ..finetuning.export import export_model as write
    from ..finetuning.export import open_model
    from ..storage.jsonable import as_json_text
    from ..storage.words import print_facts

    with redirect_stdout(sys.stderr):
        done = write(open_model(model, split), out, to, seconds, pool, precision)
    facts = {
        "path": str(done.path),
        "input": _input_words(done.samples, done.sample_rate),
        "output": f"{done.output}, float32 [batch, {len(done.names)}]",
        "difference": done.difference,
    }
    if as_json:
        print(as_json_text({**facts, "names": done.names}))
    else:
        print_facts(facts)


def _input_words(samples: int | None, sample_rate: int) -> str:
    if samples is None:
        return f"input_values, float32 [batch, any number of samples] at {sample_rate} Hz"
    return f"wave, float32 [batch, {samples}] ({samples / sample_rate:.4g} s at {sample_rate} Hz)"
