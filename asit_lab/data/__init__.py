"""Data sets as tables, and batches of crops made from them."""

from .crops import Batch, make_loader
from .manifest import DataSource, Manifest, load_manifest
from .silence import measure_silence
from .sources.clips import Clip, Listing

__all__ = [
    "Batch",
    "Clip",
    "DataSource",
    "Listing",
    "Manifest",
    "load_manifest",
    "make_loader",
    "measure_silence",
]
