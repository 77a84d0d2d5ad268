"""Numbers as Python, numpy and torch have them -> Python's own, or one error that names the argument."""

import math
import numbers
from typing import Any

from .errors import InputError


def integer(name: str, value: Any, lowest: int = -(2**63), highest: int = 2**64 - 1) -> int:
    """A whole number, also a numpy integer, 3.0, or an array or tensor without dimensions. Raises InputError."""
    parsed = _plain(value)
    if parsed is None or not math.isfinite(parsed) or parsed != int(parsed):
        raise InputError(f"{name}: expected a whole number, got {value!r}")
    if not lowest <= parsed <= highest:
        raise InputError(f"{name}: {int(parsed)} is not within {lowest} and {highest}")
    return int(parsed)


def number(name: str, value: Any, meaning: str = "a number") -> float:
    """A finite number, also of numpy and torch. Raises InputError: it is not `meaning`."""
    parsed = _plain(value)
    if parsed is None or not math.isfinite(parsed):
        raise InputError(f"{name}: {value!r} is not {meaning}")
    return float(parsed)


def _plain(value: Any) -> Any:
    """A real number; None for anything else, truth values too, which count as 0 and 1 in Python."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item") and not getattr(value, "is_meta", False):
        value = value.item()
    return value if isinstance(value, numbers.Real) and not isinstance(value, bool) else None
