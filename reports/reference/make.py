"""Write README.md and few_labels.png of this folder from results/; print the table in the project's README.

.venv/bin/python reports/reference/make.py

Where the studies minutes.yaml and minutes_again.yaml have finished points, their results are renewed first.
The page's text is page_template.md, its tables are made by tables.py.
"""

import json
from pathlib import Path

import pandas as pd
import tables
from tables import DATA, LABELS, TITLES

from asit_lab import batch, zoo
from asit_lab.errors import InputError
from asit_lab.figures.style import new_figure, save, styled
from asit_lab.storage.atomic import write_text

HERE = Path(__file__).parent
STUDIES = ("minutes", "minutes_again")
LINE, OWN = "reconstruction.linear interpolation in time", "reconstruction.reconstruction"
COLOURS = {"shipped": "C0", "untrained": "C7", "log-mel": "C1"}


def main() -> None:
    for study in STUDIES:
        renew(study)
    results = results_here()
    write_text(HERE / "README.md", page(results))
    save(few_labels(results), HERE / "few_labels.png")
    print(tables.summary(results))


def results_here() -> dict[tuple, dict]:
    """(encoder, data, protocol, labels a class) -> what `probes.py` wrote."""
    written = (json.loads(file.read_text(encoding="utf-8")) for file in sorted((HERE / "results").glob("*.*.json")))
    names = ("data", "protocol", "labels_per_class")
    return {(result["results"][0]["encoder"], *(result[name] for name in names)): result for result in written}


def page(results: dict) -> str:
    """README.md of this folder."""
    silence, hours = (
        json.loads((HERE / f"results/{name}.json").read_text(encoding="utf-8")) for name in ("silence", "hours")
    )
    finetuned, few = finetuned_here(None), finetuned_here(10)
    minutes, again = (pd.read_csv(HERE / f"results/{study}.csv") for study in STUDIES)
    template = (HERE / "page_template.md").read_text(encoding="utf-8")
    return template.format(
        tables="\n\n".join(tables.table_of(results, "shipped", protocol) for protocol in TITLES),
        shipped_few=tables.table_of_few(results, "shipped"),
        finetuned=tables.table_of_finetuned(finetuned),
        finetuned_verdict=tables.gains_over_scratch(finetuned),
        few=tables.table_of_finetuned(few),
        few_verdict=tables.gains_over_scratch(few),
        asda="\n\n".join(tables.table_of(results, "ASDA", protocol) for protocol in TITLES),
        asda_verdict=tables.gains_in_words(results, "ASDA"),
        asda_few=tables.table_of_few(results, "ASDA"),
        steps=shipped_steps(),
        silent_clips=silence["clips"],
        silent_recordings=silence["recordings"],
        silence=tables.table_of_silence(silence),
        minutes=tables.table_of_settings(minutes),
        verdict=tables.in_words(minutes, "minutes"),
        again=tables.table_of_seeds(minutes, again),
        hours=tables.table_of_hours(hours),
        asda_esc50=tables.percent(results["ASDA", "esc50", "linear", None]["results"][0]["mean"]),
        steps_of_hours=hours[0]["steps"],
        hours_untrained=tables.untrained_of(results["ASDA", "esc50", "linear", None]),
        untrained=tables.percent(minutes["untrained"].iloc[0]),
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
