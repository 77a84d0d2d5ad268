"""Objectives: each holds student, teacher and heads behind one protocol (see base.py)."""

from collections.abc import Collection
from contextlib import suppress
from typing import Any

from .. import registry
from ..config import RunConfig
from . import asda, asit_network
from .asda import ASDA
from .asit import ASiT
from .base import Losses, Objective, seeded
from .collapse import Criterion
from .own import BackboneOnly, BaseObjective

__all__ = [
    "ASDA",
    "ASiT",
    "BaseObjective",
    "Criterion",
    "Losses",
    "Objective",
    "build_network",
    "build_objective",
    "criteria",
    "masks_as_configured",
]

_NETWORKS = {"asit": asit_network.build_asit_network, "asda": asda.build_asda_network}
_PROTOCOL = ("views", "reset_teacher", "forward", "param_groups", "after_step", "health", "criteria", "samples")


def _objective_class(cfg: RunConfig) -> Any:
    objective = registry.load_part("objectives", cfg.objective.name, "objective.name")
    registry.require(objective, _PROTOCOL, "objective.name", cfg.objective.name)
    return objective


def build_objective(cfg: RunConfig, clips: int) -> Objective:
    """The objective that a configuration names, for a data set of `clips` training clips."""
    objective = _objective_class(cfg)
    return seeded(lambda: objective(cfg, clips), cfg.train.seed)  # weights that the user's own code draws, too


def build_network(
    cfg: RunConfig, seed: int | None = None, decoder: Collection[str] = ()
) -> asda.AsdaNetwork | asit_network.AsitNetwork | BackboneOnly:
    """The student that a configuration names, with its start weights: a function of the configuration and the seed
    (default: train.seed) alone.

    An objective of the user's own is not executed for it. Its student is a backbone, and ASiT's or ASDA's decoder where
    the saved weights are those of one. decoder: names of the saved weights of a decoder.
    """
    if cfg.objective.name in _NETWORKS:
        return _NETWORKS[cfg.objective.name](cfg, seed)
    for build in _NETWORKS.values() if decoder else ():
        with suppress(ValueError):  # settings of the other system, which nobody has checked
            network = build(cfg, seed)
            if network.decoder is not None and set(network.decoder.state_dict()) == set(decoder):
                return network
    return BackboneOnly.build(cfg, seed)


def masks_as_configured(cfg: RunConfig) -> bool:
    """Whether the objective draws its masks as the settings in `mask` and `asda` say: not where it is the user's own
    and corrupts by code of its own."""
    objective = _objective_class(cfg)
    if isinstance(objective, type) and issubclass(objective, ASDA):
        return True
    return getattr(objective, "corrupt", None) is ASiT.corrupt


def criteria(cfg: RunConfig) -> list[Criterion]:
    """What tells from the metrics of a run of this configuration that it has collapsed."""
    return _objective_class(cfg).criteria(cfg)
