"""Classes over time in long recordings: windows, steps, events, and the files that other programs read."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from test_classifier import command

from asit_lab import Encoder, InputError, figures, load_classifier, load_config
from asit_lab.data import load_manifest
from asit_lab.features import LogMel
from asit_lab.finetuning import Classifier, covered, find_events, join_clips, write_events
from asit_lab.finetuning.classifier import ProbeHead, classifier_metadata
from asit_lab.finetuning.timeline import PICTURE_COLUMNS, Timeline, make_timeline, sliding
from asit_lab.settings import Features

RATE = 16000


class ByLevel:
    """A classifier that tells loud from soft: classes whose probability is known from the waveform."""

    classes, multi, thresholds, sample_rate, window_seconds = ["soft", "loud"], False, None, RATE, 1.0

    def __init__(self):
        self.config = SimpleNamespace(features=Features(sample_rate=RATE, mel_bins=32))
        self.front_end = LogMel.from_config(self.config.features)
        self.windows: list[int] = []

    def scores(self, waves, sample_rate):
        self.windows += [len(wave) for wave in waves]
        loud = np.array([np.mean(np.abs(wave) > 0.3) for wave in waves], np.float32)
        return np.stack([1 - loud, loud], axis=1)


def recording(*parts: tuple[float, float]) -> np.ndarray:
    """(seconds, amplitude) one after the other: a square wave, so that every sample has the amplitude."""
    return np.concatenate([level * np.sign(np.sin(np.arange(round(s * RATE)) + 0.5)) for s, level in parts]).astype(
        "f4"
    )


def test_windows_slide_over_blocks_of_any_size():
    wave = np.arange(103, dtype=np.float32)
    for size, hop in ((10, 5), (10, 10), (20, 7), (103, 3), (200, 9)):
        for block in (1, 9, 50, 200):
            found = list(sliding((wave[at : at + block] for at in range(0, 103, block)), size, hop))
            starts = [start for start, _ in found]
            assert (
                starts[:-1] == list(range(0, hop * (len(found) - 1), hop))
                and starts[-1] == max(0, 103 - size)
                or (starts == list(range(0, 104 - size, hop)))
            )
            assert all(np.array_equal(part, wave[start : start + size]) for start, part in found)
            assert found[-1][0] + len(found[-1][1]) == 103
    assert list(sliding([], 10, 5)) == []


def test_each_step_is_the_mean_of_the_windows_over_it():
    classifier = ByLevel()
    wave = recording((2.0, 0.1), (2.0, 0.9), (1.25, 0.1))
    timeline = make_timeline(classifier, wave, RATE, 1.0, 0.5)
    assert set(classifier.windows) == {RATE} and timeline.seconds == 5.25
    table = timeline.table
    assert table["start"].tolist() == [0.5 * i for i in range(11)] and table["end"].iloc[-1] == 5.25
    # Of windows at 0, 0.5, ... and 4.25 s, the loud share: 0 0 0 .5 1 1 1 .5 0 0.
    # The last one covers half of the step from 4 s, and counts half there: 0.5 / 2.5.
    expected = [0, 0, 0, 0.25, 0.75, 1, 1, 0.75, 0.2, 0, 0]
    np.testing.assert_allclose(timeline.scores[:, 1], expected, atol=1e-6)
    assert table["class"].tolist() == ["soft"] * 4 + ["loud"] * 4 + ["soft"] * 3
    (event,) = timeline.events().query("`class` == 'loud'").to_dict("records")
    assert event == {"start": 2.0, "end": 4.0, "class": "loud", "probability": pytest.approx(0.875)}
    (sure,) = timeline.events(threshold=0.8).query("`class` == 'loud'").to_dict("records")
    assert (sure["start"], sure["end"]) == (2.5, 3.5)


def test_silence_has_no_class_and_is_not_classified():
    classifier = ByLevel()
    timeline = make_timeline(classifier, recording((2.0, 0.0), (2.0, 0.9), (3.0, 0.0)), RATE, 1.0, 1.0)
    assert len(classifier.windows) == 2
    assert timeline.table["class"].tolist() == ["", "", "loud", "loud", "", "", ""]
    assert timeline.events()[["start", "end", "class"]].to_numpy().tolist() == [[2.0, 4.0, "loud"]]


def timeline_of(scores, multi=False, thresholds=0.5) -> Timeline:
    """Steps of one second."""
    scores = np.asarray(scores, np.float32)
    classes = ["a", "b", "c"][: scores.shape[1]]
    limits = np.broadcast_to(thresholds, len(classes))
    picture = (np.zeros((4, 8), np.float32), len(scores) / 4, Features())
    return Timeline("x.wav", float(len(scores)), 1.0, 1.0, classes, multi, scores, limits, *picture)


def spans(events) -> list[tuple]:
    return list(events[["start", "end", "class"]].itertuples(index=False, name=None))


def test_near_stretches_are_one_event_and_short_ones_none():
    only = timeline_of(np.array([[1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 1, 1]]).T)
    assert spans(only.events(max_gap_seconds=0)) == [(0, 2, "a"), (3, 4, "a"), (6, 7, "a"), (10, 12, "a")]
    assert spans(only.events(max_gap_seconds=1)) == [(0, 4, "a"), (6, 7, "a"), (10, 12, "a")]
    assert spans(only.events(max_gap_seconds=2)) == [(0, 7, "a"), (10, 12, "a")]
    assert spans(only.events(min_seconds=2, max_gap_seconds=1)) == [(0, 4, "a"), (10, 12, "a")]
    assert only.events(max_gap_seconds=2)["probability"].tolist() == [1, 1]  # of the steps in which it is present
    between = timeline_of([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])
    assert spans(between.events(max_gap_seconds=5)) == [(0, 1, "a"), (1, 2, "b"), (2, 3, "a")]
    assert spans(timeline_of(np.zeros((3, 2))).events()) == []


def test_several_classes_at_once_have_thresholds_of_their_own():
    timeline = timeline_of([[0.6, 0.3], [0.6, 0.3], [0.1, 0.2]], multi=True, thresholds=[0.5, 0.25])
    assert spans(timeline.events()) == [(0, 2, "a"), (0, 2, "b")]
    assert spans(timeline.events(threshold=0.55)) == [(0, 2, "a")]


def test_what_cannot_be_is_refused():
    classifier, wave = ByLevel(), recording((2.0, 0.5))
    for options, words in (
        ({"window_seconds": 0.01}, "windows: 0.01 s is less than 0.025 s"),
        ({"window_seconds": 1.0, "hop_seconds": 1.5}, "hop: 1.5 s is longer than the windows"),
        ({"sample_rate": None}, "sample_rate: needed with a waveform"),
    ):
        with pytest.raises(InputError, match=words):
            make_timeline(classifier, wave, **{"sample_rate": RATE, **options})
    with pytest.raises(InputError, match="expected one recording"):
        make_timeline(classifier, np.stack([wave, wave]), RATE)
    with pytest.raises(InputError, match="10 ms long, shorter than 25 ms"):
        make_timeline(classifier, wave[:160], RATE)
    timeline = make_timeline(classifier, wave, RATE)
    for options, words in (
        ({"threshold": 0.0}, "threshold: 0.0 is not a probability"),
        ({"min_seconds": -1}, "min_seconds: -1 s"),
        ({"max_gap_seconds": -1}, "max_gap_seconds: -1 s"),
    ):
        with pytest.raises(InputError, match=words):
            timeline.events(**options)


def test_a_file_gives_what_its_waveform_gives_and_the_picture_stays_small(tmp_path, monkeypatch):
    """In blocks that cut through windows, steps and columns. The picture is the log-mel's mean in columns."""
    monkeypatch.setattr("asit_lab.finetuning.timeline._BLOCK", 3.3)
    wave = (0.05 * np.random.default_rng(0).standard_normal(21 * RATE)).astype(np.float32)
    wave[9 * RATE : 12 * RATE] *= 8
    soundfile.write(tmp_path / "long.wav", wave, RATE, subtype="FLOAT")
    from_file = make_timeline(ByLevel(), tmp_path / "long.wav", None, 2.0, 1.0)
    from_wave = make_timeline(ByLevel(), wave, RATE, 2.0, 1.0)
    np.testing.assert_array_equal(from_file.scores, from_wave.scores)
    assert (
        from_file.log_mel.shape == (1049, 32) and len(from_file.log_mel) <= PICTURE_COLUMNS
    )  # 2,098 frames, two a column
    assert from_file.column_seconds == pytest.approx(0.02)
    raw = LogMel.from_config(from_file.features)(torch.from_numpy(wave)[None])[0]
    # Blocks have means of their own, which are taken off; the lowest bands notice.
    np.testing.assert_allclose(from_file.log_mel[:, 2:], raw.reshape(1049, 2, 32).mean(1)[:, 2:], atol=0.02)


