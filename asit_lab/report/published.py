"""Reads the papers' tables, published/*.csv beside this file."""

import csv
from dataclasses import dataclass
from pathlib import Path

PUBLISHED_FOLDER = Path(__file__).parent / "published"
_ASIT = "ASiT, arXiv 2211.13189 v1"
CAPTIONS = {
    "asit_v1_table1": f"{_ASIT}, table I: mAP (AudioSet) and accuracies, %",
    "asit_v1_table2_losses": f"{_ASIT}, table II: losses and corruption (1: on), mAP of AudioSet-20K",
    "asit_v1_table3_init": f"{_ASIT}, table III: initialisation, mAP of AudioSet-20K",
    "asit_v1_text": f"{_ASIT}: what its text and figures say of further studies",
    "asda_and_peers": "ASDA, arXiv 2507.02666, and others: mAP (AudioSet) and accuracies, %",
}
# Study -> tables that compare the same.
_OF_STUDY = {
    "loss_combinations": ("asit_v1_table2_losses",),
    "model_size_and_init": ("asit_v1_table3_init",),
    "alignment": ("asit_v1_text",),
    "corruption_ratio": ("asit_v1_text",),
    "pretraining_length": ("asit_v1_text",),
    "asit_vs_asda": ("asit_v1_table1", "asda_and_peers"),
}


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper: strings as printed, "" for an empty cell."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def paper_tables(studies: list[str]) -> list[PaperTable]:
    """The tables that these studies have rows of, each once."""
    names = dict.fromkeys(name for study in studies for name in _OF_STUDY.get(study, ()))
    return [_as_printed(name) for name in names]


def _as_printed(name: str) -> PaperTable:
    with (PUBLISHED_FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        columns, *rows = csv.reader(file)
    titles = tuple(column.replace("_", " ") for column in columns)
    return PaperTable(name, CAPTIONS[name], titles, tuple(tuple(row) for row in rows))
