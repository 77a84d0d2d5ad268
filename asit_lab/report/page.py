"""The page: one HTML file that needs no network, for the screen and for paper."""

import base64
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..batch.results import Collected
from .published import PaperTable
from .tables import Written

# Scale -> what a reader has to know before anything else on the page.
WARNINGS = {
    "smoke": "The scale smoke is there to see that everything works. It learns nothing: its numbers and pictures say "
    "nothing about the settings."
}


@dataclass(frozen=True)
class Shown:
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
class Close:
    """A run that is looked at closely."""

    setting: str
    seed: int
    why: str
    images: list[Shown]
    notes: list[str]


@dataclass(frozen=True)
class Chapter:
    """A study on the page."""

    collected: Collected
    facts: dict[str, str]
    compared: tuple[tuple[str, str], ...]
    """name of a setting, what it sets"""
    image: Shown
    table: Written
    in_short: str
    sentences: list[str]
    unfinished: list[dict[str, str]]
    curves: Shown | None
    runs: list[Close]

    @property
    def study(self):
        return self.collected.study

    @property
    def folder(self) -> str:
        """Where its files are, relative to the page."""
        return self.study.name


def page(title: str, chapters: list[Chapter], missing: dict[str, str], papers: list[PaperTable]) -> str:
    """The page as HTML; every text in it is escaped.

    chapters: at least one, all of one scale. missing: name of a study that was asked for and has no results -> why.
    """
    environment = Environment(
        loader=PackageLoader("asit_lab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html")
    warning = WARNINGS.get(chapters[0].collected.scale)
    return template.render(title=title, warning=warning, chapters=chapters, missing=missing, papers=papers)