# --- Files and figure -----------------------------------------------------------------------------------------------

EVENTS = pd.DataFrame(
    {"start": [0.5, 3.0], "end": [2.0, 4.25], "class": ["dog", "crying\tbaby"], "probability": [0.75, 0.9]}
)


def test_events_as_audacity_and_raven_read_them(tmp_path):
    labels = write_events(EVENTS, tmp_path / "a.labels.txt").read_text()
    assert labels == "0.500000\t2.000000\tdog\n3.000000\t4.250000\tcrying baby\n"
    raven = write_events(EVENTS, tmp_path / "a.selections.txt", Features(sample_rate=RATE, low_hz=50))
    table = pd.read_csv(raven, sep="\t")
    assert list(table.columns)[:5] == ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)"]
    assert table["Selection"].tolist() == [1, 2] and set(table["View"]) == {"Spectrogram 1"}
    assert table["Begin Time (s)"].tolist() == [0.5, 3.0] and table["Annotation"].tolist() == ["dog", "crying baby"]
    assert set(table["Low Freq (Hz)"]) == {50.0} and set(table["High Freq (Hz)"]) == {8000.0}
    pd.testing.assert_frame_equal(pd.read_csv(write_events(EVENTS, tmp_path / "new" / "a.csv")), EVENTS)
    with pytest.raises(InputError, match="give a name that ends in .csv, .labels.txt"):
        write_events(EVENTS, tmp_path / "a.txt")


