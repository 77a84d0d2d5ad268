"""Official splits are used as published, a user's own are not where they leak; independent units; what tables say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile

from asit_lab import InputError
from asit_lab.cli import main
from asit_lab.data import load_manifest
from asit_lab.embedding.dataset import log_mel_embedder
from asit_lab.evaluation import findings, metrics
from asit_lab.evaluation.probing import probe, probe_features
from asit_lab.evaluation.splits import independent_unit, manifest_splits, splits

RATE = 8000


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))


@pytest.fixture
def esc(tmp_path):
    """ESC-50's layout: 24 noises of two classes and three folds, one a recording, but for recording 900: it has a clip
    in fold 1 and one in fold 2, under two labels, as four of ESC-50's have."""
    root, rows = tmp_path / "esc", []
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir()
    for number in range(24):
        fold, target = number // 8 + 1, number % 2
        source = 900 if number in (2, 9) else 100 + number
        name = f"{fold}-{source}-A-{target}.wav"
        wave = 0.1 * np.random.default_rng(number).standard_normal(RATE // 2)
        soundfile.write(root / "audio" / name, np.cumsum(wave) * 0.1 if number % 3 == 0 else wave, RATE)
        rows.append((name, fold, target, ("dog", "rain")[target], False, source, "A"))
    columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "meta" / "esc50.csv", index=False)
    return root


def as_folder(esc) -> str:
    """The same clips, folds and recordings as a user's own list."""
    meta = pd.read_csv(esc / "meta" / "esc50.csv")
    own = pd.DataFrame({"path": "audio/" + meta["filename"], "label": meta["category"], "fold": meta["fold"]})
    own.assign(group=meta["src_file"]).to_csv(esc / "own.csv", index=False)
    return f"folder:{esc / 'own.csv'}"


def test_official_folds_are_used_as_published_and_the_score_without_leaks_stands_beside(esc):
    result = probe(log_mel_embedder(20, RATE), f"esc50:{esc}", "knn")
    assert list(result.scores) == ["fold 1", "fold 2", "fold 3"] and len(result.predictions) == 24
    (finding,) = result.findings
    assert (finding.kind, finding.severity) == ("shared recording", "note") and "'900'" in finding.message
    clean = result.predictions[result.predictions["group"] != "900"]
    assert len(clean) == 22
    without = (clean["label"] == clean["predicted"]).groupby(clean["split"]).mean().mean()
    note = f"2 of 24 test clips share audio with training: accuracy {without:.4g} without them"
    assert result.notes == [note] and result.table["note"].iloc[0] == note


def test_a_users_own_folds_that_leak_are_refused_unless_allowed(esc):
    source, embedder = as_folder(esc), log_mel_embedder(20, RATE)
    with pytest.raises(InputError, match=r"'900' is on both sides.*--allow-leaks"):
        probe(embedder, source, "knn")
    allowed = probe(embedder, source, "knn", allow_leaks=True)
    assert [finding.severity for finding in allowed.findings] == ["leak"]
    assert allowed.notes[0] == "leaks allowed (--allow-leaks)" and "2 of 24 test clips" in allowed.notes[1]
    assert allowed.scores == probe(embedder, f"esc50:{esc}", "knn").scores


@pytest.mark.parametrize(
    "kind", ["esc50", "esc10", "speech_commands", "speech_commands_v1", "audioset", "audioset_20k"]
)
@pytest.mark.parametrize("column", ["fold", "split"])
def test_every_official_list_is_used_as_published(esc, kind, column):
    manifest = load_manifest(f"esc50:{esc}")
    if column == "split":
        parts = pd.array(np.where(manifest.table["fold"] == 1, "test", "train"), dtype="string")
        manifest = replace(manifest, table=manifest.table.assign(fold=pd.NA, split=parts))
    official, own = replace(manifest, source=f"{kind}:somewhere"), replace(manifest, source="folder:somewhere")
    divisions = manifest_splits(official)
    assert len(divisions) == (3 if column == "fold" else 1)
    assert findings(official, divisions, official=True)[0].severity == "note"
    assert findings(own, divisions)[0].severity == "leak"  # by hand
    with pytest.raises(InputError, match="is on both sides"):
        manifest_splits(own)


# --- Independent units ----------------------------------------------------------------------------------------------


