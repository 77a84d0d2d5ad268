"""One browser and one JupyterLab for all browser tests, with two finished runs to look into."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lab_case import FLAGS, PATIENCE, PROJECT, Lab, OpenNotebook, chromium
from playwright.sync_api import sync_playwright
from script_case import MODEL

import asit_lab


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS, chromium_sandbox=not root)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def home(tmp_path_factory, smoke_run) -> Path:
    """A folder like a user's: notebooks/ as they are in git, and runs/ with two runs in it."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(PROJECT / "notebooks", home / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copytree(smoke_run.dir, home / "runs/first")
    # Of another seed, and long enough for the monitor to smooth its curves.
    longer = asit_lab.load_config("smoke", ["train.seed=1", "train.steps=24"])
    asit_lab.pretrain(longer, home / "runs/second", resume="never")
    return home


@pytest.fixture(scope="session")
def lab(home):
    lab = Lab(home)
    try:
        lab.wait_until_up()
        yield lab
    finally:
        lab.stop()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE * 1000)
    context.add_init_script(path=Path(__file__).parent / "explorer.js")
    page = context.new_page()
    yield page
    context.close()


@pytest.fixture
def opened(lab, page):
    """`opened("explore_masks")`: the notebook in JupyterLab, not yet run. Its kernel ends with the test."""
    notebooks = []

    def opened(name: str) -> OpenNotebook:
        notebooks.append(OpenNotebook(page, lab, name))
        return notebooks[-1]

    yield opened
    for notebook in notebooks:
        notebook.shut_down()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory) -> Path:
    """Where screenshots are kept: $ASIT_LAB_SCREENSHOTS, else with the other files of the tests."""
    kept = os.environ.get("ASIT_LAB_SCREENSHOTS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> dict[str, str]:
    """Paths of a rising and of a falling tone of eight seconds, longer than a crop, to open and to upload."""
    rate, folder = 16000, tmp_path_factory.mktemp("recordings")
    seconds = np.arange(8 * rate) / rate
    rising = 0.3 * np.sin(2 * np.pi * (200 + 100 * seconds) * seconds)
    for name, wave in {"rising": rising, "falling": rising[::-1]}.items():
        soundfile.write(folder / f"{name}.wav", wave, rate)
    return {"file": str(folder / "rising.wav"), "upload": str(folder / "falling.wav")}


@pytest.fixture
def bare(browser):
    page = browser.new_page(viewport={"width": 600, "height": 500})
    page.set_content("<body style='margin: 0'><div id='here'></div></body>")
    page.evaluate(f"() => {{ {MODEL} }}")
    yield page
    page.close()
