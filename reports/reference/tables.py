"""Markdown tables and verdicts of the page that make.py writes, from what the studies' scripts wrote."""

import math
import statistics

import pandas as pd

DATA = {
    "esc10": "ESC-10",
    "esc50": "ESC-50",
    "words": "Arabic commands",
    "emotions": "RAVDESS speech",
    "commands": "Speech Commands, small",
}
TITLES = {"linear": "Linear probe", "knn": "Nearest neighbours"}
LABELS = (1, 5, 10, None)
RESOLVED = {"minutes": 0.04, "hours": 0.02}  # smallest difference of a probe that a study claims to resolve


def summary(results: dict) -> str:
    """The table in the README of the project."""
    lines = ["| linear probe, accuracy in % | included encoder | untrained | log-mel statistics |", "|---|---|---|---|"]
    for name in ("esc50", "esc10", "words", "emotions"):
        shipped, *untrained, log_mel = (row["mean"] for row in results["shipped", name, "linear", None]["results"])
        means = (shipped, sum(untrained) / len(untrained), log_mel)
        lines.append(f"| {DATA[name]} | {' | '.join(map(percent, means))} |")
    return "\n".join(lines)


def table_of(results: dict, encoder: str, protocol: str) -> str:
    """The table of one encoder and protocol on all labels, a row for each data set."""
    lines = [
        f"| {TITLES[protocol]} | {encoder} | untrained | log-mel | gain over untrained | over log-mel | clips, units |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for name in DATA:
        result = results.get((encoder, name, protocol, None))
        if result:
            lines.append("| " + " | ".join(cells(DATA[name], result)) + " |")
    return "\n".join(lines)


def cells(title: str, result: dict) -> list[str]:
    """A row of `table_of`."""
    first, log_mel = result["results"][0], result["results"][-1]
    gains = [gain_in_words(result[over]) for over in ("over_untrained", "over_log_mel")]
    return [title, with_interval(first), untrained_of(result), with_interval(log_mel), *gains, units_of(first)]


def untrained_of(result: dict) -> str:
    """Mean of the untrained networks and, in brackets, their range."""
    means = [row["mean"] for row in result["results"][1:-1]]
    return f"{percent(sum(means) / len(means))} ({percent(min(means))} to {percent(max(means))})"


def table_of_few(results: dict, encoder: str) -> str:
    """Linear probes on few labels a class: a row for each data set that has all of them."""
    few = [labels for labels in LABELS if labels]
    lines = [f"| labels a class | {' | '.join(map(str, few))} |", "|---" * (1 + len(few)) + "|"]
    for name, title in DATA.items():
        found = [results.get((encoder, name, "linear", labels)) for labels in few]
        if all(found):
            lines.append(f"| {title} | {' | '.join(map(means_of, found))} |")
    return "\n".join(lines)


def means_of(result: dict) -> str:
    """Encoder, bold where it is above both others / mean of its untrained twins / log-mel."""
    first, *untrained, log_mel = (row["mean"] for row in result["results"])
    is_above = result["over_untrained"]["low"] > 0 and result["over_log_mel"]["low"] > 0
    others = " / ".join(map(percent, (statistics.mean(untrained), log_mel)))
    return f"{f'**{percent(first)}**' if is_above else percent(first)} / {others}"


def table_of_finetuned(results: list[dict]) -> str:
    """A row for each data set."""
    lines = [
        "| data set | tested on | log-mel | linear probe | fine-tuned | scratch | gain over scratch | clips, units |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for result in results:
        scores = (with_spread(result["scores"][row]) for row in ("log-mel", "linear probe", "fine-tuned", "scratch"))
        row = [DATA[result["data"]], result["tested"], *scores, gain_in_words(result["over_scratch"]), units_of(result)]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def gains_over_scratch(results: list[dict]) -> str:
    """On which data sets fine-tuning is resolved from training from scratch."""
    gains = {DATA[result["data"]]: result["over_scratch"] for result in results}
    return f"Fine-tuned is {sides(gains, 'training from scratch')}."


def gains_in_words(results: dict, encoder: str) -> str:
    """On which data sets the linear probe of an encoder is resolved from its untrained twins."""
    gains = {
        title: results[encoder, name, "linear", None]["over_untrained"]
        for name, title in DATA.items()
        if (encoder, name, "linear", None) in results
    }
    return f"By the linear probe {encoder} is {sides(gains, 'its untrained twins')}."


def sides(gains: dict[str, dict], other: str) -> str:
    """On which data sets something is above another, below it, or not resolved from it, by the intervals of gains."""
    found: dict[str, list[str]] = {"above": [], "below": [], "not resolved from": []}
    for title, gain in gains.items():
        found["above" if gain["low"] > 0 else "below" if gain["high"] < 0 else "not resolved from"].append(title)
    return "; ".join(f"{side} {other} on {', '.join(names)}" for side, names in found.items() if names)


def table_of_silence(measured: dict) -> str:
    """How much attention falls on silence, a row an encoder."""
    lines = ["| encoder | attention on silence, times what even attention gives it |", "|---|---|"]
    for name, row in measured["shares"].items():
        lines.append(f"| {name} | {row['share']:.2f} [{row['low']:.2f}, {row['high']:.2f}] |")
    return "\n".join(lines)


def table_of_settings(minutes: pd.DataFrame) -> str:
    """A row for each setting."""
    lines = ["| setting | probe | difference | | L1 / line | at events | published |", "|---|---|---|---|---|---|---|"]
    first = minutes.iloc[0]
    for row in minutes.itertuples():
        errors = " | ".join("–" if math.isnan(value) else f"{value:.3f}" for value in (row.l1, row.events))
        published = "" if math.isnan(row.published) else f"{row.published:g}"
        told = f"{difference_in_words(row)} | {verdict_of(row, first.published, RESOLVED['minutes'])}"
        lines.append(f"| {row.setting} | {percent(row.probe)} | {told} | {errors} | {published} |")
    return "\n".join(lines)


def difference_in_words(row) -> str:
    """Points above the first row's, with their interval; a dash in the first row."""
    return gain_in_words({"gain": row.difference} | row._asdict()) if math.isfinite(row.difference) else "–"


def verdict_of(row, published: float, smallest: float) -> str:
    """What the probe says of a setting beside the first, whose published value is `published`; `smallest`: difference
    that the study claims to resolve."""
    if not math.isfinite(row.difference):
        return "reference"
    if row.low <= 0 <= row.high or abs(row.difference) < smallest:
        return "not resolved"
    if math.isnan(row.published):
        return "higher" if row.difference > 0 else "lower"
    return "as published" if (row.difference > 0) == (row.published > published) else "contradicts"


def in_words(settings: pd.DataFrame, study: str) -> str:
    """How many of a study's settings each verdict has."""
    first = settings["published"].iloc[0]
    verdicts = pd.Series([verdict_of(row, first, RESOLVED[study]) for row in settings.itertuples()])
    counted = verdicts[verdicts != "reference"].value_counts()
    return (
        f"Of {counted.sum()} settings: " + ", ".join(f"{count} {verdict}" for verdict, count in counted.items()) + "."
    )


def table_of_seeds(minutes: pd.DataFrame, again: pd.DataFrame) -> str:
    """A row for each setting that was run with several seeds."""
    both = pd.concat([minutes, again])
    lines = ["| setting | probe, by seed | L1 / line, by seed |", "|---|---|---|"]
    for setting in again["setting"].unique():
        rows = both[both["setting"] == setting].sort_values("seed")
        probes, errors = ", ".join(map(percent, rows["probe"])), ", ".join(f"{value:.3f}" for value in rows["l1"])
        lines.append(f"| {setting} | {probes} | {errors} |")
    return "\n".join(lines)


def table_of_hours(rows: list[dict]) -> str:
    """A row for each amount of audio."""
    lines = ["| audio | hours | probe | difference to all | |", "|---|---|---|---|---|"]
    for row in rows:
        told = f"{gain_in_words(row)} | {verdict_of_hours(row)}" if "gain" in row else "– | reference"
        lines.append(f"| {row['audio']} | {row['hours']:.1f} | {percent(row['probe'])} | {told} |")
    return "\n".join(lines)


def verdict_of_hours(row: dict) -> str:
    """What the probe says of a part beside all of the corpus."""
    if row["low"] <= 0 <= row["high"] or abs(row["gain"]) < RESOLVED["hours"]:
        return "not resolved"
    return "higher" if row["gain"] > 0 else "lower"


def units_of(row: dict) -> str:
    """How many clips there are, and what the resamples of their interval draw."""
    return f"{row['clips']:,} clips" + (f", by {row['unit']}" if row["unit"] != "clip" else "")


def gain_in_words(gain: dict[str, float]) -> str:
    """Points with their interval."""
    return f"{100 * gain['gain']:+.1f} [{100 * gain['low']:.1f}, {100 * gain['high']:.1f}]"


def with_spread(scores: list[float]) -> str:
    """Mean of the seeds and their deviation; one number where there is one."""
    mean = percent(statistics.mean(scores))
    return f"{mean} ± {percent(statistics.stdev(scores))}" if len(scores) > 1 else mean


def with_interval(row: dict) -> str:
    """Accuracy of a row with its interval."""
    return f"{percent(row['mean'])} [{percent(row['low'])}, {percent(row['high'])}]"


def percent(value: float) -> str:
    return f"{100 * value:.1f}"
