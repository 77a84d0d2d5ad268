"""Studies, their points, and what is refused before anything starts."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from batch_case import PARAMETERS, write_notebook, write_study

from asit_lab import InputError, batch, load_config
from asit_lab.batch import expansion as check
from asit_lab.batch import points, read_study, study_names
from asit_lab.batch.execution.execute import check_without_notebook
from asit_lab.batch.notebook import read_notebook
from asit_lab.cli.batch import batch_list

PROJECT = Path(__file__).resolve().parent.parent
STUDIES = [
    "alignment",
    "asda_loss_weight",
    "asit_vs_asda",
    "attention",
    "class_token",
    "corruption_kind",
    "corruption_ratio",
    "loss_combinations",
    "model_size_and_init",
    "pretraining_length",
]
TWO = "grid: {steps: [1, 2]}\nscales: {smoke: {seeds: 2}}"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    return tmp_path


def refused(home: Path, text: str, scale: str = "smoke", **options) -> str:
    with pytest.raises(InputError) as error:
        points(write_study(home, text), scale, **options)
    return str(error.value)


# --- The studies that come with the project -------------------------------------------------------------------------


def test_all_studies_of_the_papers_are_there():
    assert study_names() == STUDIES


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("scale", ["smoke", "micro", "full"])
def test_studies_can_be_started(name, scale, tmp_path, monkeypatch):
    (tmp_path / "notebooks").symlink_to(PROJECT / "notebooks")
    (tmp_path / "data/imagenet").mkdir(parents=True)
    for size in ("small", "base"):  # what one study starts from at full size
        (tmp_path / f"data/imagenet/vit_{size}_patch16_224.safetensors").touch()
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    found = points(name, scale)
    assert len({point.setting for point in found}) >= 2
    for point in found:
        check_without_notebook(point)
        given = shlex.split(point.parameters["overrides"])
        plain = [f"data.source='{point.parameters['data']}'", f"train.seed={point.seed}"]
        assert load_config(point.parameters["preset"], [*given, *plain]).to_dict() == point.config


def test_loss_combinations_are_the_eight_of_table_two():
    found = {point.setting: point for point in points("loss_combinations", "smoke")}
    assert [point.published for point in found.values()] == [16.6, 20.2, 23.9, 25.5, 25.9, 27.1, 27.6, 28.1]
    for name, point in found.items():
        weights = point.config["objective"]["weights"]
        on = {loss for loss in ("reconstruction", "local", "global") if weights[loss] > 0}
        assert on == {loss for loss in ("reconstruction", "local", "global") if loss in name}
        assert (point.config["mask"]["kinds"] == {"none": 1.0}) == name.endswith("nothing corrupted")


def test_studies_share_points():
    everything = points("loss_combinations", "smoke")[-1]
    assert everything.setting == "reconstruction + local + global"
    for name, setting in [("corruption_ratio", "70 %"), ("attention", "model.attention=softmax")]:
        (same,) = [point for point in points(name, "smoke") if point.setting == setting]
        assert same.hash == everything.hash and same.folder == everything.folder


def test_scratch_keeps_its_start_weights():
    (scratch,) = [point for point in points("model_size_and_init", "smoke") if point.setting == "narrow, scratch"]
    objective = scratch.config["objective"]
    assert scratch.config["train"]["steps"] == 1 and objective["ema"] == objective["ema_end"] == 1.0


def test_studies_are_found_where_the_project_has_none(home, capsys):
    """Those that come with the package; one of the project's own of the same name goes first."""
    assert study_names() == STUDIES
    batch_list(None, as_json=True)
    listed = json.loads(capsys.readouterr().out)
    assert [row["study"] for row in listed] == STUDIES and listed[0]["scales"] == "smoke, micro, full"
    batch_list("attention", "smoke", as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [(row["seed"], row["state"]) for row in rows] == [(0, "waiting")] * 3
    assert points("attention", "smoke")[0].notebook == str(PROJECT / "notebooks/ablations/point.ipynb")
    own = home / "notebooks/ablations"
    own.mkdir(parents=True)
    shutil.copy(write_study(home, TWO), own / "attention.yaml")
    shutil.copy(write_study(home, TWO), own / "mine.yaml")
    assert read_study("attention").title == "Small" and study_names() == sorted([*STUDIES, "mine"])


# --- Points ---------------------------------------------------------------------------------------------------------


def test_rows_times_grid_times_seeds(home):
    text = (
        "rows: [{name: a, settings: {what: count}}, {name: b, settings: {what: nothing}, only: [micro]}]\n"
        "grid: {steps: [1, 2]}\nscales: {smoke: {seeds: 2}, micro: {grid: {steps: [7]}, seeds: [5]}}"
    )
    study = write_study(home, text)
    smoke = [(point.setting, point.seed) for point in points(study, "smoke")]
    assert smoke == [("a, steps=1", 0), ("a, steps=1", 1), ("a, steps=2", 0), ("a, steps=2", 1)]
    assert [(point.setting, point.seed) for point in points(study, "micro")] == [("a, steps=7", 5), ("b, steps=7", 5)]
    assert points(study, "micro")[1].parameters == {"what": "nothing", "steps": 7, "seed": 5}
    assert [point.seed for point in points(study, "smoke", seeds=[3])] == [3, 3]


def test_a_point_is_trained_for_the_length_that_was_checked(home):
    steps = load_config("smoke").train.steps
    grid = f"grid: {{train.epochs: [10]}}\nscales: {{smoke: {{preset: smoke, settings: {{train.steps: {steps}}}}}}}"
    study = write_study(home, grid)
    write_notebook(home / "count.ipynb", 'preset = ""\ndata = ""\noverrides = ""\nseed = 0\nout = ""', "pass")
    (point, *_) = points(study, "smoke", seeds=1)
    trained = load_config("smoke", point.parameters["overrides"]).to_dict()["train"]
    assert trained["steps"] == point.config["train"]["steps"] == steps


def test_a_point_is_its_typed_parameters_notebook_and_version(home, monkeypatch):
    study = write_study(home, TWO)
    one, other = points(study, "smoke", seeds=1)
    assert one.hash != other.hash and points(study, "smoke", seeds=1)[0].hash == one.hash
    write_notebook(home / "count.ipynb", PARAMETERS, "print(1)")
    changed = points(study, "smoke", seeds=1)[0]
    monkeypatch.setattr(check, "__version__", "9.9")
    newer = points(study, "smoke", seeds=1)[0]
    assert len({one.hash, changed.hash, newer.hash}) == 3
    assert changed.parameters == newer.parameters == one.parameters


def test_whole_numbers_become_numbers_where_the_notebook_has_one(home):
    study = write_study(home, "grid: {steps: [1, 2]}\nscales: {smoke: {}}")
    write_notebook(home / "count.ipynb", 'steps = 0.5\nseed = 0\nout = ""', "pass")
    assert [repr(point.parameters["steps"]) for point in points(study, "smoke")] == ["1.0", "2.0"]


def test_outputs_and_texts_of_a_notebook_do_not_count(home):
    path = write_notebook(home / "a.ipynb", PARAMETERS, "x = 1")
    before = read_notebook(path).code
    content = json.loads(path.read_text())
    content["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1"}]
    content["cells"].insert(0, {"cell_type": "markdown", "id": "words", "metadata": {}, "source": "words"})
    path.write_text(json.dumps(content))
    assert read_notebook(path).code == before


