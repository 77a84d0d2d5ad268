"""Curves that grow in one place of a notebook while a run is under way."""

import math

import IPython.display
import pytest
from tqdm import tqdm

import asit_lab
from asit_lab import load_config
from asit_lab.runs.directory import open_run
from asit_lab.storage import progress
from asit_lab.storage.atomic import write_json
from asit_lab.storage.progress import passing_bar_style
from asit_lab.training import recorder
from asit_lab.widgets import live
from asit_lab.widgets.live import LiveCurves, references


class Handle:
    """What IPython.display.display(..., display_id=True) gives back."""

    def __init__(self, shown: list, content):
        self.place, self.shown = len(shown), shown
        shown.append([content])

    def update(self, content, **options):
        self.shown[self.place].append(content)


@pytest.fixture
def shown(monkeypatch):
    """One list for each output that was made, with all that it has held."""
    outputs: list[list] = []

    def display(content, *, display_id, raw=False):
        assert display_id is True
        assert raw == isinstance(content, dict)
        return Handle(outputs, content)

    monkeypatch.setattr(live, "display", display)
    monkeypatch.setattr(IPython.display, "display", display)
    return outputs


@pytest.fixture
def clock(monkeypatch):
    """The time LiveCurves sees, s."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(live, "time", clock)
    return clock


def row(step: int) -> dict:
    return {"step": step, "loss": 2.5, "loss_local": 1.25, "clips_per_second": 8.0}


@pytest.fixture
def run(tmp_path):
    run = open_run(tmp_path / "run", load_config("smoke"))
    write_json(run.dir / "status.json", {"status": "running", "total_steps": 100})
    write_rows(run, 0)
    return run


def write_rows(run, step: int) -> None:
    (run.dir / "metrics.csv").write_text(f"step,loss,loss_local\n{step},2.5,1.25\n")
    (run.dir / "timings.csv").write_text(f"step,seconds,clips_per_second\n{step},3.5,8\n")


def text(shown) -> str:
    return shown[0][-1]["text/plain"]


def test_two_outputs_updated_in_place(run, shown, clock):
    curves = LiveCurves(run.config, seconds=5)
    for step in range(40):
        clock.now = 100 + step
        curves(run, row(step))
    assert len(shown) == 2
    assert [len(output) for output in shown] == [8, 8]  # every five seconds of forty
    assert text(shown).startswith("step 36: loss 2.500, local 1.250, 8.0 clips/s")
    assert all(type(picture).__name__ == "NotebookFigure" for picture in shown[1])
    curves.finish(run)
    assert [len(output) for output in shown] == [9, 9]


def test_drawing_takes_a_twentieth_of_the_time(run, shown, clock, monkeypatch):
    def slowly(*_):
        clock.now += 2

    monkeypatch.setattr(live.figures, "curves", slowly)
    curves = LiveCurves(run.config, seconds=5)
    for step in range(100):
        clock.now += 1
        curves(run, row(step))
    assert [content["text/plain"].split(":")[0] for content in shown[0]] == ["step 1", "step 41", "step 81"]


def test_time_left(run, shown, clock):
    curves = LiveCurves(run.config, seconds=0)
    curves(run, row(20))  # a resumed run: the first step it sees is not step 0
    assert "left" not in text(shown)
    clock.now += 20
    curves(run, row(30))  # ten steps took 20 s, so the 69 that are left take 138 s
    assert text(shown).endswith(", 2:18 left of 100 steps")
    curves(run, row(99))
    assert "left" not in text(shown)


@pytest.mark.parametrize("progress", [{}, {"status": "running"}, {"status": "running", "total_steps": 0}])
def test_survives_a_missing_total(run, shown, clock, progress):
    write_json(run.dir / "status.json", progress)
    curves = LiveCurves(run.config, seconds=0)
    for step in range(3):
        clock.now += 1
        curves(run, row(step))
    assert text(shown) == "step 3: loss 2.500, local 1.250, 8.0 clips/s"


def test_a_finished_run_is_only_looked_at(smoke_run, shown):
    curves = LiveCurves(smoke_run.config)
    asit_lab.pretrain(smoke_run.config, smoke_run.dir, on_log=curves)
    assert shown == []
    curves.finish(smoke_run)
    assert [len(output) for output in shown] == [1, 1]
    assert text(shown).startswith("step 6: loss ")


def test_an_unfinished_run_is_only_looked_at(run, shown):
    LiveCurves(run.config).finish(run)  # it was never called: there is no pace to tell the time left from
    assert text(shown) == "step 1: loss 2.500, local 1.250, 8.0 clips/s"
    write_rows(run, 20)
    LiveCurves(run.config).finish(run)
    assert shown[2][-1]["text/plain"] == "step 21: loss 2.500, local 1.250, 8.0 clips/s"


def test_a_run_without_rows(tmp_path, shown):
    run = open_run(tmp_path / "run", load_config("smoke"))
    LiveCurves(run.config).finish(run)
    assert shown == []


def test_it_follows_a_real_run(tmp_path, shown, monkeypatch):
    monkeypatch.setattr(recorder, "save_samples", lambda *_: None)
    monkeypatch.setattr(live, "DRAWING", math.inf)
    cfg = load_config("smoke", ["data.source=synth:12", "data.crop_seconds=0.5"])
    run = asit_lab.pretrain(cfg, tmp_path / "run", on_log=LiveCurves(cfg, seconds=0))
    assert run.status == "finished"
    assert [len(output) for output in shown] == [6, 6]
    assert [content["text/plain"].split(":")[0] for content in shown[0]] == [f"step {step}" for step in range(1, 7)]


def test_without_a_notebook_it_prints(run, clock, capsys):
    """IPython's display gives no handle back where there is no notebook."""
    curves = LiveCurves(run.config, seconds=0)
    curves(run, row(0))
    curves(run, row(1))
    assert "step 2: loss 2.500" in capsys.readouterr().out


def test_references_are_the_losses_of_heads_that_know_nothing():
    cfg = load_config("smoke")
    assert references(cfg) == {
        "loss_local": (pytest.approx(math.log(32)), "ln 32: uniform"),
        "entropy_local": (pytest.approx(math.log(32)), "ln 32: uniform"),
        "loss_global": (pytest.approx(math.log(64)), "ln 64: uniform"),
        "entropy_global": (pytest.approx(math.log(64)), "ln 64: uniform"),
    }
    only = cfg.with_overrides(["objective.weights={reconstruction: 1, global: 1}"])
    assert set(references(only)) == {"loss_global", "entropy_global"}


# --- Bars that pass -------------------------------------------------------------------------------------------------


def test_a_notebook_keeps_nothing_of_a_bar_that_passes(shown, monkeypatch, capsys):
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    for _ in tqdm(range(3), desc="quick", **passing_bar_style()):
        pass
    assert shown == []
    for _ in tqdm(range(3), desc="slow", **passing_bar_style() | {"delay": 0, "mininterval": 0}):
        pass
    (texts,) = ([content["text/plain"] for content in output] for output in shown)
    assert texts[0].startswith("slow:   0%|") and any(text.startswith("slow: 100%|█") for text in texts)
    assert texts[-1] == "" and capsys.readouterr() == ("", "")


def test_a_shell_has_its_bar_where_there_is_something_to_wait_for(capsys):
    for delay, seen in ((1.0, False), (0, True)):
        for _ in tqdm(range(3), desc="bar", **passing_bar_style() | {"delay": delay}):
            pass
        assert ("bar: 100%" in capsys.readouterr().err) == seen
