"""ASiT pretraining (arXiv 2211.13189): reconstruct what was corrupted, agree with the teacher locally and globally.

Two crops of a clip, each corrupted on its own, go through the student; the clean crops go through the teacher. Three
losses: L1 on corrupted pixels; cross-entropy of each corrupted token with the teacher's token of the same place; and
of the class token with the teacher's class token of the other view. The released code differs from the text; each
difference is a setting, see presets/asit-official-vit-s.yaml.

Shapes: V views, B clips, T frames, M mel bands, N patch tokens, D width, K outputs of a head. Views are stacked
view-major: row v * B + b is view v of clip b.
"""

import math

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional as F

from ..augment import change_colour, change_level, mix
from ..config import RunConfig
from ..data import Batch
from ..errors import InputError
from ..features import LogMel
from ..masking import Masks, corrupt, donor_group, draw_donors, gmml
from ..nn import DistillationHeads, ReconstructionHead, ViT
from ..random import key
from ..schedules import linear
from ..settings import steps_of
from .base import Losses, parameter_groups, seeded
from .collapse import Criterion, contrast_criterion, effective_rank, head_criterion, information, spread
from .losses import (
    contrastive_loss,
    cross_entropy,
    cross_view_loss,
    entropy,
    masked_l1,
    teacher_probabilities,
    uncertainty_weighted,
)
from .teacher import ema_momentum, make_teacher, update_teacher

_HEALTH_ROWS = 256  # teacher's answers looked at for entropy and information
_HEALTH_VIEWS = 32  # views looked at for spread and effective rank
_JUDGED_FROM = 8  # clips a step from which on answers are compared: the views of fewer are alike in a healthy run too


class Network(nn.Module):
    """Backbone with the heads that the losses need; student and teacher are one each."""

    def __init__(self, cfg: RunConfig):
        super().__init__()
        active = cfg.objective.active
        self.backbone = ViT(cfg.model, cfg.grid)
        prototypes = cfg.objective.global_kind == "distillation"
        self.heads = DistillationHeads(cfg.model.width, cfg.heads, "local" in active, "global" in active, prototypes)
        self.decoder = None
        if "reconstruction" in active:
            self.decoder = ReconstructionHead(
                cfg.model.width,
                cfg.heads.decoder_hidden,
                cfg.heads.decoder_bottleneck,
                cfg.model.patch,
                cfg.heads.decoder_last_gelu,
            )


def build_network(cfg: RunConfig, seed: int | None = None) -> Network:
    """A network with its start weights: a function of the configuration and the seed (default: train.seed) alone."""
    return seeded(lambda: Network(cfg), cfg.train.seed if seed is None else seed)


