"""Names in figures as they are, fonts in PDF that publishers accept, one note on missing glyphs."""

import re
import warnings
import zlib

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.text import Text

from asit_lab import figures
from asit_lab.figures import style

NAMES = ["Ba$$in", "cash$1_$", "50%_a^b\\c", "_background_noise_", "two\nlines\t", "c"]
DRAWN = ["Ba$$in", "cash$1_$", "50%_a^b\\c", "_background_noise_", "two lines", "c"]


def named_figures() -> dict:
    """Every figure that draws names from data, of these names."""
    count, rng = len(NAMES), np.random.default_rng(0)
    metrics = pd.DataFrame({"step": range(5), "loss": [5.0, 1.0, 0.1, 0.01, 0.001]})
    clips = [(rng.random((20, 8)), rng.random((20, 8)), rng.random((20, 8)), np.eye(20, 8) > 0, name) for name in NAMES]
    axes = figures.MelAxes(0.01, 16000)
    return {
        "confusion": figures.confusion_figure(pd.DataFrame(3 * np.eye(count), index=NAMES, columns=NAMES)),
        "classes": figures.per_class_figure(pd.DataFrame({"label": NAMES, "clips": 3, "recall": 0.5})),
        "map": figures.embedding_map(rng.standard_normal((3 * count, 2)), NAMES * 3, title=NAMES[0]),
        "scores": figures.scores_figure(pd.DataFrame({"encoder": NAMES, "protocol": "a$b$", "mean": 0.5})),
        "probe": figures.probe_table(
            pd.DataFrame({"encoder": NAMES, "protocol": "a$b$", "scores": [[0.4, 0.6]] * count})
        ),
        "data": figures.dataset(pd.DataFrame({"label": NAMES, "seconds": 1.0, "sample_rate": 16000, "channels": 1})),
        "curves": figures.compared_curves(dict.fromkeys(NAMES, metrics), log=True),
        "reconstructions": figures.reconstructions(clips, axes, title="$x"),
    }


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.slow
def test_names_are_drawn_as_they_are(tmp_path):
    for kind, figure in named_figures().items():
        with rc_context({"text.parse_math": True}):  # the user's own setting
            figures.save(figure, tmp_path / f"{kind}.png")
        shown = texts(figure)
        for name in DRAWN:
            assert any(name in text for text in shown), (kind, name, shown)
        assert not [text for text in shown if "mathdefault" in text], kind


def test_pdf_has_truetype_fonts_alone(tmp_path):
    figure = figures.scores_figure(pd.DataFrame({"encoder": NAMES, "protocol": "knn", "mean": 0.5}))
    figure.savefig(tmp_path / "direct.pdf")
    figure.canvas.print_figure(tmp_path / "canvas.pdf")
    with PdfPages(tmp_path / "pages.pdf") as pages:
        pages.savefig(figure)
    figures.save(figure, tmp_path / f"{'saved' * 48}.pdf")  # a name of 244 characters
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        for stream in re.finditer(rb"stream\r?\n(.*?)endstream", content, re.DOTALL):
            try:
                content += zlib.decompress(stream[1])
            except zlib.error:
                continue
        assert b"/Type3" not in content and re.search(rb"/Subtype\s*/(CIDFontType2|TrueType)", content)


def test_missing_glyphs_are_one_note_a_process(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "_noted", set())
    label = "\ua015\ua016"  # Yi, which is in no font of the list
    figure = figures.embedding_map(np.eye(4, 2), [label, "b"] * 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figures.save(figure, tmp_path / "a.png")
        figures.save(figure, tmp_path / "b.png")
    (note,) = [str(warning.message) for warning in caught]
    assert label in note and "Noto" in note


def test_other_warnings_come_through():
    with pytest.warns(DeprecationWarning, match="something else"), style._style():
        warnings.warn("something else", DeprecationWarning, stacklevel=1)


def test_fonts_that_are_not_installed_are_not_looked_for(caplog):
    assert style._fonts()[0] == "DejaVu Sans"
    figures.waveform(np.ones(100), 1000.0, title="a")._repr_png_()
    assert "not found" not in caplog.text


def test_a_file_name_that_is_not_utf8_is_drawn(tmp_path):
    figure = figures.waveform(np.ones(100), 1000.0, title="torn\udcff$1$.wav\x00\nbelow")
    figures.save(figure, tmp_path / "a.pdf")
    assert "torn\ufffd$1$.wav\ufffd\nbelow" in texts(figure)
