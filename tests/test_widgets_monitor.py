"""The monitor of runs: what it says of them, and that it follows them while they last, and no longer."""

import asyncio
import base64
import io
import json
import os
import shutil
import threading
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread, imsave
from test_notebooks import NOTEBOOKS, cell_with, executed, is_picture, pictures

from asit_lab import InputError, load_config
from asit_lab.batch.point import Point
from asit_lab.figures.style import COLOURS
from asit_lab.figures.training import compared_curves, curve_names
from asit_lab.runs.directory import open_run
from asit_lab.storage.atomic import write_json
from asit_lab.storage.lock import only_writer
from asit_lab.widgets import RunMonitor
from asit_lab.widgets import run_files as watched
from asit_lab.widgets.live import references
from asit_lab.widgets.run_curves import same_but_for_the_seed
from asit_lab.widgets.run_files import Watched, runs_below, runs_named, worth_watching

SECONDS = 0.02  # between looks, in the tests


def metrics_of(rows: int, level: float = 1.0) -> pd.DataFrame:
    step = np.arange(rows) * 10
    wave = level * np.exp(-step / 300) + 0.1 * np.cos(step)
    return pd.DataFrame(
        {"step": step, "loss": wave + 2, "loss_local": wave + 1, "rate": 1e-3, "entropy_local": wave - 0.5}
    )


def make_run(folder, rows=30, status="finished", level=1.0, result=None, samples=(), **progress):
    """A run directory as pretraining leaves it, with `rows` rows of 10 steps at 0.5 s a step."""
    run = open_run(folder, load_config("smoke"))
    log(run, rows, level)
    write_json(run.dir / "status.json", {"status": status, "step": 0, "total_steps": 400, "seconds": 83.2, **progress})
    if result:
        write_json(run.dir / "result.json", result)
    for step in samples:
        sample(run, step)
    return run


def log(run, rows, level=1.0):
    table = metrics_of(rows, level)
    table.to_csv(run.dir / "metrics.csv", index=False)
    timings = pd.DataFrame({"step": table["step"], "seconds": table["step"] * 0.5, "clips_per_second": 64.0})
    timings.to_csv(run.dir / "timings.csv", index=False)


def sample(run, step):
    (run.dir / "samples").mkdir(exist_ok=True)
    imsave(run.dir / f"samples/step-{step}.png", np.full((40, 60, 3), step % 256, dtype=np.uint8))


def image(png: bytes) -> np.ndarray:
    return imread(io.BytesIO(png))


async def until(condition, seconds: float = 20.0):
    """Wait for something to become true while the loop goes on; fails after `seconds`."""
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("did not happen in time")


# --- What it shows --------------------------------------------------------------------------------------------------


def test_a_finished_run(tmp_path):
    result = {
        "probe": [{"encoder": "random init", "mean": 0.5}, {"encoder": "teacher", "mean": 0.845}],
        "reconstruction": [
            {"method": "reconstruction", "l1_log": 1.604},
            {"method": "linear interpolation in time", "l1_log": 1.66},
        ],
    }
    make_run(tmp_path / "a", rows=40, result=result, samples=[100, 400])
    monitor = RunMonitor([tmp_path / "a"])
    assert monitor.message.text == "" and {"asit-explorer", "asit-monitor"} <= set(monitor._dom_classes)
    for words in ("finished", "391 of 400", "1:23", "64.0", "nothing wrong seen", "probe 84.5 %"):
        assert words in monitor.table.value
    assert "reconstruction 1.60, straight line 1.66" in monitor.table.value
    assert [name for _, name in monitor.curves.options] == [
        "loss", "loss_local", "rate", "clips_per_second", "entropy_local",
    ]  # fmt: skip
    assert monitor.curves.value == ("loss", "loss_local")
    assert is_picture(image(monitor.picture.png))
    assert monitor.reconstructions.value == (tmp_path / "a/samples/step-400.png").read_bytes()
    assert not monitor.watch.value and "all runs ended" in monitor.state.value


