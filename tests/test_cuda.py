"""Whole steps on CUDA without a GPU (cuda_case.py): no tensor is on the wrong device, and the numbers are the CPU's."""

import contextlib

import numpy as np
import pytest
import torch
import whole_batch_case as case
from cuda_case import fake_cuda, to_cuda

from asit_lab import Encoder, load_config
from asit_lab.config import RunConfig
from asit_lab.data import load_manifest
from asit_lab.evaluation.splits import Split
from asit_lab.finetuning import load_recipe
from asit_lab.finetuning.batches import TrainingClips, targets_of
from asit_lab.finetuning.loop import _Trainer
from asit_lab.finetuning.task import FinetuneTask
from asit_lab.finetuning.team import Team
from asit_lab.objectives import Objective, build_objective
from asit_lab.training.nonfinite import _at_fault
from asit_lab.training.step import Stepper

pytestmark = pytest.mark.filterwarnings("ignore:CUDA is not available")  # so autocast to bf16 is off
CONFIGURATIONS = case.configurations()
OFTEN = ("smoke", "micro-asda")  # of the others, too, each takes seconds


class OneDevice:
    """What Stepper and Team need of Fabric, on a device that Fabric does not find here."""

    world_size, global_rank = 1, 0

    def __init__(self, device: str):
        self.device = torch.device(device)

    def to_device(self, module):
        return to_cuda(module) if self.device.type == "cuda" else module

    def barrier(self):
        pass

    def setup(self, module, optimizer):
        if self.device.type == "cuda":
            before = list(module.parameters())
            moved = dict(zip(map(id, before), to_cuda(module).parameters(), strict=True))
            for group in optimizer.param_groups:
                group["params"] = [moved[id(parameter)] for parameter in group["params"]]
        return module, optimizer

    def no_backward_sync(self, module, enabled):
        return contextlib.nullcontext()

    def backward(self, loss):
        loss.backward()

    def all_reduce(self, values, reduce_op):
        return values


def steps(cfg: RunConfig, objective: Objective, device: str) -> dict[str, object]:
    """Two steps, what is logged of them and what a picture is drawn from."""
    stepper = Stepper(OneDevice(device), cfg, objective, case.CLIPS)
    losses = []
    for step in range(2):
        batch = case.batch_of(step, objective.views, 0, 1)
        gradients = stepper.gradients(batch)
        assert gradients.finite and gradients.stop is None
        stepper.apply(step)
        losses.append({name: loss.item() for name, loss in gradients.losses.items()})
    samples = {name: tensor.cpu() for name, tensor in objective.samples(batch.to(device)).items()}
    return {"losses": losses, "health": objective.health(), "samples": samples}


@pytest.mark.parametrize("parts", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in CONFIGURATIONS]
)
def test_two_steps_of_every_objective(name, parts):
    cfg = CONFIGURATIONS[name].with_overrides([f"train.accumulate={parts}"])
    here = steps(cfg, build_objective(cfg, case.CLIPS), "cpu")
    objective = build_objective(cfg, case.CLIPS)
    with fake_cuda():
        there = steps(cfg, objective, "cuda")
    assert {parameter.device.type for parameter in objective.parameters()} == {"cuda"}
    for ours, theirs in zip(there["losses"], here["losses"], strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3)
    assert there["health"].keys() == here["health"].keys() and there["samples"].keys() == here["samples"].keys()


@pytest.mark.parametrize("name", [pytest.param("micro", marks=pytest.mark.slow), "micro-asda"])
def test_finding_what_is_not_finite(name):
    cfg = CONFIGURATIONS[name]
    objective = build_objective(cfg, case.CLIPS)
    with fake_cuda():
        stepper = Stepper(OneDevice("cuda"), cfg, objective, case.CLIPS)
        batch = case.batch_of(0, objective.views, 0, 1)
        assert _at_fault(batch.to("cuda"), stepper)[0] == "nothing"
        batch.waves[3] = torch.nan
        assert _at_fault(batch.to("cuda"), stepper) == ("samples", [batch.index[3].item()])


@pytest.mark.parametrize("preset", [pytest.param("smoke", marks=pytest.mark.slow), "micro-asda"])
def test_an_encoder(preset):
    small = ["data.crop_seconds=1.0", "model.width=48", "model.depth=2", "model.heads=3"]
    small += ["asda.decoder_width=32", "asda.decoder_layers=2"]
    enc = Encoder.random(load_config(preset, small), 1)
    wave = 0.1 * torch.randn(2, 40000, generator=torch.Generator().manual_seed(0))
    calls = {
        "embed": lambda e: e.embed(wave, 16000, "mean+std"),
        "several": lambda e: e.pooled([wave[0], wave[1, :9000]], 16000),
        "tokens": lambda e: e.tokens(wave, 16000),
        "attention": lambda e: e.attention(wave, 16000).map,
        "differentiable": lambda e: e(wave),
    }
    if enc.reconstructs:
        calls["reconstruct"] = lambda e: e.reconstruct(wave, 16000).reconstructed
        calls["own mask"] = lambda e: e.reconstruct(wave, 16000, torch.ones(e.log_mel(wave, 16000).shape[1:])).mask
    else:
        calls["prediction_error"] = lambda e: e.prediction_error(wave, 16000)
    here = {name: call(enc) for name, call in calls.items()}
    with fake_cuda():
        enc = to_cuda(enc)
        for name, call in calls.items():
            result = call(enc)
            assert result.device.type == "cuda", name
            torch.testing.assert_close(result.shadow.detach(), here[name].detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        [],
        pytest.param(["head=layers"], marks=pytest.mark.slow),
        pytest.param(["frozen=true"], marks=pytest.mark.slow),
        pytest.param(["noise=true", "shift_frames=3", "mixup=1.0"], marks=pytest.mark.slow),
    ],
)
def test_fine_tuning(changes, tmp_path):
    """Two steps and the answers to two windows of a clip."""
    recipe = load_recipe("smoke", [*changes, "mixup_of=log-mel"])
    manifest = load_manifest("synth:20")
    split = Split("half", np.arange(0, 20, 2), np.arange(1, 20, 2))
    windows = 0.1 * np.random.default_rng(0).standard_normal((2, 16000)).astype(np.float32)

    def trainer(device: str) -> _Trainer:
        encoder = Encoder.random(load_config("smoke"), seed=0)
        task = FinetuneTask(encoder, recipe, manifest, targets_of(manifest), split, 0, tmp_path)
        trainer = _Trainer(Team(OneDevice(device)), task)
        trainer.front_end.mean, trainer.front_end.std = -7.0, 4.5
        return trainer

    here = trainer("cpu")
    clips = TrainingClips(here.reader, split.train, here.task.targets, recipe, here.samples, 0)
    batches = [clips.batch(step) for step in range(2)]
    losses, logits = [here.step(batch) for batch in batches], here._logits(windows, 12000)
    with fake_cuda():
        there = trainer("cuda")
        assert [there.step(batch) for batch in batches] == pytest.approx(losses, rel=2e-3)
        answers = there._logits(windows, 12000)
        assert answers.device.type == "cuda"
        torch.testing.assert_close(answers.shadow.detach(), logits.detach(), rtol=1e-2, atol=1e-3)


def test_the_check_itself():
    with fake_cuda():
        there = torch.ones(3).to("cuda")
        assert there[there > 0].device.type == "cuda" and bool((there > 0).all())
        with pytest.raises(RuntimeError, match="two different devices"):
            there + torch.ones(3)
