"""Options and exit statuses that several commands share."""

from typing import Annotated, Any

import typer

from ..errors import InputError

SPECS = (
    "synth[:CLIPS], folder:PATH, shards:PATH, esc50[:PATH], esc10[:PATH], speech_commands[:PATH], "
    "speech_commands_v1[:PATH], audioset_20k[:PATH], audioset_2m[:PATH], voxceleb1[:PATH], FILE.py:FUNCTION[:TEXT]"
)
FAILED, INTERRUPTED, TERMINATED = 1, 130, 143  # exit status; as a shell reports a command that a signal ended
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting; repeatable.")
]
Preset = Annotated[str, typer.Option("--preset", "-p", help="Preset, YAML file or run directory.")]
Spec = Annotated[str, typer.Option("--data", "-d", help=f"Data set: {SPECS}.")]
Seed = Annotated[int, typer.Option(help="Seed for everything random.")]


def choice(*words: str, **about: Any) -> Any:
    """An option that is one of some words; another one is answered with the nearest."""

    def check(param: typer.CallbackParam, given: str) -> str:
        if given not in words:
            from ..storage.words import nearest

            raise InputError(f"{param.opts[0]} {given!r}: {nearest(given, words)}")
        return given

    return typer.Option(metavar=f"[{'|'.join(words)}]", callback=check, **about)


def group(help_text: str, cls: type | None = None) -> typer.Typer:
    """Commands under one name."""
    return typer.Typer(cls=cls, no_args_is_help=cls is None, rich_markup_mode=None, help=help_text)
