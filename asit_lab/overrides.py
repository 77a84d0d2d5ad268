"""Settings typed as KEY=VALUE: in a shell, as a notebook's parameter, in a study."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from .errors import InputError

Overrides = list[str] | str | Mapping[str, Any] | None


def parse_overrides(overrides: Overrides, example: str = "mask.ratio=0.7") -> dict[str, Any]:
    """{key: value} of assignments, the last of a key counts.

    overrides: a list of texts KEY=VALUE, where VALUE is YAML, and of dictionaries; a dictionary {key: value}; or one
    text of several assignments, split as a shell splits words. example: an assignment for messages.
    Raises InputError naming the assignment.
    """
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
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"override {override!r}: {text!r} is not a value YAML can read") from None
    if isinstance(value, str) and " #" in text and text.strip()[0] not in "'\"":
        value = text.strip()  # a file name with " #" in it, which YAML takes for a comment
    return {key.strip(): value}
