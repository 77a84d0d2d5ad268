"""Renders the report's page: one HTML file that needs no network, for the screen and for paper."""

import base64
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..batch.results import StudyResults
from ..batch.study import Study
from .published import PaperTable
from .tables import TextTable

# Scale -> a note at the top of the page.
WARNINGS = {
    "smoke": "The scale smoke only shows that everything works. It learns nothing: its numbers and figures say "
    "nothing about the settings."
}


@dataclass(frozen=True)
class PageImage:
    """An image of the page."""

    png: bytes
    inches: float
    """how wide it is on paper"""
    alt: str
    caption: str
    files: str
    """its files, relative to the page"""

    @property
    def uri(self) -> str:
        """The image itself, as an address."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class RunSection:
    """A run that the page shows."""

    setting: str
    seed: int
    why: str
    images: list[PageImage]
    notes: list[str]


@dataclass(frozen=True)
class Chapter:
    """A study on the page."""

    results: StudyResults
    facts: dict[str, str]
    compared: tuple[tuple[str, str], ...]
    """name of a setting, its values"""
    image: PageImage
    table: TextTable
    in_short: str
    sentences: list[str]
    unfinished: list[dict[str, str]]
    curves: PageImage | None
    runs: list[RunSection]

    @property
    def study(self) -> Study:
        return self.results.study

    @property
    def folder(self) -> str:
        """The folder of its files, relative to the page."""
        return self.study.name


def page(title: str, chapters: list[Chapter], missing: dict[str, str], papers: list[PaperTable]) -> str:
    """The page as HTML; every text in it is escaped.

    chapters: at least one, all of one scale. missing: name of a requested study without results -> why.
    """
    environment = Environment(
        loader=PackageLoader("asit_lab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html")
    warning = WARNINGS.get(chapters[0].results.scale)
    return template.render(title=title, warning=warning, chapters=chapters, missing=missing, papers=papers)