def test_the_figure_has_a_lane_for_each_class():
    axes = figures.MelAxes(0.04, RATE)
    figure = figures.timeline_figure(np.random.default_rng(0).random((120, 16)), axes, EVENTS, "a.wav")
    upper, lower = figure.axes[:2]
    assert upper.get_title(loc="left") == "a.wav" and lower.get_xlabel() == "time (s)"
    assert [text.get_text() for text in lower.get_yticklabels()] == ["dog", "crying baby"]
    assert lower.get_xlim() == pytest.approx((0, 4.8))
    bars = [bar.get_paths()[0].get_extents().bounds for bar in lower.collections]
    assert [(x, width) for x, _, width, _ in bars] == [(0.5, 1.5), (3.0, 1.25)]
    assert [round(bar.get_facecolor()[0, 3], 4) for bar in lower.collections] == [0.8125, 0.925]
    many = pd.DataFrame({"start": range(25), "end": np.arange(25) + 2.0, "class": map(str, range(25))})
    crowded = figures.timeline_figure(np.zeros((9, 4)), axes, many.assign(probability=1.0))
    assert len(crowded.axes[1].get_yticks()) == 20 and "5 more classes" in crowded.axes[1].get_xlabel()
    empty = figures.timeline_figure(np.zeros((9, 4)), axes, EVENTS[:0])
    assert [text.get_text() for text in empty.axes[1].texts] == ["no events"]
    with pytest.raises(InputError, match="lacks probability"):
        figures.timeline_figure(np.zeros((9, 4)), axes, EVENTS.drop(columns="probability"))


def test_bars_of_the_likeliest_classes():
    table = pd.DataFrame({"class": ["dog", "a\tcat"], "probability": [0.7, 0.2], "predicted": [True, False]})
    (ax,) = figures.class_bars(table, "clip").axes
    assert [bar.get_width() for bar in ax.patches] == [70, 20] and ax.get_xlabel() == "probability (%)"
    assert [text.get_text() for text in ax.texts] == ["dog", "70", "a cat", "20"] and ax.yaxis_inverted()
    assert ax.patches[0].get_alpha() is None and ax.patches[0].get_facecolor()[3] > ax.patches[1].get_facecolor()[3]
    with pytest.raises(InputError, match="expected rows with class, probability, predicted"):
        figures.class_bars(table[:0])


# --- A real classifier, from Python and the shell -------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The file of a linear head with random weights on an untrained encoder."""
    folder, config = tmp_path_factory.mktemp("model"), load_config("smoke")
    network, generator = Encoder(config, Encoder.random(config, 3).backbone), torch.Generator().manual_seed(0)
    width, classes = config.model.width, ["bell", "siren", "vowel"]
    weights = 0.3 * torch.randn(width, 3, generator=generator, dtype=torch.float64)
    unit = torch.ones(1, width, dtype=torch.float64)
    network.head = ProbeHead(0 * unit, unit, weights, 0 * weights[0], torch.ones(1, dtype=torch.float64))
    probe = {"layers": [len(network.backbone.blocks)], "pool": "mean"}
    Classifier(network, config, classifier_metadata("random", config, classes, False, probe=probe)).save(folder)
    return folder


