"""Plain modules: attention, vision transformer, heads, decoder. No training logic."""

from .attention import AttentionMaps, build_attention
from .decoder import ConvDecoder, ReconstructionHead
from .heads import DistillationHeads
from .vit import ViT

__all__ = ["AttentionMaps", "ConvDecoder", "DistillationHeads", "ReconstructionHead", "ViT", "build_attention"]
