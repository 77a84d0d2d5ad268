"""The encoder that comes with the package: small, whole, made by the preset it names, and worth what its card says."""

import re
import runpy
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from test_notebooks import NOTEBOOKS, cell_with, executed, is_picture, pictures, printed

import asit_lab
from asit_lab import Encoder, load_config, zoo
from asit_lab.config import diff
from asit_lab.data import load_manifest
from asit_lab.evaluation import reconstruction_errors
from asit_lab.runs.encoder_folder import CONFIG, WEIGHTS, SavedEncoder, write_encoder_folder

FOLDER = Path(zoo.__file__).parent / "shipped"
MAKE = Path(__file__).resolve().parents[1] / "reports/shipped/make.py"


@pytest.fixture(scope="module")
def shipped():
    return zoo.shipped()


def test_it_is_small_and_part_of_the_package():
    assert sum(file.stat().st_size for file in FOLDER.iterdir() if file.is_file()) < 10_000_000
    project = tomllib.loads((FOLDER.parent.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["asit_lab"]
    packed = {file.name for pattern in patterns for file in (FOLDER.parent.parent).glob(pattern)}
    assert {CONFIG, WEIGHTS, "README.md"} <= packed


def test_its_configuration_is_the_preset(shipped):
    changed = [row["key"] for row in diff(shipped.config, load_config("small"))]
    # The second of its stages, in the arithmetic of that processor; the cache changes no number.
    assert changed == ["data.source", "data.cache_mb", "optim.rate", "train.steps", "train.precision"]
    assert shipped.config.data.source == "mixed" and shipped.config.name == "small" and shipped.pretrained
    assert "shipped" in shipped.name


def test_it_embeds_shows_attention_and_reconstructs(shipped):
    wave = load_manifest("synth:3").read(1, 16000)
    embedded = shipped.embed([wave, wave[:20000]], 16000)
    assert embedded.shape == (2, 192) and embedded.dtype == torch.float32 and embedded.isfinite().all()
    attention = shipped.attention(wave[:32000], 16000, layers=(0, -1)).map
    assert attention.shape[:3] == (2, 1, 3)
    torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]))
    found = shipped.reconstruct(wave, 16000)
    assert found.reconstructed.shape == found.clean.shape and found.reconstructed.isfinite().all()
    assert {p.dtype for p in shipped.parameters()} == {torch.float32}


def test_it_is_opened_by_its_name(shipped):
    opened = zoo.open_source("shipped")
    assert opened.name == shipped.name
    assert all(torch.equal(a, b) for a, b in zip(opened.parameters(), shipped.parameters(), strict=True))


def test_it_reconstructs_made_up_sounds_it_never_heard(shipped):
    """Far better than the mean of the band or an untrained network."""
    train, held = load_manifest("synth:20").holdout(0.5)
    errors, untrained = (
        reconstruction_errors(encoder, train, held).set_index("method")["l1_log"]
        for encoder in (shipped, Encoder.random(shipped.config))
    )
    assert errors["reconstruction"] < 0.65 * errors["per-band training mean"]
    assert errors["reconstruction"] < 0.65 * untrained["reconstruction"]


def test_the_card_says_that_it_reconstructs_better_than_a_straight_line():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (mixed, held out|synth) \|(.*)\|$", card, re.MULTILINE))
    numbers = {name: [float(cell.strip(" %")) for cell in row.split("|")] for name, row in rows.items()}
    columns = ("clips", "moved", "run", "shipped", "line", "mean", "events", "line_at_events")
    mixed, synth = (dict(zip(columns, numbers[name], strict=True)) for name in ("mixed, held out", "synth"))
    assert mixed["events"] < 0.7 * mixed["line_at_events"]
    for row in (mixed, synth):
        assert row["shipped"] < 0.9 * row["line"] < row["mean"]
        assert row["moved"] < 0.5 and abs(row["shipped"] - row["run"]) < 0.02 * row["run"]


def test_the_card_names_the_commands_the_data_and_its_licence():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for words in ("asit-lab pretrain --preset small", "shipped/make.py", "CC BY-SA", "GPL", "Debian 12"):
        assert words in card


def test_half_precision_and_one_backbone_lose_little(tmp_path):
    """What make.py keeps, loaded again, embeds as the encoder it was made from."""
    made = runpy.run_path(str(MAKE))
    own = Encoder.random(load_config("micro"), seed=3)
    write_encoder_folder(tmp_path / "small", SavedEncoder(made["weights"](own), own.config, "small", False))
    small = asit_lab.load_encoder(tmp_path / "small")
    waves = [load_manifest("synth:6").read(row, 16000, seconds=2.0) for row in range(6)]
    before, after = own.embed(waves, 16000), small.embed(waves, 16000)
    moved = (after - before).norm(dim=1) / (before - before.mean(0)).norm(dim=1)
    assert 0 < moved.max() < 0.02
    same = [
        own.reconstruct(np.stack(waves), 16000).reconstructed,
        small.reconstruct(np.stack(waves), 16000).reconstructed,
    ]
    assert (same[0] - same[1]).abs().max() < 0.02 * same[0].abs().max()


def test_the_card_is_made_of_what_was_measured():
    made = runpy.run_path(str(MAKE))
    row = {"data": "x", "clips": 7, "moved": 0.0123, "run": 1.6, "shipped": 1.61, "line": 1.66, "mean": 3.85}
    row |= {"events": 2.1, "line at events": 3.65}
    config = load_config("small", ["data.source=mixed", "train.seed=5"])
    card = made["card"](config, 2500, 318, 6_600_000, [row])
    assert "| x | 7 | 1.23 % | 1.600 | 1.610 | 1.660 | 3.850 | 2.100 | 3.650 |" in card and "(6.6 MB)" in card
    assert "318 clips without" in card and "twice (seed\n5)" in card and "alone was trained for 2,500 steps" in card
    assert "some 126 minutes" in card and "2.1 hours" in card
    assert "train.freeze_backbone=true -s train.steps=2500" in card and "weights={reconstruction: 1}'" in card


@pytest.mark.notebook
def test_the_first_notebook_shows_everything(tmp_path):
    """Without a run, and with the encoder that is always there."""
    notebook = executed(NOTEBOOKS / "start.ipynb", tmp_path, "data", "synth:12", "out", str(tmp_path / "pictures"))
    assert "shipped" in printed(cell_with(notebook, "zoo.open_source"))
    for name in ("Mask", "Reconstruction", "Attention", "Embedding"):
        (shown,) = pictures(cell_with(notebook, f"widgets.{name}Explorer("))
        assert is_picture(shown), name
    assert {"masks.png", "reconstruction.png", "attention.png", "embedding.png"} <= {
        file.name for file in (tmp_path / "pictures").iterdir()
    }
