"""Options and exit statuses that several commands share."""

from typing import Annotated, Any

import typer

from ..errors import InputError

SPECS = (
    "synth[:CLIPS], folder:PATH, shards:PATH, esc50[:PATH], esc10[:PATH], speech_commands[:PATH], "
    "speech_commands_v1[:PATH], audioset_20k[:PATH], audioset_2m[:PATH], voxceleb1[:PATH], FILE.py:FUNCTION[:TEXT]"
)
FAILED, INTERRUPTED, TERMINATED = (
    1,
    130,
    143,
)  # exit statuses; the last two as shells report signals
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
OverridesOption = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting; repeatable.")
]
PresetOption = Annotated[str, typer.Option("--preset", "-p", help="Preset, YAML file or run directory.")]
DataOption = Annotated[str, typer.Option("--data", "-d", help=f"Data set: {SPECS}.")]
SeedOption = Annotated[int, typer.Option(help="Random seed.")]


def choice(*words: str, **about: Any) -> Any:
    """An option with a fixed set of values; the error for another value suggests the nearest."""

    def check(param: typer.CallbackParam, word: str) -> str:
        if word not in words:
            from ..storage.words import nearest

            raise InputError(f"{param.opts[0]} {word!r}: {nearest(word, words)}")
        return word

    return typer.Option(metavar=f"[{'|'.join(words)}]", callback=check, **about)


def group(help_text: str, cls: type | None = None) -> typer.Typer:
    """Commands under one name."""
    return typer.Typer(cls=cls, no_args_is_help=cls is None, rich_markup_mode=None, help=help_text)
