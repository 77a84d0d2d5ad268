"""Data sets as tables, and batches of crops made from them."""

from .manifest import Manifest, load_manifest
from .silence import measure_silence
from .views import Batch, make_loader

__all__ = ["Batch", "Manifest", "load_manifest", "make_loader", "measure_silence"]