# --- Bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grid: {stepz: [1]}\nscales: {smoke: {}}", ["stepz: not a parameter of", "did you mean steps?"]),
        ("grid: {steps: ['1']}\nscales: {smoke: {}}", ["steps: '1' is a string", "a whole number, such as 3"]),
        ("grid: {steps: [true]}\nscales: {smoke: {}}", ["steps: True is true or false"]),
        ("grid: {mask.ratio: [0.5]}\nscales: {smoke: {}}", ["mask.ratio: ", "has no parameter 'preset'"]),
        ("grid: {seed: [0]}\nscales: {smoke: {}}", ["seed: every point is given its own"]),
        ("grid: {steps: [1, 1]}\nscales: {smoke: {}}", ["'steps=1' and 'steps=1' come to the same"]),
        ("grid: {steps: []}\nscales: {smoke: {}}", ["grid.steps: no values"]),
        ("scales: {smoke: {}}", ["there is nothing to compare"]),
        ("grid: {steps: [1]}\nscales: {smoke: {gird: {}}}", ["scales.smoke.gird: unknown key: did you mean grid?"]),
        (
            "grid: {steps: [1]}\nscales: {smoke: {measure: {metrik: x}}}",
            ["metrik: unknown key: did you mean metric?"],
        ),
        ("grd: {steps: [1]}\nscales: {smoke: {}}", ["grd: unknown key: did you mean grid?"]),
        ("grid: {steps: [1]}\nscales: {smoke: {hours: -1}}", ["scales.smoke.hours: -1 is not valid"]),
        ("grid: {steps: [1]}\nscales: {smoke: {grid: {stepz: [1]}}}", ["scales.smoke.grid.stepz", "mean steps?"]),
        ("rows: [{name: a}, {name: a}]\nscales: {smoke: {}}", ["rows: two are called 'a'"]),
        ("rows: [{name: a, only: [smok]}]\nscales: {smoke: {}}", ["rows.0.only: 'smok'", "did you mean smoke?"]),
        ("grid: {steps: [1]}\nscales: {micro: {}}", ["scale 'smoke'", "micro"]),
        ("grid: [1\n", ["not valid YAML"]),
    ],
)
def test_a_wrong_study_is_refused_in_words(home, text, words):
    message = refused(home, text)
    assert [word for word in words if word not in message] == [], message