class ASiT(nn.Module):
    """Student, teacher, heads, centres and losses.

    clips: number of training clips, which fixes how many steps an epoch has.
    """

    views = 2

    def __init__(self, cfg: RunConfig, clips: int):
        super().__init__()
        self.cfg = cfg
        self.steps_per_epoch = cfg.steps_per_epoch(clips)
        self.total_steps = cfg.total_steps(clips)
        self.group = donor_group(cfg.train.batch_size // cfg.train.accumulate)
        for needed, what in (
            (cfg.mask.odds["alien"] > 0, "mask.kinds: alien blocks need"),
            (cfg.data.mix > 0, "data.mix: needs"),
            (self.contrasts, "objective.global_kind: contrastive needs"),
        ):
            if needed and self.group < 2:
                raise InputError(f"{what} another clip in the batch; use train.batch_size >= 2")
        self.front_end = LogMel.from_config(cfg.features)
        self.student = build_network(cfg)
        self.teacher = make_teacher(self.student)
        if "local" in cfg.objective.active:
            self.register_buffer("centre_local", torch.zeros(cfg.heads.local_out))
        if "global" in cfg.objective.active and not self.contrasts:
            self.register_buffer("centre_global", torch.zeros(cfg.heads.global_out))
        self.log_variance = nn.ParameterDict()
        if cfg.objective.combine == "uncertainty":
            self.log_variance.update({name: nn.Parameter(torch.zeros(())) for name in cfg.objective.active})
        self._logit_sums: dict[str, tuple[Tensor, int]] = {}  # teacher logits since the last step, for the centres
        self._seen: dict[str, Tensor] = {}  # what `health` looks at: some rows of all parts of the last batch
        self._stepped = False
        self._last_step = 0

    @property
    def contrasts(self) -> bool:
        """Whether the global loss is on and contrastive."""
        return "global" in self.cfg.objective.active and self.cfg.objective.global_kind == "contrastive"

    def reset_teacher(self) -> None:
        """Give the teacher the student's weights, after start weights were loaded."""
        self.teacher.load_state_dict(self.student.state_dict())

    # --- one step ---------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, step: int) -> Losses:
        """Losses of a batch (or of a part of it) at optimiser step `step`."""
        clean = self.augment(self.log_mel(batch), batch.position, step)  # [V, B, T, M]
        corrupted, masks = self.corrupt(clean, batch.position, step)
        drop_keys = key(self.cfg.train.seed, step, self._view_positions(batch.position), "drop")
        return self.losses(clean, corrupted, masks, step, drop_keys)

    def log_mel(self, batch: Batch) -> Tensor:
        """Waveforms of a batch -> normalised log-mel [V, B, T, M], cut or padded to the model's frames."""
        waves, lengths = batch.waves.transpose(0, 1).flatten(0, 1), batch.lengths.transpose(0, 1).flatten()
        raw = self.front_end(waves, lengths)  # [V*B, T', M]
        fitted = self.front_end.fit(raw, self.cfg.input_frames)
        return self.front_end.normalise(fitted).unflatten(0, (self.views, -1))

    def augment(self, clean: Tensor, position: Tensor, step: int) -> Tensor:
        """Mix clips, colour each view and change its level, as `data` says: [V, B, T, M], position int64 [B] -> the
        same."""
        data, scale = self.cfg.data, 2.0 * self.cfg.features.std
        keys = key(self.cfg.train.seed, step, self._view_positions(position.to(clean.device)), "augment")  # [V*B]
        if data.mix > 0:
            clean = mix(clean, keys, self._donors(keys, clean.shape[1]), data.mix, scale)
        if data.filter_db > 0:
            clean = change_colour(clean, keys, data.filter_db, scale)
        return change_level(clean, keys, data.gain_db, scale) if data.gain_db > 0 else clean

    def corrupt(self, clean: Tensor, position: Tensor, step: int) -> tuple[Tensor, Masks]:
        """Draw masks and corrupt: clean [V, B, T, M], position int64 [B] in the global batch -> [V, B, T, M], Masks
        of V * B views."""
        views, batch, frames, mels = clean.shape
        position = position.to(clean.device)
        keys = key(self.cfg.train.seed, step, self._view_positions(position), "mask")  # [V*B]
        masks = gmml(keys, frames, mels, self.cfg.mask, self.cfg.model.patch)
        donors = self._donors(keys, batch) if self.cfg.mask.odds["alien"] > 0 else None
        return corrupt(clean.flatten(0, 1), masks, keys, donors).view_as(clean), masks

    def _donors(self, keys: Tensor, batch: int) -> Tensor:
        """For each view another clip of its group: keys int64 [V*B] -> int64 [V*B]."""
        if batch % self.group:
            raise InputError(
                f"train.batch_size: each process and part sees {batch} clips, which is not a multiple of {self.group}, "
                "the clips that lend each other sound; change train.accumulate or the batch size"
            )
        return draw_donors(keys, self.group)  # groups never cross a view, as B is a multiple of the group

    def _view_positions(self, position: Tensor) -> Tensor:
        """A number for each view of each clip of the global batch: [B] -> [V*B]."""
        view = torch.arange(self.views, device=position.device)
        return (view[:, None] * self.cfg.train.batch_size + position).flatten()

    def losses(
        self, clean: Tensor, corrupted: Tensor, masks: Masks, step: int, drop_keys: Tensor | None = None
    ) -> Losses:
        """The objective on given views: clean and corrupted [V, B, T, M], masks of V * B views.

        drop_keys: int64 [V*B] for the student's stochastic depth; None switches it off.
        """
        objective, views = self.cfg.objective, len(clean)
        flat = clean.flatten(0, 1)
        if self._stepped:  # a new batch; of one without any corrupted token nothing older is reported
            self._seen.clear()
            self._stepped = False
        student = self.student.backbone(corrupted.flatten(0, 1), drop_keys)  # [V*B, 1+N, D]
        with torch.no_grad():
            needs_teacher = {"local", "global"} & set(objective.active)
            teacher = self.teacher.backbone(flat) if needs_teacher else None
        self._look("views" if teacher is None else "tokens", flat if teacher is None else teacher, _HEALTH_VIEWS)
        temperature = self.teacher_temperature(step)
        parts: dict[str, Tensor] = {}

        if "reconstruction" in objective.active:
            rebuilt = self.student.decoder(student[:, 1:], self.student.backbone.grid)
            counted = masks.pixels if objective.reconstruct == "corrupted" else None
            parts["reconstruction"] = masked_l1(rebuilt, flat, counted)

        if "local" in objective.active:
            ours, theirs = student[:, 1:], teacher[:, 1:]  # [V*B, N, D]
            if objective.local_tokens == "corrupted":
                chosen = masks.tokens(self.cfg.model.patch).flatten(1)  # [V*B, N]
                ours, theirs = ours[chosen], theirs[chosen]  # [tokens, D]
            with torch.no_grad():
                logits = self._note("local", self.teacher.heads.local(theirs))
                wanted = teacher_probabilities(logits, self.centre_local, temperature)
            rows = cross_entropy(self.student.heads.local(ours), wanted, objective.student_temperature)
            parts["local"] = rows.sum() / max(1, rows.numel())

        if "global" in objective.active:
            with torch.no_grad():
                theirs = self.teacher.heads.global_(self._clip_token(teacher)).unflatten(0, (views, -1))
            ours = self.student.heads.global_(self._clip_token(student)).unflatten(0, (views, -1))  # [V, B, K]
            if self.contrasts:
                parts["global"] = contrastive_loss(ours, theirs, objective.contrastive_temperature)
            else:
                wanted = teacher_probabilities(self._note("global", theirs), self.centre_global, temperature)
                parts["global"] = cross_view_loss(ours, wanted, objective.student_temperature)
        return Losses(self._combine(parts), parts)

    def _clip_token(self, tokens: Tensor) -> Tensor:
        """What stands for a clip in the global loss: [V*B, 1+N, D] -> [V*B, D]."""
        rows = tokens[:, 0] if self.cfg.objective.global_token == "class" else tokens[:, 1:].mean(1)
        # At first the tokens of all clips are nearly the same. Standardised over the views they can be told apart from
        # the first step on, as by the batch norms of SimCLR's and MoCo's heads; distillation has its centre.
        return F.batch_norm(rows.float(), None, None, training=True) if self.contrasts else rows

    def _combine(self, parts: dict[str, Tensor]) -> Tensor:
        objective = self.cfg.objective
        if objective.combine == "uncertainty":
            return uncertainty_weighted(parts, dict(self.log_variance.items()))
        total = sum(objective.weights[name] * loss for name, loss in parts.items())
        return total / sum(objective.weights[name] for name in parts) if objective.combine == "mean" else total

    def _note(self, name: str, logits: Tensor) -> Tensor:
        """Keep what the centres and the health report need of the teacher's logits [..., K]."""
        rows = logits.detach().flatten(0, -2).to(getattr(self, f"centre_{name}").dtype)
        total, count = self._logit_sums.get(name, (0.0, 0))
        self._logit_sums[name] = (total + rows.sum(0), count + len(rows))
        self._look(name, rows, _HEALTH_ROWS)
        return logits

    def _look(self, name: str, rows: Tensor, limit: int) -> None:
        """Keep some rows, evenly spread over the parts of a batch and over the rows of each, for `health`."""
        share = max(1, limit // self.cfg.train.accumulate)
        rows = rows[:: max(1, -(-len(rows) // share))]
        self._seen[name] = torch.cat([self._seen[name], rows])[-limit:] if name in self._seen else rows.clone()

    # --- after the step ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the centres by the teacher's logits of this step (all processes), then the teacher by the student."""
        momentum = self.cfg.objective.centre_momentum
        for name, (total, count) in self._logit_sums.items():
            counted = torch.cat([total, torch.tensor([float(count)], device=total.device)])
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(counted)
            if counted[-1] > 0:
                getattr(self, f"centre_{name}").mul_(momentum).add_(counted[:-1] / counted[-1], alpha=1.0 - momentum)
        self._logit_sums.clear()
        self._last_step, self._stepped = step, True
        update_teacher(self.teacher, self.student, self.ema_momentum(step))

    def teacher_temperature(self, step: int) -> float:
        """Temperature of the teacher's softmax; a warm-up given in epochs changes once an epoch, as released."""
        objective, warmup = self.cfg.objective, self.cfg.objective.teacher_temperature_warmup
        length = steps_of(warmup, self.steps_per_epoch, self.total_steps)
        if "epoch" in warmup:
            length, step = round(length / self.steps_per_epoch), step // self.steps_per_epoch
        return linear(objective.teacher_temperature, objective.teacher_temperature_end, length, step)

    def ema_momentum(self, step: int) -> float:
        """Momentum of the teacher at a step."""
        return ema_momentum(self.cfg.objective, self.steps_per_epoch, self.total_steps, step)

    # --- what the loop reads ----------------------------------------------------------------------------------------

    def param_groups(self) -> list[dict]:
        """Weight decay on everything but biases and one-dimensional tensors; class token and positions are decayed,
        as in the released code. Frozen gains are in no group."""
        decayed, free = parameter_groups(self.student.named_parameters(), self.cfg.optim)
        free["params"] += self.log_variance.parameters()
        return [decayed, free]

    @torch.no_grad()
    def health(self) -> dict[str, float]:
        """Of the last step: momentum and temperature of the teacher; of each of its heads the mean entropy of the
        softmax and the information between clip (or token) and answer (nats; see collapse.py), and the norm of the
        centre; spread and effective rank of its clip embeddings, both ways of pooling; learned weights.

        The columns are those of the configuration; nan where the step gave nothing to look at.
        """
        report = {"momentum": self.ema_momentum(self._last_step)}
        heads = [name for name in ("local", "global") if hasattr(self, f"centre_{name}")]
        if heads:
            report["teacher_temperature"] = self.teacher_temperature(self._last_step)
        for name in heads:
            centre, rows = getattr(self, f"centre_{name}"), self._seen.get(name, ())
            answers = teacher_probabilities(rows, centre, report["teacher_temperature"]) if len(rows) else None
            report[f"entropy_{name}"] = math.nan if answers is None else entropy(answers).item()
            report[f"information_{name}"] = math.nan if answers is None else information(answers).item()
            report[f"centre_{name}"] = centre.norm().item()
        for pool, rows in self._embeddings().items():
            report[f"spread_{pool}"] = math.nan if rows is None else spread(rows).item()
            report[f"rank_{pool}"] = math.nan if rows is None else effective_rank(rows).item()
        report.update({f"log_variance_{name}": value.item() for name, value in self.log_variance.items()})
        return report

    def _embeddings(self) -> dict[str, Tensor | None]:
        """Way of pooling -> some clip embeddings [n, D] of the last batch by the teacher; None before the first."""
        if "views" in self._seen:  # without distillation the teacher is asked here alone
            self._seen["tokens"] = self.teacher.backbone(self._seen.pop("views"))
        tokens = self._seen.get("tokens")
        if tokens is None:
            return {"class": None, "mean": None}
        return {"class": tokens[:, 0].float(), "mean": tokens[:, 1:].float().mean(1)}

    @staticmethod
    def criteria(cfg: RunConfig) -> list[Criterion]:
        """Collapse of each head; of none when a step has too few clips for their answers to be told apart."""
        objective, outputs = cfg.objective, {"local": cfg.heads.local_out, "global": cfg.heads.global_out}
        heads = [name for name in outputs if name in objective.active and cfg.train.batch_size >= _JUDGED_FROM]
        compared = cfg.train.batch_size // cfg.train.accumulate  # clips a contrastive loss tells apart
        found = []
        for name in heads:
            if name == "local" or objective.global_kind == "distillation":
                found.append(head_criterion(objective, name, outputs[name]))
            elif compared >= _JUDGED_FROM:
                found.append(contrast_criterion(compared))
        return found

    @torch.no_grad()
    def samples(self, batch: Batch) -> dict[str, Tensor]:
        """The first view of each clip: clean, corrupted, reconstructed [B, T, M] (normalised) and mask (bool).

        Corrupted by zeros, with masks that are the same at every call, so that pictures of different steps can be
        compared. Empty without a reconstruction loss.
        """
        if self.student.decoder is None:
            return {}
        clean = self.log_mel(batch)[0]
        mask = self.cfg.mask.model_copy(update={"kinds": {"zeros": 1.0}})
        keys = key(self.cfg.train.seed, batch.position.to(clean.device), "samples")
        masks = gmml(keys, *clean.shape[1:], mask, self.cfg.model.patch)
        corrupted = corrupt(clean, masks, keys)
        tokens = self.student.backbone(corrupted)
        rebuilt = self.student.decoder(tokens[:, 1:], self.student.backbone.grid)
        return {"clean": clean, "corrupted": corrupted, "reconstructed": rebuilt.float(), "mask": masks.pixels}
