"""Long work behind an explorer: in the foreground, in a thread, cancelled, failed."""

import asyncio
import signal
import threading

import pytest

from asit_lab.errors import InputError
from asit_lab.widgets.work import Cancelled, LongWork


def test_in_the_foreground_it_is_done_at_once_and_interrupt_passes_through():
    work, results, words = LongWork(), [], []

    def count(report):
        report(1, 4)
        words.append((work.words.value, work.bar.value, work.bar.max, work.busy))
        return 4

    work.run("counting", count, results.append, background=False)
    assert results == [4] and not work.busy
    assert (
        words[0][0].startswith("counting: 1 of 4, ") and words[0][0].endswith(" left") and words[0][1:] == (1, 4, True)
    )

    def interrupted(report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work.run("counting", interrupted, results.append, background=False)
    assert results == [4] and not work.busy


@pytest.mark.parametrize("stop", ["cancel", "interrupt"])
def test_in_a_thread_the_loop_goes_on_and_cancel_or_interrupt_stops_it(stop):
    results, began = [], threading.Event()

    def endless(report):
        began.set()
        for part in range(10**6):
            report(part, 10**6)
            threading.Event().wait(0.001)
        return "never"

    async def press() -> LongWork:
        before = signal.getsignal(signal.SIGINT)
        work = LongWork()
        work.run("embedding", endless, results.append, background=True)
        await asyncio.to_thread(began.wait, 20)
        assert work.busy and results == []
        work.cancel.click() if stop == "cancel" else signal.raise_signal(signal.SIGINT)
        await asyncio.wait_for(work.task, 20)
        await asyncio.sleep(0)
        assert signal.getsignal(signal.SIGINT) is before
        return work

    work = asyncio.run(press())
    assert isinstance(results[0], Cancelled) and str(results[0]) == "embedding cancelled" and not work.busy


def test_cancel_stops_all_that_runs_and_the_bar_stays_until_the_last():
    work, results = LongWork(), []
    go = threading.Event()

    def quick(report):
        go.wait(20)
        return "quick"

    def endless(report):
        while True:
            report(1, 2)
            threading.Event().wait(0.001)

    async def press() -> None:
        before = signal.getsignal(signal.SIGINT)
        work.run("one", endless, results.append, background=True)
        first = work.task
        work.run("two", quick, results.append, background=True)
        second = work.task
        go.set()
        await asyncio.wait_for(second, 20)
        assert results == ["quick"] and work.busy and work.layout.display is None
        work.run("three", endless, results.append, background=True)
        work.cancel.click()
        await asyncio.wait_for(asyncio.gather(first, work.task), 20)
        await asyncio.sleep(0)
        assert signal.getsignal(signal.SIGINT) is before

    asyncio.run(press())
    assert sorted(map(str, results)) == ["one cancelled", "quick", "three cancelled"]
    assert not work.busy and work.layout.display == "none"


def test_cancel_stops_work_that_tells_no_progress():
    work, results, go = LongWork(), [], threading.Event()

    async def press() -> None:
        work.run("projecting", lambda report: go.wait(20), results.append, background=True)
        work.cancel.click()
        go.set()
        await asyncio.wait_for(work.task, 20)

    asyncio.run(press())
    assert [str(result) for result in results] == ["projecting cancelled"]


def test_the_bar_tells_of_what_still_runs():
    work, go = LongWork(), threading.Event()

    def reporting(report):
        report(2, 3)

    async def follow() -> None:
        work.run("projecting", lambda report: go.wait(20), lambda result: None, background=True)
        first = work.task
        work.run("measuring", reporting, lambda result: None, background=True)
        await asyncio.wait_for(work.task, 20)
        assert (work.words.value, work.bar.value) == ("projecting ...", 0)
        go.set()
        await asyncio.wait_for(first, 20)

    asyncio.run(follow())
    assert not work.busy and work.layout.display == "none"


def test_interrupt_is_given_back_where_controls_are_answered_in_another_thread():
    async def controls(work: LongWork) -> None:
        work.run("quick", lambda report: None, lambda result: None, background=True)
        await asyncio.wait_for(work.task, 20)

    async def home() -> None:
        work, before = LongWork(), signal.getsignal(signal.SIGINT)
        for _ in range(50):
            await asyncio.to_thread(lambda: asyncio.run(controls(work)))
            await asyncio.sleep(0)
            assert signal.getsignal(signal.SIGINT) is before

    asyncio.run(home())


def test_a_failure_in_a_thread_is_handed_on():
    work, results = LongWork(), []

    def fail(report):
        raise InputError("no such clip")

    async def follow():
        work.run("embedding", fail, results.append, background=True)
        await asyncio.wait_for(work.task, 20)

    asyncio.run(follow())
    assert str(results[0]) == "no such clip"
