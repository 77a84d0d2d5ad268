"""Configurations: presets, overrides, what is rejected and in which words, and the difference of two."""

import datetime
import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from asit_lab.batch.notebook import read_notebook
from asit_lab.config import PRESETS, diff, keys, load_config, parameter, preset_names, resolve, validate
from asit_lab.errors import InputError
from asit_lab.paths import project_root
from asit_lab.settings import steps_of
from asit_lab.storage.plain_yaml import read_yaml_text, yaml_value


def message(*overrides: str, preset: str = "smoke") -> str:
    """The whole text with which overrides of a preset are rejected."""
    with pytest.raises(InputError) as caught:
        load_config(preset, list(overrides))
    return str(caught.value)


# --- Presets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names())
def test_preset_loads_and_survives_yaml(name, tmp_path):
    cfg = load_config(name)
    assert cfg.name == name
    file = tmp_path / "config.yaml"
    file.write_text(cfg.to_yaml(), encoding="utf-8")
    assert load_config(file) == cfg
    assert load_config(tmp_path) == cfg, "a run directory is a preset too"


def test_a_preset_states_only_what_differs_from_its_base():
    small, base = load_config("asit-vit-b"), load_config("asit-vit-s")
    assert [row["key"] for row in diff(base, small)] == ["model.width", "model.heads"]
    assert small.heads == base.heads, "sections it does not mention come from the base"
    assert small.model.depth == base.model.depth == 12, "as do keys of a section it does mention"


def test_base_may_be_a_file_and_builds_up(tmp_path):
    (tmp_path / "first.yaml").write_text("base: smoke\ntrain: {steps: 11, batch_size: 4}\n")
    (tmp_path / "second.yaml").write_text(f"base: {tmp_path}/first.yaml\ntrain: {{steps: 12}}\n")
    cfg = load_config(tmp_path / "second.yaml")
    assert (cfg.name, cfg.train.steps, cfg.train.batch_size) == ("second", 12, 4)
    assert cfg.model == load_config("smoke").model


