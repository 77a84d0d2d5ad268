"""Trains one classifier on one split: a plain loop on Lightning Fabric, which resumes at the step where it was stopped.

A step depends only on (seed, step) and the data, so the state is weights, moments, and the results so far.
Folder of a split: state.pt until it is finished; environment.json; metrics.csv, a row per test;
test-{best,last,averaged}.npz, outputs of the test clips; last.safetensors (and averaged.safetensors, and
best.safetensors where the best epoch is chosen on valid), the weights that were trained; model.safetensors, the
classifier with the weights whose score is reported; result.json.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ..arithmetic import autocast
from ..data.loader import load_batches
from ..data.statistics import measure
from ..errors import InputError
from ..evaluation import metrics
from ..evaluation.calibration import best_thresholds, fit_temperature
from ..evaluation.classifiers import probabilities
from ..features import LogMel
from ..random import fold, key
from ..runs.directory import StepLog
from ..runs.environment import environment
from ..runs.snapshot import read_state, save_state
from ..storage.atomic import atomic_write, clear_leftovers, write_json
from ..storage.progress import passing_bar_style
from ..training.interrupt import Signals
from ..training.optimizer import clip_gradients
from .augment import augmented
from .batches import ClipBatch, ClipsToTest, Reader, TrainingClips
from .classifier import MODEL, Classifier, classifier_metadata
from .linear_start import fit_head, standardise
from .network import build_classifier, mean_over_windows, windows_forward
from .outputs import SCORES, Outputs, read_outputs, save_outputs
from .task import FinetuneState, FinetuneTask
from .team import Team

MEASURED_CLIPS = 2000  # of a large data set, for its mean and std


def fit_task(task: FinetuneTask, signals: Signals, team: Team) -> str | None:
    """Fine-tune on one split, into its folder; resume from a state. Returns why it was stopped, if it was.

    Raises InputError when clips cannot be read, FloatingPointError when the loss is not finite.
    """
    recipe, rows = task.recipe, task.split.train
    if team.leads:
        task.folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(task.folder)
        write_json(task.folder / "environment.json", environment(team.device, world=team.size))
    trainer = _Trainer(team, task)
    progress, sums = trainer.restore()
    log = StepLog(task.folder / "metrics.csv", progress.step) if team.leads else None
    epoch_steps, total = recipe.steps_per_epoch(len(rows)), recipe.total_steps(len(rows))
    clips = TrainingClips(trainer.reader, rows, task.targets, recipe, trainer.samples, task.seed)
    loader = load_batches(clips, progress.step, total, recipe.workers)
    style = passing_bar_style() | {"disable": not team.leads}
    bar = tqdm(total=total, initial=progress.step, unit="step", desc=task.folder.name, **style)
    signals.patient = True
    try:
        for batch in loader:
            progress.loss_sum += trainer.step(batch)
            progress.loss_steps += 1
            progress.bad |= dict(batch.bad)
            progress.step = steps_done = batch.step + 1
            bar.update()
            epoch, ends = steps_done / epoch_steps, steps_done % epoch_steps == 0 or steps_done == total
            if ends and recipe.average_from and epoch >= recipe.average_from:
                current = trainer.network.trained()
                sums = {name: sums[name] + tensor if sums else tensor.clone() for name, tensor in current.items()}
                progress.averaged += 1
            tested = steps_done == total or steps_done % (epoch_steps * recipe.evaluate_every) == 0
            if tested:
                trainer.test(progress, log, epoch, last=steps_done == total)
            stop = team.stop(signals.requested)
            if stop or ends or steps_done % recipe.checkpoint_every == 0:
                trainer.save(progress, sums)
            if stop and steps_done < total:
                return stop
    finally:
        bar.close()
        loader.close()
    trainer.finish(progress, sums)
    return None


class _Trainer:
    """Network, optimiser and clips of a task on their device."""

    def __init__(self, team: Team, task: FinetuneTask):
        recipe = task.recipe
        self.team, self.device, self.task = team, team.device, task
        features = task.encoder.config.features
        self.reader = Reader(task.manifest, features.sample_rate, recipe.cache_mb)
        self.front_end = LogMel.from_config(features).to(self.device)
        network = build_classifier(task.encoder, recipe, task.targets.shape[1], task.seed)
        self.network = team.fabric.to_device(network)
        self.frames = self.network.frames
        self.samples = (self.frames - 1) * self.front_end.hop + self.front_end.frame
        kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        groups = self.network.param_groups(recipe.layer_decay)
        self.optimizer = kind(groups, lr=0.0, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    # --- a step -----------------------------------------------------------------------------------------------------

    def step(self, batch: ClipBatch) -> float:
        """One optimiser step, over the clips of all processes; returns its loss."""
        recipe, step, device = self.task.recipe, batch.step, self.device
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate_at(step, len(self.task.split.train), group["scale"])
        keys = key(self.task.seed, step, torch.arange(len(batch.waves)), "augment").to(device)
        raw = self.front_end.fit(self.front_end(batch.waves.to(device), batch.lengths.to(device)), self.frames)
        x, targets = augmented(raw, batch.targets.to(device), recipe, self.front_end, keys)
        drops = None if recipe.frozen or not recipe.drop_path else fold(keys, "drop")
        loss, size = 0.0, -(-len(x) // recipe.accumulate)
        for part in torch.arange(len(x), device=device).split(size):
            own = self.team.share(part)
            share = len(own) / len(x)
            own = own if len(own) else part[:1]  # with more processes than clips: gradients of 0
            with self._arithmetic():
                logits = self.network(x[own], None if drops is None else drops[own])
            own_loss = self._loss(logits.float(), targets[own]) * share
            own_loss.backward()
            loss += own_loss.item()
        loss = self.team.sum(loss)
        self.team.add_gradients(self.parameters)
        norm = clip_gradients(self.parameters, recipe.clip, "global")
        if not math.isfinite(loss + norm.item()):
            raise FloatingPointError(
                f"{self.task.folder}: the loss ({loss}) or a gradient is not finite at step {step}; try a lower rate "
                f"(now {recipe.rate:g}), a longer warmup, or precision=fp32. The state saved last is intact"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.task.recipe.loss == "bce":
            return F.binary_cross_entropy_with_logits(logits, targets)
        return F.cross_entropy(logits, targets, label_smoothing=self.task.recipe.smoothing)

    def _arithmetic(self):
        return autocast(self.task.recipe.precision, self.device.type)

    # --- tests ------------------------------------------------------------------------------------------------------

    def test(self, progress: FinetuneState, log: StepLog | None, epoch: float, last: bool) -> None:
        """A row of metrics.csv; the outputs of the test clips, where they are the best so far or the last."""
        split, step = self.task.split, progress.step
        row = {"step": step - 1, "epoch": epoch, "loss": progress.loss_sum / progress.loss_steps}
        row["rate"] = self.task.recipe.rate_at(step - 1, len(split.train))
        progress.loss_sum, progress.loss_steps = 0.0, 0
        names = SCORES[self.task.multi]
        chooser = None
        if len(split.valid):
            chooser = self.outputs(split.valid, progress.bad).scores(self.task.multi)
            row |= {f"valid_{name}": chooser[name] for name in names}
        main = metrics.MAIN[self.task.multi]
        better = chooser is None or not progress.best or chooser[main] > progress.best["score"]
        tested_outputs = self.outputs(split.test, progress.bad) if better or last else None
        scores = tested_outputs.scores(self.task.multi) if tested_outputs else dict.fromkeys(names, math.nan)
        if log:
            log.write(row | {f"test_{name}": scores[name] for name in names})
            log.sync()
        score = (chooser or scores)[main]
        if not progress.best or score > progress.best["score"]:
            progress.best = {"epoch": epoch, "step": step, "score": score}
            self._save_outputs("best", tested_outputs)
            if self.task.headline == "best":
                self._save_weights("best")
        if last:
            self._save_outputs("last", tested_outputs)

    @torch.no_grad()
    def outputs(self, rows: np.ndarray, bad: dict[str, str]) -> Outputs:
        """Logits of the clips in `rows` that can be read, the mean over a clip's windows.

        Raises InputError when none can, or a class that has clips loses all of them.
        """
        clips: list[tuple[int, Tensor | None]] = []
        tested = ClipsToTest(self.reader, self.team.share(rows), self.task.recipe, self.samples)
        for row, clip in self._clips(tested, "", bad):
            clips.append((row, None if clip is None else self._logits(*clip).cpu()))
        readable = [(row, logits) for row, logits in self.team.gather(clips) if logits is not None]
        read_rows = np.array([row for row, _ in readable], dtype=np.int64)
        self._check_tested(rows, read_rows, bad)
        return Outputs.of(self.task, read_rows, torch.stack([logits for _, logits in readable]).numpy())

    def _clips(
        self, clips: ClipsToTest, description: str, bad: dict[str, str]
    ) -> Iterator[tuple[int, tuple[np.ndarray, int] | None]]:
        """(row, windows and their length), or (row, None) for a clip that cannot be read; those of all processes are
        in `bad` at the end. description: of the progress bar, which is not shown without."""
        own_bad: dict[str, str] = {}
        loader = load_batches(clips, 0, clips.batches, self.task.recipe.workers)
        style = passing_bar_style() | {"disable": not (description and self.team.leads)}
        try:
            for batch in tqdm(loader, description, clips.batches, unit="batch", **style):
                for row, *clip in batch:
                    if len(clip) == 1:
                        path = self.reader.rows[row][0]
                        own_bad[path] = clip[0].removeprefix(f"{path}: ")
                    yield row, (clip[0], clip[1]) if len(clip) == 2 else None
        finally:
            loader.close()
        bad |= dict(self.team.gather(list(own_bad.items())))

    def _logits(self, windows: np.ndarray, length: int) -> Tensor:
        """float32 [classes], the mean over the windows [n, samples] of a clip, `length` samples of each being audio."""

        def forward(x: Tensor) -> Tensor:
            with self._arithmetic():
                return self.network(x)

        stretches = torch.from_numpy(windows)
        return mean_over_windows(forward, self.front_end, stretches, length, self.frames, self.task.recipe.batch_size)

    def _check_tested(self, rows: np.ndarray, read_rows: np.ndarray, bad: dict[str, str]) -> None:
        """A class whose every test clip was unreadable would silently change the task."""
        unreadable = self.task.targets[rows].any(0) & ~self.task.targets[read_rows].any(0)
        if unreadable.any():
            lost = int(unreadable.int().argmax())
            path = self.reader.rows[rows[self.task.targets[rows, lost].numpy()][0]][0]
            name = self.task.manifest.classes[lost]
            raise InputError(f"{self.task.split.name}: no clip of class {name!r} can be read; {path}: {bad[path]}")

    # --- what is kept -----------------------------------------------------------------------------------------------

    def restore(self) -> tuple[FinetuneState, dict[str, Tensor]]:
        """Progress and sum of averaged weights of the saved state; initial ones where there is none."""
        path, sums = self.task.folder / "state.pt", {}
        progress = FinetuneState()
        if path.is_file():
            state = read_state(path, self.device)
            self.network.take(state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
            progress, sums = FinetuneState(**state["progress"]), state["sums"]
        progress.normalisation = progress.normalisation or self.team.from_first(self._normalisation)
        self.front_end.mean, self.front_end.std = progress.normalisation["mean"], progress.normalisation["std"]
        if self.task.recipe.head == "mean+std" and not progress.step:
            fit_head(self.network, *self._training_statistics(progress.bad), self.task.multi)
            self.network.take(self.team.from_first(self.network.trained))  # equal to the last bit
        self.team.wait()  # every process has read what the first is about to overwrite
        return progress, sums

    @torch.no_grad()
    def _training_statistics(self, bad: dict[str, str]) -> tuple[Tensor, Tensor]:
        """Statistics [windows, P] and targets [windows, K] of the training clips, each cut into windows as in tests."""
        clips: list[tuple[int, Tensor | None]] = []
        trained_on = ClipsToTest(self.reader, self.team.share(self.task.split.train), self.task.recipe, self.samples)
        for row, clip in self._clips(trained_on, f"{self.task.folder.name}, embedding training clips", bad):
            if clip is None:
                clips.append((row, None))
            else:
                stretches, length = torch.from_numpy(clip[0]), clip[1]
                part = windows_forward(self.network.statistics, self.front_end, stretches, length, self.frames)
                clips.append((row, part.cpu()))
        readable = [(row, part.to(self.device)) for row, part in self.team.gather(clips) if part is not None]
        targets = [self.task.targets[row].expand(len(part), -1) for row, part in readable]
        return torch.cat([part for _, part in readable]), torch.cat(targets)

    def _normalisation(self) -> dict:
        """Mean and std of the log-mel, and their source."""
        recipe, features = self.task.recipe, self.task.encoder.config.features
        if recipe.statistics == "recipe":
            return {"source": "the recipe's", "mean": recipe.mean, "std": recipe.std}
        if recipe.statistics == "encoder":
            return {"source": "those of pretraining", "mean": features.mean, "std": features.std}
        train = self.task.manifest.subset(self.task.split.train)
        mean, std, *_ = measure(train, features, MEASURED_CLIPS)
        clips = min(len(train), MEASURED_CLIPS)
        return {"source": f"measured on {clips} of {len(train)} training clips", "mean": mean, "std": std}

    def save(self, progress: FinetuneState, sums: dict[str, Tensor]) -> None:
        """Save everything a resume needs; no process goes on, or ends, before."""
        if self.team.leads:
            self._write_state(progress, sums)
        self.team.wait()

    def _write_state(self, progress: FinetuneState, sums: dict[str, Tensor]) -> None:
        state = {"weights": self.network.trained(), "optimizer": self.optimizer.state_dict(), "sums": sums}
        save_state(self.task.folder / "state.pt", state | {"progress": vars(progress)})

    def finish(self, progress: FinetuneState, sums: dict[str, Tensor]) -> None:
        """Save weights, outputs of the averaged weights, and the result; the state to resume from is removed."""
        task = self.task
        self._save_weights("last")
        if progress.averaged:
            self.network.take({name: tensor / progress.averaged for name, tensor in sums.items()})
            if task.recipe.head == "mean+std":
                standardise(self.network, self._training_statistics(progress.bad)[0])
            self._save_outputs("averaged", self.outputs(task.split.test, progress.bad))
            self._save_weights("averaged")
        elif task.headline == "best":
            self.network.take(load_file(task.folder / "best.safetensors", str(self.device)))
        calibration = self._save_model(progress)
        result = {
            "split": task.split.name,
            "seed": task.seed,
            "train_clips": len(task.split.train),
            "chosen_on": "valid" if len(task.split.valid) else "test",
            "best": {name: progress.best[name] for name in ("epoch", "step")},
            "last": {
                "epoch": progress.step / task.recipe.steps_per_epoch(len(task.split.train)),
                "step": progress.step,
            },
            "averaged": {"epochs": progress.averaged} if progress.averaged else None,
            "normalisation": progress.normalisation,
            "calibration": calibration,
            "skipped": sorted(map(list, progress.bad.items())),
        }
        if self.team.leads:
            write_json(task.folder / "result.json", result)
            (task.folder / "state.pt").unlink(missing_ok=True)
        self.team.wait()

    def _save_model(self, progress: FinetuneState) -> dict:
        """Write the classifier with its current weights; returns temperature, thresholds, and the clips of their fit.

        These are the valid clips, or where there are none the test clips, which were not trained on either.
        """
        task = self.task
        calibrated_on = "valid" if len(task.split.valid) else "test"
        held_out = (
            self.outputs(task.split.valid, progress.bad)
            if calibrated_on == "valid"
            else read_outputs(task.folder / f"test-{task.headline}.npz")
        )
        temperature = fit_temperature(held_out.targets, held_out.outputs, task.multi)
        calibrated = probabilities(held_out.outputs / temperature, task.multi)
        thresholds = best_thresholds(held_out.targets, calibrated) if task.multi else None
        config, measured = task.encoder.config, {name: progress.normalisation[name] for name in ("mean", "std")}
        config = config.model_copy(update={"features": config.features.model_copy(update=measured)})
        name = f"{task.encoder.name}, {task.recipe.name} on {task.manifest.name}, {task.split.name}"
        classes, recipe = task.manifest.classes, task.recipe
        metadata = classifier_metadata(
            name, config, classes, task.multi, recipe, None, temperature, thresholds, calibrated_on
        )
        if self.team.leads:
            Classifier(self.network, config, metadata).save(task.folder / MODEL)
        return {"temperature": temperature, "thresholds": thresholds, "on": calibrated_on}

    def _save_weights(self, name: str) -> None:
        if self.team.leads:
            tensors = {parameter: tensor.cpu().contiguous() for parameter, tensor in self.network.trained().items()}
            with atomic_write(self.task.folder / f"{name}.safetensors") as temporary:
                save_file(tensors, temporary)
        self.team.wait()

    def _save_outputs(self, name: str, outputs: Outputs) -> None:
        if self.team.leads:
            save_outputs(self.task.folder / f"test-{name}.npz", outputs)
        self.team.wait()
