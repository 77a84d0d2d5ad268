"""Expands a study into its points, and checks all that can be checked before the first of them starts."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .._version import __version__
from ..config import RunConfig, load_config
from ..errors import InputError
from ..runs.encoder_folder import path_of_weights
from ..storage.plain_yaml import yaml_value
from ..storage.words import nearest
from .inputs import point_inputs
from .notebook import Notebook, read_notebook
from .point import Point
from .study import Setting, Study, read_study, shipped_file

RESERVED = ("out", "overrides", "seed")  # parameters that every point is given by the batch itself


def points(
    study: str | Path | Study, scale: str, data: str | None = None, seeds: int | list[int] | None = None
) -> list[Point]:
    """The points of a study at a scale, setting by setting, seeds inside.

    data: data set in place of the scale's. seeds: how many, or which, in place of the scale's.
    Raises InputError for a parameter the notebook does not have, a value of another type, a setting that the
    configuration refuses, and for two settings that come to the same; each names the study and the setting.
    """
    study = read_study(study)
    of_scale = study.scale(scale)
    notebook = read_notebook(shipped_file(study.notebook))
    _check_reserved(notebook)
    expanded: list[Point] = []
    stamps: dict[str, str] = {}
    for setting in study.settings_at(scale):
        for seed in _seeds(of_scale.seeds if seeds is None else seeds):
            try:
                expanded.append(_point(study, scale, notebook, setting, data or of_scale.data, seed, stamps))
            except InputError as error:
                raise InputError(f"study {study.name}, {scale}, setting {setting.name!r}: {error}") from None
    _check_different(study, expanded)
    return expanded


def check_kernel(notebook: Notebook) -> None:
    """Raises InputError where the notebook could not be run here: no papermill, or no kernel of its name."""
    try:
        import papermill  # noqa: F401
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError as error:
        raise InputError(
            f"{error.name} is not installed, so notebooks cannot be run: pip install {error.name}, or do the points "
            "without notebooks (--no-notebook)"
        ) from None
    manager = KernelSpecManager()
    try:
        manager.get_kernel_spec(notebook.kernel)
    except NoSuchKernel:
        installed = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        raise InputError(
            f"{notebook.path}: its kernel {notebook.kernel!r} is not installed; there are: {installed}. Choose one of "
            "them in the notebook, install it, or do the points without notebooks (--no-notebook)"
        ) from None


def check_data(study_points: Iterable[Point]) -> None:
    """Raises InputError where a data set of the points cannot be used on this machine, before any of them starts."""
    from ..data.manifest import load_manifest  # torch comes with it

    sources: dict[str, float | None] = {}
    for point in study_points:
        if point.config:
            data = point.config["data"]
            sources[data["source"]] = data["segment_seconds"]
            sources |= {other: None for other in [point.parameters.get("evaluate")] if other and other not in sources}
    for source, seconds in sources.items():
        load_manifest(source, **({} if seconds is None else {"segment_seconds": seconds}))


def _check_reserved(notebook: Notebook) -> None:
    missing = [name for name in ("out", "seed") if name not in notebook.parameters]
    if missing:
        raise InputError(
            f"{notebook.path}: no parameter {missing[0]!r} in its cell tagged `parameters`; a study gives every point "
            "a folder (out) and a seed"
        )
    _type("seed", 0, notebook)
    _type("out", "", notebook)


def _seeds(seeds: int | list[int]) -> list[int]:
    """Seeds as a list: 3 stands for 0, 1, 2."""
    listed = list(range(seeds)) if type(seeds) is int else seeds
    if not isinstance(listed, list | tuple) or not listed or any(type(seed) is not int or seed < 0 for seed in listed):
        raise InputError(f"seeds: {seeds!r}: expected how many (3) or which ([0, 1, 2])")
    if len(set(listed)) < len(listed):
        raise InputError(f"seeds: {seeds!r}: a seed is listed twice")
    return list(listed)


def _point(
    study: Study, scale: str, notebook: Notebook, setting: Setting, data: str, seed: int, stamps: dict[str, str]
) -> Point:
    of_scale = study.scale(scale)
    settings = {**study.settings, **of_scale.settings, **setting.settings}
    overrides = {key: value for key, value in settings.items() if "." in key}
    parameters = {key: value for key, value in settings.items() if "." not in key}
    reserved = [name for name in RESERVED if name in parameters]
    if reserved:
        raise InputError(
            f"{reserved[0]}: every point is given its own; settings have a dot in them, such as mask.ratio"
        )
    parameters = {**({"preset": of_scale.preset} if of_scale.preset else {}), **parameters, "seed": seed}
    if "data" in notebook.parameters:
        parameters = {"data": data, **parameters}
    parameters = {name: _type(name, value, notebook) for name, value in parameters.items()}
    config = None
    if overrides or "overrides" in notebook.parameters:
        config, parameters["overrides"] = _configured(notebook, parameters, overrides)
    return Point(
        setting=setting.name,
        seed=seed,
        settings=setting.settings,
        published=setting.published,
        parameters=parameters,
        config=config.to_dict() if config else None,
        notebook=str(notebook.path),
        code=notebook.code,
        version=__version__,
        inputs=point_inputs(parameters, config.to_dict() if config else None, stamps),
    )


def _type(name: str, value: Any, notebook: Notebook) -> Any:
    """The value with the type of the notebook's default."""
    if name not in notebook.parameters:
        raise InputError(f"{name}: not a parameter of {notebook.path}: {nearest(name, notebook.parameters)}")
    default = notebook.parameters[name]
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if default is not None and type(value) is not type(default):
        raise InputError(
            f"{name}: {value!r} is {_a(value)}; {notebook.path} expects {_a(default)}, such as {default!r}"
        )
    return value


def _a(value: Any) -> str:
    names = {str: "a string", bool: "true or false", int: "a whole number", float: "a number", list: "a list"}
    return names.get(type(value), f"a {type(value).__name__}")


def _configured(notebook: Notebook, parameters: dict[str, Any], overrides: dict[str, Any]) -> tuple[RunConfig, str]:
    """The configuration of a point, and the shortest overrides that lead to it from its preset."""
    missing = [name for name in ("preset", "data", "overrides") if name not in notebook.parameters]
    if missing:
        raise InputError(f"{next(iter(overrides), 'overrides')}: {notebook.path} has no parameter {missing[0]!r}")
    preset = parameters.setdefault("preset", notebook.parameters["preset"])
    plain = {"data.source": parameters["data"], "train.seed": parameters["seed"]}
    fixed = [key for key in ("data.source", "train.seed") if key in overrides]
    if fixed:
        raise InputError(f"{fixed[0]}: every point is given its own, by data and seeds")
    config = load_config(preset, overrides | plain)
    start = config.train.init_from and path_of_weights(config.train.init_from)
    if start and not start.exists():
        raise InputError(f"train.init_from: {start} does not exist")
    before, after = load_config(preset, plain).to_dict(), config.to_dict()
    changed = {
        f"{section}.{key}": value
        for section, values in after.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if before[section][key] != value
    }
    if "train.epochs" in changed and config.train.steps is not None:
        changed["train.steps"] = config.train.steps  # else epochs alone would replace them
    return config, shlex.join(f"{key}={yaml_value(value)}" for key, value in changed.items())


def _check_different(study: Study, expanded: list[Point]) -> None:
    by_hash: dict[str, Point] = {}
    for point in expanded:
        before = by_hash.setdefault(point.hash, point)
        if before is not point:
            raise InputError(
                f"study {study.name}: {before.setting!r} and {point.setting!r} come to the same settings, so one "
                "is superfluous; change or remove it"
            )
