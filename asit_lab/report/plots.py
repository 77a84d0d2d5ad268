"""A study's figure and the table it is drawn from: what is plotted, and nothing else."""

import pandas as pd

from ..batch.results import Collected
from ..batch.study import Study
from ..figures.ablation import ablation

SEED = "seed "


def plotted(collected: Collected) -> pd.DataFrame:
    """What the study's figure shows: a row a setting with setting, the settings along its axes, mean, spread, a column
    `seed N` for each seed, published, and the range that is published as best where there is one."""
    study, summary = collected.study, collected.summary
    axes = [name for name in (study.plot.x, study.plot.lines) if name]
    table = summary[["setting", *axes, "mean", "spread"]].copy()
    values = study.plot.factor * collected.points[study.plot.metric].astype(float)
    by_seed = values.groupby([collected.points["setting"], collected.points["seed"]]).mean().unstack()
    for seed in by_seed.columns:
        table[f"{SEED}{seed}"] = table["setting"].map(by_seed[seed])
    table["published"] = pd.to_numeric(summary["published"])
    if study.published and study.published.best:
        table["best_from"], table["best_to"] = study.published.best
    return table


def draw(study: Study, table: pd.DataFrame, width: str):
    """The figure of `plotted`, in the width of one column ("single") or both ("double"), without a title."""
    plot = study.plot
    seeds = [name for name in table if name.startswith(SEED)]
    points = table.melt("setting", seeds, value_name="value")
    best = tuple(table.loc[0, ["best_from", "best_to"]]) if "best_from" in table else None
    published = study.published.metric if study.published else None
    return ablation(table, points, plot.label, "", plot.x, plot.x_label, plot.lines, published, best, width)


def in_words(study: Study, table: pd.DataFrame) -> str:
    """What the figure shows, for those who cannot see it."""
    kind = f"Curves over {_along(study)}" if study.plot.x else "A line for each setting"
    values = []
    for row in table[table["mean"].notna()].to_dict("records"):
        published = f" (published {row['published']:.4g})" if pd.notna(row["published"]) else ""
        values.append(f"{row['setting']} {row['mean']:.4g}{published}")
    return f"{kind}: {study.plot.label}. {'; '.join(values)}."


def caption(study: Study) -> str:
    """What the marks in the figure are."""
    if study.plot.x:
        return f"{study.title}, over {_along(study)}. Bars: standard deviation over seeds."
    return f"{study.title}. Mean over seeds with its standard deviation; dots below it: single seeds."


def _along(study: Study) -> str:
    """What is along the horizontal axis."""
    return study.plot.x_label or study.plot.x
