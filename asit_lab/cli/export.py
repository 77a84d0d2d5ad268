"""`asit-lab export` and `export-model`: notebooks as HTML, models as ONNX, TorchScript or torch.export."""

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
    out: Annotated[str, typer.Option("--out", "-o", help="File to write: .onnx, .pt or .pt2.")],
    to: Annotated[str, choice("onnx", "torchscript", "torch-export", help="Format.")] = "onnx",
    seconds: Annotated[
        float | None,
        typer.Option(help="Input length, s (default and maximum: what the model was built for)."),
    ] = None,
    pool: Annotated[str, choice("mean", "class", "mean+std", help="For encoders: how tokens become one vector.")] = (
        "mean"
    ),
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
