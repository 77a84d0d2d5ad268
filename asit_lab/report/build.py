"""Builds a report from the results of studies: a folder of figures, tables and one page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..batch.figure_of_study import draw, plotted
from ..batch.results import StudyResults, collect
from ..batch.study import Study, read_study
from ..config import resolve
from ..errors import InputError
from . import tables
from .chosen import ChosenPoint, chosen_points
from .facts import compared, facts, unfinished
from .page import Chapter, PageImage, RunSection, page
from .pictures import ReportFigure, loss_curves, run_figures
from .plots import caption, in_words
from .published import paper_tables
from .saving import save_table, save_text, save_with_table
from .verdict import in_short, sentences

REPORTS_FOLDER, PAGE = Path("reports/report"), "report.html"
PAGE_INCHES = 7.0  # between the margins of an A4 page
HALF_INCHES, SMALLER = 5.0, 0.8  # scale of narrow figures, so that a run fits on one page


@dataclass
class Report:
    """The files and tables of a report."""

    html: Path
    """the page"""
    files: list[Path] = field(default_factory=list)
    """all files, the page last"""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    """study -> a row per setting, see tables.numbers"""
    missing: dict[str, str] = field(default_factory=dict)
    """requested studies without results -> why"""


def report(
    studies: str | Path | Study | Sequence[str | Path | Study],
    scale: str = "smoke",
    data: str | None = None,
    seeds: int | list[int] | None = None,
    out: str | Path | None = None,
) -> Report:
    """Write figures, tables and the page of one or several studies.

    studies, scale, data, seeds: as for `batch.collect`; without data and seeds the points are those of the last run.
    out: folder, default reports/report/SCALE. In it: report.html, and for each study a folder with its figure in the
    width of one column (STUDY) and of both (STUDY_wide), curves, and pictures of two runs, each as PDF, PNG and SVG
    with the CSV it was drawn from; table.md, .tex and .csv. Files are replaced whole, one by one.
    A study without results is left out and named in `missing`. Raises InputError for a study or scale that does not
    exist, and when no study has results, saying what to run.
    """
    listed = [studies] if isinstance(studies, str | Path | Study) else list(studies)
    requested = {read_study(study).name: study for study in listed}
    if not requested:
        raise InputError("report: no study was named; the studies are the files in notebooks/ablations")
    for study in requested.values():
        read_study(study).scale(scale)
    collected, missing = _collect(requested, scale, data or None, seeds or None)
    if not collected:
        raise InputError("report: nothing to report yet\n" + "\n".join(f"  {text}" for text in missing.values()))

    folder = resolve(out or REPORTS_FOLDER / scale)
    contents = Report(folder / PAGE, missing=missing)
    chapters = [_chapter(results, folder, contents) for results in collected]
    title = f"Report: {', '.join(results.study.name.replace('_', ' ') for results in collected)} (scale {scale})"
    papers = paper_tables([results.study.name for results in collected])
    contents.files.append(save_text(page(title, chapters, missing, papers), contents.html))
    return contents


def _collect(
    requested: dict[str, str | Path | Study], scale: str, data: str | None, seeds: int | list[int] | None
) -> tuple[list[StudyResults], dict[str, str]]:
    """The results of {name: study}; and for studies without results, the reason and the command to run."""
    collected, missing = [], {}
    for name, study in requested.items():
        try:
            collected.append(collect(study, scale, data, seeds))
        except InputError as error:
            command = f"asit-lab batch run {name if isinstance(study, Study) else study} --scale {scale}"
            command += f" --data {data}" if data else ""
            command += f" --seeds {seeds}" if isinstance(seeds, int) else ""
            missing[name] = f"{error}; to run it: {command}"
    return collected, missing


def _chapter(results: StudyResults, folder: Path, contents: Report) -> Chapter:
    """Write a study's files and return its chapter of the page."""
    study, target = results.study, folder / results.study.name
    numbers, texts = tables.number_table(results), tables.text_table(results)
    contents.tables[study.name] = numbers
    contents.files += [
        save_table(numbers, target / "table.csv"),
        save_text(tables.markdown(texts), target / "table.md"),
        save_text(tables.latex(texts, study.name), target / "table.tex"),
    ]
    table = plotted(results)
    contents.files += save_with_table(draw(study, table, "single"), table, target / study.name)
    wide = ReportFigure(
        f"{study.name}_wide",
        draw(study, table, "double"),
        table,
        in_words(study, table),
        caption(study),
    )
    chosen = chosen_points(results)
    return Chapter(
        results=results,
        facts=facts(results),
        compared=compared(results),
        image=_page_image(wide, target, contents),
        table=texts,
        in_short=in_short(results),
        sentences=sentences(results),
        unfinished=unfinished(results),
        curves=_page_image(losses, target, contents) if (losses := loss_curves(chosen)) else None,
        runs=[_run_section(point, target, contents) for point in chosen],
    )


def _run_section(chosen: ChosenPoint, target: Path, contents: Report) -> RunSection:
    figures = run_figures(chosen)
    images = [_page_image(figure, target, contents) for figure in figures.figures]
    return RunSection(chosen.setting, chosen.seed, chosen.why, images, figures.notes)


def _page_image(figure: ReportFigure, target: Path, contents: Report) -> PageImage:
    """Write a figure's files and return its image for the page."""
    files = save_with_table(figure.figure, figure.table, target / figure.name)
    contents.files += files
    image = next(path for path in files if path.suffix == ".png").read_bytes()
    inches = figure.figure.get_figwidth()
    width = min(inches, PAGE_INCHES) if inches > HALF_INCHES else SMALLER * inches
    names = f"{target.name}/{figure.name}.pdf, .png, .svg, .csv"
    return PageImage(image, width, figure.alt, figure.caption, names)