def test_every_control_changes_the_picture(tmp_path):
    make_run(tmp_path / "a", rows=40), make_run(tmp_path / "b", rows=30, level=3.0)
    monitor = RunMonitor([tmp_path / "a", tmp_path / "b"])
    assert monitor.runs.value == ("a", "b")
    seen = [monitor.picture.png]
    for control, value in [
        (monitor.axis, "logarithmic"),
        (monitor.smoothing, 0),
        (monitor.curves, ("entropy_local",)),
        (monitor.runs, ("b",)),
        (monitor.runs, ("a",)),
    ]:
        control.value = value
        assert monitor.message.text == "" and monitor.picture.png not in seen
        seen.append(monitor.picture.png)
    monitor.curves.value = ()
    assert monitor.message.text == "choose a curve in the list"
    monitor.curves.value = ("loss",)
    monitor.runs.value = ()
    assert monitor.message.text == "choose a run in the list" and monitor.png() == b""


def lines_of(monitor, curve="loss") -> list[dict]:
    (panel,) = [panel for panel in monitor.picture.panels if panel["name"] == curve]
    return panel["lines"]


def test_the_page_gets_the_lines_and_their_references(tmp_path):
    run = make_run(tmp_path / "a", rows=40)
    monitor = RunMonitor(run)
    (line,) = lines_of(monitor)
    assert line["x"] == (np.arange(40) * 10).tolist() and line["raw"] == pytest.approx(metrics_of(40)["loss"], rel=1e-5)
    assert min(line["smooth"]) > min(line["raw"])
    (panel,) = [panel for panel in monitor.picture.panels if panel["name"] == "loss_local"]
    assert panel["references"][0][1].startswith("ln ")
    monitor.smoothing.value = 0
    assert lines_of(monitor)[0]["raw"] == [] and monitor.picture.png


def test_curves_along_time_and_epochs(tmp_path):
    make_run(tmp_path / "a", rows=40)
    monitor = RunMonitor(tmp_path / "a")
    monitor.along.value = "hours"
    assert (
        lines_of(monitor)[0]["x"][-1] == pytest.approx(390 * 0.5 / 3600, rel=1e-4) and monitor.picture.axis == "hours"
    )
    monitor.along.value = "epoch"
    assert "length is given in steps" in monitor.message.text
    settings = load_config("smoke", ["train.steps=null", "train.epochs=8"])
    run = open_run(tmp_path / "b", settings)
    log(run, 40)
    write_json(run.dir / "status.json", {"status": "finished", "step": 391, "total_steps": 400})
    monitor = RunMonitor(tmp_path / "b")
    monitor.along.value = "epoch"
    assert lines_of(monitor)[0]["x"][-1] == pytest.approx(390 / 400 * 8) and monitor.message.text == ""


def test_runs_that_differ_in_their_seed_are_one_band(tmp_path):
    for seed in (1, 2):
        run = open_run(tmp_path / f"seed{seed}", load_config("smoke", [f"train.seed={seed}"]))
        log(run, 40 + seed, level=seed)
        write_json(run.dir / "status.json", {"status": "finished", "total_steps": 400})
    run = open_run(tmp_path / "rate", load_config("smoke", ["optim.rate=1e-4"]))
    log(run, 30)
    write_json(run.dir / "status.json", {"status": "finished", "total_steps": 400})
    monitor = RunMonitor([tmp_path / "seed1", tmp_path / "seed2", tmp_path / "rate"])
    monitor.smoothing.value, monitor.grouped.value = 0, True
    band, alone = lines_of(monitor)
    assert band["name"] == "seed1: mean of 2" and alone["name"] == "rate" and alone["low"] == []
    one, two = (metrics_of(41, level)["loss"][:41] for level in (1, 2))
    np.testing.assert_allclose(band["smooth"], (one + two) / 2, rtol=1e-5)
    np.testing.assert_allclose(band["low"], np.minimum(one, two), rtol=1e-5)
    assert band["colour"] == 0 and monitor.message.text == ""
    assert "optim.rate" in monitor.table.value and "train.seed" in monitor.table.value  # what differs


def test_groups_of_seeds_with_one_name_are_kept_apart():
    settings = [{"data.source": source, "train.seed": seed} for source in ("synth", "esc10") for seed in (0, 1)]
    names = [f"half, seed {seed} ({digest})" for digest, seed in (("aa", 0), ("bb", 1), ("cc", 0), ("dd", 1))]
    runs = {name: SimpleNamespace(settings=of) for name, of in zip(names, settings, strict=True)}
    assert list(same_but_for_the_seed(runs).values()) == [names[:2], names[2:]]


def test_pictures_that_were_copied_are_no_trouble(tmp_path):
    run = make_run(tmp_path / "a", samples=[10])
    shutil.copy(run.dir / "samples/step-10.png", run.dir / "samples/step-10-Copy1.png")
    assert RunMonitor(tmp_path / "a").message.text == ""


