"""Every notebook, run by stock papermill from another folder, judged by what it leaves behind."""

import base64
import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
from matplotlib.image import imread
from notebook_case import stock_papermill

from asit_lab import load_config, load_run, zoo
from asit_lab.data import load_manifest
from asit_lab.data.statistics import measure

pytestmark = pytest.mark.notebook

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOKS = PROJECT / "notebooks"


def papermill(notebook: Path, folder: Path, *parameters: str) -> subprocess.CompletedProcess:
    """`papermill notebook out.ipynb -p ...` as from a shell that stands in `folder`."""
    environment = {name: value for name, value in os.environ.items() if name != "ASIT_LAB_HOME"}
    environment |= {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}
    return stock_papermill(notebook, folder, *parameters, environment=environment)


def executed(notebook: Path, folder: Path, *parameters: str):
    """The executed notebook. No cell failed and none printed a traceback."""
    folder.mkdir(parents=True, exist_ok=True)
    done = papermill(notebook, folder, *parameters)
    assert done.returncode == 0, done.stderr[-6000:]
    found = nbformat.read(folder / "out.ipynb", as_version=4)
    assert [output for output in outputs(found) if output.output_type == "error"] == []
    for output in outputs(found):
        if output.output_type == "stream":
            assert "Traceback" not in output.text and "Error" not in output.text, output.text
    code = [cell for cell in found.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    return found


def outputs(notebook) -> list:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def cell_with(notebook, text: str):
    """The one code cell that holds `text`."""
    (found,) = [cell for cell in notebook.cells if cell.cell_type == "code" and text in cell.source]
    return found


def pictures(cell) -> list[np.ndarray]:
    """The PNG outputs of a cell, decoded: [height, width, channels] in 0..1."""
    found = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
    return [imread(io.BytesIO(base64.b64decode(data))) for data in found]


def is_picture(image: np.ndarray) -> bool:
    """Of some size, and not one colour all over."""
    return min(image.shape[:2]) > 80 and image[..., :3].std() > 0.01


def printed(cell) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.rglob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_in_git_are_bare(path):
    """No outputs; short cells; parameters that are plain literals, so that any tool can set them."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert outputs(notebook) == [] and notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count is None for cell in code)
    assert all(len(cell.source.splitlines()) < 10 for cell in code)
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and tagged[0] is code[0]
    namespace: dict = {}
    exec(tagged[0].source, {"__builtins__": {}}, namespace)  # noqa: S102  no names, no calls: literals
    assert namespace
    assert all(isinstance(value, str | int | float | bool) for value in namespace.values())


# --- pretrain -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """notebooks/pretrain.ipynb with the smoke preset: (notebook, folder of the run, where papermill was called)."""
    folder = tmp_path_factory.mktemp("pretrain")
    parameters = ["preset", "smoke", "data", "synth:40", "overrides", "train.steps=4 train.log_every=2", "seed", "3"]
    notebook = executed(NOTEBOOKS / "pretrain.ipynb", folder, *parameters, "out", str(folder / "run"))
    return notebook, load_run(folder / "run"), folder


def test_the_run_is_the_one_asked_for(pretrained):
    _, run, folder = pretrained
    assert run.status == "finished" and run.metrics["step"].tolist() == [0, 2, 3]
    wanted = ["data.source=synth:40", "train.steps=4", "train.log_every=2", "train.seed=3"]
    assert run.config == load_config("smoke", wanted)
    assert sorted(path.name for path in folder.iterdir()) == ["out.ipynb", "run"]  # nothing beside what was asked for


def test_the_kernel_is_this_environment_s(pretrained):
    notebook, run, _ = pretrained
    environment = json.loads((run.dir / "environment.json").read_text())
    assert environment["python"] == notebook.metadata.language_info.version == sys.version.split()[0]
    assert environment["command"] == "ipykernel_launcher.py"


def test_result_has_reconstruction_errors_with_baselines(pretrained):
    _, run, _ = pretrained
    errors = {row["method"]: row for row in run.result["reconstruction"]}
    assert set(errors) == {"reconstruction", "linear interpolation in time", "per-band training mean"}
    for row in errors.values():
        assert math.isfinite(row["l1"]) and 0 < row["l1"] < 10 and row["clips"] > 0 and row["pixels"] > 1000
        assert row["l1_log"] == pytest.approx(row["l1"] * 2 * run.config.features.std)
    assert len({row["l1"] for row in errors.values()}) == 3
    assert run.result["steps"] == 4 and math.isfinite(run.result["last"]["loss"])  # the loop's own entries stay


def test_result_has_the_probe_table(pretrained):
    _, run, _ = pretrained
    probes = {row["encoder"]: row for row in run.result["probe"]}
    assert list(probes) == ["teacher", *(f"random init, seed {s}" for s in (3, 4, 5)), "mean+std log-mel"]
    for row in probes.values():
        assert 0 <= row["mean"] <= 1 and len(row["scores"]) == 4  # folds of ten clips
        assert np.mean(list(row["scores"].values())) == pytest.approx(row["mean"])
    assert probes["mean+std log-mel"]["mean"] > 2 * probes["mean+std log-mel"]["chance"]  # the data can be told apart
    text = (run.dir / "result.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_result_that_is_no_better_than_the_baselines_is_said_to_be(pretrained):
    notebook, run, _ = pretrained
    errors = {row["method"]: row["l1"] for row in run.result["reconstruction"]}
    scores = {row["encoder"]: row["mean"] for row in run.result["probe"]}
    worse = errors["reconstruction"] >= errors["linear interpolation in time"]
    assert worse  # after four steps
    assert ("Not below the straight line" in printed(cell_with(notebook, "display(errors)"))) == worse
    beaten = scores["teacher"] > max(score for name, score in scores.items() if name.startswith("random init"))
    assert ("not above all of the other" in printed(cell_with(notebook, "hard to beat"))) == (not beaten)


def test_pretraining_shows_one_set_of_curves(pretrained):
    notebook, run, _ = pretrained
    cell = cell_with(notebook, "asit_lab.pretrain(")
    assert len(pictures(cell)) == 1 and is_picture(pictures(cell)[0])
    lines = [output.data["text/plain"] for output in cell.outputs if output.output_type == "display_data"]
    assert [line for line in lines if line.startswith("step ")] == [lines[0]]  # one text, updated in place
    assert lines[0].startswith("step 4: loss ") and "clips/s" in lines[0]
    assert f"finished in {run.dir}" in printed(cell)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("figures.dataset(", 1),
        ("figures.masks(", 1),
        ("figures.reconstructions(", 1),
        ("figures.class_attention(", 1),
        ("figures.probe_table(", 1),
    ],
)
def test_pretraining_shows_its_pictures(pretrained, text, count):
    found = pictures(cell_with(pretrained[0], text))
    assert len(found) == count and all(is_picture(image) for image in found)


def test_pretraining_can_be_heard_and_read(pretrained):
    notebook, _, _ = pretrained
    sounds = [output for output in outputs(notebook) if "<audio" in output.get("data", {}).get("text/html", "")]
    assert len(sounds) == 3
    assert "40 clips of 10 classes; 32 to pretrain on, 8 held out" in printed(cell_with(notebook, ".holdout("))
    tables = "".join(output.data["text/html"] for output in outputs(notebook) if "text/html" in output.get("data", {}))
    for name in ("per-band training mean", "random init, seed 4", "train.steps", "l1_log"):
        assert name in tables


def test_a_finished_run_is_only_looked_at(pretrained, tmp_path):
    """The same parameters again: nothing is trained, the numbers are the same, the curves are there."""
    _, run, _ = pretrained
    before, weights = run.result, run.snapshots[-1].stat().st_mtime_ns
    parameters = ["preset", "smoke", "data", "synth:40", "overrides", "train.steps=4 train.log_every=2", "seed", "3"]
    notebook = executed(NOTEBOOKS / "pretrain.ipynb", tmp_path / "again", *parameters, "out", str(run.dir))
    assert run.result == before and run.snapshots[-1].stat().st_mtime_ns == weights
    assert len(pictures(cell_with(notebook, "asit_lab.pretrain("))) == 1


def test_without_the_reconstruction_loss(tmp_path):
    overrides = "'objective.weights={local: 1, global: 1}' train.steps=2"
    out = ["out", str(tmp_path / "run")]
    executed(
        NOTEBOOKS / "pretrain.ipynb", tmp_path, "preset", "smoke", "data", "synth:40", "overrides", overrides, *out
    )
    result = load_run(tmp_path / "run").result
    assert result["reconstruction"] is None and len(result["probe"]) == 5


def test_bad_parameters_stop_it_with_their_reason(tmp_path):
    done = papermill(NOTEBOOKS / "pretrain.ipynb", tmp_path, "preset", "smoke", "overrides", "train.stepz=4")
    assert done.returncode != 0
    assert "train.stepz: unknown key; did you mean train.steps?" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.ipynb"]


# --- inspect_data ---------------------------------------------------------------------------------------------------


def test_inspect_data(tmp_path):
    parameters = ["data", "synth:40", "examples", "3", "out", str(tmp_path / "figures")]
    notebook = executed(NOTEBOOKS / "inspect_data.ipynb", tmp_path / "here", *parameters)
    assert "40 clips, 0.06 hours, 10 classes, 40 source recordings" in printed(
        cell_with(notebook, "load_manifest(data)")
    )
    assert "0 files cannot be used" in printed(cell_with(notebook, "files cannot be used"))
    for text, count in [("figures.dataset(", 1), ("figures.stats(", 1), ("figures.clip(", 3)]:
        found = pictures(cell_with(notebook, text))
        assert len(found) == count and all(is_picture(image) for image in found)
    mean, std, *_ = measure(load_manifest("synth:40"), load_config("micro").features)  # as asit-lab data stats does
    said = f"40 of 40 clips measured: features.mean={mean:.6f} features.std={std:.6f}\n"
    assert printed(cell_with(notebook, "figures.stats(")) == said
    saved = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in saved] == ["bands.pdf", "bands.png", "dataset.pdf", "dataset.png"]
    assert saved[0].read_bytes().startswith(b"%PDF") and is_picture(imread(saved[1]))


def test_inspect_data_of_recordings_with_bad_ones_among_them(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a/0.wav", "a/1.wav", "b/2.wav"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "data" / name, 0.1 * generator.standard_normal(16000), 16000)
    (tmp_path / "data/b/torn.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "data/b/nan.wav", np.full(16000, math.nan), 16000, subtype="FLOAT")
    notebook = executed(NOTEBOOKS / "inspect_data.ipynb", tmp_path / "here", "data", f"folder:{tmp_path / 'data'}")
    listed = printed(cell_with(notebook, "files cannot be used"))
    assert listed.startswith("2 files cannot be used") and "torn.wav: " in listed and "nan.wav: " in listed
    assert len(pictures(cell_with(notebook, "figures.clip("))) == 3


# --- compare_attention ----------------------------------------------------------------------------------------------


def test_compare_attention(pretrained, tmp_path):
    """A run beside an untrained model with differential attention: maps, curves and table of both."""
    _, run, _ = pretrained
    models = ["run_a", str(run.dir), "run_b", "micro-asda", "data", "synth:10"]
    out = ["clip", "3", "patch", "2.5,1000", "silence", "0.5", "out", str(tmp_path / "figures")]
    notebook = executed(NOTEBOOKS / "compare_attention.ipynb", tmp_path / "here", *models, *out)
    assert "clip 3, bell: 5.5 s, 9 % digital silence" in printed(cell_with(notebook, "clip_and_silence("))
    (settings,) = cell_with(notebook, "config.diff(").outputs
    assert "model.depth" in settings.data["text/html"] and "..." not in settings.data["text/html"]
    for text in ("figures.attention_comparison(", "figures.attention_by_layer("):
        found = pictures(cell_with(notebook, text))
        assert len(found) == 1 and is_picture(found[0])
    saved = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert saved == ["attention.csv", "layers.pdf", "layers.png", "maps.pdf", "maps.png"]
    table = pd.read_csv(tmp_path / "figures/attention.csv")
    assert set(table["model"]) == {"A: smoke, step 4", "B: micro-asda, untrained"}
    assert len(table) == 2 * (2 + 3 * 6)  # two queries; two layers of one kind, six of three kinds
    assert table["share_on_silent"].between(0, 1).all() and (table["entropy"] > 0).all()


def test_compare_attention_compares_trained_models(smoke_run, tmp_path):
    """The shipped encoder beside the run that finished last; alone as long as there is none."""
    notebook = NOTEBOOKS / "compare_attention.ipynb"
    home = {**os.environ, "ASIT_LAB_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    shipped = f"A: {zoo.shipped().name.split(' (')[0]}"
    for models in ([shipped], [shipped, "B: smoke, step 6"]):
        out = ["data", "synth:10", "out", str(tmp_path / "figures")]
        done = stock_papermill(notebook, tmp_path, *out, environment=home)
        assert done.returncode == 0, done.stderr[-3000:]
        table = pd.read_csv(tmp_path / "figures/attention.csv")
        assert [name.split(" (")[0] for name in dict.fromkeys(table["model"])] == models
        shutil.copytree(smoke_run.dir, tmp_path / "runs/mine", dirs_exist_ok=True)


def test_compare_attention_says_what_is_wrong(tmp_path):
    notebook = NOTEBOOKS / "compare_attention.ipynb"
    done = papermill(notebook, tmp_path, "run_a", "smoke", "run_b", "smokey", "data", "synth:10")
    assert done.returncode != 0 and "smokey: no such run, snapshot or preset" in done.stderr


# --- evaluate -------------------------------------------------------------------------------------------------------


def test_evaluate(pretrained, tmp_path):
    """A run beside its untrained architecture, frozen and fine-tuned; class by class; a map."""
    _, run, _ = pretrained
    parameters = ["encoder", str(run.dir), "data", "synth:40", "protocols", "knn finetune", "recipe", "smoke"]
    notebook = executed(NOTEBOOKS / "evaluate.ipynb", tmp_path / "here", *parameters, "out", str(tmp_path / "out"))
    assert "40 clips of 10 classes; encoder: smoke, step 4" in printed(cell_with(notebook, "zoo.open_source("))
    for text in ("figures.dataset(", "scores_figure(", "per_class_figure(", "confusion_figure(", "embedding_map("):
        found = pictures(cell_with(notebook, text))
        assert len(found) == 1 and is_picture(found[0]), text
    kinds = cell_with(notebook, "result.findings").outputs[0].data["text/plain"]
    assert "Empty DataFrame" in kinds  # pretraining made sounds of its own in every epoch, none is tested
    rows = json.loads((tmp_path / "out/result.json").read_text())["results"]
    both = ["smoke, step 4", "smoke, step 4, untrained"]
    assert [row["encoder"] for row in rows] == [*both, "mean+std log-mel", *both]
    assert [row["protocol"] for row in rows] == ["knn"] * 3 + ["finetune smoke"] * 2
    saved = sorted(path.name for path in (tmp_path / "out/figures").iterdir())
    assert saved == sorted(
        f"{name}.{kind}" for name in ("classes", "confusion", "map", "scores") for kind in ("pdf", "png")
    )


# --- predict --------------------------------------------------------------------------------------------------------


def test_predict(tmp_path):
    """A probe, a recording made of clips that it has not seen, and its events in every form."""
    parameters = ["encoder", "smoke", "data", "synth:40", "threshold", "0.05", "out", str(tmp_path / "out")]
    notebook = executed(NOTEBOOKS / "predict.ipynb", tmp_path / "here", *parameters)
    assert "probe on 30 clips: accuracy" in printed(cell_with(notebook, "asit_lab.probe("))
    found = pictures(cell_with(notebook, "classifier.timeline("))
    assert len(found) == 1 and is_picture(found[0])
    assert "% of 10 placed sounds are found" in printed(cell_with(notebook, "covered(events"))
    sounds = [output for output in outputs(notebook) if "<audio" in output.get("data", {}).get("text/html", "")]
    assert len(sounds) == 3
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    names = ("csv", "labels.txt", "pdf", "png", "selections.txt")
    assert written == ["model", "recording.wav", *(f"timeline.{name}" for name in names)]
    seconds = soundfile.info(tmp_path / "out/recording.wav").duration
    assert pd.read_csv(tmp_path / "out/timeline.csv")["end"].max() == pytest.approx(seconds)


# --- own recordings -------------------------------------------------------------------------------------------------


def test_pretrain_on_recordings_without_labels(tmp_path):
    """A flat folder has no classes: there is nothing to probe, and everything else is there."""
    generator = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for i in range(12):
        soundfile.write(tmp_path / f"data/{i}.wav", 0.1 * generator.standard_normal(40000), 16000)
    parameters = ["preset", "smoke", "data", f"folder:{tmp_path / 'data'}", "out", str(tmp_path / "run")]
    notebook = executed(NOTEBOOKS / "pretrain.ipynb", tmp_path / "here", *parameters)
    result = load_run(tmp_path / "run").result
    assert len(result["reconstruction"]) == 3 and result["probe"] is None
    assert len(pictures(cell_with(notebook, "figures.reconstructions("))) == 1


def test_relative_paths_count_from_the_project(tmp_path):
    done = papermill(NOTEBOOKS / "inspect_data.ipynb", tmp_path, "data", "folder:notebooks")
    assert done.returncode != 0
    assert f"no audio files that can be read in {NOTEBOOKS}" in done.stderr
