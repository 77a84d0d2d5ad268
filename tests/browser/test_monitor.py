"""A run that another process trains, watched in JupyterLab: curves grow by themselves, and stop growing on Pause."""

import subprocess
import sys
from pathlib import Path

import pytest
from explorer_case import Explorer
from lab_case import PATIENCE, environment

pytestmark = pytest.mark.browser


@pytest.fixture
def run_under_way(home):
    """runs/live: a training process, far from its end, ended with the test."""
    command = [Path(sys.executable).parent / "asit-lab", "pretrain", "--preset", "smoke", "--out", home / "runs/live"]
    command += ["--set", "train.steps=100000"]
    with (home / "live.log").open("w") as log:
        process = subprocess.Popen(command, env=environment(home), stdout=log, stderr=log)
    yield process
    process.kill()
    process.wait()


def test_a_run_is_watched_while_it_learns(opened, run_under_way, home, page):
    while not (home / "runs/live/metrics.csv").is_file():
        assert run_under_way.poll() is None, (home / "live.log").read_text()[-2000:]
        page.wait_for_timeout(200)
    notebook = opened("monitor_runs")
    notebook.run_all()
    explorer = Explorer(notebook, "asit-monitor")
    assert "live" in explorer.root.inner_text()
    before = explorer.ask("state")["picture"]
    grown = "async (root, before) => (await asit.state(root)).picture !== before"
    for _ in range(2):  # nobody touches anything
        page.wait_for_function(
            f"async ([root, before]) => ({grown})(root, before)",
            arg=[explorer.root.element_handle(), before],
            timeout=PATIENCE * 1000,
        )
        before = explorer.ask("state")["picture"]
    explorer.root.get_by_role("button", name="Pause").click()
    explorer.root.get_by_role("button", name="Watch").wait_for()
    explorer.settle()
    before = explorer.ask("state")["picture"]
    page.wait_for_timeout(7000)  # two looks' worth
    assert explorer.ask("state")["picture"] == before
    assert run_under_way.poll() is None
