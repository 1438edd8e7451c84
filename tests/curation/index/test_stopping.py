"""Long work ends between its parts when it is not wanted any more, and leaves nothing half done behind."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from clipsel_core.curation.index import passes, stopping
from tests.waiting import PATIENCE_S


class _Enough(Exception):
    pass


def until(asked: int):
    """A question that says no when it is asked for the last of so many times."""
    times = iter(range(1, asked + 1))

    def question() -> None:
        if next(times) == asked:
            raise _Enough

    return question


def test_in_threads__answers_in_order():
    with ThreadPoolExecutor(3) as threads:
        assert stopping.in_threads(threads, divmod, range(50), [7] * 50) == [divmod(n, 7) for n in range(50)]


def test_in_threads__leaves_what_was_not_begun_and_waits_for_what_was():
    begun, ended, left = [], [], threading.Event()

    class Noting(ThreadPoolExecutor):
        """Notes when the first part is left."""

        def submit(self, *asked):
            part = super().submit(*asked)
            part.add_done_callback(lambda part: part.cancelled() and left.set())
            return part

    def work(part: int) -> None:
        begun.append(part)
        assert part < 2 or left.wait(PATIENCE_S)
        ended.append(part)

    with Noting(2) as threads, stopping.asking(until(2)):
        with pytest.raises(_Enough):
            stopping.in_threads(threads, work, range(20))
        assert len(begun) < 20
        assert sorted(ended) == sorted(begun)


def test_in_threads__hands_over_what_the_work_raises():
    def fail(part: int) -> None:
        raise ValueError(part)

    with ThreadPoolExecutor(2) as threads, pytest.raises(ValueError, match="0"):
        stopping.in_threads(threads, fail, range(9))


def test_asking__holds_for_one_thread_and_one_block():
    pairs = 3 * passes._PART
    with stopping.asking(until(2)):
        with pytest.raises(_Enough):
            passes.in_parts(lambda start, stop: None, pairs)
        with ThreadPoolExecutor(1) as threads:
            assert len(threads.submit(passes.in_parts, lambda start, stop: start, pairs).result(PATIENCE_S)) == 3
    assert len(passes.in_parts(lambda start, stop: start, pairs)) == 3
