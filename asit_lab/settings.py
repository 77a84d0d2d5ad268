"""The sections of a configuration: every setting with its type, range, default and one line of what it is.

Defaults are the paper's (ASiT, arXiv 2211.13189) or, where it prints no value, the released code's.
"""

import math
import re
from functools import partial
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from . import registry

# --- Durations ------------------------------------------------------------------------------------------------------

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(steps?|epochs?|%)?$")


def _parts(value: Any) -> tuple[str, str, str | None]:
    """The duration as text, its number and its unit."""
    text = str(value).strip()
    match = _DURATION.match(text)
    if isinstance(value, bool) or not match:
        raise ValueError("a duration is a number of steps (400), epochs ('10 epochs') or a share of the run ('10 %')")
    return text, match[1], match[2]


def _check_duration(value: Any) -> str:
    return _parts(value)[0]


Duration = Annotated[str, BeforeValidator(_check_duration)]


def steps_of(duration: str, steps_per_epoch: int, total: int) -> int:
    """Steps in a duration such as "400", "10 epochs" or "25 %" of a run of `total` steps."""
    _, number, unit = _parts(duration)
    scale = {"%": total / 100, "epoch": steps_per_epoch, "epochs": steps_per_epoch}.get(unit or "", 1)
    return round(float(number) * scale)


def visible_of(patches: int, share: float) -> int:
    """How many of `patches` patches the visible `share` is, rounded down: 102 of 512 for 0.2."""
    return int(patches * share + 1e-6)  # 0.29 * 100 falls short of 29


# --- Sections -------------------------------------------------------------------------------------------------------

Share = Annotated[float, Field(ge=0, le=1)]
ShareBelow1 = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
ObjectiveName = Annotated[str, AfterValidator(partial(registry.check_name, "objectives"))]
AttentionName = Annotated[str, AfterValidator(partial(registry.check_name, "attention"))]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,  # a name typed as 2026
    )


def _number_or_auto(value: Any) -> Any:
    try:
        number = value if value == "auto" else float(value)
        if isinstance(number, str) or math.isfinite(number):
            return number
    except (TypeError, ValueError):
        pass
    raise ValueError("Input should be a number, or auto")


def _above_0(value: float | str) -> float | str:
    if not isinstance(value, str) and not value > 0:
        raise ValueError("Input should be greater than 0")
    return value


Measurable = Annotated[float | Literal["auto"], BeforeValidator(_number_or_auto)]


class Features(Section):
    sample_rate: Annotated[int, Field(ge=1000)] = 32000
    """sample rate the audio is brought to, Hz"""
    mel_bins: Positive = 128
    """mel bands"""
    frame_ms: Annotated[float, Field(gt=0)] = 25.0
    """length of a frame, ms"""
    hop_ms: Annotated[float, Field(gt=0)] = 10.0
    """shift between frames, ms"""
    low_hz: NonNegative = 20.0
    """lower edge of the lowest mel band, Hz"""
    high_hz: NonNegative = 0.0
    """upper edge of the highest mel band, Hz (0: half the sample rate)"""
    mean: Measurable = -4.2677393
    """mean of the log-mel (natural log); normalised = (x - mean) / (2 std); auto: measured when pretraining starts"""
    std: Annotated[Measurable, AfterValidator(_above_0)] = 4.5689974
    """standard deviation of the log-mel (natural log); auto: measured when pretraining starts"""

    @property
    def top_hz(self) -> float:
        """Upper edge of the highest mel band, Hz."""
        return self.high_hz or self.sample_rate / 2


