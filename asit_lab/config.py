"""One validated configuration for a whole run.

`load_config` reads a preset or a YAML file, applies dotted overrides and validates. Presets build on each other with
`base: NAME`, so a preset states only what is different. `diff` lists what two configurations disagree on.
"""

import contextlib
import datetime
import difflib
import functools
import itertools
import math
import numbers
import os
import shlex
import textwrap
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import ValidationError, model_validator
from pydantic_core import ErrorDetails

from .errors import InputError
from .overrides import parse_overrides
from .paths import home, resolve  # noqa: F401  (asit_lab.config.home is used by notebooks)
from .settings import Asda, Data, Features, Heads, Mask, Model, ObjectiveSettings, Optim, Section, Train, visible_of
from .storage.plain_yaml import read_yaml_text

PRESETS = Path(__file__).parent / "presets"


class RunConfig(Section):
    """A whole run. Sections are frozen; `load_config` or `with_overrides` make a changed copy."""

    name: str = "custom"
    """name of the preset or file it came from"""
    features: Features = Features()
    data: Data = Data()
    mask: Mask = Mask()
    model: Model = Model()
    heads: Heads = Heads()
    objective: ObjectiveSettings = ObjectiveSettings()
    asda: Asda = Asda()
    optim: Optim = Optim()
    train: Train = Train()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
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
        if self.heads.decoder_copies and not self.model.mask_input:
            raise ValueError(
                "heads.decoder_copies: a network that copies must be told what is corrupted; set model.mask_input=true"
            )
        if self.train.freeze_backbone and self.train.init_from is None:
            raise ValueError("train.freeze_backbone: keeps the start weights of train.init_from, which names none")
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
        if self.objective.name == "asda":
            self._fits_asda()
        return self

    def _fits_asda(self) -> None:
        patches, asda, model = self.grid[0] * self.grid[1], self.asda, self.model
        if model.mask_input:
            raise ValueError(
                "model.mask_input: the patches that objective.name=asda hides never enter the network; use it with "
                "objective.name=asit"
            )
        if not 0 < visible_of(patches, asda.visible) < patches:
            raise ValueError(f"asda.visible: {asda.visible:g} of {patches} patches leaves none visible, or none hidden")
        if self.train.freeze_backbone and "frame" not in asda.active:
            raise ValueError(
                "train.freeze_backbone: without asda.weights.frame there is no decoder, so nothing is trained"
            )
        if "frame" in asda.active:
            for name, width in {"model.width": model.width, "asda.decoder_width": asda.decoder_width}.items():
                if width % asda.decoder_groups:
                    raise ValueError(f"asda.decoder_groups: {asda.decoder_groups} does not divide {name} {width}")
        if asda.target_blocks is not None and asda.target_blocks > model.depth:
            raise ValueError(f"asda.target_blocks: {asda.target_blocks} is more than model.depth {model.depth}")

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

    def with_overrides(self, overrides: list[str] | str | Mapping[str, Any]) -> "RunConfig":
        """A validated copy with overrides applied, as in `load_config`."""
        return validate(_apply_overrides(self.to_dict(), overrides))

    def to_dict(self) -> dict:
        """Plain nested dict, as written to config.yaml."""
        return self.model_dump(mode="json")

    def to_yaml(self, explain: bool = False) -> str:
        """YAML that `load_config` reads back to an equal configuration. explain: with a comment on every setting."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        return explained(text, keys()) if explain else text


# --- Loading --------------------------------------------------------------------------------------------------------


def first_comment(path: Path) -> str:
    """The comment in the first line of a preset or recipe, which says what it is."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_config(
    preset: str | Path = "asit-vit-s", overrides: list[str] | str | Mapping[str, Any] | None = None
) -> RunConfig:
    """Read and validate a configuration.

    preset: name of a preset, path of a YAML file (a run's config.yaml too), or a run directory.
    overrides: dotted assignments such as "mask.ratio=0.7"; the right side is YAML. One text with several, split as a
    shell splits words, works too: "mask.ratio=0.7 'mask.kinds={zeros: 1}'" (papermill's -p passes texts). So does a
    dictionary of values: {"mask.ratio": 0.7}.
    Raises InputError naming the key and what would be right.
    """
    try:
        name = os.fspath(preset)
    except TypeError:
        raise InputError(f"preset: expected a name or a path, got a {type(preset).__name__}") from None
    layers = read_layers("preset", name, PRESETS, "sections such as 'train:'")
    return validate(_apply_overrides(functools.reduce(_merge, layers), overrides))


