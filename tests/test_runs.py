"""The listing of a folder of runs, and the comparison of some."""

import json

import pandas as pd
import pytest

from asit_lab import load_config
from asit_lab.errors import InputError
from asit_lab.runs.directory import Run, open_run, write_json
from asit_lab.runs.listing import compare_runs, last_finished, list_runs, open_runs
from asit_lab.storage.lock import is_held, only_writer

METRICS = "step,loss,loss_local,rate\n0,3.5,2.5,0.1\n10,{},1.25,0.2\n"


def make(path, overrides=(), status=None, loss=1.5, result=None, **progress) -> Run:
    """A run directory without the training."""
    run = open_run(path, load_config("smoke", list(overrides)))
    if status:
        about = {"step": 4, "total_steps": 6, "updated": "2026-11-21T07:19:31+0000"} | progress
        write_json(run.dir / "status.json", {"status": status, **about})
        (run.dir / "metrics.csv").write_text(METRICS.format(loss))
    if result:
        write_json(run.dir / "result.json", result)
    return run


@pytest.fixture
def folder(tmp_path):
    """Four runs, one of them further down."""
    make(tmp_path / "b", ["optim.rate=7e-4"], "finished", 2.0, {"probe": [{"encoder": "teacher", "mean": 0.7}]})
    make(tmp_path / "a", ["optim.rate=1e-3", "mask.align=true"], "interrupted", 3.0, health="the head has collapsed")
    result = {"probe": [{"encoder": "other", "mean": 0.1}, {"encoder": "teacher", "mean": 0.8}], "last": {"x": 5}}
    make(tmp_path / "sweep/point", ["optim.betas=[0.9, 0.95]", "train.steps=9"], "finished", 1.0, result)
    make(tmp_path / "fresh", ["data.source=synth:12"])
    return tmp_path


def names(table: pd.DataFrame) -> list[str]:
    return table["name"].tolist()


# --- Listing --------------------------------------------------------------------------------------------------------


def test_a_row_says_what_the_run_s_files_say(folder):
    table = list_runs(folder)
    assert names(table) == ["a", "b", "fresh", "sweep/point"]
    expected = "name preset data status step steps loss loss_local probe health updated"
    assert list(table.columns) == expected.split()
    rows = table.astype(object).where(table.notna(), None).set_index("name").to_dict("index")
    assert rows["a"] == {
        "preset": "smoke",
        "data": "synth:40",
        "status": "interrupted",
        "step": 4,
        "steps": 6,
        "loss": 3.0,
        "loss_local": 1.25,
        "probe": None,
        "health": "the head has collapsed",
        "updated": "2026-11-21T07:19:31+0000",
    }
    assert [rows[name]["probe"] for name in ("b", "sweep/point")] == [0.7, 0.8]
    fresh = rows["fresh"]
    assert (fresh["status"], fresh["data"], fresh["steps"]) == ("new", "synth:12", 6)
    assert (fresh["step"], fresh["loss"], fresh["updated"]) == (None, None, None)
    assert table.attrs["skipped"] == []


def test_a_real_run_is_listed_as_it_ended(smoke_run):
    row = list_runs(smoke_run.dir.parent).iloc[0]
    assert (row["name"], row["status"], row["step"], row["steps"]) == ("run", "finished", 6, 6)
    last = smoke_run.metrics.iloc[-1]
    for loss in ("loss", "loss_reconstruction", "loss_local", "loss_global"):
        assert row[loss] == last[loss] > 0
    assert names(list_runs(smoke_run.dir)) == ["."], "a run given as the folder"


def test_an_empty_folder_and_none(tmp_path):
    assert len(list_runs(tmp_path)) == 0
    with pytest.raises(InputError, match=f"{tmp_path / 'no'}: there is no such folder"):
        list_runs(tmp_path / "no")


def test_the_folder_is_below_the_project_s_root(folder, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(folder))
    assert names(list_runs("sweep")) == ["point"]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.yaml", "train: [", "not valid YAML"),
        ("config.yaml", "train: {stepz: 4}", "train.stepz: unknown key"),
        ("config.yaml", "- 3", "expected sections"),
        ("config.yaml", b"\xff\xfe\x00", "not valid YAML"),
        ("status.json", '{"status": "fini', "status.json: not JSON"),
        ("status.json", "[1, 2]", "status.json: expected named entries, found a list"),
        ("result.json", "", "result.json: not JSON"),
        ("result.json", b"\xff\xfe\x00", "result.json: not JSON"),
        ("metrics.csv", 'step,loss\n0,"1\n2,3\n4,5,6,7\n', "metrics.csv: cannot be read"),
    ],
)
def test_a_damaged_run_is_left_out_with_a_word(folder, file, content, words):
    run = make(folder / "broken", status="finished")
    (run.dir / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    table = list_runs(folder)
    assert names(table) == ["a", "b", "fresh", "sweep/point"]
    ((name, reason),) = table.attrs["skipped"]
    assert name == "broken" and words in reason
    assert str(folder) not in reason.split(":")[0] and "\n" not in reason


def test_a_foreign_folder_is_left_out_with_a_word(folder):
    (folder / "notes/deeper").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "evaluation/finetune").mkdir(parents=True)
    (folder / "evaluation/result.json").write_text("{}")
    (folder / "file.txt").write_text("mine")
    table = list_runs(folder)
    assert len(table) == 4
    assert table.attrs["skipped"] == [("notes", "not a run directory (it has no config.yaml)")]


