"""The guard: every kind of leak, planted, is named; clean data gives no finding."""

import json
import os

import numpy as np
import pytest
import soundfile

from asit_lab import load_config
from asit_lab.data import load_manifest
from asit_lab.data.fingerprints import HASHES_FOLDER, fingerprint, fingerprints
from asit_lab.errors import InputError
from asit_lab.evaluation.leakage import findings
from asit_lab.evaluation.splits import Split, splits

RATE = 8000


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Fingerprints are kept below a home of the test's own."""
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def sound(number: int, seconds: float = 0.5) -> np.ndarray:
    """Noise of 16-bit numbers as floats, other than every other number's; neither end is zero."""
    numbers = np.random.default_rng(number).integers(1, 9000, round(seconds * RATE))
    return numbers.astype(np.float32) / 32768


def data_set(folder, waves: dict[str, np.ndarray], groups: dict[str, str] | None = None):
    """A manifest of the waves {file name: samples}, two classes in turn, folds 1 and 2 in turn of two."""
    folder.mkdir(exist_ok=True)
    lines = ["path,label,fold,group"]
    for number, (name, wave) in enumerate(waves.items()):
        soundfile.write(folder / name, wave, RATE, subtype=None if name.endswith(".ogg") else "PCM_16")
        lines.append(f"{name},{'ab'[number % 2]},{number // 2 % 2 + 1},{(groups or {}).get(name, '')}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return load_manifest(f"folder:{folder}")


def eight(**changed) -> dict[str, np.ndarray]:
    """Eight different sounds, 0.wav to 7.wav; 0, 1, 4, 5 are in fold 1. changed: _3=wave for 3.wav."""
    waves = {f"{number}.wav": sound(number) for number in range(8)}
    return waves | {f"{name[1:]}.wav": wave for name, wave in changed.items()}


def kinds(found) -> list[tuple[str, str]]:
    return [(one.kind, one.severity) for one in found]


def test_clean_data_gives_no_finding(tmp_path):
    data = data_set(tmp_path / "set", eight())
    assert findings(data, splits(data.table)) == []
    assert findings(data, []) == []


def test_synthesised_clips_are_clean_without_being_synthesised(monkeypatch):
    data, folds = load_manifest("synth:20"), [Split("fold 1", np.arange(10, 20), np.arange(10))]
    monkeypatch.setattr("asit_lab.data.fingerprints.read_row", None)
    assert findings(data, folds) == findings(data, folds, config("synth")) == []


# --- Recordings -----------------------------------------------------------------------------------------------------


def test_a_shared_recording_is_named(tmp_path):
    data = data_set(tmp_path / "set", eight(), {"1.wav": "rec 7", "3.wav": "rec 7", "5.wav": "rec 7"})
    by_hand = [Split("half", np.array([0, 1, 4, 5]), np.array([2, 3, 6, 7]))]
    found = findings(data, by_hand)
    assert kinds(found) == [("shared recording", "leak")]
    assert "source recordings in train and test both: 'rec 7' (train" in found[0].message
    assert "1.wav, test" in found[0].message and "3.wav; half" in found[0].message


def test_a_recording_in_valid_too_is_a_leak_to_test_and_a_warning_to_train(tmp_path):
    groups = {"0.wav": "r", "2.wav": "r"}
    data = data_set(tmp_path / "set", eight(), groups)
    to_test = [Split("s", np.array([4, 5]), np.array([2, 3]), np.array([0, 1]))]
    assert kinds(findings(data, to_test)) == [("shared recording", "leak")]
    to_train = [Split("s", np.array([2, 3]), np.array([4, 5]), np.array([0, 1]))]
    assert kinds(findings(data, to_train)) == [("shared recording", "warning")]


def test_many_are_counted_and_the_first_named(tmp_path):
    data = data_set(
        tmp_path / "set", {f"{n}.wav": sound(n) for n in range(16)}, {f"{n}.wav": f"r{n % 8}" for n in range(16)}
    )
    found = findings(data, [Split("half", np.arange(8), np.arange(8, 16))])
    assert kinds(found) == [("shared recording", "leak")]
    assert "'r4'" in found[0].message and "'r5'" not in found[0].message and "and 3 more" in found[0].message


# --- Choices --------------------------------------------------------------------------------------------------------


def test_settings_chosen_on_test_clips_are_named(tmp_path):
    data = data_set(tmp_path / "set", eight())
    apart = Split("apart", np.array([0, 1]), np.array([2, 3]), np.array([4, 5]))
    assert findings(data, [apart]) == []
    mixed = Split("mixed", np.array([0, 1]), np.array([2, 3, 6]), np.array([6, 3, 4]))
    found = findings(data, [apart, mixed])
    assert kinds(found) == [("test used for a choice", "leak")]
    assert found[0].message.startswith("mixed: 2 of the clips that settings are chosen on are tested too: ")
    assert "3.wav" in found[0].message and "6.wav" in found[0].message and "4.wav" not in found[0].message


# --- Contents -------------------------------------------------------------------------------------------------------


def test_a_copy_under_another_name_is_named(tmp_path):
    data = data_set(tmp_path / "set", eight(_3=sound(1)))
    found = findings(data, splits(data.table))
    assert kinds(found) == [("same audio", "leak")]
    assert "the same audio in train and test: train" in found[0].message
    assert "1.wav" in found[0].message and "3.wav" in found[0].message and "fold 1, fold 2" in found[0].message
    assert "but for zeros" not in found[0].message
    one_side = data_set(tmp_path / "other", eight(_4=sound(1)))  # both in fold 1
    assert findings(one_side, splits(one_side.table)) == []


def test_another_container_depth_and_a_second_channel_change_nothing(tmp_path):
    waves = eight()
    waves["flac.flac"], waves["z.wav"] = sound(0), np.stack([sound(1)] * 2, axis=1)  # places 8 and 9: fold 1
    data = data_set(tmp_path / "set", waves)
    soundfile.write(tmp_path / "set" / "z.wav", waves["z.wav"], RATE, subtype="FLOAT")
    halves = [Split("halves", np.arange(8), np.array([8, 9]))]
    found = findings(data, halves)
    assert kinds(found) == [("same audio", "leak")]
    assert found[0].message.count("; halves") == 2 and "flac.flac" in found[0].message and "z.wav" in found[0].message


def test_other_padding_is_the_same_audio(tmp_path):
    padded = np.r_[np.zeros(700, np.float32), sound(1), np.zeros(90, np.float32)]
    data = data_set(tmp_path / "set", eight(_3=padded))
    found = findings(data, splits(data.table))
    assert kinds(found) == [("same audio", "leak")]
    assert "but for zeros at the ends" in found[0].message


def test_digital_silence_is_no_duplicate_but_noted(tmp_path):
    click = np.zeros(4000, np.float32)
    click[2000] = 0.5
    silent = {"_1": np.zeros(4000, np.float32), "_3": np.zeros(4000, np.float32), "_5": click, "_7": click}
    data = data_set(tmp_path / "set", eight(**silent))
    found = findings(data, splits(data.table))
    assert kinds(found) == [("digital silence", "note")]
    assert found[0].message.startswith("4 of 8 clips are digital silence")


def test_an_unreadable_clip_is_a_warning(tmp_path):
    data = data_set(tmp_path / "set", eight())
    os.unlink(tmp_path / "set" / "5.wav")
    found = findings(data, splits(data.table))
    assert kinds(found) == [("unreadable", "warning")]
    assert "5.wav: no such file" in found[0].message


def test_stretches_of_one_file_that_overlap_are_named(tmp_path):
    data = data_set(tmp_path / "set", eight(_7=sound(7, 2.0)))
    table = data.table.iloc[[0, 1, 2, 7, 7]].reset_index(drop=True)
    table.loc[3:, "group"] = ["part 1", "part 2"]
    halves = [Split("halves", np.array([0, 1, 3]), np.array([2, 4]))]
    for start, kind in ((0.9, [("same audio", "leak")]), (1.0, [])):
        table.loc[3:, "start"], table.loc[3:, "seconds"] = [0.0, start], 1.0
        data.table = table
        found = findings(data, halves)
        assert kinds(found) == kind
    data.table = table.assign(start=0.0)
    assert "the same audio in train and test" in findings(data, halves)[0].message


# --- Pretraining ----------------------------------------------------------------------------------------------------


def config(source: str, holdout: float = 0.0):
    return load_config("smoke", [f"data.source={source}", f"data.holdout={holdout}"])


def test_test_clips_in_pretraining_are_noted_by_path(tmp_path):
    data = data_set(tmp_path / "set", eight())
    half = [Split("half", np.array([0, 1, 4, 5]), np.array([2, 3, 6, 7]))]
    found = findings(data, half, config(data.source))
    assert kinds(found) == [("pretraining clip", "note")]
    assert found[0].message.startswith("4 of 4 test clips were in pretraining on folder:")
    assert "(without labels): " in found[0].message and "2.wav" in found[0].message
    # What pretraining held out, it did not see.
    _, held = data.holdout(0.5)
    number = int(held.table["path"].iloc[0][-5])
    apart = [Split("held", np.setdiff1d(np.arange(8), [number]), np.array([number]))]
    assert findings(data, apart, config(data.source, holdout=0.5)) == []


def test_test_clips_in_pretraining_are_noted_by_content(tmp_path):
    data = data_set(tmp_path / "set", eight())
    half = [Split("half", np.array([0, 1, 4, 5]), np.array([2, 3, 6, 7]))]
    others = {f"x{number}.flac": sound(number) for number in (0, 1, 6, 20)}
    found = findings(data, half, config(data_set(tmp_path / "pretraining", others).source))
    assert kinds(found) == [("pretraining clip", "note")]
    assert found[0].message.startswith("1 of 4 test clips") and "6.wav" in found[0].message
    strangers = {f"y{number}.wav": sound(number) for number in (0, 1, 30, 31)}  # 0 and 1 are trained on
    assert findings(data, half, config(data_set(tmp_path / "strangers", strangers).source)) == []


@pytest.mark.parametrize("source", ["folder:gone", "esc50", "speech_commands"])
def test_pretraining_data_that_is_not_here_is_noted_and_never_downloaded(tmp_path, monkeypatch, source):
    monkeypatch.setenv("ASIT_LAB_DATA", str(tmp_path / "nothing"))
    data = data_set(tmp_path / "set", eight())
    found = findings(data, splits(data.table), config(source))
    assert kinds(found) == [("pretraining clip", "note")]
    assert "not compared" in found[0].message or "cannot be listed" in found[0].message
    assert not (tmp_path / "nothing").exists()


# --- Fingerprints ---------------------------------------------------------------------------------------------------


def test_a_second_look_reads_no_unchanged_file(tmp_path, home, monkeypatch):
    data = data_set(tmp_path / "set", eight())
    first = fingerprints(data, np.arange(8))
    assert [one.digest for one in first] == [fingerprint(sound(n), RATE).digest for n in range(8)]
    (cache,) = (home / HASHES_FOLDER).iterdir()
    assert len(json.loads(cache.read_text())) == 8

    soundfile.write(tmp_path / "set" / "2.wav", sound(50), RATE, subtype="PCM_16")
    os.utime(tmp_path / "set" / "2.wav", ns=(0, 12345))
    from asit_lab.data import fingerprints as module

    read, opened = module.read_row, []
    monkeypatch.setattr(module, "read_row", lambda path, *rest: opened.append(path) or read(path, *rest))
    again = fingerprints(data, np.arange(8))
    assert [os.path.basename(path) for path in opened] == ["2.wav"]
    assert again[2].digest == fingerprint(sound(50), RATE).digest
    assert again[:2] + again[3:] == first[:2] + first[3:]


def test_a_damaged_or_unwritable_cache_costs_nothing_but_time(tmp_path, home, caplog):
    data = data_set(tmp_path / "set", eight())
    first = fingerprints(data, [0])
    (cache,) = (home / HASHES_FOLDER).iterdir()
    cache.write_text("{")
    assert fingerprints(data, [0]) == first and len(json.loads(cache.read_text())) == 1
    cache.unlink()
    (home / HASHES_FOLDER).rmdir()
    (home / HASHES_FOLDER).write_text("a file where the folder should be")
    assert fingerprints(data, [0]) == first
    assert "fingerprints cannot be kept" in caplog.text


def test_rate_and_sign_tell_sounds_apart():
    prints = {fingerprint(sound(1), RATE), fingerprint(sound(1), 16000), fingerprint(-sound(1), RATE)}
    assert len({one.digest for one in prints}) == 3


@pytest.mark.parametrize("rows", [np.array([8]), np.array([-1]), np.array([True, False]), np.array([0.5])])
def test_rows_outside_the_table_are_said(tmp_path, rows):
    data = data_set(tmp_path / "set", eight())
    with pytest.raises(InputError, match="by hand: test holds something else than rows 0 to 7"):
        findings(data, [Split("by hand", np.array([0]), rows)])