def test_runs_are_filtered_by_name(tmp_path):
    for name in ("mask/a", "mask/b", "rate/a"):
        make_run(tmp_path / name)
    monitor = RunMonitor(folder=str(tmp_path))
    monitor.filter.value = "MASK"
    assert list(monitor.runs.options) == ["mask/a", "mask/b"]
    monitor.filter.value = "nothing"
    assert list(monitor.runs.options) == [] and monitor.message.text == "choose a run in the list"
    monitor.filter.value = ""
    assert len(monitor.runs.options) == 3


def test_curves_as_pdf(tmp_path):
    make_run(tmp_path / "a")
    monitor, sent = RunMonitor(tmp_path / "a"), []
    monitor.picture.send = lambda content, buffers: sent.append((content, buffers))
    monitor.picture._receive(monitor.picture, {"kind": "pdf"}, [])
    ((content, (pdf,)),) = sent
    assert content == {"kind": "pdf"} and pdf.startswith(b"%PDF")


def test_samples_follow_the_run_until_an_older_one_is_chosen(tmp_path):
    run = make_run(tmp_path / "a", samples=[10, 20])
    make_run(tmp_path / "b")
    monitor = RunMonitor([tmp_path / "a", tmp_path / "b"])
    assert list(monitor.sampled.options) == ["a"] and monitor.sample.label == "20"
    sample(run, 30)
    monitor.watch.value = True  # look again
    assert monitor.sample.label == "30" and image(monitor.reconstructions.value)[0, 0, 0] == pytest.approx(30 / 255)
    monitor.sample.label = "10"
    assert image(monitor.reconstructions.value)[0, 0, 0] == pytest.approx(10 / 255)
    sample(run, 40)
    monitor.watch.value = True
    assert monitor.sample.label == "10" and len(monitor.sample.options) == 4
    monitor.runs.value = ("b",)
    assert monitor.reconstructions.value == b"" and monitor.sample.layout.display == "none"


def test_samples_of_all_runs_stand_under_each_other(tmp_path):
    make_run(tmp_path / "a", samples=[10, 30])
    make_run(tmp_path / "b", samples=[20])
    monitor = RunMonitor([tmp_path / "a", tmp_path / "b"])
    assert list(monitor.sampled.options) == ["a", "b", "all chosen runs"]
    single = len(image(monitor.reconstructions.value))
    monitor.sampled.value = "all chosen runs"
    assert [label for label, _ in monitor.sample.options] == ["10", "20", "30"] and monitor.sample.label == "30"
    greys = (image(monitor.reconstructions.value)[:, 0, 0] * 255).round().tolist()
    assert greys.count(30) == greys.count(20) == single and greys.index(30) < greys.index(20)
    monitor.sample.label = "10"  # b has none yet
    assert monitor.reconstructions.value == (tmp_path / "a/samples/step-10.png").read_bytes()


def test_static_curves_are_along_the_axis_and_grouped_as_the_live_ones(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"point, seed {seed}")
    monitor = RunMonitor(folder=tmp_path)
    monitor.runs.value = tuple(monitor.runs.options)
    monitor.along.value = "hours"
    figure = monitor.picture.draw_figure()
    assert {ax.get_xlabel() for ax in figure.axes} <= {"hours", ""}
    assert figure.axes[-1].lines[0].get_xdata().max() == pytest.approx(monitor.picture.panels[-1]["lines"][0]["x"][-1])
    monitor.grouped.value = True
    grouped, live = monitor.picture.draw_figure(), monitor.picture.panels[0]["lines"]
    assert [text.get_text() for text in grouped.legends[0].get_texts()] == [live[0]["name"]] == ["point: mean of 2"]
    np.testing.assert_allclose(grouped.axes[0].lines[0].get_ydata(), live[0]["smooth"], rtol=1e-4)


def test_a_run_keeps_its_colour(tmp_path):
    for name in "abc":
        make_run(tmp_path / name)
    monitor = RunMonitor([tmp_path / name for name in "abc"])
    monitor.runs.value = ("c",)
    assert COLOURS[2] in monitor.table.value and COLOURS[0] not in monitor.table.value
    monitor.runs.value = ("b", "c")
    assert COLOURS[1] in monitor.table.value and COLOURS[2] in monitor.table.value


