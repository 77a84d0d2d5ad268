"""The classifier explorer without a browser: its events, sounds and probabilities are the classifier's, and labels that
are saved are read as a data set."""

import asyncio
import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from notebook_case import stock_papermill
from PIL import Image
from widgets_case import assert_flat, assert_widget_and_picture

from asit_lab import Encoder, load_config
from asit_lab.data import load_manifest
from asit_lab.finetuning import Classifier, Corrections, finetune
from asit_lab.finetuning.classifier import classifier_metadata
from asit_lab.widgets import ClassifierExplorer

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "explore_predictions.ipynb"
RATE = 16000
CLASSES = ["low", "high", "noise"]


class ByPitch(Classifier):
    """Knows tones below and above 1 kHz by their zero crossings, and everything else as noise."""

    def scores(self, waves, sample_rate):
        waves = [waves] if np.ndim(waves[0]) == 0 else waves
        rows = []
        for wave in waves:
            crossings = sample_rate * np.mean(np.diff(np.signbit(wave))) / 2  # Hz
            best = 0 if crossings < 1000 else 1 if crossings < 3000 else 2
            rows.append(np.where(np.arange(3) == best, 0.9, 0.05))
        return np.array(rows, np.float32)


def classifier(multi: bool = False) -> ByPitch:
    config = load_config("smoke")
    encoder = Encoder.random(config, 0)
    thresholds = [0.5, 0.5, 0.5] if multi else None
    return ByPitch(encoder, config, classifier_metadata("pitch", config, CLASSES, multi, thresholds=thresholds))


