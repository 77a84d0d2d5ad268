"""Write README.md and few_labels.png of this folder from results/; print the table in the project's README.

.venv/bin/python reports/reference/make.py

Where the studies minutes.yaml and minutes_again.yaml have finished points, their results are renewed first.
"""

import json
import math
import statistics
from pathlib import Path

import pandas as pd

from asit_lab import batch, zoo
from asit_lab.errors import InputError
from asit_lab.figures.style import new_figure, save, styled
from asit_lab.storage.atomic import write_text

HERE = Path(__file__).parent
DATA = {
    "esc10": "ESC-10",
    "esc50": "ESC-50",
    "words": "Arabic commands",
    "emotions": "RAVDESS speech",
    "commands": "Speech Commands, small",
}
TITLES = {"linear": "Linear probe", "knn": "Nearest neighbours"}
LABELS = (1, 5, 10, None)
STUDIES = ("minutes", "minutes_again")
LINE, OWN = "reconstruction.linear interpolation in time", "reconstruction.reconstruction"
RESOLVED = 0.04  # smallest difference of a probe that minutes.yaml claims to resolve
COLOURS = {"shipped": "C0", "untrained": "C7", "log-mel": "C1"}

TEXT = """# Reference study

What the encoder that comes with the package is worth on labelled recordings that it was not pretrained on, beside the
same network untrained and the mean and deviation of the log-mel. Rebuilt by

    .venv/bin/python reports/reference/probes.py NAME=DATA ...   # the missing results, hours on two cores
    .venv/bin/python reports/reference/make.py                   # this page and its figure

Accuracy in %, with 95 % intervals over independent units (recordings, speakers, actors). Layer, pooling and strength
are chosen inside the training clips. Untrained: mean of three seeds, their range in brackets. Gain: points above the
mean of the untrained networks, or above the log-mel, on the same clips; its interval is a paired bootstrap over these
units, and the gain is resolved where the interval leaves out 0.

{tables}

![Accuracy over labels per class](few_labels.png)

*Linear probe on few labels per class, drawn three times from the training clips of each fold. Bands: 95 % intervals;
dotted: chance.*

## Fine-tuned

    .venv/bin/python reports/reference/finetuned.py --runs runs/finetuned NAME=DATA@FOLD ...
    .venv/bin/python reports/reference/finetuned.py --runs runs/ten-labels --labels 10 NAME=DATA@FOLD ...

All weights trained with labels, by the recipe [`micro`](../../docs/recipes.md#micro-for-fine-tuning), from the shipped
encoder and from random weights (scratch): accuracy in %, mean and deviation of three seeds, on clips that had no part
in choosing the recipe. Gain over scratch: mean of the seeds, with its interval over recordings or speakers (paired).

{finetuned}

{finetuned_verdict}

With ten training clips a class, drawn anew for each seed:

{few}

{few_verdict}

Arabic commands and ESC-50, and RAVDESS with ten clips a class, without intervals:
[recipes](../../docs/recipes.md#micro-for-fine-tuning).

## ASDA

    .venv/bin/asit-lab pretrain -o runs/asda --preset micro-asda --data folder:data/corpus/balanced.csv \\
        -s features.mean=-5.6 -s features.std=5.2 -s data.holdout=0.02 -s data.trim=false -s train.steps=1000
    .venv/bin/python reports/reference/probes.py --asda runs/asda NAME=DATA ...
    .venv/bin/python reports/reference/silence.py --data esc50:PATH --asda runs/asda

The other objective, with its differential attention, on the same corpus: 1,000 steps of 16 clips and six masks of each,
a quarter of an hour on two cores, one seed, where the shipped encoder has {steps:,} steps of 32 clips. Untrained are
networks with its patches (16 x 16) and attention. [Trials](../../docs/recipes.md#micro-asda) of a quarter of that
length stayed below their untrained twins.

{asda}

{asda_verdict}

With few labels a class, drawn three times: ASDA / untrained / log-mel, accuracy in %.

{asda_few}

What of the attention falls on digital silence, of clips of ESC-50 that are silent for a tenth to nine tenths of their
length ({silent_clips} clips, {silent_recordings} recordings): mean over layers, heads and sounding patches, over what
even attention would give; 95 % intervals over recordings. Of a difference of two softmaxes magnitudes are counted.
The two encoders differ in length of training, objective, patches and start, too, so this does not compare kinds of
attention: the mimetic start of `small` alone looks at sounds more than at silence.

{silence}

## Settings in minutes

    .venv/bin/asit-lab batch run reports/reference/minutes.yaml --scale minutes --workers 2
    .venv/bin/asit-lab batch run reports/reference/minutes_again.yaml --scale minutes --workers 2
    .venv/bin/python reports/reference/make.py

`small` in 200 steps of 16 clips, two minutes of two cores, from random weights on the [corpus](../../data/README.md),
one setting changed in each row, one seed. Probe: linear, ESC-10, five folds, accuracy in %, and its difference to the
first row with a 95 % interval over recordings (paired). L1 / line: reconstruction of held-out recordings beside a
straight line in time. Published: mAP of AudioSet-20K after 10 epochs of two million clips (ASiT, table II and text).
Said beforehand: one seed and 400 clips resolve differences of the probe from 4 points on, and of L1 / line from 0.02
on. A row is resolved where its interval leaves out 0 and the difference is that large; it then agrees with the
published order, or contradicts it. 200 steps take in 1.8 hours of audio at most, so more hours could not show, and
are not compared.

{minutes}

{verdict}

Three of the settings with another seed:

{again}

Why so little is resolved: after two minutes no setting's features have caught up with those of the untrained network
({untrained} %), and [recipes](../../docs/recipes.md) found as much after eight minutes. So the probe says how far a
setting has moved from its start, not yet what it has learned. What two minutes do teach is reconstruction, so that
column is the one to read. What is measured there is blocks of zeros over 70 %, not aligned: training on aligned
blocks, on other fillings or on far smaller shares teaches little of it. Reconstruction alone learns it fastest.
Copying helps; 128 bands and patches that are taller in time do not make harmonics easier at this length. ASDA
predicts features, not pixels, so it has no error of reconstruction; its untrained twin has 79.2 %, as it has other
patches and crops.
"""


