"""The documentation: its examples run as they are printed, and its links lead somewhere."""

import itertools
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import typer
import yaml
from test_imports import LAYERS

import asit_lab

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = re.split(r"^## ", (DOCS / "extending.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]


def files_of(text: str) -> dict[str, str]:
    """The blocks that are files, {name: content}: their first line is a comment with the name."""
    blocks = [code for language, code in BLOCK.findall(text) if language in ("python", "yaml")]
    named = [(re.match(r"# ([\w.-]+\.(?:py|yaml))\n", code), code) for code in blocks]
    return {match[1]: code for match, code in named if match}


def commands_of(text: str) -> list[str]:
    """The blocks that are typed: Python that is not a file."""
    files = files_of(text).values()
    return [code for language, code in BLOCK.findall(text) if language == "python" and code not in files]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the files of the page, as its reader has them."""
    for section in SECTIONS:
        for name, content in files_of(section).items():
            (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    yield tmp_path
    plt.close("all")


def run(title: str) -> dict:
    """What the commands of a section leave behind."""
    (section,) = (section for section in SECTIONS if section.startswith(f"{title}\n"))
    names: dict = {}
    commands = commands_of(section)
    assert commands, f"{title} shows no command"
    for code in commands:
        exec(compile(code, f"docs/extending.md, {title}", "exec"), names)
    return names


def test_every_part_has_an_example():
    titles = [section.partition("\n")[0] for section in SECTIONS]
    assert titles == [
        "A loss",
        "An objective",
        "A mask",
        "Attention",
        "A data set",
        "A recipe for fine-tuning",
        "A study",
        "An explorer",
        "From an installed package",
    ]
    assert all(files_of(section) for section in SECTIONS[:-1])


@pytest.mark.slow
def test_a_loss_is_trained(folder):
    metrics = run("A loss")["run"].metrics
    assert metrics["loss_cosine"].between(0, 2).all()
    plain = asit_lab.pretrain(asit_lab.load_config("smoke", ["train.steps=4"]), "runs/plain").metrics
    before_any_update = metrics["loss"].iloc[0] - plain["loss"].iloc[0]
    assert before_any_update == pytest.approx(0.5 * metrics["loss_cosine"].iloc[0], rel=1e-3)


def test_an_objective_is_trained_probed_and_looked_at(folder):
    names = run("An objective")
    assert names["run"].status == "finished" and names["run"].metrics["loss_level"].notna().all()
    assert 0 <= names["result"].mean <= 1
    explorer = names["explorer"]
    assert explorer.message.text == "" and explorer.png().startswith(b"\x89PNG")
    (folder / "own_objective.py").unlink()  # whoever gets the run may not have it
    assert asit_lab.load_encoder("runs/next-patch").embed([0.1] * 16000, 16000).isfinite().all()


@pytest.mark.slow
def test_a_mask_is_trained_with(folder):
    names = run("A mask")
    assert names["run"].status == "finished"
    figure = names["run"].samples
    assert figure, "the reconstruction head of ASiT is there, so pictures are drawn"


def test_attention_is_in_every_layer(folder):
    blocks = run("Attention")["encoder"].backbone.blocks
    assert {type(block.attn).__name__ for block in blocks} == {"Sharper"}


def test_a_data_set_is_read(folder):
    manifest = run("A data set")["manifest"]
    assert len(manifest) == 24 and manifest.classes == ["high", "low"] and set(manifest.table["fold"]) == {1, 2}


@pytest.mark.slow
def test_a_recipe_is_used(folder):
    result = run("A recipe for fine-tuning")["result"]
    setup = yaml.safe_load((folder / "runs/tuned/setup.yaml").read_text(encoding="utf-8"))
    assert setup["recipe"]["rate"] == 1e-3 and setup["recipe"]["epochs"] == 1
    assert 0 <= result.mean <= 1


def test_a_study_has_its_points(folder):
    assert list(run("A study")["points"]["setting"]) == ["blocks", "stripes"]


def test_an_explorer_draws(folder):
    explorer = run("An explorer")["explorer"]
    assert explorer.message.text == ""
    before = explorer.png()
    explorer.clip.value = 5
    assert explorer.png().startswith(b"\x89PNG") and explorer.png() != before


def test_entry_points_of_the_page_name_its_classes():
    """The last section's TOML, against the files of the others."""
    import tomllib

    (toml,) = (code for language, code in BLOCK.findall(SECTIONS[-1]) if language == "toml")
    groups = tomllib.loads(toml)["project"]["entry-points"]
    assert set(groups) == {f"asit_lab.{kind}" for kind in asit_lab.registry.BUILT_IN}
    files = {name: content for section in SECTIONS for name, content in files_of(section).items()}
    for target in (target for group in groups.values() for target in group.values()):
        module, _, attribute = target.partition(":")
        content = files[f"{module.removeprefix('my_package.')}.py"]
        assert re.search(rf"^(class|def) {attribute}\b", content, re.MULTILINE)


# --- The other pages ------------------------------------------------------------------------------------------------


def test_architecture_names_every_package_and_module():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "asit_lab"
    parts = sorted(path.parent.relative_to(package).as_posix() for path in package.rglob("*/__init__.py"))
    parts += sorted(path.name for path in package.glob("*.py") if not path.name.startswith("_"))
    assert [part for part in parts if f"`{part}`" not in text and f"](../asit_lab/{part})" not in text] == []
    assert len(text.splitlines()) < 100, "one page"


def test_architecture_is_in_the_order_of_imports():
    """Paragraph by paragraph: a part is told before those that may import it."""
    order = [name for layer in LAYERS for name in layer if (ROOT / "asit_lab" / name).is_dir()]
    paragraphs = (DOCS / "architecture.md").read_text(encoding="utf-8").split("\n\n")
    first = {
        part: next(i for i, text in enumerate(paragraphs) if f"`{part}`" in text) for part in order if part != "nn"
    }
    ranks = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
    for earlier, later in itertools.combinations(first, 2):
        assert ranks[earlier] == ranks[later] or first[earlier] <= first[later], (earlier, later)


def test_the_page_of_the_command_line_has_every_command():
    from asit_lab.cli import app

    def walk(command, words):
        for name, inner in command.commands.items():
            yield from walk(inner, [*words, name]) if hasattr(inner, "commands") else [" ".join([*words, name])]

    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `asit-lab ([^`]+)` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted(walk(typer.main.get_command(app), []))


PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted(DOCS.glob("*.md")))]


@pytest.mark.parametrize("page", PAGES)
def test_settings_presets_and_notebooks_of_the_pages_exist(page):
    """Wherever a page shows a command."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for setting in re.findall(r" -s ([\w.]+=[\w.]+)", text):
        if ".py" not in setting:
            asit_lab.load_config("micro", [setting])
    assert set(re.findall(r"--preset ([\w-]+)", text)) <= set(asit_lab.config.preset_names())
    assert all((ROOT / notebook).is_file() for notebook in re.findall(r"papermill (notebooks/\S+\.ipynb)", text))