def tone(hertz: float, seconds: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """3 s low, 3 s high, 2 s nothing, 4 s low."""
    path = tmp_path_factory.mktemp("sounds") / "tones $1$.wav"
    wave = np.concatenate([tone(400, 3), tone(2000, 3), np.zeros(2 * RATE, np.float32), tone(300, 4)])
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def made(recording, tmp_path_factory):
    labels = tmp_path_factory.mktemp("labels") / "labels.csv"
    return ClassifierExplorer(classifier(), "synth:3", recording=recording, corrections=labels, window_seconds=1.0)


@pytest.fixture
def explorer(made, tmp_path):
    """With its controls where they were at first, and no labels."""
    made.corrections = Corrections(tmp_path / "labels.csv")
    made.threshold.value, made.shortest.value, made.window.value = 50, 0.5, 1.0
    made.sound.player.autoplay = False
    made.part = -1
    made.redraw()
    assert made.message.text == "" and made.parts.value == -1
    return made


def played(sound) -> np.ndarray:
    return soundfile.read(io.BytesIO(bytes(sound.player.value)))[0]


def test_it_shows_events_at_once_and_leaves_a_picture_with_the_view(explorer):
    bundle = explorer._repr_mimebundle_()
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert image.width > 800 and image.height > 500 and np.asarray(image)[..., :3].std() > 10
    assert {"asit-explorer", "asit-classifier"} <= set(explorer._dom_classes)
    assert explorer.events["class"].tolist() == ["low", "high", "low"]
    np.testing.assert_allclose(explorer.events[["start", "end"]], [[0, 3], [3, 6], [8, 12]], atol=0.5)
    assert explorer.overview.labels[1].startswith("high, 3.") and explorer.overview.labels[1].endswith("s, 86 %")
    assert explorer.detail.drawn_scene.panels[0].title.startswith("clip: low, 90 % (0.00 to 12.00 s")
    assert not explorer.sound.player.autoplay and explorer.facts.value.count("No label is saved") == 1


def test_a_click_on_an_event_plays_it_and_shows_its_probabilities(explorer, recording):
    explorer.overview.selected = 1
    start, end = explorer.events.loc[1, ["start", "end"]]
    wave = soundfile.read(recording)[0][round(start * RATE) : round(end * RATE)]
    np.testing.assert_allclose(played(explorer.sound), wave, atol=1e-4)
    assert explorer.sound.player.autoplay and explorer.parts.value == 1 and explorer.label.value == "high"
    sent = []
    explorer.sound.player.observe(lambda change: sent.append(len(change["new"])), names="value")
    explorer.overview._handle_custom_msg({"kind": "again"}, [])
    assert sent == [0, len(explorer.sound.player.value)]  # else the page would not play the same sound again
    explorer.sound.player.unobserve_all("value")
    timeline = explorer.findings.timeline
    steps = timeline.scores[round(start / timeline.step_seconds) : round(end / timeline.step_seconds)]
    np.testing.assert_allclose(explorer.scores, steps.mean(0))
    assert explorer.detail.drawn_scene.axes.start == pytest.approx(start)
    explorer.parts.value = -1
    assert explorer.overview.selected == -1 and len(played(explorer.sound)) == 12 * RATE
    np.testing.assert_allclose(explorer.scores, [0.9, 0.05, 0.05])


def test_targets_lie_on_their_lanes(explorer):
    fractions = explorer.overview.fractions
    assert fractions.shape == (3, 2) and (np.diff(fractions[:, 0]) > 0).all()
    assert fractions[0, 1] == pytest.approx(fractions[2, 1]) and fractions[1, 1] > fractions[0, 1]
    (log_mel, lanes) = explorer.overview.areas
    assert (fractions[:, 1] > lanes[1]).all() and (fractions[:, 1] < lanes[3]).all() and log_mel[3] <= lanes[1]


@pytest.mark.slow
def test_threshold_window_and_shortest_event(explorer):
    explorer.threshold.value = 95
    assert explorer.events.empty and "0 events" in explorer.overview.alt and len(explorer.parts.options) == 1
    assert "the most probable class is low, 90 % at" in explorer.facts.value
    explorer.threshold.value, explorer.shortest.value = 50, 3.5
    assert explorer.events["class"].tolist() == ["low"]
    before = explorer.png()
    explorer.window.value = 4.0
    assert explorer.findings.timeline.window_seconds == 4.0 and explorer.png() != before
    assert explorer.message.text == ""


def test_labels_are_saved_replaced_and_removed(explorer, recording):
    explorer.overview.selected = 1
    explorer.label.value = "  bird  song "
    explorer.save.click()
    (row,) = explorer.corrections.table.to_dict("records")
    start, end = explorer.events.loc[1, ["start", "end"]]
    assert row["path"] == str(recording) and float(row["start"]) == start and float(row["end"]) == end
    assert (row["label"], row["predicted"], row["probability"]) == ("bird song", "high", "0.8646")
    assert "Saved label of this part: bird song." in explorer.facts.value and explorer.parts.options[2][0][-1] == "✓"
    explorer.overview.selected = 0
    assert explorer.label.value == "low" and explorer.remove.disabled
    explorer.save.click()
    explorer.parts.value = 1
    assert explorer.label.value == "bird song"
    explorer.label.value = "wren"
    explorer.save.click()
    assert sorted(explorer.corrections.table["label"]) == ["low", "wren"]
    explorer.remove.click()
    assert explorer.corrections.table["label"].tolist() == ["low"] and explorer.label.value == "high"
    explorer.label.value = " "
    explorer.save.click()
    assert "label: is empty" in explorer.message.text and len(explorer.corrections.table) == 1


@pytest.mark.slow
def test_saved_labels_are_a_data_set_and_continue(explorer, recording, tmp_path):
    for part, label in ((0, "low"), (1, "whistle"), (-1, "tones")):
        explorer.parts.value, explorer.label.value = part, label
        explorer.save.click()
    manifest = load_manifest(f"folder:{tmp_path / 'labels.csv'}")
    assert sorted(manifest.table["label"]) == ["low", "tones", "whistle"] and len(set(manifest.table["group"])) == 1
    row = int(np.flatnonzero(manifest.table["label"] == "whistle")[0])
    start, end = explorer.events.loc[1, ["start", "end"]]
    np.testing.assert_allclose(
        manifest.read(row, RATE), soundfile.read(recording)[0][round(start * RATE) : round(end * RATE)], atol=1e-6
    )
    again = ClassifierExplorer(classifier(), recording=recording, corrections=tmp_path / "labels.csv", window_seconds=1)
    assert again.label.value == "tones"
    assert [text.endswith("✓") for text, _ in again.parts.options] == [True, True, True, False]


@pytest.mark.slow
def test_a_clip_of_no_file_is_written_beside_the_labels(tmp_path):
    made = ClassifierExplorer(classifier(), "synth:3", clip=2, corrections=tmp_path / "labels.csv")
    before = sorted(tmp_path.rglob("*.wav"))
    made.label.value = "a new class"
    made.save.click()
    (row,) = pd.read_csv(tmp_path / "labels.csv").to_dict("records")
    assert before == [] and row["path"].startswith("labels_audio/clip_2_of_synth_3") and np.isnan(row["start"])
    manifest = load_manifest(f"folder:{tmp_path / 'labels.csv'}")
    np.testing.assert_allclose(manifest.read(0, RATE), load_manifest("synth:3").read(2, RATE), atol=1e-4)
    made.chooser.clip.value = 1
    assert made.remove.disabled
    made.chooser.clip.value = 2
    assert made.label.value == "a new class"


@pytest.mark.slow
def test_rows_that_are_stretches_keep_their_place_in_the_file(recording, tmp_path):
    pd.DataFrame({"path": [recording], "label": ["x"], "start": [2.0], "seconds": [5.0]}).to_csv(tmp_path / "list.csv")
    made = ClassifierExplorer(
        classifier(), f"folder:{tmp_path / 'list.csv'}", corrections=tmp_path / "labels.csv", window_seconds=1
    )
    assert made.events["class"].tolist() == ["low", "high"]
    made.save.click()
    made.overview.selected = 1
    made.save.click()
    table = made.corrections.table.astype({"start": float, "end": float})
    assert table["start"].tolist() == [2.0, 2.0 + made.events["start"][1]]
    assert table["end"].tolist() == [7.0, 2.0 + made.events["end"][1]]


def test_several_classes_are_joined(recording, tmp_path):
    made = ClassifierExplorer(classifier(multi=True), recording=recording, corrections=tmp_path / "labels.csv")
    assert made.threshold.value == 0 and made.label.value == "low"
    made.label.value = "low;reverberant"
    made.save.click()
    manifest = load_manifest(f"folder:{tmp_path / 'labels.csv'}")
    assert manifest.multi and manifest.classes == ["low", "reverberant"]


def test_classes_of_one_part_share_its_row(recording, tmp_path):
    made = ClassifierExplorer(classifier(multi=True), recording=recording, corrections=tmp_path / "labels.csv")
    made.threshold.value = 4  # all three are present wherever there is sound
    made.parts.value = 0
    assert made.label.value == "high;low;noise"
    made.save.click()
    (row,) = made.corrections.table.to_dict("records")
    assert row["labels"] == "high;low;noise" and float(row["end"]) == made.events["end"][0]
    assert [text.endswith("✓") for text, _ in made.parts.options] == [False, True, True, True, False, False, False]


def test_parts_that_share_a_start_have_a_row_each(tmp_path):
    corrections = Corrections(tmp_path / "labels.csv")
    for label, start, end in (("dog", 0.0, 2.0), ("rain", 0.0, 5.0), ("yard", None, None), ("cat", 0.0, 2.0)):
        corrections.add("a.wav", label, start, end)
    assert corrections.labels("a.wav") == {(0.0, 5.0): "rain", (None, None): "yard", (0.0, 2.0): "cat"}
    corrections.remove("a.wav", 0.0, 5.0)
    assert corrections.labels("a.wav") == {(None, None): "yard", (0.0, 2.0): "cat"}


@pytest.mark.slow
def test_wrong_inputs_are_said_in_words(tmp_path, recording):
    (tmp_path / "other.csv").write_text("path,label\na.wav,b\n", encoding="utf-8")
    for options, words in (
        ({"model": tmp_path / "nothing"}, "nothing: no such file or folder"),
        ({"corrections": tmp_path / "labels.txt"}, "give a name that ends in .csv"),
        ({"corrections": tmp_path / "other.csv"}, "column 'start' is missing; choose another file"),
        ({"threshold": 2}, "threshold: 2 is not a probability"),
        ({"data": "sinth"}, "there is no clip to show"),
    ):
        made = ClassifierExplorer(**{"model": classifier(), "corrections": tmp_path / "labels.csv", **options})
        assert words in made.message.text and made.png() == b""
    made = ClassifierExplorer(classifier(), "sinth", corrections=tmp_path / "labels.csv")
    made.save.click()
    assert "there is no clip to show" in made.message.text
    made.chooser.source.value, made.chooser.path.value = "file", str(recording)
    assert made.message.text == "" and len(made.events) == 3


def test_only_the_last_of_several_classifications_is_shown(explorer):
    async def two_in_a_row():
        explorer.window.value = 2.0
        first = explorer.work.task
        explorer.window.value = 3.0
        await asyncio.gather(first, explorer.work.task)

    asyncio.run(two_in_a_row())
    assert explorer.findings.timeline.window_seconds == 3.0 and explorer.message.text == ""
    assert not explorer.work.busy


@pytest.mark.slow
def test_memory_and_output_stay_flat_in_200_moves(explorer):
    def move(n):
        explorer.overview.selected = n % 3
        if n % 10 == 0:
            explorer.threshold.value = (40, 60)[n // 10 % 2]

    assert_flat(explorer, move, moves=200)


@pytest.mark.slow
def test_finetune_reads_the_saved_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    made = ClassifierExplorer(classifier(), "synth:8", corrections=tmp_path / "labels.csv")
    for row in range(8):
        made.chooser.clip.value, made.label.value = row, ("near", "far")[row % 2]
        made.save.click()
    assert made.message.text == ""
    encoder = Encoder.random(load_config("smoke"), 0)
    done = finetune(encoder, f"folder:{tmp_path / 'labels.csv'}", "smoke", tmp_path / "tuned", ["precision=fp32"])
    assert done.status == "finished" and torch.isfinite(torch.tensor(done.table["mean"].to_numpy(float))).all()


@pytest.mark.notebook
def test_the_notebook_runs_under_stock_papermill(tmp_path):
    done = stock_papermill(NOTEBOOK, tmp_path, "encoder", "smoke", "data", "synth:40", "out", str(tmp_path / "results"))
    assert done.returncode == 0, done.stderr[-6000:]
    assert_widget_and_picture(tmp_path / "out.ipynb")
    assert (tmp_path / "results/recording.wav").is_file()