class Data(Section):
    source: str = "synth"
    """data set: synth[:CLIPS], folder:PATH, esc50:PATH, esc10:PATH, speech_commands:PATH, audioset_20k:PATH, ..."""
    crop_seconds: Annotated[float, Field(gt=0)] = 6.0
    """length of a crop (a view), seconds"""
    max_gap_seconds: NonNegative = 10.0
    """in long clips, the starts of the two crops are at most this far apart, seconds"""
    segment_seconds: Annotated[float, Field(gt=0)] = 60.0
    """longer files become several rows of the manifest of at most this length, seconds"""
    padding: Literal["ignore", "learn"] = "ignore"
    """padding after a clip shorter than a crop: ignore (not attended to, in no loss), or learn (treated as audio, as in
    the released code)"""
    circular_shift: Share = 0.0
    """probability of rolling a crop's waveform by a random amount"""
    trim: bool = False
    """crops are taken from between a clip's first and last sound, unless that is shorter than a crop"""
    gain_db: NonNegative = 0.0
    """each view of ASiT is made louder or softer by up to this, dB"""
    filter_db: NonNegative = 0.0
    """each view of ASiT is coloured by a smooth curve over the bands, waves of up to this and of a half, a third and a
    quarter of it, dB"""
    mix: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """each view of ASiT gets another clip of the batch added, with up to this share of the energy"""
    holdout: Share = 0.1
    """share of the recordings kept out of pretraining, by source recording; pictures and errors are of these"""
    max_bad_share: Share = 0.2
    """unreadable files are skipped and listed; beyond this share, by headers and a decoded sample, a run
    does not start"""
    workers: Annotated[int, Field(ge=0)] = 0
    """loader processes (0: load in the training process)"""
    cache_mb: NonNegative = 1024.0
    """decoded audio kept in memory, MB per loader process"""


MaskKind = Literal["zeros", "noise", "alien", "time", "frequency", "none"]
MASK_KINDS: tuple[MaskKind, ...] = get_args(MaskKind)


class Mask(Section):
    ratio: Share = 0.7
    """corruption ratio: target share of pixels for every kind but alien (upper end of its range)"""
    ratio_min: Share = 0.7
    """lower end of the range the target share is drawn from (taken as at most ratio)"""
    alien_ratio: Share = 0.3
    """target share of pixels covered by blocks of another clip"""
    block: Annotated[float, Field(gt=0, le=1)] = 0.3
    """largest block, as a share of each side of the spectrogram"""
    align: bool = False
    """blocks aligned to the patch grid"""
    kinds: dict[MaskKind, NonNegative] = {"zeros": 0.5, "alien": 0.5}
    """what a view is corrupted by, with the odds of each: zeros, noise, alien, time (full strips), frequency, none"""

    @model_validator(mode="after")
    def _some_kind(self) -> Self:
        if sum(self.kinds.values()) <= 0:
            raise ValueError(f"mask.kinds: at least one of {', '.join(MASK_KINDS)} needs odds above 0")
        return self

    @classmethod
    def of_one_kind(cls, kind: str, share: float, block: float, align: bool) -> "Mask":
        """Corruption by one kind alone, always of this share of the pixels."""
        return cls(ratio=share, ratio_min=share, alien_ratio=share, block=block, align=align, kinds={kind: 1.0})

    @property
    def corrupts(self) -> bool:
        """Whether any pixel can be corrupted at all."""
        areas = {kind: self.alien_ratio if kind == "alien" else self.ratio for kind in MASK_KINDS}
        return any(self.odds[kind] > 0 and areas[kind] > 0 for kind in MASK_KINDS if kind != "none")

    @property
    def odds(self) -> dict[str, float]:
        """Probability of each kind, "none" included."""
        total = sum(self.kinds.values())
        return {kind: self.kinds.get(kind, 0.0) / total for kind in MASK_KINDS}


class Model(Section):
    width: Positive = 384
    """width of a token"""
    depth: Positive = 12
    """transformer blocks"""
    heads: Positive = 6
    """attention heads"""
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    """width of the MLP over width of a token"""
    patch: tuple[Positive, Positive] = (16, 16)
    """patch size: frames, mel bands"""
    position_start: Literal["random", "sincos"] = "random"
    """what learned positions start from: small random numbers (paper) or 2-D sines and cosines"""
    attention_start: Literal["random", "mimetic"] = "random"
    """what softmax attention starts from: small random numbers (paper), or weights whose products are those of trained
    networks, so that patches attend to near and similar ones from the first step on (arXiv 2305.09828)"""
    mask_input: bool = False
    """ASiT's student also gets the mask as input: a linear map of each patch's mask is added to the patch (not in the
    paper)"""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """stochastic depth of the last block of the student (0 for the first, linear between)"""
    attention: AttentionName = "softmax"
    """attention kind: softmax; asda, differential with fixed factors; learned, differential with learned ones; or your
    own, path/to/file.py:Name"""
    attention_path: Literal["auto", "explicit", "fused", "blocks"] = "auto"
    """how attention is computed: whole map, torch's kernel, blocks of queries; auto: by size, dtype and device"""
    norm: Literal["pre", "post"] = "pre"
    """LayerNorm before each branch and after the last block (ViT), or on the embedding and after each branch (ASDA)"""
    positions: Literal["learned", "fixed"] = "learned"
    """positions: learned, or fixed 2-D sines and cosines, the class token without one (ASDA)"""
    class_token_at: Annotated[int, Field(ge=0)] = 0
    """block before which the class token joins the patches (0: at the start)"""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"model.heads: {self.heads} does not divide model.width {self.width}")
        return self

    @model_validator(mode="after")
    def _positions_and_class_token(self) -> Self:
        if self.positions == "fixed" and self.width % 4:
            raise ValueError(f"model.width: {self.width} is not a multiple of 4, which fixed positions need")
        if self.class_token_at >= self.depth:
            raise ValueError(f"model.class_token_at: {self.class_token_at} is not a block of model.depth {self.depth}")
        return self


