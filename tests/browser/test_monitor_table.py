"""What the monitor says of its runs, in JupyterLab: names, colours, verdicts, lines to compare with, samples of all."""

import re

import pytest
from explorer_case import Explorer
from lab_case import of_cells
from test_widgets_monitor import log, make_run, metrics_of, sample

from asit_lab import load_config
from asit_lab.runs.directory import open_run
from asit_lab.storage.atomic import write_json

pytestmark = pytest.mark.browser

CELL = "from asit_lab.widgets import RunMonitor\nRunMonitor(folder={!r})"
LATER = "from asit_lab.widgets import RunMonitor\nRunMonitor({!r}, seconds=0.2)"


@pytest.fixture
def monitor(opened, home, tmp_path):
    """Over a run whose loss rises, one that fills in worse than a line, a point of a study, and one without a row."""
    falling = metrics_of(40)
    rising = falling.assign(loss=[*falling["loss"][:20], *(falling["loss"][20:] + 2)])
    rising.to_csv(make_run(tmp_path / "many/rising", rows=40, samples=[10, 30]).dir / "metrics.csv", index=False)
    errors = [
        {"method": "reconstruction", "l1_log": 1.66},
        {"method": "linear interpolation in time", "l1_log": 1.60},
    ]
    make_run(tmp_path / "many/worse", rows=40, result={"reconstruction": errors}, samples=[20])
    point = make_run(tmp_path / "many/points/0123456789", rows=40)
    write_json(point.dir / "point.json", {"study": "alignment", "setting": "aligned", "seed": 2})
    begun = make_run(tmp_path / "many/begun", rows=40, status="running")
    for name in ("metrics.csv", "timings.csv"):
        (begun.dir / name).unlink()
    notebook = opened(of_cells(home, "many_runs", CELL.format(str(tmp_path / "many"))))
    notebook.run_all()
    return Explorer(notebook, "asit-monitor")


def choose(monitor: Explorer, *names: str) -> None:
    runs = monitor.locate(monitor.control("runs", "several"))
    options = runs.evaluate("list => [...list.options].map(({ text }) => text.replaceAll('\\xa0', ' '))")
    runs.select_option(index=[next(i for i, option in enumerate(options) if name in option) for name in names])
    monitor.settle()


def colours_of(monitor: Explorer) -> dict[str, str]:
    """Name -> the colour that the table gives a run."""
    rows = monitor.root.locator("table tr:has([style*=color])").evaluate_all(
        "rows => rows.map((row) => [row.innerText, row.querySelector('[style*=color]').style.color])"
    )
    return {re.sub(r"^\W+", "", text).split("\t")[0].strip(): colour for text, colour in rows}


def test_runs_have_names_verdicts_and_colours_that_stay(monitor):
    choose(monitor, "rising", "worse", "aligned", "begun")
    words = monitor.root.inner_text()
    assert "aligned, seed 2" in words and "0123456789" not in words
    assert "the loss rises: " in words and "no better than a straight line (1.66 against 1.6)" in words
    assert "None, after" not in words and "step -" not in words
    broken = "images => images.filter((image) => image.checkVisibility() && !image.naturalWidth).length"
    assert monitor.root.locator("img").evaluate_all(broken) == 0
    before = colours_of(monitor)
    assert len(set(before.values())) == len(before) == 4
    choose(monitor, "worse", "aligned")
    after = colours_of(monitor)
    assert len(after) == 2 and after.items() <= before.items()


def test_a_head_that_learned_nothing_has_a_line(monitor):
    choose(monitor, "rising")
    drawn = [text["words"] for text in monitor.ask("texts")]
    assert any(re.match(r"ln \d+", words) for words in drawn), drawn


def test_samples_of_all_runs_stand_under_each_other_without_a_slab(monitor):
    choose(monitor, "rising", "worse")
    picture = monitor.root.locator("img.asit-picture")
    height = "image => image.naturalHeight"
    single = picture.evaluate(height)
    monitor.locate(monitor.control("samples of", "choice")).select_option("all chosen runs")
    monitor.settle()
    assert picture.evaluate(height) > 2 * single
    assert monitor.ask("slabs") == []


def test_seeds_are_one_band(opened, home, tmp_path):
    for seed in (1, 2):
        run = open_run(tmp_path / f"point, seed {seed}", load_config("smoke", [f"train.seed={seed}"]))
        log(run, 40, level=seed)
        write_json(run.dir / "status.json", {"status": "finished", "total_steps": 400})
    notebook = opened(of_cells(home, "seeds", CELL.format(str(tmp_path))))
    notebook.run_all()
    explorer = Explorer(notebook, "asit-monitor")
    choose(explorer, "seed 1", "seed 2")
    drawn = {text["words"] for text in explorer.ask("texts")}
    assert {"point, seed 1", "point, seed 2"} <= drawn
    explorer.locate(explorer.control("group seeds", "check")).check()
    explorer.settle()
    drawn = {text["words"] for text in explorer.ask("texts")}
    assert "point: mean of 2" in drawn and "point, seed 1" not in drawn


def test_a_run_that_is_not_there_yet_is_waited_for(opened, home, page, tmp_path):
    notebook = opened(of_cells(home, "later_run", LATER.format(str(tmp_path / "later"))))
    notebook.run_all()
    explorer = Explorer(notebook, "asit-monitor")
    explorer.root.get_by_text("waiting for a run to start").wait_for()
    assert not explorer.root.locator("canvas").first.is_visible()
    sample(make_run(tmp_path / "later"), 10)
    explorer.root.locator("canvas").first.wait_for(state="visible")
    assert "later" in explorer.root.inner_text()
