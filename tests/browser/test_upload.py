"""Uploads of any size: in pieces, so that the connection to the kernel stays, and later uploads work."""

import numpy as np
import pytest
import soundfile
from explorer_case import Explorer
from lab_case import PATIENCE

pytestmark = pytest.mark.browser


def test_a_large_file_is_uploaded_and_then_another(opened, tmp_path, page):
    rate, rng = 16000, np.random.default_rng(0)
    for name, seconds in {"large": 900, "small": 3}.items():  # 29 MB, 0.1 MB
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal(rate * seconds), rate)
    notebook = opened("explore_masks")
    notebook.run_all()
    explorer = Explorer(notebook, "asit-mask")
    explorer.root.get_by_role("button", name="upload", exact=True).click()
    for name in ("large", "small"):
        before = explorer.ask("state")
        with page.expect_file_chooser() as chooser:
            explorer.root.locator("button.asit-upload").click()
        chooser.value.set_files(tmp_path / f"{name}.wav")
        image = explorer.root.locator("canvas.asit-plot").first
        page.wait_for_function(
            "([image, name]) => image.ariaLabel.startsWith(name)",
            arg=[image.element_handle(), f"{name}.wav"],
            timeout=PATIENCE * 1000,
        )
        assert "picture" in explorer.changes(before)
