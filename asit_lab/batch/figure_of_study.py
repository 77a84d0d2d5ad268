"""A study's figure: the table of what it shows, the figure drawn from that table, and its files."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..storage.atomic import atomic_write
from .study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .results import StudyResults

SEED_COLUMN = "seed "
PRINT_DPI = 220  # of the PNG, which print needs at its own width


def plotted(results: "StudyResults") -> pd.DataFrame:
    """What the figure shows: a row a setting with setting, the keys along its axes, mean, spread, a column `seed N` for
    each seed, published, and the range published as best where there is one."""
    study, summary = results.study, results.summary
    axes = [name for name in (study.plot.x, study.plot.lines) if name]
    table = summary[["setting", *axes, "mean", "spread"]].copy()
    values = study.plot.factor * results.points[study.plot.metric].astype(float)
    by_seed = values.groupby([results.points["setting"], results.points["seed"]]).mean().unstack()
    for seed in by_seed.columns:
        table[f"{SEED_COLUMN}{seed}"] = table["setting"].map(by_seed[seed])
    table["published"] = pd.to_numeric(summary["published"])
    if study.published and study.published.best:
        table["best_from"], table["best_to"] = study.published.best
    return table


def draw(study: Study, table: pd.DataFrame, width: str = "double", title: str = "") -> "Figure":
    """The figure of `plotted`, in the width of one column ("single") or of both ("double")."""
    from ..figures.ablation import ablation

    plot = study.plot
    seeds = [name for name in map(str, table) if name.startswith(SEED_COLUMN)]
    points = table.melt("setting", seeds, value_name="value")
    best = tuple(table.loc[0, ["best_from", "best_to"]]) if "best_from" in table else None
    published = study.published.metric if study.published else None
    return ablation(table, points, plot.label, title, plot.x, plot.x_label, plot.lines, published, best, width)


def save_figure(figure: "Figure", stem: Path) -> list[Path]:
    """Write STEM.pdf, .png and .svg, each whole or not at all. Returns the paths."""
    from .. import figures

    pdf, svg = (figures.save(figure, stem.with_name(f"{stem.name}.{kind}")) for kind in ("pdf", "svg"))
    picture = stem.with_name(f"{stem.name}.png")
    with atomic_write(picture) as temporary:
        temporary.write_bytes(png(figure))
    return [pdf, picture, svg]


def png(figure: "Figure") -> bytes:
    """A figure as PNG; the same figure gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=PRINT_DPI)
    return buffer.getvalue()