@pytest.mark.parametrize(
    ("progress", "step", "steps"),
    [({"step": "many", "total_steps": 6}, None, 6), ({"step": 3, "total_steps": None}, 3, None)],
)
def test_odd_entries_do_not_stop_the_listing(folder, progress, step, steps):
    make(folder / "odd", status="finished", result={"probe": 3}, **progress)
    row = list_runs(folder).set_index("name").loc["odd"]
    assert [None if pd.isna(row[key]) else row[key] for key in ("step", "steps")] == [step, steps]
    assert pd.isna(row["probe"])


def test_a_line_that_was_cut_off_gives_no_number_of_its_own(folder):
    run = make(folder / "cut", status="failed")
    with (run.dir / "metrics.csv").open("a") as file:
        file.write("20,9")
    row = list_runs(folder).set_index("name").loc["cut"]
    assert (row["loss"], row["loss_local"]) == (1.5, 1.25)


def test_running_without_a_process_is_stopped(tmp_path):
    run = make(tmp_path / "r", status="running")
    assert list_runs(tmp_path)["status"].tolist() == ["stopped"]
    with only_writer(run.dir):
        before = (run.dir / ".lock").read_text()
        assert is_held(run.dir)
        assert list_runs(tmp_path)["status"].tolist() == ["running"]
        assert (run.dir / ".lock").read_text() == before, "who holds it can still be read"
    assert not is_held(run.dir)
    assert list_runs(tmp_path, status="stopped")["name"].tolist() == ["r"]
    assert len(list_runs(tmp_path, status="running")) == 0
    with only_writer(run.dir):
        pass  # asking has not kept the lock


# --- Choosing and sorting -------------------------------------------------------------------------------------------


def test_steps_since_the_last_saved_state_count(tmp_path):
    run = open_run(tmp_path / "a", load_config("smoke"))
    write_json(run.dir / "status.json", {"status": "running", "step": 0, "total_steps": 240})
    (run.dir / "metrics.csv").write_text("step,loss\n0,3.0\n170,2.5\n18")  # the last row is being written
    with only_writer(run.dir):
        assert list_runs(tmp_path)["step"].tolist() == [171]
    assert list_runs(tmp_path)["step"].tolist() == [0]  # killed: it goes on from there
    write_json(run.dir / "status.json", {"status": "interrupted", "step": 100, "total_steps": 240})
    assert list_runs(tmp_path)["step"].tolist() == [100]  # where it goes on from


def test_by_status(folder):
    assert names(list_runs(folder, status="finished")) == ["b", "sweep/point"]
    with pytest.raises(InputError, match="status 'finishd': expected one of new, running, stopped, finished"):
        list_runs(folder, status="finishd")


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (["optim.rate=7e-4"], ["b", "fresh", "sweep/point"]),  # the preset's own
        (["optim.rate=0.0010"], ["a"]),
        (["optim.rate=7.1e-4"], []),
        ("mask.align=true", ["a"]),
        (["mask.align=true"], ["a"]),
        (["optim.betas=[0.9, 0.95]", "train.steps=9"], ["sweep/point"]),
        (["data.source=synth:12"], ["fresh"]),
        (["train.init_from=null"], ["a", "b", "fresh", "sweep/point"]),
        (["mask.kinds.alien=.25"], ["a", "b", "fresh", "sweep/point"]),
        (["mask.kinds.noise=0"], []),  # a key that configurations can have
        (["last.x=5"], ["sweep/point"]),
        (["status=interrupted"], ["a"]),  # columns, too
        (["name=sweep/point"], ["sweep/point"]),
        (["name=smoke"], ["a", "b", "fresh", "sweep/point"]),  # as in the configuration
        (["loss=2"], ["b"]),
        (["optim.rate=quick"], []),
        (["data.source=[synth"], []),  # not YAML, so it is a text
        (["train.steps=9", "mask.align=true"], []),
        (["mask.align=true", "last.x=5"], []),  # the second is a key of a run that the first left out
    ],
)
def test_by_setting_or_result(folder, where, found):
    assert names(list_runs(folder, where=where)) == found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"where": ["optim.raet=1"]}, "optim.raet: no run has this key; did you mean optim.rate"),
        ({"where": ["optim.rate"]}, "condition 'optim.rate': expected key=value"),
        ({"where": ["=3"]}, "condition '=3': expected key=value"),
        ({"sort": "probee"}, "probee: no run has this key; did you mean probe"),
    ],
)
def test_keys_that_no_run_has(folder, arguments, words):
    with pytest.raises(InputError) as problem:
        list_runs(folder, **arguments)
    assert words in str(problem.value)


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("loss", ["sweep/point", "b", "a", "fresh"]),
        ("-loss", ["a", "b", "sweep/point", "fresh"]),
        ("-probe", ["sweep/point", "b", "a", "fresh"]),  # equals stay in order of their names
        ("-name", ["sweep/point", "fresh", "b", "a"]),
        ("train.steps", ["a", "b", "fresh", "sweep/point"]),
        ("-optim.rate", ["a", "b", "fresh", "sweep/point"]),
        ("last.x", ["sweep/point", "a", "b", "fresh"]),
    ],
)
def test_sorted(folder, sort, order):
    assert names(list_runs(folder, sort=sort)) == order


