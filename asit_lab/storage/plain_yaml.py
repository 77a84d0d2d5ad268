"""Reads YAML as people type it: 2026-01-01, 12:30, 007, 1_000, yes and no stay texts, 1e-3 is a number.

PyYAML follows YAML 1.1, which takes them for a date, a number of minutes, an octal number and truth values. Settings
that are numbers or truth values take such texts, too, so nothing is lost.
"""

import json
import re
from typing import Any

import yaml


class _Plain(yaml.constructor.SafeConstructor):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """As PyYAML does, which keeps the last of several values of a key without a word."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} occurs more than once", node.start_mark)
        return super().construct_mapping(node, deep)


class _Loader(_Plain, yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}


_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _FastLoader(_Plain, _Parser):
    """Parses in C, eight times as fast, where PyYAML was built with it."""

    yaml_implicit_resolvers: dict = {}


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|(0|[1-9][0-9]*)(?=[eE]))([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|None|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    for _loader in (_Loader, _FastLoader):
        _loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))


def yaml_value(value: Any) -> str:
    """A value as `read_yaml_text` reads it back, in one line: JSON, with signs beyond ASCII escaped as in YAML."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(sign if " " <= sign <= "~" else _ESCAPES[ord(sign) > 0xFFFF].format(ord(sign)) for sign in text)


_ESCAPES = ("\\u{:04x}", "\\U{:08x}")


def read_yaml_text(text: str) -> Any:
    """The value of a YAML text, in Python's own types. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, Loader=_FastLoader)
    except (yaml.YAMLError, UnicodeError):
        return yaml.load(text, Loader=_Loader)  # whose messages show the line
