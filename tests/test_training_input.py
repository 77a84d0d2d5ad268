"""Bad input to a run, from one file that is no use to a data set that is not there."""

import math
import os

import numpy as np
import pandas as pd
import pytest
import soundfile
from children import ctrl_c_in_row

import asit_lab
from asit_lab import InputError, load_config, load_run, plan
from asit_lab.data import check, load_manifest
from asit_lab.data.lists import as_source
from asit_lab.data.statistics import measure
from asit_lab.training import recorder

RATE = 8000


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(recorder, "save_samples", lambda *_: None)


def write(path, wave):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    return path


def recordings(folder, good: int = 9):
    """Class folders with `good` noises of 1.2 s."""
    generator = np.random.default_rng(0)
    for i in range(good):
        write(folder / "ab"[i % 2] / f"{i}.wav", 0.1 * generator.standard_normal(9600).astype(np.float32))
    return folder


def test_a_table_of_files_is_pretrained_on_and_resumed_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_DATA", str(tmp_path / "data"))
    files = sorted(recordings(tmp_path / "mine").rglob("*.wav"))
    table = pd.DataFrame({"file": files, "label": [file.parent.name for file in files]})
    cfg = load_config("smoke", ["features.sample_rate=8000", "train.steps=1", "train.batch_size=4"])
    run = asit_lab.pretrain(cfg, tmp_path / "run", data=table)
    source = run.config.data.source
    assert source.startswith(f"folder:{tmp_path / 'data/lists'}")
    assert load_manifest(source).table["path"].tolist() == [str(file) for file in files]
    assert asit_lab.pretrain(cfg, tmp_path / "run", data=table).status == "finished"  # the same rows: the same run
    assert asit_lab.pretrain(run.config, tmp_path / "run").status == "finished"
    with pytest.raises(InputError, match="data.source"):
        asit_lab.pretrain(cfg, tmp_path / "run", data=files[1:])


def test_what_stands_for_data_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_DATA", str(tmp_path / "data"))
    folder = recordings(tmp_path / "mine", 4)
    odd = (folder / "a/0.wav").rename(folder / "a" / os.fsdecode(b"caf\xe9 'x', \"y\".wav"))
    whole = load_manifest(f"folder:{folder}")
    assert as_source("synth:40") == "synth:40"
    assert as_source(whole) == f"folder:{folder}"
    part = whole.subset(whole.table["label"] == "a")
    again = load_manifest(as_source(part))
    columns = ["path", "label", "group", "start", "seconds"]
    assert str(odd) in again.table["path"].tolist()
    assert again.table[columns].to_dict("records") == part.table[columns].to_dict("records")
    assert as_source(part.table) == as_source(part) and as_source(pd.Series([odd])) == as_source([odd])
    with pytest.raises(InputError, match="give synth:CLIPS"):
        as_source(load_manifest("synth:40").subset([0, 1]))


def with_nan(path):
    wave = np.zeros(9600, np.float32)
    wave[5000] = math.nan
    return write(path, wave)


