"""The browser of rows without a page: what a row shows and plays, and the list that is kept."""

import io
import shutil

import numpy as np
import pytest
import soundfile

from asit_lab.data import load_manifest
from asit_lab.widgets import DataExplorer

RATE = 16000


@pytest.fixture
def folder(tmp_path):
    for name in ("a/0.wav", "a/1.wav", "b/2.wav"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        wave = 0.1 * np.random.default_rng(len(name)).standard_normal(RATE)
        soundfile.write(tmp_path / "clips" / name, wave, RATE)
    return tmp_path / "clips"


def test_a_row_is_shown_and_can_be_heard(folder, tmp_path):
    explorer = DataExplorer(f"folder:{folder}", tmp_path / "kept.csv")
    assert explorer.message.text == "" and len(explorer.rows.rows) == 3 and "label" in explorer.rows.columns
    first = explorer.png()
    explorer.rows.selected = 2
    assert explorer.picture.alt.startswith("Log-mel of clip 2 of") and explorer.png() != first
    wave, rate = soundfile.read(io.BytesIO(bytes(explorer.sound.player.value)))
    np.testing.assert_allclose(wave, explorer.manifest.read(2, RATE), atol=1e-4)
    assert rate == RATE and {"asit-explorer", "asit-data"} <= set(explorer._dom_classes)


def test_what_is_marked_is_left_out_of_a_list_that_data_takes(folder, tmp_path):
    explorer = DataExplorer(f"folder:{folder}", tmp_path / "lists/kept.csv")
    explorer.rows.bad = [1]
    explorer.save.click()
    assert explorer.message.text == "" and "2 of 3 rows saved" in explorer.facts.value
    kept = load_manifest(f"folder:{tmp_path / 'lists/kept.csv'}")
    whole = explorer.manifest.table
    assert kept.table["path"].tolist() == whole["path"].iloc[[0, 2]].tolist()
    assert kept.table["label"].tolist() == whole["label"].iloc[[0, 2]].tolist()
    again = DataExplorer(f"folder:{folder}", tmp_path / "lists/kept.csv")
    assert again.rows.bad == [1]  # continued
    again.rows.bad = [0, 1, 2]
    again.save.click()
    assert "nothing is left to save" in again.message.text


def test_a_list_of_other_files_is_not_written_over(folder, tmp_path):
    kept, other = tmp_path / "kept.csv", tmp_path / "other"
    explorer = DataExplorer(f"folder:{folder}", kept)
    explorer.rows.bad = [1]
    explorer.save.click()
    before = kept.read_text()
    shutil.copytree(folder, other)
    explorer.data.value = f"folder:{other}"
    assert explorer.message.text == "" and explorer.rows.bad == []
    explorer.save.click()
    assert "lists files that this data set lacks" in explorer.message.text and kept.read_text() == before
    explorer.data.value = f"folder:{folder}"
    assert explorer.rows.bad == [1]
    explorer.save.click()
    assert explorer.message.text == "" and kept.read_text() == before
    shutil.rmtree(folder)  # what the list names
    explorer.data.value = f"folder:{other}"
    assert explorer.message.text == "" and len(explorer.rows.rows) == 3


def test_a_list_of_more_than_this_data_set_is_not_cut_down(folder, tmp_path):
    DataExplorer(f"folder:{folder}", tmp_path / "kept.csv").save.click()
    before = (tmp_path / "kept.csv").read_text()
    part = DataExplorer(f"folder:{folder / 'a'}", tmp_path / "kept.csv")
    part.save.click()
    assert "lists files that this data set lacks" in part.message.text and part.rows.bad == []
    assert (tmp_path / "kept.csv").read_text() == before


def test_a_list_that_another_explorer_saved_meanwhile_is_not_written_over(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    first, second = (DataExplorer(f"folder:{f}", tmp_path / "kept.csv") for f in (folder, tmp_path / "other"))
    first.save.click()
    before = (tmp_path / "kept.csv").read_text()
    second.save.click()
    assert "lists files that this data set lacks" in second.message.text
    assert (tmp_path / "kept.csv").read_text() == before


def test_a_list_of_clips_with_several_labels_keeps_them(folder, tmp_path):
    (folder / "list.csv").write_text("path,labels\na/0.wav,dog;rain\na/1.wav,dog\nb/2.wav,rain\n")
    explorer = DataExplorer(f"folder:{folder}/list.csv", tmp_path / "kept.csv")
    explorer.rows.bad = [2]
    explorer.save.click()
    kept = load_manifest(f"folder:{tmp_path / 'kept.csv'}")
    assert kept.multi and kept.table["label"].tolist() == ["dog;rain", "dog"]


def test_synthesised_sounds_and_wrong_data_are_said(tmp_path):
    explorer = DataExplorer("synth:12", tmp_path / "kept.csv")
    explorer.save.click()
    assert "no files that a list could name" in explorer.message.text and not (tmp_path / "kept.csv").exists()
    explorer.data.value = "sinth"
    assert "did you mean synth" in explorer.message.text and len(explorer.rows.rows) == 12
    explorer.data.value = "synth:10"
    assert explorer.message.text == "" and len(explorer.rows.rows) == 10
