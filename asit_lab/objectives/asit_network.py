"""ASiT's network: backbone with the heads that its losses need."""

from torch import nn

from ..config import RunConfig
from ..nn import DistillationHeads, ReconstructionHead, ViT
from .base import seeded


class AsitNetwork(nn.Module):
    """Backbone with the heads that the losses need; student and teacher are one each."""

    def __init__(self, cfg: RunConfig):
        super().__init__()
        active = cfg.objective.active
        self.backbone = ViT(cfg.model, cfg.grid)
        prototypes = cfg.objective.global_kind == "distillation"
        self.heads = DistillationHeads(cfg.model.width, cfg.heads, "local" in active, "global" in active, prototypes)
        self.decoder = None
        if "reconstruction" in active:
            self.decoder = ReconstructionHead(
                cfg.model.width,
                cfg.heads.decoder_hidden,
                cfg.heads.decoder_bottleneck,
                cfg.model.patch,
                cfg.heads.decoder_last_gelu,
                cfg.heads.decoder_copies,
            )


def build_asit_network(cfg: RunConfig, seed: int | None = None) -> AsitNetwork:
    """A network with its start weights: a function of the configuration and the seed (default: train.seed) alone."""
    return seeded(lambda: AsitNetwork(cfg), cfg.train.seed if seed is None else seed)
