"""The report of studies whose points are real runs: its page, its files, what it says where something is missing."""

import base64
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from notebook_case import stock_papermill

import asit_lab
from asit_lab import InputError
from asit_lab.batch import points, read_study
from asit_lab.batch.execution.runners import remember
from asit_lab.batch.execution.state import RESULT, write_state
from asit_lab.report import pictures, report
from asit_lab.report.page import Chapter, PageImage
from asit_lab.report.page import page as write_page
from asit_lab.report.tables import TextTable
from asit_lab.storage import atomic as files

PROJECT = Path(__file__).resolve().parent.parent
STUDY = """title: Losses & <b>masks</b>
about: Made up; "quoted".
notebook: {notebook}
rows:
  - {{name: everything, published: 28.1}}
  - {{name: "no <i>decoder</i>", settings: {{objective.weights.reconstruction: 0}}, published: 20.2}}
  - {{name: a third, settings: {{mask.ratio: 0.5}}, published: 25.0}}
scales: {{smoke: {{preset: smoke, data: "synth:40", seeds: 2}}, micro: {{preset: micro}}}}
plot: {{reference: everything}}
published: {{source: "a paper, table II", metric: mAP, differs: "Twice the clips & <more> epochs."}}
"""


@pytest.fixture(scope="module")
def without_decoder(tmp_path_factory):
    """A run that was pretrained without the reconstruction loss."""
    config = asit_lab.load_config("smoke", ["objective.weights.reconstruction=0", "train.steps=2"])
    return asit_lab.pretrain(config, tmp_path_factory.mktemp("losses") / "run")