def test_a_point_of_a_study_is_called_by_its_setting_and_seed(tmp_path):
    make_run(tmp_path / "points/0123456789")
    point = Point("aligned", 2, {}, None, {}, None, "point.ipynb", "", "0.2.0")
    write_json(tmp_path / "points/0123456789/point.json", point.to_dict())
    assert list(runs_below(tmp_path)) == ["aligned, seed 2 (012345)"]


def test_the_verdict_agrees_with_what_is_drawn(tmp_path):
    rising = metrics_of(40).assign(loss=[*np.linspace(3, 2, 20), *np.linspace(2, 3.5, 20)])
    run = make_run(tmp_path / "a", rows=40)
    rising.to_csv(run.dir / "metrics.csv", index=False)
    errors = [
        {"method": "reconstruction", "l1_log": 1.66},
        {"method": "linear interpolation in time", "l1_log": 1.60},
    ]
    make_run(tmp_path / "b", rows=40, result={"reconstruction": errors})
    table = RunMonitor([tmp_path / "a", tmp_path / "b"]).table.value
    assert "the loss rises: " in table and "3.382 now" in table
    assert "no better than a straight line (1.66 against 1.6)" in table


def test_what_a_head_that_learned_nothing_has_is_a_line(tmp_path):
    run = make_run(tmp_path / "a")
    (line,) = [words for column, (_, words) in references(run.config).items() if column == "loss_local"]
    figure = compared_curves(
        {"a": run.metrics}, ["loss_local"], references={"loss_local": [references(run.config)["loss_local"]]}
    )
    assert line in [text.get_text() for text in figure.axes[0].texts] and line.startswith("ln ")


def test_trouble_is_said(tmp_path):
    make_run(tmp_path / "a", status="failed", health="the teacher says <one> thing", reason="loss is not finite")
    make_run(tmp_path / "b", rows=2)
    monitor = RunMonitor([tmp_path / "a", tmp_path / "b"])
    assert "the teacher says &lt;one&gt; thing loss is not finite" in monitor.table.value
    assert "too early to tell" in monitor.table.value


def test_one_bundle_with_view_picture_and_text(tmp_path):
    make_run(tmp_path / "a", samples=[10])
    monitor = RunMonitor(tmp_path / "a")
    bundle = monitor._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"} <= set(bundle)
    whole = image(base64.b64decode(bundle["image/png"]))
    assert len(whole) == len(image(monitor.picture.png)) + len(image(monitor.reconstructions.value))


def test_curves_that_are_asked_for():
    runs = {"a": metrics_of(40), "b": metrics_of(40, 3.0).drop(columns="rate")}
    figure = compared_curves(runs, ["rate", "entropy_local", "not there"], log=True, smoothing=0.0, width=9.0)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["learning rate", "teacher entropy (nat): local"]
    assert [len(ax.lines) for ax in figure.axes] == [1, 2] and figure.get_figwidth() == pytest.approx(9.0)
    assert figure.axes[0].get_yscale() == "log" and figure.axes[1].get_yscale() == "linear"  # has values below 0
    smooth, rough = (compared_curves(runs, ["loss"], smoothing=share).axes[0].lines for share in (0.3, 0.0))
    assert [len(smooth), len(rough)] == [4, 2]
    spread = [np.abs(np.diff(line.get_ydata())).max() for line in (smooth[1], rough[0])]
    assert spread[0] < 0.5 * spread[1]
    assert curve_names(list(runs.values())) == ["loss", "loss_local", "rate", "entropy_local"]


# --- What goes wrong ------------------------------------------------------------------------------------------------


def test_without_a_run_it_says_how_to_make_one(tmp_path):
    monitor = RunMonitor(folder=tmp_path)
    assert str(tmp_path) in monitor.message.text and "asit-lab pretrain --preset micro" in monitor.message.text
    assert "image/png" not in monitor._repr_mimebundle_() and not monitor.watch.value
    make_run(tmp_path / "seeds/first")
    monitor.watch.value = True
    assert monitor.message.text == "" and monitor.runs.value == ("seeds/first",)
    assert is_picture(image(monitor.picture.png))
    assert "not a run directory" in RunMonitor([tmp_path / "nothing"]).message.text


