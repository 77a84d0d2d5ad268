"""What is learned: an objective holds student, teacher and heads behind one protocol (see base.py)."""

from ..config import RunConfig
from . import asda, asit
from .asda import ASDA
from .asit import ASiT
from .base import Losses, Objective
from .collapse import Criterion

__all__ = ["ASDA", "ASiT", "Criterion", "Losses", "Objective", "build_network", "build_objective", "criteria"]

_OBJECTIVES = {"asda": ASDA, "asit": ASiT}
_NETWORKS = {"asda": asda.build_network, "asit": asit.build_network}


def build_objective(cfg: RunConfig, clips: int) -> Objective:
    """The objective that a configuration names, for a data set of `clips` training clips."""
    return _OBJECTIVES[cfg.objective.name](cfg, clips)


def build_network(cfg: RunConfig, seed: int | None = None) -> asda.Network | asit.Network:
    """The student that a configuration names, with its start weights: a function of the configuration and the seed
    (default: train.seed) alone."""
    return _NETWORKS[cfg.objective.name](cfg, seed)


def criteria(cfg: RunConfig) -> list[Criterion]:
    """What tells from the metrics of a run of this configuration that it has collapsed."""
    return _OBJECTIVES[cfg.objective.name].criteria(cfg)
