"""Judges whether a setting differs from the reference.

Seeds and clips alone cause differences. So a difference counts only when it is larger than the spread over seeds and
its interval over recordings, speakers or clips does not include zero. With one seed the spread is unknown, which the
verdict says.
"""

import math
from dataclasses import dataclass

import pandas as pd

from ..batch.results import StudyResults

MINUS = "\u2212"


@dataclass(frozen=True)
class Verdict:
    """The comparison of one setting with the reference."""

    short: str
    """a few words for a table"""
    words: str
    """a sentence or two"""
    real: bool
    """whether it differs from the reference"""


@dataclass(frozen=True)
class Unit:
    """How the numbers of a study are written."""

    decimals: int
    suffix: str
    """what follows a difference: " points" where the numbers are percentages"""
    up: str
    """what a higher number is: "better" of scores, else "higher" """
    down: str
    resampled: str
    """what intervals are over: clips, recordings, ..."""

    def number(self, value: float, sign: bool = False) -> str:
        """A number with the study's decimals and a real minus; "–" for none."""
        if value is None or not math.isfinite(value):
            return "–"
        value = round(float(value), self.decimals) + 0.0  # no minus before a zero
        text = f"{value:{'+' if sign and value else ''}.{self.decimals}f}"
        return text.replace("-", MINUS)


def unit_of_results(results: StudyResults) -> Unit:
    """Decimals and words for the numbers of a study."""
    plot, largest = results.study.plot, results.summary["mean"].abs().max()
    percent = "%" in plot.label
    decimals = 1 if percent or not largest > 0 else max(1, 2 - math.floor(math.log10(largest)))
    better = plot.metric.startswith(
        ("probe.", "finetune.")
    )  # a score; of other measures it is not known which end is good
    up, down = ("better", "worse") if better else ("higher", "lower")
    return Unit(decimals, " points" if percent else "", up, down, f"{results.unit}s")


def verdicts(results: StudyResults) -> list[Verdict]:
    """One for each row of the summary, in its order."""
    unit, summary = unit_of_results(results), results.summary
    reference = summary.loc[summary["setting"] == results.reference].iloc[0]
    return [_verdict(row, reference, unit) for _, row in summary.iterrows()]


def sentences(results: StudyResults) -> list[str]:
    """The verdicts in words, in their order; settings with the same verdict share a sentence."""
    named: dict[str, list[str]] = {}
    for verdict, setting in zip(verdicts(results), results.summary["setting"], strict=True):
        named.setdefault(verdict.words.removeprefix(setting), []).append(setting)
    return ["; ".join(settings) + text for text, settings in named.items()]


def in_short(results: StudyResults) -> str:
    """How many settings differ from the reference, in a sentence."""
    compared = [
        verdict
        for verdict, setting in zip(verdicts(results), results.summary["setting"], strict=True)
        if setting != results.reference
    ]
    real = [verdict for verdict in compared if verdict.real]
    counted = [f"{sum(v.short == short for v in real)} {short}" for short in dict.fromkeys(v.short for v in real)]
    differing = f"{', '.join(counted)}; " if counted else ""
    unknown = sum(verdict.short in ("no result", "not known") for verdict in compared)
    same = len(compared) - len(real) - unknown
    not_apart = f"{same or 'none'} not told apart from it" if same or not unknown else ""
    remainder = " and ".join(part for part in (not_apart, f"{unknown} not known yet" if unknown else "") if part)
    settings = "setting" if len(compared) == 1 else "settings"
    return f"Of {len(compared)} {settings} beside the reference, {differing}{remainder}."


def _verdict(row: pd.Series, reference: pd.Series, unit: Unit) -> Verdict:
    name, reference_name, seeds = row["setting"], reference["setting"], int(row["seeds"])
    if not seeds:
        return Verdict("no result", f"{name}: no result yet.", False)
    over = f"over {seeds} seeds" if seeds > 1 else "with one seed"
    mean = unit.number(row["mean"]) + (f" ± {unit.number(row['spread'])}" if seeds > 1 else "")
    if name == reference_name:
        return Verdict("reference", f"{name} is what the others are compared with: {mean} {over}.", False)
    if not math.isfinite(row["difference"]):
        return Verdict(
            "not known", f"{name}: {mean} {over}; the reference, {reference_name}, has no result yet.", False
        )
    return _compared(row, reference, unit, f"{name}: {mean} {over}, ")


def _compared(row: pd.Series, reference: pd.Series, unit: Unit, begin: str) -> Verdict:
    """A setting that has a difference to the reference."""
    reference_name, difference = reference["setting"], row["difference"]
    within_spread = (
        None if row["inside_spread"] is None or pd.isna(row["inside_spread"]) else bool(row["inside_spread"])
    )
    has_interval = math.isfinite(row["low"]) and math.isfinite(row["high"])
    holds = has_interval and row["low"] <= 0 <= row["high"]

    text = f"The difference, {unit.number(difference, True)}{unit.suffix}, "
    if within_spread is None:
        text += "rests on a single seed, so the spread over seeds is unknown"
    else:
        spread = math.hypot(row["spread"], reference["spread"])
        text += f"is {'inside' if within_spread else 'outside'} the spread over seeds, {unit.number(spread)}"
    if has_interval:
        ends = f"{unit.number(row['low'], True)} to {unit.number(row['high'], True)}"
        text += f"; its 95 % interval over {unit.resampled}, {ends}, {'holds' if holds else 'does not hold'} zero."
    else:
        text += f"; there is no interval over {unit.resampled}."

    if within_spread or holds:
        short = "inside the spread" if within_spread else "interval holds zero"
        return Verdict(short, f"{begin}not told apart from {reference_name}. {text}", False)
    if within_spread is None and not has_interval:
        return Verdict("not known", f"{begin}{text[0].lower()}{text[1:]}", False)
    direction = unit.up if difference > 0 else unit.down
    gain = f"{direction} than {reference_name} by {unit.number(abs(difference))}{unit.suffix}"
    return Verdict(direction if within_spread is False else f"{direction} (one seed)", f"{begin}{gain}. {text}", True)