def test_a_run_or_a_path_alone_is_one(tmp_path):
    run = make_run(tmp_path / "a")
    other = make_run(tmp_path / "b")
    for given in (run, run.dir, str(run.dir), [run]):
        monitor = RunMonitor(given)
        assert monitor.message.text == "" and monitor.runs.value == ("a",)
        assert runs_named(given) == {"a": run.dir}
    assert list(runs_named([run, other.dir])) == ["a", "b"]


def test_a_run_that_cannot_be_read_is_named_and_the_others_are_drawn(tmp_path):
    make_run(tmp_path / "a"), make_run(tmp_path / "b")
    (tmp_path / "b/status.json").write_text("{", encoding="utf-8")
    looked = Watched()
    folders = runs_named([tmp_path / "a", tmp_path / "b"])
    assert looked.look(folders) and list(looked.glances) == ["a"]
    assert len(looked.problems) == 1 and str(tmp_path / "b") in looked.problems[0]
    monitor = RunMonitor([tmp_path / "a", tmp_path / "b"])
    assert str(tmp_path / "b") in monitor.message.text and is_picture(image(monitor.picture.png))
    make_run(tmp_path / "b")
    monitor.watch.value = True
    assert monitor.message.text == ""


def test_which_runs_are_chosen_at_first(tmp_path):
    make_run(tmp_path / "a"), make_run(tmp_path / "b/c"), make_run(tmp_path / "d")
    (tmp_path / "not-begun").mkdir()
    (tmp_path / "not-begun/config.yaml").write_text("name: x", encoding="utf-8")
    write_json(tmp_path / "b/c/status.json", {"status": "finished"})  # the one written to last
    for turn, name in enumerate(("a", "d", "b/c")):
        for path in (tmp_path / name).iterdir():
            os.utime(path, (turn, turn))
    folders = runs_below(tmp_path)
    assert list(folders) == ["a", "b/c", "d"] and worth_watching(folders) == ["b/c"]
    with ExitStack() as hold:
        for name in ("a", "d"):
            hold.enter_context(only_writer(tmp_path / name))
            write_json(tmp_path / name / "status.json", {"status": "running"})
        os.utime(tmp_path / "a" / "status.json", (10, 10))  # before d's, however coarse the disk's clock
        assert worth_watching(folders) == ["a", "d"]
    assert worth_watching(folders) == ["d"]  # nobody is there any more
    with pytest.raises(InputError, match="no run here yet"):
        runs_below(tmp_path / "empty")


def test_files_that_did_not_change_are_not_read_again(tmp_path, monkeypatch):
    run = make_run(tmp_path / "a")
    make_run(tmp_path / "b")
    read = []
    load = watched.load_run
    monkeypatch.setattr(watched, "load_run", lambda folder: read.append(folder.name) or load(folder))
    looked, folders = Watched(), {"a": tmp_path / "a", "b": tmp_path / "b"}
    assert looked.look(folders) and read == ["a", "b"]
    assert not looked.look(folders) and not looked.look(folders) and read == ["a", "b"]
    log(run, 31)
    assert looked.look(folders) and read == ["a", "b", "a"] and looked.glances["a"].step == 301
    assert looked.look({"b": tmp_path / "b"}) and list(looked.glances) == ["b"] and len(read) == 3


def test_time_left_and_who_is_there(tmp_path):
    run = make_run(tmp_path / "a", rows=31, status="running")
    looked = Watched()
    with ExitStack() as hold:
        hold.enter_context(only_writer(run.dir))
        assert looked.look({"a": run.dir}) and looked.glances["a"].status == "running"
        assert looked.glances["a"].left == pytest.approx((399 - 300) * 0.5)
        assert not looked.look({"a": run.dir})
    # Killed: no file says so.
    assert looked.look({"a": run.dir}) and looked.glances["a"].status == "stopped"


# --- Following runs -------------------------------------------------------------------------------------------------


def test_it_follows_a_run_to_its_end(tmp_path):
    run = make_run(tmp_path / "a", status="running")

    async def follow():
        with only_writer(run.dir):
            monitor = RunMonitor([run.dir], seconds=SECONDS)
            assert monitor.watch.value and monitor.state.value.startswith("looking every")
            before, task = monitor.picture.png, monitor._task
            log(run, 35)
            await until(lambda: monitor.picture.png != before)
            assert "341 of 400" in monitor.table.value and monitor.watch.value
            write_json(run.dir / "status.json", {**run.progress, "status": "finished"})
            await until(lambda: not monitor.watch.value)
        await until(task.done)
        assert task.exception() is None and "all runs ended" in monitor.state.value
        assert "finished" in monitor.table.value

    asyncio.run(follow())


