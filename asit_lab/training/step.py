"""One optimiser step of any objective: forward and backward part by part, clipping, update, teacher."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import Tensor

from ..config import RunConfig
from ..data import Batch
from ..objectives import Objective
from .interrupt import STOPS
from .optimizer import build_optimizer, clip_gradients, set_schedule


def launch() -> Fabric:
    """One device, or under torchrun all that it started."""
    spread = {}
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        spread = {"devices": local, "num_nodes": int(os.environ["WORLD_SIZE"]) // local, "strategy": "ddp"}
    fabric = Fabric(accelerator="auto", precision="32-true", **({"devices": 1} | spread))
    fabric.launch()
    return fabric


@dataclass
class Gradients:
    """What a batch gave before anything was changed by it."""

    losses: dict[str, Tensor]
    """"loss" and "loss_<name>": detached scalars, means over parts and processes"""
    rates: dict[str, float]
    """learning rate and weight decay of the step"""
    norm: Tensor
    """scalar, gradient norm before clipping"""
    asked: Tensor
    """[len(STOPS)], above 0 for the reasons that some process has to stop: the same in all of them"""

    @property
    def finite(self) -> bool:
        """Whether the loss and every gradient is a finite number."""
        return bool(torch.isfinite(self.norm + self.losses["loss"]))

    @property
    def stop(self) -> str | None:
        """Why to stop after this step, if at all."""
        return next((stop for stop, asked in zip(STOPS, self.asked.tolist(), strict=True) if asked > 0), None)


class Stepper:
    """Objective and optimiser on their device.

    clips: number of training clips, which fixes how many steps an epoch has.
    asked: gives this process's reason to stop, one of STOPS or None; looked at towards the end of each step.
    """

    def __init__(
        self,
        fabric: Fabric,
        cfg: RunConfig,
        objective: Objective,
        clips: int,
        asked: Callable[[], str | None] = lambda: None,
    ):
        self.fabric, self.cfg, self.objective, self.clips, self.asked = fabric, cfg, objective, clips, asked
        self.model, self.optimizer = fabric.setup(objective, build_optimizer(cfg, objective))
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    def gradients(self, batch: Batch) -> Gradients:
        """Forward and backward of a batch; nothing but the gradients changes."""
        rates = set_schedule(self.optimizer, self.cfg, self.clips, batch.step)
        losses, asked = self._forward_backward(batch.to(self.fabric.device))
        norm = clip_gradients(self.parameters, self.cfg.optim.clip, self.cfg.optim.clip_by)
        return Gradients(losses, rates, norm, asked)

    def apply(self, step: int) -> None:
        """Move weights, centres and teacher by the gradients."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.objective.after_step(step)

    def _forward_backward(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Losses and what was asked for, as means over all processes, so that all stop after the same step."""
        parts, means = self.cfg.train.accumulate, {}
        # Not Fabric's own "bf16-mixed": that rounds the waveforms to bf16 before the features are made of them.
        bf16 = self.cfg.train.precision == "bf16"
        arithmetic = torch.autocast(self.fabric.device.type, torch.bfloat16, enabled=bf16)
        for i, part in enumerate(batch.split(parts)):
            with self.fabric.no_backward_sync(self.model, enabled=i < parts - 1):
                with arithmetic:
                    losses = self.model(part, batch.step)
                self.fabric.backward(losses.total / parts)
            for name, loss in {"loss": losses.total, **{f"loss_{n}": x for n, x in losses.parts.items()}}.items():
                means[name] = means.get(name, 0.0) + loss.detach() / parts
        asked = self.asked()
        flags = torch.tensor([float(asked == stop) for stop in STOPS], device=self.fabric.device)
        mine = torch.cat([torch.stack(list(means.values())), flags])
        everywhere = self.fabric.all_reduce(mine, reduce_op="mean")
        return dict(zip(means, everywhere[: len(means)].unbind(), strict=True)), everywhere[len(means) :]

    def state_dict(self) -> dict:
        """What a resume needs of objective and optimiser."""
        return {"objective": self.objective.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Take up what `state_dict` gave."""
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