def test_a_run_directory_is_read_where_a_file_of_its_name_stands_beside_it(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("base: smoke\ntrain: {steps: 11}\n")
    (tmp_path / "run.yaml").write_text("base: smoke\n")
    assert load_config(tmp_path / "run").train.steps == 11


def test_an_entry_that_is_a_mapping_is_replaced_whole(tmp_path):
    """Odds of mask kinds in a derived preset must not be mixed with those of its base."""
    (tmp_path / "noise.yaml").write_text("base: asit-vit-s\nmask: {kinds: {noise: 2}}\n")
    cfg = load_config(tmp_path / "noise.yaml")
    assert cfg.mask.kinds == {"noise": 2.0}
    assert cfg.mask.odds == {"zeros": 0, "noise": 1, "alien": 0, "time": 0, "frequency": 0, "none": 0}


def test_base_loop_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text(f"base: {tmp_path}/b.yaml\n")
    (tmp_path / "b.yaml").write_text(f"base: {tmp_path}/a.yaml\n")
    with pytest.raises(InputError, match=r"a\.yaml: its base leads back to itself"):
        load_config(tmp_path / "a.yaml")


def test_relative_files_count_from_home(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("base: smoke\ntrain: {seed: 5}\n")
    monkeypatch.chdir("/")
    assert resolve("mine") == tmp_path / "mine"
    assert load_config("mine").train.seed == 5


def test_relative_files_count_from_the_working_directory_but_in_notebooks(tmp_path, monkeypatch):
    monkeypatch.delenv("ASIT_LAB_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert resolve("runs/a") == tmp_path / "runs/a"
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert resolve("runs/a") == project_root() / "runs/a"
    shell.config.clear()  # a terminal's IPython
    assert resolve("runs/a") == tmp_path / "runs/a"


def test_unknown_preset_lists_them_and_the_nearest():
    text = message(preset="asit-vit-z")
    assert "preset 'asit-vit-z': no such preset or file" in text
    assert "did you mean asit-vit-" in text
    assert all(name in text for name in preset_names())


@pytest.mark.parametrize(
    ("content", "words"),
    [("- 1\n- 2\n", "expected sections such as 'train:', found list"), ("train: [1\n", "not valid YAML")],
)
def test_file_that_is_no_configuration(tmp_path, content, words):
    (tmp_path / "odd.yaml").write_text(content)
    with pytest.raises(InputError, match=rf"odd\.yaml: {words}"):
        load_config(tmp_path / "odd.yaml")


def test_file_of_bytes_is_named(tmp_path):
    (tmp_path / "odd.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match=r"odd\.yaml: not valid YAML"):
        load_config(tmp_path / "odd.yaml")


# --- Overrides ------------------------------------------------------------------------------------------------------


def test_overrides_are_yaml_and_the_last_one_counts():
    cfg = load_config(
        "smoke",
        ["mask.ratio=0.9", "mask.ratio=0.6", "mask.align=true", "model.patch=[8, 16]", "train.init_from=null"],
    )
    assert (cfg.mask.ratio, cfg.mask.align, cfg.model.patch, cfg.train.init_from) == (0.6, True, (8, 16), None)


def test_override_reaches_one_entry_of_a_mapping():
    cfg = load_config("smoke", ["objective.weights.reconstruction=2"])
    assert cfg.objective.weights == {"reconstruction": 2.0, "local": 1.0, "global": 1.0}
    assert load_config("smoke", ["objective.weights={local: 3}"]).objective.weights == {"local": 3.0}


def test_override_of_a_section_keeps_the_rest_of_it():
    cfg = load_config("smoke", ["train={steps: 9}"])
    assert cfg.train.steps == 9
    assert cfg.train.batch_size == load_config("smoke").train.batch_size


def test_with_overrides_leaves_the_original_alone():
    cfg = load_config("smoke")
    changed = cfg.with_overrides(["train.seed=3"])
    assert (cfg.train.seed, changed.train.seed) == (0, 3)
    assert [row["key"] for row in diff(cfg, changed)] == ["train.seed"]


@pytest.mark.parametrize("override", ["mask.ratio", "=0.3", " =1"])
def test_override_without_key_or_value(override):
    assert message(override) == f"override {override!r}: expected key=value, such as mask.ratio=0.7"


def test_override_that_is_no_yaml():
    assert message("mask.kinds={zeros: 1") == (
        "override 'mask.kinds={zeros: 1': '{zeros: 1' is not a value YAML can read"
    )


def test_overrides_as_a_dictionary():
    given = {"mask.ratio": 0.5, "mask.kinds": {"zeros": 1}, "train": {"steps": 7}, "data.source": "folder:it's here"}
    cfg = load_config("smoke", given)
    assert (cfg.mask.ratio, cfg.mask.kinds, cfg.train.steps) == (0.5, {"zeros": 1.0}, 7)
    assert cfg.data.source == "folder:it's here" and cfg.train.log_every == load_config("smoke").train.log_every
    assert load_config("smoke").with_overrides(given) == cfg
    with pytest.raises(InputError, match="mask.ratoi: unknown key; did you mean mask.ratio"):
        load_config("smoke", {"mask.ratoi": 0.5})
    with pytest.raises(InputError, match="preset: expected a name or a path, got a dict"):
        load_config(given)


def test_a_length_in_epochs_replaces_one_in_steps(tmp_path):
    assert load_config("smoke").train.steps and load_config("smoke", ["train.epochs=50"]).train.steps is None
    assert load_config("smoke", ["train.epochs=50", "train.steps=7"]).train.steps == 7
    assert load_config("smoke", ["train={epochs: 50}"]).total_steps(80) == 500
    (tmp_path / "mine.yaml").write_text("base: smoke\ntrain: {epochs: 3}\n")
    assert load_config(tmp_path / "mine.yaml").total_steps(80) == 30


@pytest.mark.parametrize("name", ["\U0001f600 dog", "caf\udce9", "\u2028\x85\x7f", 'quo"te\\', "\ufeffx", "tab\tend\n"])
def test_values_in_one_line_of_yaml(name):
    line = yaml_value({"names": [name], "share": 0.5})
    assert line.isascii() and line.isprintable() and read_yaml_text(line) == {"names": [name], "share": 0.5}


def test_one_text_holds_several_overrides():
    """As papermill's -p passes them."""
    cfg = load_config("smoke", "mask.ratio=0.6 'mask.kinds={zeros: 1}' train.seed=2")
    assert (cfg.mask.ratio, cfg.mask.kinds, cfg.train.seed) == (0.6, {"zeros": 1.0}, 2)
    assert load_config("smoke", "") == load_config("smoke")
    with pytest.raises(InputError, match="override 'twice': expected key=value"):
        load_config("smoke", "train.seed=1 twice")


# --- What is rejected -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("mask.ratoi=0.5", "mask.ratoi: unknown key; did you mean mask.ratio?"),
        ("traim.steps=3", "traim: unknown key; did you mean train?"),
        ("steps=3", "steps: unknown key; did you mean train.steps?"),
        ("mask.kinds.zeroes=1", "mask.kinds.zeroes: unknown key; did you mean mask.kinds.zeros?"),
        ("objective.weights.globl=1", "objective.weights.globl: unknown key; did you mean objective.weights.global?"),
        ("mask.xyz=1", "mask.xyz: unknown key; valid: mask.ratio, mask.ratio_min, mask.alien_ratio, mask.block"),
    ],
)
def test_unknown_key_names_the_nearest_valid_one(override, words):
    assert message(override).startswith(words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("mask.ratio=1.3", "mask.ratio: 1.3 is not valid: Input should be less than or equal to 1 (corruption ratio"),
        ("mask.ratio=-0.1", "mask.ratio: -0.1 is not valid: Input should be greater than or equal to 0"),
        ("train.steps=0", "train.steps: 0 is not valid: Input should be greater than or equal to 1"),
        ("train.epochs=0", "train.epochs: 0 is not valid: Input should be greater than 0"),
        ("train.steps=many", "train.steps: 'many' is not valid: Input should be a valid integer"),
        ("train.batch_size=2.5", "train.batch_size: 2.5 is not valid: Input should be a valid integer"),
        ("mask.align=perhaps", "mask.align: 'perhaps' is not valid: Input should be a valid boolean"),
        ("features.std=.nan", "features.std: nan is not valid: Input should be"),
        ("features.std=0", "features.std: 0 is not valid: Input should be greater than 0"),
        ("model.patch=16", "model.patch: 16 is not valid: Input should be a valid tuple"),
        ("train.precision=fp8", "train.precision: 'fp8' is not valid: Input should be 'auto', 'fp32' or 'bf16'"),
        ("train=5", "train: 5 is not valid: expected keys inside it; "),
        ("mask.kinds=zeros", "mask.kinds: 'zeros' is not valid: expected keys inside it; "),
        ("optim.warmup=soon", "optim.warmup: 'soon' is not valid: a duration is a number of steps (400), epochs"),
        ("optim.warmup=true", "optim.warmup: True is not valid: a duration is"),
        ("optim.betas=[1, 0.9]", "optim.betas.0: 1 is not valid: Input should be less than 1"),
    ],
)
def test_wrong_value_is_named_with_what_would_be_right(override, words):
    assert message(override).startswith(words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.heads=5", "model.heads: 5 does not divide model.width 48"),
        ("model.patch=[16, 24]", "model.patch: 24 mel bands do not divide features.mel_bins 64"),
        ("data.crop_seconds=0.1", "data.crop_seconds: 0.1 s give fewer frames than one patch of 16"),
        ("train.accumulate=3", "train.accumulate: 3 does not divide train.batch_size 8"),
        ("mask.kinds={zeros: 0}", "mask.kinds: at least one of zeros, noise, alien, time, frequency, none needs odds"),
        ("objective.weights={}", "objective.weights: at least one of reconstruction, local, global needs a weight"),
        ("heads.decoder_copies=true", "heads.decoder_copies: a network that copies must be told what is corrupted"),
        ("train.freeze_backbone=true", "train.freeze_backbone: keeps the start weights of train.init_from, which"),
        ("mask.kinds={none: 1}", "objective.reconstruct: nothing is corrupted (mask.kinds, mask.ratio), so use"),
    ],
)
def test_settings_that_do_not_fit_together(override, words):
    assert message(override).startswith(words)


