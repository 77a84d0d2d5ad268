"""Folders, tables and shards as people have them: what is taken for what, and that it is said."""

import io
import json
import os
import shutil
import tarfile

import numpy as np
import pandas as pd
import pytest
import soundfile

from asit_lab.audio.state import file_state
from asit_lab.data import load_manifest
from asit_lab.data.sources.shards import write_shards
from asit_lab.errors import InputError
from asit_lab.evaluation.provenance import files_stamp


def write(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, 4000), 8000)
    return path


def listed(manifest):
    """Sorted (name, label, fold, split, group) of a manifest's rows."""
    columns = manifest.table[["path", "label", "fold", "split", "group"]]
    return sorted(
        (os.path.basename(path), label, None if fold is pd.NA else fold, None if split is pd.NA else split, group)
        for path, label, fold, split, group in columns.itertuples(index=False)
    )


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_splits_above_class_folders(tmp_path):
    for part, name in (("Train", "dog"), ("Train", "cat"), ("val", "dog"), ("test", "cat")):
        write(tmp_path / part / name / "a.wav")
    manifest = load_manifest(f"folder:{tmp_path}")
    assert manifest.classes == ["cat", "dog"]
    assert manifest.table["split"].tolist() == ["train", "train", "test", "valid"]
    assert manifest.notes == ["the folders Train, test, val are taken for splits, with 2 class folders below them"]


@pytest.mark.parametrize("names", [("fold1", "fold2"), ("fold_1", "fold_2"), ("Fold-1", "Fold-2")])
def test_folds_above_class_folders_and_below_a_folder_of_audio(tmp_path, names):
    for fold in names:
        for name in ("dog", "cat"):
            write(tmp_path / "audio" / fold / name / "a.wav")
    manifest = load_manifest(f"folder:{tmp_path}")
    assert manifest.classes == ["cat", "dog"] and manifest.table["fold"].tolist() == [1, 1, 2, 2]


def test_splits_without_classes(tmp_path):
    for part in ("train", "test"):
        write(tmp_path / part / "a.wav")
    manifest = load_manifest(f"folder:{tmp_path}")
    assert manifest.classes == [] and set(manifest.table["split"]) == {"train", "test"}
    assert "no classes below" in manifest.notes[0]


def test_a_class_called_train_beside_others_is_a_class(tmp_path):
    for name in ("train", "bus"):
        write(tmp_path / name / "a.wav")
    assert load_manifest(f"folder:{tmp_path}").classes == ["bus", "train"]


