"""Recipes of fine-tuning: trained weights, augmentation, length, optimiser and schedule.

A recipe is flat: every key stands by itself, so that `rate=1e-4` overrides it. Those in recipes/ build on each other
with `base: NAME`. AST's are those of its released code (arXiv 2104.01778), which ASiT follows (arXiv 2211.13189);
ASDA's are its released code's (arXiv 2507.02666); VoxCeleb1's is SUPERB's (arXiv 2105.01051).
"""

import difflib
import functools
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from ..config import explained, read_layers
from ..errors import InputError
from ..overrides import parse_overrides
from ..schedules import warmup_cosine
from ..settings import Duration, NonNegative, Positive, Section, Share, steps_of

RECIPES = Path(__file__).parent / "recipes"
# Keys that a run may be continued with another value of: nothing that it ends with depends on them.
KEYS_WITHOUT_EFFECT = ("name", "workers", "cache_mb", "checkpoint_every")

AUTO = "auto"
"""in place of a recipe's name: the one that suits the size of the data set"""
_MICRO_CLIPS = 20_000
_AUDIOSET_20K_CLIPS = 200_000
PositiveFloat = Annotated[float, Field(gt=0)]


class Recipe(Section):
    """How an encoder is fine-tuned on a labelled data set."""

    name: str = "custom"
    """name of the recipe or file it came from"""
    task: Literal["single", "multi"] = "single"
    """one class a clip (scored by accuracy), or any number (scored by mAP)"""

    backbone: Literal["teacher", "student"] = "teacher"
    """whose weights are the start: teacher (ASiT), student (ASDA's released code)"""
    frozen: bool = False
    """train the head alone"""
    head: Literal["class", "mean", "mean+std", "layers"] = "class"
    """LayerNorm and a linear layer on the class token or on the mean of the patches; mean+std: a linear layer on the
    standardised mean and deviation of the patches of all layers, which starts as a linear probe fitted on the training
    clips (averaged weights are standardised anew); layers, SUPERB's: a learned weighted sum of all layers, a projector,
    mean pooling and a linear layer"""
    projector: Positive = 256
    """width of the projector of head=layers"""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """stochastic depth of the last block (0 for the first, linear between)"""

    frames: Positive | Literal["auto"] = 512
    """length of the input in frames of the log-mel, cut to whole patches; shorter clips are padded. auto: that of the
    crops of pretraining, or of the longest clip where all are shorter"""
    crop: Literal["start", "random"] = "start"
    """of longer clips: the start; or a random stretch in training, and in tests all stretches, outputs averaged"""
    statistics: Literal["encoder", "recipe", "measured"] = "encoder"
    """whose mean and std normalise the log-mel: pretraining's, the two below, or those of the training clips"""
    mean: float | None = None
    """mean of the log-mel, for statistics=recipe"""
    std: PositiveFloat | None = None
    """standard deviation of the log-mel, for statistics=recipe"""

    mixup: Share = 0.0
    """probability of mixing a clip with another one, labels too"""
    mixup_of: Literal["waveform", "log-mel"] = "waveform"
    """what is mixed: waveforms, each with any other training clip (AST); log-mels, a batch with its reverse by one
    share (ASDA)"""
    mixup_beta: PositiveFloat = 10.0
    """the share of the first is drawn from Beta(a, a)"""
    roll: bool = False
    """roll the waveform by a random amount, with a gain of 0.5 + Beta(10, 10) (ASDA)"""
    freq_mask: Annotated[int, Field(ge=0)] = 0
    """SpecAugment: longest stripe of bands set to 0 before normalising (AST)"""
    time_mask: Annotated[int, Field(ge=0)] = 0
    """SpecAugment: longest stripe of frames set to 0 before normalising (AST)"""
    masked: Share = 0.0
    """longest stripe of bands and of frames set to 0 after normalising, as a share of each side (ASDA's mask_ratio)"""
    noise: bool = False
    """add uniform noise of a random height up to 0.1 to the normalised log-mel"""
    shift_frames: Annotated[int, Field(ge=0)] = 0
    """roll the log-mel in time by up to this many frames, either way"""

    loss: Literal["ce", "bce"] = "ce"
    """cross-entropy, or binary cross-entropy of each class"""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """label smoothing of the cross-entropy"""
    balanced: bool = False
    """draw clips with replacement, with odds that are the sum over their labels of 1 / clips with that label"""

    epochs: Positive = 25
    """length in passes over the training clips"""
    steps: Positive | None = None
    """length in optimiser steps; when given, epochs is ignored"""
    epoch_clips: Positive | None = None
    """clips that make an epoch (default: as many as there are to train on)"""
    batch_size: Positive = 48
    """clips a step"""
    accumulate: Positive = 1
    """parts a batch is cut into, one after the other"""

    optimizer: Literal["adam", "adamw"] = "adam"
    """adam: weight decay as a gradient (AST); adamw: decoupled (ASDA, as in fairseq)"""
    betas: tuple[Share, Share] = (0.95, 0.999)
    """decay of Adam's moments"""
    weight_decay: NonNegative = 5e-7
    """weight decay, of all weights"""
    rate: PositiveFloat = 1e-4
    """highest learning rate"""
    schedule: Literal["constant", "step", "cosine"] = "constant"
    """step: times decay_factor every decay_every epochs after decay_start; cosine: from min_rate up and back"""
    decay_start: Annotated[int, Field(ge=0)] = 5
    """epochs before the first step down"""
    decay_every: Positive = 1
    """epochs between steps down"""
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.85
    """factor of the rate at each step down"""
    warmup: Duration = "0"
    """linear warm-up: a number of steps (400), epochs ('1 epoch') or a share of the run ('10 %')"""
    min_rate: NonNegative = 0.0
    """rate at both ends of the cosine"""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """factor of the rate from block to block towards the input; what is not in a block has the full rate"""
    clip: NonNegative = 0.0
    """largest gradient norm, over all weights (0: no clipping)"""
    average_from: Positive | None = None
    """average the weights at the ends of the epochs from this one (from 1) to the last"""

    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """arithmetic of the network (auto: bf16 where the device has units for it, else fp32); features, losses and weights
    stay fp32"""
    evaluate_every: Positive = 1
    """epochs between tests"""
    checkpoint_every: Positive = 500
    """steps between saved states to resume from, besides the ends of epochs"""
    workers: Annotated[int, Field(ge=0)] = 0
    """loader processes (0: load in the training process)"""
    cache_mb: NonNegative = 1024.0
    """decoded audio kept in memory, MB per loader process"""

    @model_validator(mode="after")
    def _fits_together(self):
        if self.task == "multi" and self.loss == "ce":
            raise ValueError("loss: ce is for one class a clip; task=multi needs loss=bce")
        if self.smoothing and self.loss == "bce":
            raise ValueError("smoothing: there is none with loss=bce; use smoothing=0 or loss=ce")
        if self.statistics == "recipe" and (self.mean is None or self.std is None):
            raise ValueError("statistics: recipe needs mean and std")
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate: {self.accumulate} does not divide batch_size {self.batch_size}")
        return self

    def steps_per_epoch(self, clips: int) -> int:
        """Optimiser steps in an epoch over `clips` training clips; the last batch may be smaller."""
        return -(-(self.epoch_clips or clips) // self.batch_size)

    def total_steps(self, clips: int) -> int:
        """Optimiser steps of a run over `clips` training clips."""
        return self.steps or self.epochs * self.steps_per_epoch(clips)

    def rate_at(self, step: int, clips: int, scale: float = 1.0) -> float:
        """Learning rate at a step (from 0); `scale` multiplies the peak, and not min_rate, as in ASDA's code."""
        epoch_steps, total = self.steps_per_epoch(clips), self.total_steps(clips)
        warmup, peak = steps_of(self.warmup, epoch_steps, total), scale * self.rate
        if self.schedule == "cosine":
            return warmup_cosine(peak, self.min_rate, total, step, warmup)
        if self.schedule == "step" and (past := step // epoch_steps - self.decay_start) >= 0:
            peak *= self.decay_factor ** (1 + past // self.decay_every)
        # AST raises the rate in stairs of 50 steps, which is a line to within them.
        return peak * min(1.0, step / warmup) if warmup else peak

    def to_dict(self) -> dict:
        """Plain values, as written to setup.yaml."""
        return self.model_dump(mode="json")

    def to_yaml(self, explain: bool = False) -> str:
        """As a recipe file; explain: with what every key means, as comments."""
        about = {key: field.description or "" for key, field in Recipe.model_fields.items()} if explain else {}
        return explained(yaml.safe_dump(self.to_dict(), sort_keys=False), about)


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(
    recipe: str | Path | Recipe = "ast-esc50", overrides: list[str] | str | Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe by name or from a YAML file, with overrides such as "rate=1e-4" or {"rate": 1e-4} applied.

    Raises InputError naming the key and what would be right.
    """
    if isinstance(recipe, Recipe):
        content = recipe.to_dict()
    else:
        layers = read_layers("recipe", str(recipe), RECIPES, "keys such as 'rate:'")
        content = functools.reduce(operator.or_, layers)
    content = {**content, **parse_overrides(overrides, "rate=1e-4")}
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        name = content.get("name", "custom")
        raise InputError("\n".join(f"recipe {name}: {_explain(problem)}" for problem in error.errors())) from None


def recommended_recipe(clips: int, seconds: float, multi: bool) -> tuple[str, dict[str, Any]]:
    """Name of the recipe for a data set by its size, and settings to change in it.

    clips: of the data set, test clips included. seconds: median length of a clip. multi: several labels a clip.
    `micro` up to 20,000 clips, though 2,000 are the most that it was tried on; beyond, AST's for the data set that is
    most alike.
    """
    if clips <= _MICRO_CLIPS:
        return "micro", {"task": "multi", "loss": "bce"} if multi else {}
    if multi:
        return "ast-audioset-2m" if clips > _AUDIOSET_20K_CLIPS else "ast-audioset-20k", {}
    return "ast-speech-commands" if seconds < 2 else "ast-esc50", {}


def _explain(problem: dict) -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, Recipe.model_fields, 1)
        return f"{key}: unknown key; " + (f"did you mean {near[0]}?" if near else f"valid: {', '.join(_keys())}")
    if problem["type"] == "value_error" and not problem["loc"]:
        return str(problem["ctx"]["error"])
    field = Recipe.model_fields.get(str(problem["loc"][0]))
    hint = f" ({field.description})" if field else ""
    return f"{key}: {problem['input']!r} is not valid: {problem['msg']}{hint}"


def _keys() -> list[str]:
    return list(Recipe.model_fields)
