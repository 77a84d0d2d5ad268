"""Clipping against plain references, and the rate and weight decay that each step gets."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from asit_lab import load_config
from asit_lab.schedules import linear
from asit_lab.training import muon
from asit_lab.training.optimizer import build_optimizer, clip_gradients, set_schedule


def gradients(scales=(0.1, 3.0, 50.0), seed: int = 0) -> list[nn.Parameter]:
    """Parameters with gradients of quite different norms, and one without."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.zeros(4, 3)) for _ in scales]
    for parameter, scale in zip(parameters, scales, strict=True):
        parameter.grad = scale * torch.randn(4, 3, generator=generator)
    return [*parameters, nn.Parameter(torch.zeros(2))]


def norm_of_all(parameters) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm()


@pytest.mark.parametrize("limit", [0.5, 3.0, 1e6])
def test_global_clipping_is_torch_s(limit):
    ours, theirs = gradients(), gradients()
    before = norm_of_all(theirs)
    total = clip_gradients(ours, limit, "global")
    torch.nn.utils.clip_grad_norm_(theirs, limit)
    torch.testing.assert_close(total, before)
    for mine, other in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
    assert ours[3].grad is None


@pytest.mark.parametrize("limit", [0.5, 3.0, 1e6])
def test_clipping_by_tensor_is_the_released_loop(limit):
    ours, theirs = gradients(), gradients()
    before = norm_of_all(theirs)
    total = clip_gradients(ours, limit, "tensor")
    for parameter in theirs[:3]:  # one parameter after the other, as in DINO's clip_gradients
        coefficient = limit / (parameter.grad.norm(2) + 1e-6)
        if coefficient < 1:
            parameter.grad.mul_(coefficient)
    torch.testing.assert_close(total, before)
    for mine, other in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("by", ["tensor", "global"])
def test_limit_zero_leaves_gradients_alone(by):
    ours, theirs = gradients(), gradients()
    torch.testing.assert_close(clip_gradients(ours, 0.0, by), norm_of_all(theirs))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours[:3], theirs[:3], strict=True))


