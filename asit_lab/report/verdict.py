"""Whether a setting differs from the reference, in words.

Two things can make a difference that means nothing: another seed, and other clips. So a difference counts as one when
it is larger than the spread over seeds and its interval over clips does not hold zero. With one seed the first is not
known, and that is said.
"""

import math
from dataclasses import dataclass

import pandas as pd

from ..batch.results import Collected

MINUS = "\u2212"


@dataclass(frozen=True)
class Verdict:
    """What can be said of one setting against the reference."""

    short: str
    """a few words for a table"""
    words: str
    """a sentence or two"""
    real: bool
    """whether it is told apart from the reference"""


@dataclass(frozen=True)
class Unit:
    """How the numbers of a study are written."""

    decimals: int
    suffix: str
    """what follows a difference: " points" where the numbers are percentages"""
    up: str
    """what a higher number is: "better" where that is so, else "higher" """
    down: str

    def number(self, value: float, sign: bool = False) -> str:
        """A number with the study's decimals and a real minus; "–" for none."""
        if value is None or not math.isfinite(value):
            return "–"
        value = round(float(value), self.decimals) + 0.0  # no minus before a zero
        text = f"{value:{'+' if sign and value else ''}.{self.decimals}f}"
        return text.replace("-", MINUS)


def unit_of(collected: Collected) -> Unit:
    """Decimals and words for the numbers of a study."""
    plot, most = collected.study.plot, collected.summary["mean"].abs().max()
    percent = "%" in plot.label
    decimals = 1 if percent or not most > 0 else max(1, 2 - math.floor(math.log10(most)))
    better = plot.metric.startswith(
        ("probe.", "finetune.")
    )  # a score; of other measures it is not known which end is the good one
    return Unit(decimals, " points" if percent else "", *(("better", "worse") if better else ("higher", "lower")))


def verdicts(collected: Collected) -> list[Verdict]:
    """One for each row of the summary, in its order."""
    unit, summary = unit_of(collected), collected.summary
    reference = summary.loc[summary["setting"] == collected.reference].iloc[0]
    return [_verdict(row, reference, unit) for _, row in summary.iterrows()]


def sentences(collected: Collected) -> list[str]:
    """The verdicts in words, in their order; settings of which the same is said share a sentence."""
    named: dict[str, list[str]] = {}
    for verdict, setting in zip(verdicts(collected), collected.summary["setting"], strict=True):
        named.setdefault(verdict.words.removeprefix(setting), []).append(setting)
    return ["; ".join(settings) + said for said, settings in named.items()]


def in_short(collected: Collected) -> str:
    """How many settings differ from the reference, in a sentence."""
    others = [
        verdict
        for verdict, setting in zip(verdicts(collected), collected.summary["setting"], strict=True)
        if setting != collected.reference
    ]
    real = [verdict for verdict in others if verdict.real]
    counted = [f"{sum(v.short == short for v in real)} {short}" for short in dict.fromkeys(v.short for v in real)]
    told = f"{', '.join(counted)}; " if counted else ""
    unknown = sum(verdict.short in ("no result", "not known") for verdict in others)
    same = len(others) - len(real) - unknown
    said = f"{same or 'none'} not told apart from it" if same or not unknown else ""
    rest = " and ".join(part for part in (said, f"{unknown} not known yet" if unknown else "") if part)
    return f"Of {len(others)} {'setting' if len(others) == 1 else 'settings'} beside the reference, {told}{rest}."


def _verdict(row: pd.Series, reference: pd.Series, unit: Unit) -> Verdict:
    name, other, seeds = row["setting"], reference["setting"], int(row["seeds"])
    if not seeds:
        return Verdict("no result", f"{name}: no number is there yet.", False)
    over = f"over {seeds} seeds" if seeds > 1 else "with one seed"
    mean = unit.number(row["mean"]) + (f" ± {unit.number(row['spread'])}" if seeds > 1 else "")
    if name == other:
        return Verdict("reference", f"{name} is what the others are compared with: {mean} {over}.", False)
    if not math.isfinite(row["difference"]):
        return Verdict("not known", f"{name}: {mean} {over}; the reference, {other}, has no result yet.", False)
    return _compared(row, reference, unit, f"{name}: {mean} {over}, ")


def _compared(row: pd.Series, reference: pd.Series, unit: Unit, begin: str) -> Verdict:
    """A setting that has a difference to the reference."""
    other, difference = reference["setting"], row["difference"]
    inside = None if row["inside_spread"] is None or pd.isna(row["inside_spread"]) else bool(row["inside_spread"])
    known = math.isfinite(row["low"]) and math.isfinite(row["high"])
    holds = known and row["low"] <= 0 <= row["high"]

    said = f"The difference, {unit.number(difference, True)}{unit.suffix}, "
    if inside is None:
        said += "rests on a single seed, and what another would give is not known"
    else:
        spread = math.hypot(row["spread"], reference["spread"])
        said += f"is {'inside' if inside else 'outside'} the spread over seeds, {unit.number(spread)}"
    if known:
        ends = f"{unit.number(row['low'], True)} to {unit.number(row['high'], True)}"
        said += f"; its 95 % interval over clips, {ends}, {'holds' if holds else 'does not hold'} zero."
    else:
        said += "; there is no interval over clips."

    if inside or holds:
        short = "inside the spread" if inside else "interval holds zero"
        return Verdict(short, f"{begin}not told apart from {other}. {said}", False)
    if inside is None and not known:
        return Verdict("not known", f"{begin}{said[0].lower()}{said[1:]}", False)
    which = unit.up if difference > 0 else unit.down
    by = f"{which} than {other} by {unit.number(abs(difference))}{unit.suffix}"
    return Verdict(which if inside is False else f"{which} (one seed)", f"{begin}{by}. {said}", True)
