"""Training of one classifier on one split: a plain loop on Lightning Fabric, resumed at the step where it was stopped.

What a step does follows from (seed, step) and the data, so the state is weights, moments, and what was found so far.
Folder of a split: state.pt until it is finished; environment.json; metrics.csv, a row a test;
test-{best,last,averaged}.npz, outputs of the test clips; last.safetensors (and averaged.safetensors), the weights that
were trained; result.json.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ..data.loader import load
from ..data.manifest import Manifest
from ..data.statistics import measure
from ..encoder import Encoder
from ..errors import InputError
from ..evaluation import metrics
from ..evaluation.splits import Split
from ..features import LogMel
from ..random import fold, key
from ..runs.directory import StepLog
from ..runs.environment import environment
from ..runs.snapshot import read_state, save_state
from ..storage.atomic import clear_leftovers, whole, write_json
from ..storage.progress import passing_bar_style
from ..training.interrupt import Signals
from ..training.optimizer import clip_gradients
from ..training.step import accelerator
from .augment import augmented
from .batches import ClipBatch, ClipsToTest, Reader, TrainingClips
from .classifier import build_classifier
from .outputs import SCORES, Outputs, save_outputs
from .recipe import Recipe

MEASURED_CLIPS = 2000  # of a large data set, for its mean and std


@dataclass
class Job:
    """One split to fine-tune on, with one seed."""

    encoder: Encoder
    recipe: Recipe
    manifest: Manifest
    targets: Tensor
    """bool [rows of the manifest, classes]"""
    split: Split
    seed: int
    folder: Path

    @property
    def multi(self) -> bool:
        return self.recipe.task == "multi"


@dataclass
class Progress:
    """What has been found so far, besides weights and moments."""

    step: int = 0
    loss_sum: float = 0.0
    """of the steps since the last row of metrics.csv"""
    loss_steps: int = 0
    best: dict = field(default_factory=dict)
    """epoch, step and score of the best test so far"""
    averaged: int = 0
    """epochs whose weights are in the sum"""
    bad: dict[str, str] = field(default_factory=dict)
    """path -> reason of files that could not be read"""
    normalisation: dict = field(default_factory=dict)


def fit(job: Job, signals: Signals) -> str | None:
    """Fine-tune on one split, into its folder; go on where a state is. Returns why it was stopped, if it was.

    Raises InputError when clips cannot be read, FloatingPointError when the loss is not finite.
    """
    recipe, rows = job.recipe, job.split.train
    job.folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(job.folder)
    fabric = Fabric(accelerator=accelerator(), devices=1, precision="32-true")
    write_json(job.folder / "environment.json", environment(fabric.device, world=1))
    trainer = _Trainer(fabric, job)
    progress, sums = trainer.restore()
    log = StepLog(job.folder / "metrics.csv", progress.step)
    epoch_steps, total = recipe.steps_per_epoch(len(rows)), recipe.total_steps(len(rows))
    clips = TrainingClips(trainer.reader, rows, job.targets, recipe, trainer.samples, job.seed)
    loader = load(clips, progress.step, total, recipe.workers)
    bar = tqdm(total=total, initial=progress.step, unit="step", desc=job.folder.name, **passing_bar_style())
    signals.patient = True
    try:
        for batch in loader:
            progress.loss_sum += trainer.step(batch)
            progress.loss_steps += 1
            progress.bad |= dict(batch.bad)
            progress.step = done = batch.step + 1
            bar.update()
            epoch, ends = done / epoch_steps, done % epoch_steps == 0 or done == total
            if ends and recipe.average_from and epoch >= recipe.average_from:
                now = trainer.network.trained()
                sums = {name: sums[name] + tensor if sums else tensor.clone() for name, tensor in now.items()}
                progress.averaged += 1
            tested = done == total or done % (epoch_steps * recipe.evaluate_every) == 0
            if tested:
                trainer.test(progress, log, epoch, last=done == total)
            if signals.requested or ends or done % recipe.checkpoint_every == 0:
                trainer.save(progress, sums)
            if signals.requested and done < total:
                return signals.requested
    finally:
        bar.close()
        loader.close()
    trainer.finish(progress, sums)
    return None


class _Trainer:
    """Network, optimiser and clips of a job on their device."""

    def __init__(self, fabric: Fabric, job: Job):
        recipe = job.recipe
        self.fabric, self.job = fabric, job
        features = job.encoder.config.features
        self.reader = Reader(job.manifest, features.sample_rate, recipe.cache_mb)
        self.front_end = LogMel.from_config(features).to(fabric.device)
        self.network = build_classifier(job.encoder, recipe, job.targets.shape[1], job.seed)
        self.frames = self.network.frames
        self.samples = (self.frames - 1) * self.front_end.hop + self.front_end.frame
        kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        groups = self.network.param_groups(recipe.layer_decay)
        optimizer = kind(groups, lr=0.0, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True)
        self.model, self.optimizer = fabric.setup(self.network, optimizer)
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    # --- a step -----------------------------------------------------------------------------------------------------

    def step(self, batch: ClipBatch) -> float:
        """One optimiser step; returns its loss."""
        recipe, step, device = self.job.recipe, batch.step, self.fabric.device
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate_at(step, len(self.job.split.train), group["scale"])
        keys = key(self.job.seed, step, torch.arange(len(batch.waves)), "augment").to(device)
        raw = self.front_end.fit(self.front_end(batch.waves.to(device), batch.lengths.to(device)), self.frames)
        x, targets = augmented(raw, batch.targets.to(device), recipe, self.front_end, keys)
        drops = None if recipe.frozen or not recipe.drop_path else fold(keys, "drop")
        loss, size = 0.0, -(-len(x) // recipe.accumulate)
        for part in torch.arange(len(x), device=device).split(size):
            with self._arithmetic():
                logits = self.model(x[part], None if drops is None else drops[part])
            share = self._loss(logits.float(), targets[part]) * len(part) / len(x)
            self.fabric.backward(share)
            loss += share.item()
        norm = clip_gradients(self.parameters, recipe.clip, "global")
        if not math.isfinite(loss + norm.item()):
            raise FloatingPointError(
                f"{self.job.folder}: the loss ({loss}) or a gradient is not finite at step {step}; try a lower rate "
                f"(now {recipe.rate:g}), a longer warmup, or precision=fp32. The state saved last is intact"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.job.recipe.loss == "bce":
            return F.binary_cross_entropy_with_logits(logits, targets)
        return F.cross_entropy(logits, targets, label_smoothing=self.job.recipe.smoothing)

    def _arithmetic(self):
        # Not Fabric's own "bf16-mixed", which would round what comes in before the network sees it.
        return torch.autocast(self.fabric.device.type, torch.bfloat16, enabled=self.job.recipe.precision == "bf16")

    # --- tests ------------------------------------------------------------------------------------------------------

    def test(self, progress: Progress, log: StepLog, epoch: float, last: bool) -> None:
        """A row of metrics.csv; the outputs of the test clips, where they are the best so far or the last."""
        split, step = self.job.split, progress.step
        row = {"step": step - 1, "epoch": epoch, "loss": progress.loss_sum / progress.loss_steps}
        row["rate"] = self.job.recipe.rate_at(step - 1, len(split.train))
        progress.loss_sum, progress.loss_steps = 0.0, 0
        names = SCORES[self.job.multi]
        chooser = None
        if len(split.valid):
            chooser = self.outputs(split.valid, progress.bad).scores(self.job.multi)
            row |= {f"valid_{name}": chooser[name] for name in names}
        main = metrics.MAIN[self.job.multi]
        better = chooser is None or not progress.best or chooser[main] > progress.best["score"]
        found = self.outputs(split.test, progress.bad) if better or last else None
        scores = found.scores(self.job.multi) if found else dict.fromkeys(names, math.nan)
        log.write(row | {f"test_{name}": scores[name] for name in names})
        log.sync()
        score = (chooser or scores)[main]
        if not progress.best or score > progress.best["score"]:
            progress.best = {"epoch": epoch, "step": step, "score": score}
            save_outputs(self.job.folder / "test-best.npz", found)
        if last:
            save_outputs(self.job.folder / "test-last.npz", found)

    @torch.no_grad()
    def outputs(self, rows: np.ndarray, bad: dict[str, str]) -> Outputs:
        """Logits of the clips in `rows` that can be read, the mean over a clip's windows.

        Raises InputError when none can, or a class that has clips loses all of them.
        """
        kept, found = [], []
        clips = ClipsToTest(self.reader, rows, self.job.recipe, self.samples)
        loader = load(clips, 0, clips.batches, self.job.recipe.workers)
        try:
            for batch in loader:
                for row, *clip in batch:
                    if len(clip) == 2:
                        kept.append(row)
                        found.append(self._logits(*clip))
                    else:
                        bad[self.reader.rows[row][0]] = clip[0].removeprefix(f"{self.reader.rows[row][0]}: ")
        finally:
            loader.close()
        self._check_tested(rows, np.array(kept, dtype=np.int64), bad)
        return Outputs.of(self.job, np.array(kept, dtype=np.int64), torch.stack(found).cpu().numpy())

    def _logits(self, windows: np.ndarray, length: int) -> Tensor:
        """float32 [classes], the mean over the windows [n, samples] of a clip, `length` samples of each being audio."""
        parts = []
        for part in torch.from_numpy(windows).split(self.job.recipe.batch_size):
            lengths = torch.full((len(part),), length, device=self.fabric.device)
            raw = self.front_end.fit(self.front_end(part.to(self.fabric.device), lengths), self.frames)
            with self._arithmetic():
                parts.append(self.model(self.front_end.normalise(raw)).float())
        return torch.cat(parts).mean(0)

    def _check_tested(self, rows: np.ndarray, kept: np.ndarray, bad: dict[str, str]) -> None:
        """A class whose every test clip was unreadable would silently change the task."""
        gone = self.job.targets[rows].any(0) & ~self.job.targets[kept].any(0)
        if gone.any():
            lost = int(gone.int().argmax())
            path = self.reader.rows[rows[self.job.targets[rows, lost].numpy()][0]][0]
            name = self.job.manifest.classes[lost]
            raise InputError(f"{self.job.split.name}: no clip of class {name!r} can be read; {path}: {bad[path]}")

    # --- what is kept -----------------------------------------------------------------------------------------------

    def restore(self) -> tuple[Progress, dict[str, Tensor]]:
        """Progress, and sum of averaged weights, of the saved state; of a beginning where there is none."""
        path, sums = self.job.folder / "state.pt", {}
        progress = Progress()
        if path.is_file():
            state = read_state(path, self.fabric.device)
            self.network.take(state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
            progress, sums = Progress(**state["progress"]), state["sums"]
        progress.normalisation = progress.normalisation or self._normalisation()
        self.front_end.mean, self.front_end.std = progress.normalisation["mean"], progress.normalisation["std"]
        return progress, sums

    def _normalisation(self) -> dict:
        """Mean and std of the log-mel, and whose they are."""
        recipe, features = self.job.recipe, self.job.encoder.config.features
        if recipe.statistics == "recipe":
            return {"source": "the recipe's", "mean": recipe.mean, "std": recipe.std}
        if recipe.statistics == "encoder":
            return {"source": "those of pretraining", "mean": features.mean, "std": features.std}
        train = self.job.manifest.subset(self.job.split.train)
        mean, std, *_ = measure(train, features, MEASURED_CLIPS)
        clips = min(len(train), MEASURED_CLIPS)
        return {"source": f"measured on {clips} of {len(train)} training clips", "mean": mean, "std": std}

    def save(self, progress: Progress, sums: dict[str, Tensor]) -> None:
        """All that a resume needs."""
        state = {"weights": self.network.trained(), "optimizer": self.optimizer.state_dict(), "sums": sums}
        save_state(self.job.folder / "state.pt", state | {"progress": vars(progress)})

    def finish(self, progress: Progress, sums: dict[str, Tensor]) -> None:
        """The weights, their averages' outputs, and the result; after that there is nothing to resume."""
        job = self.job
        self._save_weights("last")
        if progress.averaged:
            self.network.take({name: tensor / progress.averaged for name, tensor in sums.items()})
            save_outputs(job.folder / "test-averaged.npz", self.outputs(job.split.test, progress.bad))
            self._save_weights("averaged")
        result = {
            "split": job.split.name,
            "seed": job.seed,
            "train_clips": len(job.split.train),
            "chosen_on": "valid" if len(job.split.valid) else "test",
            "best": {name: progress.best[name] for name in ("epoch", "step")},
            "last": {"epoch": progress.step / job.recipe.steps_per_epoch(len(job.split.train)), "step": progress.step},
            "averaged": {"epochs": progress.averaged} if progress.averaged else None,
            "normalisation": progress.normalisation,
            "skipped": sorted(map(list, progress.bad.items())),
        }
        write_json(job.folder / "result.json", result)
        (job.folder / "state.pt").unlink(missing_ok=True)

    def _save_weights(self, name: str) -> None:
        tensors = {one: tensor.cpu().contiguous() for one, tensor in self.network.trained().items()}
        with whole(self.job.folder / f"{name}.safetensors") as temporary:
            save_file(tensors, temporary)
