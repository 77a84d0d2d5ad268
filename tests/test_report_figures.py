"""Figures for print: as wide as a paper's columns, nothing clipped, told apart in grey, and with their data."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.image import imread
from matplotlib.text import Text
from report_case import NAN, collected_of

from asit_lab import InputError
from asit_lab.batch.figure_of_study import draw, plotted
from asit_lab.figures import MelAxes
from asit_lab.figures.ablation import ablation
from asit_lab.figures.printed import WIDTHS, mask_strip, reconstruction_strip
from asit_lab.report.pictures import _of_each_kind
from asit_lab.report.plots import in_words
from asit_lab.report.saving import save_with_table

AXES = MelAxes(0.01, 16000, normalised=True)
LOSSES = [
    "reconstruction, nothing corrupted",
    "global, nothing corrupted",
    "local",
    "reconstruction + local + global",
    "ImageNet then AudioSet-2M and a name that is too long for any column",
    "model.attention=softmax",
]
DOTS = [(name, 3, 40.0 + 5 * i, 2.0, i - 5.0, NAN, NAN, None, 16.6 + i) for i, name in enumerate(LOSSES)]


def curves(width: str, lines: bool = True, published: bool = True, best=None):
    rows = [
        {"setting": f"{x}{on}", "x": x, "on": on, "mean": 10 + x + 3 * on, "spread": 1.0, "published": 20.0 + x}
        for on in (True, False)
        for x in (10, 40, 160)
    ]
    table = pd.DataFrame(rows)
    words = {"x": "x", "x_label": "epochs", "lines": "on" if lines else None, "best": best}
    metric = "mAP of AudioSet-20K" if published else None
    return ablation(table, pd.DataFrame(), "linear probe, accuracy (%)", published_label=metric, width=width, **words)


FIGURES = {
    "dots": lambda width: draw(collected_of(DOTS, "local").study, plotted(collected_of(DOTS, "local")), width),
    "dots, ours alone": lambda width: draw(
        collected_of(DOTS, "local", published=None).study, plotted(collected_of(DOTS, "local", published=None)), width
    ),
    "curves": curves,
    "curves, ours alone": lambda width: curves(width, published=False),
    "curves, best": lambda width: curves(width, lines=False, published=False, best=(20, 60)),
}


def texts(figure) -> list[tuple[Text, object]]:
    """All that is written in a figure as it is drawn, with its place in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    boxes = [(text, text.get_window_extent(canvas.get_renderer())) for text in found]
    # A tick outside the axis' limits is there, but not drawn.
    shown = {id(label) for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for label in _tick_labels(axis)}
    hidden = {id(t.label1) for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for t in axis.get_major_ticks()}
    return [(text, box) for text, box in boxes if id(text) not in hidden - shown and box.width > 0]


def _tick_labels(axis):
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_clipped_or_on_top_of_something(name, width):
    figure = FIGURES[name](width)
    assert figure.get_figwidth() == WIDTHS[width] and figure.get_figheight() < 5
    written = texts(figure)
    page = figure.bbox
    assert len(written) > 6
    for text, box in written:
        assert text.get_fontsize() >= 7, text.get_text()
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1, text.get_text()
        assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, text.get_text()
    for i, (text, box) in enumerate(written):
        for other, behind in written[:i]:
            width_shared = min(box.x1, behind.x1) - max(box.x0, behind.x0)
            height_shared = min(box.y1, behind.y1) - max(box.y0, behind.y0)
            assert min(width_shared, height_shared) < 2, f"{text.get_text()!r} over {other.get_text()!r}"


def test_lines_are_told_apart_without_colour():
    drawn = [c.lines[0] for c in curves("single").axes[0].containers if isinstance(c, ErrorbarContainer)]
    looks = {(line.get_linestyle(), line.get_marker()) for line in drawn}
    assert len(looks) == len(drawn) == 2 and len({look[0] for look in looks}) == len({look[1] for look in looks}) == 2
    ours, published = FIGURES["dots"]("single").axes
    assert {line.get_marker() for line in published.lines} == {"s"}
    assert "D" in {line.get_marker() for line in ours.lines} and "s" not in {line.get_marker() for line in ours.lines}


@pytest.mark.parametrize("stacked", ["single", "double"])
def test_one_column_has_panels_above_each_other(stacked):
    places = [ax.get_subplotspec() for ax in curves(stacked).axes]
    assert [(place.rowspan.start, place.colspan.start) for place in places] == (
        [(0, 0), (1, 0)] if stacked == "single" else [(0, 0), (0, 1)]
    )


def test_a_width_that_no_paper_has():
    with pytest.raises(InputError, match="width: 'tripple' is not one of single, double"):
        curves("tripple")


# --- Figures and their CSV ------------------------------------------------------------------------------------------


