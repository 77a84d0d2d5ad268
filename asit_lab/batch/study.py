"""Defines a study: its settings, scales and figure, read from notebooks/ablations/STUDY.yaml.

A setting is what a study compares: a name, and values for keys. A key with a dot in it (mask.ratio) is of the
configuration and reaches the notebook through its parameter `overrides`; one without (preset) is a parameter of the
notebook itself. A point (point.py) is a setting with a seed.
"""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from ..config import home, read_yaml, resolve
from ..errors import InputError
from ..settings import Section
from ..storage.words import nearest

STUDIES = Path("notebooks/ablations")
_PACKAGE = Path(__file__).resolve().parent.parent
# The folder with notebooks/ in it that this package came with: a checkout, else the installed package itself.
SHIPPED_FILES = _PACKAGE if (_PACKAGE / "notebooks").is_dir() else _PACKAGE.parent


class Setting(Section):
    """What a study compares: a row of its table."""

    name: str
    """its name in tables and figures"""
    settings: dict[str, Any] = {}
    """key -> value that this setting has"""
    published: float | None = None
    """the paper's value, in the unit of published.metric; with a grid it is that of the grid's first values"""
    only: list[str] | None = None
    """scales it belongs to (none: all)"""


class Measure(Section):
    """The number that a study compares."""

    metric: str = "probe.teacher.mean"
    """number of the collected results"""
    label: str = "linear probe, accuracy (%)"
    """name of that number, with its unit"""
    factor: float = 100.0
    """what the number is multiplied by to have that unit"""


class Scale(Section):
    """The size at which a study is done."""

    preset: str | None = None
    """preset that all points start from"""
    data: str = "synth"
    """data set to pretrain on"""
    seeds: Annotated[int, Field(ge=1)] | list[Annotated[int, Field(ge=0)]] = 1
    """how many seeds (0, 1, ...), or which"""
    settings: dict[str, Any] = {}
    """key -> value that all points have at this scale"""
    grid: dict[str, list[Any]] = {}
    """values in place of the study's own in its grid"""
    measure: Measure | None = None
    """metric, label and factor in place of the study's own (none: the study's)"""
    hours: Annotated[float, Field(gt=0)] = 24.0
    """a point that takes longer than this is ended, hours"""
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    """a point that takes more memory than this is ended, GB (none: no limit)"""


class Plot(Measure):
    """What the figure and the table show."""

    x: str | None = None
    """key along the horizontal axis (none: one line a setting, drawn as dots)"""
    x_label: str | None = None
    """the label of that axis, with its unit"""
    lines: str | None = None
    """key that has a line for each of its values"""
    reference: str | None = None
    """setting the others are compared with (none: the last)"""


class Published(Section):
    """The source of the published values, and how their experiment differs."""

    source: str
    """paper and table"""
    metric: str
    """what was measured, with its unit"""
    differs: str
    """how that experiment differs, in words"""
    best: tuple[float, float] | None = None
    """range of plot.x that the paper finds best, where it prints no values"""


