"""AdamW (arXiv 1711.05101) with scheduled rate and weight decay, and gradient clipping per tensor or over all."""

import torch
from torch import Tensor

from ..config import RunConfig
from ..objectives import Objective
from ..schedules import cosine, warmup_cosine
from ..settings import steps_of

EPS = 1e-8  # added to the root of the second moment


def build_optimizer(cfg: RunConfig, objective: Objective) -> torch.optim.AdamW:
    """AdamW over the objective's groups; `set_schedule` gives each step its rate and decay."""
    groups = [
        {"params": group["params"], "decay": group["decay"], "weight_decay": 0.0}
        for group in objective.param_groups()
        if group["params"]
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=tuple(cfg.optim.betas), eps=EPS, fused=True)


def set_schedule(optimizer: torch.optim.Optimizer, cfg: RunConfig, clips: int, step: int) -> dict[str, float]:
    """Set rate and weight decay of optimiser step `step` (from 0) of a run over `clips` clips; returns both.

    The rate grows with the batch: rate * batch_size / rate_batch. optim.convention "fairseq" also sets epsilon: fairseq
    adds it before the second moment is corrected for its bias, torch after, so there it is divided by the correction.
    """
    optim, total = cfg.optim, cfg.total_steps(clips)
    warmup = min(steps_of(optim.warmup, cfg.steps_per_epoch(clips), total), total)
    peak = optim.rate * cfg.train.batch_size / optim.rate_batch
    if optim.convention == "fairseq":
        rate = warmup_cosine(peak, optim.min_rate, total, step, warmup)
        eps = EPS / (1 - optim.betas[1] ** (step + 1)) ** 0.5
    else:
        rate, eps = cosine(peak, min(optim.min_rate, peak), total, step, warmup), EPS
    decay = cosine(optim.weight_decay, optim.weight_decay_end, total, step)
    for group in optimizer.param_groups:
        group["lr"], group["eps"], group["weight_decay"] = rate, eps, decay if group["decay"] else 0.0
    return {"rate": rate, "weight_decay": decay}


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