def test_an_axis_that_no_setting_has_is_refused(home):
    path = write_study(home, "grid: {steps: [1]}\nscales: {smoke: {}}")
    path.write_text(path.read_text().replace("plot: {", "plot: {x: stepz, "))
    with pytest.raises(InputError, match="plot.x: no setting has 'stepz': did you mean steps?"):
        read_study(path)


def test_settings_are_checked_against_the_configuration(home):
    study = write_study(home, "grid: {mask.ratoi: [0.5]}\nscales: {smoke: {preset: smoke}}")
    write_notebook(home / "count.ipynb", 'preset = ""\ndata = ""\noverrides = ""\nseed = 0\nout = ""', "pass")
    with pytest.raises(InputError, match="setting 'mask.ratoi=0.5': mask.ratoi: unknown key; did you mean mask.ratio?"):
        points(study, "smoke")
    study.write_text(study.read_text().replace("mask.ratoi: [0.5]", "mask.ratio: [0.5, 1.5]"))
    with pytest.raises(InputError, match="setting 'mask.ratio=1.5': mask.ratio: 1.5 is not valid"):
        points(study, "smoke")
    study.write_text(study.read_text().replace("0.5, 1.5", "0.7, 0.5").replace("preset: smoke", "preset: smoky"))
    with pytest.raises(InputError, match="did you mean smoke?"):
        points(study, "smoke")


def test_data_are_looked_for_before_the_first_point(home):
    study = write_study(home, "grid: {mask.ratio: [0.5, 0.7]}\nscales: {smoke: {preset: smoke, data: 'folder:nope'}}")
    write_notebook(home / "count.ipynb", 'preset = ""\ndata = ""\noverrides = ""\nseed = 0\nout = ""', "pass")
    with pytest.raises(InputError, match=f"{home}/nope does not exist"):
        batch.run(study)
    study.write_text(study.read_text().replace("'folder:nope'", "'synth:20', settings: {evaluate: 'folder:none'}"))
    write_notebook(
        home / "count.ipynb", 'preset = ""\ndata = ""\nevaluate = ""\noverrides = ""\nseed = 0\nout = ""', "pass"
    )
    with pytest.raises(InputError, match=f"{home}/none does not exist"):
        batch.run(study)
    assert not (home / "runs").exists()


def test_recipes_are_checked(home):
    study = write_study(home, "grid: {mask.ratio: [0.5]}\nscales: {smoke: {settings: {recipe: smokey}}}")
    parameters = 'preset = "smoke"\ndata = ""\nrecipe = ""\noverrides = ""\nseed = 0\nout = ""'
    write_notebook(home / "count.ipynb", parameters, "pass")
    with pytest.raises(InputError, match="setting 'mask.ratio=0.5': .*smokey.* did you mean smoke"):
        points(study, "smoke")


def test_seeds_are_checked(home):
    for wrong in (-1, [0, 0], [-1], ["1"], True):
        assert refused(home, TWO, seeds=wrong).count("seeds: ") == 1


def test_unknown_studies_name_the_nearest():
    with pytest.raises(InputError, match="did you mean loss_combinations?"):
        read_study("loss_combination")


def test_a_notebook_without_a_cell_for_parameters(home):
    study = write_study(home, TWO)
    write_notebook(home / "count.ipynb", PARAMETERS, "pass", tagged=False)
    with pytest.raises(InputError, match="count.ipynb: no cell tagged `parameters`"):
        points(study, "smoke")
    write_notebook(home / "count.ipynb", "seed = 1 + int('3')", "pass")
    with pytest.raises(InputError, match="nothing but plain values"):
        points(study, "smoke")
    write_notebook(home / "count.ipynb", "seed = 0", "pass")
    with pytest.raises(InputError, match="no parameter 'out'"):
        points(study, "smoke")
    (home / "count.ipynb").write_text("{")
    with pytest.raises(InputError, match="count.ipynb: not a notebook"):
        points(study, "smoke")
    (home / "count.ipynb").unlink()
    with pytest.raises(InputError, match="count.ipynb: there is no such notebook"):
        points(study, "smoke")


def test_a_missing_kernel(home):
    notebook = read_notebook(write_notebook(home / "a.ipynb", PARAMETERS, kernel="python33"))
    with pytest.raises(InputError, match="its kernel 'python33' is not installed; there are: .*python3"):
        check.check_kernel(notebook)
    check.check_kernel(read_notebook(write_notebook(home / "a.ipynb", PARAMETERS)))


def test_only_our_own_point_can_be_done_without_its_notebook(home):
    point = points(write_study(home, TWO), "smoke")[0]
    with pytest.raises(InputError, match="only notebooks with the parameters preset, data, .* unknown: steps"):
        check_without_notebook(point)
