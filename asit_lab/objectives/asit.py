"""ASiT pretraining (arXiv 2211.13189): reconstruct what was corrupted, agree with the teacher locally and globally.

Two crops of a clip, each corrupted on its own, go through the student; the clean crops go through the teacher. Three
losses: L1 on corrupted pixels; cross-entropy of each corrupted token with the teacher's token of the same place; and
of the class token with the teacher's class token of the other view. The released code differs from the text; each
difference is a setting, see presets/asit-official-vit-s.yaml.

Shapes: V views, B clips, T frames, M mel bands, N patch tokens, D width, K outputs of a head. Views are stacked
view-major: row v * B + b is view v of clip b.
"""

import torch
import torch.distributed
from torch import Tensor, nn

from ..config import RunConfig
from ..data import Batch
from ..errors import InputError
from ..features import LogMel
from ..masking import Masks, corrupt, donor_group, draw_donors, gmml
from ..nn import DistillationHeads, ReconstructionHead, ViT
from ..random import key
from ..schedules import cosine, linear
from ..settings import steps_of
from .base import Losses
from .ema import make_teacher, update_teacher
from .losses import (
    cross_entropy,
    cross_view_loss,
    entropy,
    masked_l1,
    teacher_probabilities,
    uncertainty_weighted,
)

_HEALTH_ROWS = 256  # logits looked at for entropy


class Network(nn.Module):
    """Backbone with the heads that the losses need; student and teacher are one each."""

    def __init__(self, cfg: RunConfig):
        super().__init__()
        active = cfg.objective.active
        self.backbone = ViT(cfg.model, cfg.grid)
        self.heads = DistillationHeads(cfg.model.width, cfg.heads, "local" in active, "global" in active)
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
    with torch.random.fork_rng():
        torch.manual_seed(cfg.train.seed if seed is None else seed)
        return Network(cfg)


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
        if cfg.mask.odds["alien"] > 0 and self.group < 2:
            raise InputError("mask.kinds: alien blocks need another clip in the batch; use train.batch_size >= 2")
        self.front_end = LogMel.from_config(cfg.features)
        self.student = build_network(cfg)
        self.teacher = make_teacher(self.student)
        if "local" in cfg.objective.active:
            self.register_buffer("centre_local", torch.zeros(cfg.heads.local_out))
        if "global" in cfg.objective.active:
            self.register_buffer("centre_global", torch.zeros(cfg.heads.global_out))
        self.log_variance = nn.ParameterDict()
        if cfg.objective.combine == "uncertainty":
            self.log_variance.update({name: nn.Parameter(torch.zeros(())) for name in cfg.objective.active})
        self._logit_sums: dict[str, tuple[Tensor, int]] = {}  # teacher logits since the last step, for the centres
        self._last_logits: dict[str, Tensor] = {}
        self._last_step = 0

    def reset_teacher(self) -> None:
        """Give the teacher the student's weights, after start weights were loaded."""
        self.teacher.load_state_dict(self.student.state_dict())

    # --- one step ---------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, step: int) -> Losses:
        """Losses of a batch (or of a part of it) at optimiser step `step`."""
        clean = self.log_mel(batch)  # [V, B, T, M]
        corrupted, masks = self.corrupt(clean, batch.position, step)
        drop_keys = key(self.cfg.train.seed, step, self._view_positions(batch.position), "drop")
        return self.losses(clean, corrupted, masks, step, drop_keys)

    def log_mel(self, batch: Batch) -> Tensor:
        """Waveforms of a batch -> normalised log-mel [V, B, T, M], cut or padded to the model's frames."""
        waves, lengths = batch.waves.transpose(0, 1).flatten(0, 1), batch.lengths.transpose(0, 1).flatten()
        raw = self.front_end(waves, lengths)  # [V*B, T', M]
        fitted = self.front_end.fit(raw, self.cfg.input_frames)
        return self.front_end.normalise(fitted).unflatten(0, (self.views, -1))

    def corrupt(self, clean: Tensor, position: Tensor, step: int) -> tuple[Tensor, Masks]:
        """Draw masks and corrupt: clean [V, B, T, M], position int64 [B] in the global batch -> [V, B, T, M], Masks
        of V * B views."""
        views, batch, frames, mels = clean.shape
        position = position.to(clean.device)
        keys = key(self.cfg.train.seed, step, self._view_positions(position), "mask")  # [V*B]
        masks = gmml(keys, frames, mels, self.cfg.mask, self.cfg.model.patch)
        donors = None
        if self.cfg.mask.odds["alien"] > 0:
            if batch % self.group:
                raise InputError(
                    f"train.batch_size: each process and part sees {batch} clips, which is not a multiple of "
                    f"{self.group}, the clips that lend each other blocks; change train.accumulate or the batch size"
                )
            donors = draw_donors(keys, self.group)  # groups never cross a view, as B is a multiple of the group
        return corrupt(clean.flatten(0, 1), masks, keys, donors).view_as(clean), masks

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
        student = self.student.backbone(corrupted.flatten(0, 1), drop_keys)  # [V*B, 1+N, D]
        with torch.no_grad():
            needs_teacher = {"local", "global"} & set(objective.active)
            teacher = self.teacher.backbone(flat) if needs_teacher else None
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
                logits = self._note("global", self.teacher.heads.global_(teacher[:, 0]))
                wanted = teacher_probabilities(logits, self.centre_global, temperature)
            ours = self.student.heads.global_(student[:, 0])  # [V*B, K]
            parts["global"] = cross_view_loss(
                ours.unflatten(0, (views, -1)), wanted.unflatten(0, (views, -1)), objective.student_temperature
            )
        return Losses(self._combine(parts), parts)

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
        if len(rows):  # a part of a batch may have no corrupted token
            self._last_logits[name] = rows[:_HEALTH_ROWS].clone()
        return logits

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
        self._last_step = step
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
        return cosine(self.cfg.objective.ema, self.cfg.objective.ema_end, self.total_steps, step)

    # --- what the loop reads ----------------------------------------------------------------------------------------

    def param_groups(self) -> list[dict]:
        """Weight decay on everything but biases and one-dimensional tensors; class token and positions are decayed,
        as in the released code. Frozen gains are in no group."""
        decayed, free = [], list(self.log_variance.parameters())
        for name, parameter in self.student.named_parameters():
            if parameter.requires_grad:
                (free if parameter.ndim == 1 or name.endswith("bias") else decayed).append(parameter)
        return [{"params": decayed, "decay": True}, {"params": free, "decay": False}]

    @torch.no_grad()
    def health(self) -> dict[str, float]:
        """Momentum and temperature of the last step, entropy of the teacher's softmax (nats; ln K is uniform), norm of
        each centre, learned weights."""
        report = {"momentum": self.ema_momentum(self._last_step)}
        if self._last_logits:
            report["teacher_temperature"] = self.teacher_temperature(self._last_step)
        for name, logits in self._last_logits.items():
            centre = getattr(self, f"centre_{name}")
            probabilities = teacher_probabilities(logits, centre, report["teacher_temperature"])
            report[f"entropy_{name}"] = entropy(probabilities).item()
            report[f"centre_{name}"] = centre.norm().item()
        report.update({f"log_variance_{name}": value.item() for name, value in self.log_variance.items()})
        return report

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
