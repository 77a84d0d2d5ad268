"""The two figures that compare encoders' attention: what is drawn where, in which units, and that nothing overlaps."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from test_figures import check_layout, drawn_texts

from asit_lab import figures
from asit_lab.errors import InputError
from asit_lab.figures import MelAxes

AXES = MelAxes(hop_seconds=0.01, sample_rate=16000, normalised=True)
OTHER = MelAxes(hop_seconds=0.01, sample_rate=32000, normalised=True)
PATCH, GRID = (16, 16), (12, 4)
LAM = 0.1


def clip(title: str, differential: bool, seed: int = 0):
    """What evaluation.compare_attention would give, with a silent end and the patch (5, 2)."""
    rng = np.random.default_rng(seed)
    first, second = (rng.dirichlet(np.full(48, 0.3), 2).reshape(2, *GRID) for _ in range(2))
    maps = {"map": first - LAM * second, "first": first, "second": second} if differential else {"map": first}
    silent = np.zeros(GRID, dtype=bool)
    silent[-2:] = True
    log_mel = np.random.default_rng(9).normal(size=(192, 64))
    return title, log_mel, silent, (5, 2), maps, LAM if differential else None


def grid_of(figure, columns: int) -> np.ndarray:
    """The panels, [2, columns]; colour bars come after them."""
    return np.array(figure.axes[: 2 * columns]).reshape(2, columns)


def shown(ax) -> np.ndarray:
    """What a panel shows, one value a patch: [time, freq]."""
    return np.asarray(ax.images[0].get_array()).T[::16, ::16]


def test_softmax_beside_both_softmaxes_and_their_difference():
    one, two = clip("A: softmax run", False), clip("B: differential run", True, seed=1)
    figure = figures.attention_comparison([one, two], [AXES, AXES], [PATCH, PATCH])
    check_layout(figure)
    panels = grid_of(figure, 5)
    titles = [ax.get_title(loc="left") for ax in panels[0]]
    assert titles == ["log-mel", "softmax", "first softmax", "second softmax", "first \u2212 0.1 \u00d7 second"]
    for column, values in enumerate([one[4]["map"], two[4]["first"], two[4]["second"], two[4]["map"]], start=1):
        for row in (0, 1):
            np.testing.assert_allclose(shown(panels[row, column]), 100 * values[row])  # percent
    texts = [text.get_text() for text in drawn_texts(figure)]
    for wanted in ("A: softmax run", "B: differential run", "query:\nclass token", "query:\nframed patch"):
        assert texts.count(wanted) == 1
    assert texts.count("time (s)") == 5 and texts.count("frequency (Hz)") == 2
    assert any("hatched: silent" in text for text in texts) and any("hatched: negative" in text for text in texts)


def test_scales_are_shared_and_the_difference_is_centred():
    figure = figures.attention_comparison([clip("A", False), clip("B", True)], [AXES] * 2, [PATCH] * 2)
    panels = grid_of(figure, 5)
    softmaxes = {ax.images[0].get_clim() for ax in panels[:, 1:4].flat}
    assert len(softmaxes) == 1 and softmaxes.pop()[0] == 0
    norms = [ax.images[0].norm for ax in panels[:, 4]]
    assert all(norm.vmin == -norm.vmax and norm(0.0) == pytest.approx(0.5) for norm in norms)
    quarter = norms[0](norms[0].vmax / 4)
    assert quarter == pytest.approx(0.75)  # a square root: half way from the centre to the end


def test_names_of_rows_are_no_longer_than_a_panel():
    figure = figures.attention_comparison([clip("A", False), clip("B", True)], [AXES] * 2, [PATCH] * 2)
    check_layout(figure)
    for ax in grid_of(figure, 5)[:, 0]:
        (name,) = (text for text in ax.texts if text.get_text().startswith("query:"))
        written, panel = name.get_window_extent(), ax.get_window_extent()
        assert panel.y0 <= written.y0 and written.y1 <= panel.y1


def test_even_attention_is_in_the_middle_of_the_scale_and_marked():
    """Not the brightest colour, which would say that all patches are attended to much."""
    two = clip("B", True)
    for values in two[4].values():
        values[:] = 1 / 48
    figure = figures.attention_comparison([two], [AXES], [PATCH])
    check_layout(figure)
    panels = grid_of(figure, 4)
    assert all(ax.images[0].get_clim() == pytest.approx((0, 200 / 48)) for ax in panels[:, 1:3].flat)
    assert all(ax.images[0].get_clim() == pytest.approx((-200 / 48, 200 / 48)) for ax in panels[:, 3])
    marked = {bar.get_xlabel(): [line.get_xdata()[0] for line in bar.lines] for bar in figure.axes[8:]}
    (label,) = (name for name, places in marked.items() if places)
    assert "attention on a patch (%)" in label and label.endswith("line: even, 2.1 %")
    assert marked[label] == pytest.approx([100 / 48])
    alone = figures.class_attention(two[1], two[4]["first"], AXES)
    assert alone.axes[1].images[0].get_clim() == pytest.approx((0, 200 / 48))


def test_negative_patches_are_hatched_and_the_query_is_framed():
    two = clip("B", True)
    panels = grid_of(figures.attention_comparison([two], [AXES], [PATCH]), 4)
    for row in (0, 1):
        (hatched,) = [each for each in panels[row, 3].collections if isinstance(each, PatchCollection)]
        area = sum(path.get_extents().width * path.get_extents().height for path in hatched.get_paths())
        assert hatched.get_hatch() and area == pytest.approx((two[4]["map"][row] < 0).sum() * 0.16 * 16)
    for row, frames in ((0, 0), (1, 2)):  # black under white
        for ax in panels[row]:
            framed = [each.get_bbox().bounds for each in ax.patches if isinstance(each, Rectangle)]
            assert len(framed) == frames
            for bounds in framed:
                assert bounds == pytest.approx((5 * 0.16, 32, 0.16, 16))


def test_other_front_ends_have_their_own_log_mel():
    figure = figures.attention_comparison([clip("A", True), clip("B", False)], [AXES, OTHER], [PATCH] * 2)
    check_layout(figure)
    titles = [ax.get_title(loc="left") for ax in grid_of(figure, 6)[0]]
    assert [number for number, title in enumerate(titles) if title == "log-mel"] == [0, 4]


def test_long_names_stay_over_their_own_columns():
    names = ("A: " + "a run with a long name " * 4, "B: " + "another one that is as long " * 4)
    figure = figures.attention_comparison([clip(names[0], False), clip(names[1], True)], [AXES] * 2, [PATCH] * 2)
    check_layout(figure)


def test_rows_without_values_are_grey():
    """The class token before it joins has no attention: NaN, which is not drawn."""
    two = clip("B", True)
    for values in two[4].values():
        values[0] = np.nan
    figure = figures.attention_comparison([two], [AXES], [PATCH])
    check_layout(figure)
    assert np.ma.getmaskarray(grid_of(figure, 4)[0, 1].images[0].get_array()).all()


def test_comparison_rejects():
    one = clip("A", True)
    with pytest.raises(InputError, match="got 1 clips, 2 axes, 1 patches"):
        figures.attention_comparison([one], [AXES, AXES], [PATCH])
    with pytest.raises(InputError, match="expected at least one"):
        figures.attention_comparison([], [], [])
    with pytest.raises(InputError, match="12 x 4 patches of 32 frames"):
        figures.attention_comparison([one], [AXES], [(32, 16)])
    one[4]["second"] = one[4]["second"][:1]
    with pytest.raises(InputError, match=r"maps\['second'\]: expected shape \[2, 12, 4\], got \[1, 12, 4\]"):
        figures.attention_comparison([one], [AXES], [PATCH])


# --- Layer by layer -------------------------------------------------------------------------------------------------


def table(kinds: tuple[str, ...], layers: int = 4, even: float = 0.2) -> pd.DataFrame:
    rng = np.random.default_rng(len(kinds))
    rows = [(layer, kind, query) for layer in range(layers) for kind in kinds for query in ("class token", "patches")]
    made = pd.DataFrame(rows, columns=["layer", "kind", "query"])
    made["entropy_normalised"] = rng.uniform(0.5, 1, len(made))
    made["share_on_silent"] = rng.uniform(0, 0.4, len(made)) if even == even else np.nan
    return made.assign(even_share=even)


def test_lines_are_the_table_s():
    tables = {"A: one": table(("map",)), "B: other": table(("map", "first", "second"))}
    figure = figures.attention_by_layer(tables)
    check_layout(figure)
    assert len(figure.axes) == 4
    lines = {line.get_label(): line for line in figure.axes[1].get_lines()}
    rows = tables["B: other"].query("kind == 'second' and query == 'class token'")
    np.testing.assert_allclose(lines["B: other: second softmax"].get_ydata(), 100 * rows["share_on_silent"])
    np.testing.assert_allclose(lines["even attention"].get_ydata(), 20)
    assert {"A: one: softmax", "B: other: difference", "B: other: first softmax"} <= set(lines)
    styles = [(line.get_linestyle(), line.get_color()) for name, line in lines.items() if ":" in name]
    assert len(set(styles)) == 4
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(legend) == sorted(lines)  # each once


def test_a_clip_without_silence():
    figure = figures.attention_by_layer({"A": table(("map",), even=float("nan"))})
    check_layout(figure)
    assert [text.get_text() for text in figure.axes[1].texts] == ["no silent patches"]
    assert figure.axes[0].get_lines()


def test_by_layer_rejects():
    with pytest.raises(InputError, match="expected at least one"):
        figures.attention_by_layer({})
    with pytest.raises(InputError, match="missing columns .*even_share"):
        figures.attention_by_layer({"A": table(("map",)).drop(columns="even_share")})