@pytest.mark.parametrize("by", ["tensor", "global"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_bad_gradient_shows_in_the_norm(by, value):
    parameters = gradients()
    parameters[1].grad[2, 1] = value
    assert not torch.isfinite(clip_gradients(parameters, 3.0, by))


# --- Schedules ------------------------------------------------------------------------------------------------------


def two_groups(cfg):
    weight, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    groups = [{"params": [weight], "decay": True}, {"params": [bias], "decay": False}, {"params": [], "decay": True}]
    return build_optimizer(cfg, SimpleNamespace(param_groups=lambda: groups)), weight, bias


def config(*overrides: str):
    """10 steps an epoch of 40 clips, 20 steps in all."""
    return load_config("smoke", ["train.batch_size=4", "train.steps=20", "optim.rate_batch=8", *overrides])


def test_rate_and_decay_follow_their_curves():
    curves = ["rate=0.4", "min_rate=0.01", "warmup=5", "weight_decay=0.1", "weight_decay_end=0.5"]
    cfg = config(*(f"optim.{curve}" for curve in curves))
    optimizer, _, _ = two_groups(cfg)
    peak = 0.4 * 4 / 8  # half of the batch that the rate is given for
    for step in range(20):
        after = (step - 5) / 15
        rate = peak * step / 4 if step < 5 else 0.01 + 0.5 * (peak - 0.01) * (1 + math.cos(math.pi * after))
        decay = 0.5 - 0.5 * 0.4 * (1 + math.cos(math.pi * step / 20))
        found = set_schedule(optimizer, cfg, 40, step)
        assert found == pytest.approx({"rate": rate, "weight_decay": decay}, rel=1e-12)
        assert [group["lr"] for group in optimizer.param_groups] == [found["rate"]] * 2
        assert [group["weight_decay"] for group in optimizer.param_groups] == [found["weight_decay"], 0.0]


@pytest.mark.parametrize(("warmup", "steps"), [("7", 7), ("1 epoch", 10), ("1.5 epochs", 15), ("20 %", 4), ("0", 0)])
def test_warmup_is_in_steps_epochs_or_a_share(warmup, steps):
    cfg = config(f"optim.warmup={warmup}", "optim.rate=1.0", "optim.min_rate=0.0")
    optimizer, _, _ = two_groups(cfg)
    rates = [set_schedule(optimizer, cfg, 40, step)["rate"] for step in range(20)]
    assert rates[max(0, steps - 1)] == pytest.approx(0.5) and rates[steps] == pytest.approx(0.5)  # the peak
    assert all(a < b for a, b in zip(rates[: steps - 1], rates[1:steps], strict=False))
    assert all(a > b for a, b in zip(rates[steps:], rates[steps + 1 :], strict=False))


def test_warmup_longer_than_the_run_and_a_floor_above_the_peak():
    cfg = config("optim.warmup=400", "optim.rate=1.0")
    optimizer, _, _ = two_groups(cfg)
    assert set_schedule(optimizer, cfg, 40, 19)["rate"] == pytest.approx(0.5)
    cfg = config("optim.warmup=0", "optim.rate=0.001", "optim.min_rate=0.5")
    assert {set_schedule(optimizer, cfg, 40, step)["rate"] for step in range(20)} == {0.0005}


def test_a_step_is_adamw_s():
    """Decayed and not decayed group after one step, by the formula of AdamW (arXiv 1711.05101)."""
    cfg = config("optim.rate=0.2", "optim.warmup=0", "optim.weight_decay=0.3", "optim.betas=[0.8, 0.95]")
    optimizer, weight, bias = two_groups(cfg)
    assert len(optimizer.param_groups) == 2  # an empty group is left out
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.95)
    rates = set_schedule(optimizer, cfg, 40, 0)
    weight.grad, bias.grad = torch.full((2, 2), 0.5), torch.full((2,), -0.5)
    optimizer.step()
    rate, decay = rates["rate"], rates["weight_decay"]
    torch.testing.assert_close(weight.data, torch.full((2, 2), 1 - rate * decay - rate))  # first step: m / sqrt(v) = 1
    torch.testing.assert_close(bias.data, torch.full((2,), 1 + rate))


def test_fairseq_s_convention():
    """Warm-up from min_rate with one step at the peak; epsilon beside the moment before it is corrected for its bias.
    Written out as fairseq's Adam does it, with gradients as small as epsilon."""
    cfg = config(
        *("optim.convention=fairseq", "optim.rate=0.2", "optim.rate_batch=4", "optim.min_rate=0.05", "optim.warmup=5"),
        *("optim.weight_decay=0.3", "optim.weight_decay_end=0.3", "optim.betas=[0.8, 0.95]"),
    )
    optimizer, weight, _ = two_groups(cfg)
    wanted, mean, square = weight.detach().double(), 0.0, 0.0
    rates = []
    for step in range(3):
        rates.append(set_schedule(optimizer, cfg, 40, step)["rate"])
        weight.grad = torch.full((2, 2), 2e-8 * (step + 1))
        optimizer.step()
        gradient, rate = weight.grad.double(), rates[-1]
        mean, square = 0.8 * mean + 0.2 * gradient, 0.95 * square + 0.05 * gradient**2
        size = rate * (1 - 0.95 ** (step + 1)) ** 0.5 / (1 - 0.8 ** (step + 1))
        wanted = (1 - rate * 0.3) * wanted - size * mean / (square.sqrt() + 1e-8)
    torch.testing.assert_close(weight.detach().double(), wanted, rtol=1e-5, atol=1e-6)
    assert rates == pytest.approx([0.05, 0.08, 0.11])
    late = [set_schedule(optimizer, cfg, 40, step)["rate"] for step in (4, 5, 6, 19)]
    assert late[1] == pytest.approx(0.2) and late[0] == pytest.approx(0.17)
    assert late[1] > late[2] > late[3] > 0.05


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_linear_schedule_is_numpy_s_and_then_its_end(steps):
    wanted = [*np.linspace(0.04, 0.07, steps), 0.07, 0.07]
    assert [linear(0.04, 0.07, steps, step) for step in range(steps + 2)] == pytest.approx(wanted, rel=1e-12)
    assert linear(0.04, 0.07, 0, 0) == 0.07


# --- Muon beside AdamW ----------------------------------------------------------------------------------------------


class Small(nn.Module):
    """Linear layers, two of one shape and one without a gradient, and a matrix that belongs to no linear layer."""

    def __init__(self):
        super().__init__()
        self.linear, self.same, self.tall = nn.Linear(6, 4), nn.Linear(6, 4, bias=False), nn.Linear(4, 9, bias=False)
        self.unused = nn.Linear(6, 4, bias=False)
        self.positions = nn.Parameter(torch.ones(5, 4))

    def forward(self, x):
        return self.tall(self.linear(x) + 2 * self.same(x.flip(1))).square().sum() + (self.positions - 2).square().sum()

    @property
    def linears(self):
        return [self.linear.weight, self.same.weight, self.tall.weight, self.unused.weight]

    def param_groups(self):
        return [
            {"params": [*self.linears, self.positions], "decay": True},
            {"params": [self.linear.bias], "decay": False},
        ]


def muon_steps(module: Small, cfg, steps: int, optimizer=None):
    optimizer = optimizer or build_optimizer(cfg, module)
    for step in range(steps):
        set_schedule(optimizer, cfg, 40, 5)
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        module(x).backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def test_muon_takes_the_matrices_of_linear_layers_alone():
    cfg = config("optim.kind=muon", "optim.rate=0.01", "optim.rate_batch=4", "train.batch_size=4")
    torch.manual_seed(0)
    ours, theirs = Small(), Small()
    theirs.load_state_dict(ours.state_dict())
    start = copy.deepcopy(ours.state_dict())
    optimizer = muon_steps(ours, cfg, 3)
    rates = {group["lr"] for group in optimizer.param_groups}
    decays = sorted(group["weight_decay"] for group in optimizer.param_groups)
    assert len(rates) == 1 and decays[0] == 0.0 and decays[1] == decays[2] > 0
    rate, decay = rates.pop(), decays[-1]
    plain = [
        torch.optim.Muon(theirs.linears, lr=rate, weight_decay=decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([theirs.positions], lr=rate, weight_decay=decay, betas=cfg.optim.betas),
        torch.optim.AdamW([theirs.linear.bias], lr=rate, weight_decay=0.0, betas=cfg.optim.betas),
    ]
    for step in range(3):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        theirs(x).backward()
        for optimizer in plain:
            optimizer.step()
            optimizer.zero_grad()
    for name, tensor in theirs.state_dict().items():  # torch's Muon rounds to bf16
        moved = (tensor - start[name]).norm()
        assert (ours.state_dict()[name] - tensor).norm() <= 0.02 * moved, name
        assert moved > 0 or name == "unused.weight"


@pytest.mark.parametrize("units", [False, True])
@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 7, 7)])
def test_orthogonal_keeps_the_singular_vectors(monkeypatch, shape, units):
    monkeypatch.setattr(muon, "has_bf16", lambda device: units)
    u, _, vh = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(3)), full_matrices=False)
    values = torch.linspace(0.1, 1, u.shape[2])
    found = muon.orthogonal(u * values @ vh)
    assert found.dtype == (torch.bfloat16 if units else torch.float32)
    turned = u.mT @ found.float() @ vh.mT
    near = torch.diagonal(turned, dim1=1, dim2=2)
    assert near.min() > 0.6 and near.max() < 1.25
    assert (turned - torch.diag_embed(near)).abs().max() < (0.05 if units else 1e-5)