def test_asda_has_no_pixels_to_be_told_of():
    words = message("objective.name=asda", "model.mask_input=true")
    assert words.startswith("model.mask_input: the patches that objective.name=asda hides")


def test_reconstruction_without_corruption_is_possible_when_asked_for():
    """Row 1 of the paper's Table II."""
    cfg = load_config(
        "smoke", ["mask.kinds={none: 1}", "objective.reconstruct=all", "objective.weights={reconstruction: 1}"]
    )
    assert not cfg.mask.corrupts
    assert cfg.objective.active == ("reconstruction",)


def test_all_problems_come_in_one_message():
    lines = message("mask.ratio=1.3", "train.steps=0", "optim.rat=1").splitlines()
    assert [line.split(":")[0] for line in sorted(lines)] == ["mask.ratio", "optim.rat", "train.steps"]


def test_sections_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_config("smoke").train.steps = 3


# --- What is derived ------------------------------------------------------------------------------------------------


def test_durations():
    assert steps_of("400", steps_per_epoch=7, total=1000) == 400
    assert steps_of("10 epochs", steps_per_epoch=7, total=1000) == 70
    assert steps_of("1 epoch", steps_per_epoch=7, total=1000) == 7
    assert steps_of("25 %", steps_per_epoch=7, total=1000) == 250
    assert load_config("smoke", ["optim.warmup=3"]).optim.warmup == "3"