def main() -> None:
    for study in STUDIES:
        renew(study)
    results = results_here()
    write_text(HERE / "README.md", page(results))
    save(few_labels(results), HERE / "few_labels.png")
    print(summary(results))


def results_here() -> dict[tuple, dict]:
    """(encoder, data, protocol, labels a class) -> what `probes.py` wrote."""
    written = (json.loads(file.read_text(encoding="utf-8")) for file in sorted((HERE / "results").glob("*.*.json")))
    names = ("data", "protocol", "labels_per_class")
    return {(result["results"][0]["encoder"], *(result[name] for name in names)): result for result in written}


def page(results: dict) -> str:
    """README.md of this folder."""
    silence = json.loads((HERE / "results/silence.json").read_text(encoding="utf-8"))
    finetuned, few = finetuned_here(None), finetuned_here(10)
    minutes, again = (pd.read_csv(HERE / f"results/{study}.csv") for study in STUDIES)
    return TEXT.format(
        tables="\n\n".join(table_of(results, "shipped", protocol) for protocol in TITLES),
        finetuned=table_of_finetuned(finetuned),
        finetuned_verdict=gains_over_scratch(finetuned),
        few=table_of_finetuned(few),
        few_verdict=gains_over_scratch(few),
        asda="\n\n".join(table_of(results, "ASDA", protocol) for protocol in TITLES),
        asda_verdict=gains_in_words(results, "ASDA"),
        asda_few=table_of_few(results, "ASDA"),
        steps=shipped_steps(),
        silent_clips=silence["clips"],
        silent_recordings=silence["recordings"],
        silence=table_of_silence(silence),
        minutes=table_of_settings(minutes),
        verdict=in_words(minutes),
        again=table_of_seeds(minutes, again),
        untrained=percent(minutes["untrained"].iloc[0]),
    )


def shipped_steps() -> int:
    """Of all trainings of the shipped encoder, as its name has them."""
    return int(zoo.shipped().name.split(", ")[1].removesuffix(" steps (shipped)"))


def finetuned_here(labels: int | None) -> list[dict]:
    """What `finetuned.py` wrote of so many labels a class, in the order of DATA."""
    written = [json.loads(file.read_text(encoding="utf-8")) for file in (HERE / "results/finetuned").glob("*.json")]
    chosen = {result["data"]: result for result in written if result["labels_per_class"] == labels}
    return [chosen[name] for name in DATA if name in chosen]


def renew(study: str) -> None:
    """Write results/STUDY.csv from the points that are finished, if any is."""
    try:
        found = batch.collect(HERE / f"{study}.yaml", "minutes")
    except InputError:
        return
    points = found.points[found.points["state"] == "finished"]
    rows = points[["setting", "seed", "published"]].assign(
        probe=points["probe.teacher.mean"],
        untrained=points["probe.random init.mean"],
        l1=points[f"{OWN}.l1_log"] / points[f"{LINE}.l1_log"],
        events=points[f"{OWN}.events_log"] / points[f"{LINE}.events_log"],
    )
    differences = found.summary[["setting", "difference", "low", "high"]]
    differences = differences.set_index("setting").div(found.study.plot.factor).reset_index()
    rows.merge(differences, on="setting").to_csv(HERE / f"results/{study}.csv", index=False, float_format="%.6g")


