"""One optimiser step of any objective: forward and backward pass of each part, clipping, update, teacher."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from lightning.fabric import Fabric
from torch import Tensor

from ..arithmetic import autocast
from ..config import RunConfig
from ..data import Batch
from ..errors import InputError
from ..objectives import Objective
from .interrupt import STOPS
from .optimizer import build_optimizer, clip_gradients, set_schedule

_T = TypeVar("_T")


def accelerator() -> str:
    """CUDA where there is one, else the CPU. Not Apple's MPS, which lacks operations that training needs (SVD, float64)
    and for which nothing here was measured."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def launch() -> Fabric:
    """One device, or under torchrun all processes that it started."""
    distributed = {}
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        distributed = {"devices": local, "num_nodes": int(os.environ["WORLD_SIZE"]) // local, "strategy": "ddp"}
    fabric = Fabric(accelerator=accelerator(), precision="32-true", **({"devices": 1} | distributed))
    fabric.launch()
    return fabric


def from_first(fabric: Fabric, compute: Callable[[], _T]) -> _T:
    """What `compute` returns in the first process, for all; its InputError is raised in all."""
    result: _T | InputError | None = None
    if fabric.is_global_zero:
        try:
            result = compute()
        except InputError as error:
            result = error
    result = fabric.broadcast(result)
    if isinstance(result, InputError):
        raise result
    return result


@dataclass
class Gradients:
    """Losses and gradients of a batch, before any weight is changed."""

    losses: dict[str, Tensor]
    """"loss" and "loss_<name>": detached scalars, means over parts and processes"""
    rates: dict[str, float]
    """learning rate and weight decay of the step"""
    norm: Tensor
    """scalar, gradient norm before clipping"""
    requests: Tensor
    """[len(STOPS)], above 0 for the reasons of any process to stop: the same in all of them"""

    @property
    def finite(self) -> bool:
        """Whether the loss and every gradient is a finite number."""
        return bool(torch.isfinite(self.norm + self.losses["loss"]))

    @property
    def stop(self) -> str | None:
        """Why to stop after this step, if at all."""
        return next((stop for stop, count in zip(STOPS, self.requests.tolist(), strict=True) if count > 0), None)


class Stepper:
    """Objective and optimiser on their device.

    clips: number of training clips, which fixes how many steps an epoch has.
    requested: gives this process's reason to stop, one of STOPS or None; called once a step.
    """

    def __init__(
        self,
        fabric: Fabric,
        cfg: RunConfig,
        objective: Objective,
        clips: int,
        requested: Callable[[], str | None] = lambda: None,
    ):
        self.fabric, self.cfg, self.objective, self.clips = fabric, cfg, objective, clips
        self.requested = requested
        self.model, self.optimizer = fabric.setup(objective, build_optimizer(cfg, objective))
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    def gradients(self, batch: Batch) -> Gradients:
        """Forward and backward of a batch; nothing but the gradients changes."""
        rates = set_schedule(self.optimizer, self.cfg, self.clips, batch.step)
        losses, requests = self._forward_backward(batch.to(self.fabric.device))
        norm = clip_gradients(self.parameters, self.cfg.optim.clip, self.cfg.optim.clip_by)
        return Gradients(losses, rates, norm, requests)

    def apply(self, step: int) -> None:
        """Move weights, centres and teacher by the gradients."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.objective.after_step(step)

    def _forward_backward(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Losses and requests to stop, as means over all processes, so that all stop after the same step."""
        parts, means = self.cfg.train.accumulate, {}
        arithmetic = autocast(self.cfg.train.precision, self.fabric.device.type)
        for i, part in enumerate(batch.split(parts)):
            with self.fabric.no_backward_sync(self.model, enabled=i < parts - 1):
                with arithmetic:
                    losses = self.model(part, batch.step)
                self.fabric.backward(losses.total / parts)
            for name, loss in {"loss": losses.total, **{f"loss_{n}": x for n, x in losses.parts.items()}}.items():
                means[name] = means.get(name, 0.0) + loss.detach() / parts
        requested = self.requested()
        flags = torch.tensor([float(requested == stop) for stop in STOPS], device=self.fabric.device)
        own = torch.cat([torch.stack(list(means.values())), flags])
        averaged = self.fabric.all_reduce(own, reduce_op="mean")
        return dict(zip(means, averaged[: len(means)].unbind(), strict=True)), averaged[len(means) :]

    def state_dict(self) -> dict:
        """State of objective and optimiser, to resume from."""
        return {"objective": self.objective.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
