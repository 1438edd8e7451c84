"""What happens side by side: the next item is read and the last one written while one is computed."""

from __future__ import annotations

import threading

import pytest

from clipsel_core.errors import ScoringError
from clipsel_core.tasks import check
from clipsel_core.workers import check_asked, results
from tests.waiting import until


class Here:
    """Workers of three threads of this process."""

    at_once, tried_again = 3, 0

    def __init__(self, do):
        self.do = lambda unit, _: do(unit)


def in_turn(items, read, compute, write):
    """Works as a run does with its groups: computes under a lock."""
    room, computing = threading.Semaphore(2), threading.Lock()

    def work(item):
        with room:
            found = read(item)
            with computing:
                check()
                done = compute(item, found)
        write(item, done)

    with results(Here(work), items) as found:
        list(found)


def test_results__reads_the_next_and_writes_the_last_meanwhile():
    """Each computation waits until another item is read; each writing, until another is computed."""
    read, computed, held, most, seen = [], [], set(), [], []

    def reading(item):
        held.add(item)
        most.append(len(held))
        read.append(item)
        return 10 * item

    def computing(item, found):
        assert found == 10 * item
        until(lambda: len(read) >= min(5, len(computed) + 2))
        held.discard(item)
        computed.append(item)
        return found + 1

    def writing(item, done):
        place = computed.index(item)
        until(lambda: len(computed) >= min(5, place + 2))
        seen.append((item, done))

    in_turn(range(5), reading, computing, writing)
    assert sorted(seen) == [(item, 10 * item + 1) for item in range(5)]
    assert max(most) == 2


@pytest.mark.parametrize("fails", ["read", "compute", "write"])
def test_results__finishes_what_came_before_a_failure(fails):
    """Those after it are stopped at work, wherever they are."""
    written = []

    def step(name, item):
        if name == fails and item == 2:
            raise ValueError(name)
        while name == "compute" and item > 2:
            check()

    def write(item, done):
        step("write", item)
        written.append(item)

    with pytest.raises(ValueError, match=fails):
        in_turn(range(9), lambda i: step("read", i), lambda i, found: step("compute", i), write)
    assert written == [0, 1]


def test_results__come_in_their_order():
    done = []

    def do(unit):
        if unit % 3 == 0:
            until(lambda: {unit + 1, unit + 2} <= set(done))
        done.append(unit)
        return 10 * unit

    with results(Here(do), range(9)) as found:
        assert list(found) == [10 * unit for unit in range(9)]
    assert done != sorted(done)


def test_results__left_early_end_what_is_at_work():
    """Whoever takes them fails at the first: all others are asked to stop, and none begins any more."""
    ended = []

    def do(unit):
        try:
            while unit:
                check()
        finally:
            ended.append(unit)

    def take():
        with results(Here(do), range(99)) as found:
            next(found)
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        take()
    assert len(ended) <= 5


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        (("cuda:1", "auto", None), "--device: expected auto, cpu or cuda for a cluster, found cuda:1"),
        (("auto", None, 2), "--cpus-per-worker: expected --cluster with it, found none"),
    ],
)
def test_check_asked__names_what_does_not_fit(asked, wrong):
    with pytest.raises(ScoringError, match=wrong):
        check_asked(*asked)
