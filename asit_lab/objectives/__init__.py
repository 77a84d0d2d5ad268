"""What is learned: an objective holds student, teacher and heads behind one protocol (see base.py)."""

from ..config import RunConfig
from .asit import ASiT, Network, build_network
from .base import Losses, Objective

__all__ = ["ASiT", "Losses", "Network", "Objective", "build_network", "build_objective"]


def build_objective(cfg: RunConfig, clips: int) -> Objective:
    """The objective that a configuration names, for a data set of `clips` training clips."""
    return {"asit": ASiT}[cfg.objective.name](cfg, clips)
