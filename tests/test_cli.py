"""The shell command: exit status, what goes to stdout and what to stderr, tables and JSON."""

import errno
import itertools
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

import asit_lab
from asit_lab import batch, cli
from asit_lab.batch.estimate import Forecast
from asit_lab.config import load_config, preset_names
from asit_lab.runs.directory import open_run, write_json
from asit_lab.training import recorder


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `asit-lab ARGUMENTS` in this process: (exit status, stdout, stderr). Runs draw no pictures."""
    monkeypatch.setattr(recorder, "save_samples", lambda *_: None)

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["asit-lab", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "120")
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        return (left.value.code or 0, *capsys.readouterr())

    return run


def fields(line: str) -> list[str]:
    """Cells of a table's line."""
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


# --- As a whole -----------------------------------------------------------------------------------------------------


def test_version_and_help_from_a_shell():
    for option, words in [("--version", f"asit-lab {asit_lab.__version__}\n"), ("--help", "Usage: asit-lab ")]:
        code = f"import sys; sys.argv = ['asit-lab', '{option}']; from asit_lab.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(words)


@pytest.mark.parametrize(
    "of",
    [
        "",
        "config",
        "config list",
        "config show",
        "config diff",
        "data info",
        "data stats",
        "data corpus",
        "pretrain",
        "probe",
        "lab",
    ]
    + ["runs", "runs list", "runs compare", "finetune", "evaluate", "starts", "embed", "batch"]
    + [f"batch {name}" for name in ("list", "run", "retry", "status", "collect", "stop")],
)
def test_every_command_has_help(command, of):
    status, out, err = command(*of.split(), "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: asit-lab {of}".rstrip()) and "--help" in out


def test_unknown_command_and_option(command):
    for arguments in (["pretrian"], ["config", "list", "--jsn"], ["probe", "x"]):
        status, out, err = command(*arguments)
        assert (status, out) == (2, "")
        assert "Error" in err


