"""From a study to its points, with everything checked that can be before any of them starts."""

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .._version import __version__
from ..config import RunConfig, load_config, resolve
from ..errors import InputError
from ..storage.words import nearest
from .notebook import Notebook, read_notebook
from .point import Point
from .study import Compared, Study, read_study

OURS = ("out", "overrides", "seed")  # parameters that the batch itself gives


def points(
    study: str | Path | Study, scale: str, data: str | None = None, seeds: int | list[int] | None = None
) -> list[Point]:
    """The points of a study at a scale, setting by setting, seeds inside.

    data: data set in place of the scale's. seeds: how many, or which, in place of the scale's.
    Raises InputError for a parameter the notebook does not have, a value of another type, a setting that the
    configuration refuses, and for two settings that come to the same; each names the study and the setting.
    """
    study = read_study(study)
    chosen = study.scale(scale)
    notebook = read_notebook(resolve(study.notebook))
    _check_ours(study, notebook)
    found = []
    for compared in study.compared(scale):
        for seed in _seeds(chosen.seeds if seeds is None else seeds):
            try:
                found.append(_point(study, scale, notebook, compared, data or chosen.data, seed))
            except InputError as error:
                raise InputError(f"study {study.name}, {scale}, setting {compared.name!r}: {error}") from None
    _check_different(study, found)
    return found


def check_kernel(notebook: Notebook) -> None:
    """Raises InputError where the notebook could not be run here: no papermill, or no kernel of its name."""
    try:
        import papermill  # noqa: F401
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError as error:
        raise InputError(
            f"{error.name} is not installed, so notebooks cannot be run: pip install 'asit-lab[lab]', or do the points "
            "without notebooks (--no-notebook)"
        ) from None
    manager = KernelSpecManager()
    try:
        manager.get_kernel_spec(notebook.kernel)
    except NoSuchKernel:
        there = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        raise InputError(
            f"{notebook.path}: its kernel {notebook.kernel!r} is not installed; there are: {there}. Choose one of them "
            "in the notebook, install it, or do the points without notebooks (--no-notebook)"
        ) from None


def check_data(found: Iterable[Point]) -> None:
    """Raises InputError where a data set of the points cannot be used on this machine, before any of them starts."""
    from ..data.manifest import load_manifest  # torch comes with it

    sources = {}
    for point in found:
        if point.config:
            data = point.config["data"]
            sources[data["source"]] = data["segment_seconds"]
            sources |= {other: None for other in [point.parameters.get("evaluate")] if other and other not in sources}
    for source, seconds in sources.items():
        load_manifest(source, **({} if seconds is None else {"segment_seconds": seconds}))


def _check_ours(study: Study, notebook: Notebook) -> None:
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
    if not isinstance(listed, list | tuple) or not listed or any(type(one) is not int or one < 0 for one in listed):
        raise InputError(f"seeds: {seeds!r}: expected how many (3) or which ([0, 1, 2])")
    if len(set(listed)) < len(listed):
        raise InputError(f"seeds: {seeds!r}: one of them is there twice")
    return list(listed)


def _point(study: Study, scale: str, notebook: Notebook, compared: Compared, data: str, seed: int) -> Point:
    chosen = study.scale(scale)
    settings = {**study.settings, **chosen.settings, **compared.settings}
    overrides = {key: value for key, value in settings.items() if "." in key}
    parameters = {key: value for key, value in settings.items() if "." not in key}
    given = [name for name in OURS if name in parameters]
    if given:
        raise InputError(f"{given[0]}: every point is given its own; settings have a dot in them, such as mask.ratio")
    parameters = {**({"preset": chosen.preset} if chosen.preset else {}), **parameters, "seed": seed}
    if "data" in notebook.parameters:
        parameters = {"data": data, **parameters}
    parameters = {name: _type(name, value, notebook) for name, value in parameters.items()}
    config = None
    if overrides or "overrides" in notebook.parameters:
        config, parameters["overrides"] = _configured(notebook, parameters, overrides)
    return Point(
        setting=compared.name,
        seed=seed,
        settings=compared.settings,
        published=compared.published,
        parameters=parameters,
        config=config.to_dict() if config else None,
        notebook=str(notebook.path),
        code=notebook.code,
        version=__version__,
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
    names = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", list: "a list"}
    return names.get(type(value), f"a {type(value).__name__}")


def _configured(notebook: Notebook, parameters: dict, overrides: dict[str, Any]) -> tuple[RunConfig, str]:
    """The configuration of a point, and the shortest text of overrides that leads to it from its preset."""
    missing = [name for name in ("preset", "data", "overrides") if name not in notebook.parameters]
    if missing:
        raise InputError(f"{next(iter(overrides), 'overrides')}: {notebook.path} has no parameter {missing[0]!r}")
    preset = parameters.setdefault("preset", notebook.parameters["preset"])
    asked = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    plain = [f"data.source={json.dumps(parameters['data'])}", f"train.seed={parameters['seed']}"]
    fixed = [key for key in ("data.source", "train.seed") if key in overrides]
    if fixed:
        raise InputError(f"{fixed[0]}: every point is given its own, by data and seeds")
    config = load_config(preset, [*asked, *plain])
    if parameters.get("recipe"):
        from ..finetuning import load_recipe  # here, as it brings seconds of imports

        load_recipe(parameters["recipe"])
    if config.train.init_from and not resolve(config.train.init_from).exists():
        raise InputError(f"train.init_from: {resolve(config.train.init_from)} does not exist")
    before, after = load_config(preset, plain).to_dict(), config.to_dict()
    changes = [
        f"{section}.{key}={json.dumps(value)}"
        for section, values in after.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if before[section][key] != value
    ]
    return config, shlex.join(changes)


def _check_different(study: Study, found: list[Point]) -> None:
    seen: dict[str, Point] = {}
    for point in found:
        before = seen.setdefault(point.hash, point)
        if before is not point:
            raise InputError(
                f"study {study.name}: {before.setting!r} and {point.setting!r} come to the same settings, so one of "
                "them says nothing new; change or remove one"
            )
