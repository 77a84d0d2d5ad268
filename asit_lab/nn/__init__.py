"""Plain modules: attention, vision transformer, heads, decoder. No training logic."""

from .attention import AttentionMaps, build_attention
from .decoder import ReconstructionHead
from .heads import DistillationHeads
from .vit import ViT

__all__ = ["AttentionMaps", "DistillationHeads", "ReconstructionHead", "ViT", "build_attention"]