def parameter(name: str, value: Any, kind: Any = str) -> Any:
    """A notebook's parameter as what the notebook needs, however it was typed.

    papermill turns `-p seeds 1` into a number and `-p out 2026` too; a YAML file may hold a list, or nothing.
    kind: str (nothing is ""), int, float, a list of one of these (nothing is []; a text is split at blanks and commas,
    with quotes around what has blanks in it, or is a list as YAML writes it), or int | list[int] (a list only where
    there are several, or one in a list). Raises InputError naming the parameter.
    """
    if kind == int | list[int]:
        values = parameter(name, value, list[int])
        is_list = isinstance(value, list | tuple | set) or str(value).strip().startswith("[")
        return values[0] if len(values) == 1 and not is_list else values
    if typing.get_origin(kind) is list:
        (item_type,) = typing.get_args(kind)
        return [parameter(name, entry, item_type) for entry in _entries(value) if entry is not None]
    if isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    if kind is str and (value is None or isinstance(value, str | bytes | numbers.Real | os.PathLike | datetime.date)):
        return "" if value is None else os.fsdecode(value) if isinstance(value, bytes) else str(value)
    if kind in (int, float) and not isinstance(value, bool):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            if kind is int and isinstance(value, str | numbers.Integral):
                with contextlib.suppress(ValueError):  # "1e3" is a whole number, too
                    return int(value)
            number = float(value)
            if math.isfinite(number) and (kind is float or number.is_integer()):
                return kind(number)
    expected = {str: "a text", int: "a whole number", float: "a number"}[kind]
    raise InputError(f"{name}: expected {expected}, got {value!r}")


def _entries(value: Any) -> list[Any]:
    """The entries of a list that may be typed as a text."""
    if isinstance(value, str) and value.strip().startswith("["):
        with contextlib.suppress(yaml.YAMLError):
            value = read_yaml_text(value)
    if isinstance(value, str):
        try:
            words = shlex.split(value)
        except ValueError:  # an apostrophe
            words = value.split()
        parts = ([word] if "," not in word or resolve(word).exists() else word.split(",") for word in words)
        return [part for part in itertools.chain.from_iterable(parts) if part]
    if hasattr(value, "tolist"):  # an array
        value = value.tolist()
    return [] if value is None else list(value) if isinstance(value, list | tuple | set) else [value]


def read_layers(kind: str, name: str, folder: Path, example: str) -> list[dict]:
    """The contents of a YAML file and of those it builds on by `base: NAME`, the file itself last, each with `name`.

    kind: what it is in words ("preset"). name: of a file in `folder`, or a path, of a run directory too. example: a key
    such files have. Raises InputError naming the file.
    """
    layers: list[dict] = []
    visited: list[Path] = []
    while True:
        path = folder / f"{name}.yaml"
        if (
            not os.path.isfile(path) or os.sep in name
        ):  # runs/a is the run's directory even where runs/a.yaml stands beside it
            path = resolve(name)
            path = path / "config.yaml" if path.is_dir() else path
        if not path.is_file():
            names = sorted(file.stem for file in folder.glob("*.yaml"))
            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise InputError(f"{kind} {name!r}: no such {kind} or file{hint} {kind.capitalize()}s: {', '.join(names)}")
        if path in visited:
            raise InputError(f"{path}: its base leads back to itself")
        visited.append(path)
        content = read_yaml(path, example)
        base = content.pop("base", None)
        for dotted in [key for key in content if isinstance(key, str) and "." in key]:  # mask.ratio: 0.5
            content = _set(content, dotted.split("."), content.pop(dotted))
        layers.insert(0, {"name": path.stem, **content})
        if not base:
            return layers
        name = str(base)