def test_formats_that_nothing_reads_are_listed(tmp_path):
    write(tmp_path / "dog" / "a.wav")
    (tmp_path / "bird").mkdir()
    (tmp_path / "bird" / "b.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(3000))
    manifest = load_manifest(f"folder:{tmp_path}")
    assert len(manifest.bad) == 1 and manifest.bad["path"][0].endswith("b.m4a")
    assert manifest.notes == ["1 of 2 files cannot be used and are left out"]


def test_hugging_face_audiofolder(tmp_path):
    for part in ("train", "test"):
        for name in ("a", "b"):
            write(tmp_path / part / f"{name}.wav")
        (tmp_path / part / "metadata.csv").write_text("file_name,label\na.wav,dog\nb.wav,cat\n")
    manifest = load_manifest(f"folder:{tmp_path}")
    assert manifest.classes == ["cat", "dog"] and sorted(manifest.table["split"]) == ["test", "test", "train", "train"]
    for part in ("train", "test"):
        (tmp_path / part / "metadata.csv").unlink()
    lines = [json.dumps({"file_name": f"train/{name}.wav", "label": name}) for name in "ab"]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert load_manifest(f"folder:{tmp_path}").classes == ["a", "b"]


def test_kaldi(tmp_path):
    write(tmp_path / "one.wav")
    write(tmp_path / "two.wav")
    (tmp_path / "wav.scp").write_text("r1 one.wav\nr2 two.wav\nr3 sox x.wav -t wav - |\n")
    (tmp_path / "utt2spk").write_text("u1 anna\nu2 anna\nu3 ben\n")
    (tmp_path / "utt2lang").write_text("u1 de\nu2 de\nu3 fr\n")
    (tmp_path / "segments").write_text("u1 r1 0.0 0.2\nu2 r1 0.2 0.4\nu3 r2 0.1 0.5\n")
    manifest = load_manifest(f"folder:{tmp_path}")
    assert [row[:2] + row[4:] for row in listed(manifest)] == [
        ("one.wav", "de", "anna"),
        ("one.wav", "de", "anna"),
        ("two.wav", "fr", "ben"),
    ]
    np.testing.assert_allclose(manifest.table["seconds"], [0.2, 0.2, 0.4])


def test_a_wrong_line_of_kaldi_is_named_where_lines_are_blank(tmp_path):
    write(tmp_path / "one.wav")
    (tmp_path / "wav.scp").write_text("r1 one.wav\n")
    (tmp_path / "segments").write_text("\n\nu1 r1 0.0 0.2\n\nu2 r1 x 0.4\n")
    with pytest.raises(InputError, match="segments, line 5: expected utterance"):
        load_manifest(f"folder:{tmp_path}")


def test_fairseq_list(tmp_path):
    write(tmp_path / "clips" / "a.wav")
    (tmp_path / "train.tsv").write_text(f"{tmp_path / 'clips'}\na.wav\t4000\n")
    assert len(load_manifest(f"folder:{tmp_path / 'train.tsv'}")) == 1


def test_parquet_with_sounds_inside(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))
    sounds = [{"bytes": write(tmp_path / f"{n}.wav", n).read_bytes(), "path": f"{n}.wav"} for n in range(3)]
    features = {"audio": {"_type": "Audio"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    own_paths = [f"clips/{n}.mp3" for n in range(3)]  # of files elsewhere, as in Common Voice
    table = pa.table({"path": own_paths, "audio": sounds, "label": [0, 1, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    for part in ("train", "test"):
        (tmp_path / "set").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "set" / f"{part}-00000-of-00001.parquet")
    manifest = load_manifest(f"folder:{tmp_path / 'set'}")
    assert manifest.table["label"].tolist() == 2 * ["cat", "dog", "cat"]
    assert manifest.table["split"].tolist() == 3 * ["test"] + 3 * ["train"]
    np.testing.assert_array_equal(manifest.read(1, 8000), soundfile.read(tmp_path / "1.wav", dtype="float32")[0])


# --- Tables -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path):
    for seed, name in enumerate(("a.wav", "b.wav", "in/c.wav")):
        write(tmp_path / name, seed)
    return tmp_path


def table(folder, text, encoding="utf-8", name="list.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return load_manifest(f"folder:{folder / name}")


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.wav,dog\nb.wav,cat\nin/c.wav,dog\n",
        "\ufeffpath,label,\r\na.wav,dog,\r\nb.wav,cat,,\r\nin/c.wav,dog\r\n",
        "path;label\na.wav;dog\nb.wav;cat\nin/c.wav;dog\n",
        "Filename\tClass\na.wav\tdog\nb.wav\tcat\nc.wav\tdog\n",
        "file,category\na,dog\nb,cat\nc,dog\n",
        'filepath, species\n"a.wav", dog\nb.wav, cat\nin\\c.wav, dog\n',
        "path,label\na.wav,dog\nb.wav,cat\n\nin/c.wav,dog\na.wav,dog\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_spellings_of_one_table(clips, text, encoding):
    manifest = table(clips, text, encoding)
    assert [row[:2] for row in listed(manifest)] == [("a.wav", "dog"), ("b.wav", "cat"), ("c.wav", "dog")]


def test_other_names_of_columns_are_taken_and_said(clips):
    manifest = table(clips, "path,label,speaker,subset,flod\na.wav,dog,anna,train,1\nb.wav,cat,ben,dev,2\n")
    assert listed(manifest) == [("a.wav", "dog", None, "train", "anna"), ("b.wav", "cat", None, "valid", "ben")]
    assert [note.split(": ", 1)[1] for note in manifest.notes] == [
        "column 'subset' is taken as 'split'",
        "column 'speaker' is taken as 'group'",
        "column 'flod' is not used; did you mean 'fold'?",
    ]


def test_a_class_with_a_comma_and_several_labels(clips):
    assert table(clips, 'path,label\na.wav,"Dog,Bark"\nb.wav,cat\n').classes == ["Dog,Bark", "cat"]
    several = table(clips, 'path,labels\na.wav,"Dog,Bark"\nb.wav,Dog\n')
    assert several.multi and several.classes == ["Bark", "Dog"]
    assert "divided at ','" in several.notes[0]


def test_stretches_of_a_file(clips):
    manifest = table(clips, "path,label,start,end\na.wav,dog,0.1,0.3\na.wav,cat,0.3,0.5\n")
    assert manifest.table["start"].tolist() == [0.1, 0.3] and len(manifest.classes) == 2


def test_a_start_alone_goes_on_to_the_end(clips):
    manifest = table(clips, "path,label,start\na.wav,dog,0\na.wav,dog,0.2\nb.wav,cat,\n")
    seconds = manifest.table["seconds"].tolist()
    assert manifest.table["start"].tolist() == [0, 0.2, 0] and manifest.notes == []
    assert seconds[1] == pytest.approx(seconds[0] - 0.2)
    (path,) = set(table(clips, "path,label,start\na.wav,dog,90\nb.wav,cat,0\n").bad["path"])
    assert path.endswith("a.wav")


def test_the_time_of_day_is_no_start(clips):
    manifest = table(clips, "path,label,start_time\na.wav,dog,06:30\nb.wav,cat,18:15\n")
    assert manifest.table["start"].tolist() == [0, 0]
    assert "2 of its starts are no numbers of seconds" in manifest.notes[-1]


def test_accents_in_two_forms(tmp_path):
    write(tmp_path / "caf\u00e9.wav")
    write(tmp_path / "b.wav")
    manifest = table(tmp_path, "path,label\ncafe\u0301.wav,ge\u0301\nb.wav,g\u00e9\n")
    assert len(manifest) == 2 and manifest.classes == ["g\u00e9"]


def test_names_and_tables_that_are_not_utf8(tmp_path):
    write(tmp_path / "b.wav").rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    manifest = table(tmp_path, "path,label\ncaf\u00e9.wav,g\u00e9\n", "cp1252")
    assert len(manifest) == 1 and manifest.classes == ["g\u00e9"] and "Windows-1252" in manifest.notes[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\na.wav,Dog,Bark\n", r"line 2: 3 values for 2 columns; put a value"),
        ("path,label\na.wav,dog\nb.wav,cat\na.wav,cat\n", r"line 4: a\.wav has the label 'cat', but 'dog' in line 2"),
        (b"path,label\na.wav,do\0g\n", r"line 2: has a NUL byte"),
        ("path,path,label\na.wav,a.wav,dog\n", "column 'path' occurs more than once"),
        ('path,label\na.wav,"dog\n', r"line 2: not a CSV that can be read"),
        ("path,label,start,end\na.wav,dog,half,2\n", r"line 2: start 'half' is not a number of seconds"),
        ("path,label,start,end\na.wav,dog,0.4,0.2\n", r"line 2: .* is no stretch of a file"),
    ],
)
def test_one_sentence_with_the_row(clips, text, words):
    with pytest.raises(InputError, match=words):
        table(clips, text)


def test_a_list_without_labels_is_for_pretraining(clips):
    assert table(clips, "path\na.wav\nb.wav\n").classes == []


def test_frames_lists_and_manifests_in_python(clips):
    frame = pd.DataFrame({"file": [clips / "a.wav", str(clips / "b.wav")], "label": ["dog", None], "fold": [1, 2]})
    manifest = load_manifest(frame)
    assert listed(manifest)[0][:3] == ("a.wav", "dog", 1) and manifest.source.startswith("table:")
    assert load_manifest(manifest) is manifest
    assert len(load_manifest([clips / "a.wav", str(clips / "b.wav")])) == 2
    for wrong, words in (([], "found 'an empty list'"), ([3], "found 3")):
        with pytest.raises(InputError, match=words):
            load_manifest(wrong)


def test_a_null_among_labels_is_no_class(clips):
    rows = [{"path": "a.wav", "labels": ["dog", None]}, {"path": "b.wav", "labels": [None, ""]}]
    (clips / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    manifest = load_manifest(f"folder:{clips / 'list.jsonl'}")
    assert manifest.classes == ["dog"] and manifest.table["label"].fillna("").tolist() == ["dog", ""]


@pytest.mark.parametrize(
    "name", ["with space.wav", "a#b[1].wav", "quo\"te's.wav", "\U0001f415.wav", "CON.wav", "x" * 246 + ".wav", "-n.wav"]
)
def test_names(tmp_path, name, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))
    write(tmp_path / "set" / "dog" / name)
    manifest = load_manifest(f"folder:{tmp_path / 'set'}")
    assert len(manifest) == 1 and not len(manifest.bad)
    assert len(load_manifest([tmp_path / "set" / "dog" / name])) == 1


# --- Shards -----------------------------------------------------------------------------------------------------------


def test_shards_hold_the_same_data_set(clips, tmp_path):
    text = "path,label,fold,split,group\na.wav,dog,1,train,r1\nb.wav,cat,2,test,r2\nin/c.wav,dog,1,train,r1\n"
    before = table(clips, text)
    shards = write_shards(before, tmp_path / "shards", megabytes=0.01)
    assert len(shards) > 1
    after = load_manifest(f"shards:{tmp_path / 'shards'}")
    columns = ["label", "fold", "split", "group", "start", "seconds", "sample_rate", "channels"]
    pd.testing.assert_frame_equal(before.table[columns], after.table[columns])
    for row in range(3):
        np.testing.assert_array_equal(before.read(row, 16000), after.read(row, 16000))
    with pytest.raises(InputError, match="has shards already"):
        write_shards(before, tmp_path / "shards")


def test_shards_keep_a_stretch_that_ends_before_its_file(clips, tmp_path):
    before = table(clips, "path,label,start,end\na.wav,dog,0,0.25\nb.wav,cat,0,0.5\n")
    write_shards(before, tmp_path / "shards")
    after = load_manifest(f"shards:{tmp_path / 'shards'}")
    assert after.table["seconds"].tolist() == before.table["seconds"].tolist() == [0.25, 0.5]


def test_shards_keep_the_segments_of_a_recording_whose_end_is_left_out(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).normal(0, 0.1, 700_000), 8000)  # 87.5 s
    before = load_manifest(pd.DataFrame({"path": [tmp_path / "long.wav"], "start": [0.0], "end": [80.0]}))
    write_shards(before, tmp_path / "shards")
    after = load_manifest(f"shards:{tmp_path / 'shards'}")
    for name in ("start", "seconds"):
        assert after.table[name].tolist() == before.table[name].tolist() and len(after) == 2
    assert after.table["group"].nunique() == 1
    assert (tmp_path / "shards" / "shard-000000.tar").stat().st_size < 1.1 * (tmp_path / "long.wav").stat().st_size


def test_stretches_of_one_file_are_one_group_in_shards(clips, tmp_path):
    write_shards(
        table(clips, "path,label,start,end\na.wav,dog,0,0.2\na.wav,cat,0.2,0.4\nb.wav,cat,0,0.5\n"), tmp_path / "shards"
    )
    groups = load_manifest(f"shards:{tmp_path / 'shards'}").table["group"].tolist()
    assert groups[0] == groups[1] != groups[2]


def test_shards_that_are_written_again_are_other_data(tmp_path):
    """Their members keep names and sizes, so the time of the shard tells."""
    stamps, states = [], []
    for seed in (1, 2):
        shutil.rmtree(tmp_path / "shards", ignore_errors=True)
        write_shards(load_manifest([write(tmp_path / "x.wav", seed)]), tmp_path / "shards")
        manifest = load_manifest(f"shards:{tmp_path / 'shards'}")
        path = manifest.table["path"].iloc[0]
        os.utime(path.split("::")[0], (seed, seed))
        stamps.append(files_stamp(manifest))
        states.append((path, file_state(path)))
    assert states[0][0] == states[1][0] and states[0][1] != states[1][1] and stamps[0] != stamps[1]


@pytest.mark.parametrize(
    ("facts", "labels"),
    [
        (({"labels": ["dog", "rain"]}, {"label": ["dog"]}, {"labels": "rain"}), ["dog;rain", "dog", "rain"]),
        (({"label": "dog", "labels": ["dog", "rain"]}, {"label": "cat", "labels": ["cat"]}), ["dog;rain", "cat"]),
        (({"label": "dog", "labels": None}, {"class": "cat", "labels": None}), ["dog", "cat"]),
    ],
)
def test_shards_with_several_labels_a_clip(clips, tmp_path, facts, labels):
    with tarfile.open(tmp_path / "x.tar", "w") as members:
        for number, about in enumerate(facts):
            members.add(clips / "a.wav", f"{number}.wav")
            content = json.dumps(about).encode()
            member = tarfile.TarInfo(f"{number}.json")
            member.size = len(content)
            members.addfile(member, io.BytesIO(content))
    manifest = load_manifest(f"shards:{tmp_path / 'x.tar'}")
    assert manifest.table["label"].tolist() == labels and manifest.multi == ("dog;rain" in labels)
    assert manifest.classes == sorted({name for text in labels for name in text.split(";")})


def test_shards_of_others_and_cut_ones(clips, tmp_path):
    import tarfile

    (tmp_path / "x").mkdir()
    (clips / "a.cls").write_text("dog")
    with tarfile.open(tmp_path / "x" / "train-000.tar", "w") as members:
        members.add(clips / "a.wav", "k1.wav")
        members.add(clips / "a.cls", "k1.cls")
        members.add(clips / "b.wav", "k2.wav")
    manifest = load_manifest(f"shards:{tmp_path / 'x'}")
    assert manifest.table["label"].tolist() == ["dog", ""] and set(manifest.table["split"]) == {"train"}
    assert manifest.notes == ["1 of 2 clips in the shards have no label beside them"]
    content = (tmp_path / "x" / "train-000.tar").read_bytes()
    (tmp_path / "x" / "train-000.tar").write_bytes(content[: len(content) // 2])
    manifest = load_manifest(f"shards:{tmp_path / 'x'}")
    assert (
        manifest.table["label"].tolist() == ["dog"] and "is cut, so the rest is missing; 1 clips" in manifest.notes[0]
    )
    (tmp_path / "x" / "train-000.tar").write_bytes(content[:1000])
    with pytest.raises(InputError, match="not a shard that can be read, or cut"):
        load_manifest(f"shards:{tmp_path / 'x'}")


@pytest.fixture
def shard(tmp_path):
    """A shard of eight labelled clips."""
    rows = [{"path": write(tmp_path / f"{k}.wav", k), "label": "ab"[k % 2]} for k in range(8)]
    [path] = write_shards(load_manifest(pd.DataFrame(rows)), tmp_path / "shards")
    return path


def headers(content):
    """Where the headers of a shard's members are."""
    with tarfile.open(fileobj=io.BytesIO(content)) as members:
        return [member.offset for member in members]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.77, 0.9])
def test_a_cut_shard_is_used_up_to_the_cut(shard, share):
    content, full = shard.read_bytes(), load_manifest(f"shards:{shard}")
    places = headers(content)
    end = int(share * places[-1])
    shard.write_bytes(content[:end])
    whole = sum(place <= end for place in places[2::2])  # sounds whose labels are there, too
    manifest = load_manifest(f"shards:{shard}")
    assert 0 < whole == len(manifest) < 8
    assert manifest.notes == [f"{shard} is cut, so the rest is missing; {whole} clips in it are read"]
    assert manifest.table.equals(full.table[:whole])
    np.testing.assert_array_equal(manifest.read(whole - 1, 8000), full.read(whole - 1, 8000))


def test_a_damaged_header_costs_one_member(shard):
    content = bytearray(shard.read_bytes())
    for number in (0, 4, 9):  # two sounds, and a label
        content[headers(shard.read_bytes())[number] + 100] ^= 0xFF
    shard.write_bytes(content)
    manifest = load_manifest(f"shards:{shard}")
    assert manifest.table["label"].tolist() == ["b", "b", "", "b", "a", "b"]
    assert manifest.notes == [
        f"{shard} is damaged in 3 places; 6 clips in it are read",
        "1 of 6 clips in the shards have no label beside them",
    ]
    assert len(manifest.read(5, 8000)) == 4000


def test_a_shard_that_is_none_beside_good_ones(shard):
    (shard.parent / "text.tar").write_bytes(b"no shard at all " * 200)
    (shard.parent / "tiny.tar").write_bytes(b"x")
    manifest = load_manifest(f"shards:{shard.parent}")
    assert len(manifest) == 8 and manifest.notes == [
        f"{shard.parent / name}.tar is not a shard that can be read, or cut" for name in ("text", "tiny")
    ]
    for number in range(6):
        (shard.parent / f"{number}.tar").write_bytes(b"x" * 600)
    assert load_manifest(f"shards:{shard.parent}").notes[-1] == "3 more shards are cut or damaged"


def test_two_shards_joined_are_read_both(shard):
    shard.write_bytes(2 * shard.read_bytes())
    manifest = load_manifest(f"shards:{shard}")
    assert len(manifest) == 16 and manifest.notes == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ('{"start": NaN, "seconds": 1}', "start nan, seconds 1: no number, or no stretch"),
        ('{"start": -5, "seconds": 1}', "start -5, seconds 1: no number, or no stretch"),
        ('{"start": 0, "seconds": -1}', "start 0, seconds -1: no number, or no stretch"),
        ('{"fold": Infinity}', "fold inf, start None"),
        ("[" * 100_000, None),
    ],
)
def test_facts_of_a_shard_that_are_none(tmp_path, facts, words):
    with tarfile.open(tmp_path / "a.tar", "w") as members:
        for name, content in (("a.wav", write(tmp_path / "x.wav").read_bytes()), ("a.json", facts.encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            members.addfile(member, io.BytesIO(content))
    if words is None:
        assert "1 members .json of shards cannot be read" in load_manifest(f"shards:{tmp_path / 'a.tar'}").notes[0]
        return
    with pytest.raises(InputError, match=words):
        load_manifest(f"shards:{tmp_path / 'a.tar'}")


def test_lists_that_are_nested_without_end(tmp_path):
    write(tmp_path / "a.wav")
    deep = "[" * 100_000 + "]" * 100_000
    (tmp_path / "a.csv").write_text(f"path,labels\na.wav,{'[' * 500 + ']' * 500}\n")
    assert len(load_manifest(f"folder:{tmp_path / 'a.csv'}")) == 1
    for text in (deep, '{"path": ' + deep + "}"):
        (tmp_path / "a.jsonl").write_text(text)
        with pytest.raises(InputError, match=r"a\.jsonl.*: not JSON"):
            load_manifest(f"folder:{tmp_path / 'a.jsonl'}")


@pytest.mark.parametrize("name", ["data.csv", "metadata.csv", "x.tsv", "x.parquet", "wav.scp"])
def test_a_folder_called_like_a_list(tmp_path, name):
    write(tmp_path / name / "a.wav")
    assert load_manifest(f"folder:{tmp_path}").table["label"].tolist() == [name]


@pytest.mark.parametrize("times", ["nan 1", "0 nan", "-1 1", "inf inf"])
def test_times_of_kaldi_that_are_none(tmp_path, times):
    write(tmp_path / "a.wav")
    (tmp_path / "wav.scp").write_text("r a.wav\n")
    (tmp_path / "segments").write_text(f"u r {times}\n")
    with pytest.raises(InputError, match="segments, line 1: expected utterance, recording, start and end"):
        load_manifest(f"folder:{tmp_path}")


def test_a_cut_table_is_one_sentence(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))
    sounds = [{"bytes": write(tmp_path / "x.wav", k).read_bytes(), "path": f"{k}.wav"} for k in range(20)]
    table = pa.table({"audio": sounds, "label": ["a", "b"] * 10})
    pq.write_table(table, tmp_path / "whole.parquet", row_group_size=5, compression="snappy")
    with pa.OSFile(str(tmp_path / "whole.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=5)
    for suffix in ("parquet", "arrow"):
        content = (tmp_path / f"whole.{suffix}").read_bytes()
        spoilt = bytearray(content)
        spoilt[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
        cut = {f"{share}": content[: int(share * len(content))] for share in (0.001, 0.1, 0.5, 0.99)}
        for name, damaged in (cut | ({"spoilt": bytes(spoilt)} if suffix == "parquet" else {})).items():
            path = tmp_path / f"{name}.{suffix}"
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=r"cut, damaged, or not a table of this kind: [^\n]*; copy it again$"):
                load_manifest(f"folder:{path}")


# --- Layouts and names that differ a little --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "classes", "splits"),
    [
        ("train_set/dog train_set/cat test_set/dog test_set/cat", ["cat", "dog"], {"train", "test"}),
        ("trainset/dog devset/cat testset/dog", ["cat", "dog"], {"train", "valid", "test"}),
        ("train-clean-100/1 dev-clean/2 test-other/3", ["1", "2", "3"], {"train", "valid", "test"}),
        ("my-set-v1/train/dog my-set-v1/test/cat", ["cat", "dog"], {"train", "test"}),
        ("my-set-v1/data/train/dog my-set-v1/data/test/cat", ["cat", "dog"], {"train", "test"}),
        ("train/audio/dog train/audio/cat test/audio/cat", ["cat", "dog"], {"train", "test"}),
        ("dog/train dog/test cat/train cat/test", ["cat", "dog"], {"train", "test"}),
        ("train/dog test/cat _noise_", ["cat", "dog"], {"train", "test"}),
        ("my-set-v1/dog my-set-v1/cat", ["cat", "dog"], set()),
        ("train car bus", ["bus", "car", "train"], set()),
        ("caf\u00e9 cafe\u0301", ["caf\u00e9"], set()),
    ],
)
def test_folders_of_many_layouts(tmp_path, files, classes, splits):
    for number, place in enumerate(files.split()):
        write(tmp_path / "set" / place / f"{number}.wav", number)
    write(tmp_path / "set" / "__MACOSX" / "dog" / "junk.wav")
    manifest = load_manifest(f"folder:{tmp_path / 'set'}")
    assert manifest.classes == classes and set(manifest.table["split"].dropna()) == splits
    assert manifest.notes or not splits


def test_files_outside_of_splits_and_empty_class_folders_are_said(tmp_path):
    for place in ("train/dog", "test/dog", "extra"):
        write(tmp_path / "a" / place / "x.wav")
    (_, note) = load_manifest(f"folder:{tmp_path / 'a'}").notes
    assert note == f"1 audio files outside the splits are left out, such as {tmp_path / 'a' / 'extra' / 'x.wav'}"
    write(tmp_path / "b" / "dog" / "x.wav")
    (tmp_path / "b" / "bird").mkdir()
    assert load_manifest(f"folder:{tmp_path / 'b'}").notes == ["1 folders have no audio in them: bird"]


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\npath;label\na.wav;dog\nb c.wav;cat\n",
        "path,label\ra.wav,dog\rb c.wav,cat\r",
        "# of 2020\npath,label\na.wav,dog\nb c.wav,cat\n",
        ",,path,label\n0,1,a.wav,dog\n1,2,b c.wav,cat\n",
        "File Name,Class Name\na.wav,dog\nb c.wav,cat\n",
        "path,label\na.wav,dog\nb%20c.wav,cat\n",
        "path,label\nA.WAV,dog\nB C.wav,cat\n",
        "path,label\n~nobody-of-this-name/a.wav,dog\nC:\\set\\b c.wav,cat\n",
        "path,label,split\na.wav,dog,NA\nb c.wav,cat,none\n",
        f"path,label,text\na.wav,dog,{'x' * 200_000}\nb c.wav,cat,y\n",
        "a.wav,dog\nb c.wav,cat\n",
        '[{"path": "a.wav", "label": "dog"}, {"path": "b c.wav", "label": "cat"}]',
        "path,label\na.wav,dog\nb c.wav,cat\n".encode("utf-16-le"),
        "path,labels\na.wav,['dog']\nb c.wav,['cat']\n",
    ],
)
def test_tables_as_people_make_them(tmp_path, text):
    for name in ("a.wav", "b c.wav"):
        write(tmp_path / name)
    is_json = isinstance(text, str) and text.startswith("[{")
    file = tmp_path / ("list.json" if is_json else "list.csv")
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    rows = listed(load_manifest(f"folder:{file}"))
    assert [(name, label) for name, label, *_ in rows] == [("a.wav", "dog"), ("b c.wav", "cat")]


def test_a_list_for_each_split_and_one_for_files_in_folders_of_splits(tmp_path):
    for place in ("train", "test"):
        write(tmp_path / "a" / "wavs" / f"{place}.wav")
        (tmp_path / "a" / f"{place}_data.csv").write_text(f"path,label\nwavs/{place}.wav,dog\n")
        write(tmp_path / "b" / place / "dog" / "x.wav")
        write(tmp_path / "b" / place / "cat" / "x.wav")
    names = [f"{place}/{label}/x.wav" for place in ("train", "test") for label in ("dog", "cat")]
    (tmp_path / "b" / "metadata.csv").write_text("file_name,text\n" + "".join(f"{name},hi\n" for name in names))
    a, b = load_manifest(f"folder:{tmp_path / 'a'}"), load_manifest(f"folder:{tmp_path / 'b'}")
    assert a.table["split"].tolist() == ["test", "train"] and "are taken for splits" in a.notes[0]
    assert b.table["split"].tolist() == ["train", "train", "test", "test"] and b.classes == ["cat", "dog"]


def test_kaldis_folders_of_splits_commands_and_open_ends(tmp_path):
    for place in ("train", "test"):
        write(tmp_path / place / "x.wav")
        (tmp_path / place / "wav.scp").write_text(f"{place} sox {tmp_path / place / 'x.wav'} -t wav - |\n")
        (tmp_path / place / "segments").write_text(f"u{place} {place} 0.1 -1\n")
    manifest = load_manifest(f"folder:{tmp_path}")
    assert manifest.table["split"].tolist() == ["test", "train"]
    assert manifest.table["seconds"].tolist() == pytest.approx([0.4, 0.4])
    (tmp_path / "test" / "wav.scp").write_text(f"test sox {tmp_path / 'test' / 'x.wav'} -t wav - speed 1.1 |\n")
    with pytest.raises(InputError, match="none of its 1 entries is a file"):
        load_manifest(f"folder:{tmp_path / 'test'}")


def test_shards_of_others(tmp_path):
    sound = write(tmp_path / "x.wav").read_bytes()
    members = [("rec.2020.wav", sound), ("rec.2020.json", b'{"class": "dog", "split": "TRAIN"}')]
    members += [("rec.2021.wav", sound), ("rec.2021.json", b"{broken"), ("._rec.wav", b"junk")]
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    manifest = load_manifest(f"shards:{tmp_path}")
    rows = [(name, label, split) for name, label, _, split, _ in listed(manifest)]
    assert rows == [("rec.2020.wav", "dog", "train"), ("rec.2021.wav", "", None)]
    assert "1 members .json of shards cannot be read; their clips have no label" in manifest.notes


def test_colons_in_a_name_are_no_shard(tmp_path):
    write(tmp_path / "dog" / "a::1+2.wav")
    assert len(load_manifest(f"folder:{tmp_path}")) == 1


def test_what_a_table_cannot_be(tmp_path):
    with pytest.raises(InputError, match="'label' occurs more than once"):
        load_manifest(pd.DataFrame([["a.wav", "x", "y"]], columns=["path", "label", "label"]))
    with pytest.raises(InputError, match="'label' has lists in it; call it 'labels'"):
        load_manifest(pd.DataFrame({"path": ["a.wav"], "label": [["x", "y"]]}))
    (tmp_path / "list.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match="a spreadsheet: save it as CSV"):
        load_manifest(f"folder:{tmp_path / 'list.xlsx'}")