def table_of_settings(minutes: pd.DataFrame) -> str:
    """A row for each setting."""
    lines = ["| setting | probe | difference | | L1 / line | at events | published |", "|---|---|---|---|---|---|---|"]
    first = minutes.iloc[0]
    for row in minutes.itertuples():
        between = "–"
        if math.isfinite(row.difference):
            between = f"{100 * row.difference:+.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        errors = " | ".join("–" if math.isnan(value) else f"{value:.3f}" for value in (row.l1, row.events))
        published = "" if math.isnan(row.published) else f"{row.published:g}"
        verdict = verdict_of(row, first.published)
        lines.append(f"| {row.setting} | {percent(row.probe)} | {between} | {verdict} | {errors} | {published} |")
    return "\n".join(lines)


def verdict_of(row, published: float) -> str:
    """What the probe says of a setting beside the first, whose published value is `published`."""
    if not math.isfinite(row.difference):
        return "reference"
    if row.low <= 0 <= row.high or abs(row.difference) < RESOLVED:
        return "not resolved"
    if math.isnan(row.published):
        return "higher" if row.difference > 0 else "lower"
    return "as published" if (row.difference > 0) == (row.published > published) else "contradicts"


def in_words(minutes: pd.DataFrame) -> str:
    """How many of the settings each verdict has."""
    verdicts = pd.Series([verdict_of(row, minutes["published"].iloc[0]) for row in minutes.itertuples()])
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


def table_of_few(results: dict, encoder: str) -> str:
    """Linear probes on few labels a class: a row for each data set that has all of them."""
    few = [labels for labels in LABELS if labels]
    lines = [f"| labels a class | {' | '.join(map(str, few))} |", "|---" * (1 + len(few)) + "|"]
    for name, title in DATA.items():
        found = [results.get((encoder, name, "linear", labels)) for labels in few]
        if all(found):
            lines.append(f"| {title} | {' | '.join(means_of(result['results']) for result in found)} |")
    return "\n".join(lines)


def means_of(rows: list[dict]) -> str:
    """Encoder / mean of its untrained twins / log-mel."""
    first, *untrained, log_mel = (row["mean"] for row in rows)
    return " / ".join(map(percent, (first, statistics.mean(untrained), log_mel)))


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


def cells(title: str, result: dict) -> list[str]:
    """A row of `table_of`."""
    first, *untrained, log_mel = result["results"]
    means = [row["mean"] for row in untrained]
    gains = [gain_in_words(result[over]) for over in ("over_untrained", "over_log_mel")]
    between = f"{percent(sum(means) / len(means))} ({percent(min(means))} to {percent(max(means))})"
    return [title, with_interval(first), between, with_interval(log_mel), *gains, units_of(first)]


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


@styled
def few_labels(results: dict):
    """A panel for each data set that was probed on few labels: accuracy over labels a class."""
    names = [name for name in DATA if any(("shipped", name, "linear", labels) in results for labels in LABELS[:-1])]
    figure = new_figure(2.4 * len(names) + 1.2, 2.6)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        places = [place for place, labels in enumerate(LABELS) if ("shipped", name, "linear", labels) in results]
        for kind, colour in COLOURS.items():
            chosen = [rows_of(results["shipped", name, "linear", LABELS[place]], kind) for place in places]
            middle = [100 * sum(row["mean"] for row in rows) / len(rows) for rows in chosen]
            low, high = (
                [100 * min(row["low"] for row in rows) for rows in chosen],
                [100 * max(row["high"] for row in rows) for rows in chosen],
            )
            panel.plot(places, middle, "o-", color=colour, label=kind, markersize=3)
            panel.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.set_xticks(range(len(LABELS)), [str(labels or "all") for labels in LABELS])
        (chance,) = {results["shipped", name, "linear", LABELS[place]]["results"][0]["chance"] for place in places}
        panel.axhline(100 * chance, color="0.5", linestyle=":", linewidth=1)
        clips = results["shipped", name, "linear", LABELS[places[0]]]["results"][0]["clips"]
        panel.set(title=f"{DATA[name]}\n{clips:,} clips", xlabel="labels per class")
    panels[0].set_ylabel("accuracy, %")
    panels[0].legend(frameon=False)
    return figure


def rows_of(result: dict, kind: str) -> list[dict]:
    """The rows of a kind of encoder."""
    return [row for row in result["results"] if kind in row["encoder"]]


if __name__ == "__main__":
    main()
