"""Builds a study's table: numbers for a CSV, and text for Markdown, LaTeX and the page."""

from dataclasses import dataclass

import pandas as pd

from ..batch.results import StudyResults
from .verdict import MINUS, unit_of_results, verdicts

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "…": r"\dots{}",
    "–": "--",
    MINUS: "$-$",
}
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>|#"})


@dataclass(frozen=True)
class TextTable:
    """A table of strings; its caption says what the columns are."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def number_table(results: StudyResults) -> pd.DataFrame:
    """A row per setting: setting, seeds, mean, spread, difference, low, high, inside_spread, verdict, published and
    published_difference (to the reference's published value); in the unit of plot.label."""
    columns = ["setting", "seeds", "mean", "spread", "difference", "low", "high", "inside_spread", "published"]
    table = results.summary[columns].copy()
    table.insert(8, "verdict", [verdict.short for verdict in verdicts(results)])
    published = pd.to_numeric(table["published"])
    against = published[table["setting"] == results.reference].iloc[0]
    table["published_difference"] = (published - against).where(table["setting"] != results.reference)
    return table


def text_table(results: StudyResults) -> TextTable:
    """The table as it is printed. The column of published values is left out where there are none."""
    unit, rows = unit_of_results(results), []
    table = number_table(results)
    has_published = bool(table["published"].notna().any())
    for row in table.to_dict("records"):
        spread = f" ± {unit.number(row['spread'])}" if row["seeds"] > 1 else ""
        difference = unit.number(row["difference"], True)
        if pd.notna(row["low"]):
            difference += f" [{unit.number(row['low'], True)}, {unit.number(row['high'], True)}]"
        cells = [row["setting"], str(row["seeds"]), unit.number(row["mean"]) + spread, difference, row["verdict"]]
        if has_published:
            published = unit.number(row["published"])
            if pd.notna(row["published_difference"]):
                published += f" ({unit.number(row['published_difference'], True)})"
            cells.append(published)
        rows.append(tuple(cells))
    columns = ("Setting", "Seeds", "Ours", "Difference", "Verdict", *(("Published",) if has_published else ()))
    return TextTable(_caption(results, has_published, bool(table["low"].notna().any())), columns, tuple(rows))


def _caption(results: StudyResults, has_published: bool, has_interval: bool) -> str:
    study, published = results.study, results.study.published
    interval = f", with its 95 % interval over {results.unit}s (paired)" if has_interval else ""
    text = (
        f"{study.title} (scale {results.scale}). Ours: {study.plot.label}, mean ± standard deviation over seeds. "
        f"Difference: to {results.reference}{interval}."
    )
    if published and has_published:
        text += f" Published: {published.metric}, difference in brackets ({published.source})."
        text += f" Different there: {published.differs.strip()}"
    return text


def markdown(table: TextTable) -> str:
    """A table of GitHub's Markdown, its caption above it."""
    lines = [table.columns, tuple("---" if i not in (1, 2, 3, 5) else "---:" for i in range(len(table.columns)))]
    lines += [tuple(cell.translate(_MARKDOWN) for cell in row) for row in table.rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table.caption.translate(_MARKDOWN)}\n\n{body}\n"


def latex(table: TextTable, label: str) -> str:
    """A LaTeX table in booktabs' style."""
    rows = pd.DataFrame([[escaped(cell) for cell in row] for row in table.rows], columns=list(table.columns))
    text = rows.to_latex(
        index=False,
        column_format="lrrrl" + "r" * (len(table.columns) - 5),
        caption=escaped(table.caption),
        label=f"tab:{label}",
        position="t",
    )
    return f"% needs \\usepackage{{booktabs}}; wider than one column: table* or \\resizebox\n{text}"


def escaped(text: str) -> str:
    """`text` as LaTeX prints it."""
    return "".join(_LATEX.get(character, character) for character in text)
