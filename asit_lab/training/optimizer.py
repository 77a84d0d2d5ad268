"""AdamW (arXiv 1711.05101), or Muon beside it, with scheduled rate and weight decay; gradient clipping per tensor or
over all."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..config import RunConfig
from ..objectives import Objective
from ..schedules import cosine, warmup_cosine
from ..settings import steps_of
from .muon import Muon

EPS = 1e-8  # added to the root of the second moment


def build_optimizer(cfg: RunConfig, objective: Objective) -> torch.optim.Optimizer:
    """AdamW over the objective's groups, or Muon over the matrices of its linear layers and AdamW over the rest, as
    optim.kind says; `set_schedule` gives each step its rate and decay."""
    groups = objective.param_groups()
    matrices = _matrices(objective) if cfg.optim.kind == "muon" else set()
    adamw = torch.optim.AdamW(
        _select(groups, lambda parameter: parameter not in matrices),
        lr=0.0,
        betas=tuple(cfg.optim.betas),
        eps=EPS,
        fused=True,
    )
    if not matrices:
        return adamw
    return Together([Muon(_select(groups, lambda parameter: parameter in matrices)), adamw])


def _matrices(objective: nn.Module) -> set[nn.Parameter]:
    """Weights of the linear layers: not embeddings, patches, positions or prototypes, as Muon's authors advise."""
    return {module.weight for module in objective.modules() if isinstance(module, nn.Linear)}


def _select(groups: list[dict], condition: Callable[[nn.Parameter], bool]) -> list[dict]:
    """The groups with the wanted parameters, without empty ones."""
    chosen = [{"params": [p for p in group["params"] if condition(p)], "decay": group["decay"]} for group in groups]
    return [group | {"weight_decay": 0.0} for group in chosen if group["params"]]


class Together(torch.optim.Optimizer):
    """Several optimisers of different parameters as one."""

    def __init__(self, parts: list[torch.optim.Optimizer]):
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})  # the very same dicts

    def step(self, closure=None) -> None:
        """A step of each."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict:
        """Of each, under "parts"."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take up what `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]  # loading made new dicts


def rates_of(cfg: RunConfig, clips: int, step: int) -> dict[str, float]:
    """Learning rate and weight decay of optimiser step `step` (from 0) of a run over `clips` clips.

    The rate grows with the batch: rate * batch_size / rate_batch.
    """
    optim, total = cfg.optim, cfg.total_steps(clips)
    warmup = min(steps_of(optim.warmup, cfg.steps_per_epoch(clips), total), total)
    peak = optim.rate * cfg.train.batch_size / optim.rate_batch
    if optim.convention == "fairseq":
        rate = warmup_cosine(peak, optim.min_rate, total, step, warmup)
    else:
        rate = cosine(peak, min(optim.min_rate, peak), total, step, warmup)
    return {"rate": rate, "weight_decay": cosine(optim.weight_decay, optim.weight_decay_end, total, step)}


def set_schedule(optimizer: torch.optim.Optimizer, cfg: RunConfig, clips: int, step: int) -> dict[str, float]:
    """Set rate and weight decay of a step, as `rates_of` gives them; returns both.

    optim.convention "fairseq" also sets epsilon: fairseq adds it before the second moment is corrected for its bias,
    torch after, so there it is divided by the correction.
    """
    rates = rates_of(cfg, clips, step)
    eps = EPS / (1 - cfg.optim.betas[1] ** (step + 1)) ** 0.5 if cfg.optim.convention == "fairseq" else EPS
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = rates["rate"], rates["weight_decay"] if group["decay"] else 0.0
        if "betas" in group:  # AdamW's; Muon's epsilon is another
            group["eps"] = eps
    return rates


@torch.no_grad()
def clip_gradients(parameters: list[Tensor], limit: float, by: str) -> Tensor:
    """Scale gradients down to norm `limit`, each tensor's by itself ("tensor") or all together ("global").

    limit 0: leave them. Returns the norm over all gradients before clipping, a scalar tensor; it is not finite if any
    gradient is not.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    total = torch.stack(norms).norm()
    if limit > 0 and by == "tensor":
        factors = [(limit / (norm + 1e-6)).clamp(max=1.0) for norm in norms]
        torch._foreach_mul_(gradients, factors)
    elif limit > 0:
        torch._foreach_mul_(gradients, (limit / (total + 1e-6)).clamp(max=1.0))
    return total
