"""What a pretrained model is to its user, and where it comes from."""

from .loading import load_encoder, open_encoder
from .model import POOLS, Encoder, Reconstruction

__all__ = ["POOLS", "Encoder", "Reconstruction", "load_encoder", "open_encoder"]
