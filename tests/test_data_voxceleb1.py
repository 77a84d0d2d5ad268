"""VoxCeleb1's identification task on a small tree of the same form."""

import zipfile

import numpy as np
import pytest
import soundfile

from asit_lab.data import load_manifest
from asit_lab.errors import InputError

LINES = """3 id10003/na8-QEFmj44/00003.wav
1 id10003/tCq2LcKO6xY/00002.wav
1 id10003/tCq2LcKO6xY/00005.wav
2 id10003/K5zRxtXc27s/00001.wav
1 id10270/5r0dWxy17C8/00001.wav
2 id10270/OBmX0bDa1Ug/00001.wav
3 id10270/x6uYqmx31kE/00001.wav
"""


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 4000), 8000)


@pytest.fixture
def vox(tmp_path):
    """id10003 in the development archive's folder, id10270 (a speaker of the verification test) in the other's."""
    root = tmp_path / "voxceleb1"
    for line in LINES.splitlines():
        name = line[2:]
        write(root / ("dev" if "id10003" in name else "test") / "wav" / name)
    write(root / "dev" / "wav" / "id10003" / "unlisted000" / "00001.wav")
    (root / "iden_split.txt").write_text(LINES)
    return root


def test_every_listed_utterance_is_where_the_list_says(vox):
    found = load_manifest(f"voxceleb1:{vox}")
    parts = {"1": "train", "2": "valid", "3": "test"}
    listed = {line[2:]: (parts[line[0]], line[2:9]) for line in LINES.splitlines()}
    table = found.table
    got = {"/".join(row.path.split("/")[-3:]): (row.split, row.label) for row in table.itertuples()}
    assert got == listed and len(table) == 7
    assert found.classes == ["id10003", "id10270"] and not found.multi
    assert table["group"].tolist()[:3] == ["id10003/na8-QEFmj44", "id10003/tCq2LcKO6xY", "id10003/tCq2LcKO6xY"]
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert found.notes[0] == "train: 3 of the 3 utterances in iden_split.txt are present"


def test_the_official_parts_are_accepted_by_the_protocols(vox):
    from asit_lab.evaluation.splits import splits

    (split,) = splits(load_manifest(f"voxceleb1:{vox}").table)
    assert (len(split.train), len(split.valid), len(split.test)) == (3, 2, 2)


def test_a_list_with_a_video_in_two_parts_is_followed_all_the_same(vox):
    from asit_lab.evaluation.splits import splits

    text = LINES.replace("1 id10003/tCq2LcKO6xY/00005", "2 id10003/tCq2LcKO6xY/00005")
    (vox / "iden_split.txt").write_text(text)
    found = load_manifest(f"voxceleb1:{vox}")
    assert found.notes[-1].startswith("iden_split.txt has 1 videos in two parts (id10003/tCq2LcKO6xY)")
    assert found.table["group"].tolist() == found.table["path"].tolist()
    assert len(splits(found.table)[0].valid) == 3


def test_recoded_and_missing_utterances(vox):
    wav = vox / "dev" / "wav" / "id10003"
    (wav / "na8-QEFmj44" / "00003.wav").unlink()
    write(wav / "na8-QEFmj44" / "00003.flac")
    (wav / "tCq2LcKO6xY" / "00002.wav").unlink()
    (wav / "tCq2LcKO6xY" / "00005.wav").rename(wav / "tCq2LcKO6xY" / "00005.m4a")
    found = load_manifest(f"voxceleb1:{vox}")
    assert len(found) == 5 and found.table["path"][0].endswith("00003.flac")
    assert found.notes[0] == "train: 1 of the 3 utterances in iden_split.txt are present"
    assert found.notes[-1].startswith("1 more are present as .m4a, which cannot be read: convert")


def test_speakers_without_a_recording_stay_classes(vox):
    (vox / "iden_split.txt").write_text(LINES + "1 id11251/abc/00001.wav\n")
    assert load_manifest(f"voxceleb1:{vox}").classes == ["id10003", "id10270", "id11251"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("4 id10003/na8/00001.wav", r"iden_split\.txt, line 8: '4 id10003/na8/00001\.wav' is not '1\|2\|3 SPEAKER"),
        ("1 id10003/00001.wav", "line 8: .* is not"),
        ("id10003/na8/00001.wav", "line 8: .* is not"),
        ("2 id10003/tCq2LcKO6xY/00002.wav", "line 8: id10003/tCq2LcKO6xY/00002 is listed twice"),
    ],
)
def test_a_damaged_line_is_named(vox, line, message):
    (vox / "iden_split.txt").write_text(LINES + line + "\n")
    with pytest.raises(InputError, match=message):
        load_manifest(f"voxceleb1:{vox}")


def test_an_empty_list(vox):
    (vox / "iden_split.txt").write_text("\n")
    with pytest.raises(InputError, match="lists no utterances"):
        load_manifest(f"voxceleb1:{vox}")


def test_none_of_the_utterances(vox):
    (vox / "iden_split.txt").write_text("1 id19999/abc/00001.wav\n")
    with pytest.raises(InputError, match=r"none of the 1 utterances of .* SPEAKER/VIDEO/NUMBER\.wav"):
        load_manifest(f"voxceleb1:{vox}")


def test_without_the_list(vox):
    (vox / "iden_split.txt").unlink()
    with pytest.raises(InputError, match=r"iden_split\.txt not found in .* published at https://www\.robots"):
        load_manifest(f"voxceleb1:{vox}")


def test_an_archive_instead_of_the_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "vox1_dev_wav.zip", "w") as packed:
        packed.writestr("wav/id10003/a/00001.wav", b"x")
    with pytest.raises(InputError, match=r"vox1_dev_wav\.zip is an archive: unpack it"):
        load_manifest(f"voxceleb1:{tmp_path / 'vox1_dev_wav.zip'}")


def test_without_a_path_its_user_is_told_where_it_comes_from(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"voxceleb1 does not exist.*its authors give the audio on request"):
        load_manifest("voxceleb1")