def test_a_run_that_is_not_there_yet_is_waited_for(tmp_path):
    async def follow(given):
        monitor = RunMonitor([tmp_path / "later", tmp_path / "now"] if given else None, tmp_path, seconds=SECONDS)
        assert monitor.watch.value and "waiting for a run to start" in monitor.state.value
        assert not monitor.picture.png and monitor.picture.layout.display == "none"
        make_run(tmp_path / "later")
        await until(lambda: monitor.runs.value == ("later",) and monitor.picture.png)
        assert monitor.message.text == ""
        monitor.close()

    for given in (True, False):
        for path in tmp_path.glob("*"):
            shutil.rmtree(path)
        asyncio.run(follow(given))


def test_pause_close_and_one_watcher_at_a_time(tmp_path):
    run = make_run(tmp_path / "a", status="running")

    async def follow():
        with only_writer(run.dir):
            first = RunMonitor([run.dir], seconds=SECONDS)
            first.watch.value = False
            before = first.picture.png
            assert first.state.value == "paused" and first._task is None
            log(run, 33)
            await asyncio.sleep(10 * SECONDS)
            assert first.picture.png == before
            first.watch.value = True  # looks at once
            assert first.picture.png != before and first.watch.value
            second = RunMonitor([run.dir], seconds=SECONDS)
            assert not first.watch.value and "another monitor" in first.state.value and second.watch.value
            task = second._task
            second.close()
            await until(task.done)
            assert task.cancelled()

    asyncio.run(follow())


def test_an_error_that_ends_watching_is_shown_and_logged(tmp_path, monkeypatch):
    run, logged = make_run(tmp_path / "a", status="running"), []

    def fail():
        raise RuntimeError("no such curve")

    async def follow():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: logged.append(context["exception"]))
        with only_writer(run.dir):
            monitor = RunMonitor([run.dir], seconds=SECONDS)
            monkeypatch.setattr(monitor, "redraw", fail)
            log(run, 33)
            await until(lambda: not monitor.watch.value)
            return monitor

    monitor = asyncio.run(follow())
    assert "no such curve" in monitor.message.text and monitor.state.value == "stopped by the error above"
    assert [str(error) for error in logged] == ["no such curve"]


def test_reading_does_not_hold_up_the_kernel(tmp_path, monkeypatch):
    """While a slow disk is read, other tasks of the loop go on."""
    run = make_run(tmp_path / "a", status="running")
    reading, free = [], threading.Event()

    def slow(run):
        reading.append("begun")
        reading.append(free.wait(20))
        return read(run)

    async def follow():
        with only_writer(run.dir):
            monitor = RunMonitor([run.dir], seconds=SECONDS)
            monkeypatch.setattr(watched, "_read", slow)
            log(run, 32)
            await until(lambda: reading)
            for _ in range(4):
                await asyncio.sleep(0.01)
            assert reading == ["begun"]
            free.set()
            await until(lambda: len(reading) > 1)
            monitor.close()

    read = watched._read
    asyncio.run(follow())
    assert reading[1] is True  # the loop came to set it before the reader's patience ended


def test_without_a_loop_it_draws_once(tmp_path):
    run = make_run(tmp_path / "a", status="running")
    with only_writer(run.dir):
        monitor = RunMonitor([run.dir])
        assert is_picture(image(monitor.picture.png)) and not monitor.watch.value
        assert monitor.state.value == "drawn once" and monitor._task is None


# --- The notebook ---------------------------------------------------------------------------------------------------


@pytest.mark.notebook
def test_the_notebook_of_the_monitor(tmp_path, smoke_run):
    arguments = ["runs", str(smoke_run.dir), "out", str(tmp_path / "pictures")]
    notebook = executed(NOTEBOOKS / "monitor_runs.ipynb", tmp_path, *arguments)
    (shown,) = pictures(cell_with(notebook, "RunMonitor(runs"))
    assert is_picture(shown) and is_picture(image((tmp_path / "pictures/runs.png").read_bytes()))
    empty = executed(NOTEBOOKS / "monitor_runs.ipynb", tmp_path / "empty", "folder", str(tmp_path / "none"))
    said = json.dumps(cell_with(empty, "RunMonitor(runs").outputs)
    assert "asit-lab pretrain --preset micro" in said and "image/png" not in said
