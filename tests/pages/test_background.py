"""Work in the background reports, stops between its steps, goes on, and hands its errors over."""

from __future__ import annotations

import threading

from clipsel_core.curation.index import passes
from clipsel_core.errors import RunError
from pages.parts.background import Work
from tests.waiting import PATIENCE_S


def test_work__reports_and_ends():
    said = []

    def do(report):
        report(0.5, "half")
        said.append(work.share)

    work = Work(do)
    assert not work.active
    work.start()
    work.wait(PATIENCE_S)
    assert (said, work.said, work.finished, work.stopped, work.active) == ([0.5], "half", True, False, False)
    work.start()
    assert not work.active


def test_work__stops_at_its_next_report_and_goes_on():
    done, gate, begun = [], threading.Event(), threading.Event()

    def do(report):
        for step in range(len(done), 3):
            report(step / 3, str(step))
            begun.set()
            gate.wait(PATIENCE_S)
            done.append(step)

    work = Work(do)
    work.start()
    assert begun.wait(PATIENCE_S)
    work.stop()
    gate.set()
    work.wait(PATIENCE_S)
    assert (done, work.stopped, work.finished) == ([0], True, False)
    work.start()
    work.wait(PATIENCE_S)
    assert (done, work.stopped, work.finished) == ([0, 1, 2], False, True)


def test_work__stops_between_two_parts_of_all_pairs():
    begun, gate = threading.Event(), threading.Event()

    def part(start, stop):
        begun.set()
        return gate.wait(PATIENCE_S)

    work = Work(lambda report: passes.in_parts(part, 400 * passes._PART))
    work.start()
    assert begun.wait(PATIENCE_S)
    work.stop()
    gate.set()
    work.wait(PATIENCE_S)
    assert (work.active, work.stopped, work.finished, work.error) == (False, True, False, None)


def test_work__started_while_it_is_stopping_does_not_run_twice():
    running, most, gate = [], [], threading.Event()

    def do(report):
        running.append(1)
        most.append(len(running))
        gate.wait(PATIENCE_S)
        try:
            report(1, "")
        finally:
            running.pop()

    work = Work(do)
    work.start()
    work.stop()
    gate.set()
    work.start()
    work.wait(PATIENCE_S)
    assert max(most) == 1
    assert work.finished


def test_work__its_error_is_kept():
    def do(report):
        raise RunError("here", expected="a", found="b")

    work = Work(do)
    work.start()
    work.wait(PATIENCE_S)
    assert isinstance(work.error, RunError)
    assert not work.finished


def test_work__hands_over_what_nobody_expected():
    def do(report):
        raise MemoryError("no room")

    work = Work(do)
    work.begin()
    work.wait(PATIENCE_S)
    assert isinstance(work.error, MemoryError)
    assert not work.active
    assert not work.finished