def finish(point, run, score: float, right: np.ndarray) -> None:
    """Leave what a finished point leaves: a run, its result and the answer to each clip."""
    shutil.copytree(run.dir, point.folder / "run")
    result = {**run.result, "probe": [{"encoder": "teacher", "protocol": "linear", "mean": score}]}
    (point.folder / RESULT).write_text(json.dumps(result))
    table = pd.DataFrame({"split": "1", "path": np.arange(40), "group": np.arange(40) // 2, "label": "x"})
    table["predicted"] = np.where(right, "x", "y")
    table.to_csv(point.folder / "run/predictions.csv", index=False)
    write_state(point.folder, "finished", seconds=30.0, host="a machine", threads=2, how="package", python="3.11.7")


@pytest.fixture(scope="module")
def home(tmp_path_factory, smoke_run, without_decoder):
    """A project with a study of which two settings are finished, and one whose notebook failed."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "notebooks").symlink_to(PROJECT / "notebooks")
    (folder / "made_up.yaml").write_text(STUDY.format(notebook=PROJECT / "notebooks/ablations/point.ipynb"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASIT_LAB_HOME", str(folder))
        found = points("made_up.yaml", "smoke")
        remember(read_study("made_up.yaml"), "smoke", found)
        everything, worse = np.arange(40) >= 0, np.arange(40) % 4 > 1
        for point, run, score, right in zip(
            found[:4],
            [smoke_run, smoke_run, without_decoder, without_decoder],
            [0.98, 1.0, 0.5, 0.52],
            [everything, everything, worse, worse],
            strict=True,
        ):
            finish(point, run, score, right)
        write_state(found[4].folder, "failed", "ValueError: <no> good")
        yield folder


def without_snapshots(home: Path, folder: Path) -> Path:
    """The same project moved, and its snapshots lost: reports without pictures of runs, which are quick."""
    shutil.copytree(home, folder, symlinks=True, ignore=shutil.ignore_patterns("snapshots", "written"))
    return folder


@pytest.fixture(scope="module")
def pictured(home):
    """The report with the pictures of two runs."""
    return report("made_up.yaml", out="written")


@pytest.fixture(scope="module")
def plain(home, tmp_path_factory):
    """The report without them."""
    folder = without_snapshots(home, tmp_path_factory.mktemp("plain") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASIT_LAB_HOME", str(folder))
        return report("made_up.yaml", out="written")


@pytest.fixture(scope="module", params=["plain", pytest.param("pictured", marks=pytest.mark.slow)])
def made(request):
    return request.getfixturevalue(request.param)


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in self.open[-1:]:
            self.words.setdefault(tag, []).append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(made):
    return Page(made.html.read_text(encoding="utf-8"))


# --- The page -------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_but_itself(made, page):
    text = made.html.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    for name in ("script", "link", "iframe", "object", "base", "b", "i", "more", "no"):
        assert page.all(name) == [], name
    for _, attributes in page.tags:
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert attributes.get("href", "#").startswith("#")
        assert "srcset" not in attributes and "url(" not in attributes.get("style", "")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "@import" not in style and "url(" not in style and "@media print" in style
    assert not re.search(r"https?://", text)


def test_a_page_of_the_scale_smoke_says_that_it_learns_nothing(made, page):
    assert [text for text in page.words["p"] if "learns nothing" in text]
    collected = asit_lab.batch.results.StudyResults(read_study("class_token"), "micro", None, None, "")
    chapter = Chapter(collected, {}, (), PageImage(b"", 1, "", "", ""), TextTable("", (), ()), "", [], [], None, [])
    assert "learns nothing" not in write_page("", [chapter], {}, [])


def test_contents_lead_to_headings_in_order(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = [attributes["href"][1:] for attributes in page.all("a")]
    assert len(ids) == len(set(ids)) and set(links) <= set(ids)
    assert {"run", "made_up", "made_up-results", "made_up-words", "made_up-published", "made_up-unfinished"} <= set(
        links
    )
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert page.all("html") == [{"lang": "en"}] and len(page.all("main")) == len(page.all("nav")) == 1


@pytest.mark.slow
def test_images_are_the_files_beside_it_and_are_described(pictured):
    images = Page(pictured.html.read_text(encoding="utf-8")).all("img")
    assert len(images) == 7  # figure, curves, three of the one run, two of the one that reconstructs nothing
    names = ["made_up_wide", "curves", "reference_reconstructions", "reference_masks", "reference_attention"]
    names += ["contrast_masks", "contrast_attention"]
    saved = [(pictured.html.parent / f"made_up/{name}.png").read_bytes() for name in names]
    assert [base64.b64decode(image["src"].partition(",")[2]) for image in images] == saved
    assert all(len(image["alt"]) > 40 for image in images) and len({image["alt"] for image in images}) == 7
    assert "everything 99 (published 28.1); no <i>decoder</i> 51 (published 20.2)" in images[0]["alt"]
    widths = [float(re.search(r"width: ([\d.]+)in", image["style"])[1]) for image in images]
    assert max(widths) == 7.0 and min(widths) > 3.3


def test_what_was_run_and_where_is_said(page):
    words = dict(zip(page.words["dt"], page.words["dd"], strict=True))
    assert (
        words["Study"] == "made_up, scale smoke" and words["Points"] == "4 of 6 finished" and words["Seeds"] == "0, 1"
    )
    assert words["Time"] == "2 min in all, 30 s to 30 s a point" and words["Data"] == "synth:40"
    assert words["Machine"].startswith("a machine") and words["Machine"].endswith("2 threads a point")
    assert f"asit_lab {asit_lab.__version__}, python 3.11.7, torch 2" in words["Versions"]
    assert words["Training"] == "2 to 6 steps, 0.5 to 1.5 epochs, 32 clips" and words["Preset"] == "smoke"


def test_differences_are_told_in_words(page):
    said = "\n".join(page.words["li"])
    assert "everything is what the others are compared with: 99.0 ± 1.4 over 2 seeds." in said
    worse = "no <i>decoder</i>: 51.0 ± 1.4 over 2 seeds, worse than everything by 50.0 points."
    assert (
        f"{worse} The difference, −50.0 points, is outside the spread over seeds, 2.0; its 95 % interval over "
        "recordings, −" in said
    )
    assert "a third: no result yet." in said
    assert "Of 2 settings beside the reference, 1 worse; 1 not known yet." in "\n".join(page.words["p"])


def test_published_values_stand_beside_ours_with_what_differs(page):
    said = "\n".join(page.words["p"])
    assert "Published: mAP (a paper, table II). Different there: Twice the clips & <more> epochs." in said
    cells = page.words["td"]
    assert "28.1" in cells and "20.2 (−7.9)" in cells and "99.0 ± 1.4" in cells


def test_points_that_are_not_finished_are_named(page):
    cells = page.words["td"]
    assert "mask.ratio = 0.5" in cells  # what is compared
    assert "failed" in cells and "ValueError: <no> good" in cells and "waiting" in cells


@pytest.mark.slow
def test_a_run_without_decoder_says_so(pictured):
    page = Page(pictured.html.read_text(encoding="utf-8"))
    notes = [text for text in page.words["p"] if text.startswith("No reconstructions")]
    assert notes == ["No reconstructions: the run has no decoder."]


# --- Files ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_files(pictured, home):
    assert pictured.html == home / "written/report.html" and pictured.files[-1] == pictured.html
    found = {path.relative_to(home / "written").as_posix() for path in (home / "written").rglob("*") if path.is_file()}
    assert found == {path.relative_to(home / "written").as_posix() for path in pictured.files}
    figures = ["made_up", "made_up_wide", "curves", "reference_reconstructions", "reference_masks"]
    figures += ["reference_attention", "contrast_masks", "contrast_attention"]
    kinds = ("pdf", "png", "svg", "csv")
    tables = {f"made_up/table.{kind}" for kind in ("csv", "md", "tex")}
    assert found == {"report.html"} | tables | {f"made_up/{name}.{kind}" for name in figures for kind in kinds}


def test_tables_hold_the_collected_numbers(made, home):
    summary = asit_lab.batch.collect("made_up.yaml").summary
    table, plotted = (pd.read_csv(made.html.parent / f"made_up/{name}.csv") for name in ("table", "made_up"))
    for name in ("mean", "spread", "published"):
        assert table[name].tolist() == pytest.approx(summary[name].tolist(), nan_ok=True)
        assert plotted[name].tolist() == pytest.approx(summary[name].tolist(), nan_ok=True)
    assert table["low"].tolist() == pytest.approx(summary["low"].tolist(), nan_ok=True)
    assert plotted.loc[0, ["seed 0", "seed 1"]].tolist() == pytest.approx([98.0, 100.0])
    assert (
        table["verdict"].tolist() == ["reference", "worse", "no result"] == made.tables["made_up"]["verdict"].tolist()
    )


@pytest.mark.slow
def test_pictures_have_their_data(pictured, smoke_run):
    folder = pictured.html.parent / "made_up"
    pixels = pd.read_csv(folder / "reference_reconstructions.csv")
    assert pixels.groupby("clip").size().tolist() == [96 * 64] * 2
    hidden = pixels["mask"] == 1
    assert (pixels.loc[hidden, "corrupted"] == 0).all() and hidden.mean() > 0.3
    assert (pixels.loc[~hidden, "corrupted"] == pixels.loc[~hidden, "clean"]).all()
    attention = pd.read_csv(folder / "contrast_attention.csv")
    assert len(attention) == 2 * 6 * 4 and attention.groupby("query")["weight"].sum().between(0.8, 1).all()
    curves = pd.read_csv(folder / "curves.csv")
    logged = smoke_run.metrics[["step", "loss_reconstruction", "loss_global"]]
    ours = curves[curves["setting"] == "everything"][logged.columns]
    assert ours.to_numpy() == pytest.approx(logged.to_numpy()) and set(curves["setting"]) == {
        "everything",
        "no <i>decoder</i>",
    }


@pytest.mark.parametrize(("holdout", "words"), [(0.25, "held out of pretraining"), (0.0, "it was pretrained on")])
def test_clips_are_said_to_be_held_out_where_they_were(holdout, words):
    encoder = asit_lab.Encoder.random(asit_lab.load_config("smoke", [f"data.holdout={holdout}"]), 0)
    clips, said = pictures._held_out(encoder)
    assert words in said and (len(clips) == 40) == (not holdout)


# --- What is missing or wrong ---------------------------------------------------------------------------------------


@pytest.fixture
def bare(home, tmp_path, monkeypatch):
    folder = without_snapshots(home, tmp_path / "bare")
    monkeypatch.setenv("ASIT_LAB_HOME", str(folder))
    return folder


def test_what_is_missing_is_named_and_the_rest_reported(bare):
    """A study that was never run, and runs that lost their weights."""
    found = report(["made_up.yaml", "class_token"])
    assert found.html == bare / "reports/report/smoke/report.html"
    assert list(found.tables) == ["made_up"] and list(found.missing) == ["class_token"]
    assert "asit-lab batch run class_token --scale smoke" in found.missing["class_token"]
    page = Page(found.html.read_text(encoding="utf-8"))
    assert "never run at the scale 'smoke' here" in "".join(page.words["li"]) and "class_token" in page.words["code"]
    notes = [text for text in page.words["p"] if text.startswith("No pictures of this run: ")]
    assert len(notes) == 2 and all("the run has no snapshot yet" in note for note in notes)
    assert len(page.all("img")) == 2  # the study's figure and the curves


def test_the_same_again_and_on_a_full_disk(plain, monkeypatch):
    """The same results give the same bytes; a page that cannot be written leaves the old one."""
    monkeypatch.setenv("ASIT_LAB_HOME", str(plain.html.parent.parent))
    before, sync = {path: path.read_bytes() for path in plain.files if path.suffix != ".pdf"}, files.sync

    def full(path):
        if "report.html" in path.name:
            raise OSError(28, "No space left on device")
        sync(path)

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OSError, match="No space left on device: .*report.html"):
        report("made_up.yaml", out="written")
    assert {path: path.read_bytes() for path in before} == before and list(plain.html.parent.rglob(".*")) == []


def test_nothing_to_report_is_one_error_and_leaves_what_is_there(bare):
    (bare / "written").mkdir()
    (bare / "written/report.html").write_text("an earlier one")
    with pytest.raises(InputError) as error:
        report(["class_token", "attention"], data="synth:20", seeds=2, out="written")
    assert "none of its 4 points is finished" in str(error.value)
    assert "asit-lab batch run class_token --scale smoke --data synth:20 --seeds 2" in str(error.value)
    assert "asit-lab batch run attention --scale smoke" in str(error.value)
    assert [path.name for path in (bare / "written").iterdir()] == ["report.html"]
    assert (bare / "written/report.html").read_text() == "an earlier one"


@pytest.mark.parametrize(
    ("studies", "scale", "message"),
    [
        ("class_tokn", "smoke", "did you mean class_token?"),
        (["made_up.yaml", "class_tokn"], "smoke", "did you mean class_token?"),
        ("made_up.yaml", "smok", "did you mean smoke?"),
        ([], "smoke", "no study was named"),
    ],
)
def test_names_that_do_not_exist(home, studies, scale, message):
    with pytest.raises(InputError, match=re.escape(message)):
        report(studies, scale, out="never")
    assert not (home / "never").exists()


# --- Shell and notebook ---------------------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", "from asit_lab.cli import main; main()", "report", *arguments],
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_command(bare):
    done = command("made_up.yaml", "attention", "--out", "shell", "--json")
    assert done.returncode == 1 and "left out: study attention: never run" in done.stderr
    printed = json.loads(done.stdout)
    assert printed["html"] == str(bare / "shell/report.html") == printed["files"][-1]
    assert printed["studies"]["made_up"][1]["verdict"] == "worse" and list(printed["missing"]) == ["attention"]
    done = command("made_up.yaml", "--out", "shell")
    assert done.returncode == 0 and str(bare / "shell/report.html") in done.stdout and "worse" in done.stdout
    done = command("attention")
    assert done.returncode == 2 and "asit-lab batch run attention --scale smoke" in done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr


@pytest.mark.notebook
def test_notebook(bare, tmp_path):
    parameters = ("studies", "made_up.yaml", "out", str(tmp_path / "report"))
    done = stock_papermill(PROJECT / "notebooks/report.ipynb", tmp_path, *parameters)
    assert done.returncode == 0, done.stderr[-6000:]
    outputs = [
        output
        for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
    assert any(
        "| everything | 2 | 99.0 ± 1.4 |" in output.get("data", {}).get("text/markdown", "") for output in outputs
    )
    assert (tmp_path / "report/report.html").is_file()
