"""Settings typed as KEY=VALUE: in a shell, as a notebook's parameter, in a study."""

import os
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from .errors import InputError
from .storage.plain_yaml import read_yaml_text

Overrides = list[str] | str | Mapping[str, Any] | None
_STRUCTURES = ("{", "[", "'", '"', "|", ">", "!")  # first signs of values that are not plain texts or numbers


def parse_overrides(overrides: Overrides, example: str = "mask.ratio=0.7") -> dict[str, Any]:
    """{key: value} of assignments, the last of a key counts.

    overrides: a list of texts KEY=VALUE, where VALUE is YAML, and of dictionaries; a dictionary {key: value}; or one
    text of several assignments, split as a shell splits words. example: an assignment for messages.
    Raises InputError naming the assignment.
    """
    if isinstance(overrides, bytes):
        overrides = os.fsdecode(overrides)
    if isinstance(overrides, Mapping):
        return {str(key): value for key, value in overrides.items()}
    if isinstance(overrides, str):
        try:
            overrides = shlex.split(overrides)
        except ValueError as error:
            raise InputError(f"overrides {overrides!r}: {error}") from None
    if overrides is not None and not isinstance(overrides, Iterable):
        raise InputError(f"overrides {overrides!r}: expected assignments such as {example}")
    parsed: dict[str, Any] = {}
    for override in overrides or []:
        added = parse_overrides(override) if isinstance(override, Mapping) else _assignment(str(override), example)
        for key in added:
            parsed.pop(key, None)  # the last one counts, in its place
        parsed |= added
    return parsed


def _assignment(override: str, example: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"override {override!r}: expected key=value, such as {example}")
    structured = text.strip().startswith(_STRUCTURES)
    try:
        value = read_yaml_text(text)
    except yaml.YAMLError:
        if structured:
            raise InputError(f"override {override!r}: {text!r} is not a value YAML can read") from None
        value = text.strip()
    if not structured and isinstance(value, str | list | dict):
        value = text.strip()  # a name with " #" or ": " in it, or one that begins with "- "
    return {key.strip(): value}