def test_interrupt_gives_the_shell_s_status(command, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("asit_lab.config.load_config", interrupted)
    status, out, err = command("config", "show", "smoke")
    assert (status, out) == (130, "")
    assert "Traceback" not in err


def test_loss_that_is_not_finite_is_told_without_a_traceback(command, monkeypatch, tmp_path):
    def diverges(*_, **__):
        raise FloatingPointError("step 3: loss or gradient is not finite")

    monkeypatch.setattr(asit_lab, "pretrain", diverges, raising=False)
    expected = (1, "", "asit-lab: step 3: loss or gradient is not finite\n")
    assert command("pretrain", "--preset", "smoke", "--out", tmp_path) == expected


# --- config ---------------------------------------------------------------------------------------------------------


def test_config_list(command):
    status, out, err = command("config", "list", "--json")
    rows = json.loads(out)
    assert (status, err) == (0, "")
    assert [row["preset"] for row in rows] == preset_names()
    assert all(row["about"] and not row["about"].startswith("#") for row in rows)
    paper = next(row for row in rows if row["preset"] == "asit-vit-s")
    assert (paper["width"], paper["heads"], paper["rate_hz"], paper["length"]) == (384, 3, 32000, "40 epochs")
    table = command("config", "list")[1]
    assert all(len(line) <= 120 for line in table.splitlines())
    assert [name for name in preset_names() if f"\n{name} " not in table] == []


def test_config_show_can_be_read_back(command, tmp_path):
    status, out, err = command("config", "show", "micro", "-s", "mask.ratio=0.6", "--set", "train.seed=4")
    assert (status, err) == (0, "")
    (tmp_path / "mine.yaml").write_text(out)
    assert load_config(tmp_path / "mine.yaml") == load_config("micro", ["mask.ratio=0.6", "train.seed=4"])
    as_json = json.loads(command("config", "show", tmp_path / "mine.yaml", "--json")[1])
    assert as_json == yaml.safe_load(out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "smoke", "-s", "mask.ratoi=1"], "mask.ratoi: unknown key; did you mean mask.ratio?"),
        (["show", "smoke", "-s", "mask.ratio=1.3"], "mask.ratio: 1.3 is not valid"),
        (["show", "nowhere"], "preset 'nowhere': no such preset or file"),
        (["diff", "smoke", "smok"], "did you mean smoke?"),
    ],
)
def test_bad_input_is_one_message_and_status_2(command, arguments, words):
    status, out, err = command("config", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("asit-lab: ") and words in err
    assert "Traceback" not in err


def test_config_diff_lists_facts_in_aligned_columns(command):
    status, out, err = command("config", "diff", "asit-vit-s", "asit-official-vit-s")
    assert (status, err) == (0, "")
    head, *lines = out.splitlines()
    assert fields(head) == ["about", "key", "asit-vit-s", "asit-official-vit-s"]
    starts = [head.index(name) for name in ("key", "asit-vit-s", "asit-official-vit-s")]
    for line in lines:
        assert len(line) <= 120
        assert all(line[start - 1] == " " for start in starts if len(line) >= start)
    assert ["attention heads", "model.heads", "3", "6"] in [fields(line) for line in lines]
    shared = next(fields(line) for line in lines if "heads.shared" in line)
    assert shared[1:] == ["heads.shared", "false", "true"]
    rows = json.loads(command("config", "diff", "asit-vit-s", "asit-official-vit-s", "--json")[1])
    assert sum(row["key"] in out for row in rows) == len(rows) == 12
    described = " ".join(out.split())
    assert all(row["about"].split()[-1] in described for row in rows), "wrapped, not cut"


def test_config_diff_of_equals(command):
    assert command("config", "diff", "smoke", "smoke")[:2] == (0, "smoke and smoke agree in every setting\n")
    assert command("config", "diff", "smoke", "smoke", "--json")[1] == "[]\n"


# --- data -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def recordings(tmp_path):
    """Two classes of two short files at different rates, and one file that is not audio."""
    for label, rate in [("hum", 16000), ("hiss", 8000)]:
        (tmp_path / "mine" / label).mkdir(parents=True)
        for number in range(2):
            wave = 0.1 * np.sin(np.arange(rate * (number + 1)) * 0.05)
            soundfile.write(tmp_path / "mine" / label / f"{number}.wav", wave, rate)
    (tmp_path / "mine" / "hum" / "broken.wav").write_bytes(b"nothing")
    return f"folder:{tmp_path / 'mine'}"


def test_data_info(command, recordings):
    status, out, err = command("data", "info", recordings, "--json")
    facts = json.loads(out)
    assert (status, err) == (0, "")
    assert (facts["clips"], facts["shortest_s"], facts["longest_s"]) == (4, 1, 2)
    assert facts["hours"] == pytest.approx(6 / 3600, abs=1e-4)
    assert facts["sample_rate"] == {"8000": 2, "16000": 2}
    assert [(row["class"], row["clips"]) for row in facts["classes"]] == [("hiss", 2), ("hum", 2)]
    assert len(facts["bad"]) == 1 and facts["bad"][0]["path"].endswith("broken.wav")


def test_data_info_as_text(command, recordings):
    status, out, _ = command("data", "info", recordings)
    lines = [fields(line) for line in out.splitlines()]
    assert status == 0
    assert ["clips", "4"] in lines and ["bad files", "1"] in lines
    assert ["sample_rate", "8000 (2), 16000 (2)"] in lines
    assert ["class", "clips", "hours"] in lines
    assert "broken.wav" in out


def test_data_info_of_what_is_not_there(command, tmp_path):
    status, out, err = command("data", "info", f"folder:{tmp_path}/nowhere")
    assert (status, out) == (2, "")
    assert "nowhere does not exist" in err


def test_data_stats_prints_overrides_that_fit(command, recordings):
    """A config with the measured mean and std normalises this data set to mean 0 and standard deviation 0.5."""
    status, out, _ = command("data", "stats", recordings, "--preset", "smoke", "--json")
    measured = json.loads(out)
    assert status == 0
    features = load_config("smoke", measured["overrides"]).features
    assert (features.mean, features.std) == pytest.approx((measured["mean"], measured["std"]), abs=1e-6)
    assert len(measured["band_mean"]) == len(measured["band_std"]) == features.mel_bins
    assert measured["mean"] == pytest.approx(np.mean(measured["band_mean"]))
    text = command("data", "stats", recordings, "--preset", "smoke")[1]
    assert [line.strip() for line in text.splitlines()[-2:]] == [f"-s {flag}" for flag in measured["overrides"]]


# --- Runs -----------------------------------------------------------------------------------------------------------


def test_pretrain_then_probe(command, tmp_path):
    out_dir = tmp_path / "run"
    arguments = ["pretrain", "--preset", "smoke", "--data", "synth:40", "--out", out_dir, "--seed", 3]
    status, out, err = command(*arguments, "--json")
    result = json.loads(out)
    assert (status, result["status"], result["dir"]) == (0, "finished", str(out_dir))
    assert result["last"]["step"] == 5 and result["last"]["loss"] > 0
    assert "Traceback" not in err
    assert load_config(out_dir) == load_config("smoke", ["data.source=synth:40", "train.seed=3"])

    status, out, err = command(*arguments)
    assert (status, out.splitlines()[-1]) == (0, f"finished: {out_dir}"), "a finished run is not run again"
    assert ["step", "5"] in [fields(line) for line in out.splitlines()]

    status, out, err = command(*arguments, "--resume", "never")
    assert (status, out) == (2, "") and str(out_dir) in err

    status, out, err = command("probe", out_dir, "--data", "synth:40", "--protocol", "knn", "--json")
    scores = json.loads(out)
    assert (status, scores["protocol"], len(scores["scores"])) == (0, "knn", scores["folds"])
    assert 0 <= scores["mean"] <= 1

    status, out, err = command("probe", out_dir, "--data", "synth:40", "--protocol", "knn")
    head, row = map(fields, out.splitlines())  # and no note: pretraining made sounds of its own
    assert status == 0
    assert row[head.index("mean")] == f"{scores['mean']:.6g}"


def test_probe_notes_tested_clips_that_were_in_pretraining(command, tmp_path):
    for label, number in itertools.product("ab", range(4)):
        (tmp_path / "sounds" / label).mkdir(parents=True, exist_ok=True)
        wave = np.random.default_rng([ord(label), number]).normal(0, 0.1, 16000)
        soundfile.write(tmp_path / "sounds" / label / f"{number}.wav", wave, 8000)
    data = ["--data", f"folder:{tmp_path / 'sounds'}"]
    settings = ["-s", "data.crop_seconds=1", "-s", "train.batch_size=4", "-s", "train.steps=1"]
    assert command("pretrain", "--preset", "smoke", *data, *settings, "--out", tmp_path / "run")[0] == 0
    status, out, err = command("probe", tmp_path / "run", *data, "--protocol", "knn")
    assert status == 0
    note = out.splitlines()[-1]
    assert "6 of 8 test clips were in pretraining (without labels)" in note  # the other two were held out


def test_notes_do_not_get_into_the_json(command, tmp_path):
    """Crops nearly as long as the clips make the loop say something."""
    settings = ["-s", "data.crop_seconds=4.5", "-s", "train.steps=1"]
    status, out, err = command("pretrain", "--preset", "smoke", *settings, "--out", tmp_path / "run", "--json")
    assert status == 0
    assert json.loads(out)["status"] == "finished"
    assert "note:" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resume", "must"], "there is no run to resume"),
        (["--data", "synht"], "did you mean synth"),
        (["-s", "train.steps=0"], "train.steps: 0 is not valid"),
        (["-s", "features.sample_rate"], "expected key=value"),
    ],
)
def test_pretrain_with_bad_input(command, tmp_path, arguments, words):
    status, out, err = command("pretrain", "--preset", "smoke", "--out", tmp_path / "run", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("asit-lab: ") and words in err


def test_a_dry_run_prints_the_plan_and_writes_nothing(command, tmp_path):
    arguments = ["pretrain", "--dry-run", "--preset", "smoke", "--data", "synth:16", "--out", tmp_path / "run"]
    arguments += ["-s", "train.batch_size=2", "-s", "train.steps=2"]
    status, out, err = command(*arguments)
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    assert (status, err) == (0, "")
    assert lines["data"].strip() == "synth:16, 13 training clips"
    assert {"length", "batch", "parameters", "device", "step", "hours", "memory", "disk"} <= lines.keys()

    status, out, err = command(*arguments, "-s", "data.crop_seconds=4.5")
    assert (status, out.splitlines()[-1].split(",")[0]) == (
        0,
        "note: a crop of 4.5 s covers 90% of the median clip (5 s)",
    )

    status, out, err = command(*arguments, "--json", "--seed", 3)
    planned = json.loads(out)
    assert (status, planned["steps"], planned["batch_size"], planned["training_clips"]) == (0, 2, 2, 13)
    assert planned["seconds_per_step"] > 0 and planned["notes"] == []

    status, out, err = command(*arguments, "-s", "train.stepz=4")
    assert (status, out) == (2, "") and "train.stepz: unknown key; did you mean train.steps?" in err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_into_another_run_names_the_difference(command, smoke_run):
    arguments = ["pretrain", "--dry-run", "--preset", "smoke", "--out", smoke_run.dir]
    status, out, err = command(*arguments, "-s", "mask.ratio=0.6")
    assert (status, out) == (2, "")
    assert "mask.ratio: 0.7 there, 0.6 requested" in err
    status, out, _ = command(*arguments, "--resume", "never")
    assert (status, out) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["probe", "smoke", "--data", "synth:40", "--protocol", "linaer"], "--protocol 'linaer': did you mean linear?"),
        (["embed", "a.wav", "-e", "smoke", "-o", "a.csv", "--pool", "x"], "--pool 'x': valid: mean, class, mean+std"),
        (["pretrain", "--out", "a", "--resume", "mist"], "--resume 'mist': did you mean must?"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest(command, arguments, words):
    assert command(*arguments) == (2, "", f"asit-lab: {words}\n")


@pytest.mark.parametrize(("state", "expected"), [("finished", 0), ("interrupted", 130), ("failed", 1), ("running", 1)])
def test_only_a_finished_run_is_a_success(command, monkeypatch, tmp_path, state, expected):
    metrics = pd.DataFrame({"step": [0, 10], "loss": [2.0, float("nan")]})
    run = SimpleNamespace(dir=tmp_path, status=state, metrics=metrics)
    monkeypatch.setattr(asit_lab, "pretrain", lambda *_, **__: run, raising=False)
    status, out, _ = command("pretrain", "--preset", "smoke", "--out", tmp_path, "--json")
    assert status == expected
    assert json.loads(out) == {"dir": str(tmp_path), "status": state, "last": {"step": 10, "loss": None}}


def test_evaluate_names_encoders(command, tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    arguments = ["--data", "synth:40", "--protocol", "knn", "--out", tmp_path / "out"]
    status, out, err = command("evaluate", "mine=smoke", "micro-asda", *arguments, "--json")
    assert status == 0, err
    table = json.loads(out)["table"]
    assert [row["encoder"] for row in table] == ["mine", "micro-asda", "mean+std log-mel"]  # both are untrained
    assert (tmp_path / "out/table.csv").is_file()
    status, out, err = command("evaluate", "smoke", "smoke", *arguments)
    assert (status, out) == (2, "") and "two of smoke, smoke have one name; give them as NAME=ENCODER" in err


@pytest.mark.slow
def test_finetune_and_starts(command, tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    arguments = ["--data", "synth:40", "--recipe", "smoke", "--out", tmp_path / "out"]
    status, out, err = command("finetune", "smoke", *arguments, "--fold", "2")
    assert status == 0, err
    assert "fold 2" in out and "fold 1" not in out and f"finished: {tmp_path / 'out'}" in out
    arguments[-1] = tmp_path / "starts"
    status, out, err = command("starts", "--preset", "smoke", "-s", "train.steps=2", *arguments, "--json")
    assert status == 0, err
    assert [row["encoder"] for row in json.loads(out)["table"]] == ["scratch", "pretrained"]


def test_a_dry_run_of_a_study_says_times_in_words(command, monkeypatch):
    rows = [("a", 3, 1, 23 / 3600, 0.5), ("b", 2, 0, 0.2, 0.5), ("c", 1, 1, 0.0, 0.0)]
    table = pd.DataFrame(rows, columns=["setting", "points", "finished", "hours", "disk_gb"])
    monkeypatch.setattr(
        batch, "forecast", lambda *_: Forecast(table, table["hours"].sum(skipna=False), 2, 9.0, ("mind this",))
    )
    status, out, _ = command("batch", "run", "small", "--dry-run")
    head, *shown = [fields(line) for line in out.splitlines()[:4]]
    assert status == 0 and [row[head.index("time")] for row in shown] == ["23 s", "12 min", "0 s"]
    assert "about 6 min 12 s of pretraining with 2 at once, without kernel starts, probes" in out
    assert out.endswith("note: mind this\n")
    assert json.loads(command("batch", "run", "small", "--dry-run", "--json")[1])["settings"][1]["hours"] == 0.2
    table.loc[0, "hours"] = float("nan")  # a notebook without a configuration to measure
    status, out, _ = command("batch", "run", "small", "--dry-run")
    assert fields(out.splitlines()[1])[head.index("time")] == "-" and "time    unknown" in out


def test_a_file_that_cannot_be_written_is_one_line(command, tmp_path, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "table.csv"))

    monkeypatch.setattr(cli, "app", full)
    assert command("embed") == (1, "", f"asit-lab: {tmp_path / 'table.csv'}: No space left on device\n")


def test_embed_writes_a_table_of_vectors(command, tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", np.random.default_rng(i).standard_normal(20000 + 999 * i) / 9, 16000)
    (tmp_path / "torn.wav").write_bytes(b"RIFF")
    files = ["0.wav", "1.wav", "torn.wav"]  # as a shell makes them of a pattern where it stands
    status, out, err = command("embed", *files, "--encoder", "smoke", "--out", tmp_path / "x.parquet", "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["files"] == 2 and "torn.wav" in found["skipped"][0]["skipped"]
    table = pd.read_parquet(tmp_path / "x.parquet")
    assert list(table.columns[:3]) == ["path", "seconds", "d0"] and len(table) == 2


def test_probe_of_what_is_no_model(command, tmp_path):
    status, out, err = command("probe", tmp_path / "nothing", "--data", "synth:40")
    assert (status, out) == (2, "")
    assert str(tmp_path / "nothing") in err


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_runs(tmp_path, smoke_run):
    """A folder of a finished run, one that was never started, and something else."""
    folder = tmp_path / "runs"
    shutil.copytree(smoke_run.dir, folder / "done")
    open_run(folder / "new", load_config("smoke", ["mask.ratio=0.6", "mask.ratio_min=0.5", "data.source=synth:12"]))
    (folder / "notes").mkdir()
    return folder


def test_runs_are_listed(command, two_runs, smoke_run):
    status, out, err = command("runs", two_runs)
    head, done, new = (fields(line) for line in out.splitlines())
    last = smoke_run.metrics.iloc[-1]
    assert (status, err) == (0, "note: notes is left out: not a run directory (it has no config.yaml)\n")
    assert head == ["name", "preset", "data", "status", "step", "loss", "reconstruction", "local", "global", "updated"]
    assert done[:5] == ["done", "smoke", "synth:40", "finished", "6/6"]
    assert done[5] == f"{last['loss']:.4g}" and done[8] == f"{last['loss_global']:.4g}"
    assert done[9] == smoke_run.progress["updated"][:16].replace("T", " ")
    assert new[:6] == ["new", "smoke", "synth:12", "new", "-/6", "-"]
    assert command("runs", "list", two_runs)[1] == out

    rows = json.loads(command("runs", two_runs, "--json")[1])
    assert [row["name"] for row in rows] == ["done", "new"]
    assert (rows[0]["step"], rows[0]["steps"], rows[1]["step"], rows[1]["loss"]) == (6, 6, None, None)
    assert rows[0]["loss_local"] == last["loss_local"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--status", "finished"], ["done"]),
        (["--where", "mask.ratio=0.6"], ["new"]),
        (["-w", "mask.ratio=0.6", "-w", "data.source=synth:40"], []),
        (["--sort", "-name"], ["new", "done"]),
    ],
)
def test_runs_are_chosen_and_sorted(command, two_runs, arguments, names):
    status, out, _ = command("runs", *arguments, two_runs, "--json")
    assert (status, [row["name"] for row in json.loads(out)]) == (0, names)
    if not names:
        assert command("runs", *arguments, two_runs)[1] == "no runs\n"


def test_runs_show_the_words_on_their_health(command, two_runs):
    write_json(two_runs / "new/status.json", {"status": "failed", "step": 2, "health": "the local head has collapsed"})
    out = command("runs", two_runs)[1]
    assert "health" not in out.splitlines()[0]
    assert out.splitlines()[-1] == "new: the local head has collapsed"


def test_runs_below_the_project_by_default(command, two_runs, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(two_runs.parent))
    for arguments in (["runs", "--json"], ["runs", "runs", "--json"]):
        assert [row["name"] for row in json.loads(command(*arguments)[1])] == ["done", "new"]


def test_runs_with_bad_input(command, two_runs):
    for arguments, words in [
        ([two_runs / "nowhere"], "nowhere: there is no such folder"),
        ([two_runs, "--status", "finishd"], "expected one of new"),
        ([two_runs, "--where", "mask.raito=1"], "did you mean mask.ratio?"),
        (["compare", two_runs / "done"], "at least two runs"),
        (["compare", two_runs / "done", two_runs / "notes"], "not a run directory"),
        (["compare", two_runs / "done", two_runs / "new", "--figure", two_runs / "a.gif"], ".png, .pdf or .svg"),
    ]:
        status, _, err = command("runs", *arguments)
        assert status == 2 and words in err and "Traceback" not in err


def test_runs_are_compared(command, two_runs, smoke_run):
    picture = two_runs / "figures/both.png"
    status, out, err = command("runs", "compare", two_runs / "done", two_runs / "new", "--figure", picture)
    differences, results = ([fields(line) for line in part.splitlines()] for part in out.split("\n\n"))
    assert (status, err) == (0, f"curves: {picture}\n")
    assert differences == [
        ["setting", "done", "new"],
        ["data.source", "synth:40", "synth:12"],
        ["mask.ratio", "0.7", "0.6"],
        ["mask.ratio_min", "0.7", "0.5"],
    ]
    assert results[:2] == [["result", "done", "new"], ["status", "finished", "new"]]
    assert ["parameters", str(smoke_run.result["parameters"]), "-"] in results
    assert picture.read_bytes().startswith(b"\x89PNG")

    both = json.loads(command("runs", "compare", two_runs / "done", two_runs / "new", "--json")[1])
    assert both["differences"]["mask.ratio"] == {"done": 0.7, "new": 0.6}
    assert both["results"]["loss"] == {"done": smoke_run.metrics["loss"].iloc[-1], "new": None}


def test_runs_that_agree(command, two_runs, smoke_run):
    status, out, _ = command("runs", "compare", two_runs / "done", smoke_run.dir)
    assert status == 0
    assert out.startswith("the runs agree in every setting\n\nresult")


# --- lab ------------------------------------------------------------------------------------------------------------


def test_lab_starts_in_the_notebooks_of_the_project(command, monkeypatch, tmp_path):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    started = []
    monkeypatch.setattr("os.execv", lambda program, line: started.append((program, line)))
    command("lab", "--port", 9001, "--", "--no-browser")
    ((program, line),) = started
    assert program == line[0] == sys.executable
    assert line[1:3] == ["-m", "jupyterlab"]
    assert {"--port=9001", f"--ServerApp.root_dir={tmp_path}", "--no-browser"} <= set(line)


def test_lab_outside_a_project(command, monkeypatch, tmp_path):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    status, out, err = command("lab")
    assert (status, out) == (2, "")
    assert f"{tmp_path}: no folder notebooks/" in err
