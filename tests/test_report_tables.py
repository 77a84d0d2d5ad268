"""Tables of a report, and the papers' numbers that stand beside ours."""

import csv
import io

import pandas as pd
import pytest
from report_case import NAN, collected_of

from asit_lab.batch import read_study
from asit_lab.report.published import CAPTIONS, PUBLISHED_FOLDER, paper_tables
from asit_lab.report.tables import escaped, latex, markdown, number_table, text_table

ROWS = [
    ("50 % of a_b & {c} | #1", 3, 64.0, 1.0, 4.0, 2.0, 6.0, False, 20.0),
    ("ref", 1, 60.0, NAN, NAN, NAN, NAN, None, 28.1),
]


@pytest.fixture
def table():
    return text_table(collected_of(ROWS, "ref"))


def test_numbers():
    found = number_table(collected_of(ROWS, "ref")).to_dict("records")
    assert [row["verdict"] for row in found] == ["better", "reference"]
    assert found[0]["published_difference"] == pytest.approx(-8.1) and pd.isna(found[1]["published_difference"])
    assert [(row["seeds"], row["mean"], row["published"]) for row in found] == [(3, 64.0, 20.0), (1, 60.0, 28.1)]


def test_as_texts(table):
    assert table.columns == ("Setting", "Seeds", "Ours", "Difference", "Verdict", "Published")
    assert table.rows[0][1:] == ("3", "64.0 ± 1.0", "+4.0 [+2.0, +6.0]", "better", "20.0 (−8.1)")
    assert table.rows[1][1:] == ("1", "60.0", "–", "reference", "28.1")
    assert table.caption.endswith(
        "Published: mAP of Audio_Set, difference in brackets (paper). Different there: everything."
    )
    without = text_table(collected_of([(*row[:-1], NAN) for row in ROWS], "ref"))
    assert without.columns[-1] == "Verdict" and "Published" not in without.caption


def test_latex_is_escaped(table):
    lines = latex(table, "made_up").splitlines()
    (row,) = [line for line in lines if line.startswith("50")]
    assert row == (r"50 \% of a\_b \& \{c\} | \#1 & 3 & 64.0 $\pm$ 1.0 & +4.0 [+2.0, +6.0] & better & 20.0 ($-$8.1) \\")
    text = "\n".join(lines)
    assert r"\caption{A \& B (scale smoke). Ours: linear probe, accuracy (\%), mean $\pm$ standard" in text
    assert r"\label{tab:made_up}" in text and r"\begin{tabular}{lrrrlr}" in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert text.isascii()


def test_all_that_latex_takes_for_itself():
    assert escaped("\\~^<>…–×") == (
        r"\textbackslash{}\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\dots{}--$\times$"
    )


def test_markdown(table):
    lines = markdown(table).splitlines()
    assert lines[2] == "| Setting | Seeds | Ours | Difference | Verdict | Published |"
    assert lines[3] == "| --- | ---: | ---: | ---: | --- | ---: |"
    assert lines[4].startswith(r"| 50 % of a\_b & \{c\} \| \#1 | 3 | 64.0 ± 1.0 |")


# --- Published ------------------------------------------------------------------------------------------------------


def read_values(name: str) -> pd.DataFrame:
    """A paper's table with its numbers as numbers."""
    return pd.read_csv(PUBLISHED_FOLDER / f"{name}.csv")


def published_in(study: str) -> dict[str, float]:
    """Name of a row -> the published value in the study's file."""
    return {row.name: row.published for row in read_study(study).rows if row.published is not None}


def test_losses_are_those_of_table_two():
    table = read_values("asit_v1_table2_losses")
    found = {}
    for row in table.to_dict("records"):
        losses = " + ".join(name for name in ("reconstruction", "local", "global") if row[name])
        found[losses if row["corruption"] else f"{losses}, nothing corrupted"] = row["mAP_AS-20K"]
    assert published_in("loss_combinations") == found and len(found) == 8


def test_initialisations_are_those_of_table_three():
    names = {"AS-2M": "AudioSet-2M", "ImageNet-1K": "ImageNet", "ImageNet then AS-2M": "ImageNet then AudioSet-2M"}
    table = read_values("asit_v1_table3_init").set_index("initialisation").rename(index=names)
    found = {f"{size}, {name}": table.loc[name, f"{size}_mAP"] for size in ("ViT-S", "ViT-B") for name in table.index}
    assert published_in("model_size_and_init") == found and len(found) == 8


def test_alignment_and_best_ratio_are_those_of_the_text():
    table = read_values("asit_v1_text").set_index(["study", "setting"])["value"]
    found = {name.replace("aligned to patches", "aligned"): float(value) for name, value in table["alignment"].items()}
    assert published_in("alignment") == found
    low, high = table["corruption ratio", "best range"].removesuffix("%").split("-")
    assert read_study("corruption_ratio").published.best == (int(low) / 100, int(high) / 100)


def test_the_two_methods_are_those_of_their_papers():
    asit = read_values("asit_v1_table1").set_index("method").loc["ASiT", "AS-20K_mAP"]
    asda = read_values("asda_and_peers").set_index("method").loc["ASDA (ViT-B)", "AS-20K_mAP"]
    found = published_in("asit_vs_asda")
    assert set(found.values()) == {asit, asda}
    assert all(value == (asit if name.startswith("ASiT") else asda) for name, value in found.items())


def test_no_other_study_has_published_values():
    from asit_lab.batch import study_names

    checked = {"loss_combinations", "model_size_and_init", "alignment", "asit_vs_asda"}
    assert {name for name in study_names() if published_in(name)} == checked


def test_tables_of_the_papers_as_printed():
    assert sorted(path.stem for path in PUBLISHED_FOLDER.glob("*.csv")) == sorted(CAPTIONS)
    tables = paper_tables(["corruption_ratio", "alignment", "asit_vs_asda", "attention"])
    assert [table.name for table in tables] == ["asit_v1_text", "asit_v1_table1", "asda_and_peers"]  # each once
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
        text = (PUBLISHED_FOLDER / f"{table.name}.csv").read_text()
        assert [list(row) for row in table.rows] == list(csv.reader(io.StringIO(text)))[1:]