def read_yaml(path: Path, example: str) -> dict:
    """The keys and values of a YAML file; none of an empty one. Raises InputError for anything else in it."""
    try:
        content = read_yaml_text(path.read_text(encoding="utf-8-sig")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected {example}, found {type(content).__name__}")
    return content


def _merge(base: dict, change: dict) -> dict:
    """`base` with the sections of `change` laid over it; an entry of a section (mask.kinds, say) is replaced as one."""
    merged = dict(base)
    for section, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(section), dict)
        merged[section] = {**merged[section], **value} if both else value
        if both and section == "train" and value.get("epochs") is not None and "steps" not in value:
            merged[section]["steps"] = None  # a length in epochs replaces one in steps
    return merged


def _set(content: dict, path: list[str], value: Any) -> dict:
    """`content` with the entry at `path` set."""
    if len(path) == 1:
        return {**content, path[0]: value}
    inner = content.get(path[0])
    return {**content, path[0]: _set(inner if isinstance(inner, dict) else {}, path[1:], value)}


def _apply_overrides(content: dict, overrides: list[str] | str | Mapping[str, Any] | None) -> dict:
    parsed = parse_overrides(overrides)
    if parsed.get("train.epochs") is not None and "train.steps" not in parsed:
        parsed = {"train.steps": None} | parsed  # a length in epochs replaces one in steps
    for dotted, value in parsed.items():
        path = dotted.split(".")
        content = _set(content, path, value) if len(path) > 1 else _merge(content, {path[0]: value})
    return content


def validate(content: dict) -> RunConfig:
    """A RunConfig from plain data; InputError lists every wrong key with what would be right."""
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(_explain(problem) for problem in error.errors())) from None


def _explain(problem: ErrorDetails) -> str:
    dotted = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    if problem["type"] == "extra_forbidden" or (problem["loc"] and problem["loc"][-1] == "[key]"):
        return f"{dotted}: unknown key; {_nearest(dotted)}"
    if problem["type"] == "value_error":
        text = str(problem["ctx"]["error"])
        names_setting = any(text.startswith(f"{section}.") for section in RunConfig.model_fields)
        return text if names_setting else f"{dotted}: {problem['input']!r} is not valid: {text}"
    if problem["type"] in ("model_type", "dict_type"):
        return f"{dotted}: {problem['input']!r} is not valid: expected keys inside it; {_nearest(dotted + '.')}"
    about = keys().get(dotted, "")
    return f"{dotted}: {problem['input']!r} is not valid: {problem['msg']}" + (f" ({about})" if about else "")


def keys() -> dict[str, str]:
    """Every valid dotted key with its one-line description."""
    listed = {"name": RunConfig.model_fields["name"].description or ""}
    for section, field in RunConfig.model_fields.items():
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            continue
        for name, inner in field.annotation.model_fields.items():
            listed[f"{section}.{name}"] = inner.description or ""
            if getattr(inner.annotation, "__origin__", None) is dict:
                choices = get_args(get_args(inner.annotation)[0])
                listed.update({f"{section}.{name}.{choice}": inner.description or "" for choice in choices})
    return listed


def explained(text: str, about: dict[str, str]) -> str:
    """The YAML of settings with each one's description as a comment above it; about: {dotted key: description}."""
    section, lines = "", []
    for line in text.splitlines():
        name, colon, _ = line.partition(":")
        if colon and name.isidentifier():
            section = name
        setting = f"{section}.{name.strip()}" if name.startswith("  ") and name[2:].isidentifier() else name
        if colon and about.get(setting):
            indent = " " * (len(name) - len(name.lstrip()))
            lines += [f"{indent}# {part}" for part in textwrap.wrap(about[setting], 110)]
        lines.append(line)
    return "\n".join(lines) + "\n"


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
