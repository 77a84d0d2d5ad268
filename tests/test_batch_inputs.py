"""What a point follows from besides its settings: code, data, recipe. A change makes another point and is named."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from batch_case import PATIENCE, write_notebook

from asit_lab import InputError, batch
from asit_lab.batch import inputs
from asit_lab.batch.execution import child
from asit_lab.batch.execution.runner import _print_stale
from asit_lab.batch.execution.runners import remember
from asit_lab.batch.execution.state import RESULT, write_state
from asit_lab.batch.inputs import code_inputs, data_stamp
from asit_lab.batch.study import read_study
from asit_lab.data import manifest
from asit_lab.storage import source_code
from asit_lab.storage.source_code import code_hashes, differences

PACKAGE = Path(__file__).resolve().parent.parent / "asit_lab"
PARAMETERS = 'preset = ""\ndata = ""\nevaluate = ""\nrecipe = ""\noverrides = ""\nseed = 0\nout = ""'


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's source that tests may edit."""
    copy = tmp_path / "source/asit_lab"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    monkeypatch.setattr(inputs, "PACKAGE", copy)
    monkeypatch.setattr(inputs, "code_hashes", lambda parts: code_hashes(parts, copy))
    return copy


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study over 20 sounds in a folder, with a recipe of its own."""
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    for number in range(20):
        path = tmp_path / f"sounds/class {number % 2}/{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(100))
    (tmp_path / "recipe.yaml").write_text("base: smoke\n")
    write_notebook(tmp_path / "point.ipynb", PARAMETERS, "pass")
    (tmp_path / "small.yaml").write_text(
        "title: Small\nnotebook: point.ipynb\nrows: [{name: a, settings: {recipe: recipe.yaml}}, {name: b}]\n"
        'scales: {smoke: {preset: smoke, data: "folder:sounds"}}\nplot: {metric: score, factor: 1, label: score}\n'
    )
    return read_study("small.yaml")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def finished(study) -> list:
    """The points of a study, remembered and finished."""
    made = batch.points(study, "smoke")
    remember(study, "smoke", made)
    for point in made:
        write_state(point.folder, "finished", seconds=1.0)
        (point.folder / "run").mkdir()
        (point.folder / RESULT).write_text('{"score": 1.0}')
        (point.folder / "point.json").write_text(json.dumps(point.to_dict()))
    return made


def reasons(study) -> list[str]:
    return batch.status(study)["reason"].tolist()


# --- Code -----------------------------------------------------------------------------------------------------------


def test_code_that_computes_counts_and_other_code_does_not():
    counted = set(code_inputs({}))
    for name in ("objectives/losses.py", "features.py", "batch/experiments.py", "training/step.py", "config.py"):
        assert name in counted
    others = [name for name in counted if name.split("/")[0] in ("cli", "figures", "widgets", "report", "storage")]
    assert others == [] and not [name for name in counted if "execution" in name or name == "_version.py"]


def test_a_changed_loss_makes_other_points_and_the_old_ones_are_stale(package, study, capsys):
    before = finished(study)
    assert reasons(study) == ["", ""]
    edit(package / "objectives/losses.py", "import torch", "import torch\nscale = 2.0")
    after = batch.points(study, "smoke")
    assert {point.hash for point in before}.isdisjoint(point.hash for point in after)
    assert reasons(study) == ["stale: objectives/losses.py changed"] * 2
    assert batch.status(study)["state"].tolist() == ["finished"] * 2  # and kept: nothing is removed
    assert batch.collect(study).notes == [
        "Stale: 2 of 2 points were computed before objectives/losses.py changed; `batch run` does them anew."
    ]
    _print_stale(study, "smoke", after)
    told = capsys.readouterr().err
    assert "small: 2 finished points are stale (objectives/losses.py changed); done anew in new folders" in told
    with pytest.raises(InputError, match="objectives/losses.py changed on .* after the study had begun"):
        child._check_code(before[0])
    child._check_code(after[0])
    remember(study, "smoke", after)
    assert reasons(study) == ["", ""]


def test_comments_docstrings_and_the_shell_make_no_other_point(package, study):
    before = [point.hash for point in batch.points(study, "smoke")]
    edit(package / "objectives/losses.py", "import torch", "# a comment\n\nimport torch")
    first = (package / "objectives/losses.py").read_text(encoding="utf-8").splitlines()[0]
    edit(package / "objectives/losses.py", first, first.replace('"""', '"""New words. ', 1))
    edit(package / "cli/batch.py", "import sys", "import sys\nscale = 2.0")
    assert [point.hash for point in batch.points(study, "smoke")] == before


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('"""a"""\nx = 1', '"""b\nc"""\n\nx = 1  ', True),
        ("x = 1", "# words\nx = 1", True),
        ("def f():\n    'a'\n    return 1", "def f():\n    'b'\n    return 1", True),
        ("x = 1", "x = 2", False),
        ('x = "a"', 'x = "b"', False),
        ('def f(): "é"; return 1', 'def f(): "é"; return 2', False),
    ],
)
def test_what_of_a_module_is_its_code(one, other, same):
    assert (source_code._code(one.encode()) == source_code._code(other.encode())) is same


def test_differences_in_words():
    assert differences({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}) == [
        "b changed",
        "c is gone",
        "d is new",
    ]


def test_files_that_a_configuration_names_count(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("class Loss:\n    scale = 1\n")
    config = {"objective": {"name": f"{own}:Loss"}, "train": {"seed": 0}}
    before = code_inputs(config)
    assert differences(code_inputs({}), before) == [f"{own} is new"]
    own.write_text("class Loss:\n    scale = 2\n")
    assert differences(before, code_inputs(config)) == [f"{own} changed"]


# --- Data and recipe ------------------------------------------------------------------------------------------------


def test_changed_data_and_recipes_make_other_points(study, tmp_path):
    before = finished(study)
    old = tmp_path / "sounds/class 0/0.wav"
    os.utime(old, (1e9, 1e9))
    assert reasons(study) == ["stale: data folder:sounds changed"] * 2
    remember(study, "smoke", batch.points(study, "smoke"))
    (tmp_path / "sounds/class 0/new.wav").write_bytes(b"new")
    assert all(reason.startswith("stale: data folder:sounds changed") for reason in reasons(study))
    assert before[0].hash not in {point.hash for point in batch.points(study, "smoke")}

    ours = [point.hash for point in batch.points(study, "smoke")]
    (tmp_path / "recipe.yaml").write_text("base: smoke\nsmoothing: 0.2\n")
    changed = [point.hash for point in batch.points(study, "smoke")]
    assert changed[0] != ours[0] and changed[1] == ours[1]  # b has no recipe
    assert [("recipe recipe.yaml changed" in reason) for reason in reasons(study)] == [True, False]
    (tmp_path / "recipe.yaml").unlink()
    assert "recipe.yaml" in reasons(study)[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "path,label\nsounds/class 0/0.wav,a\n"),
        ("list.csv", "File Name;class\nsounds/class 0/0.wav;a\n"),
        ("list.tsv", "filepath\tcategory\nsounds\\class 0\\0.wav\ta\n"),
        ("list.txt", "sounds/class 0/0.wav a\n".replace(" a\n", ",a\n")),
        ("list.jsonl", '{"filename": "0.wav", "label": "a"}\n'),
    ],
)
def test_files_that_a_list_names_in_any_form_count(study, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    before, unnamed = data_stamp(f"folder:{name}"), tmp_path / "sounds/class 1/1.wav"
    os.utime(unnamed, (1e9, 1e9))
    assert data_stamp(f"folder:{name}") == before
    os.utime(tmp_path / "sounds/class 0/0.wav", (1e9, 1e9))
    assert data_stamp(f"folder:{name}") != before


def test_data_that_are_not_here_leave_points_as_they_were(study, tmp_path):
    finished(study)
    shutil.rmtree(tmp_path / "sounds")
    assert reasons(study) == ["", ""]


def test_stamps_of_data(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    assert data_stamp("synth") == data_stamp("synth:40") == data_stamp("folder:none") == data_stamp("esc50") == ""
    folder = tmp_path / "a"
    folder.mkdir()
    for name in ("1.wav", "2.wav", ".hidden"):
        (folder / name).write_bytes(b"x")
    stamp = data_stamp("folder:a")
    (folder / ".hidden").write_bytes(b"xx")
    assert stamp == data_stamp("folder:a")
    shutil.copytree(folder, tmp_path / "b")  # with its times
    assert stamp == data_stamp("folder:b")
    (tmp_path / "b/2.wav").write_bytes(b"xy")
    assert stamp != data_stamp("folder:b")

    # A folder of links to folders, and a data set of the user's own code.
    (tmp_path / "c").mkdir()
    (tmp_path / "c/linked").symlink_to(tmp_path / "b")
    linked = data_stamp("folder:c")
    assert data_stamp("own.py:birds:c") == linked != ""
    (tmp_path / "b/3.wav").write_bytes(b"x")
    assert data_stamp("folder:c") != linked

    # A list: its own file, and those it names.
    (folder / "list.csv").write_text("path,label\n1.wav,x\n")
    listed = data_stamp("folder:a/list.csv")
    (folder / "2.wav").write_bytes(b"xyz")
    assert listed == data_stamp("folder:a/list.csv")
    (folder / "1.wav").write_bytes(b"xyz")
    assert listed != data_stamp("folder:a/list.csv")


def test_of_very_many_files_the_folders_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    monkeypatch.setattr(inputs, "_MANY_FILES", 3)
    folder = tmp_path / "a"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.wav").write_bytes(b"x")
    os.utime(folder, (1e9, 1e9))
    stamp = data_stamp("folder:a")
    (folder / "0.wav").write_bytes(b"xy")
    assert data_stamp("folder:a") == stamp
    (folder / "5.wav").write_bytes(b"x")
    assert data_stamp("folder:a") != stamp


@pytest.mark.parametrize("kind", sorted(set(manifest.SOURCES) - {"synth", "folder", "shards"}))
def test_data_are_stamped_where_they_are_looked_for(kind, tmp_path, monkeypatch):
    """The stamp of a source without PATH is that of the folder which the manifest reads."""
    monkeypatch.setenv("ASIT_LAB_DATA", str(tmp_path))
    monkeypatch.setattr(manifest, "download", lambda remote, path: pytest.fail(f"downloads to {path}"))
    for name in sorted({folder for folders in inputs._FOLDERS.values() for folder in folders} | {kind}):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    looked_in = []
    for reader in ("esc50.list_esc50", "audioset.list_audioset", "voxceleb1.list_voxceleb1"):
        monkeypatch.setattr(f"asit_lab.data.sources.{reader}", lambda path, *rest, **options: looked_in.append(path))
    for reader in ("list_twelve", "list_words"):
        monkeypatch.setattr(
            f"asit_lab.data.sources.speech_commands.{reader}", lambda path, *rest: looked_in.append(path)
        )
    manifest._list(kind, "", kind)
    assert looked_in == [inputs._folder_of(kind)]


# --- The installed package ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_installed_wheel_brings_notebooks_and_studies(tmp_path):
    """Built, unpacked and run without the checkout, in a folder that is none; and a study is done to its end there."""
    project, wheels, site, folder = PACKAGE.parent, tmp_path / "wheels", tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    source = tmp_path / "source"
    for part in ("asit_lab", "notebooks"):
        shutil.copytree(project / part, source / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for part in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(project / part, source)
    build = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    wheels.mkdir()
    command = [sys.executable, "-c", build, str(wheels)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=5 * PATIENCE)
    assert done.returncode == 0, done.stderr[-3000:]
    (wheel,) = wheels.glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    assert (site / "asit_lab/notebooks/start.ipynb").is_file()

    environment = {name: value for name, value in os.environ.items() if name != "ASIT_LAB_HOME"}
    environment["PYTHONPATH"] = str(site)  # before the checkout

    def shell(*arguments: str) -> str:
        command = [sys.executable, "-c", "from asit_lab.cli import main; main()", *arguments]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=5 * PATIENCE
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    studies = json.loads(shell("batch", "list", "--json"))
    assert [row["study"] for row in studies] == sorted(
        path.stem for path in (site / "asit_lab").rglob("ablations/*.yaml")
    )
    plan = json.loads(shell("batch", "list", "class_token", "--json"))
    assert {row["state"] for row in plan} == {"waiting"} and len(plan) >= 2
    (folder / "one.yaml").write_text(
        "title: One\nrows: [{name: a}]\n"
        'scales: {smoke: {preset: smoke, data: "synth:40", settings: {train.steps: 2}}}\n'
    )
    (row,) = json.loads(shell("batch", "run", "one.yaml", "--json"))
    assert row["state"] == "finished" and row["folder"].startswith(str(folder / "runs/points"))
    (point,) = (folder / "runs/points").glob("*/point.json")
    assert json.loads(point.read_text())["notebook"].startswith(str(site))
    assert "report.html" in shell("report", "one.yaml")


def test_the_modules_that_scores_depend_on_exist():
    from asit_lab.embedding.cache import _CODE
    from asit_lab.evaluation.provenance import FINETUNING_CODE, PROBE

    assert {"audio/reading.py", "mel.py"} <= code_hashes((*PROBE, *FINETUNING_CODE, *_CODE)).keys()
    with pytest.raises(FileNotFoundError, match=r"audio\.py"):
        code_hashes(["audio.py"])
