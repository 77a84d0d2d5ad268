"""The shell command `asit-lab`: every command is one call into the package.

Results go to stdout, as a table or with --json as JSON; progress and errors go to stderr. Exit status: 0 only on
success, 1 for a run that did not finish, 2 for bad input, 130 when interrupted, 143 when terminated. The package is
imported inside the commands, so that --help is quick.
"""

import errno
import sys
from typing import Annotated

import typer

from .._version import __version__
from ..errors import InputError
from ..storage.atomic import FULL, UNPRINTABLE
from .batch import batch_app
from .config import config_app
from .data import data_app
from .evaluation import embed, evaluate, finetune, predict, probe, starts
from .export import export, export_model
from .notebooks import lab
from .options import FAILED, INTERRUPTED
from .recipes import recipes_app
from .report import report
from .training import pretrain, runs_app

# The user's to mend: no room, no right to write, a file where a folder should be.
UNWRITABLE = (*FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)

app = typer.Typer(
    name="asit-lab",
    help="Pretrain, inspect and evaluate self-supervised audio transformers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the help has square brackets that are no markup
)
app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")
app.command()(pretrain)
app.add_typer(runs_app, name="runs")
for command in (probe, finetune, evaluate, starts, predict, embed):
    app.command()(command)
app.add_typer(recipes_app, name="recipes")
app.add_typer(batch_app, name="batch")
for command in (report, export, export_model, lab):
    app.command()(command)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(f"asit-lab {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point: bad input is one message and exit status 2, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors=UNPRINTABLE)
    try:
        app(prog_name="asit-lab")
    except InputError as error:
        print(f"asit-lab: {error}", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:  # a loss that is no longer finite: the message says where
        print(f"asit-lab: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except OSError as error:
        if error.errno not in UNWRITABLE or error.filename is None:
            raise
        print(f"asit-lab: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
