"""Describes a study's figure: alternative text and caption."""

import pandas as pd

from ..batch.study import Study


def in_words(study: Study, table: pd.DataFrame) -> str:
    """The figure's alternative text."""
    kind = f"Curves over {_along(study)}" if study.plot.x else "A line for each setting"
    values = []
    for row in table[table["mean"].notna()].to_dict("records"):
        published = f" (published {row['published']:.4g})" if pd.notna(row["published"]) else ""
        values.append(f"{row['setting']} {row['mean']:.4g}{published}")
    return f"{kind}: {study.plot.label}. {'; '.join(values)}."


def caption(study: Study) -> str:
    """The caption, which explains the marks."""
    if study.plot.x:
        return f"{study.title}, over {_along(study)}. Bars: standard deviation over seeds."
    return f"{study.title}. Mean over seeds with its standard deviation; dots below it: single seeds."


def _along(study: Study) -> str:
    """The label of the horizontal axis."""
    return study.plot.x_label or study.plot.x or ""
