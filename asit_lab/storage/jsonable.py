"""Values as JSON: numbers of numpy and torch, paths, NaN."""

import json
from pathlib import Path
from typing import Any


def jsonable(value: Any) -> Any:
    """`value` in the types JSON has; what is not a number (NaN, infinity) becomes None."""
    if isinstance(value, dict):
        return {str(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(inner) for inner in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return jsonable(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return str(value) if isinstance(value, Path) else value


def as_json_text(value: Any) -> str:
    """`value` as JSON, indented."""
    return json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
