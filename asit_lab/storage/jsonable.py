"""Values as JSON: tables, arrays, tensors, paths; NaN and infinity, which JSON lacks, as null."""

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def records(table: "pd.DataFrame") -> list[dict[Any, Any]]:
    """Rows of a table, in Python's own types; None where a value is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def plain(value: Any) -> Any:
    """The contents of a table, array, tensor or numpy number; anything else as text. For json.dumps(default=plain)."""
    if hasattr(value, "columns"):  # without importing pandas
        return value.to_dict("records")
    return value.tolist() if hasattr(value, "tolist") else str(value)


def jsonable(value: Any) -> Any:
    """`value` in the types of JSON; NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or type(value) in (bool, int, float, str):
        return value
    return jsonable(plain(value))


def as_json_text(value: Any) -> str:
    """`value` as JSON, indented."""
    return json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