def test_shapes_of_the_paper():
    """6 s at 32 kHz are 598 frames, cut to 592: 37 x 8 tokens."""
    cfg = load_config("asit-vit-s")
    assert (cfg.crop_samples, cfg.input_frames, cfg.grid) == (192_000, 592, (37, 8))


def test_length_of_a_run():
    cfg = load_config("asit-vit-s")
    assert (cfg.steps_per_epoch(1000), cfg.total_steps(1000)) == (3, 120)
    assert cfg.steps_per_epoch(10) == 1, "a data set smaller than a batch still makes a step"
    assert load_config("smoke").total_steps(10**6) == 6


def test_every_key_says_what_it_is():
    undescribed = [key for key, about in keys().items() if not about]
    assert undescribed == []


# --- The difference of two ------------------------------------------------------------------------------------------

PAPER_AND_CODE = {
    "data.padding": ("ignore", "learn"),
    "data.circular_shift": (0.0, 0.5),
    "mask.ratio_min": (0.7, 0.5),
    "model.heads": (3, 6),
    "heads.shared": (False, True),
    "heads.decoder_hidden": (2048, 768),
    "heads.decoder_bottleneck": (256, 128),
    "heads.decoder_last_gelu": (False, True),
    "objective.weights.reconstruction": (1.0, 2.0),
    "objective.combine": ("mean", "sum"),
    "objective.local_tokens": ("corrupted", "all"),
    "train.epochs": (40.0, 100.0),
}


@pytest.mark.parametrize(("size", "heads"), [("s", (3, 6)), ("b", (6, 12))])
def test_paper_and_released_code_differ_in_exactly_this(size, heads):
    rows = diff(load_config(f"asit-vit-{size}"), load_config(f"asit-official-vit-{size}"))
    assert {row["key"]: (row["a"], row["b"]) for row in rows} == {**PAPER_AND_CODE, "model.heads": heads}
    assert all(row["about"] for row in rows)


def test_diff_of_equals_is_empty_and_an_absent_entry_is_none():
    cfg = load_config("smoke")
    assert diff(cfg, cfg) == []
    rows = diff(cfg, cfg.with_overrides(["mask.kinds={zeros: 0.75}"]))
    assert [(row["key"], row["a"], row["b"]) for row in rows] == [("mask.kinds.alien", 0.25, None)]


def test_diff_follows_the_order_of_the_configuration():
    changed = load_config("smoke", ["train.seed=1", "features.low_hz=50", "mask.align=true"])
    rows = diff(load_config("smoke"), changed)
    assert [row["key"] for row in rows] == ["features.low_hz", "mask.align", "train.seed"]


def test_validate_takes_the_resolved_yaml_of_any_preset():
    cfg = load_config("asit-official-vit-b")
    assert validate(yaml.safe_load(cfg.to_yaml())) == cfg
    assert (PRESETS / "asit-official-vit-b.yaml").is_file()


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (1, list[int], [1]),
        ("0 1 2", list[int], [0, 1, 2]),
        ([0, "1", 2.0], list[int], [0, 1, 2]),
        (None, list[int], []),
        ("linear 'my own'", list[str], ["linear", "my own"]),
        ("l'eau douce", list[str], ["l'eau", "douce"]),
        (2026, str, "2026"),
        (None, str, ""),
        (["runs/a"], str, "runs/a"),
        ("a #1", str, "a #1"),
        ("3", int, 3),
        (3.0, int, 3),
        ("0.5", float, 0.5),
        ("1e3", int, 1000),
        (10**30, int, 10**30),
        (datetime.date(2026, 1, 1), str, "2026-01-01"),
        ("0,1, 2", list[int], [0, 1, 2]),
        ("[0, 1]", list[int], [0, 1]),
        ("[linear, knn]", list[str], ["linear", "knn"]),
        ("[0.3, 0.5]", list[float], [0.3, 0.5]),
        ([None, "a"], list[str], ["a"]),
        (3, int | list[int], 3),
        ("3", int | list[int], 3),
        ([3], int | list[int], [3]),
        ("[0, 2]", int | list[int], [0, 2]),
    ],
)
def test_a_notebooks_parameter_is_taken_however_it_was_typed(value, kind, expected):
    taken = parameter("name", value, kind)
    assert taken == expected and type(taken) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        ({"a": 1}, str, "seed: expected a text, got {'a': 1}"),
        (1.5, int, "seed: expected a whole number, got 1.5"),
        (None, int, "seed: expected a whole number, got None"),
        (True, int, "seed: expected a whole number, got True"),
        ("two", list[int], "seed: expected a whole number, got 'two'"),
        (float("inf"), float, "seed: expected a number, got inf"),
    ],
)
def test_a_parameter_of_another_kind_is_refused_by_name(value, kind, words):
    with pytest.raises(InputError, match=re.escape(words)):
        parameter("seed", value, kind)


