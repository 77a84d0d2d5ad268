"""What moves in a notebook, on top of asit_lab.figures."""

from .live import LiveCurves

__all__ = ["LiveCurves"]
