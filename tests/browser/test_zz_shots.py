import json
import os

import pytest
from explorer_case import Explorer
from test_explorers import EXPLORERS, THEMES

pytestmark = pytest.mark.browser
JOBS = json.loads(os.environ["SHOTS"])  # name -> {parameter: value}


@pytest.mark.parametrize("name", JOBS)
def test_shots(name, opened, screenshots, lab):
    path = lab.home / f"notebooks/{name}.ipynb"
    nb = json.loads(path.read_text())
    cell = next(c for c in nb["cells"] if c["cell_type"] == "code")
    cell["source"] = "".join(cell["source"]) + "".join(f"\n{k} = {v!r}" for k, v in JOBS[name].items())
    path.write_text(json.dumps(nb))
    notebook = opened(name)
    notebook.run_all()
    explorer = Explorer(notebook, EXPLORERS[name])
    for theme in ("light", "dark"):
        explorer.page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", THEMES[theme])
        for width, height in ((1024, 1700), (1440, 1400), (1920, 1300)):
            explorer.page.set_viewport_size({"width": width, "height": height})
            explorer.root.evaluate("root => root.scrollIntoView({block: 'start'})")
            explorer.settle()
            explorer.page.screenshot(path=screenshots / f"{name}-{width}-{theme}.png")