def test_overrides_of_every_type():
    assert load_config("smoke", "data.source='folder:/a #1/b'").data.source == "folder:/a #1/b"
    assert load_config("smoke", ["data.source=folder:/a #1/b"]).data.source == "folder:/a #1/b"
    assert load_config("smoke", [{"train.steps": 3}, "train.seed=2"]).train.steps == 3
    for wrong in (5, [5], [None]):
        with pytest.raises(InputError, match="expected"):
            load_config("smoke", wrong)


@pytest.mark.parametrize(
    "typed", ["2026-01-01", "12:30:45", "007", "yes", "2026", "a: b", "- a", "a #1", "@x", "*x", "%x"]
)
def test_names_are_taken_as_typed(typed, tmp_path):
    assert load_config("smoke", [f"train.init_from={typed}"]).train.init_from == typed
    if ": " not in typed and typed[0] not in "-@*%" and "#" not in typed:
        file = tmp_path / "own.yaml"
        file.write_text(f"base: smoke\nname: {typed}\nmask.ratio: 0.5\n")
        assert (load_config(file).name, load_config(file).mask.ratio) == (typed, 0.5)


@pytest.mark.parametrize(
    ("typed", "steps"), [("1e3", 1000), ("1_000", 1000), ("'7'", 7), ("010", 10), ("None", None), ("null", None)]
)
def test_numbers_are_taken_as_typed(typed, steps):
    assert load_config("smoke", [f"train.steps={typed}"]).train.steps == steps


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "own.yaml").write_text("mask: {ratio: 0.1}\nmask: {ratio: 0.2}\n")
    with pytest.raises(InputError, match="'mask' occurs more than once"):
        load_config(tmp_path / "own.yaml")


def test_what_is_a_path():
    assert resolve(2026) == resolve("2026") == resolve(np.int64(2026)) == resolve(b"2026")
    for wrong in (None, True, {"a": 1}, ["a"]):
        with pytest.raises(InputError, match="expected a path"):
            resolve(wrong)
    with pytest.raises(InputError, match="NUL"):
        resolve("a\0b")
    with pytest.raises(InputError, match="too long"):
        resolve("x" * 5000)
    assert resolve("~nobody-of-this-name/x").name == "x"


@pytest.mark.parametrize(
    "notebook", sorted((project_root() / "notebooks").rglob("*.ipynb")), ids=lambda path: path.stem
)
def test_notebooks_take_their_parameters_in_by_one_function(notebook):
    """But `overrides`, which load_config takes in every form."""
    if ".ipynb_checkpoints" in str(notebook):
        return
    code = "".join("".join(cell["source"]) + "\n" for cell in json.loads(notebook.read_text())["cells"])
    left = [name for name in read_notebook(notebook).parameters if f'parameter("{name}", {name}' not in code]
    assert left in ([], ["overrides"])


@pytest.mark.parametrize("name", preset_names())
def test_explained_yaml_is_the_same_configuration(name):
    cfg = load_config(name)
    text = cfg.to_yaml(explain=True)
    assert yaml.safe_load(text) == cfg.to_dict()
    lines = text.splitlines()
    assert "  # largest block, as a share of each side of the spectrogram" in lines
    settings = [i for i, line in enumerate(lines) if re.match(r"  \w+:", line)]
    assert len(settings) == len([key for key in keys() if key.count(".") == 1])
    assert [lines[i] for i in settings if not lines[i - 1].startswith("  # ")] == []
