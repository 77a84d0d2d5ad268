"""Ten steps of every preset, shrunk, on batches cut into parts and spread over processes; for test_whole_batch.py.

python -m torch.distributed.run --nproc_per_node 2 tests/whole_batch_case.py OUT.pt
"""

import sys

import torch

from asit_lab.config import RunConfig, load_config, preset_names
from asit_lab.data import Batch
from asit_lab.objectives import build_objective
from asit_lab.training.step import Stepper, launch

STEPS, CLIPS, BATCH, RATE = 10, 48, 16, 8000
SMALL = [
    "features.sample_rate=8000",
    "data.crop_seconds=0.5",
    "data.mix=0.3",
    "model.width=16",
    "model.depth=2",
    "model.heads=2",
    "model.drop_path=0.4",
    "mask.kinds={zeros: 1, noise: 1, alien: 1, time: 1, none: 1}",
    "mask.ratio=0.9",
    "mask.ratio_min=0.1",
    "heads.hidden=16",
    "heads.bottleneck=8",
    "heads.local_out=12",
    "heads.global_out=12",
    "heads.decoder_hidden=16",
    "heads.decoder_bottleneck=8",
    "asda.decoder_width=16",
    "asda.decoder_layers=2",
    "asda.decoder_groups=4",
    "asda.visible=0.34",
    "asda.block=1",
    "asda.clones=3",
    f"train.batch_size={BATCH}",
    f"train.steps={STEPS}",
    "train.precision=fp32",
    "optim.rate=1e-2",
    f"optim.rate_batch={BATCH}",
    "optim.warmup=2",
]
ONE_LOSS_OFF = ["objective.weights={reconstruction: 2.0, global: 1.0}", "asda.weights={frame: 1.0}"]
ONLY_LOCAL = ["objective.weights={local: 1.0}", "asda.weights={utterance: 1.0}"]
UNCERTAIN = ["objective.combine=uncertainty", "objective.global_kind=contrastive"]


def configurations() -> dict[str, RunConfig]:
    """Every preset as it is and with one loss off, and two more mixtures of losses."""
    found = {}
    for name in preset_names():
        mel = load_config(name).model.patch[1]
        small = [*SMALL, f"features.mel_bins={max(32, mel)}"]
        found[name] = load_config(name, small)
        found[f"{name}, one loss off"] = load_config(name, [*small, *ONE_LOSS_OFF])
    small = [*SMALL, "features.mel_bins=32"]
    found["only local"] = load_config("asit-vit-s", [*small, *ONLY_LOCAL])
    found["told the mask"] = load_config("asit-vit-s", [*small, "model.mask_input=true", *UNCERTAIN[1:]])
    found["uncertainty"] = load_config("asit-vit-s", [*small, *UNCERTAIN])
    return found


def batch_of(step: int, views: int, rank: int, world: int) -> Batch:
    """A process's slice of a batch in which clips end early and some are of one recording."""
    generator = torch.Generator().manual_seed(step)
    waves = 0.1 * torch.randn(BATCH, views, RATE // 2, generator=generator)
    waves *= torch.linspace(0.05, 2.0, BATCH)[:, None, None]
    lengths = torch.randint(RATE // 8, RATE // 2 + 1, (BATCH, views), generator=generator)
    lengths[::3] = RATE // 2
    waves *= torch.arange(RATE // 2) < lengths[..., None]
    share = BATCH // world
    own = slice(rank * share, (rank + 1) * share)
    row = torch.randperm(CLIPS, generator=generator)[:BATCH]
    return Batch(waves[own], lengths[own], row[own], torch.arange(BATCH)[own], step, recording=(row // 2)[own])


def train(cfg: RunConfig, accumulate: int) -> dict[str, torch.Tensor]:
    """Losses of each step and the weights after the last, in double precision, so that only real differences show."""
    fabric = launch()
    cfg = cfg.with_overrides([f"train.accumulate={accumulate}"])
    objective = build_objective(cfg, CLIPS).double()
    stepper = Stepper(fabric, cfg, objective, CLIPS)
    losses = []
    for step in range(STEPS):
        gradients = stepper.gradients(batch_of(step, objective.views, fabric.global_rank, fabric.world_size))
        stepper.apply(step)
        losses.append(torch.stack([loss.double() for loss in gradients.losses.values()]))
    weights = [tensor.double().flatten() for tensor in objective.state_dict().values()]
    return {"losses": torch.stack(losses), "weights": torch.cat(weights)}


def results(accumulate: int) -> dict[str, dict[str, torch.Tensor]]:
    return {name: train(cfg, accumulate) for name, cfg in configurations().items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Four processes are four parts already, and take the longest.
    everything = {parts: results(parts) for parts in ((1, 2) if launch().world_size == 2 else (1,))}
    if torch.distributed.get_rank() == 0:
        torch.save(everything, sys.argv[1])