def source(folder) -> str:
    """The folder as a list in which names are the groups: who is held out does not hang on where the folder is."""
    files = sorted(folder.rglob("*.wav"))
    rows = [f"{file.relative_to(folder)},{file.parent.name},{file.name}" for file in files]
    (folder / "list.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
    return f"folder:{folder / 'list.csv'}"


def config(source, *overrides: str):
    return load_config(
        "smoke",
        [f"data.source={source}", f"features.sample_rate={RATE}", "data.crop_seconds=0.5", "train.batch_size=4"]
        + ["train.snapshots=1", "data.max_bad_share=0.5", "data.holdout=0.1", *overrides],
    )


def failed(out, message) -> str:
    """The reason in the status of a failed run, which has its configuration and no weights."""
    run = load_run(out)
    assert run.status == "failed" and run.snapshots == []
    assert message in run.progress["reason"]
    return run.progress["reason"]


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_files_among_good_ones_are_skipped_and_listed(tmp_path, workers, capsys):
    data = recordings(tmp_path / "data")
    (data / "a/torn.wav").write_bytes(b"RIFF")  # seen in its header
    with_nan(data / "a/nan.wav")  # seen when its turn comes
    run = asit_lab.pretrain(config(source(data), f"data.workers={workers}"), tmp_path / "run")
    assert run.status == "finished" and run.metrics.notna().all().all()
    bad = dict(run.bad_files.itertuples(index=False))
    assert {path.rpartition("/")[2] for path in bad} == {"torn.wav", "nan.wav"}
    assert "1 samples are NaN" in bad[str(data / "a/nan.wav")]
    assert run.result["bad_files"] == 2
    assert "note: 1 of 11 files cannot be used" in capsys.readouterr().out


def test_bad_files_are_still_listed_after_a_resume(tmp_path):
    data = recordings(tmp_path / "data")
    (data / "a/torn.wav").write_bytes(b"RIFF")
    with_nan(data / "a/nan.wav")
    cfg = config(source(data), "train.steps=8")

    with ctrl_c_in_row(7):
        before = asit_lab.pretrain(cfg, tmp_path / "run")
    assert len(before.bad_files) == 2
    soundfile.write(data / "a/nan.wav", np.zeros(9600), RATE)  # mended: the list is of this run, not of the folder
    after = asit_lab.pretrain(cfg, tmp_path / "run")
    assert after.status == "finished" and after.result["bad_files"] == 2
    assert sorted(after.bad_files["path"]) == sorted(before.bad_files["path"])


def test_a_run_stops_when_too_many_turn_out_bad(tmp_path):
    data = recordings(tmp_path / "data")
    names = [str(with_nan(data / f"a/nan{i}.wav")) for i in range(4)]
    with pytest.raises(InputError) as problem:
        asit_lab.pretrain(config(source(data), "data.max_bad_share=0.2", "train.steps=20"), tmp_path / "run")
    text = str(problem.value)
    listed = load_run(tmp_path / "run").bad_files
    assert len(listed) >= 3 and set(listed["path"]) <= set(names)
    assert f"{len(listed)} of 13 files" in text and "data.max_bad_share 0.2" in text and "bad_files.csv" in text
    assert sum(name in text for name in names) == 3 and "NaN" in text
    failed(tmp_path / "run", "data.max_bad_share")


def test_a_run_does_not_start_when_too_many_headers_are_bad(tmp_path):
    data = recordings(tmp_path / "data", good=3)
    for i in range(2):
        (data / f"a/torn{i}.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"2 of 5 files .*torn0\.wav"):
        asit_lab.pretrain(config(source(data), "data.max_bad_share=0.3"), tmp_path / "run")
    assert len(load_run(tmp_path / "run").bad_files) == 2
    assert not (tmp_path / "run/metrics.csv").exists()
    failed(tmp_path / "run", "torn0.wav")


def test_everything_held_out_unreadable_costs_only_the_pictures(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(recorder, "save_samples", lambda path, objective, batch, *_: shown.append(batch))
    data = recordings(tmp_path / "data")
    _, held = load_manifest(source(data)).holdout(0.1)
    name = held.table["path"].iloc[0]
    with_nan(data / name)
    run = asit_lab.pretrain(config(source(data)), tmp_path / "run")
    assert run.status == "finished" and shown == [None]
    assert run.bad_files["path"].tolist() == [name]


def test_nothing_readable(tmp_path):
    for i in range(5):
        with_nan(tmp_path / f"data/a/{i}.wav")
    with pytest.raises(InputError, match="NaN") as problem:
        asit_lab.pretrain(config(source(tmp_path / "data"), "data.max_bad_share=1"), tmp_path / "run")
    assert str(tmp_path / "data/a") in str(problem.value)
    failed(tmp_path / "run", "NaN")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("folder:{}/nowhere", "nowhere does not exist"),
        ("folder:{}/empty", "is empty"),
        ("sinth:40", "did you mean synth"),
        ("synth:none", "not a number of clips"),
    ],
)
def test_the_configuration_is_there_though_the_data_is_not(tmp_path, spec, message):
    (tmp_path / "empty").mkdir()
    cfg = config(spec.format(tmp_path))
    with pytest.raises(InputError, match=message):
        asit_lab.pretrain(cfg, tmp_path / "run")
    assert load_config(tmp_path / "run") == cfg
    failed(tmp_path / "run", message)


def test_a_mistake_in_the_data_does_not_take_the_directory(tmp_path):
    cfg, mended = config(f"folder:{tmp_path}/nowhere"), config("synth:20")
    with pytest.raises(InputError, match="nowhere does not exist"):
        asit_lab.pretrain(cfg, tmp_path / "run")
    with pytest.raises(InputError, match="holds a run of another configuration"):
        asit_lab.pretrain(mended, tmp_path / "run", resume="must")
    assert plan(mended, tmp_path / "run", steps=1).start == 0 and load_config(tmp_path / "run") == cfg
    assert asit_lab.pretrain(mended, tmp_path / "run").status == "finished"
    with pytest.raises(InputError, match="holds a run of another configuration"):
        asit_lab.pretrain(cfg, tmp_path / "run")


def test_clips_shorter_than_a_crop(tmp_path):
    data = recordings(tmp_path / "data")
    write(data / "a/short.wav", 0.1 * np.ones(400, np.float32))  # 50 ms of 0.5 s
    run = asit_lab.pretrain(config(source(data), "data.crop_seconds=1.5"), tmp_path / "run")
    assert run.status == "finished" and run.metrics.notna().all().all() and len(run.bad_files) == 0


def test_two_views_that_are_nearly_one_are_told(tmp_path, capsys):
    data = recordings(tmp_path / "data")
    run = asit_lab.pretrain(config(source(data), "data.crop_seconds=1.0", "train.steps=1"), tmp_path / "run")
    assert "the two views of a clip are nearly the same audio" in capsys.readouterr().out
    assert run.status == "finished"


def test_an_error_of_the_caller_s_own_comes_through(tmp_path):
    def on_log(run, row):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        asit_lab.pretrain(config("synth:12"), tmp_path / "run", on_log=on_log)
    assert load_run(tmp_path / "run").progress["reason"] == "ZeroDivisionError: mine"
    assert asit_lab.pretrain(config("synth:12"), tmp_path / "run").status == "finished"


@pytest.mark.parametrize("batch", [1, 2, 3, 12])
def test_batches_of_few_clips_and_more_than_there_are(tmp_path, batch):
    rest = ["mask.kinds={zeros: 1}"] if batch == 1 else []
    run = asit_lab.pretrain(config("synth:10", f"train.batch_size={batch}", "train.steps=2", *rest), tmp_path / "run")
    assert run.status == "finished" and run.metrics.notna().all().all()


def test_alien_blocks_need_company(tmp_path):
    with pytest.raises(InputError, match=r"alien blocks need another clip .* train\.batch_size >= 2"):
        asit_lab.pretrain(config("synth:10", "train.batch_size=1"), tmp_path / "run")


def test_what_is_unusual_in_a_sample_is_noted_before_the_first_step(tmp_path, capsys):
    data = recordings(tmp_path / "data")
    write(data / "a/silent.wav", np.zeros(9600, np.float32))
    write(data / "b/integers.wav", 3000 * np.random.default_rng(1).standard_normal(9600).astype(np.float32))
    run = asit_lab.pretrain(config(source(data), "train.steps=1", "features.mean=100"), tmp_path / "run")
    said = capsys.readouterr().out
    assert "1 of 11 sampled clips: silent throughout (below -80 dB), such as" in said and "silent.wav" in said
    assert "level of integers" in said and "far from features.mean 100" in said
    assert run.bad_files.empty


def test_files_that_fail_after_the_start_are_skipped(tmp_path, monkeypatch):
    """However many: only a batch that cannot be made ends a run."""
    data = recordings(tmp_path / "data", good=4)
    names = {str(with_nan(data / f"a/nan{i}.wav")) for i in range(8)}
    monkeypatch.setattr(check, "_measure", lambda *_: {"reason": ""})  # not among the sample
    run = asit_lab.pretrain(config(source(data), "train.steps=8", "data.max_bad_share=0.1"), tmp_path / "run")
    assert run.status == "finished" and len(run.bad_files) > 4 and set(run.bad_files["path"]) <= names


def test_a_sample_is_bounded(tmp_path):
    manifest = load_manifest(source(recordings(tmp_path / "data", good=12)))
    assert len(check.check_sample(manifest, clips=5).table) == 5
    assert len(check.check_sample(manifest, seconds=-1.0).table) == 5  # known already
    assert check.check_sample(load_manifest("synth:4")).table.empty


def test_mean_and_deviation_are_measured(tmp_path):
    data = source(recordings(tmp_path / "data"))
    cfg = config(data, "train.steps=2", "features.mean=auto", "features.std=auto")
    run = asit_lab.pretrain(cfg, tmp_path / "run")
    features = run.config.features
    train, _ = load_manifest(data).holdout(0.1)
    expected = measure(train, features)[:2]
    assert (features.mean, features.std) == pytest.approx(expected, abs=1e-5)
    assert asit_lab.pretrain(cfg, tmp_path / "run").status == "finished"  # resumed with the run's own numbers
    with pytest.raises(InputError, match="auto is measured when pretraining starts"):
        asit_lab.Encoder.random(cfg)
    with pytest.raises(InputError, match="features.mean: .*Input should be a number, or auto"):
        config(data, "features.mean=atuo")