class Study(Section):
    """A study as in its file."""

    name: str
    """name of its file"""
    title: str
    """what is compared, in a few words"""
    about: str = ""
    """what to look for"""
    notebook: str = "notebooks/ablations/point.ipynb"
    """notebook that does one point"""
    settings: dict[str, Any] = {}
    """key -> value that all points have"""
    rows: list[Setting] = []
    """the settings, one by one"""
    grid: dict[str, list[Any]] = {}
    """settings by key: all combinations of these values (with each of the rows, where there are both)"""
    scales: dict[str, Scale]
    """smoke, micro, full"""
    plot: Plot = Plot()
    """what is drawn"""
    published: Published | None = None
    """published values"""

    @model_validator(mode="after")
    def _something_to_compare(self) -> "Study":
        if not self.rows and not self.grid:
            raise ValueError("rows, grid: there is nothing to compare; give at least one of the two")
        for place, grid in {"grid": self.grid, **{f"scales.{n}.grid": s.grid for n, s in self.scales.items()}}.items():
            empty = [name for name, values in grid.items() if not values]
            if empty:
                raise ValueError(f"{place}.{empty[0]}: no values, so there would be no point")
        if not self.scales:
            raise ValueError("scales: expected at least one, such as smoke")
        for name, scale in self.scales.items():
            foreign = [axis for axis in scale.grid if axis not in self.grid]
            if foreign:
                raise ValueError(f"scales.{name}.grid.{foreign[0]}: not in grid: {nearest(foreign[0], self.grid)}")
        compared = {*self.grid, *(key for row in self.rows for key in row.settings)}
        for key, value in {"plot.x": self.plot.x, "plot.lines": self.plot.lines}.items():
            if value is not None and value not in compared:
                raise ValueError(f"{key}: no setting has {value!r}: {nearest(value, compared)}")
        names = [row.name for row in self.rows]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"rows: two are called {twice!r}")
        for number, row in enumerate(self.rows):
            unknown = [name for name in row.only or () if name not in self.scales]
            if unknown:
                raise ValueError(f"rows.{number}.only: {unknown[0]!r}: {nearest(unknown[0], self.scales)}")
        return self

    def scale(self, name: str) -> Scale:
        """The scale of that name. Raises InputError with the nearest one."""
        if name not in self.scales:
            raise InputError(f"study {self.name}: scale {name!r}: {nearest(name, self.scales)}")
        return self.scales[name]

    def with_measure_of(self, scale: str) -> "Study":
        """The study with the measure of a scale."""
        measure = self.scale(scale).measure
        plot = self.plot.model_copy(update=measure.model_dump()) if measure else self.plot
        return self.model_copy(update={"plot": plot})

    def settings_at(self, scale: str) -> list[Setting]:
        """The settings compared at a scale, grid and rows multiplied out, in the order of the file."""
        grid = {**self.grid, **self.scale(scale).grid}
        rows = [row for row in self.rows if row.only is None or scale in row.only]
        if self.rows and not rows:
            raise InputError(
                f"study {self.name}: none of its rows belongs to the scale {scale!r}, so nothing is compared"
            )
        settings = []
        for row in rows or [Setting(name="")]:
            for number, values in enumerate(itertools.product(*grid.values())):
                of_grid = dict(zip(grid, values, strict=True))
                name = ", ".join([row.name] * bool(row.name) + [f"{key}={_short(of_grid[key])}" for key in grid])
                published = None if number else row.published
                settings.append(Setting(name=name, settings={**row.settings, **of_grid}, published=published))
        return settings


def read_study(study: "str | Path | Study") -> Study:
    """Read and check a study: a name such as "loss_combinations" (notebooks/ablations/NAME.yaml) or a YAML file.

    Raises InputError naming the file and the key, with the nearest valid name.
    """
    if isinstance(study, Study):
        return study
    path = resolve(study)
    if not path.is_file() and path.suffix not in (".yaml", ".yml"):
        path = shipped_file(STUDIES / f"{study}.yaml")
    if not path.is_file():
        raise InputError(f"study {str(study)!r}: no such study or file; {nearest(str(study), study_names())}")
    content = read_yaml(path, "keys such as 'rows:'")
    try:
        return Study.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        raise InputError("\n".join(f"{path}: {_explain(problem)}" for problem in error.errors())) from None


def study_names() -> list[str]:
    """Names of the studies in notebooks/ablations, of the project and of those that come with the package."""
    return sorted({path.stem for folder in (home(), SHIPPED_FILES) for path in (folder / STUDIES).glob("*.yaml")})


def shipped_file(path: str | Path) -> Path:
    """The project's file at `path`; where it has none, the one that comes with the package."""
    own = resolve(path)
    return own if own.exists() or Path(path).is_absolute() else SHIPPED_FILES / path


_PARTS: dict[str, type[Section]] = {"rows": Setting, "scales": Scale, "plot": Plot, "published": Published}


def _explain(problem: Mapping[str, Any]) -> str:
    """A problem that pydantic found, with its key."""
    place = [str(part) for part in problem["loc"] if part not in ("int", "list[constrained-int]")]
    dotted = ".".join(place)
    if problem["type"] == "extra_forbidden":
        part = _PARTS.get(place[0], Study) if len(place) > 1 else Study
        part = Measure if "measure" in place[1:-1] else part
        return f"{dotted}: unknown key: {nearest(place[-1], part.model_fields)}"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if problem["type"] == "missing":
        return f"{dotted}: missing"
    return f"{dotted}: {problem['input']!r} is not valid: {problem['msg']}"


def _short(value: Any) -> str:
    """A value as in a setting's name: strings without quotes."""
    return value if isinstance(value, str) else json.dumps(value)
