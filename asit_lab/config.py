"""One validated configuration for a whole run.

`load_config` reads a preset or a YAML file, applies dotted overrides and validates. Presets build on each other with
`base: NAME`, so a preset states only what is different. `diff` lists what two configurations disagree on.
"""

import difflib
import math
import os
import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .errors import InputError

PRESETS = Path(__file__).parent / "presets"


def home() -> Path:
    """The folder relative paths count from: $ASIT_LAB_HOME, else the project's checkout, else the working directory."""
    if os.environ.get("ASIT_LAB_HOME"):
        return Path(os.environ["ASIT_LAB_HOME"]).expanduser().resolve()
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def resolve(path: str | Path) -> Path:
    """An absolute path; relative ones count from `home()`, in the shell, in Lab and under papermill alike."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else (home() / path).resolve()


# --- Durations ------------------------------------------------------------------------------------------------------

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(steps?|epochs?|%)?$")


def _check_duration(value: Any) -> str:
    text = str(value).strip()
    if isinstance(value, bool) or not _DURATION.match(text):
        raise ValueError("a duration is a number of steps (400), epochs ('10 epochs') or a share of the run ('10 %')")
    return text


Duration = Annotated[str, BeforeValidator(_check_duration)]


def steps_of(duration: str, steps_per_epoch: int, total: int) -> int:
    """Steps in a duration such as "400", "10 epochs" or "25 %" of a run of `total` steps."""
    number, unit = _DURATION.match(duration).groups()
    scale = {"%": total / 100, "epoch": steps_per_epoch, "epochs": steps_per_epoch}.get(unit, 1)
    return round(float(number) * scale)


# --- Sections -------------------------------------------------------------------------------------------------------

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


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
    mean: float = -4.2677393
    """mean of the log-mel (natural log); normalised = (x - mean) / (2 std)"""
    std: Annotated[float, Field(gt=0)] = 4.5689974
    """standard deviation of the log-mel (natural log)"""


class Data(Section):
    source: str = "synth"
    """data set: synth[:CLIPS], folder:PATH, esc50:PATH, esc10:PATH, speech_commands:PATH"""
    crop_seconds: Annotated[float, Field(gt=0)] = 6.0
    """length of a crop (a view), seconds"""
    max_gap_seconds: NonNegative = 10.0
    """in long clips, the starts of the two crops are at most this far apart, seconds"""
    segment_seconds: Annotated[float, Field(gt=0)] = 60.0
    """longer files become several rows of the manifest of at most this length, seconds"""
    circular_shift: Share = 0.0
    """probability of rolling a crop's waveform by a random amount"""
    holdout: Share = 0.1
    """share of the recordings kept out of pretraining, by source recording; pictures and errors are of these"""
    max_bad_share: Share = 0.2
    """unreadable files are skipped and listed; above this share of the data set the run stops"""
    workers: Annotated[int, Field(ge=0)] = 0
    """loader processes (0: load in the training process)"""
    cache_mb: NonNegative = 1024.0
    """decoded audio kept in memory, MB per loader process"""


MASK_KINDS = ("zeros", "noise", "alien", "time", "frequency", "none")


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
    kinds: dict[Literal["zeros", "noise", "alien", "time", "frequency", "none"], NonNegative] = {
        "zeros": 0.5,
        "alien": 0.5,
    }
    """what a view is corrupted by, with the odds of each: zeros, noise, alien, time (full strips), frequency, none"""

    @model_validator(mode="after")
    def _some_kind(self):
        if sum(self.kinds.values()) <= 0:
            raise ValueError(f"mask.kinds: at least one of {', '.join(MASK_KINDS)} needs odds above 0")
        return self

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
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """stochastic depth of the last block of the student (0 for the first, linear between)"""
    attention: Literal["softmax"] = "softmax"
    """attention kind"""
    attention_path: Literal["auto", "explicit", "fused"] = "auto"
    """how attention is computed; auto: the faster of the two at that size, dtype and device"""

    @model_validator(mode="after")
    def _heads_divide(self):
        if self.width % self.heads:
            raise ValueError(f"model.heads: {self.heads} does not divide model.width {self.width}")
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


LOSSES = ("reconstruction", "local", "global")


