"""AudioSet: its lists, and its audio in the ways people have it, on a small tree of the same form."""

import zipfile

import numpy as np
import pytest
import soundfile

from asit_lab.data import load_manifest
from asit_lab.data.sources.audioset import video_ids
from asit_lab.errors import InputError

CLASSES = """index,mid,display_name
0,/m/09x0r,"Speech"
1,/m/05zppz,"Male speech, man speaking"
2,/m/04rlf,"Music"
3,/t/dd00136,"Whimper (dog)"
"""
HEAD = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=3, num_segs=3, num_unique_labels=4, num_positive_labels=5
# YTID, start_seconds, end_seconds, positive_labels
"""
BALANCED = """--aaaaaaaa1, 30.000, 40.000, "/m/09x0r,/m/05zppz"
Yaaaaaaaaa2, 0.000, 6.000, "/m/04rlf"
_aa-aaaa_a3, 100.000, 110.000, "/m/04rlf,/t/dd00136"
"""
UNBALANCED = """uuuuuuuuuu1, 10.000, 20.000, "/m/09x0r"
uuuuuuuuuu2, 10.000, 20.000, "/m/04rlf"
"""
EVAL = """eeeeeeeeee1, 30.000, 40.000, "/t/dd00136"
eeeeeeeeee2, 30.000, 40.000, "/m/09x0r"
"""
RATE = 1000


def write(path, seconds=10.0):
    """A recording whose loudness says at which second it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.arange(round(seconds * RATE)) // RATE / 256, RATE)


@pytest.fixture
def lists(tmp_path):
    root = tmp_path / "audioset"
    root.mkdir()
    (root / "class_labels_indices.csv").write_text(CLASSES)
    for name, rows in {"balanced_train": BALANCED, "unbalanced_train": UNBALANCED, "eval": EVAL}.items():
        (root / f"{name}_segments.csv").write_text(HEAD + rows)
    return root


@pytest.fixture
def audio(lists):
    """One clip in every common way of naming; eeeeeeeeee2 is missing, as clips of AudioSet are."""
    write(lists / "balanced_train_segments" / "--aaaaaaaa1.wav")
    write(lists / "balanced_train_segments" / "YYaaaaaaaaa2.flac", seconds=6.0)
    write(lists / "balanced_train_segments" / "_aa-aaaa_a3_100.000.wav", seconds=10.4)
    write(lists / "unbalanced_train_segments" / "part07" / "uuuuuuuuuu1_10000_20000.flac")
    write(lists / "videos" / "uuuuuuuuuu2.wav", seconds=25.0)
    write(lists / "eval_segments" / "Yeeeeeeeeee1_30.000_40.000.wav")
    write(lists / "eval_segments" / "somethingelse.wav")
    return lists


def test_the_balanced_task(audio):
    found = load_manifest(f"audioset_20k:{audio}")
    assert found.multi and found.classes == ["Speech", "Male speech, man speaking", "Music", "Whimper (dog)"]
    assert found.table["label"].tolist() == [
        "Speech;Male speech, man speaking",
        "Music",
        "Music;Whimper (dog)",
        "Whimper (dog)",
    ]
    assert found.table["split"].tolist() == ["train", "train", "train", "test"]
    assert found.table["group"].tolist() == ["--aaaaaaaa1", "Yaaaaaaaaa2", "_aa-aaaa_a3", "eeeeeeeeee1"]
    np.testing.assert_array_equal(found.targets(), [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1]])
    assert found.notes == [
        "balanced_train_segments.csv: 3 of 3 clips are present",
        "eval_segments.csv: 1 of 2 clips are present",
    ]
    assert load_manifest(f"audioset:{audio}").table.equals(found.table)


def test_the_full_task_has_both_training_lists(audio):
    found = load_manifest(f"audioset_2m:{audio}")
    assert found.table["group"].tolist()[:3] == ["uuuuuuuuuu1", "uuuuuuuuuu2", "--aaaaaaaa1"]
    assert found.table["split"].value_counts().to_dict() == {"train": 5, "test": 1}
    assert found.notes[0] == "unbalanced_train_segments.csv: 2 of 2 clips are present"


def test_cut_files_are_read_whole_and_videos_at_the_listed_stretch(audio):
    table = load_manifest(f"audioset_2m:{audio}").table.set_index("group")
    stretches = table[["start", "seconds"]].apply(tuple, axis=1).to_dict()
    assert stretches["--aaaaaaaa1"] == (0.0, 10.0)  # listed from 30 s on, but the file is the segment
    assert stretches["_aa-aaaa_a3"] == (0.0, 10.4)
    assert stretches["uuuuuuuuuu2"] == (10.0, 10.0)
    found = load_manifest(f"audioset_2m:{audio}")
    wave = found.read(found.table["group"].tolist().index("uuuuuuuuuu2"), RATE)
    assert len(wave) == 10 * RATE and wave[0] * 256 == pytest.approx(10, abs=0.1)
    assert wave[-1] * 256 == pytest.approx(19, abs=0.1)


def test_a_video_that_ends_before_or_within_its_segment(lists):
    write(lists / "eeeeeeeeee1.wav", seconds=35.0)
    write(lists / "eeeeeeeeee2.wav", seconds=20.0)
    found = load_manifest(f"audioset:{lists}")
    assert found.table[["start", "seconds"]].to_numpy().tolist() == [[30.0, 5.0]]
    assert found.bad["reason"].tolist() == ["20 s long, but 30 to 40 s are listed"]