class Heads(Section):
    shared: bool = False
    """local and global head share one MLP (released code) or have one each (paper)"""
    hidden: Positive = 2048
    """hidden width of the local and global heads"""
    bottleneck: Positive = 256
    """bottleneck width of the local and global heads"""
    local_out: Positive = 1024
    """outputs of the local head (per token)"""
    global_out: Positive = 8192
    """outputs of the global head (class token)"""
    decoder_hidden: Positive = 2048
    """hidden width of the reconstruction head"""
    decoder_bottleneck: Positive = 256
    """bottleneck width of the reconstruction head"""
    decoder_last_gelu: bool = False
    """one more GELU after the bottleneck of the reconstruction head"""
    decoder_copies: bool = False
    """the reconstruction head may also copy, by weights that it predicts: the nearest uncorrupted pixels of a band, and
    the line between them (not in the paper; needs model.mask_input)"""


Loss = Literal["reconstruction", "local", "global"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


class ObjectiveSettings(Section):
    name: ObjectiveName = "asit"
    """what is learned: asit, by the settings below and in mask and heads; asda, by ema here and the section asda; or
    your own, path/to/file.py:Name"""
    options: dict[str, Any] = {}
    """settings of an objective of your own, which it reads itself"""
    weights: dict[Loss, NonNegative] = {"reconstruction": 1.0, "local": 1.0, "global": 1.0}
    """weight of each loss of ASiT (0: off, its head is not built)"""
    combine: Literal["mean", "sum", "uncertainty"] = "mean"
    """weighted mean, weighted sum, or learned uncertainty (Kendall et al. 2018; weights then only switch losses off)"""
    reconstruct: Literal["corrupted", "all"] = "corrupted"
    """pixels that count in the reconstruction loss"""
    local_tokens: Literal["corrupted", "all"] = "corrupted"
    """tokens that count in the local loss"""
    global_kind: Literal["distillation", "contrastive"] = "distillation"
    """global loss: agree with the teacher's pseudo-labels of the other view (paper), or tell the other view of the clip
    from the other clips of the batch, which small batches learn from (SiT, arXiv 2104.03602; MoCo v3, 2104.02057)"""
    global_token: Literal["class", "mean"] = "class"
    """what stands for a clip in the global loss: the class token (paper), or the mean of its patch tokens"""
    contrastive_temperature: Annotated[float, Field(gt=0)] = 0.2
    """temperature of the contrastive global loss"""
    student_temperature: Annotated[float, Field(gt=0)] = 0.1
    """temperature of the student's softmax"""
    teacher_temperature: Annotated[float, Field(gt=0)] = 0.04
    """temperature of the teacher's softmax at the start (sharpening)"""
    teacher_temperature_end: Annotated[float, Field(gt=0)] = 0.07
    """temperature of the teacher's softmax after its warm-up"""
    teacher_temperature_warmup: Duration = "30 epochs"
    """length of the teacher temperature's linear warm-up"""
    centre_momentum: Share = 0.9
    """momentum of the centre of the teacher's logits (centring)"""
    ema: Share = 0.996
    """teacher momentum at the start"""
    ema_end: Share = 1.0
    """teacher momentum at the end"""
    ema_shape: Literal["cosine", "linear"] = "cosine"
    """shape of the schedule of the teacher momentum"""
    ema_length: Duration = "100 %"
    """steps until the teacher momentum is at its end"""

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if self.name == "asit" and not self.active:
            raise ValueError(f"objective.weights: at least one of {', '.join(LOSSES)} needs a weight above 0")
        return self

    @property
    def active(self) -> tuple[str, ...]:
        """Names of ASiT's losses that are on; none in ASDA. An objective of your own may be built on them."""
        return tuple(name for name in LOSSES if self.name != "asda" and self.weights.get(name, 0.0) > 0)


AsdaLoss = Literal["frame", "utterance"]
ASDA_LOSSES: tuple[AsdaLoss, ...] = get_args(AsdaLoss)


class Asda(Section):
    visible: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """share of the patches that stays visible in a mask, exactly (rounded down to whole patches)"""
    block: Positive = 5
    """side of a block of visible patches"""
    clones: Positive = 16
    """masks of a clip, all against one pass of the teacher"""
    weights: dict[AsdaLoss, NonNegative] = {"frame": 1.0, "utterance": 96.0}
    """weight of each loss (0: off), both means: of frame over hidden patches, of utterance over clips and masks"""
    target_blocks: Positive | None = None
    """blocks of the teacher that make the target, counted from the last (none: all)"""
    class_in_targets: bool = False
    """the teacher's class token is one of the tokens that the targets are normalised over and averaged into"""
    noise: NonNegative = 0.01
    """standard deviation of the noise that stands for hidden patches in the decoder's input"""
    decoder_width: Positive = 768
    """channels of the decoder's convolutions"""
    decoder_layers: Positive = 6
    """convolutions of the decoder"""
    decoder_kernel: Positive = 3
    """side of the decoder's convolutions, patches"""
    decoder_groups: Positive = 16
    """groups of channels in the decoder's convolutions"""

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if not self.active:
            raise ValueError(f"asda.weights: at least one of {', '.join(ASDA_LOSSES)} needs a weight above 0")
        return self

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the losses that are on."""
        return tuple(name for name in ASDA_LOSSES if self.weights.get(name, 0.0) > 0)


class Optim(Section):
    kind: Literal["adamw", "muon"] = "adamw"
    """optimiser: AdamW; or Muon for the matrices of linear layers and AdamW for the rest, which short runs learn faster
    with (Jordan et al. 2024; scaled to AdamW's rates as in Moonlight, arXiv 2502.16982)"""
    rate: Annotated[float, Field(gt=0)] = 5e-4
    """learning rate at a batch of rate_batch clips; scales with the batch"""
    rate_batch: Positive = 256
    """batch the learning rate is given for, clips"""
    min_rate: NonNegative = 1e-6
    """learning rate at the end (cosine)"""
    warmup: Duration = "10 epochs"
    """length of the learning rate's linear warm-up"""
    betas: tuple[ShareBelow1, ShareBelow1] = (0.9, 0.999)
    """AdamW's betas"""
    convention: Literal["dino", "fairseq"] = "dino"
    """details of warm-up and AdamW: dino (ASiT: from 0, two steps at the peak) or fairseq (ASDA: from min_rate, one)"""
    weight_decay: NonNegative = 0.04
    """weight decay at the start"""
    weight_decay_end: NonNegative = 0.4
    """weight decay at the end (cosine)"""
    decay: Literal["weights", "all"] = "weights"
    """what is decayed: weights, all parameters but biases and other one-dimensional ones; or all"""
    clip: NonNegative = 3.0
    """largest gradient norm (0: no clipping)"""
    clip_by: Literal["tensor", "global"] = "tensor"
    """gradient norm clipped per parameter tensor, or over all of them"""


class Train(Section):
    epochs: Annotated[float, Field(gt=0)] = 40
    """length of the run in passes over the training clips"""
    steps: Positive | None = None
    """length of the run in optimiser steps; when given, epochs is ignored"""
    batch_size: Positive = 256
    """clips a step, over all devices and accumulated parts"""
    accumulate: Positive = 1
    """parts a batch is cut into, one after the other, on each device"""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """arithmetic of the student and teacher (auto: bf16 where the device has units for it, else fp32); features, losses
    and weights stay fp32"""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """seed of weights, order, crops, masks, noise"""
    init_from: str | None = None
    """start weights: "shipped", a run (with its heads, where they fit), a snapshot, a saved encoder, or an ImageNet ViT
    in timm's .safetensors"""
    freeze_backbone: bool = False
    """keep the start weights of the backbone, and train heads and decoder alone: a decoder for weights without one"""
    log_every: Positive = 10
    """steps between rows of metrics.csv"""
    checkpoint_every: Positive = 500
    """steps between saved states to resume from"""
    on_collapse: Literal["warn", "stop"] = "warn"
    """when a run has collapsed: warn, or save the state and stop"""
    snapshots: Positive = 8
    """weights kept, spread evenly over the run (and the last)"""