class Objective(Section):
    name: Literal["asit"] = "asit"
    """what is learned"""
    weights: dict[Literal["reconstruction", "local", "global"], NonNegative] = {
        "reconstruction": 1.0,
        "local": 1.0,
        "global": 1.0,
    }
    """weight of each loss (0: off, its head is not built)"""
    combine: Literal["mean", "sum", "uncertainty"] = "mean"
    """weighted mean, weighted sum, or learned uncertainty (Kendall et al. 2018; weights then only switch losses off)"""
    reconstruct: Literal["corrupted", "all"] = "corrupted"
    """pixels that count in the reconstruction loss"""
    local_tokens: Literal["corrupted", "all"] = "corrupted"
    """tokens that count in the local loss"""
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
    """teacher momentum at the end (cosine between)"""

    @model_validator(mode="after")
    def _some_loss(self):
        if not self.active:
            raise ValueError(f"objective.weights: at least one of {', '.join(LOSSES)} needs a weight above 0")
        return self

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the losses that are on."""
        return tuple(name for name in LOSSES if self.weights.get(name, 0.0) > 0)


class Optim(Section):
    rate: Annotated[float, Field(gt=0)] = 5e-4
    """learning rate at a batch of rate_batch clips; scales with the batch"""
    rate_batch: Positive = 256
    """batch the learning rate is given for, clips"""
    min_rate: NonNegative = 1e-6
    """learning rate at the end (cosine)"""
    warmup: Duration = "10 epochs"
    """length of the learning rate's linear warm-up"""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """AdamW's betas"""
    weight_decay: NonNegative = 0.04
    """weight decay at the start"""
    weight_decay_end: NonNegative = 0.4
    """weight decay at the end (cosine)"""
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
    precision: Literal["fp32", "bf16"] = "fp32"
    """arithmetic of the student and teacher; features, losses and weights stay fp32"""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """seed of weights, order, crops, masks, noise"""
    init_from: str | None = None
    """start weights: a run, a snapshot, or an ImageNet ViT as .safetensors in timm's layout"""
    log_every: Positive = 10
    """steps between rows of metrics.csv"""
    checkpoint_every: Positive = 500
    """steps between saved states to resume from"""
    snapshots: Positive = 8
    """weights kept, spread evenly over the run (and the last)"""


class RunConfig(Section):
    """A whole run. Sections are frozen; `load_config` or `with_overrides` make a changed copy."""

    name: str = "custom"
    """name of the preset or file it came from"""
    features: Features = Features()
    data: Data = Data()
    mask: Mask = Mask()
    model: Model = Model()
    heads: Heads = Heads()
    objective: Objective = Objective()
    optim: Optim = Optim()
    train: Train = Train()

    @model_validator(mode="after")
    def _fits_together(self):
        patch_frames, patch_mels = self.model.patch
        if self.features.mel_bins % patch_mels:
            raise ValueError(
                f"model.patch: {patch_mels} mel bands do not divide features.mel_bins {self.features.mel_bins}"
            )
        if self.input_frames < patch_frames:
            raise ValueError(
                f"data.crop_seconds: {self.data.crop_seconds} s give fewer frames than one patch of {patch_frames}"
            )
        if self.train.batch_size % self.train.accumulate:
            raise ValueError(
                f"train.accumulate: {self.train.accumulate} does not divide train.batch_size {self.train.batch_size}"
            )
        if not self.mask.corrupts:
            if "reconstruction" in self.objective.active and self.objective.reconstruct == "corrupted":
                raise ValueError(
                    "objective.reconstruct: nothing is corrupted (mask.kinds, mask.ratio), so use "
                    "objective.reconstruct=all or objective.weights.reconstruction=0"
                )
            if "local" in self.objective.active and self.objective.local_tokens == "corrupted":
                raise ValueError(
                    "objective.local_tokens: nothing is corrupted (mask.kinds, mask.ratio), so use "
                    "objective.local_tokens=all or objective.weights.local=0"
                )
        return self

    @property
    def crop_samples(self) -> int:
        """Samples in a crop."""
        return round(self.data.crop_seconds * self.features.sample_rate)

    @property
    def input_frames(self) -> int:
        """Frames of a crop's log-mel that the model sees: whole frames (Kaldi's snip_edges), cut to whole patches."""
        frame = int(self.features.sample_rate * self.features.frame_ms / 1000)
        hop = int(self.features.sample_rate * self.features.hop_ms / 1000)
        frames = max(0, 1 + (self.crop_samples - frame) // max(hop, 1))
        return frames // self.model.patch[0] * self.model.patch[0]

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens of a crop: along time, along mel."""
        return self.input_frames // self.model.patch[0], self.features.mel_bins // self.model.patch[1]

    def steps_per_epoch(self, clips: int) -> int:
        """Optimiser steps in one pass over `clips` training clips (at least one)."""
        return max(1, clips // self.train.batch_size)

    def total_steps(self, clips: int) -> int:
        """Optimiser steps of the run over `clips` training clips."""
        if self.train.steps is not None:
            return self.train.steps
        return max(1, math.ceil(self.train.epochs * self.steps_per_epoch(clips)))

    def with_overrides(self, overrides: list[str]) -> "RunConfig":
        """A validated copy with dotted overrides such as "mask.ratio=0.5" applied."""
        return validate(_apply_overrides(self.to_dict(), overrides))

    def to_dict(self) -> dict:
        """Plain nested dict, as written to config.yaml."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """YAML that `load_config` reads back to an equal configuration."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


# --- Loading --------------------------------------------------------------------------------------------------------


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_config(preset: str | Path = "asit-vit-s", overrides: list[str] | str | None = None) -> RunConfig:
    """Read and validate a configuration.

    preset: name of a preset, path of a YAML file (a run's config.yaml too), or a run directory.
    overrides: dotted assignments such as "mask.ratio=0.7"; the right side is YAML. One text with several, split as a
    shell splits words, works too: "mask.ratio=0.7 'mask.kinds={zeros: 1}'" (papermill's -p passes texts).
    Raises InputError naming the key and what would be right.
    """
    return validate(_apply_overrides(_read(str(preset)), overrides or []))


def _read(preset: str, seen: tuple[str, ...] = ()) -> dict:
    """The merged contents of a preset or file and its bases, not validated yet."""
    path = PRESETS / f"{preset}.yaml"
    if not path.is_file():
        path = resolve(preset)
        if path.is_dir():
            path = path / "config.yaml"
        if not path.is_file():
            near = difflib.get_close_matches(preset, preset_names(), 1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise InputError(f"preset {preset!r}: no such preset or file{hint} Presets: {', '.join(preset_names())}")
    if str(path) in seen:
        raise InputError(f"{path}: its base leads back to itself")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected sections such as 'train:', found {type(content).__name__}")
    content.setdefault("name", path.stem)
    base = content.pop("base", None)
    return _merge(_read(base, (*seen, str(path))), content) if base else content


def _merge(base: dict, change: dict) -> dict:
    """`base` with the sections of `change` laid over it; an entry of a section (mask.kinds, say) is replaced whole."""
    merged = dict(base)
    for section, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(section), dict)
        merged[section] = {**merged[section], **value} if both else value
    return merged


def _set(content: dict, path: list[str], value: Any) -> dict:
    """`content` with the entry at `path` set."""
    if len(path) == 1:
        return {**content, path[0]: value}
    inner = content.get(path[0])
    return {**content, path[0]: _set(inner if isinstance(inner, dict) else {}, path[1:], value)}


def _apply_overrides(content: dict, overrides: list[str] | str) -> dict:
    if isinstance(overrides, str):
        try:
            overrides = shlex.split(overrides)
        except ValueError as error:
            raise InputError(f"overrides {overrides!r}: {error}") from None
    for override in overrides:
        dotted, equals, value = override.partition("=")
        if not equals or not dotted.strip():
            raise InputError(f"override {override!r}: expected key=value, such as mask.ratio=0.7")
        try:
            path, parsed = dotted.strip().split("."), yaml.safe_load(value)
            content = _set(content, path, parsed) if len(path) > 1 else _merge(content, {path[0]: parsed})
        except yaml.YAMLError:
            raise InputError(f"override {override!r}: {value!r} is not a value YAML can read") from None
    return content


def validate(content: dict) -> RunConfig:
    """A RunConfig from plain data; InputError lists every wrong key with what would be right."""
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(_explain(problem) for problem in error.errors())) from None