def test_windows_are_scored_as_clips_of_their_own(model):
    classifier = load_classifier(model)
    wave = np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32) * 0.1
    timeline = classifier.timeline(wave, RATE, 1.0, 1.0)
    alone = classifier.scores([wave[:RATE], wave[RATE : 2 * RATE], wave[2 * RATE :]], RATE)
    np.testing.assert_allclose(timeline.scores, alone, atol=1e-5)
    assert classifier.timeline(wave, RATE).window_seconds == pytest.approx(classifier.window_seconds)


def test_events_from_the_shell(model, tmp_path, monkeypatch, capsys):
    for name in ("a/x.wav", "b/x.wav"):
        (tmp_path / name).parent.mkdir()
        soundfile.write(tmp_path / name, recording((1.0, 0.5), (1.0, 0.0), (1.0, 0.1)), RATE)
    (tmp_path / "a/broken.wav").write_bytes(b"no audio")
    options = ["--windows", 1, "--hop", 0.5, "--threshold", 0.01, "--min-event", 0.25]
    files = [tmp_path / "a", tmp_path / "b"]
    more = ["--out", tmp_path / "events.csv", "--timelines", tmp_path / "lines"]
    status, shown, _ = command(monkeypatch, capsys, "predict", model, *files, "--events", *options, *more)
    assert status == 0 and "broken.wav" in shown and f"timelines: {tmp_path / 'lines'}" in shown
    expected, _ = find_events(
        load_classifier(model),
        list(map(str, files)),
        window_seconds=1.0,
        hop_seconds=0.5,
        threshold=0.01,
        min_seconds=0.25,
    )
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "events.csv"), expected)
    assert len(expected) >= 4 and set(expected["path"].str[-7:]) == {"a/x.wav", "b/x.wav"}
    endings = (".csv", ".labels.txt", ".png", ".selections.txt")
    written = sorted(path.name for path in (tmp_path / "lines").iterdir())
    assert written == sorted(stem + ending for stem in ("x", "x-2") for ending in endings)
    steps = pd.read_csv(tmp_path / "lines/x.csv")
    assert list(steps.columns) == ["start", "end", "class", "probability"] and len(steps) == 6
    assert len(pd.read_csv(tmp_path / "lines/x.labels.txt", sep="\t", header=None)) == len(expected) / 2
    status, shown, _ = command(monkeypatch, capsys, "predict", model, files[1], "--events", *options, "--json")
    assert status == 0 and len(json.loads(shown)["events"]) == len(expected) / 2
    status, _, error = command(monkeypatch, capsys, "predict", model, files[1], "--timelines", tmp_path / "lines")
    assert status == 2 and "--timelines: needs --events" in error
    status, _, error = command(monkeypatch, capsys, "predict", model, files[1], "--events", "--threshold", 2)
    assert status == 2 and "threshold: 2.0 is not a probability" in error


def test_every_recording_has_files_of_its_own(model, tmp_path):
    for name in ("a/x.wav", "a/x-2.wav", "b/x.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, recording((1.0, 0.5)), RATE)
    find_events(load_classifier(model), [str(tmp_path / "a"), str(tmp_path / "b")], folder=tmp_path / "lines")
    assert {path.stem for path in (tmp_path / "lines").glob("*.png")} == {"x", "x-2", "x-3"}


def test_joined_clips_and_what_covers_them(tmp_path):
    manifest = load_manifest("synth:20")
    placed = join_clips(manifest, [3, 0], tmp_path / "joined.wav", RATE)
    wave, rate = soundfile.read(tmp_path / "joined.wav", dtype="float32")
    parts = [manifest.read(row, RATE) for row in (3, 0)]
    np.testing.assert_array_equal(wave, np.concatenate(parts))
    assert placed["class"].tolist() == manifest.table["label"][[3, 0]].tolist() and rate == RATE
    assert placed["start"][1] >= len(parts[0]) / RATE >= placed["end"][0] and placed["end"][1] <= len(wave) / RATE
    events = pd.DataFrame({"start": [0.0, 2.0, 3.0], "end": [1.0, 3.0, 9.0], "class": ["a", "a", "b"]})
    where = pd.DataFrame({"start": [0.5, 0.0, 4.0], "end": [2.5, 4.0, 8.0], "class": ["a", "b", "c"]})
    assert covered(events, where).tolist() == [0.5, 0.25, 0.0]
