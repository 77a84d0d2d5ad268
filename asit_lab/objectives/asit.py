"""ASiT pretraining (arXiv 2211.13189): reconstruct what was corrupted, agree with the teacher locally and globally.

Two crops of a clip, each corrupted on its own, go through the student; the clean crops go through the teacher. Three
losses: L1 on corrupted pixels; cross-entropy of each corrupted token with the teacher's token of the same place; and
of the class token with the teacher's class token of the other view. The released code differs from the text; each
difference is a setting, see presets/asit-official-vit-s.yaml.

A batch may be cut into parts and spread over processes: `FullBatch` holds what its losses need of the others, so that
the parts' losses average to the loss of the whole batch.

Shapes: V views, B clips, T frames, M mel bands, N patch tokens, D width, K outputs of a head. Views are stacked
view-major: row v * B + b is view v of clip b.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..augment import change_colour, change_level, mix
from ..config import RunConfig
from ..data import Batch
from ..errors import InputError
from ..masking import Masks, corrupt, donor_group, draw_donors, gmml
from ..random import key
from ..schedules import linear
from ..settings import steps_of
from . import processes
from .asit_network import build_asit_network
from .base import Losses, StudentTeacher, clip_embeddings, embedding_health, mean_token, parameter_groups
from .collapse import Criterion, contrast_criterion, head_criterion, information
from .full_batch import FullBatch, Views, rows_of_all, standardised
from .losses import (
    contrastive_loss,
    cross_entropy,
    cross_view_loss,
    entropy,
    masked_l1,
    related_clips,
    teacher_probabilities,
    uncertainty_weighted,
)
from .teacher import update_teacher

_HEALTH_ROWS = 256  # teacher's answers that entropy and information are measured on
_HEALTH_VIEWS = 32  # views that spread and effective rank are measured on
_JUDGED_FROM = 8  # fewest clips a step whose answers are compared: the views of fewer are alike in a healthy run too


class ASiT(StudentTeacher):
    """Student, teacher, heads, centres and losses.

    clips: number of training clips, which fixes how many steps an epoch has.
    """

    views = 2

    def __init__(self, cfg: RunConfig, clips: int):
        super().__init__(cfg, clips, build_asit_network(cfg))
        self.group = donor_group(cfg.train.batch_size)
        for in_use, reason in (
            (cfg.mask.odds["alien"] > 0, "mask.kinds: alien blocks need"),
            (cfg.data.mix > 0, "data.mix: needs"),
            (self.contrasts, "objective.global_kind: contrastive needs"),
        ):
            if in_use and self.group < 2:
                raise InputError(f"{reason} another clip in the batch; use train.batch_size >= 2")
        if "local" in cfg.objective.active:
            self.register_buffer("centre_local", torch.zeros(cfg.heads.local_out))
        if "global" in cfg.objective.active and not self.contrasts:
            self.register_buffer("centre_global", torch.zeros(cfg.heads.global_out))
        self.log_variance = nn.ParameterDict()
        if cfg.objective.combine == "uncertainty":
            self.log_variance.update({name: nn.Parameter(torch.zeros(())) for name in cfg.objective.active})
        self._logit_sums: dict[str, tuple[Tensor, int]] = {}  # teacher logits since the last step, for the centres
        self._health_rows: dict[str, Tensor] = {}  # some rows of all parts of the last batch, for `health`
        self._chance = math.nan  # contrastive loss of a model that cannot tell clips apart, in the last batch
        self._stepped = False

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
        views = self.prepared(batch, step, self._prepare).part(batch.start, len(batch.waves))
        drop_keys = self._drop_keys(batch.position, step)
        return self.losses(views.clean, views.corrupted, views.masks, step, drop_keys, views.full_batch)

    @torch.no_grad()
    def _prepare(self, batch: Batch, step: int, parts: int) -> Views:
        """Views and corruption of this process's whole batch, and what its losses need of the other processes."""
        # Part by part: features of all clips at once would take more memory than a part's pass does.
        clean = torch.cat([self.log_mel(part) for part in batch.split(parts)], dim=1)
        clips, position = len(batch.waves), batch.position.to(clean.device)
        lends = self.cfg.mask.odds["alien"] > 0 or self.cfg.data.mix > 0
        spread_group = lends and clips % self.group > 0 and processes.count() > 1  # donors are with other processes
        if spread_group:
            clean = processes.gather(clean.transpose(0, 1)).transpose(0, 1)  # [V, clips of all processes, T, M]
            position = processes.gather(position)
        clean = self.augment(clean, position, step)
        corrupted, masks = self.corrupt(clean, position, step)
        audio = self.audio_frames(batch.lengths.to(clean.device).T.flatten())  # [V*B, T]
        start = processes.process_rank() * clips if spread_group else 0
        views = Views(clean, corrupted, masks, FullBatch()).part(start, clips)
        views = replace(views, full_batch=FullBatch(audio))
        return replace(views, full_batch=self._full_batch(batch, step, views, parts))

    def _full_batch(self, batch: Batch, step: int, views: Views, parts: int) -> FullBatch:
        """What the `parts` parts of this process's batch need to know, of all processes."""
        clean, masks, audio = views.clean, views.masks, views.full_batch.audio
        pixels, tokens = self._counted_pixels(masks, audio), self._counted_tokens(masks, audio)
        all_pixels, all_tokens = clean.numel(), clean.shape[0] * clean.shape[1] * math.prod(self.cfg.grid)
        counts = [
            torch.tensor(number, device=clean.device) if counted is None else counted.sum()
            for counted, number in ((pixels, all_pixels), (tokens, all_tokens))
        ]
        counts = processes.total(torch.stack(counts))
        recording = batch.index if batch.recording is None else batch.recording
        recording = processes.gather(recording.to(clean.device))
        full_batch = FullBatch(audio, parts * processes.count(), counts[0], counts[1], recording)
        if not self.contrasts or parts == 1:
            return full_batch
        # The loss of a part compares its clips with those of the other parts. One more pass tells what these are.
        size, rows = clean.shape[1] // parts, []
        for part in (views.part(start, size) for start in range(0, clean.shape[1], size)):
            position = batch.position[part.full_batch.start : part.full_batch.start + size]
            audio = self.audio_tokens(part.full_batch.audio)
            drop_keys, mask = self._drop_keys(position, step), part.masks.pixels
            student = self.student.backbone(part.corrupted.flatten(0, 1), drop_keys, audio, mask)
            teacher = self.teacher.backbone(part.clean.flatten(0, 1), audio=audio)
            tokens = (self._clip_token(network, audio).unflatten(0, (self.views, -1)) for network in (student, teacher))
            rows.append(tuple(tokens))  # each [V, clips of the part, D]
        student, teacher = (torch.cat(of_parts, dim=1) for of_parts in zip(*rows, strict=True))
        return replace(full_batch, student=student, teacher=teacher)

    def _drop_keys(self, position: Tensor, step: int) -> Tensor:
        """Keys of the student's stochastic depth: [B] -> [V*B]."""
        return key(self.cfg.train.seed, step, self._view_positions(position), "drop")

    def log_mel(self, batch: Batch) -> Tensor:
        """Waveforms of a batch -> normalised log-mel [V, B, T, M], cut or padded to the model's frames."""
        waves, lengths = batch.waves.transpose(0, 1).flatten(0, 1), batch.lengths.transpose(0, 1).flatten()
        return self.normalised_log_mel(waves, lengths).unflatten(0, (self.views, -1))

    def augment(self, clean: Tensor, position: Tensor, step: int) -> Tensor:
        """Mix clips, colour each view and change its level, as `data` says: [V, B, T, M], position int64 [B] -> the
        same."""
        data, scale = self.cfg.data, 2.0 * self.front_end.std
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
                f"batch: {batch} clips are not a multiple of {self.group}, the clips that lend each other sound; "
                "pass whole batches of train.batch_size clips, or parts made by Batch.split"
            )
        return draw_donors(keys, self.group)  # groups never cross a view, as B is a multiple of the group

    def _view_positions(self, position: Tensor) -> Tensor:
        """A number for each view of each clip of the global batch: [B] -> [V*B]."""
        view = torch.arange(self.views, device=position.device)
        return (view[:, None] * self.cfg.train.batch_size + position).flatten()

    def losses(
        self,
        clean: Tensor,
        corrupted: Tensor,
        masks: Masks,
        step: int,
        drop_keys: Tensor | None = None,
        full_batch: FullBatch | None = None,
    ) -> Losses:
        """The objective on given views: clean and corrupted [V, B, T, M], masks of V * B views.

        drop_keys: int64 [V*B] for the student's stochastic depth; None switches it off. full_batch: what else is in the
        batch; None: nothing, and no padding.
        """
        objective, full_batch = self.cfg.objective, full_batch or FullBatch()
        flat, audio = clean.flatten(0, 1), self.audio_tokens(full_batch.audio)
        if self._stepped:  # a new batch; for one without any corrupted token nothing older is reported
            self._health_rows.clear()
            self._stepped = False
        student = self.student.backbone(corrupted.flatten(0, 1), drop_keys, audio, masks.pixels)  # [V*B, 1+N, D]
        with torch.no_grad():
            needs_teacher = {"local", "global"} & set(objective.active)
            teacher = self.teacher.backbone(flat, audio=audio) if needs_teacher else None
        if teacher is not None:
            self._keep("embeddings", clip_embeddings(teacher, audio), _HEALTH_VIEWS)
        else:  # only `health` asks the teacher
            everywhere = torch.ones_like(masks.pixels[..., 0]) if full_batch.audio is None else full_batch.audio
            self._keep("views", flat, _HEALTH_VIEWS)
            self._keep("audio", everywhere, _HEALTH_VIEWS)
        parts: dict[str, Tensor] = {}
        if "reconstruction" in objective.active:
            rebuilt = self.student.decoder(
                student[:, 1:], self.student.backbone.grid, corrupted.flatten(0, 1), masks.pixels
            )
            pixels = self._counted_pixels(masks, full_batch.audio)
            parts["reconstruction"] = masked_l1(rebuilt, flat, pixels, full_batch.mean_count(full_batch.pixels))
        if "local" in objective.active:
            parts["local"] = self._local_loss(student[:, 1:], teacher[:, 1:], masks, step, full_batch)
        if "global" in objective.active:
            tokens = self._clip_token(student, audio), self._clip_token(teacher, audio)
            views = len(clean)
            ours, theirs = (rows.unflatten(0, (views, -1)) for rows in tokens)  # [V, B, D]
            loss = self._contrastive_loss if self.contrasts else self._cross_view_loss
            parts["global"] = loss(ours, theirs, step, full_batch)
        return Losses(self._combine(parts), parts)

    def _local_loss(self, student: Tensor, teacher: Tensor, masks: Masks, step: int, full_batch: FullBatch) -> Tensor:
        """Each counted patch token against the teacher's of its place: both [V*B, N, D]."""
        chosen = self._counted_tokens(masks, full_batch.audio)
        if chosen is not None:
            student, teacher = student[chosen], teacher[chosen]  # [tokens, D]
        with torch.no_grad():
            logits = self._note("local", self.teacher.heads.local(teacher))
            answers = teacher_probabilities(logits, self.centre_local, self.teacher_temperature(step))
        rows = cross_entropy(self.student.heads.local(student), answers, self.cfg.objective.student_temperature)
        count = full_batch.mean_count(full_batch.tokens)
        return rows.sum() / (max(1, rows.numel()) if count is None else count)

    def _cross_view_loss(self, student: Tensor, teacher: Tensor, step: int, full_batch: FullBatch) -> Tensor:
        """Each view's class token against the teacher's of the other views: both [V, B, D]."""
        with torch.no_grad():
            logits = self._note("global", self.teacher.heads.global_(teacher))
            answers = teacher_probabilities(logits, self.centre_global, self.teacher_temperature(step))
        ours = self.student.heads.global_(student)
        return cross_view_loss(ours, answers, self.cfg.objective.student_temperature)

    def _contrastive_loss(self, student: Tensor, teacher: Tensor, step: int, full_batch: FullBatch) -> Tensor:
        """Which clip of the whole batch is this the other view of: both [V, B, D]."""
        with torch.no_grad():
            theirs = self.teacher.heads.global_(standardised(rows_of_all(teacher, full_batch.teacher, full_batch)))
        ours = self.student.heads.global_(standardised(rows_of_all(student, full_batch.student, full_batch)))
        if full_batch.recording is not None:
            related = related_clips(full_batch.recording)
            self._chance = (~related).sum(1).float().log().mean().item()
        return contrastive_loss(ours, theirs, self.cfg.objective.contrastive_temperature, full_batch.recording)

    def _clip_token(self, tokens: Tensor, audio: Tensor | None = None) -> Tensor:
        """The token that stands for a clip in the global loss: [V*B, 1+N, D] -> [V*B, D]. audio: bool [V*B, N]."""
        return tokens[:, 0] if self.cfg.objective.global_token == "class" else mean_token(tokens, audio)

    def _counted_pixels(self, masks: Masks, audio: Tensor | None) -> Tensor | None:
        """Pixels in the reconstruction loss, bool [V*B, T, M]; None: all."""
        everywhere = None if audio is None else audio[..., None].expand_as(masks.pixels)
        if self.cfg.objective.reconstruct == "all":
            return everywhere
        return masks.pixels if everywhere is None else masks.pixels & everywhere

    def _counted_tokens(self, masks: Masks, audio: Tensor | None) -> Tensor | None:
        """Tokens in the local loss, bool [V*B, N]; None: all."""
        everywhere = self.audio_tokens(audio)
        if self.cfg.objective.local_tokens == "all":
            return everywhere
        corrupted = masks.tokens(self.cfg.model.patch).flatten(1)
        return corrupted if everywhere is None else corrupted & everywhere

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
        self._keep(name, rows, _HEALTH_ROWS)
        return logits

    def _keep(self, name: str, rows: Tensor, limit: int) -> None:
        """Keep some rows, evenly spread over the parts of a batch and over the rows of each, for `health`."""
        share = max(1, limit // self.cfg.train.accumulate)
        rows = rows[:: max(1, -(-len(rows) // share))]
        before = self._health_rows.get(name)
        self._health_rows[name] = rows.clone() if before is None else torch.cat([before, rows])[-limit:]

    # --- after the step ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the centres by the teacher's logits of this step (all processes), then the teacher by the student."""
        momentum = self.cfg.objective.centre_momentum
        for name, (total, count) in self._logit_sums.items():
            counted = processes.total(torch.cat([total, total.new_tensor([float(count)])]))
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
            centre, rows = getattr(self, f"centre_{name}"), self._health_rows.get(name, ())
            answers = teacher_probabilities(rows, centre, report["teacher_temperature"]) if len(rows) else None
            report[f"entropy_{name}"] = math.nan if answers is None else entropy(answers).item()
            report[f"information_{name}"] = math.nan if answers is None else information(answers).item()
            report[f"centre_{name}"] = centre.norm().item()
        if self.contrasts:
            report["chance_global"] = self._chance
        if "views" in self._health_rows:
            audio = self.audio_tokens(self._health_rows.pop("audio"))
            tokens = self.teacher.backbone(self._health_rows.pop("views"), audio=audio)
            self._health_rows["embeddings"] = clip_embeddings(tokens, audio)
        report |= embedding_health(self._health_rows.get("embeddings"))
        report.update({f"log_variance_{name}": value.item() for name, value in self.log_variance.items()})
        return report

    @staticmethod
    def criteria(cfg: RunConfig) -> list[Criterion]:
        """Collapse of each head; of none when a step has too few clips for their answers to be told apart."""
        objective, outputs = cfg.objective, {"local": cfg.heads.local_out, "global": cfg.heads.global_out}
        heads = [name for name in outputs if name in objective.active and cfg.train.batch_size >= _JUDGED_FROM]
        criteria = []
        for name in heads:
            if name == "local" or objective.global_kind == "distillation":
                criteria.append(head_criterion(objective, name, outputs[name]))
            else:
                criteria.append(contrast_criterion(cfg.train.batch_size))
        return criteria

    @torch.no_grad()
    def samples(self, batch: Batch) -> dict[str, Tensor]:
        """The first view of each clip: clean, corrupted, reconstructed [B, T, M] (normalised) and mask (bool).

        NaN where a crop is padded. Corrupted by zeros, with masks that are the same at every call, so that pictures of
        different steps can be compared. Empty without a reconstruction loss.
        """
        if self.student.decoder is None:
            return {}
        clean = self.log_mel(batch)[0]
        settings = self.cfg.mask.model_copy(update={"kinds": {"zeros": 1.0}})
        keys = key(self.cfg.train.seed, batch.position.to(clean.device), "samples")
        masks = gmml(keys, *clean.shape[1:], settings, self.cfg.model.patch)
        audio = self.audio_frames(batch.lengths[:, 0].to(clean.device))
        if audio is not None:  # padding is neither corrupted nor attended to
            masks = replace(masks, pixels=masks.pixels & audio[..., None])
        corrupted = corrupt(clean, masks, keys)
        tokens = self.student.backbone(corrupted, audio=self.audio_tokens(audio), mask=masks.pixels)
        rebuilt = self.student.decoder(tokens[:, 1:], self.student.backbone.grid, corrupted, masks.pixels)
        images = {"clean": clean, "corrupted": corrupted, "reconstructed": rebuilt.float()}
        if audio is not None:
            images = {name: image.masked_fill(~audio[..., None], torch.nan) for name, image in images.items()}
        return {**images, "mask": masks.pixels}