def _explain(problem: dict) -> str:
    dotted = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    if problem["type"] == "extra_forbidden" or (problem["loc"] and problem["loc"][-1] == "[key]"):
        return f"{dotted}: unknown key; {_nearest(dotted)}"
    if problem["type"] == "value_error":
        text = str(problem["ctx"]["error"])
        known = any(text.startswith(f"{section}.") for section in RunConfig.model_fields)
        return text if known else f"{dotted}: {problem['input']!r} is not valid: {text}"
    if problem["type"] in ("model_type", "dict_type"):
        return f"{dotted}: {problem['input']!r} is not valid: expected keys inside it; {_nearest(dotted + '.')}"
    about = keys().get(dotted, "")
    return f"{dotted}: {problem['input']!r} is not valid: {problem['msg']}" + (f" ({about})" if about else "")


def keys() -> dict[str, str]:
    """Every valid dotted key with its one-line description."""
    listed = {"name": RunConfig.model_fields["name"].description}
    for section, field in RunConfig.model_fields.items():
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            continue
        for name, inner in field.annotation.model_fields.items():
            listed[f"{section}.{name}"] = inner.description or ""
            if getattr(inner.annotation, "__origin__", None) is dict:
                choices = get_args(get_args(inner.annotation)[0])
                listed.update({f"{section}.{name}.{choice}": inner.description for choice in choices})
    return listed


def _nearest(dotted: str) -> str:
    valid = list(keys())
    section = dotted.split(".")[0]
    if "." not in dotted:  # a section, or a key without its section
        elsewhere = [key for key in valid if key.split(".")[-1] == dotted]
        near = difflib.get_close_matches(dotted, list(RunConfig.model_fields), 1) or elsewhere
    else:
        near = difflib.get_close_matches(dotted, valid, 1, cutoff=0.7)
    if near:
        return f"did you mean {near[0]}?"
    inside = [key for key in valid if key.startswith(f"{section}.")] or list(RunConfig.model_fields)
    return f"valid: {', '.join(inside)}"


# --- Comparing ------------------------------------------------------------------------------------------------------


def flatten(content: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dict -> {"section.key": value}."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def diff(a: RunConfig, b: RunConfig, ignore: tuple[str, ...] = ("name",)) -> list[dict[str, Any]]:
    """Rows {key, a, b, about} for every setting the two disagree on, in the order of the configuration."""
    left, right = flatten(a.to_dict()), flatten(b.to_dict())
    about = keys()
    return [
        {"key": key, "a": left.get(key), "b": right.get(key), "about": about.get(key, "")}
        for key in dict.fromkeys([*left, *right])
        if left.get(key) != right.get(key) and not key.startswith(ignore)
    ]
