"""Data sources: what a manifest lists, and what is said about folders and lists that are wrong."""

import json
import zipfile

import numpy as np
import pandas as pd
import pytest
import soundfile

from asit_lab.data import load_manifest
from asit_lab.data import manifest as manifest_module
from asit_lab.errors import InputError
from asit_lab.evaluation.splits import splits


def write(path, seconds=0.5, rate=16000, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * rate), channels))
    soundfile.write(path, noise, rate)
    return path


@pytest.fixture
def classes(tmp_path):
    """Three classes of recordings, one of them with a folder inside."""
    for name in ("cat/a.wav", "cat/more/b.flac", "dog/c.ogg", "none/d.wav"):
        write(tmp_path / "set" / name)
    (tmp_path / "set" / "cat" / "._a.wav").write_bytes(b"what a Mac leaves behind")
    (tmp_path / "set" / "notes.txt").write_text("not audio")
    return tmp_path / "set"


# --- folder -----------------------------------------------------------------------------------------------------------


def test_folder_takes_classes_from_sub_folders(classes):
    found = load_manifest(f"folder:{classes}")
    assert found.name == "set" and found.classes == ["cat", "dog", "none"] and len(found) == 4
    assert found.table["label"].tolist() == ["cat", "cat", "dog", "none"]
    assert found.table["group"].tolist() == found.table["path"].tolist()
    assert len(found.bad) == 0 and found.table["fold"].isna().all() and found.table["split"].isna().all()
    assert found.read(1, 8000).shape == (4000,)


def test_class_folders_behind_links(classes, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "kitten").symlink_to(classes / "cat")
    (tmp_path / "links" / "puppy").symlink_to(classes / "dog")
    (classes / "dog" / "round").symlink_to(tmp_path / "links")  # a circle
    assert load_manifest(f"folder:{tmp_path / 'links'}").table["label"].tolist() == ["kitten", "kitten", "puppy"]


def test_folder_without_classes(tmp_path):
    write(tmp_path / "a.wav")
    found = load_manifest(f"folder:{tmp_path}")
    assert found.table["label"].tolist() == [""] and found.classes == []


def test_relative_paths_count_from_home(classes, monkeypatch, tmp_path):
    monkeypatch.setenv("ASIT_LAB_HOME", str(classes.parent))
    monkeypatch.chdir(tmp_path.parent)
    assert len(load_manifest("folder:set")) == 4


def test_long_files_become_equal_segments(tmp_path):
    write(tmp_path / "x" / "long.wav", seconds=12.0, rate=8000)
    write(tmp_path / "x" / "short.wav", seconds=5.0, rate=8000)
    found = load_manifest(f"folder:{tmp_path}", segment_seconds=5.0)
    long = found.table[found.table["path"].str.endswith("long.wav")]
    np.testing.assert_allclose(long["start"], [0, 4, 8])
    np.testing.assert_allclose(long["seconds"], 4)
    assert len(found) == 4 and found.table["group"].nunique() == 2
    whole = manifest_module.read_row(str(tmp_path / "x" / "long.wav"), 0.0, 12.0, 8000)
    np.testing.assert_array_equal(np.concatenate([found.read(i, 8000) for i in range(3)]), whole)


def test_bad_files_are_listed_and_left_out(classes):
    (classes / "cat" / "broken.wav").write_bytes(b"RIFF no audio")
    (classes / "cat" / "empty.wav").touch()
    write(classes / "dog" / "blip.wav", seconds=0.003)
    found = load_manifest(f"folder:{classes}")
    reasons = {path.rsplit("/", 1)[1]: reason for path, reason in found.bad.itertuples(index=False)}
    assert len(found) == 4 and set(reasons) == {"broken.wav", "empty.wav", "blip.wav"}
    assert "zero length" in reasons["empty.wav"] and reasons["blip.wav"].startswith("3 ms long")
    assert found.notes == ["3 of 7 files cannot be used and are left out"]