def test_the_run_that_finished_last(folder, tmp_path):
    assert last_finished(folder / "fresh") is None and last_finished(tmp_path / "none") is None
    make(folder / "sweep/later", status="finished", updated="2026-11-22T07:19:31+0000")
    make(folder / "stopped", status="interrupted", updated="2026-11-23T07:19:31+0000")
    assert last_finished(folder) == folder / "sweep/later"


# --- Comparing ------------------------------------------------------------------------------------------------------


def test_differences_are_those_of_any_two(folder):
    make(folder / "c", ["optim.rate=1e-3", "mask.kinds={zeros: 1, noise: 2}"])
    differences, _ = compare_runs([folder / "a", folder / "b", folder / "c"])
    assert list(differences.columns) == ["a", "b", "c"]
    assert differences.T.to_dict("list") == {
        "mask.align": [True, False, False],
        "mask.kinds.zeros": [0.75, 0.75, 1],
        "mask.kinds.alien": [0.25, 0.25, None],
        "optim.rate": [1e-3, 7e-4, 1e-3],
        "mask.kinds.noise": [None, None, 2],
    }
    same, _ = compare_runs([folder / "b", make(folder / "b2").dir])
    assert len(same) == 0


def test_results_side_by_side(folder, smoke_run):
    probe = [
        {"encoder": "teacher", "protocol": "linear", "mean": 0.75, "scores": {"fold 1": 0.7}},
        {"encoder": "log-mel", "protocol": "linear", "mean": 0.5},
    ]
    errors = [{"method": "reconstruction", "l1": 0.2, "l1_log": 1.6}]
    result = {"name": "smoke", "data": "synth", "seed": 3, "steps": 6, "epochs": 1.5, "last": {"loss": 9, "centre": 4}}
    make(folder / "full", (), "finished", 2.0, {**result, "probe": probe, "reconstruction": errors, "list": [1]})
    _, results = compare_runs([folder / "full", folder / "fresh"])
    assert results["full"].to_dict() == {
        "status": "finished",
        "step": 4,
        "loss": 2.0,
        "loss_local": 1.25,
        "epochs": 1.5,
        "last.centre": 4,
        "probe: teacher linear": 0.75,
        "probe: log-mel linear": 0.5,
        "reconstruction: reconstruction": 1.6,
    }
    assert results["fresh"]["status"] == "new"
    assert results["fresh"].isna().sum() == len(results) - 1

    _, results = compare_runs([smoke_run.dir, folder / "a"])
    ours = results.iloc[:, 0]
    assert ours["parameters"] == smoke_run.result["parameters"]
    assert ours["loss_global"] == smoke_run.metrics["loss_global"].iloc[-1]


def test_names_are_the_paths_below_what_they_share(folder):
    assert list(open_runs([folder / "a", folder / "sweep/point"])) == ["a", "sweep/point"]
    make(folder / "a/inner")
    assert list(open_runs([folder / "a", folder / "a/inner"])) == ["a", "a/inner"]


def test_what_cannot_be_compared(folder):
    with pytest.raises(InputError, match="at least two runs to compare, got 1"):
        compare_runs([folder / "a"])
    with pytest.raises(InputError, match=f"{folder / 'a'}: given twice"):
        compare_runs([folder / "a", folder / "b", folder / "sweep/../a"])
    with pytest.raises(InputError, match="sweep: not a run directory"):
        compare_runs([folder / "a", folder / "sweep"])
    (folder / "b/status.json").write_text(json.dumps("finished"))
    with pytest.raises(InputError, match="b/status.json: expected named entries, found a str"):
        compare_runs([folder / "a", folder / "b"])
