"""Encoders: what a pretrained model offers its user, and how to load, save and publish one."""

from .loading import load_encoder, open_encoder
from .model import Encoder, Reconstruction
from .pooling import POOLS

__all__ = ["POOLS", "Encoder", "Reconstruction", "load_encoder", "open_encoder"]