@pytest.mark.parametrize(
    ("stem", "ids"),
    [
        ("abcdefghijk", ["abcdefghijk"]),
        ("Yabcdefghijk", ["abcdefghijk"]),
        ("Ybcdefghijk", ["Ybcdefghijk"]),
        ("abcdefghijk_30", ["abcdefghijk"]),
        ("abcdefghijk_30.000_40.000", ["abcdefghijk"]),
        ("Yabcdefghij_30", ["Yabcdefghij"]),
        ("Yabcdefghij_30_40", ["Yabcdefghij"]),
        ("YYbcdefghij__30_40", ["Ybcdefghij_"]),
        ("abcdefghijkl", []),
        ("abcdefghijk_dog", []),
        ("notes", []),
    ],
)
def test_names_of_files(stem, ids):
    assert video_ids(stem) == ids


def test_lists_and_audio_in_folders_of_their_own(audio):
    (audio / "csv").mkdir()
    for csv in audio.glob("*.csv"):
        csv.rename(audio / "csv" / csv.name)
    assert len(load_manifest(f"audioset:{audio}")) == 4


def test_a_clip_that_is_there_twice(audio):
    write(audio / "recoded" / "--aaaaaaaa1.flac")
    found = load_manifest(f"audioset:{audio}")
    assert len(found) == 4 and found.table["path"][0].endswith("balanced_train_segments/--aaaaaaaa1.wav")
    assert found.notes[-1] == "1 clips are present more than once; the first file of each is taken"


def test_folders_behind_links_are_found_and_circles_are_not_followed(audio, tmp_path):
    (audio / "eval_segments").rename(tmp_path / "elsewhere")
    (audio / "eval_segments").symlink_to(tmp_path / "elsewhere")
    (audio / "balanced_train_segments" / "up").symlink_to(audio)
    assert load_manifest(f"audioset:{audio}").table["split"].tolist() == ["train"] * 3 + ["test"]


# --- What is wrong with a copy ----------------------------------------------------------------------------------------


def test_none_of_the_clips(lists):
    write(lists / "dog.wav")
    (lists / "--aaaaaaaa1.m4a").write_bytes(b"x")
    with pytest.raises(InputError, match=r"none of the 5 clips .* 1 more are present as \.m4a, which cannot be read"):
        load_manifest(f"audioset:{lists}")


def test_a_note_on_clips_in_a_format_that_cannot_be_read(audio):
    (audio / "eval_segments" / "eeeeeeeeee2.webm").write_bytes(b"x")
    (audio / "eval_segments" / "eeeeeeeeee1.webm").write_bytes(b"x")  # this one is there as WAV too
    assert load_manifest(f"audioset:{audio}").notes[-1].startswith("1 more are present as .webm")


@pytest.mark.parametrize(
    "name", ["class_labels_indices.csv", "balanced_train_segments.csv", "unbalanced_train_segments.csv"]
)
def test_a_missing_list_is_named_with_its_address(audio, name):
    (audio / name).unlink()
    with pytest.raises(InputError, match=rf"{name} not found in .* published at http://storage.*/{name}"):
        load_manifest(f"audioset_2m:{audio}")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('#NAME?, 30.000, 40.000, "/m/09x0r"', r"line 7: .#NAME.* is not YTID"),
        ('abcdefghijk, 40.000, 30.000, "/m/09x0r"', "line 7: .* is not YTID, start_seconds"),
        ('abcdefghijk, thirty, 40.000, "/m/09x0r"', "line 7: .* is not YTID"),
        ("abcdefghijk, 30.000, 40.000", "line 7: .* is not YTID"),
        ("abcdefghijk, 30.000, 40.000, /m/09x0r,/m/04rlf", 'line 7: .* is not YTID.*"mid,mid"'),
        ('abcdefghijk, 30.000, 40.000, "/m/09x0r,/m/nothing"', "line 7: label '/m/nothing' is not one of the 4 in"),
    ],
)
def test_a_damaged_row_is_named(audio, row, message):
    with open(audio / "balanced_train_segments.csv", "a") as file:
        file.write(row + "\n")
    with pytest.raises(InputError, match=message):
        load_manifest(f"audioset:{audio}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,mid,display_name\n", "lists no classes"),
        ("index,mid,display_name\n1,/m/09x0r,Speech\n", r"line 2: '1,/m/09x0r,Speech' is not 0,MID,DISPLAY NAME"),
        ("index,mid,display_name\n0,/m/a,Speech\n1,/m/b,Speech\n", "line 3: .* that are new"),
        ("index,mid,display_name\n0,/m/a,Speech; talk\n", "line 2: the name 'Speech; talk' is empty or contains ';'"),
    ],
)
def test_a_damaged_list_of_classes(audio, text, message):
    (audio / "class_labels_indices.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load_manifest(f"audioset:{audio}")


def test_a_list_that_is_no_text(audio):
    (audio / "eval_segments.csv").write_bytes(b"\xff\xfe\x00PK")
    with pytest.raises(InputError, match=r"eval_segments\.csv: not a CSV that can be read"):
        load_manifest(f"audioset:{audio}")


def test_an_archive_instead_of_the_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "audioset.zip", "w") as packed:
        packed.writestr("eval_segments.csv", EVAL)
    with pytest.raises(InputError, match=r"audioset\.zip is an archive: unpack it"):
        load_manifest(f"audioset_2m:{tmp_path / 'audioset.zip'}")


def test_without_a_path_it_is_found_or_its_user_told_where_it_comes_from(audio, tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_DATA", str(tmp_path))
    assert len(load_manifest("audioset_20k")) == 4
    monkeypatch.setenv("ASIT_LAB_DATA", str(tmp_path / "empty"))
    with pytest.raises(InputError, match=r"research\.google\.com/audioset.*YouTube; then give .*audioset_20k:PATH"):
        load_manifest("audioset_20k")
