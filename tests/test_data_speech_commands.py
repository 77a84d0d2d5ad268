"""Both readers of Speech Commands against its official lists: thirty words, lists that name more than is there."""

import shutil

import numpy as np
import pytest
import soundfile

from asit_lab.data import load_manifest
from asit_lab.data.sources.speech_commands import TEN_WORDS
from asit_lab.errors import InputError

OTHERS = (
    *("bed", "bird", "cat", "dog", "eight", "five", "four", "happy", "house", "marvin"),
    *("nine", "one", "seven", "sheila", "six", "three", "tree", "two", "wow", "zero"),
)
PARTS = ("train", "train", "train", "test", "valid", "train", "test", "train", "valid", "train")  # of ten recordings
LIST_OF = {"valid": "validation_list.txt", "test": "testing_list.txt"}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """(root, {"word/file.wav": part}): 300 recordings, ten of every word of version 1."""
    root = tmp_path_factory.mktemp("speech_commands")
    soundfile.write(root / "word.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 1600), 16000)
    part_of = {}
    for number, word in enumerate(TEN_WORDS + OTHERS):
        (root / word).mkdir()
        for speaker in range(10):
            name = f"{word}/{speaker + number:08x}_nohash_{speaker % 3}.wav"
            shutil.copy(root / "word.wav", root / name)
            part_of[name] = PARTS[(speaker + number) % 10]
    for part, file in LIST_OF.items():
        listed = [name for name, one in part_of.items() if one == part]
        absent = [f"{word}/ffff{part[:2].encode().hex()}{n:02x}_nohash_0.wav" for n, word in enumerate(OTHERS)]
        (root / file).write_text("\n".join(absent + listed[::-1]) + "\n")
    return root, part_of


def rows(found):
    return {"/".join(row.path.split("/")[-2:]): (row.label, row.split) for row in found.table.itertuples()}


def test_every_recording_is_in_the_part_that_the_lists_say(official):
    root, part_of = official
    found = load_manifest(f"speech_commands:{root}")
    assert len(found) == 300 and len(found.classes) == 30
    assert rows(found) == {name: (name.split("/")[0], part) for name, part in part_of.items()}
    assert found.notes[1:] == [
        "validation_list.txt: 60 of 80 recordings are present",
        "testing_list.txt: 60 of 80 recordings are present",
    ]


def test_the_twelve_classes_keep_to_the_lists_too(official):
    root, part_of = official
    found = load_manifest(f"speech_commands_v1:{root}")
    got = rows(found)
    assert len(got) == len(found)  # none twice
    assert {name: part for name, (_, part) in got.items()} == {name: part_of[name] for name in got}
    ten = {name: label for name, (label, _) in got.items() if label != "unknown"}
    assert ten == {name: name.split("/")[0] for name in part_of if name.split("/")[0] in TEN_WORDS}
    unknown = [(name, part) for name, (label, part) in got.items() if label == "unknown"]
    assert all(name.split("/")[0] in OTHERS for name, _ in unknown)
    # A tenth of the ten words' 60, 20 and 20 recordings.
    assert sorted(part for _, part in unknown) == ["test"] * 2 + ["train"] * 6 + ["valid"] * 2
    assert "class 'unknown': 10 of the 200 recordings of other words" in found.notes


@pytest.mark.parametrize("kind", ["speech_commands", "speech_commands_v1"])
@pytest.mark.parametrize(("part", "purpose"), [("valid", "validate on"), ("test", "test on")])
def test_a_list_of_other_recordings(official, tmp_path, kind, part, purpose):
    root = tmp_path / "copy"
    for name, one in official[1].items():
        if one != part and name.startswith(("yes/", "bed/")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(official[0] / name, root / name)
    for file in LIST_OF.values():
        shutil.copy(official[0] / file, root / file)
    with pytest.raises(InputError, match=rf"none of the 80 recordings in .*{LIST_OF[part]}.*nothing to {purpose}"):
        load_manifest(f"{kind}:{root}")


def test_a_recording_in_both_lists(tmp_path):
    for file in LIST_OF.values():
        (tmp_path / file).write_text("yes/00000000_nohash_0.wav\n")
    with pytest.raises(InputError, match=r"testing_list\.txt: yes/00000000_nohash_0\.wav is in the other official"):
        load_manifest(f"speech_commands:{tmp_path}")