def test_missing_path(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist"):
        load_manifest(f"folder:{tmp_path / 'nowhere'}")


def test_empty_folder(tmp_path):
    with pytest.raises(InputError, match="is empty"):
        load_manifest(f"folder:{tmp_path}")


def test_folder_without_audio(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no audio files.*\.pdf \(1\)"):
        load_manifest(f"folder:{tmp_path}")


@pytest.mark.parametrize("source", ["folder", "esc50", "speech_commands", "speech_commands_v1"])
def test_archive_instead_of_a_folder(tmp_path, source):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        packed.writestr("cat/a.wav", b"x")
    with pytest.raises(InputError, match=r"set\.zip is an archive: unpack it"):
        load_manifest(f"{source}:{tmp_path / 'set.zip'}")


def test_all_files_bad(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.wav").write_bytes(b"no audio")
    with pytest.raises(InputError, match=r"none of its 1 files can be used: .*a\.wav"):
        load_manifest(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("esc5:x", r"unknown source 'esc5'; did you mean esc50\[:PATH\]"),
        ("qqqq", r"unknown source 'qqqq'; Valid: synth"),
        ("folder", "give the folder"),
        ("synth:many", "'many' is not a number of clips"),
        ("synth:0", "'0' is not a number of clips"),
    ],
)
def test_wrong_source(spec, message):
    with pytest.raises(InputError, match=message):
        load_manifest(spec)


def test_a_source_that_is_no_text():
    with pytest.raises(InputError, match='expected a text such as "folder:PATH" or "synth", got a int'):
        load_manifest(3)


def test_a_bare_path_is_told_to_be_a_folder(classes):
    for path in (classes, str(classes)):
        with pytest.raises(InputError, match=f"did you mean folder:{classes}"):
            load_manifest(path)


def test_the_list_with_classes_is_the_one_beside_other_lists(classes):
    write_csv(classes, "path,label\ncat/a.wav,cat\n")
    write_csv(classes, "path,start\ncat/b.wav,0\n", "left_out.csv")
    assert load_manifest(f"folder:{classes}").table["label"].tolist() == ["cat"]


# --- CSV --------------------------------------------------------------------------------------------------------------


def write_csv(folder, text, name="list.csv"):
    (folder / name).write_text(text, encoding="utf-8-sig")
    return folder / name


def test_csv_with_folds_splits_and_groups(classes):
    text = "path,label,fold,split,group\ncat/a.wav,NA,1,train,r1\ncat/more/b.flac,none,2,val,r1\ndog/c.ogg,7,3,test,\n"
    path = write_csv(classes, text)
    for spec in (path, classes):  # the file itself, or the folder that holds it
        table = load_manifest(f"folder:{spec}").table
        assert table["label"].tolist() == ["NA", "none", "7"]
        assert table["fold"].tolist() == [1, 2, 3] and table["split"].tolist() == ["train", "valid", "test"]
        assert table["group"].tolist() == ["r1", "r1", str(classes / "dog" / "c.ogg")]


def test_csv_lists_a_missing_file_as_bad(classes):
    path = write_csv(classes, "path,label\ncat/a.wav,cat\ncat/gone.wav,cat\n")
    found = load_manifest(f"folder:{path}")
    assert len(found) == 1 and found.bad["reason"].tolist() == ["no such file"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sound,label\ncat/a.wav,cat\n", r"list\.csv: column 'path' is missing; columns present.*'sound', 'label'"),
        ("path,label\n", "has a header but no rows"),
        ("", "not a CSV that can be read"),
        ("path,label\nx/y.wav,cat\n", r"none of the 1 files it lists exists; the first would be .*x/y\.wav"),
        ("path,label,fold\ncat/a.wav,cat,one\n", r"list\.csv, line 2: fold 'one'"),
        ("path,label,split\ncat/a.wav,cat,mine\n", r"list\.csv, line 2: split 'mine' is not one of train, valid, test"),
        ("path,label\n,cat\n", r"list\.csv, line 2: the path is empty"),
    ],
)
def test_wrong_csv(classes, text, message):
    path = write_csv(classes, text)
    with pytest.raises(InputError, match=message):
        load_manifest(f"folder:{path}")


def test_an_unrelated_csv_beside_class_folders_is_left_alone(classes):
    write_csv(classes, "microphone,gain\nx,3\n", "devices.csv")
    assert len(load_manifest(f"folder:{classes}")) == 4


@pytest.mark.parametrize("text", ["microphone,gain\nx,3,4\n", ""])
def test_an_unrelated_csv_that_is_damaged_is_left_alone_and_a_damaged_list_is_not(classes, text):
    write_csv(classes, text, "devices.csv")
    assert len(load_manifest(f"folder:{classes}")) == 4
    for before, line in (("", 2), ("# my study\n", 3), ("\nsep=;\n", 4)):
        write_csv(classes, f"{before}Filename;microphone\ncat/a.wav;3;4\n", "devices.csv")
        with pytest.raises(InputError, match=rf"devices\.csv, line {line}: 3 values"):
            load_manifest(f"folder:{classes}")
        write_csv(classes, f"{before}cat/a.wav;x\ncat/a.wav;3;4\n", "devices.csv")
        with pytest.raises(InputError, match=rf"devices\.csv, line {line}: 3 values"):
            load_manifest(f"folder:{classes}")


def test_a_stretch_outside_its_file_costs_no_other(tmp_path):
    long, short = write(tmp_path / "long.wav", 2.0), write(tmp_path / "short.wav", 0.5)
    rows = [(long, 0, 0.5), (long, 2.5, 3), (long, 0.5, 1), (long, 0, 2), (short, 1, 2)]
    found = load_manifest(pd.DataFrame(rows, columns=["path", "start", "end"]))
    assert found.table[["start", "seconds"]].to_numpy().tolist() == [[0, 0.5], [0.5, 0.5], [0, 2]]
    assert found.notes == [
        f"outside their files, so left out: 1 of 5 stretches, the first {long}: 2 s long, but 2.5 to 3 s are listed",
        "1 of 2 files cannot be used and are left out",
    ]
    assert found.bad.to_numpy().tolist() == [[str(short), "0.5 s long, but 1 to 2 s are listed"]]
    table = pd.DataFrame(rows[:2], columns=["path", "start", "end"]).assign(label="x", fold=[1, 2])
    with pytest.raises(InputError, match="none of the files of fold 2 can be used; .*: the stretch is outside"):
        load_manifest(table)


def test_lines_of_json_may_hold_other_ends_of_lines(classes):
    rows = [{"path": f"{name}", "label": "x", "text": "a\u2028b"} for name in ("cat/a.wav", "dog/c.ogg")]
    path = classes / "list.jsonl"
    path.write_text("\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert len(load_manifest(f"folder:{path}")) == 2
    with path.open("a", newline="") as lines:
        lines.write("\r\n{path: 3}")
    with pytest.raises(InputError, match=r"list\.jsonl, line 3: not JSON"):
        load_manifest(f"folder:{path}")


def test_two_lists_in_a_folder(classes):
    for name in ("one.csv", "two.csv"):
        write_csv(classes, "path,label\ncat/a.wav,cat\n", name)
    with pytest.raises(InputError, match=r"several lists \(one\.csv, two\.csv\)"):
        load_manifest(f"folder:{classes}")


# --- ESC-50 -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def esc(tmp_path):
    """ESC-50's layout: ten clips, two cut from each of five recordings; one recoded, one missing."""
    root = tmp_path / "ESC-50-master"
    rows = []
    for number in range(10):
        fold, category = number // 2 + 1, ("dog", "rain")[number % 2]
        name = f"{fold}-{100 + number // 2}-{'AB'[number % 2]}-{number % 2}.wav"
        rows.append((name, fold, number % 2, category, number % 2 == 0, 100 + number // 2, "AB"[number % 2]))
        if number < 9:
            write((root / "audio" / name).with_suffix(".ogg" if number == 3 else ".wav"))
    (root / "meta").mkdir()
    columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "meta" / "esc50.csv", index=False)
    return root


@pytest.mark.parametrize("parent", [False, True])
def test_esc50(esc, parent):
    found = load_manifest(f"esc50:{esc.parent if parent else esc}")
    assert len(found) == 9 and found.classes == ["dog", "rain"]
    assert found.table["fold"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert found.table["group"].tolist()[:3] == ["100", "100", "101"]
    assert found.table["path"][3].endswith(".ogg")
    assert found.bad["reason"].tolist() == ["no such file"]


def test_esc10_is_the_flagged_subset(esc):
    found = load_manifest(f"esc10:{esc}")
    assert found.classes == ["dog"] and len(found) == 5


def test_esc50_is_found_in_the_data_folder(esc, monkeypatch):
    esc.rename(esc.parent / "esc50")
    monkeypatch.setenv("ASIT_LAB_DATA", str(esc.parent))
    assert len(load_manifest("esc50")) == 9 and len(load_manifest("esc10")) == 5


def test_esc50_without_its_meta_file(classes):
    with pytest.raises(InputError, match=r"meta/esc50\.csv not found in"):
        load_manifest(f"esc50:{classes}")


def test_esc50_with_a_column_missing(esc):
    meta = esc / "meta" / "esc50.csv"
    pd.read_csv(meta).drop(columns="src_file").to_csv(meta, index=False)
    with pytest.raises(InputError, match=r"esc50\.csv: column 'src_file' is missing; present: filename"):
        load_manifest(f"esc50:{esc}")


def test_esc50_with_a_fold_of_missing_clips(esc):
    for file in (esc / "audio").glob("5-*"):
        file.unlink()
    with pytest.raises(InputError, match=r"none of the files of fold 5 can be used; .*5-104.*: no such file"):
        load_manifest(f"esc50:{esc}")


def test_esc50_with_clips_that_its_meta_file_does_not_name(esc):
    write(esc / "audio" / "6-1-A-1.wav")
    assert load_manifest(f"esc10:{esc}").notes[0].startswith("1 audio files in ")


# --- Speech Commands --------------------------------------------------------------------------------------------------


@pytest.fixture
def words(tmp_path):
    """Speech Commands' layout: 20 speakers say four words; speakers 16, 17 are for validation, 18, 19 for the test."""
    root = tmp_path / "speech_commands_v0.01"
    lists = {"validation_list.txt": [], "testing_list.txt": []}
    for word in ("yes", "stop", "bed", "wow"):
        for speaker in range(20):
            name = f"{word}/{speaker:08x}_nohash_0.wav"
            write(root / name, seconds=0.1)
            if speaker >= 16:
                lists["validation_list.txt" if speaker < 18 else "testing_list.txt"].append(name)
    for name, lines in lists.items():
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def test_every_word_is_a_class(words):
    write(words / "_background_noise_" / "hum.wav", seconds=20.0)
    found = load_manifest(f"speech_commands:{words.parent}")
    assert found.classes == ["bed", "stop", "wow", "yes"] and len(found) == 80
    assert found.table["split"].value_counts().to_dict() == {"train": 64, "valid": 8, "test": 8}
    speakers = found.table.groupby("group")["split"].nunique()
    assert len(speakers) == 20 and (speakers == 1).all()
    assert found.notes == ["Speech Commands v1: 4 of its 30 words, 80 recordings"]


def test_words_of_the_second_version_are_recognised(words):
    write(words / "visual" / "00000001_nohash_0.wav", seconds=0.1)
    assert load_manifest(f"speech_commands:{words}").notes[0].startswith("Speech Commands v2: 5 of its 35 words")


def test_twelve_classes(words):
    write(words / "_background_noise_" / "hum.wav", seconds=20.0)
    write(words / "_background_noise_" / "rain.wav", seconds=30.0)
    found = load_manifest(f"speech_commands_v1:{words}")
    counts = found.table.groupby(["label", "split"]).size().to_dict()
    # A tenth of the 32, 4 and 4 recordings of the wanted words, rounded up, is 4, 1 and 1.
    for label, (train, valid, test) in {"yes": (16, 2, 2), "unknown": (4, 1, 1), "silence": (4, 1, 1)}.items():
        assert [counts[label, split] for split in ("train", "valid", "test")] == [train, valid, test]
    silence = found.table[found.table["label"] == "silence"]
    assert (silence["seconds"] == 1.0).all()
    for _, file in silence.groupby("path"):  # the splits of one background recording do not overlap in time
        ends = {split: (rows["start"].min(), rows["start"].max() + 1) for split, rows in file.groupby("split")}
        spans = [ends[split] for split in ("train", "valid", "test") if split in ends]
        assert all(earlier[1] <= later[0] + 1e-9 for earlier, later in zip(spans, spans[1:], strict=False))
    (split,) = splits(found.table)  # no recording is taken to be on both sides
    assert len(split.test) == sum(count for (_, part), count in counts.items() if part == "test")
    row = int(silence.index[-1])
    assert found.read(row, 16000).shape == (16000,)


def test_twelve_classes_without_background_noise(words):
    found = load_manifest(f"speech_commands_v1:{words}")
    assert found.classes == ["stop", "unknown", "yes"]
    assert "no class 'silence'" in found.notes[-1]


@pytest.mark.parametrize("name", ["validation_list.txt", "testing_list.txt"])
def test_speech_commands_without_an_official_list(words, name):
    (words / name).unlink()
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        load_manifest(f"speech_commands:{words}")


# --- The manifest itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 1.0])
def test_holdout_never_splits_a_recording(esc, share):
    found = load_manifest(f"esc50:{esc}")
    train, held = found.holdout(share)
    assert len(train) and len(held) and len(train) + len(held) == len(found)
    assert not set(train.table["group"]) & set(held.table["group"])
    again = found.subset(np.arange(len(found))[::-1]).holdout(share)[1]  # the order of the rows does not matter
    assert set(again.table["path"]) == set(held.table["path"])


def test_holdout_depends_on_the_seed_and_may_be_nothing():
    found = load_manifest("synth:100")
    assert set(found.holdout(0.3, seed=1)[1].table["path"]) != set(found.holdout(0.3, seed=2)[1].table["path"])
    train, held = found.holdout(0.0)
    assert len(train) == 100 and len(held) == 0
    with pytest.raises(InputError, match="holdout: 1.3"):
        found.holdout(1.3)


def test_subset_by_mask_and_by_numbers():
    found = load_manifest("synth:20")
    first = found.subset(found.table["fold"] == 1)
    assert first.table["path"].tolist() == found.subset(list(range(10))).table["path"].tolist()
    assert first.table.index.tolist() == list(range(10))
    with pytest.raises(InputError, match="a mask of 3 for a manifest of 20"):
        found.subset(np.array([True, False, True]))
    with pytest.raises(InputError, match="rows: -21 is not among the 20 rows"):
        found.subset([-21, 3])
