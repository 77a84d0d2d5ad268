"""A slider moved five hundred times: how quickly the picture follows, and what stays behind in kernel and notebook."""

import statistics

import pytest
from explorer_case import Explorer, zigzag

pytestmark = pytest.mark.browser

MOVES = 500
GROWTH = 30e6  # bytes that the kernel may grow by; a leak of one picture a move would be more than that


def test_five_hundred_moves_leave_nothing_behind(opened, lab):
    notebook = opened("explore_masks")
    notebook.run_all()
    explorer = Explorer(notebook, "asit-mask")
    slider = explorer.control("ratio (%)")
    explorer.answers(slider, zigzag(20))  # caches fill
    memory, size = lab.kernel().memory_info().rss, notebook.save()
    times = explorer.answers(slider, zigzag(MOVES))
    explorer.settle()
    memory_after, size_after = lab.kernel().memory_info().rss, notebook.save()
    print(
        f"\n{MOVES} moves of a slider"
        f"\n  kernel memory   {memory / 1e6:8.1f} -> {memory_after / 1e6:8.1f} MB"
        f"\n  notebook file   {size / 1e3:8.1f} -> {size_after / 1e3:8.1f} kB"
        f"\n  key to picture  median {statistics.median(times):.0f} ms, slowest {max(times):.0f} ms"
    )
    assert memory_after - memory < GROWTH
    assert abs(size_after - size) < 1000
