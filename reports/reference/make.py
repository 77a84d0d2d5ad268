"""Write README.md and few_labels.png of this folder from results/*.json; print the table in the project's README.

.venv/bin/python reports/reference/make.py
"""

import json
from pathlib import Path

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
LABELS = (1, 5, 10, None)
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
"""


def main() -> None:
    results = results_here()
    write_text(HERE / "README.md", page(results))
    save(few_labels(results), HERE / "few_labels.png")
    print(summary(results))


def results_here() -> dict[tuple, dict]:
    """(data, protocol, labels a class) -> what `probes.py` wrote."""
    written = (json.loads(file.read_text(encoding="utf-8")) for file in sorted((HERE / "results").glob("*.json")))
    return {(result["data"], result["protocol"], result["labels_per_class"]): result for result in written}


def page(results: dict) -> str:
    """README.md of this folder."""
    return TEXT.format(tables="\n\n".join(table_of(results, protocol) for protocol in ("linear", "knn")))


def summary(results: dict) -> str:
    """The table in the README of the project."""
    lines = ["| linear probe, accuracy in % | included encoder | untrained | log-mel statistics |", "|---|---|---|---|"]
    for name in ("esc50", "esc10", "words", "emotions"):
        shipped, *untrained, log_mel = (row["mean"] for row in results[name, "linear", None]["results"])
        means = (shipped, sum(untrained) / len(untrained), log_mel)
        lines.append(f"| {DATA[name]} | {' | '.join(map(percent, means))} |")
    return "\n".join(lines)


def table_of(results: dict, protocol: str) -> str:
    """The table of one protocol on all labels, a row for each data set."""
    title = {"linear": "Linear probe", "knn": "Nearest neighbours"}[protocol]
    lines = [f"| {title} | shipped | untrained | log-mel | gain over untrained | over log-mel | clips, units |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name in DATA:
        result = results.get((name, protocol, None))
        if result:
            lines.append("| " + " | ".join(cells(DATA[name], result)) + " |")
    return "\n".join(lines)


def cells(title: str, result: dict) -> list[str]:
    """A row of `table_of`."""
    shipped, *untrained, log_mel = result["results"]
    means = [row["mean"] for row in untrained]
    gains = [
        f"{100 * g['gain']:+.1f} [{100 * g['low']:.1f}, {100 * g['high']:.1f}]"
        for g in (result["over_untrained"], result["over_log_mel"])
    ]
    between = f"{percent(sum(means) / len(means))} ({percent(min(means))} to {percent(max(means))})"
    units = "clips" if shipped["unit"] == "clip" else f"clips, by {shipped['unit']}"
    return [title, with_interval(shipped), between, with_interval(log_mel), *gains, f"{shipped['clips']:,} {units}"]


def with_interval(row: dict) -> str:
    """Accuracy of a row with its interval."""
    return f"{percent(row['mean'])} [{percent(row['low'])}, {percent(row['high'])}]"


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


@styled
def few_labels(results: dict):
    """A panel for each data set that was probed on few labels: accuracy over labels a class."""
    names = [name for name in DATA if any((name, "linear", labels) in results for labels in LABELS[:-1])]
    figure = new_figure(2.4 * len(names) + 1.2, 2.6)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        places = [place for place, labels in enumerate(LABELS) if (name, "linear", labels) in results]
        for kind, colour in COLOURS.items():
            chosen = [rows_of(results[name, "linear", LABELS[place]], kind) for place in places]
            middle = [100 * sum(row["mean"] for row in rows) / len(rows) for rows in chosen]
            low, high = (
                [100 * min(row["low"] for row in rows) for rows in chosen],
                [100 * max(row["high"] for row in rows) for rows in chosen],
            )
            panel.plot(places, middle, "o-", color=colour, label=kind, markersize=3)
            panel.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.set_xticks(range(len(LABELS)), [str(labels or "all") for labels in LABELS])
        (chance,) = {results[name, "linear", LABELS[place]]["results"][0]["chance"] for place in places}
        panel.axhline(100 * chance, color="0.5", linestyle=":", linewidth=1)
        clips = results[name, "linear", LABELS[places[0]]]["results"][0]["clips"]
        panel.set(title=f"{DATA[name]}\n{clips:,} clips", xlabel="labels per class")
    panels[0].set_ylabel("accuracy, %")
    panels[0].legend(frameon=False)
    return figure


def rows_of(result: dict, kind: str) -> list[dict]:
    """The rows of a kind of encoder."""
    return [row for row in result["results"] if kind in row["encoder"]]


if __name__ == "__main__":
    main()
