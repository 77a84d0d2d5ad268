"""`report`: from the results of studies to a folder of figures, tables and one page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..batch.results import Collected, collect
from ..batch.study import Study, read_study
from ..config import resolve
from ..errors import InputError
from . import plots, tables
from .chosen import Chosen, chosen_points
from .facts import compared, facts, unfinished
from .page import Chapter, Close, Shown, page
from .pictures import Picture, curves, look
from .published import paper_tables
from .saving import save_figure, save_table, save_text
from .verdict import in_short, sentences

FOLDER, PAGE = Path("reports/report"), "report.html"
PAGE_INCHES = 7.0  # between the margins of an A4 page
HALF_INCHES, SMALLER = 5.0, 0.8  # narrow figures have larger letters, and a run then fits on one page


@dataclass
class Report:
    """What `report` left."""

    html: Path
    """the page"""
    files: list[Path] = field(default_factory=list)
    """everything written, the page last"""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    """study -> a row a setting, see tables.numbers"""
    missing: dict[str, str] = field(default_factory=dict)
    """studies that were asked for and have no results -> why"""


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
    wanted = {read_study(one).name: one for one in listed}
    if not wanted:
        raise InputError("report: no study was named; the studies are the files in notebooks/ablations")
    for one in wanted.values():
        read_study(one).scale(scale)
    found, missing = _collected(wanted, scale, data or None, seeds or None)
    if not found:
        raise InputError("report: nothing to report yet\n" + "\n".join(f"  {text}" for text in missing.values()))

    folder = resolve(out or FOLDER / scale)
    made = Report(folder / PAGE, missing=missing)
    chapters = [_chapter(collected, folder, made) for collected in found]
    title = f"Report: {', '.join(one.study.name.replace('_', ' ') for one in found)} (scale {scale})"
    papers = paper_tables([one.study.name for one in found])
    made.files.append(save_text(page(title, chapters, missing, papers), made.html))
    return made


def _collected(wanted: dict, scale: str, data, seeds) -> tuple[list[Collected], dict[str, str]]:
    """The results there are of {name: study}; and for studies that have none, why, and what to run."""
    found, missing = [], {}
    for name, study in wanted.items():
        try:
            found.append(collect(study, scale, data, seeds))
        except InputError as error:
            command = f"asit-lab batch run {name if isinstance(study, Study) else study} --scale {scale}"
            command += f" --data {data}" if data else ""
            command += f" --seeds {seeds}" if isinstance(seeds, int) else ""
            missing[name] = f"{error}; to run it: {command}"
    return found, missing


def _chapter(collected: Collected, folder: Path, made: Report) -> Chapter:
    """Write a study's files, and gather what the page shows of it."""
    study, target = collected.study, folder / collected.study.name
    numbers, written = tables.numbers(collected), tables.written(collected)
    made.tables[study.name] = numbers
    made.files += [
        save_table(numbers, target / "table.csv"),
        save_text(tables.markdown(written), target / "table.md"),
        save_text(tables.latex(written, study.name), target / "table.tex"),
    ]
    table = plots.plotted(collected)
    made.files += save_figure(plots.draw(study, table, "single"), table, target / study.name)
    wide = Picture(
        f"{study.name}_wide",
        plots.draw(study, table, "double"),
        table,
        plots.in_words(study, table),
        plots.caption(study),
    )
    chosen = chosen_points(collected)
    return Chapter(
        collected=collected,
        facts=facts(collected),
        compared=compared(collected),
        image=_shown(wide, target, made),
        table=written,
        in_short=in_short(collected),
        sentences=sentences(collected),
        unfinished=unfinished(collected),
        curves=_shown(losses, target, made) if (losses := curves(chosen)) else None,
        runs=[_close(one, target, made) for one in chosen],
    )


def _close(chosen: Chosen, target: Path, made: Report) -> Close:
    found = look(chosen)
    images = [_shown(picture, target, made) for picture in found.pictures]
    return Close(chosen.setting, chosen.seed, chosen.why, images, found.notes)


def _shown(picture: Picture, target: Path, made: Report) -> Shown:
    """Write a picture's files; what the page has of it."""
    files = save_figure(picture.figure, picture.table, target / picture.name)
    made.files += files
    image = next(path for path in files if path.suffix == ".png").read_bytes()
    inches = picture.figure.get_figwidth()
    width = min(inches, PAGE_INCHES) if inches > HALF_INCHES else SMALLER * inches
    names = f"{target.name}/{picture.name}.pdf, .png, .svg, .csv"
    return Shown(image, width, picture.alt, picture.caption, names)