def test_muon_takes_up_the_state_of_torch_s():
    """A run that was begun with torch.optim.Muon goes on."""
    matrix = nn.Parameter(torch.eye(4, 6))
    matrix.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    theirs = torch.optim.Muon([matrix], lr=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    theirs.step()
    ours = muon.Muon([{"params": [matrix]}])
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    before = matrix.detach().clone()
    ours.step()
    found = matrix.detach() - before
    with torch.no_grad():
        matrix.copy_(before)
    theirs.step()
    wanted = matrix.detach() - before
    assert (found - wanted).norm() <= 0.02 * wanted.norm()
    assert set(ours.state[matrix]) == {"momentum_buffer"}


def test_muon_goes_on_from_a_saved_state():
    cfg = config("optim.kind=muon", "optim.rate=0.01", "optim.rate_batch=4", "train.batch_size=4")
    torch.manual_seed(0)
    through, halves = Small(), Small()
    halves.load_state_dict(through.state_dict())
    muon_steps(through, cfg, 2, muon_steps(through, cfg, 2))
    state = copy.deepcopy(muon_steps(halves, cfg, 2).state_dict())
    again = build_optimizer(cfg, halves)
    again.load_state_dict(state)
    muon_steps(halves, cfg, 2, again)
    for name, tensor in through.state_dict().items():
        assert torch.equal(halves.state_dict()[name], tensor), name