def drawn_values(figure) -> list[list[float]]:
    """All that lines and bars of a figure show."""
    found = [line.get_xydata().ravel().tolist() for ax in figure.axes for line in ax.lines]
    segments = [path.vertices for ax in figure.axes for bars in ax.collections for path in bars.get_paths()]
    return found + [np.ravel(vertices).tolist() for vertices in segments]


@pytest.mark.slow
def test_a_figure_is_drawn_again_from_its_csv(tmp_path):
    collected = collected_of(DOTS, "local")
    table = plotted(collected)
    figure = draw(collected.study, table, "single")
    written = save_with_table(figure, table, tmp_path / "dots")
    assert [path.name for path in written] == ["dots.pdf", "dots.png", "dots.svg", "dots.csv"]
    read = pd.read_csv(tmp_path / "dots.csv")
    assert read["setting"].tolist() == LOSSES and read["mean"].tolist() == [row[2] for row in DOTS]
    assert np.allclose(read[["seed 0", "seed 1", "seed 2"]].std(axis=1, ddof=1), read["spread"])
    again = draw(collected.study, read, "single")
    assert drawn_values(again) == [pytest.approx(line) for line in drawn_values(figure)]
    save_with_table(again, read, tmp_path / "again")
    assert (imread(tmp_path / "again.png") == imread(tmp_path / "dots.png")).all()
    values = drawn_values(figure)
    assert any(40.0 in line and 65.0 in line for line in values) and any(21.6 in line for line in values)


def test_settings_along_an_axis_are_in_the_csv():
    collected = collected_of(
        DOTS[:3],
        "local",
        rows=[{"name": name, "settings": {"mask.ratio": 0.1 * i}} for i, name in enumerate(LOSSES[:3])],
        plot={"x": "mask.ratio", "x_label": "corrupted share"},
        published={"source": "paper", "metric": "mAP", "differs": "all", "best": [0.05, 0.15]},
    )
    collected.summary["mask.ratio"] = [0.0, 0.1, 0.2]
    table = plotted(collected)
    assert table["mask.ratio"].tolist() == [0.0, 0.1, 0.2]
    assert (table["best_from"] == 0.05).all() and (table["best_to"] == 0.15).all()
    read = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert drawn_values(draw(collected.study, read, "double")) == [
        pytest.approx(line) for line in drawn_values(draw(collected.study, table, "double"))
    ]
    words = in_words(collected.study, table)
    assert words.startswith("Curves over corrupted share: linear probe, accuracy (%). ")
    assert "local 50 (published 18.6)." in words


# --- Pictures of a run ----------------------------------------------------------------------------------------------


def pictures():
    generator = np.random.default_rng(0)
    clean = generator.normal(size=(96, 64))
    mask = np.zeros((96, 64), bool)
    mask[20:60, 10:40] = True
    clip = (clean, np.where(mask, 0, clean), 0.5 * clean, mask)
    titled = [(*clip, "a class with a very long name, clip 17"), (*clip, "dog, clip 3")]
    none = (clean, clean, clean, np.zeros_like(mask), "dog, clip 4")
    return {
        "clips": reconstruction_strip(titled, AXES),
        "nothing corrupted": reconstruction_strip([none], AXES),
        "masks": mask_strip(clean, [mask, ~mask, mask & False], ["zeros: 20 %", "alien: 80 %", "none: 0 %"], AXES),
    }


def test_pictures_of_a_run_fit_a_page():
    for name, figure in pictures().items():
        assert figure.get_figwidth() == WIDTHS["double"]
        for text, box in texts(figure):
            assert text.get_fontsize() >= 7, (name, text.get_text())
            assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, (name, text.get_text())
            assert box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, (name, text.get_text())


@pytest.mark.parametrize(
    ("kinds", "shown"),
    [
        (["zeros"] * 5, [0, 1, 2]),
        (["none", "none", "zeros", "zeros", "zeros"], [2, 3, 0]),
        (["zeros", "zeros", "alien", "zeros", "noise"], [0, 2, 4]),
        (["none"] * 4, [0, 1, 2]),
    ],
)
def test_masks_of_each_kind_are_shown(kinds, shown):
    assert _of_each_kind(kinds) == shown


def test_reconstructions_show_what_they_are_given():
    figure = pictures()["clips"]
    panels = [ax for ax in figure.axes if ax.images and ax.get_subplotspec() is not None]
    assert len(panels) == 8
    clean, corrupted, _, error = (ax.images[0].get_array().T for ax in panels[:4])
    assert corrupted.mask[20:60, 10:40].all() and (corrupted[:20] == clean[:20]).all()
    assert error.mask[:20].all() and np.allclose(error[20:60, 10:40], 0.5 * np.abs(clean[20:60, 10:40]))
    assert panels[3].get_title("left") == f"error, mean {error.mean():.3f}"
    with pytest.raises(InputError, match="clips: expected at least one"):
        reconstruction_strip([], AXES)
    with pytest.raises(InputError, match="masks: expected a title for each"):
        mask_strip(np.zeros((4, 4)), [np.zeros((4, 4), bool)], [], AXES)