def speakers(count: int = 120, each: int = 10) -> pd.DataFrame:
    """Clips of two classes by speakers; a speaker's clips are in one fold."""
    speaker = np.arange(count) // each
    return pd.DataFrame(
        {
            "path": [f"{i}.wav" for i in range(count)],
            "label": ["ab"[i % 2] for i in range(count)],
            "fold": pd.array(speaker % 3 + 1, dtype="Int64"),
            "split": pd.array([None] * count, dtype="string"),
            "group": [f"speaker {i}" for i in speaker],
        }
    )


def test_intervals_are_over_speakers_where_these_are_known():
    table = speakers()
    generator = np.random.default_rng(0)
    side = np.where(table["label"] == "a", 1.0, -1.0)
    # All clips of a speaker are easy or all are hard, so 12 speakers tell what 120 clips seem to.
    hard = generator.random(12)[np.arange(120) // 10] < 0.5
    points = np.column_stack([np.where(hard, -side, side), generator.standard_normal(120)])
    result = probe_features(points, table, "x", "knn", unit="speaker")
    low, high = result.interval
    groups = table["group"].to_numpy()[result.predictions["path_row"]]
    assert (low, high) == metrics.interval(result.targets, result.outputs, False, groups=groups)["accuracy"]
    by_clip = metrics.interval(result.targets, result.outputs, False)["accuracy"]
    assert high - low > 2 * (by_clip[1] - by_clip[0])
    assert result.table["unit"].iloc[0] == "speaker" and result.notes == []


def test_an_interval_over_few_speakers_is_said_to_be_unreliable():
    table = speakers()
    table["split"] = pd.array(np.where(table["fold"] == 1, "test", "train"), dtype="string")
    table = table.assign(fold=pd.array([None] * 120, dtype="Int64"))
    result = probe_features(np.random.default_rng(0).standard_normal((120, 3)), table, "x", "knn", unit="speaker")
    assert result.notes == ["interval over 4 speakers only: not reliable"]
    by_clip = probe_features(np.random.default_rng(0).standard_normal((120, 3)), table, "x", "knn")
    assert by_clip.notes == []


def test_one_unit_has_no_interval():
    table = speakers()
    table["split"] = pd.array(np.where(table["fold"] == 1, "test", "train"), dtype="string")
    table = table.assign(fold=pd.array([None] * 120, dtype="Int64"))
    table.loc[table["split"] == "test", "group"] = "speaker 0"
    result = probe_features(np.random.default_rng(0).standard_normal((120, 3)), table, "x", "knn")
    assert np.isnan(result.interval).all() and np.isnan(result.table["low"].iloc[0])


def test_the_unit_is_named_as_the_data_set_has_it(esc):
    manifest = load_manifest(f"esc50:{esc}")
    assert independent_unit(manifest) == "recording" and independent_unit(load_manifest(as_folder(esc))) == "group"
    assert independent_unit(replace(manifest, source="speech_commands:x")) == "speaker"
    alone = replace(manifest, table=manifest.table.assign(group=manifest.table["path"]))
    assert independent_unit(alone) == "clip"
    segments = manifest.table.assign(group=manifest.table["path"].iloc[0], path=manifest.table["path"].iloc[0])
    assert independent_unit(replace(manifest, table=segments)) == "recording"  # of long files
    assert len(splits(alone.table)) == 3


# --- In the shell ---------------------------------------------------------------------------------------------------


def test_the_table_in_the_shell_says_what_to_know(esc, capsys, monkeypatch):
    def asit_lab(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["asit-lab", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0

    assert asit_lab("probe", "smoke", "--data", f"esc50:{esc}", "--protocol", "knn", "--layer", "last") == 0
    shown = capsys.readouterr().out
    assert "note (smoke, untrained): 2 of 24 test clips share audio with training: accuracy 0." in shown
    assert "recording" in shown and "without them" in shown
    assert asit_lab("probe", "smoke", "--data", as_folder(esc), "--protocol", "knn") == 2
    assert "--allow-leaks" in capsys.readouterr().err
    assert (
        asit_lab("probe", "smoke", "-d", as_folder(esc), "--protocol", "knn", "--layer", "last", "--allow-leaks") == 0
    )
    assert "leaks allowed (--allow-leaks)" in capsys.readouterr().out
    assert asit_lab("probe", "smoke", "--data", f"esc50:{esc}", "--device", "nowhere") == 2
    assert "device: 'nowhere' cannot be used here" in capsys.readouterr().err
